"""Options: what a user asked a run to do, and who watches it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psyrun.workdir import PlanProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What a user asked a run to do.

    Parameters
    ----------
    keep
        Count rows of older code as current, and keep rows that the space no longer names.
    force
        Evaluate everything again, and overwrite results that psyrun did not write.
    retry
        Try rows that failed before once more.
    wait
        Wait, in the process step, for jobs of a batch system.
    processes
        Children of a local worker; None: what the task file says, else what the machine grants.
    tried
        Task -> batches that were in the hands of jobs before, in this same run: not to be submitted again.
    named
        The tasks that `keep` and `force` are about, not others that these need; None: all.
    """

    keep: bool = False
    force: bool = False
    retry: bool = True
    wait: bool = False
    processes: int | None = None
    tried: Mapping[str, frozenset[int]] = field(default_factory=dict)
    named: frozenset[str] | None = None

    def for_task(self, task: str) -> RunOptions:
        """Return the options as one task is to understand them."""
        if self.named is None or task in self.named:
            return self
        return replace(self, keep=False, force=False)

    def for_next_pass(self, tried: Mapping[str, frozenset[int]]) -> RunOptions:
        """Return the options for another pass of the same run: what was tried is not tried again."""
        return replace(self, force=False, retry=False, tried=tried)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSize:
    """What is begun.

    Parameters
    ----------
    rows, batches
        How many there are to evaluate.
    processes
        How many evaluate them, where that is known.
    """

    rows: int
    batches: int
    processes: int | None


class Watcher(Protocol):
    """Told what happens while a task is at work. It must not raise."""

    def note(self, task: str, message: str) -> None:
        """Take a message for the user."""

    def start(self, task: str, survey: PlanProgress, load: RunSize) -> None:
        """Take note that rows of a task are being evaluated."""

    def progress(self, task: str, survey: PlanProgress) -> None:
        """Take note of how far a task is."""

    def end(self, task: str) -> None:
        """Take note that nobody looks at the task any more."""


class Silence:
    """A watcher that says nothing."""

    def note(self, task: str, message: str) -> None:
        """Say nothing."""

    def start(self, task: str, survey: PlanProgress, load: RunSize) -> None:
        """Say nothing."""

    def progress(self, task: str, survey: PlanProgress) -> None:
        """Say nothing."""

    def end(self, task: str) -> None:
        """Say nothing."""
