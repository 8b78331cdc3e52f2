"""A bar for rows that are evaluated in this program: on a terminal, in a notebook, else a line at the end."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from rich.progress import Progress

    Show = Callable[[int, str], object]


Item = TypeVar("Item")
_PAUSE = 0.1  # Seconds between two looks of a bar.


def watch(rows: Iterable[Item], total: int, failed: Callable[[Item], bool]) -> Generator[Item]:
    """Yield finished rows, and show how many there are.

    Parameters
    ----------
    rows
        Finished rows, as they come.
    total
        How many there will be.
    failed
        Whether one has failed.
    """
    began = time.monotonic()
    ended, failures, due, pace = 0, 0, began, Pace(0, began)

    def describe(total: int) -> str:
        return ", ".join(([f"{failures:,} failed"] if failures else []) + pace.describe(total))

    with _open_display(total) as show:
        try:
            for row in rows:
                ended += 1
                failures += failed(row)
                now = time.monotonic()
                if now >= due:
                    due = now + _PAUSE
                    pace.look(ended, now)
                    show(ended, describe(total))
                yield row
        finally:
            now = time.monotonic()
            pace.look(ended, now)
            show(ended, ", ".join(filter(None, [describe(ended), duration(now - began)])))


class Pace:
    """How fast rows end, and when the last one did.

    Parameters
    ----------
    ended
        Rows that ended before.
    now
        Seconds on a clock that only goes forward.
    """

    def __init__(self, ended: int, now: float) -> None:
        self._first, self._began = ended, now
        self._ended, self._since, self._now = ended, now, now

    def look(self, ended: int, now: float) -> None:
        """Note how many rows ended by now."""
        if ended != self._ended:
            self._ended, self._since = ended, now
        self._now = now

    def describe(self, total: int) -> list[str]:
        """Return words for rows per second, and the time that is left.

        Where the last rows take longer than others did, they are taken to be half way.
        """
        elapsed = self._now - self._began
        rate = max(0, self._ended - self._first) / elapsed if elapsed > 0 else 0.0
        if not rate:
            return []
        left = total - self._ended
        waited, expected = self._now - self._since, left / rate
        words = [f"{rate:,.0f} rows/s" if rate >= 1000 else f"{rate:.3g} rows/s"]
        if waited > max(expected, 1.0) and left:
            return [*words, f"no row ended for {duration(waited)}, perhaps {duration(waited)} left"]
        return [*words, f"{duration(expected)} left"] if left else words


def duration(seconds: float) -> str:
    """Return a time span in words, such as ``about 45 s``, ``about 12 min`` or ``about 412 h``."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 100:
        return f"about {seconds:.0f} s"
    if seconds < 6000:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:,.0f} h"


def make_bar(stream: IO[str], **options: Any) -> Progress:
    """Make rich's bar with columns for a name, numbers and the pace; `options` are those of rich."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    name, pace = "{task.description}", "{task.fields[pace]}"
    columns = (name, BarColumn(), MofNCompleteColumn(), pace, TimeElapsedColumn())
    return Progress(*columns, console=Console(file=stream, highlight=False), **options)


def can_move(stream: IO[str]) -> bool:
    """Whether a stream is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@contextmanager
def _open_display(total: int) -> Iterator[Show]:
    """Give what shows a number of rows, and words about them, where the user looks."""
    ipython = sys.modules.get("IPython")
    if getattr(ipython and ipython.get_ipython(), "kernel", None) is not None:
        yield _open_notebook(total)
    elif can_move(sys.stderr):
        with make_bar(sys.stderr) as bar:
            task = bar.add_task("rows", total=total, pace="")
            yield lambda ended, pace: bar.update(task, completed=ended, pace=pace)
    else:
        line = ""

        def keep(ended: int, pace: str) -> None:
            nonlocal line
            line = f"{ended:,} of {total:,} rows, {pace}\n"

        try:
            yield keep
        finally:
            sys.stderr.write(line)


def _open_notebook(total: int) -> Show:
    """Show a bar below the cell, without widgets, so that every front end has it, and keeps it."""
    display: Any = import_module("IPython.display").display

    def render(ended: int, pace: str) -> dict[str, str]:
        text = f"{ended:,} of {total:,} rows, {pace}" if pace else f"{total:,} rows"
        return {
            "text/plain": text,
            "text/html": f'<progress value="{ended}" max="{total}"></progress> {text}',
        }

    handle = display(render(0, ""), raw=True, display_id=True)
    return lambda ended, pace: handle.update(render(ended, pace), raw=True)
