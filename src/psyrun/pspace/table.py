"""Tables: rows as columns."""

from __future__ import annotations

import math
from itertools import repeat
from numbers import Number
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


Table = dict[str, list[Any]]
"""Rows as columns: name -> list of length n."""

ABSENT: Any = type("Absent", (), {"__slots__": (), "__repr__": lambda _: "ABSENT"})()
"""Placeholder for a value that a row of a table lacks, until `stack` fills it. Not to be pickled."""


def stack(tables: Iterable[Mapping[str, Sequence[Any]]], names: Iterable[str]) -> Table:
    """Put tables one below the other, and fill what rows lack: with NaN beside numbers, else with None.

    Parameters
    ----------
    tables
        Name -> sequence or array of shape (n, ...), the same n for all of one table. A name may be missing
        from some tables, and single values may be `ABSENT`.
    names
        Columns that come first, and are there even if no table has them; others follow in the order of
        appearance.

    Returns
    -------
    dict of lists
        Name -> as many values as all tables have rows.

    Examples
    --------
    >>> stack([{"a": [1], "x": [0.5]}, {"a": [2], "word": ["two"]}], names=["a"])
    {'a': [1, 2], 'x': [0.5, nan], 'word': [None, 'two']}
    """
    stacked: Table = {name: [] for name in names}
    rows = 0
    for table in tables:
        size = max(map(len, table.values()), default=0)
        for name in table:
            stacked.setdefault(name, [ABSENT] * rows)
        for name, values in stacked.items():
            values.extend(table.get(name, repeat(ABSENT, size)))
        rows += size
    for values in stacked.values():
        fill(values)
    return stacked


def fill(values: list[Any]) -> None:
    """Put NaN in the place of `ABSENT` beside numbers, else None."""
    if type(ABSENT) not in set(map(type, values)):
        return
    present = [value for value in values if value is not ABSENT]
    filling = math.nan if present and all(map(_is_number, present)) else None
    values[:] = [filling if value is ABSENT else value for value in values]


def _is_number(value: Any) -> bool:
    """Whether NaN may stand in the place of a value: of numbers, and of arrays of numbers."""
    dtype = getattr(value, "dtype", None)
    return isinstance(value, Number) if dtype is None else getattr(dtype, "kind", "") in "biufc"
