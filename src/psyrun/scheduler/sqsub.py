"""Sharcnet's sqsub, sqjobs and sqkill.

No cluster with these commands is left to try it on. It follows their documentation, and its tests run
stand-ins for them.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from psyrun.errors import NoAnswerError, SchedulerError
from psyrun.scheduler.batchsystem import BatchSystem, Option, QueueEntry, job_script
from psyrun.scheduler.protocol import JobState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from psyrun.scheduler.protocol import JobSpec


_OPTIONS = {
    "timelimit": Option(("-r", "{}"), "time limit, required: minutes, or with a unit such as 2h"),
    "memory": Option(("--mpp={}",), "memory per process, required, such as 512M"),
    "n_cpus": Option(("-n", "{}"), "cores per job"),
    "n_nodes": Option(("-N", "{}"), "nodes per job"),
}
_STATES: Mapping[str, JobState | None] = MappingProxyType(
    dict.fromkeys(("R", "Z"), JobState.RUNNING)  # Z: suspended
    | dict.fromkeys(("Q", "*Q"), JobState.QUEUED)
    | dict.fromkeys(("D", "C"))
)
_HEADING_LINES = 2


class Sqsub(BatchSystem):
    """Runs every batch as a job of its own: sqsub knows no arrays.

    Parameters
    ----------
    workdir
        Not used: where psyrun 0.8 kept job scripts.
    """

    option_table = MappingProxyType(_OPTIONS)
    throttles = False
    warns = False
    required = MappingProxyType({"timelimit": "1h", "memory": "512M"})
    merge_options = ("timelimit", "memory")
    # The system behind sqsub differs from cluster to cluster.
    core_variables = ("NSLOTS",)
    job_variables = re.compile(r"PBS_|(NSLOTS|TASK_ID)$")
    unreachable = re.compile(r"connect|communicat|timed out|not respond", re.IGNORECASE)
    harmless = re.compile(r"no such job|not found|unknown|finished", re.IGNORECASE)

    def array_limit(self) -> int:
        """Return 1: there are no arrays."""
        return 1

    def submit_argv(self, spec: JobSpec) -> list[str]:
        """Return the command that submits."""
        argv = ["sqsub", *self.build_options(spec.options), "-o", str(spec.log), "-j", spec.title]
        spec.scratch.mkdir(parents=True, exist_ok=True)
        argv.append(f"--idfile={_id_file(spec)}")
        if spec.after:
            argv += ["-w", ",".join(spec.after)]
        return [*argv, "/bin/bash", *job_script(spec, "", 0)]

    def read_id(self, spec: JobSpec, printed: str) -> str:
        """Return the id, which sqsub writes to a file."""
        return _id_file(spec).read_text().strip()

    def list_queue(self, job_ids: Collection[str] | None) -> Iterable[QueueEntry]:
        """Return the entries of sqjobs, which lists those of the user."""
        try:
            return parse_jobs(self.run(["sqjobs"]))
        except NoAnswerError:
            raise
        except SchedulerError as error:
            if error.returncode == 1:  # There is no job.
                return ()
            raise

    def cancel_argv(self, job_ids: Sequence[str]) -> list[str]:
        """Return the command that cancels."""
        return ["sqkill", *job_ids]


def _id_file(spec: JobSpec) -> Path:
    return spec.scratch / "id"


def parse_jobs(text: str) -> Iterator[QueueEntry]:
    r"""Parse the lines ``jobid queue state ncpus time command`` below two lines of heading.

    Examples
    --------
    >>> text = "jobid queue state ncpus time command\n----- ----- ----- ----- ---- -------\n"
    >>> [(each.job, each.state.name) for each in parse_jobs(text + "12 serial *Q 1 10s /bin/bash a b\n")]
    [('12', 'QUEUED')]
    """
    for line in text.splitlines()[_HEADING_LINES:]:
        fields = line.split(None, 5)
        if len(fields) < 5:
            continue
        job, _, state, *_ = fields
        command = fields[5] if len(fields) > 5 else ""
        yield QueueEntry(job=job, element=-1, state=_STATES.get(state, JobState.UNKNOWN), label=command)
