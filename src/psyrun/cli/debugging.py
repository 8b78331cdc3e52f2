"""A row under the debugger: evaluated in this process, as the task file is now; nothing is kept."""

from __future__ import annotations

import sys
import traceback
from bdb import BdbQuit
from typing import TYPE_CHECKING, Any

from psyrun.cli.rows import match_rows, parse_row_number, parse_selectors
from psyrun.cli.text import count, show_assignment
from psyrun.errors import ExecuteError, SelectionError, TaskFileError
from psyrun.pspace import RNG, make_rng, number_equals, row_keys, takes_rng
from psyrun.task import open_task
from psyrun.values import check_returned
from psyrun.worker import call_setup

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from psyrun.task import Outline, Task


def debug(outline: Outline, words: Sequence[str]) -> Iterator[str]:
    """Evaluate a row of a task here; where it raises, stop in the debugger. Yield lines about it.

    Raises
    ------
    TaskFileError
        If the task file can't be run, or the space can't be evaluated.
    SelectionError
        If there is no such row, or there are several.
    ExecuteError
        If the row fails and standard input is no terminal.
    """
    with open_task(outline) as task:
        rows = find_in_space(task, words)
        if len(rows) > 1:
            some = "; ".join(show_assignment(task.pspace[row]) for row in rows[:3])
            raise SelectionError(
                f"{task.name}: {count(len(rows), 'row')} are meant, of which one can be"
                f" debugged; name more values, or its number: {some} (rows {rows[:3]})"
            )
        (row,) = rows
        assignment = read_assignment(task, row)
        setup = call_setup(task.setup, 0)
        yield f"row {row}: execute({show_assignment(assignment)})"
        arguments: dict[str, Any] = {**assignment, **setup, **_make_generator(task, row, setup)}
        try:
            values = task.execute(**arguments)
            check_returned("execute", values)
        except BdbQuit:  # The user left the debugger.
            return
        except Exception as error:
            _stop(outline, error)
        else:
            yield f"returned {show_assignment(values)}"


def find_in_space(task: Task, words: Sequence[str]) -> list[int]:
    """Find rows of the space of a task, which may have no plan, as `cli.rows.find_rows` does those of a plan.

    Raises
    ------
    SelectionError
        If there is no such row.
    TaskFileError
        If the space can't be evaluated.
    """
    numbers = [parse_row_number(task.name, word, task.total) for word in words if "=" not in word]
    if numbers or not words:
        return numbers
    try:
        columns = task.pspace.build()
    except Exception as error:
        raise TaskFileError(f"{task.outline.path}: pspace can't be evaluated: {error}") from error
    return match_rows(task.name, list(columns), columns, parse_selectors(words))


def read_assignment(task: Task, row: int) -> dict[str, Any]:
    """Return a row of the space of a task.

    Raises
    ------
    TaskFileError
        If the space can't be evaluated.
    """
    try:
        return dict(task.pspace[row])
    except Exception as error:
        raise TaskFileError(f"{task.outline.path}: pspace can't be evaluated: {error}") from error


def _make_generator(task: Task, row: int, setup: dict[str, Any]) -> dict[str, Any]:
    """Return the generator that the row has in a run, where `execute` takes one."""
    columns = task.pspace.build() if takes_rng(task.execute, [*task.pspace.keys(), *setup]) else None
    if columns is None:
        return {}
    return {RNG: make_rng(task.pspace[row], number_equals(row_keys(columns))[row])}


def _stop(outline: Outline, error: Exception) -> None:
    """Print the traceback from the user's code on, and begin the debugger where the error was raised."""
    frames: TracebackType | None = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames)).rstrip()
    if frames is None or not sys.stdin.isatty():
        raise ExecuteError(f"{outline.path}: {text}") from error
    import pdb

    sys.stderr.write(text + "\n")
    pdb.post_mortem(frames)
