"""Columns as one padded array each, by the rules of `psyrun.store.columns`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from psyrun.store import encoding
from psyrun.store.columns import Description, as_array, describe, warn_of_changes
from psyrun.store.protocol import count_rows
from psyrun.values import PackedColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from psyrun.store.columns import Column


STRINGS = {"text": "U", "bytes": "S"}  # Kind of a column -> kind of dtype.
_OBJECT = np.dtype(object)
_MOST_KEPT = 1 << 26  # bytes of arrays that wait in memory until all of a table is described


def build(values: Sequence[Any] | NDArray[Any], column: Column) -> NDArray[Any]:
    """Make one array (n, ...) of n values, which `column` describes, alone or together with others.

    Examples
    --------
    >>> values = [[1, 2], [3], None]
    >>> build(values, describe(values)).tolist()
    [[1.0, 2.0], [3.0, nan], [nan, nan]]
    """
    dtype = column.array_dtype
    if column.boxed or (column.kind == "missing" and not column.types):
        return _box(values)
    array = values.array if isinstance(values, PackedColumn) else values
    if isinstance(array, np.ndarray) and array.dtype != _OBJECT and array.shape[1:] == column.shape:
        return array.astype(dtype, copy=False)
    if column.shape == ():
        return _build_scalars(values, dtype, holes=column.holes)
    array = np.full((len(values), *column.shape), _filling(dtype), dtype)
    for i, value in enumerate(values):
        if value is not None:
            _place(value, array[i, ...])
    return array


def _box(values: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    plain = isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "biufcUS"
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values.tolist() if plain else values):  # type: ignore[union-attr]
        array[i] = value
    return array


def _build_scalars(
    values: Sequence[Any] | NDArray[Any], dtype: np.dtype[Any], *, holes: bool
) -> NDArray[Any]:
    if dtype == _OBJECT:
        values = [value.item() if isinstance(value, np.ndarray) else value for value in values]
    elif holes:
        filling = _filling(dtype)
        values = [filling if value is None else value for value in values]
    return np.array(values, dtype=dtype)


def _filling(dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "Mm":
        return np.array("NaT", dtype)[()]
    return np.nan if dtype.kind in "fc" else None if dtype == _OBJECT else 0


def _place(value: Any, target: NDArray[Any]) -> None:
    """Write a value to the beginning of each axis of `target`."""
    part = as_array(value)
    if part is None:
        raise TypeError(f"a {type(value).__name__} that was described as an array is not one")
    if part.dtype == _OBJECT and target.dtype != _OBJECT:
        leaves = part.ravel().tolist()
        part = build(leaves, describe(leaves)).reshape(part.shape)
    part = part.reshape((1,) * (target.ndim - part.ndim) + part.shape)
    target[tuple(map(slice, part.shape))] = part


def describe_chunks(
    chunks: Callable[[], Iterator[Mapping[str, Sequence[Any]]]],
) -> tuple[Description, Callable[[], Iterator[Mapping[str, Any]]]]:
    """Describe the tables that `chunks` yields; return what yields them again, for `build`.

    They are kept as arrays meanwhile where these are small, and of one dtype and shape per column; else
    `chunks` is called again.
    """
    known, size = Description(), 0
    kept: list[dict[str, NDArray[Any]]] = []
    layouts = set[tuple[Any, ...]]()
    for table in chunks():
        columns = known.add(table)
        layouts.update((name, *_layout(column)) for name, column in columns.items())
        if size <= _MOST_KEPT:
            kept.append({name: build(table[name], column) for name, column in columns.items()})
            size += sum(_MOST_KEPT + 1 if a.dtype == _OBJECT else a.nbytes for a in kept[-1].values())
        if size > _MOST_KEPT:
            kept.clear()
    if size > _MOST_KEPT or layouts != {(name, *_layout(column)) for name, column in known.columns.items()}:
        return known, chunks
    return known, lambda: iter(kept)


def _layout(column: Column) -> tuple[Any, ...]:
    return column.array_dtype, column.kind, column.shape


def assemble(chunks: Callable[[], Iterator[Mapping[str, Sequence[Any]]]]) -> dict[str, NDArray[Any]]:
    """Make one array (n, ...) per column of the tables that `chunks` yields, perhaps twice."""
    known, tables = describe_chunks(chunks)
    columns = known.columns
    warn_of_changes(columns)
    arrays = {
        name: np.empty(
            (known.rows,) if c.boxed else (known.rows, *c.shape), _OBJECT if c.boxed else c.array_dtype
        )
        for name, c in columns.items()
    }
    start = 0
    for table in tables():
        count = count_rows(table)
        for name, column in columns.items():
            arrays[name][start : start + count] = build(table.get(name, [None] * count), column)
        start += count
    for name, column in columns.items():
        if column.kind in STRINGS:
            arrays[name] = encoding.compact(arrays[name], STRINGS[column.kind])
    return arrays
