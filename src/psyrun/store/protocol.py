"""Protocol of stores, which keep a table in one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from psyrun.disk import replacing
from psyrun.errors import RowError, StoreError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence, Sized


@runtime_checkable
class Store(Protocol):
    """Keeps a table (name -> n values) in a file.

    Attributes
    ----------
    ext
        Extension of its files, with the dot.
    """

    ext: str

    def check(self, data: Mapping[str, Any]) -> None:
        """Raise a `StoreError` that names column and type where the store can't hold these values.

        psyrun calls it with the first finished row, so that a run ends then, and not at the merge.
        """
        ...

    def save(self, filename: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
        """Write a table, replacing the file."""
        ...

    def load(self, filename: str | os.PathLike[str], row: int | None = None) -> dict[str, Any]:
        """Read a table, or with `row` that of this row alone: columns of one value."""
        ...

    def append(self, filename: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
        """Add rows at the end; a missing file is created."""
        ...


@runtime_checkable
class ChunkStore(Store, Protocol):
    """A store that can write a table piece by piece, without holding all of it."""

    def save_chunks(
        self,
        filename: str | os.PathLike[str],
        chunks: Callable[[], Iterator[Mapping[str, Sequence[Any]]]],
    ) -> None:
        """Write the tables that `chunks` yields, one below the other; it may be called more than once."""
        ...


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


def append_rows(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Put a table below another; names that one side lacks are filled with None.

    Examples
    --------
    >>> append_rows({"x": [1]}, {"x": [2], "y": [3]})
    {'x': [1, 2], 'y': [None, 3]}
    """
    count, more = count_rows(old), count_rows(new)
    names = dict.fromkeys([*old, *new])
    return {name: [*old.get(name, [None] * count), *new.get(name, [None] * more)] for name in names}


def take_row(filename: str | os.PathLike[str], data: dict[str, Any], row: int | None) -> dict[str, Any]:
    """Return a table that a file holds, or one row of it: name -> values (1,).

    Raises
    ------
    RowError
        If there is no such row.
    """
    if row is None:
        return data
    index = locate_row(filename, row, count_rows(data))
    return {name: values[index : index + 1] for name, values in data.items()}


class RewrittenStore:
    """A store that writes all of a file anew to add rows; `load` and `save` are its own."""

    def append(self: Store, filename: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
        """Add rows at the end, by writing all of the file anew and renaming it; a missing file is created.

        Names that one side lacks are filled with None.
        """
        path = Path(filename)
        table = append_rows(self.load(path) if path.exists() else {}, data)
        with replacing(path) as temporary:
            self.save(temporary, table)


def locate_row(filename: str | os.PathLike[str], row: int, count: int) -> int:
    """Convert a row number, which may count from the end, to one from 0.

    Raises
    ------
    RowError
        If a file of `count` rows has no such row.
    """
    if not -count <= row < count:
        raise RowError(f"{filename}: there is no row {row}; the file holds {count} rows")
    return row % count
