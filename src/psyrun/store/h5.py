"""Tables as HDF5 files: one growing array per column, below a node of their own."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.errors import StoreError
from psyrun.store.columns import Column, describe, join, survey
from psyrun.store.h5_nodes import (
    create_node,
    extend_node,
    find_group,
    fit_node,
    join_node,
    list_nodes,
    read_node,
    read_row_count,
    write_row_count,
)
from psyrun.store.protocol import count_rows, locate_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


class H5Store:
    """Keeps a table in an HDF5 file, as one array (n, ...) per column below `node`; the rest is left alone.

    How values become arrays is told in `psyrun.store.columns`, how arrays become nodes in
    `psyrun.store.h5_nodes`. Numbers, strings, bytes, dates, time differences and arrays of them can be kept,
    objects can't. Rows are written and appended block by block, without holding the table; one row is read
    without the others.

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
    >>> H5Store().load(filename, row=2)["word"] == "three"
    True
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

        It is called twice: types and shapes are found before the first value is written.

        Raises
        ------
        StoreError
            As `save` does; the file is as it was then.
        """
        columns, rows = survey(chunks())
        _refuse_objects(columns)
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
            for table in chunks():
                count = count_rows(table)
                for name, column in columns.items():
                    extend_node(nodes[name], table.get(name, [None] * count), column)
            write_row_count(group, rows)

    def load(self, filename: str | os.PathLike[str], row: int | None = None) -> dict[str, Any]:
        """Read name -> array (n, ...), or with `row` name -> value, without the other rows.

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
            return {name: read_node(node, index, index + 1)[0] for name, node in nodes.items()}

    def append(self, filename: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
        """Add rows at the end, in place; a missing file is created.

        Names that one side lacks are filled with NaN or None. A column whose new values need another type or
        a larger shape is written anew, by blocks. The rows count once all columns have them: when an append
        was interrupted, the next one cuts what it left.

        Raises
        ------
        StoreError
            If a value can't be held, naming column and type, or the file can't be written.
        """
        more = count_rows(data)
        if not Path(filename).exists():
            self.save(filename, data)
            return
        with _open(filename, "a") as file:
            group = find_group(file, self.node, create=True)
            nodes, rows = list_nodes(group), read_row_count(group)
            columns = _join_columns(nodes, data, rows, more)
            _refuse_objects(columns)
            for i, (name, column) in enumerate(columns.items()):
                node = nodes.get(name)
                if node is None:
                    node = create_node(group, name, column, position=i, rows=rows + more)
                node = fit_node(node, column, rows)
                extend_node(node, data.get(name, [None] * more), column)
            write_row_count(group, rows + more)


def _join_columns(
    nodes: Mapping[str, Any], data: Mapping[str, Any], rows: int, more: int
) -> dict[str, Column]:
    """Describe old and new values of every column together."""
    columns = {}
    for name in [*nodes, *(name for name in data if name not in nodes)]:
        new = describe(data[name]) if name in data else Column(holes=more > 0)
        if name not in nodes:
            columns[name] = join(Column(holes=rows > 0), new)
            continue
        short = len(nodes[name]) < rows
        columns[name] = join_node(nodes[name], join(Column(holes=short), new))
    return columns


def _refuse_objects(columns: Mapping[str, Column]) -> None:
    for name, column in columns.items():
        if column.boxed:
            what = " and ".join(sorted(column.types))
            raise StoreError(
                f"column {name!r} holds values of type {what}{_explain(column)}, which HDF5 can't hold; "
                "use PickleStore or NpzStore, or name it in exclude_from_result"
            )


def _explain(column: Column) -> str:
    if column.kind != "number":
        return ""
    if not column.exact and (column.holes or column.dtype.kind in "fc"):
        return " that would lose digits as float64 beside missing or real ones"
    return " beyond 64 bits"


def _is_hdf5(filename: str | os.PathLike[str]) -> bool:
    import tables

    path = Path(filename)
    return path.exists() and path.stat().st_size > 0 and bool(tables.is_hdf5_file(os.fspath(filename)))


@contextmanager
def _open(filename: str | os.PathLike[str], mode: str) -> Iterator[Any]:
    """Open a file; what HDF5 finds wrong with it becomes a `StoreError`."""
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
