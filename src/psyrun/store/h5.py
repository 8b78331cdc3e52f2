"""Tables as HDF5 files: one growing array per column, below a node of their own."""

from __future__ import annotations

import os
import shutil
import warnings
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.disk import replacing
from psyrun.errors import StoreError
from psyrun.store.arrays import describe_chunks
from psyrun.store.columns import Column, describe, join, warn_of_changes
from psyrun.store.h5_nodes import (
    create_node,
    describe_node,
    extend_node,
    find_group,
    fits,
    is_growing,
    list_nodes,
    read_blocks,
    read_node,
    read_row_count,
    write_row_count,
)
from psyrun.store.protocol import count_rows, locate_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


class H5Store:
    """Keeps a table in an HDF5 file, as one array (n, ...) per column below `node`; the rest is left alone.

    `psyrun.store.columns` says how values become arrays, `psyrun.store.h5_nodes` how arrays become nodes.
    Numbers, strings, bytes, dates, time differences and arrays of them can be kept, objects can't. Rows are
    written and appended block by block, without holding the table; one row is read without the others.

    Parameters
    ----------
    node
        Path of the group inside the file.

    Examples
    --------
    >>> import tempfile, os
    >>> filename = os.path.join(tempfile.mkdtemp(), "table.h5")
    >>> H5Store().append(filename, {"x": [1, 2], "word": ["one", "two"]})
    >>> H5Store().append(filename, {"x": [3], "word": ["three"]})
    >>> H5Store().load(filename)["x"]
    array([1, 2, 3])
    >>> H5Store().load(filename, row=2)["word"] == ["three"]
    array([ True])
    """

    ext = ".h5"

    def __init__(self, node: str = "/psyrun") -> None:
        if not node.startswith("/"):
            raise StoreError(f"node {node!r} is not the path of an HDF5 group; it must start with '/'")
        self.node = node.rstrip("/") or "/"

    def check(self, data: Mapping[str, Any]) -> None:
        """Make sure that the file can hold these values.

        Raises
        ------
        StoreError
            If it can't, naming column and type.
        """
        _refuse_objects({name: describe(values) for name, values in data.items()})

    def save(self, filename: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
        """Write a table of n rows, replacing the one below the node.

        Raises
        ------
        StoreError
            If a value can't be held, naming column and type, or the file can't be written.
        """
        self.save_chunks(filename, lambda: iter([data]))

    def save_chunks(
        self,
        filename: str | os.PathLike[str],
        chunks: Callable[[], Iterator[Mapping[str, Sequence[Any]]]],
    ) -> None:
        """Write the tables that `chunks` yields, one below the other, holding one at a time.

        Types and shapes are found before the first value is written: `chunks` is called twice where there
        is much.

        Raises
        ------
        StoreError
            As `save` does; the file is as it was then.
        """
        known, tables = describe_chunks(chunks)
        columns, rows = known.columns, known.rows
        _refuse_objects(columns)
        warn_of_changes(columns)
        mode = "a" if _is_hdf5(filename) else "w"
        with _open(filename, mode) as file:
            group = find_group(file, self.node, create=True)
            for node in list_nodes(group).values():
                file.remove_node(node)
            write_row_count(group, 0)
            nodes = {
                name: create_node(group, name, column, position=i, rows=rows)
                for i, (name, column) in enumerate(columns.items())
            }
            for table in tables():
                count = count_rows(table)
                for name, column in columns.items():
                    extend_node(nodes[name], table.get(name, [None] * count), column)
            write_row_count(group, rows)

    def load(self, filename: str | os.PathLike[str], row: int | None = None) -> dict[str, Any]:
        """Read name -> array (n, ...), or with `row` those of this row alone (1, ...).

        Raises
        ------
        StoreError
            If the file is not an HDF5 file or damaged, or does not have that node or that row.
        """
        with _open(filename, "r") as file:
            group = find_group(file, self.node)
            nodes, rows = list_nodes(group), read_row_count(group)
            if row is None:
                return {name: read_node(node, 0, rows) for name, node in nodes.items()}
            index = locate_row(filename, row, rows)
            return {name: read_node(node, index, index + 1) for name, node in nodes.items()}

    def append(self, filename: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
        """Add rows at the end, in place; a missing file is created.

        Names that one side lacks are filled with NaN or None. Where a column is new, or needs another type or
        a larger shape, all is written anew, by blocks, and the file is replaced. The rows count once all
        columns have them: when an append was interrupted, the next one cuts what it left.

        Raises
        ------
        StoreError
            If a value can't be held, naming column and type, or the file can't be written.
        """
        path = Path(filename)
        if not path.exists():
            self.save(path, data)
        elif not self._extend(path, data):
            with replacing(path) as temporary:
                shutil.copyfile(path, temporary)  # It may hold more than the table.
                self.save_chunks(temporary, lambda: chain(self._read_blocks(path), [data]))

    def _extend(self, path: Path, data: Mapping[str, Any]) -> bool:
        """Add rows in place if the nodes can hold them; tell whether they can."""
        more = count_rows(data)
        with _open(path, "a") as file:
            group = find_group(file, self.node, create=True)
            nodes, rows = list_nodes(group), read_row_count(group)
            if not (data.keys() <= nodes.keys() and all(map(is_growing, nodes.values()))):
                return False
            values = {name: data.get(name, [None] * more) for name in nodes}
            columns = {name: join(describe_node(nodes[name]), describe(values[name])) for name in nodes}
            if not all(fits(nodes[name], columns[name], rows) for name in nodes):
                return False
            warn_of_changes(columns)
            for name, node in nodes.items():
                node.truncate(rows)
                extend_node(node, values[name], columns[name])
            write_row_count(group, rows + more)
        return True

    def _read_blocks(self, path: Path) -> Iterator[dict[str, Any]]:
        with _open(path, "r") as file:
            if self.node in file:
                yield from read_blocks(find_group(file, self.node))


def _refuse_objects(columns: Mapping[str, Column]) -> None:
    for name, column in columns.items():
        if not column.boxed:
            continue
        what = " and ".join(sorted(column.types))
        if column.kind == "number":
            inexact = not column.exact and (column.holes or column.dtype.kind in "fc")
            beside = " that would lose digits as float64 beside missing or real ones"
            what += beside if inexact else " beyond 64 bits"
        raise StoreError(
            f"column {name!r} holds values of type {what}, which HDF5 can't hold; "
            "use PickleStore or NpzStore, or name it in exclude_from_result"
        )


def _is_hdf5(filename: str | os.PathLike[str]) -> bool:
    import tables

    path = Path(filename)
    return path.exists() and path.stat().st_size > 0 and bool(tables.is_hdf5_file(os.fspath(filename)))


@contextmanager
def _open(filename: str | os.PathLike[str], mode: str) -> Iterator[Any]:
    """Open a file; an error of HDF5 becomes a `StoreError`."""
    import tables

    # A missing file is Python's FileNotFoundError; HDF5 would take an empty one for a new one.
    if mode != "w" and Path(filename).stat().st_size == 0:
        raise StoreError(f"{filename}: not an HDF5 file: it is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", tables.NaturalNameWarning)
            with _open_once(filename, mode) as file:
                yield file
    except tables.HDF5ExtError as error:
        reason = str(error).strip().splitlines()[-1]
        raise StoreError(f"{filename}: not an HDF5 file, damaged or cut short ({reason})") from error


def _open_once(filename: str | os.PathLike[str], mode: str) -> Any:
    import tables

    try:
        return tables.open_file(os.fspath(filename), mode)
    except ValueError as error:  # PyTables does not write to a file that is open for reading, or vice versa.
        raise StoreError(f"{filename}: {error}") from error
