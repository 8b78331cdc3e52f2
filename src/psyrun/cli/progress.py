"""Progress on standard output: lines for a log, a bar for a terminal."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from psyrun.cli.text import count, duration
from psyrun.options import Watcher

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
        self._starts: dict[str, tuple[int, float]] = {}

    def note(self, task: str, message: str) -> None:
        """Write a message, once."""
        line = f"{task}: {message}"
        if line not in self._notes:
            self._notes.add(line)
            self._write(line)

    def start(self, task: str, progress: PlanProgress, size: RunSize) -> None:
        """Write the amount of work."""
        self._last = time.monotonic()
        self._rate(task, progress.done + progress.failed)
        total = count(progress.total, "row")
        rows = total if size.rows == progress.total else f"{size.rows:,} of {total}"
        by = "" if size.processes is None else f", {count(size.processes, 'process')}"
        self._write(f"{task}: {rows} to evaluate in {count(size.batches, 'batch')}{by}")

    def progress(self, task: str, progress: PlanProgress) -> None:
        """Write the progress of a task, unless a line was written less than ten seconds ago."""
        if time.monotonic() - self._last < _LOG_SECONDS:
            return
        self._last = time.monotonic()
        ended = progress.done + progress.failed
        rate = self._rate(task, ended)
        words = [f"{task}: {ended:,} of {progress.total:,} rows", f"{progress.failed:,} failed"]
        words += [f"{rate:.3g} rows/s", f"{duration((progress.total - ended) / rate)} left"] if rate else []
        self._write(", ".join(words))

    def end(self, task: str) -> None:
        """Forget the rate of a task; the summary follows."""
        self._starts.pop(task, None)

    def _rate(self, task: str, ended: int) -> float:
        """Return rows per second since the first call for a task."""
        first, began = self._starts.setdefault(task, (ended, time.monotonic()))
        elapsed = time.monotonic() - began
        return max(0.0, ended - first) / elapsed if elapsed > 0 else 0.0

    def _write(self, line: str) -> None:
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
        rate = self._rate(task, ended)
        words = [f"{rate:.3g} rows/s"] if rate else []
        words += [f"{progress.failed:,} failed"] if progress.failed else []
        words += (
            [f"{duration((progress.total - ended) / rate)} left"] if rate and ended < progress.total else []
        )
        self._bar.update(self._ids[task], completed=ended, total=progress.total, pace=", ".join(words))

    def end(self, task: str) -> None:
        """Remove the bar."""
        super().end(task)
        if task in self._ids:
            self._bar.remove_task(self._ids.pop(task))

    def _write(self, line: str) -> None:
        self._bar.console.print(line, markup=False)


@contextmanager
def watching() -> Iterator[LogWatcher]:
    """Give the watcher that suits standard output."""
    if not sys.stdout.isatty():
        yield LogWatcher(sys.stdout)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    name, pace = "{task.description}", "{task.fields[pace]}"
    columns = (name, BarColumn(), MofNCompleteColumn(), pace, TimeElapsedColumn())
    # The file of now: doit replaces sys.stdout while an action runs.
    console = Console(file=sys.stdout, highlight=False)
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as bar:
        yield TerminalWatcher(bar)
