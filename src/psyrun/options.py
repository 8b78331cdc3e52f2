"""Options of a run, and the listener to its progress."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psyrun.workdir import PlanProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Options of a run, as the user gave them.

    Parameters
    ----------
    adopt
        Adopt rows of older code and of earlier results (``--continue``).
    force
        Evaluate everything again, and overwrite results that psyrun did not write.
    retry
        Try failed rows once more; None: unless their task allows rows to fail.
    only
        Try those alone that failed for this reason; None: all.
    take_over
        Submit in the place of jobs that can't be asked for, or are stuck.
    wait
        Wait, in the process step, for jobs of a batch system.
    processes
        Child processes of a local worker; None: as the task file says, else one per core.
    tried
        Task -> batches that this same run submitted before: not to be submitted again.
    named
        Tasks that `adopt`, `force` and `take_over` apply to; None: all.
    """

    adopt: bool = False
    force: bool = False
    retry: bool | None = None
    only: str | None = None
    take_over: bool = False
    wait: bool = False
    processes: int | None = None
    tried: Mapping[str, frozenset[int]] = field(default_factory=dict)
    named: frozenset[str] | None = None

    def for_task(self, task: str) -> RunOptions:
        """Return the options that apply to one task."""
        if self.named is None or task in self.named:
            return self
        return replace(self, adopt=False, force=False, take_over=False)

    def retries(self, *, allowed: bool) -> bool:
        """Whether failed rows are tried again, of a task that allows rows to fail or does not."""
        return not allowed if self.retry is None else self.retry

    def for_next_pass(self, in_flight: Mapping[str, frozenset[int]]) -> RunOptions:
        """Return the options for another pass of the same run, which does not submit batches again."""
        tried = {task: batches | self.tried.get(task, frozenset()) for task, batches in in_flight.items()}
        return replace(self, force=False, retry=False, take_over=False, tried={**self.tried, **tried})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSize:
    """Amount of work that a process step begins.

    Parameters
    ----------
    rows, batches
        Numbers to evaluate.
    processes
        Processes that evaluate them, where that is known.
    """

    rows: int
    batches: int
    processes: int | None


class Watcher:
    """Listener to messages and progress of tasks; this one shows nothing. Its methods must not raise."""

    def note(self, task: str, message: str) -> None:
        """Take a message for the user."""

    def stale(self, task: str, message: str) -> None:
        """Take a message about rows that are evaluated again, of which the user may know before the run."""

    def start(self, task: str, progress: PlanProgress, size: RunSize) -> None:
        """Take the amount of work that begins."""

    def progress(self, task: str, progress: PlanProgress) -> None:
        """Take the progress of a task."""

    def end(self, task: str) -> None:
        """Take the end of a task's progress."""
