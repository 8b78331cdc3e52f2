"""Grid Engine: qsub, qstat, qacct, qdel."""

from __future__ import annotations

import os
import pwd
import re
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from psyrun.errors import NoAnswerError, SchedulerError
from psyrun.scheduler.batchsystem import BatchSystem, Option, QueueEntry, job_script
from psyrun.scheduler.durations import parse_duration, warning_seconds
from psyrun.scheduler.protocol import STOPPED, JobState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from psyrun.scheduler.protocol import JobSpec


def write_limit(value: Any) -> str:
    """Return a time limit for Grid Engine, with another, before it, at which it sends SIGUSR1.

    Examples
    --------
    >>> write_limit("2h")
    'h_rt=7200,s_rt=7080'
    """
    limit = parse_duration(value)
    return f"h_rt={limit},s_rt={max(1, limit - warning_seconds(limit))}"


def write_memory(value: Any) -> str:
    """Return an amount of memory for Grid Engine, which takes a number for bytes.

    Examples
    --------
    >>> write_memory(500), write_memory("1.5G")
    ('500M', '1.5G')
    """
    text = str(value).strip()
    return f"{text}M" if text.isdecimal() else text


_OPTIONS = {
    "timelimit": Option(
        ("-l", "{}"), "time limit: minutes, [days-]hours:minutes:seconds, or such as 2h", write_limit
    ),
    "memory": Option(
        ("-l", "h_vmem={}"),
        "limit of the address space per core, more than what is used: MiB, or with a unit such as 4G",
        write_memory,
    ),
    "n_cpus": Option((), "cores per job; a job employs a process on each"),
    "pe": Option((), "parallel environment that grants n_cpus on one host, smp where it is not set"),
    "queue": Option(("-q", "{}"), "queue"),
    "project": Option(("-P", "{}"), "project to charge"),
    "max_running": Option((), "so many jobs run at a time at most"),
    "extra": Option((), "further options of qsub, such as ['-l', 'gpu=1']"),
}
_DEFAULT_ARRAY_LIMIT = 75000  # max_aj_tasks where the site sets none
_LONGEST_NAME = 60
_OVER_LIMIT, _AFTER_JOB = 37, 100  # what qacct calls failed: a limit was enforced; the job did not exit
_ERROR = re.compile(r"error reason\s+(\d+):\s+(?:\S+ \S+ \[\d+:\d+\]: )?(.*)")


class GridEngine(BatchSystem):
    """Runs a submission as a job array of Grid Engine.

    Parameters
    ----------
    workdir
        Not used: where psyrun 0.8 kept job scripts.

    Notes
    -----
    Options are explained by ``psy new-task --scheduler GridEngine``, and in the manual of ``qsub``.
    """

    option_table = MappingProxyType(_OPTIONS)
    merge_options = ("timelimit", "memory", "queue", "project", "extra")
    core_variables = ("NSLOTS",)
    job_variables = re.compile(
        r"SGE_(?!(ROOT|CELL|ARCH|CLUSTER_NAME|\w+_PORT)$)"
        r"|(NSLOTS|NHOSTS|NQUEUES|JOB_ID|JOB_NAME|JOB_SCRIPT|PE_HOSTFILE)$"
    )
    index_variable = "SGE_TASK_ID"
    first_index = 1
    unreachable = re.compile(
        r"commlib error|unable to (contact|send message to) qmaster|got (send|read|select) error"
        r"|unable to read qmaster name"
    )
    limit_reached = re.compile(r"job rejected: only \d+ jobs are allowed", re.IGNORECASE)
    harmless = re.compile(r"has (registered|deleted)|does not exist|already in deletion")

    def system(self) -> str:
        """Return the path of the cell, and its first master: a shadow may stand in for it."""
        cell = Path(os.environ.get("SGE_ROOT", "/var/lib/gridengine"), os.environ.get("SGE_CELL", "default"))
        for name in ("shadow_masters", "act_qmaster"):
            try:
                return f"{cell} at {(cell / 'common' / name).read_text().split()[0]}"
            except (OSError, IndexError):
                continue
        return str(cell)

    def shows_others(self) -> bool:
        """Return True: anyone may list all jobs."""
        return True

    def array_limit(self) -> int:
        """Return the site's max_aj_tasks: indices begin with 1."""
        found = re.search(r"^max_aj_tasks\s+(\d+)", self.run(["qconf", "-sconf"]), re.MULTILINE)
        return (int(found[1]) if found else 0) or _DEFAULT_ARRAY_LIMIT

    def submit_argv(self, spec: JobSpec) -> list[str]:
        """Return the command that submits.

        A shell of Grid Engine would be a login shell, whose profile sets PATH anew; so the job has none. Its
        folder and log are those that a path with any character can't spoil: `job_script` goes elsewhere.
        """
        options = spec.options
        argv = ["qsub", "-terse", "-V", "-wd", "/", "-o", "/dev/null", "-j", "y", "-r", "y"]
        argv += ["-N", _name_job(spec), *self.build_options(options)]
        if options.get("n_cpus") is not None:
            argv += ["-pe", str(options.get("pe") or "smp"), str(options["n_cpus"])]
        if spec.after:
            argv += ["-hold_jid", ",".join(spec.after)]
        if spec.indices:
            argv += ["-t", f"{spec.indices[0] + 1}-{spec.indices[-1] + 1}"]
            most = self.most_running(spec)
            argv += [] if most is None else ["-tc", str(most)]
        argv += self.build_extra(options.get("extra") or ())
        # Grid Engine drops these from the environment, and cuts arguments at newlines.
        linker = [f"{k}={v}" for k, v in spec.env.items() if k.startswith("LD_") and "\n" not in v]
        argv += ["-b", "y", "-shell", "n", "/usr/bin/env", *linker, "/bin/bash"]
        return argv + job_script(spec, self.index_variable if spec.indices else "", self.first_index)

    def read_id(self, spec: JobSpec, printed: str) -> str:
        """Return the id, which the range of an array may follow."""
        return printed.split()[-1].partition(".")[0]

    def list_queue(self, job_ids: Collection[str] | None) -> Iterable[QueueEntry]:
        """Return the entries of qstat, with reasons for those jobs that are asked for by id."""
        user = pwd.getpwuid(os.getuid()).pw_name if job_ids is None else "*"
        # Files named sge_qstat hold options of users and sites, which may be others than all states.
        entries = list(parse_queue(self.run(["qstat", "-r", "-xml", "-s", "prs", "-u", user])))
        stuck = sorted({each.job for each in entries if each.reason}.intersection(job_ids or ()))
        errors = self._list_errors(stuck) if stuck else {}
        return [
            replace(each, reason=f"{each.reason}: {errors.get((each.job, max(0, each.element)), 'held')}")
            if each.job in stuck and each.reason
            else each
            for each in entries
        ]

    def _list_errors(self, jobs: Sequence[str]) -> dict[tuple[str, int], str]:
        try:
            return parse_errors(self.run(["qstat", "-j", ",".join(jobs)]))
        except NoAnswerError:
            raise
        except SchedulerError:  # They are gone meanwhile.
            return {}

    def explain_ends(self, job_ids: Collection[str]) -> Mapping[tuple[str, int], str | None]:
        """Return how elements ended; qacct takes one id, and knows of ends some seconds after them."""
        found: dict[tuple[str, int], str | None] = {}
        for job in sorted(job_ids):
            try:
                found |= parse_accounting(self.run(["qacct", "-j", job]))
            except SchedulerError:  # None of its elements has ended, or the file is not to be seen here.
                continue
        return found

    def cancel_argv(self, job_ids: Sequence[str]) -> list[str]:
        """Return the command that cancels."""
        return ["qdel", *job_ids]


def _name_job(spec: JobSpec) -> str:
    """Return a name that begins with a letter, is not too long, and ends in the token."""
    task = spec.title.removesuffix(f".{spec.token}")
    name = task if task[0].isalpha() else f"p{task}"
    return f"{name[: _LONGEST_NAME - len(spec.token) - 1]}.{spec.token}"


# ---------------------------------------------------------------------- parsing answers


def parse_queue(text: str) -> Iterator[QueueEntry]:
    """Parse the XML of ``qstat -r``; the reason is the code of what is stuck.

    Examples
    --------
    >>> job = "<job_list><JB_job_number>7</JB_job_number><state>Eqw</state><tasks>2-4:2</tasks></job_list>"
    >>> [(each.job, each.element, each.state.name, each.reason) for each in parse_queue(f"<a>{job}</a>")]
    [('7', 1, 'STUCK', 'Eqw'), ('7', 3, 'STUCK', 'Eqw')]
    """
    from xml.etree import ElementTree as ET

    for node in ET.fromstring(text).iter("job_list"):  # noqa: S314 - of the site's own qstat
        code = node.findtext("state", "")
        state = _read_state(code, waits=node.find("predecessor_jobs") is not None)
        for element in _read_elements(node.findtext("tasks", "")):
            yield QueueEntry(
                job=node.findtext("JB_job_number", ""),
                element=element,
                state=state,
                label=node.findtext("JB_name", ""),
                reason=code if state is JobState.STUCK else "",
            )


def _read_state(code: str, *, waits: bool) -> JobState | None:
    """Return the state for letters; a job that waits for others is on hold, too."""
    letters = set(code)
    if code == "z":
        return None
    if "E" in letters or (letters >= set("hq") and not waits):
        return JobState.STUCK
    if letters & set("qw"):
        return JobState.QUEUED
    return JobState.RUNNING if letters & set("rtsST") else JobState.UNKNOWN


def _read_elements(text: str) -> Iterator[int]:
    """Yield the elements of ``1-5:2,8``, counted from 0; -1 where there is no text."""
    for first, last, step in re.findall(r"(\d+)(?:-(\d+):(\d+))?", text or "0"):
        yield from range(int(first) - 1, int(last or first), int(step or 1))


def parse_errors(text: str) -> dict[tuple[str, int], str]:
    r"""Parse ``qstat -j``: (job, element, 0 for a plain job) -> why it could not be started.

    Examples
    --------
    >>> parse_errors("job_number: 7\nerror reason 2: 11/30/2026 04:53:43 [0:81]: can't chdir to /no\n")
    {('7', 1): "can't chdir to /no"}
    """
    found, job = {}, ""
    for line in text.splitlines():
        if line.startswith("job_number:"):
            job = line.split()[1]
        elif error := _ERROR.match(line):
            found[job, int(error[1]) - 1] = error[2].strip()
    return found


def parse_accounting(text: str) -> dict[tuple[str, int], str | None]:
    r"""Parse ``qacct -j``, which has a record for each time that an element ended; None: successfully.

    Examples
    --------
    >>> record = "=====\njobnumber 7\ntaskid {}\nfailed {}\nexit_status {}\n"
    >>> parse_accounting(record.format(1, 0, 0) + record.format(2, "37 : enforced h_rt", "137 (Killed)"))
    {('7', 0): None, ('7', 1): 'over a limit (h_rt, h_cpu or h_vmem)'}
    """
    found = {}
    for record in re.split(r"^=+$", text, flags=re.MULTILINE)[1:]:
        fields = dict(re.findall(r"^(\S+)\s+(.*?)\s*$", record, re.MULTILINE))
        element = int(fields["taskid"]) - 1 if fields["taskid"].isdecimal() else -1
        code = int(fields["exit_status"].split()[0])
        found[fields["jobnumber"], element] = _describe(fields["failed"], code)
    return found


def _describe(failed: str, code: int) -> str | None:
    """Return how a job ended, from what qacct calls failed, and its exit code; None: successfully."""
    number = int(failed.split()[0])
    if number == _OVER_LIMIT:
        return "over a limit (h_rt, h_cpu or h_vmem)"
    if number == _AFTER_JOB and code > 128:
        return f"signal {code - 128}" + (" (qdel, a limit, or lack of memory)" if code == 137 else "")
    if number:
        return f"failed {' '.join(failed.split())}"
    if code == STOPPED:
        return "stopped near its time limit"
    return f"exit {code}" if code else None
