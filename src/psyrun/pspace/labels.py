"""Labels of rows: whole numbers, equal where rows are the same; made by columns, for tables of many rows."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from psyrun.pspace.keys import column_keys, identity

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    Labels = np.ndarray[Any, np.dtype[np.int64]]


_BOOLS = frozenset({bool, np.bool_})
_INTEGERS = frozenset(
    {int, *(np.dtype(char).type for char in "bhilqBHI")}
)  # None is beyond 64 bits with a sign.
_REALS = frozenset({float, np.float16, np.float32, np.float64})
_EXACT = 2.0**53  # From here on, floats skip integers.
_SPARSE = 4  # A label may be this many times the number of rows.


def label_rows(tables: Sequence[Mapping[str, Sequence[Any]]], key: Callable[[Any], Hashable]) -> list[Labels]:
    """Label the rows of tables: equal labels mean equal keys.

    Labels are from 0 to a few times the number of rows, and are compared within one call only.

    Parameters
    ----------
    tables
        Name -> sequence of length n, the same names in all.
    key
        The key of a value: `psyrun.pspace.identity` or `psyrun.pspace.value_key`.

    Returns
    -------
    list of arrays
        For each table, n labels.

    Raises
    ------
    IdentityError
        If a value can't be pickled; the message names its parameter.

    Examples
    --------
    >>> from psyrun.pspace import value_key
    >>> [labels.tolist() for labels in label_rows([{"a": [1, 2]}, {"a": [2.0, 1.5, 1]}], value_key)]
    [[0, 2], [2, 1, 0]]
    """
    sizes = [len(next(iter(table.values()))) for table in tables]
    rows = sum(sizes)
    labels, bound = np.zeros(rows, np.int64), 1
    for name in sorted(tables[0]):
        column = list(chain.from_iterable(table[name] for table in tables))
        more, distinct = _label_column(name, column, exact=key is identity)
        if bound * distinct > 2**62:
            labels, bound = _close_up(labels)
        labels *= distinct
        labels += more
        bound *= distinct
    if bound > _SPARSE * rows:
        labels, _ = _close_up(labels)
    return np.split(labels, np.cumsum(sizes[:-1]))


def _label_column(name: str, values: list[Any], *, exact: bool) -> tuple[Labels, int]:
    """Return a label for each value, and a bound of all."""
    numbers = _read_numbers(values, exact=exact)
    if numbers is None:
        index: dict[Hashable, int] = {}
        keys = column_keys(name, values, exact=exact)
        labels = np.fromiter((index.setdefault(key, len(index)) for key in keys), np.int64, len(values))
        return labels, max(len(index), 1)
    lowest, highest = (int(numbers.min()), int(numbers.max())) if values else (0, 0)
    if highest - lowest < _SPARSE * len(values):
        return numbers - lowest, highest - lowest + 1
    return _close_up(numbers)


def _read_numbers(values: list[Any], *, exact: bool) -> Labels | None:
    """Return 64 bits for each value, equal where keys are; None if the kinds of values do not allow it."""
    kinds = set(map(type, values))
    wholes = _INTEGERS if exact else _INTEGERS | _BOOLS
    try:
        if kinds <= wholes or kinds <= _BOOLS:
            return np.fromiter(values, np.int64, len(values))
        if not kinds <= (_REALS if exact else _REALS | wholes):
            return None
        reals = np.fromiter(values, np.float64, len(values))
    except OverflowError:
        return None
    if not kinds <= _REALS and np.any((np.abs(reals) >= _EXACT) & np.isfinite(reals)):
        return None
    if not exact:
        reals += 0.0  # Makes -0.0 positive.
    reals[np.isnan(reals)] = np.nan
    return reals.view(np.int64)


def _close_up(labels: Labels) -> tuple[Labels, int]:
    """Make labels follow each other without gaps."""
    distinct, closed = np.unique(labels, return_inverse=True)
    return closed, max(len(distinct), 1)
