"""Progress of runs as lines of a log."""

from __future__ import annotations

import time
from typing import IO, TYPE_CHECKING

from psyrun.options import Watcher
from psyrun.progressbar import Pace
from psyrun.values import count

if TYPE_CHECKING:
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
