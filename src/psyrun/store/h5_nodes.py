"""Columns as HDF5 nodes: arrays (n, ...) that grow along their first axis.

Attributes of a node say what HDF5 can't: ``psyrun_kind`` (`Column.kind`), ``psyrun_position`` (among the
columns, from 0), ``psyrun_dtype`` of dates and time differences, which are kept as int64, and
``psyrun_shape`` of values that have an axis of length 0, which is kept as 1. The group has ``psyrun_rows``,
the number of rows that all columns have. Strings are fixed-width, as `psyrun.store.encoding` encodes them, so
that any HDF5 reader shows them. A node without these attributes is somebody else's array: it is read as it
is, and becomes one of ours when it is appended to.
"""

# ruff: noqa: SLF001 - PyTables spells its public names with _v_, to leave the others to nodes.

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from psyrun.errors import StoreError
from psyrun.store import encoding
from psyrun.store.arrays import build
from psyrun.store.columns import Column, describe, join
from psyrun.store.encoding import escape, unescape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


# What PyTables refuses, hides or loses: slashes, a dot at the end, and its own prefixes.
_UNSAFE = r"/|\.\Z|^_(?=[a-z]?_)"
_TEMPORARY = "_p_psyrun_new"  # Hidden by its prefix, and no column's name.
_CHUNK = 64 * 1024  # Bytes; read and written as a whole.
_MIN_CHUNK_ROWS = 512  # For files that start small and grow.
_BLOCK = 4 * 1024 * 1024  # Bytes of a node that are in memory at a time.
_STRINGS = {"text": "U", "bytes": "S"}
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
    """Tell how many rows the columns of a group have."""
    if "psyrun_rows" in group._v_attrs:
        return int(group._v_attrs.psyrun_rows)
    return max(map(len, list_nodes(group).values()), default=0)


def write_row_count(group: Any, rows: int) -> None:
    """Say that all columns of a group have their rows."""
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
    return _create(group, escape(name, _UNSAFE), column, position, rows)


def _create(group: Any, node_name: str, column: Column, position: int, rows: int) -> Any:
    import tables

    dtype, shape = _stored_dtype(column), _stored_shape(column)
    size = dtype.itemsize * math.prod(shape)
    padded = column.kind in _STRINGS or (column.holes and shape != ())
    node = group._v_file.create_earray(
        group,
        node_name,
        atom=tables.Atom.from_dtype(dtype),
        shape=(0, *shape),
        chunkshape=(max(1, min(_CHUNK // size, max(rows, _MIN_CHUNK_ROWS))), *shape),
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
    if column.kind in _STRINGS:
        return np.dtype(f"S{column.width}")
    if column.kind in _TIMES:
        return np.dtype(np.int64)
    return np.dtype(np.float64) if column.kind == "missing" else column.array_dtype


def _stored_shape(column: Column) -> tuple[int, ...]:
    return tuple(max(length, 1) for length in column.shape)


def extend_node(node: Any, values: Sequence[Any] | NDArray[Any], column: Column) -> None:
    """Append n values to a node that was created for `column`, or fitted to it."""
    array = build(values, column)
    dtype, shape = _stored_dtype(column), (len(values), *_stored_shape(column))
    if len(array) == 0:
        return
    if 0 in column.shape:
        array = np.zeros(shape, dtype)
    elif column.kind == "missing":
        array = np.full(shape, np.nan)
    elif column.kind in _STRINGS:
        array = np.array(encoding.encode(array.ravel().tolist()), dtype).reshape(shape)
    node.append(array.astype(dtype, copy=False))


def read_node(node: Any, start: int, stop: int) -> NDArray[Any]:
    """Read the values of the rows from `start` to `stop` (n, ...); what the node does not have is missing."""
    if _is_ours(node):
        kind = str(node.attrs.psyrun_kind)
        blocks = [_decode(node, block) for block in _read_blocks(node, start, min(stop, len(node)))]
        array = np.concatenate(blocks) if len(blocks) > 1 else blocks[0]
    else:
        kind, array = "", _read_foreign(node)[start:stop]
    lacking = stop - start - len(array)
    if lacking:  # An append was interrupted, or the arrays are not ours.
        column = join(describe(array), Column(holes=True))
        array = np.concatenate([build(array, column), build([None] * lacking, column)])
    return encoding.compact(array, _STRINGS[kind]) if kind in _STRINGS else array


def _is_ours(node: Any) -> bool:
    return "psyrun_kind" in node.attrs


def _read_foreign(node: Any) -> NDArray[Any]:
    values = node.read()
    return build(values, describe(values)) if isinstance(values, list) else np.atleast_1d(values)


def _read_blocks(node: Any, start: int, stop: int) -> Iterator[NDArray[Any]]:
    """Yield the stored rows by blocks, at least one, which may be empty."""
    step = max(1, _BLOCK // (node.atom.size * math.prod(node.shape[1:])))
    for first in range(start, max(stop, start + 1), step):
        yield node[first : min(first + step, stop)]


def _decode(node: Any, stored: NDArray[Any]) -> NDArray[Any]:
    """Turn stored rows into values (n, ...); strings become objects."""
    kind = node.attrs.psyrun_kind
    column = _column_of(node)
    if 0 in column.shape:
        return np.empty((len(stored), *column.shape), column.array_dtype)
    if kind == "missing":
        return np.full(len(stored), None)
    if kind in _STRINGS:
        strings = encoding.decode(stored.ravel().tolist())
        array = np.empty(stored.size, dtype=object)
        array[:] = strings if kind == "text" else [s if s is None else s.encode("latin-1") for s in strings]
        return array.reshape(stored.shape)
    return stored.astype(column.dtype, copy=False)


# ---------------------------------------------------------------------- growing


def join_node(node: Any, new: Column) -> Column:
    """Describe the values of a node and those of `new` below them."""
    old = _column_of(node) if _is_ours(node) else describe(_read_foreign(node))
    both = join(old, new)
    if not _is_ours(node) or old.dtype.kind not in "iu" or both.array_dtype == old.dtype:
        return both
    # Whether these integers fit another type depends on the values.
    old = replace(old, high=0)
    if len(node) and 0 not in old.shape:
        for block in _read_blocks(node, 0, len(node)):
            old = join(old, describe(block))
    return join(old, new)


def _column_of(node: Any) -> Column:
    """Describe a node of ours from its attributes, without the values."""
    attributes = node.attrs
    kind = str(attributes.psyrun_kind)
    shape = tuple(map(int, attributes.psyrun_shape)) if "psyrun_shape" in attributes else node.shape[1:]
    empty = kind == "missing" and shape == ()
    plain = np.dtype(object) if kind in _STRINGS or kind == "missing" else node.dtype
    return Column(
        kind=kind,
        dtype=np.dtype(str(attributes.psyrun_dtype)) if kind in _TIMES else plain,
        shape=tuple(map(int, shape)),
        holes=empty and len(node) > 0,
        high=int(np.iinfo(np.uint64).max) if node.dtype == np.uint64 else 0,
        width=node.dtype.itemsize if kind in _STRINGS else 1,
        types=frozenset() if empty else frozenset({str(node.dtype) if kind == "number" else kind}),
    )


def fit_node(node: Any, column: Column, rows: int) -> Any:
    """Make a node hold exactly `rows` values, of the type and shape that `column` says.

    Where they differ from its own the node is written anew, by blocks, and the new one takes its place.
    HDF5 does not give the space of the old one back; ``ptrepack`` does.
    """
    if _needs_rewriting(node, column):
        node = _rewrite(node, column, rows)
    if len(node) > rows:
        node.truncate(rows)
    for start in range(len(node), rows, _MIN_CHUNK_ROWS):
        extend_node(node, [None] * min(_MIN_CHUNK_ROWS, rows - start), column)
    return node


def _needs_rewriting(node: Any, column: Column) -> bool:
    if not _is_ours(node) or type(node).__name__ != "EArray":
        return True
    old = _column_of(node)
    same = (old.kind, old.shape) == (column.kind, column.shape)
    return (
        not same
        or _stored_dtype(column) != node.dtype
        or (column.kind in _TIMES and old.dtype != column.dtype)
    )


def _rewrite(node: Any, column: Column, rows: int) -> Any:
    group, name, file = node._v_parent, node._v_name, node._v_file
    if _TEMPORARY in group:
        file.remove_node(group, _TEMPORARY)
    position = int(getattr(node.attrs, "psyrun_position", len(group._v_leaves)))
    new = _create(group, _TEMPORARY, column, position, rows)
    if _is_ours(node):
        for block in _read_blocks(node, 0, len(node)):
            extend_node(new, _decode(node, block), column)
    else:
        extend_node(new, _read_foreign(node), column)
    file.remove_node(node)
    file.rename_node(new, name)
    return new
