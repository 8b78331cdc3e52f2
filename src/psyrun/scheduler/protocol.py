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
        The command. A scheduler that runs an array appends ``--element`` and the element's index. One that
        submits a plain job runs it once, as it is, for all elements: it may do so with an array of one.
    name
        Name of the job in messages, ``<task>:process``.
    token
        A short name that no other submission has: a letter, then letters and digits.
    indices
        The elements of the array, from 0; empty for a job that is not an array.
    throttle
        How many elements may run at a time; None: all.
    log
        File that what the job prints is appended to, output and errors alike.
    folder
        Working directory of the job, absolute; a system that begins elsewhere has to change to it.
    env
        The environment of the job.
    options
        Options of this scheduler, resolved: none is a function, and None stands for one that is not set.
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
        """Name of the job in the queue: the task's name, which may be long, a dot, and the token at the end.

        Where a system cuts or restricts names, use the token alone: `Scheduler.find` needs the whole of it.
        """
        return f"{self.name.partition(':')[0]}.{self.token}"


@runtime_checkable
class Scheduler(Protocol):
    """The interface of a scheduler, which is created without arguments.

    A worker that gets SIGUSR1 finishes the rows at hand and ends; on SIGTERM it ends at once. `submit` asks
    the system to send the SIGUSR1 some time before the job's time limit, if it can.

    Attributes
    ----------
    detached
        Whether jobs outlive the process that submitted them; psy waits for those that do not.
    job_variables
        Pattern that the beginning of an environment variable matches if it describes a job. A job that is
        submitted from within one, of this or of another scheduler, does not get it.
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
        """Options of `scheduler_args` that the merge job gets too, where there are no `merge_args`."""

    @property
    def core_variables(self) -> Sequence[str]:
        """Environment variables that hold the cores granted to a job; the first that is a number counts.

        `job_variables` has to match each, so that a job does not take the cores of the job around it.
        """

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

        A job or an element that has left the queue is left out. Element -1 stands for all elements of a
        submission that runs as a plain job, such as an array of one.
        """

    def explain(self, job_ids: Collection[str]) -> Mapping[tuple[str, int], str]:
        """Return (job id, element) -> why it ended, such as TIMEOUT, where the system tells.

        Jobs that run or ended well are left out, and no answer is no error. Element -1 stands for all
        elements that have no reason of their own.
        """

    def cancel(self, job_ids: Collection[str]) -> None:
        """Cancel these jobs and no others."""
