"""Progress on standard output: lines for a log, a bar for a terminal."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from psyrun.cli.text import count
from psyrun.options import Watcher
from psyrun.progressbar import Pace, can_move, make_bar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from rich.progress import Progress

    from psyrun.options import RunSize
    from psyrun.workdir import PlanProgress


_LOG_SECONDS = 10.0


class LogWatcher(Watcher):
    """Lines of progress, at most every ten seconds.

    Parameters
    ----------
    stream
        File to write to.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._last = 0.0
        self._notes: set[str] = set()
        self._paces: dict[str, Pace] = {}

    def note(self, task: str, message: str) -> None:
        """Write a message, once."""
        line = f"{task}: {message}"
        if line not in self._notes:
            self._notes.add(line)
            self.write(line)

    def start(self, task: str, progress: PlanProgress, size: RunSize) -> None:
        """Write the amount of work."""
        self._last = time.monotonic()
        self._pace(task, progress.done + progress.failed)
        total = count(progress.total, "row")
        rows = total if size.rows == progress.total else f"{size.rows:,} of {total}"
        by = "" if size.processes is None else f", {count(size.processes, 'process')}"
        self.write(f"{task}: {rows} to evaluate in {count(size.batches, 'batch')}{by}")

    def progress(self, task: str, progress: PlanProgress) -> None:
        """Write the progress of a task, unless a line was written less than ten seconds ago."""
        if time.monotonic() - self._last < _LOG_SECONDS:
            return
        self._last = time.monotonic()
        ended = progress.done + progress.failed
        words = [f"{task}: {ended:,} of {progress.total:,} rows", f"{progress.failed:,} failed"]
        words += self._pace(task, ended).describe(progress.total)
        self.write(", ".join(words))

    def end(self, task: str) -> None:
        """Forget the pace of a task; the summary follows."""
        self._paces.pop(task, None)

    def _pace(self, task: str, ended: int) -> Pace:
        """Return the pace of a task, of which so many rows ended by now."""
        if task not in self._paces:
            self._paces[task] = Pace(ended, time.monotonic())
        self._paces[task].look(ended, time.monotonic())
        return self._paces[task]

    def write(self, line: str) -> None:
        """Write a line."""
        self._stream.write(line + "\n")
        self._stream.flush()


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
