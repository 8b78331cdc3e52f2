"""Columns as one padded array each, by the rules of `psyrun.store.columns`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from psyrun.store import encoding
from psyrun.store.columns import as_array, describe, describe_tables, warn_of_changes
from psyrun.store.protocol import count_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from psyrun.store.columns import Column


STRINGS = {"text": "U", "bytes": "S"}  # Kind of a column -> kind of dtype.
_OBJECT = np.dtype(object)


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
    if isinstance(values, np.ndarray) and values.dtype != _OBJECT and values.shape[1:] == column.shape:
        return values.astype(dtype, copy=False)
    if column.shape == ():
        return _build_scalars(values, dtype)
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


def _build_scalars(values: Sequence[Any] | NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    filling = _filling(dtype)
    if dtype == _OBJECT:
        values = [value.item() if isinstance(value, np.ndarray) else value for value in values]
    return np.array([filling if value is None else value for value in values], dtype=dtype)


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


def assemble(chunks: Callable[[], Iterator[Mapping[str, Sequence[Any]]]]) -> dict[str, NDArray[Any]]:
    """Make one array (n, ...) per column of the tables that `chunks` yields; `chunks` is called twice."""
    columns, rows = describe_tables(chunks())
    warn_of_changes(columns)
    arrays = {
        name: np.empty((rows,) if c.boxed else (rows, *c.shape), _OBJECT if c.boxed else c.array_dtype)
        for name, c in columns.items()
    }
    start = 0
    for table in chunks():
        count = count_rows(table)
        for name, column in columns.items():
            arrays[name][start : start + count] = build(table.get(name, [None] * count), column)
        start += count
    for name, column in columns.items():
        if column.kind in STRINGS:
            arrays[name] = encoding.compact(arrays[name], STRINGS[column.kind])
    return arrays
