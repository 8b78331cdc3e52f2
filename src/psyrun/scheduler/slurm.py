"""Slurm: sbatch, squeue, sacct, scancel."""

from __future__ import annotations

import os
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from psyrun.errors import NoAnswerError, SchedulerError
from psyrun.scheduler.batchsystem import BatchSystem, Option, QueueEntry, job_script
from psyrun.scheduler.durations import format_duration, parse_duration, warning_seconds
from psyrun.scheduler.protocol import STOPPED, JobState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from psyrun.scheduler.protocol import JobSpec


def write_limit(value: Any) -> str:
    """Return a time limit for Slurm, whose words for no limit stay.

    Examples
    --------
    >>> write_limit("2h"), write_limit(90), write_limit("UNLIMITED")
    ('2:00:00', '1:30:00', 'UNLIMITED')
    """
    if str(value).strip().upper() in ("UNLIMITED", "INFINITE"):
        return str(value)
    return format_duration(parse_duration(value))


_OPTIONS = {
    "timelimit": Option(
        ("--time={}",), "time limit: minutes, [days-]hours:minutes:seconds, or such as 2h", write_limit
    ),
    "memory": Option(("--mem={}",), "memory per node: MiB, or with a unit such as 4G"),
    "memory_per_cpu": Option(("--mem-per-cpu={}",), "memory per core: MiB, or with a unit such as 4G"),
    "n_cpus": Option(("--cpus-per-task={}",), "cores per job; a job employs a process on each"),
    "n_nodes": Option(("--nodes={}",), "nodes per job"),
    "cores-per-socket": Option(("--cores-per-socket={}",), "only nodes with so many cores per socket"),
    "sockets-per-node": Option(("--sockets-per-node={}",), "only nodes with so many sockets"),
    "partition": Option(("--partition={}",), "partition"),
    "account": Option(("--account={}",), "account to charge"),
    "qos": Option(("--qos={}",), "quality of service"),
    "gres": Option(("--gres={}",), "generic resources, such as gpu:1"),
    "constraint": Option(("--constraint={}",), "features that nodes have to have"),
    "max_running": Option((), "so many jobs run at a time at most"),
    "extra": Option((), "further options of sbatch, such as ['--exclusive']"),
}
_RUNNING = "RUNNING COMPLETING CONFIGURING SUSPENDED STOPPED RESIZING SIGNALING STAGE_OUT"
_QUEUED = "PENDING REQUEUED REQUEUE_FED"
_STUCK = "REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT"
_ENDED = (
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED LAUNCH_FAILED NODE_FAIL"
    " OUT_OF_MEMORY PREEMPTED RECONFIG_FAIL REVOKED TIMEOUT"
)
_STATES: Mapping[str, JobState | None] = MappingProxyType(
    dict.fromkeys(_RUNNING.split(), JobState.RUNNING)
    | dict.fromkeys(_QUEUED.split(), JobState.QUEUED)
    | dict.fromkeys(_STUCK.split(), JobState.STUCK)
    | dict.fromkeys(_ENDED.split(), None)
)
# Reasons for which a job stays in the queue until a user, or the site, changes something about it.
_STUCK_REASONS = re.compile(
    r"JobHeld(User|Admin)|(launch failed requeued|job requeued in) held"
    r"|DependencyNeverSatisfied|BadConstraints|Partition(NodeLimit|TimeLimit|Config)|Invalid(Account|QOS)|AccountNotAllowed|QOSNotAllowed"
)
_DEFAULT_ARRAY_LIMIT = 1001  # MaxArraySize where the site sets none


class Slurm(BatchSystem):
    """Runs a submission as a job array of Slurm.

    Parameters
    ----------
    workdir
        Not used: where psyrun 0.8 kept job scripts.

    Notes
    -----
    Options are explained by ``psy new-task --scheduler Slurm``, and in the manual of ``sbatch``.
    """

    option_table = MappingProxyType(_OPTIONS)
    merge_options = (
        *("timelimit", "memory", "memory_per_cpu", "partition", "account", "qos", "constraint"),
        "extra",
    )
    core_variables = ("SLURM_CPUS_PER_TASK",)
    job_variables = re.compile(r"SLURM_(?!CONF$)|SLURMD_|SBATCH_(CPU|MEM)_BIND")
    index_variable = "SLURM_ARRAY_TASK_ID"
    unreachable = re.compile(
        r"Unable to contact|Communication connection failure|Socket timed out|Connection refused"
        r"|Zero Bytes were transmitted|Transport endpoint|Slurm backup controller in standby"
    )
    limit_reached = re.compile(
        r"MaxSubmitJob|MaxJobCount|Resource temporarily unavailable|temporarily unable"
    )
    harmless = re.compile(r"Invalid job id|already comple|Job/step already")

    _config: Mapping[str, str] | None = None

    def _read_config(self, name: str) -> str:
        """Return a setting of the site."""
        if self._config is None:
            lines = self.run(["scontrol", "show", "config"]).splitlines()
            self._config = {key.strip(): value.strip() for key, _, value in (x.partition("=") for x in lines)}
        return self._config.get(name, "")

    def system(self) -> str:
        """Return the name of the cluster."""
        return self._read_config("ClusterName")

    def shows_others(self) -> bool:
        """Whether the site shows users the jobs of others."""
        return "jobs" not in self._read_config("PrivateData")

    def array_limit(self) -> int:
        """Return the site's MaxArraySize, which the largest index has to be below."""
        limit = self._read_config("MaxArraySize")
        return max(1, int(limit)) if limit.isdecimal() else _DEFAULT_ARRAY_LIMIT

    def submit_argv(self, spec: JobSpec) -> list[str]:
        """Return the command that submits."""
        argv = ["sbatch", "--parsable", "--export=ALL", "--open-mode=append", f"--job-name={spec.title}"]
        # Relative: in an absolute path, a % would begin a pattern.
        argv += [f"--chdir={spec.folder}", f"--output={os.path.relpath(spec.log, spec.folder)}"]
        argv += self.build_options(spec.options)
        argv.append(f"--signal=B:USR1@{_warn_before(spec.options.get('timelimit'))}")
        if spec.after:
            argv += [f"--dependency=afterany:{':'.join(spec.after)}", "--kill-on-invalid-dep=yes"]
        if spec.indices:
            first, last = spec.indices[0], spec.indices[-1]
            span = str(first) if first == last else f"{first}-{last}"
            most = self.most_running(spec)
            argv.append(f"--array={span}" + ("" if most is None else f"%{most}"))
        argv += self.build_extra(spec.options.get("extra") or ())
        return argv + job_script(spec, self.index_variable if spec.indices else "", self.first_index)

    def read_id(self, spec: JobSpec, printed: str) -> str:
        """Return the id, which a name of a cluster may follow."""
        return printed.strip().partition(";")[0]

    def list_queue(self, job_ids: Collection[str] | None) -> Iterable[QueueEntry]:
        """Return the entries of squeue."""
        chosen = f"--user={os.getuid()}" if job_ids is None else f"--jobs={','.join(sorted(job_ids))}"
        argv = ["squeue", "--noheader", "--array", chosen, "--format=%F|%K|%T|%r|%j"]
        try:
            return list(parse_queue(self.run(argv, env=_plain_env())))
        except NoAnswerError:
            raise
        except SchedulerError as error:
            if self.harmless.search(error.output):  # None of the jobs is known any more.
                return ()
            raise

    def explain_ends(self, job_ids: Collection[str]) -> Mapping[tuple[str, int], str | None]:
        """Return how elements ended, from accounting and from what squeue still lists."""
        jobs = f"--jobs={','.join(sorted(job_ids))}"
        accounting = ["sacct", "--noheader", "--parsable2", "--allocations", "--allusers", jobs]
        listing = ["squeue", "--noheader", "--array", "--states=all", jobs]
        found: dict[tuple[str, int], str | None] = {}
        for argv, parse in (
            ([*accounting, "--format=JobID,State,ExitCode"], parse_accounting),
            ([*listing, "--Format=ArrayJobID:|,ArrayTaskID:|,State:|,exit_code:|"], parse_ended),
        ):
            try:
                found |= parse(self.run(argv, env=_plain_env()))
            except SchedulerError:  # There is no accounting, or no answer.
                continue
        arrays = {job for job, element in found if element >= 0}  # Accounting may lag.
        return {key: why for key, why in found.items() if key[1] >= 0 or key[0] not in arrays}

    def cancel_argv(self, job_ids: Sequence[str]) -> list[str]:
        """Return the command that cancels."""
        return ["scancel", *job_ids]


def _warn_before(timelimit: Any) -> int:
    """Return how many seconds before its time limit a job gets a signal."""
    try:
        return warning_seconds(None if timelimit is None else parse_duration(timelimit))
    except ValueError:  # no limit
        return warning_seconds(None)


def _plain_env() -> dict[str, str]:
    """Return the environment without variables that change the format of answers, or hide some."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_"))}


# ---------------------------------------------------------------------- parsing answers


def parse_queue(text: str) -> Iterator[QueueEntry]:
    r"""Parse lines ``job|element|state|reason|name``.

    Examples
    --------
    >>> text = "7|0|RUNNING|None|a|b\n8|N/A|ODD|None|c\n9|1|PENDING|JobHeldUser|d\n"
    >>> [(each.job, each.element, each.state.name, each.reason) for each in parse_queue(text)]
    [('7', 0, 'RUNNING', ''), ('8', -1, 'UNKNOWN', ''), ('9', 1, 'STUCK', 'JobHeldUser')]
    """
    for line in text.splitlines():
        job, element, code, reason, name = line.split("|", 4)
        number = int(element) if element.isdecimal() else -1
        state = _STATES.get(code, JobState.UNKNOWN)
        if state is JobState.QUEUED and _STUCK_REASONS.match(reason.strip("()")):
            state = JobState.STUCK
        why = (reason.strip("()") or code) if state is JobState.STUCK else ""
        yield QueueEntry(job=job, element=number, state=state, label=name, reason=why)


def parse_ended(text: str) -> dict[tuple[str, int], str | None]:
    """Parse lines ``job|element|state|end|`` of jobs that ended; None: successfully.

    The end is ``exit:signal``, or a wait status in older versions.
    """
    found = {}
    for line in text.splitlines():
        job, element, state, end, *_ = line.split("|")
        code, number = map(int, end.split(":")) if ":" in end else divmod(int(end or 0), 256)
        if _STATES.get(state, JobState.UNKNOWN) is None:
            found[job, int(element) if element.isdecimal() else -1] = _describe(state, code, number)
    return found


def parse_accounting(text: str) -> dict[tuple[str, int], str | None]:
    r"""Parse lines ``job_element|state|exit:signal`` of jobs that ended; None: successfully.

    Examples
    --------
    >>> parse_accounting("7_0|COMPLETED|0:0\n7_1|CANCELLED by 0|0:15\n7_[2-3]|PENDING|0:0\n8|FAILED|3:0\n")
    {('7', 0): None, ('7', 1): 'CANCELLED', ('8', -1): 'FAILED (exit 3)'}
    """
    found = {}
    for line in text.splitlines():
        name, state, ended = line.split("|")[:3]
        job, _, element = name.partition("_")
        state = state.partition(" ")[0]
        code, _, number = ended.partition(":")
        if _STATES.get(state, JobState.UNKNOWN) is None and (element.isdecimal() or not element):
            found[job, int(element or -1)] = _describe(state, int(code), int(number))
    return found


def _describe(state: str, code: int, number: int) -> str | None:
    """Return the state, with exit code or signal where a job failed; None for success."""
    if state == "COMPLETED":
        return None
    if state != "FAILED":
        return state
    if code == STOPPED:
        return "stopped near its time limit"
    return f"FAILED (exit {code})" if code or not number else f"FAILED (signal {number})"
