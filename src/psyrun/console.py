"""The terminal: progress while a task is at work, and how things are put into words."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Self, TextIO

    from psyrun.orders import Load
    from psyrun.status import Detail, Group, Status
    from psyrun.survey import Survey

__all__ = [
    "LogWatcher",
    "TerminalWatcher",
    "count",
    "duration",
    "make_watcher",
    "show_assignment",
    "show_details",
    "show_group",
    "show_kept",
    "show_statuses",
]

_LOG_SECONDS = 10.0


def count(number: int, noun: str) -> str:
    """Return ``1 row``, ``2 rows``, ``10,000 batches``."""
    plural = noun + ("es" if noun.endswith(("s", "ch")) else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def duration(seconds: float) -> str:
    """Return a time span in words, such as ``about 45 s``, ``about 12 min`` or ``about 412 h``."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 100:
        return f"about {seconds:.0f} s"
    if seconds < 6000:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:,.0f} h"


def show_value(value: Any, limit: int = 60) -> str:
    """Return a value as Python would write it, shortened."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        value = value.item()
    text = repr(value).replace("\n", " ")
    return text if len(text) <= limit else text[: limit - 3] + "..."


def show_assignment(assignment: Mapping[str, Any] | None) -> str:
    """Return ``a=1, b=0.5``."""
    if assignment is None:
        return "(an assignment whose input file can't be read)"
    return ", ".join(f"{name}={show_value(value)}" for name, value in assignment.items())


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


def _opening(task: str, survey: Survey, load: Load) -> str:
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

    def start(self, task: str, survey: Survey, load: Load) -> None:
        """Write what is to be done."""
        self._pace = _Pace()
        self._said = time.monotonic()
        self._pace.rate(survey.done + survey.failed)
        self._write(_opening(task, survey, load))

    def progress(self, task: str, survey: Survey) -> None:
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

    def start(self, task: str, survey: Survey, load: Load) -> None:
        """Show what is to be done, and a bar."""
        self._console.print(_opening(task, survey, load), markup=False)
        self.progress(task, survey)

    def progress(self, task: str, survey: Survey) -> None:
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


# ---------------------------------------------------------------------- tables


def show_statuses(statuses: Sequence[Status]) -> str:
    """Return statuses as a table of aligned columns."""
    heads = ("task", "rows", "done", "failed", "running", "queued", "missing", "result")
    lines: list[tuple[str, ...]] = [heads]
    for status in statuses:
        numbers = (status.total, status.done, status.failed, status.running, status.queued, status.missing)
        lines.append((status.name, *(f"{number:,}" for number in numbers), _show_result(status)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in (0, len(heads) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )


def _show_result(status: Status) -> str:
    if status.result is None:
        return "-"
    return status.result if status.uptodate else f"{status.result} (not up to date)"


def show_details(details: Iterable[Detail], most: int | None) -> list[str]:
    """Return a line for each row without values, `most` of either kind."""
    failed: list[str] = []
    missing: list[str] = []
    for detail in details:
        words = show_assignment(detail.assignment)
        if detail.failure is not None:
            failed.append(f"  failed:  {words}  {detail.words}")
        else:
            missing.append(f"  missing: {words}" + (f"  {detail.reason}" if detail.reason else ""))
    return [*_cut(failed, most, "failed"), *_cut(missing, most, "missing")]


def show_kept(older: int, outside: int) -> list[str]:
    """Return a line about rows that were kept with --continue, if there are any."""
    words = [f"{count(older, 'row')} of older code"] if older else []
    words += [f"{count(outside, 'row')} that the space does not name"] if outside else []
    return [f"  kept with --continue: {', '.join(words)}"] if words else []


def _cut(lines: list[str], most: int | None, kind: str) -> list[str]:
    if most is None or len(lines) <= most:
        return lines
    return [*lines[:most], f"  and {len(lines) - most:,} more are {kind} (all of them: psy status -v --all)"]


def show_group(group: Group) -> str:
    """Return failures of one cause: how many, the traceback, examples."""
    state = "failed" if group.failed else "not evaluated"
    lines = [f"{count(group.count, 'row')} {state}: {group.reason}"]
    lines += [f"    {line}" for line in group.traceback.rstrip().splitlines()]
    lines += [f"  for example  {show_assignment(example)}" for example in group.examples]
    return "\n".join(lines)
