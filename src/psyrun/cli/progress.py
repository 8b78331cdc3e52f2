"""Progress on standard output: a bar for a terminal, else lines."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from psyrun.logwatcher import LogWatcher
from psyrun.progressbar import can_move, make_bar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

    from psyrun.options import RunSize
    from psyrun.workdir import PlanProgress


class TerminalWatcher(LogWatcher):
    """A bar with rate, failures and time left, and lines above it."""

    def __init__(self, bar: Progress) -> None:
        super().__init__(bar.console.file)
        self._bar = bar
        self._ids: dict[str, Any] = {}

    def start(self, task: str, progress: PlanProgress, size: RunSize) -> None:
        """Write the amount of work, and show a bar."""
        super().start(task, progress, size)
        self.progress(task, progress)

    def progress(self, task: str, progress: PlanProgress) -> None:
        """Move the bar."""
        if task not in self._ids:
            self._ids[task] = self._bar.add_task(task, total=progress.total, pace="")
        ended = progress.done + progress.failed
        words = [f"{progress.failed:,} failed"] if progress.failed else []
        words += self._pace(task, ended).describe(progress.total)
        self._bar.update(self._ids[task], completed=ended, total=progress.total, pace=", ".join(words))

    def end(self, task: str) -> None:
        """Remove the bar."""
        super().end(task)
        if task in self._ids:
            self._bar.remove_task(self._ids.pop(task))

    def write(self, line: str) -> None:
        """Write a line above the bar."""
        self._bar.console.print(line, markup=False)


@contextmanager
def watching() -> Iterator[LogWatcher]:
    """Give the watcher that suits standard output: lines where it is no terminal, or one that can't move."""
    if not can_move(sys.stdout):
        yield LogWatcher(sys.stdout)
        return
    # The file of now: doit replaces sys.stdout while an action runs.
    with make_bar(sys.stdout, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        yield TerminalWatcher(bar)
