"""What every store asks of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun.errors import StoreError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sized

__all__ = ["count_rows", "locate_row"]


def count_rows(data: Mapping[str, Sized]) -> int:
    """Count the rows of a table; one without columns has none.

    Raises
    ------
    StoreError
        If the columns differ in length.

    Examples
    --------
    >>> count_rows({"x": [1, 2], "y": ["a", "b"]})
    2
    """
    lengths = {name: len(values) for name, values in data.items()}
    if len(set(lengths.values())) > 1:
        raise StoreError(f"the columns of a table must have one length, but these have {lengths}")
    return next(iter(lengths.values()), 0)


def locate_row(filename: str | os.PathLike[str], row: int, count: int) -> int:
    """Turn a row number, which may count from the end, into one from 0.

    Raises
    ------
    StoreError
        If a file of `count` rows has no such row.
    """
    if not -count <= row < count:
        raise StoreError(f"{filename}: there is no row {row}; the file holds {count} rows")
    return row % count
