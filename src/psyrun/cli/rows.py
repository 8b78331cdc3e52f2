"""Rows as users name them: by a number in the order of the space, or by values of parameters."""

from __future__ import annotations

import ast
import difflib
import math
import re
from contextlib import suppress
from numbers import Complex
from typing import TYPE_CHECKING, Any

from psyrun.cli.text import count
from psyrun.errors import FormatError, SelectionError
from psyrun.source import loaded, read_zip
from psyrun.values import show_value
from psyrun.workdir import read_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from psyrun.workdir import Batch, Layout, Plan


_NUMBER = re.compile(r"[+-]?[0-9]+")
_MOST_VALUES = 8  # that a message names
_UNREADABLE = object()  # in place of a value whose input file can't be read


def find_rows(layout: Layout, plan: Plan, words: Sequence[str]) -> list[int]:
    """Find rows of a plan.

    Parameters
    ----------
    layout, plan
        Where the files are, and which rows there are.
    words
        Numbers in the order of the space, from 0 or, negative, from its end; or ``name=value``, all of
        which a row has to have. Values are compared as text, numbers by value: ``4`` is 4, 4.0 and "4". Input
        files are read for values only. None: all rows.

    Returns
    -------
    list of int
        Numbers of the rows in the order of the space, from 0, at least one; ascending where values select.

    Raises
    ------
    SelectionError
        If there is no such row; it names what there is.
    """
    task = layout.folder.name
    if words and all(map(_NUMBER.fullmatch, words)):
        return [parse_row_number(task, word, plan.total) for word in words]
    if not words:
        return list(range(plan.total))
    selectors = parse_selectors(words)
    names = {name for name, _ in selectors} & {*plan.names}
    return match_rows(task, plan.names, _read_columns(layout, plan, names), selectors)


def parse_row_number(task: str, word: str, total: int) -> int:
    """Return the number of a row, from 0, that a word names, which may count from the end.

    Raises
    ------
    SelectionError
        If it is no number, or of no row.
    """
    if not _NUMBER.fullmatch(word):
        raise SelectionError(f"{word!r} selects no row; give the number of a row, or values such as x=4")
    number = int(word)
    if not -total <= number < total:
        there = f"they are numbered from 0 to {total - 1}" if total else "it has none"
        raise SelectionError(f"{task}: there is no row {number} among {count(total, 'row')}; {there}")
    return number % total


def parse_selectors(words: Iterable[str]) -> list[tuple[str, str]]:
    """Return (name, text of the value) of each ``name=value``.

    Raises
    ------
    SelectionError
        If a word is no such thing.
    """
    parts = [(word, *word.partition("=")) for word in words]
    for word, name, equals, _ in parts:
        if not (name and equals):
            raise SelectionError(f"{word!r} selects no row; give the number of a row, or values such as x=4")
    return [(name, text) for _, name, _, text in parts]


def match_rows(
    task: str,
    names: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    selectors: Sequence[tuple[str, str]],
) -> list[int]:
    """Return the numbers of the rows that have all of some values.

    Parameters
    ----------
    task
        Its name, for messages.
    names
        The parameters.
    columns
        Parameter -> values (n,), at least of those that are selected by.
    selectors
        (parameter, text of its value).

    Raises
    ------
    SelectionError
        If there is no such row, with the values that come near; or no such parameter.
    """
    found: Sequence[int] = range(max(map(len, columns.values()), default=0))
    for place, (name, text) in enumerate(selectors):
        if name not in names:
            raise SelectionError(f"{task}: there is no parameter {name!r}; {_suggest_name(name, names)}")
        values = columns[name]
        is_equal = _compare_with(text, set(map(type, values)))
        left = [row for row in found if is_equal(values[row])]
        if not left:
            before = " and ".join(f"{other}={value}" for other, value in selectors[:place])
            there = f"those with {before} have" if before else "there are rows with"
            near = show_near_values(name, text, (values[row] for row in found))
            raise SelectionError(f"{task}: no row has {name}={text}; {there} {near}")
        found = left
    return list(found)


def _suggest_name(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"


def _compare_with(text: str, kinds: Iterable[type]) -> Callable[[Any], bool]:
    """Return whether a value is what a text says, for values of some types."""
    literal = _parse(text)
    tests = {kind: _compare_kind(kind, text, literal) for kind in kinds}
    if len(tests) == 1:
        return next(iter(tests.values()))
    return lambda value: tests[type(value)](value)


def _compare_kind(kind: type, text: str, literal: Any) -> Callable[[Any], bool]:
    if issubclass(kind, str):
        return {text, literal if isinstance(literal, str) else text}.__contains__
    numbers = _is_number(kind) and _is_number(type(literal))
    if numbers and kind.__name__ not in ("float16", "float32"):  # whose 0.1 is not 0.1
        return {literal}.__contains__ if literal == literal else lambda value: bool(value != value)
    if kind is type(literal):
        return lambda value: bool(value == literal)

    def is_shown_so(value: Any) -> bool:
        shown = value is not _UNREADABLE and text in (_show(value), show_value(value))
        return shown or bool(numbers and value == literal)

    return is_shown_so


def _is_number(kind: type) -> bool:
    return issubclass(kind, Complex) and not issubclass(kind, bool)


def _parse(text: str) -> Any:
    """Return what a text is in Python: a number, or a literal; else the text."""
    for read in (int, float, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return text


def _show(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # raised by a method of the user's
        return show_value(value)


def show_near_values(name: str, text: str, values: Iterable[Any]) -> str:
    """Return ``x=3, x=5 and 20 others``: of numbers the nearest, else those written alike come first."""
    known = [value for value in values if value is not _UNREADABLE]
    with suppress(TypeError):  # Some can't be hashed.
        known = list(dict.fromkeys(known))
    distinct = {show_value(value): value for value in known}
    number, shown = _parse(text), list(distinct)
    if _is_number(type(number)):
        shown.sort(key=lambda each: _distance(distinct[each], number))
    else:
        near = difflib.get_close_matches(text, [each.strip("'") for each in shown], n=_MOST_VALUES)
        shown.sort(key=lambda each: near.index(each.strip("'")) if each.strip("'") in near else len(near))
    more = len(shown) - _MOST_VALUES
    others = f" and {count(more, 'other value')}" if more > 0 else ""
    return (", ".join(f"{name}={each}" for each in shown[:_MOST_VALUES]) or "no known values") + others


def _distance(value: Any, number: float) -> float:
    distance = abs(value - number) if _is_number(type(value)) else math.nan
    return float(distance) if distance == distance else math.inf


# ---------------------------------------------------------------------- rows and their assignments


def locate_rows(plan: Plan, numbers: Iterable[int]) -> list[tuple[Batch, int]]:
    """Return batch and place in it of rows, by their numbers in the order of the space."""
    batches = {batch.number: batch for batch in plan.batches}
    found: dict[int, tuple[Batch, int]] = {}
    wanted, begin = sorted(set(numbers), reverse=True), 0
    for batch, rows in plan.segments() if wanted else ():
        while wanted and wanted[-1] < begin + len(rows):
            number = wanted.pop()
            found[number] = batches[batch], rows[number - begin]
        begin += len(rows)
    return [found[number] for number in numbers]


def read_assignments(
    layout: Layout, plan: Plan, batch: Batch, rows: Sequence[int]
) -> Sequence[Mapping[str, Any] | None]:
    """Return the assignments of rows of a batch; None where its input file can't be read."""
    columns = read_columns(layout, plan, batch)
    if columns is None:
        return [None] * len(rows)
    return [{name: values[row] for name, values in columns.items()} for row in rows]


def read_columns(layout: Layout, plan: Plan, batch: Batch) -> dict[str, list[Any]] | None:
    """Return parameter -> values of all rows of a batch; None where its input file can't be read."""
    try:
        inputs = read_inputs(layout.input(batch.number), batch.tie)
        try:
            return inputs.columns()
        except (ImportError, AttributeError):  # Assignments may be objects of the task's own classes.
            with loaded(read_zip(layout.code(plan.code)), layout.root):
                return inputs.columns()
    except (FormatError, OSError):
        return None


def _read_columns(layout: Layout, plan: Plan, names: Iterable[str]) -> dict[str, list[Any]]:
    """Return some parameters of all rows, in the order of the space."""
    batches = {each.number: read_columns(layout, plan, each) or {} for each in plan.batches}
    found: dict[str, list[Any]] = {name: [] for name in names}
    for number, rows in plan.segments():
        for name, column in found.items():
            values = batches[number].get(name)
            column += [_UNREADABLE] * len(rows) if values is None else values[rows.start : rows.stop]
    return found
