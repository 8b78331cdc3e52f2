"""Columns as HDF5 nodes: arrays (n, ...) that grow along their first axis.

Attributes of a node say what HDF5 can't: ``psyrun_kind`` (`Column.kind`), ``psyrun_position`` (among the
columns, from 0), ``psyrun_dtype`` of dates and time differences, which are kept as int64, and
``psyrun_shape`` of values that have an axis of length 0, which is kept as 1. The group has ``psyrun_rows``,
the number of rows that all columns have. Strings are fixed-width, as `psyrun.store.encoding` encodes them, so
that any HDF5 reader shows them. A node without these attributes was written by another program, or by psyrun
0.8: it is read as it is, and replaced by one with attributes when rows are appended.
"""

# ruff: noqa: SLF001 - PyTables spells its public names with _v_, to leave the others to nodes.

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from psyrun.errors import StoreError
from psyrun.store import encoding
from psyrun.store.arrays import STRINGS, build
from psyrun.store.columns import Column, describe, join
from psyrun.store.encoding import escape, unescape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


# What PyTables refuses, hides or loses: slashes, a dot at the end, and its own prefixes.
_UNSAFE = r"/|\.\Z|^_(?=[a-z]?_)"
_CHUNK = 64 * 1024  # Bytes; read and written as a whole.
_MIN_CHUNK_ROWS = 512  # For files that start small and grow.
_BLOCK = 4 * 1024 * 1024  # Bytes of a node that are in memory at a time.
_TIMES = ("datetime", "timedelta")


def find_group(file: Any, path: str, *, create: bool = False) -> Any:
    """Find the group of columns at `path`, or create it.

    Raises
    ------
    StoreError
        If there is no such node and it is not to be created, or if it is no group.
    """
    import tables

    if path not in file and create:
        parent, _, name = path.rpartition("/")
        return file.create_group(parent or "/", name, createparents=True)
    if path not in file:
        found = ", ".join(node._v_pathname for node in file.iter_nodes("/")) or "nothing"
        raise StoreError(f"{file.filename}: no node {path!r}; there is {found}")
    group = file.get_node(path)
    if not isinstance(group, tables.Group):
        raise StoreError(f"{file.filename}: node {path!r} is an array, not a group of columns")
    return group


def read_row_count(group: Any) -> int:
    """Return the number of rows of the columns of a group."""
    if "psyrun_rows" in group._v_attrs:
        return int(group._v_attrs.psyrun_rows)
    return max(map(len, list_nodes(group).values()), default=0)


def write_row_count(group: Any, rows: int) -> None:
    """Record the number of rows that all columns of a group have."""
    group._v_file.flush()
    group._v_attrs.psyrun_rows = rows


def list_nodes(group: Any) -> dict[str, Any]:
    """Find the columns of a group: name -> node, in their order."""
    nodes = group._v_leaves.values()
    last = len(group._v_leaves)
    ordered = sorted(nodes, key=lambda node: int(getattr(node.attrs, "psyrun_position", last)))
    return {unescape(node._v_name): node for node in ordered}


def create_node(group: Any, name: str, column: Column, *, position: int, rows: int) -> Any:
    """Create an empty node for values that `column` describes; about `rows` of them are expected."""
    import tables

    dtype, shape = _stored_dtype(column), _stored_shape(column)
    chunk_rows = min(_CHUNK // (dtype.itemsize * math.prod(shape)), max(rows, _MIN_CHUNK_ROWS))
    padded = column.kind in STRINGS or (column.holes and shape != ())
    node = group._v_file.create_earray(
        group,
        escape(name, _UNSAFE),
        atom=tables.Atom.from_dtype(dtype),
        shape=(0, *shape),
        chunkshape=(max(1, chunk_rows), *shape),
        # zlib is in every HDF5 library. It removes padding; numbers hardly shrink, and writing takes longer.
        filters=tables.Filters(complevel=1, complib="zlib") if padded else None,
    )
    node.attrs.psyrun_kind = column.kind
    node.attrs.psyrun_position = position
    if column.kind in _TIMES:
        node.attrs.psyrun_dtype = column.dtype.str
    if 0 in column.shape:
        node.attrs.psyrun_shape = np.array(column.shape)
    return node


def _stored_dtype(column: Column) -> np.dtype[Any]:
    if column.kind in STRINGS:
        return np.dtype(f"S{column.width}")
    if column.kind in _TIMES:
        return np.dtype(np.int64)
    return np.dtype(np.float64) if column.kind == "missing" else column.array_dtype


def _stored_shape(column: Column) -> tuple[int, ...]:
    return tuple(max(length, 1) for length in column.shape)


def extend_node(node: Any, values: Sequence[Any] | NDArray[Any], column: Column) -> None:
    """Append n values to a node that was created for `column`, or that it fits."""
    array = build(values, column)
    dtype, shape = _stored_dtype(column), (len(values), *_stored_shape(column))
    if len(array) == 0:
        return
    if 0 in column.shape:
        array = np.zeros(shape, dtype)
    elif column.kind == "missing":
        array = np.full(shape, np.nan)
    elif column.kind in STRINGS:
        array = np.array(encoding.encode(array.ravel().tolist()), dtype).reshape(shape)
    node.append(array.astype(dtype, copy=False))


def is_growing(node: Any) -> bool:
    """Whether rows can be appended to a node: to one that `create_node` made."""
    return _kind(node) != "" and type(node).__name__ == "EArray"


def describe_node(node: Any) -> Column:
    """Describe a node that `create_node` made from its attributes, without its values."""
    attributes, kind = node.attrs, _kind(node)
    shape = tuple(map(int, attributes.psyrun_shape if "psyrun_shape" in attributes else node.shape[1:]))
    empty = kind == "missing" and shape == ()
    plain = np.dtype(object) if kind in STRINGS or kind == "missing" else node.dtype
    return Column(
        kind=kind,
        dtype=np.dtype(str(attributes.psyrun_dtype)) if kind in _TIMES else plain,
        shape=shape,
        holes=empty and len(node) > 0,
        high=int(np.iinfo(np.uint64).max) if node.dtype == np.uint64 else 0,
        width=node.dtype.itemsize if kind in STRINGS else 1,
        types=frozenset() if empty else frozenset({str(node.dtype) if kind == "number" else kind}),
    )


def fits(node: Any, column: Column, rows: int) -> bool:
    """Whether a growing node has `rows` values, and can hold all of a column that begins with them."""
    old = describe_node(node)
    return (
        len(node) >= rows
        and (old.kind, old.shape) == (column.kind, column.shape)
        and _stored_dtype(column) == node.dtype
        and (column.kind not in _TIMES or old.dtype == column.dtype)
    )


# ---------------------------------------------------------------------- reading


def read_blocks(group: Any) -> Iterator[dict[str, Any]]:
    """Yield all rows of a group, as tables of a few megabytes; columns without a type are None."""
    nodes, rows = list_nodes(group), read_row_count(group)
    step = max(1, _BLOCK // max(1, sum(map(_row_size, nodes.values()))))
    for start in range(0, max(rows, 1), step):
        stop = min(start + step, rows)
        yield {
            name: [None] * (stop - start) if _kind(node) == "missing" else read_node(node, start, stop)
            for name, node in nodes.items()
        }


def _row_size(node: Any) -> int:
    return max(1, int(node.atom.size * math.prod(node.shape[1:])))


def _kind(node: Any) -> str:
    return str(getattr(node.attrs, "psyrun_kind", ""))


def read_node(node: Any, start: int, stop: int) -> NDArray[Any]:
    """Read rows of a node (n, ...); those beyond its end are missing."""
    array = _read_typed(node, start, min(stop, len(node))) if _kind(node) else _read_plain(node)[start:stop]
    lacking = stop - start - len(array)
    if lacking:  # An append was interrupted, or psyrun did not write the arrays.
        column = join(describe(array), Column(holes=True))
        array = np.concatenate([build(array, column), build([None] * lacking, column)])
    return encoding.compact(array, STRINGS[_kind(node)]) if _kind(node) in STRINGS else array


def _read_plain(node: Any) -> NDArray[Any]:
    values = node.read()
    return build(values, describe(values)) if isinstance(values, list) else np.atleast_1d(values)


def _read_typed(node: Any, start: int, stop: int) -> NDArray[Any]:
    step = max(1, _BLOCK // _row_size(node))
    firsts = range(start, max(stop, start + 1), step)
    blocks = [_decode(node, node[first : min(first + step, stop)]) for first in firsts]
    return np.concatenate(blocks) if len(blocks) > 1 else blocks[0]


def _decode(node: Any, stored: NDArray[Any]) -> NDArray[Any]:
    """Convert stored rows to values (n, ...), strings to objects."""
    column = describe_node(node)
    if 0 in column.shape:
        return np.empty((len(stored), *column.shape), column.array_dtype)
    if column.kind == "missing":
        return np.full(len(stored), None)
    if column.kind not in STRINGS:
        return stored.astype(column.dtype, copy=False)
    strings = encoding.decode(stored.ravel().tolist())
    array = np.empty(stored.size, dtype=object)
    is_text = column.kind == "text"
    array[:] = strings if is_text else [s if s is None else s.encode("latin-1") for s in strings]
    return array.reshape(stored.shape)
