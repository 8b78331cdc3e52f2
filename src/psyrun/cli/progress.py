"""The terminal: progress while a task is at work, and how things are put into words."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psyrun.cli.text import count, duration

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self, TextIO

    from psyrun.options import RunSize
    from psyrun.workdir import PlanProgress


_LOG_SECONDS = 10.0


# ---------------------------------------------------------------------- progress


@dataclass(slots=True)
class _Pace:
    """How quickly rows come in."""

    began: float = field(default_factory=time.monotonic)
    first: int | None = None

    def rate(self, ended: int) -> float:
        """Return rows per second since the first look."""
        if self.first is None:
            self.first, self.began = ended, time.monotonic()
        elapsed = time.monotonic() - self.began
        return (ended - self.first) / elapsed if elapsed > 0 else 0.0


def _opening(task: str, survey: PlanProgress, load: RunSize) -> str:
    total = count(survey.total, "row")
    what = total if load.rows == survey.total else f"{load.rows:,} of {total}"
    by = "" if load.processes is None else f", {count(load.processes, 'process')}"
    return f"{task}: {what} to evaluate in {count(load.batches, 'batch')}{by}"


class LogWatcher:
    """Plain lines, now and then, for a log.

    Parameters
    ----------
    stream
        Where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pace = _Pace()
        self._said = 0.0
        self._notes: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def note(self, task: str, message: str) -> None:
        """Write a message, once."""
        if (task, message) not in self._notes:
            self._notes.add((task, message))
            self._write(f"{task}: {message}")

    def start(self, task: str, survey: PlanProgress, load: RunSize) -> None:
        """Write what is to be done."""
        self._pace = _Pace()
        self._said = time.monotonic()
        self._pace.rate(survey.done + survey.failed)
        self._write(_opening(task, survey, load))

    def progress(self, task: str, survey: PlanProgress) -> None:
        """Write how far it is, every ten seconds at most."""
        if time.monotonic() - self._said < _LOG_SECONDS:
            return
        self._said = time.monotonic()
        ended = survey.done + survey.failed
        rate = self._pace.rate(ended)
        words = [f"{task}: {ended:,} of {survey.total:,} rows", f"{survey.failed:,} failed"]
        words += [f"{rate:.3g} rows/s", f"{duration((survey.total - ended) / rate)} left"] if rate > 0 else []
        self._write(", ".join(words))

    def end(self, task: str) -> None:
        """Say nothing: the summary follows."""

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class TerminalWatcher:
    """A bar with rate, failures and time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        # This very file: doit puts another in the place of sys.stdout while an action runs.
        self._console = Console(file=sys.stdout, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._ids: dict[str, Any] = {}
        self._paces: dict[str, _Pace] = {}
        self._notes: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def note(self, task: str, message: str) -> None:
        """Show a message above the bar, once."""
        if (task, message) not in self._notes:
            self._notes.add((task, message))
            self._console.print(f"{task}: {message}", markup=False)

    def start(self, task: str, survey: PlanProgress, load: RunSize) -> None:
        """Show what is to be done, and a bar."""
        self._console.print(_opening(task, survey, load), markup=False)
        self.progress(task, survey)

    def progress(self, task: str, survey: PlanProgress) -> None:
        """Move the bar."""
        if task not in self._ids:
            self._ids[task] = self._bar.add_task(task, total=survey.total, pace="")
            self._paces[task] = _Pace()
        ended = survey.done + survey.failed
        rate = self._paces[task].rate(ended)
        words = [f"{rate:.3g} rows/s"] if rate else []
        words += [f"{survey.failed:,} failed"] if survey.failed else []
        words += [f"{duration((survey.total - ended) / rate)} left"] if rate and ended < survey.total else []
        self._bar.update(self._ids[task], completed=ended, total=survey.total, pace=", ".join(words))

    def end(self, task: str) -> None:
        """Take the bar away."""
        if task in self._ids:
            self._bar.remove_task(self._ids.pop(task))


def make_watcher() -> LogWatcher | TerminalWatcher:
    """Return the watcher that suits standard output."""
    return TerminalWatcher() if sys.stdout.isatty() else LogWatcher(sys.stdout)
