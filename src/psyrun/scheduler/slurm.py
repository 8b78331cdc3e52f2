"""Slurm: sbatch, squeue, sacct, scancel."""

from __future__ import annotations

import os
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from psyrun.errors import SchedulerError
from psyrun.scheduler.batchsystem import BatchSystem, Option, QueueEntry, job_script
from psyrun.scheduler.protocol import STOPPED, JobState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from psyrun.scheduler.protocol import JobSpec


_OPTIONS = {
    "timelimit": Option(("--time={}",), "time limit: minutes, or [days-]hours:minutes:seconds"),
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
_QUEUED = "PENDING REQUEUED REQUEUE_FED REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT"
_ENDED = (
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED LAUNCH_FAILED NODE_FAIL"
    " OUT_OF_MEMORY PREEMPTED RECONFIG_FAIL REVOKED TIMEOUT"
)
_STATES: Mapping[str, JobState | None] = MappingProxyType(
    dict.fromkeys(_RUNNING.split(), JobState.RUNNING)
    | dict.fromkeys(_QUEUED.split(), JobState.QUEUED)
    | dict.fromkeys(_ENDED.split(), None)
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
    unknown_job = re.compile(r"Invalid job id|already comple|Job/step already")

    _limit: int | None = None

    def array_limit(self) -> int:
        """Return the site's MaxArraySize, which the largest index has to be below."""
        if self._limit is None:
            config = self.run(["scontrol", "show", "config"])
            found = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
            self._limit = max(1, int(found[1])) if found else _DEFAULT_ARRAY_LIMIT
        return self._limit

    def submit_argv(self, spec: JobSpec) -> list[str]:
        """Return the command that submits."""
        argv = ["sbatch", "--parsable", "--export=ALL", "--open-mode=append", f"--job-name={spec.title}"]
        # Relative: in an absolute path, a % would begin a pattern.
        argv += [f"--chdir={spec.folder}", f"--output={os.path.relpath(spec.log, spec.folder)}"]
        argv += self.build_options(spec.options)
        argv.append(f"--signal=B:USR1@{warning_seconds(spec.options.get('timelimit'))}")
        if spec.after:
            argv += [f"--dependency=afterany:{':'.join(spec.after)}", "--kill-on-invalid-dep=yes"]
        if spec.indices:
            first, last = spec.indices[0], spec.indices[-1]
            span = str(first) if first == last else f"{first}-{last}"
            argv.append(f"--array={span}{self.throttle_suffix(spec)}")
        argv += self.build_extra(spec.options.get("extra") or ())
        return argv + job_script(spec, self.index_variable if spec.indices else "", self.first_index)

    def read_id(self, spec: JobSpec, printed: str) -> str:
        """Return the id, which a name of a cluster may follow."""
        return printed.strip().partition(";")[0]

    def list_queue(self) -> Iterable[QueueEntry]:
        """Return the entries of the user's jobs in squeue."""
        argv = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%F|%K|%T|%j"]
        return parse_queue(self.run(argv, env=_plain_env()))

    def explain(self, job_ids: Collection[str]) -> Mapping[tuple[str, int], str]:
        """Return why elements ended, from accounting and from what squeue still lists."""
        if not job_ids:
            return {}
        accounting = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,ExitCode"]
        listing = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}"]
        found: dict[tuple[str, int], str | None] = {}
        for argv, parse in (
            ([*accounting, f"--jobs={','.join(sorted(job_ids))}"], parse_accounting),
            ([*listing, "--Format=ArrayJobID:|,ArrayTaskID:|,State:|,exit_code:|"], parse_ended),
        ):
            try:
                found |= parse(self.run(argv, env=_plain_env()))
            except SchedulerError:  # There is no accounting, or no answer.
                continue
        return {key: why for key, why in found.items() if why is not None and key[0] in job_ids}

    def cancel_argv(self, job_ids: Sequence[str]) -> list[str]:
        """Return the command that cancels."""
        return ["scancel", *job_ids]


def _plain_env() -> dict[str, str]:
    """Return the environment without variables that change the format of answers, or hide some."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_"))}


def warning_seconds(timelimit: Any) -> int:
    """Return how long before its time limit a job gets a signal: a twentieth of it, from 10 to 120 s."""
    limit = None if timelimit is None else parse_limit(str(timelimit))
    return 60 if limit is None else int(min(120, max(10, limit / 20)))


def parse_limit(limit: str) -> float | None:
    """Return a time limit of Slurm in seconds; None where it is not in Slurm's format.

    Examples
    --------
    >>> parse_limit("90"), parse_limit("1:30"), parse_limit("2:00:00"), parse_limit("1-12")
    (5400.0, 90.0, 7200.0, 129600.0)
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", limit.strip())
    if not found:
        return None
    days = found[1]
    parts = [float(part) for part in found.groups()[1:] if part is not None]
    forms = {1: (60.0,), 2: (60.0, 1.0), 3: (3600.0, 60.0, 1.0)}
    units = forms[len(parts)] if days is None else (3600.0, 60.0, 1.0)  # after days, hours come first
    return float(days or 0) * 86400 + sum(part * unit for part, unit in zip(parts, units))


# ---------------------------------------------------------------------- parsing answers


def parse_queue(text: str) -> Iterator[QueueEntry]:
    r"""Parse lines ``job|element|state|name``.

    Examples
    --------
    >>> [(each.job, each.element, each.state.name) for each in parse_queue("7|0|RUNNING|a|b\n8|N/A|ODD|c\n")]
    [('7', 0, 'RUNNING'), ('8', -1, 'UNKNOWN')]
    """
    for line in text.splitlines():
        job, element, state, name = line.split("|", 3)
        number = int(element) if element.isdecimal() else -1
        yield QueueEntry(job=job, element=number, state=_STATES.get(state, JobState.UNKNOWN), label=name)


def parse_ended(text: str) -> dict[tuple[str, int], str | None]:
    """Parse lines ``job|element|state|wait status|`` of jobs that ended; None: successfully."""
    found = {}
    for line in text.splitlines():
        job, element, state, status, *_ = line.split("|")
        code, number = divmod(int(status) if status.isdecimal() else 0, 256)
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
