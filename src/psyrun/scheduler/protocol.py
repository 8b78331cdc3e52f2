"""The interface of schedulers: they take submissions, report on jobs, and cancel them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import re
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path


STOPPED = 75  # exit code of a worker that was asked to end


class JobState(enum.Enum):
    """State of an array element in the queue of a batch system."""

    QUEUED = "queued"
    RUNNING = "running"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One submission.

    Parameters
    ----------
    argv
        The command. A scheduler that runs an array appends ``--element`` and the element's index; one
        that does not runs it once, as it is, for all elements.
    name
        Name of the job in messages, ``<task>:process``.
    token
        A short name that no other submission has: a letter, then letters and digits.
    indices
        The elements of the array, from 0; empty for a job that is not an array.
    throttle
        How many elements may run at a time; None: all.
    log
        File for what the job prints before it writes its own log.
    folder
        Working directory, absolute.
    env
        The environment of the job.
    options
        Options of this scheduler, resolved.
    after
        Ids of jobs that have to end first, however they end.
    prologue
        Shell script that the job sources first, or None.
    """

    argv: Sequence[str]
    name: str
    token: str
    indices: Sequence[int]
    log: Path
    folder: Path
    throttle: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    after: Sequence[str] = ()
    prologue: Path | None = None

    @property
    def title(self) -> str:
        """Name of the job in the queue: short, unique, and beginning with the task's."""
        return f"{self.name.partition(':')[0]}.{self.token}"


@runtime_checkable
class Scheduler(Protocol):
    """The interface of a scheduler.

    Attributes
    ----------
    detached
        Whether jobs outlive the process that submitted them; psy waits for those that do not.
    job_variables
        Pattern of environment variables that describe a job; a job submitted from within does not get them.
    kept_variables
        Pattern of the environment variables that a job gets anyway, also where `job_variables` of another
        scheduler match, such as a variable that tells commands their configuration.
    poll
        Seconds between two queries: at first, and at the most.
    grace
        Seconds that the files of a job that left the queue may need to show up.
    """

    @property
    def options(self) -> Mapping[str, str]:
        """Option of `scheduler_args` -> its meaning."""

    @property
    def required(self) -> Mapping[str, str]:
        """Option that has to be set -> example of a value."""

    @property
    def merge_options(self) -> Collection[str]:
        """Options of `scheduler_args` for the job that merges too, where there are no `merge_args`."""

    @property
    def core_variables(self) -> Sequence[str]:
        """Environment variables that hold the cores granted to a job; the first that is a number counts."""

    detached: bool
    job_variables: re.Pattern[str]
    kept_variables: re.Pattern[str]
    poll: tuple[float, float]
    grace: float

    def array_limit(self) -> int:
        """Return the largest index plus one; 1 where there are no arrays."""

    def submit(self, spec: JobSpec) -> str:
        """Submit and return the job's id.

        Raises
        ------
        SubmitLimitError
            If the site takes no more jobs at the moment.
        NoAnswerError
            If it is unknown whether it was accepted.
        SchedulerError
            If it refuses for another reason.
        """

    def find(self, tokens: Collection[str]) -> Mapping[str, str] | None:
        """Return token -> job id of those in the queue; None where there is no answer.

        So jobs are found whose id was not written down because of a crash around `submit`.
        """

    def query(self, job_ids: Collection[str]) -> Mapping[str, Mapping[int, JobState]] | None:
        """Return job id -> element -> state, asking once for all; None where there is no answer.

        A job or an element that has left the queue is left out. Element -1 stands for all
        elements of a job that is not an array.
        """

    def explain(self, job_ids: Collection[str]) -> Mapping[tuple[str, int], str]:
        """Return (job id, element) -> why it ended, such as TIMEOUT, where the system tells."""

    def cancel(self, job_ids: Collection[str]) -> None:
        """Cancel these jobs and no others."""
