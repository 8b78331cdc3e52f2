"""OpenPBS and PBS Professional: qsub, qstat, qselect, qdel.

It follows their manuals and was tried with stand-ins for these commands only, which its tests run.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from psyrun.errors import NoAnswerError, SchedulerError
from psyrun.scheduler.batchsystem import BatchSystem, Option, QueueEntry, job_script
from psyrun.scheduler.durations import format_duration, parse_duration
from psyrun.scheduler.protocol import STOPPED, JobState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from psyrun.scheduler.protocol import JobSpec


def write_walltime(value: Any) -> str:
    """Return a time limit as PBS reads it."""
    return format_duration(parse_duration(value))


_OPTIONS = {
    "timelimit": Option(
        ("-l", "walltime={}"), "time limit: minutes, hours:minutes:seconds, or such as 2h", write_walltime
    ),
    "n_cpus": Option((), "cores per job; a job employs a process on each"),
    "memory": Option((), "memory per job, such as 4gb"),
    "select": Option(
        (),
        "replaces the request for cores and memory, such as 1:ncpus=8:mem=4gb; '' for none where forbidden",
    ),
    "place": Option(("-l", "place={}"), "placement of jobs, such as free or excl"),
    "queue": Option(("-q", "{}"), "queue"),
    "project": Option(("-P", "{}"), "project to charge"),
    "account": Option(("-A", "{}"), "account to charge"),
    "max_running": Option((), "so many jobs run at a time at most"),
    "extra": Option((), "further options of qsub, such as ['-l', 'ncpus=2']"),
}
_STATES: Mapping[str, JobState | None] = MappingProxyType(
    dict.fromkeys("REBSU", JobState.RUNNING)  # B: an array has begun; S, U: suspended
    | dict.fromkeys("QHTW", JobState.QUEUED)
    | dict.fromkeys("FX")
)
_LIMITS = MappingProxyType(
    {-24: "more cores than granted", -25: "more cores than granted", -26: "OUT_OF_MEMORY (virtual)"}
    | {-27: "OUT_OF_MEMORY", -28: "out of CPU time", -29: "TIMEOUT"}
)
_REQUESTS = MappingProxyType({"n_cpus": "ncpus", "memory": "mem"})
_SIGNALS = 256  # an exit status above: the number of the signal
_DELETED = "91"  # substate of jobs that were deleted
_DEFAULT_ARRAY_LIMIT = 10_000


class PBS(BatchSystem):
    """Runs a submission as a job array of OpenPBS or PBS Professional, which are not Torque.

    It follows their manuals, and was tried with stand-ins for their commands only.

    Parameters
    ----------
    workdir
        Not used.
    """

    option_table = MappingProxyType(_OPTIONS)
    merge_options = ("timelimit", "memory", "select", "queue", "project", "account", "extra")
    core_variables = ("NCPUS",)
    job_variables = re.compile(r"PBS_(?!(CONF_FILE|DEFAULT|EXEC|HOME|SERVER)$)|NCPUS$")
    kept_variables = re.compile(r"PBS_(CONF_FILE|DEFAULT|EXEC|HOME|SERVER)$")
    index_variable = "PBS_ARRAY_INDEX"
    warns = False  # At the time limit it sends SIGTERM, not before.
    unreachable = re.compile(
        r"[Cc]onnect(ion)? (refused|to server)|Communication failure|timed out|[Ss]erver .*shutting down"
    )
    limit_reached = re.compile(r"would exceed|Maximum number of jobs already in queue")
    harmless = re.compile(r"Unknown Job ?Id|Job has finished|historical job information")

    _server: Mapping[str, str] | None = None

    def _read_server(self, name: str) -> str:
        """Return an attribute of the server."""
        if self._server is None:
            lines = self.run(["qstat", "-B", "-f"]).splitlines()
            pairs = (re.split(r"\s*[=:]\s*", line.strip(), maxsplit=1) for line in lines)
            self._server = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
        return self._server.get(name, "")

    def system(self) -> str:
        """Return the name of the server."""
        return self._read_server("Server")

    def shows_others(self) -> bool:
        """Whether the server shows users the jobs of others."""
        return self._read_server("query_other_jobs") == "True"

    def array_limit(self) -> int:
        """Return how many elements the server allows."""
        limit = self._read_server("max_array_size")
        return int(limit) if limit.isdecimal() else _DEFAULT_ARRAY_LIMIT

    def submit(self, spec: JobSpec) -> str:
        """Write the environment of the job to its scratch folder, submit, and return the job's id."""
        # Not by -V: then qstat lists it, and prints JSON that is not valid where values have quotes.
        spec.scratch.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(spec.scratch / "start.sh", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(os.fsencode(start_script(spec)))
        return super().submit(spec)

    def submit_argv(self, spec: JobSpec) -> list[str]:
        """Return the command that submits."""
        array = len(spec.indices) > 1  # An array of one is not allowed: it is a plain job.
        argv = ["qsub", "-N", spec.token, "-j", "oe", "-o", os.devnull]
        argv += self.build_options(spec.options) + request_resources(spec.options)
        if array:
            argv += ["-J", f"{spec.indices[0]}-{spec.indices[-1]}"]
            if most := self.most_running(spec):  # Not %N in the range, which not all versions know.
                argv += ["-W", f"max_run_subjobs={most}"]
        if spec.after:
            argv += ["-W", f"depend=afterany:{':'.join(spec.after)}"]
        argv += self.build_extra(spec.options.get("extra") or ())
        argv += ["--", "/bin/bash", str(spec.scratch / "start.sh")]
        return argv + job_script(spec, self.index_variable if array else "", self.first_index)

    def read_id(self, spec: JobSpec, printed: str) -> str:
        """Return the id, ``123.server`` or, of an array, ``123[].server``."""
        return printed.strip()

    def list_queue(self, job_ids: Collection[str] | None) -> Iterable[QueueEntry]:
        """Return the entries of qstat."""
        if job_ids is None:
            job_ids = self.run(["qselect", "-u", _find_user()]).split()
        return list(parse_jobs(self._describe_jobs(job_ids), job_ids))

    def explain_ends(self, job_ids: Collection[str]) -> Mapping[tuple[str, int], str | None]:
        """Return how elements ended, where the server keeps the history of jobs."""
        return parse_ended(self._describe_jobs(job_ids), job_ids)

    def _describe_jobs(self, job_ids: Collection[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return what qstat tells of jobs that the server knows, and of their elements."""
        if not job_ids:
            return {}
        argv = ["qstat", "-f", "-F", "json", "-t", "-x", *sorted(job_ids)]
        said = ""
        try:
            text = self.run(argv)
        except NoAnswerError:
            raise
        except SchedulerError as error:
            if not self.harmless.search(error.output):
                raise
            said, brace, text = error.output.partition("{")
            text = brace + text
        return read_json(argv, text, said)

    def cancel_argv(self, job_ids: Sequence[str]) -> list[str]:
        """Return the command that cancels."""
        return ["qdel", *job_ids]


def _find_user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def start_script(spec: JobSpec) -> str:
    """Return the script that sets the environment of a job, and becomes what its arguments say."""
    names = [name for name in spec.env if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII)]
    lines = [f"exec >>{shlex.quote(str(spec.log))} 2>&1 </dev/null"]
    lines += [f"export {name}={shlex.quote(spec.env[name])}" for name in names]
    return "\n".join([*lines, 'exec /bin/bash "$@"', ""])


def request_resources(options: Mapping[str, Any]) -> list[str]:
    """Return the arguments that request cores and memory.

    Examples
    --------
    >>> request_resources({"n_cpus": 4, "memory": "2gb"})
    ['-l', 'select=1:ncpus=4:mem=2gb']
    >>> request_resources({"n_cpus": 4, "select": ""}), request_resources({})
    ([], [])
    """
    select = options.get("select")
    if select is None:
        parts = [f":{name}={options[key]}" for key, name in _REQUESTS.items() if options.get(key) is not None]
        select = f"1{''.join(parts)}" if parts else ""
    return ["-l", f"select={select}"] if select else []


# ---------------------------------------------------------------------- parsing answers


def read_json(argv: Sequence[str], text: str, said: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the jobs in what qstat printed.

    Raises
    ------
    NoAnswerError
        If it is no JSON, or lacks a job that was asked for without an error that says so: there are
        versions that print the first job alone.
    """
    asked = [each for each in argv if each[:1].isdigit()]
    try:
        found: Mapping[str, Mapping[str, Any]] = json.loads(text or "{}", strict=False).get("Jobs", {})
    except ValueError as error:
        raise NoAnswerError(argv, 0, f"no JSON ({error}): {text[:200]}") from error
    numbers = {name.partition(".")[0] for name in found}
    if lacking := [each for each in asked if each.partition(".")[0] not in numbers and each not in said]:
        raise NoAnswerError(argv, 0, f"nothing is said of {', '.join(lacking)}")
    return found


def split_id(name: str) -> tuple[str, int]:
    """Return the job and the element of an id.

    Examples
    --------
    >>> split_id("12[3].server"), split_id("12[].server"), split_id("12.server")
    (('12[].server', 3), ('12[].server', -1), ('12.server', -1))
    """
    found = re.fullmatch(r"(\d+)\[(\d*)\](.*)", name)
    if not found:
        return name, -1
    return f"{found[1]}[]{found[3]}", int(found[2] or -1)


def _list_elements(
    jobs: Mapping[str, Mapping[str, Any]], job_ids: Collection[str]
) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """Yield the job, the element and what is said of it; an array stands for no element of its own.

    A job has the id that was asked for, which may write the server's name in another way.
    """
    asked = {each.partition(".")[0]: each for each in job_ids}
    for name, fields in jobs.items():
        job, element = split_id(name)
        if element >= 0 or "[]" not in job:
            yield asked.get(job.partition(".")[0], job), element, fields


def parse_jobs(jobs: Mapping[str, Mapping[str, Any]], job_ids: Collection[str]) -> Iterator[QueueEntry]:
    """Yield the entries of the queue."""
    for job, element, fields in _list_elements(jobs, job_ids):
        state = _STATES.get(str(fields.get("job_state")), JobState.UNKNOWN)
        reason = ""
        # A job that waits for others has a system hold.
        holds = set(str(fields.get("Hold_Types", "n"))) - {"n"} - ({"s"} if "depend" in fields else set())
        if state is JobState.QUEUED and holds:
            state = JobState.STUCK
            reason = f"held ({''.join(sorted(holds))}) {fields.get('comment', '')}".strip()
        label = str(fields.get("Job_Name", ""))
        yield QueueEntry(job=job, element=element, state=state, label=label, reason=reason)


def parse_ended(
    jobs: Mapping[str, Mapping[str, Any]], job_ids: Collection[str]
) -> dict[tuple[str, int], str | None]:
    """Return (job, element) -> how it ended; None: well."""
    return {
        (job, element): _describe(fields)
        for job, element, fields in _list_elements(jobs, job_ids)
        if _STATES.get(str(fields.get("job_state")), JobState.UNKNOWN) is None
    }


def _describe(fields: Mapping[str, Any]) -> str | None:
    if str(fields.get("substate")) == _DELETED:
        return "CANCELLED"
    code = int(fields.get("Exit_status", 0))
    if code < 0:
        return _LIMITS.get(code, f"PBS could not run it ({code})")
    if code == STOPPED:
        return "stopped"
    if code > _SIGNALS:
        return f"FAILED (signal {code - _SIGNALS})"
    return f"FAILED (exit {code})" if code else None
