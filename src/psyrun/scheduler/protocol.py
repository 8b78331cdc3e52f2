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
    STUCK = "stuck"
    """It is held, or can't be started: it stays in the queue until a user does something."""
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
        Working directory of the job, absolute.
    scratch
        Folder for files of the scheduler about this submission. It does not exist yet; it lies below the
        folder given to `Scheduler.configure`, and is removed when the submission is forgotten.
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
    scratch: Path
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
    """The interface of a scheduler, which is created without arguments, and configured before it is used.

    What a job gets: the command, folder, log, prologue and environment of its `JobSpec`, and `core_variables`
    where the system sets them. On SIGUSR1 it finishes the rows at hand and ends; on SIGTERM, SIGINT and
    SIGHUP it ends at once; with the exit code `STOPPED` (75) either way. A signal that it was started to
    ignore stays ignored. It ends with 0 when its rows ended, and with another code for a reason that it
    printed to its log.

    Attributes
    ----------
    detached
        Whether jobs outlive the process that submitted them; psy waits for those that do not.
    dependencies
        Whether a job can begin when others have ended; where it can't, no job merges.
    throttles
        Whether it keeps to the `throttle` of a submission.
    warns
        Whether `submit` has the system send SIGUSR1 to a job some time before its time limit.
    system_options
        Options of `scheduler_args` that say which system is meant, such as an address.
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
    dependencies: bool
    throttles: bool
    warns: bool
    system_options: Collection[str]
    job_variables: re.Pattern[str]
    kept_variables: re.Pattern[str]
    poll: tuple[float, float]
    grace: float

    def configure(self, options: Mapping[str, Any], folder: Path) -> None:
        """Set the options that jobs get, and the folder, shared by all hosts, that `JobSpec.scratch` is in.

        It is called before all that follows, in another process too: the options stand in the submission.
        Those with other types than text, numbers, lists and dicts have become text.
        """

    def system(self) -> str:
        """Return the name of the system at hand, such as that of the cluster; '' where there is one only.

        Jobs of another are not asked for.
        """

    def shows_others(self) -> bool:
        """Whether `query` tells of jobs of other users; where it does not, these may run although absent."""

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

        The jobs may be those of other users. A job or an element that has left the queue is left out. Element
        -1 stands for all elements of a submission that runs as a plain job, such as an array of one.
        """

    def explain(self, job_ids: Collection[str]) -> Mapping[tuple[str, int], str]:
        """Return (job id, element) -> why it ended, such as TIMEOUT, or is stuck, where the system tells.

        Other jobs are left out, such as those that run or ended well, and no answer is no error. Element -1
        stands for all elements that have no reason of their own.
        """

    def cancel(self, job_ids: Collection[str]) -> None:
        """Cancel these jobs and no others."""
