"""Packing: columns of values as the few objects that are quick to pickle."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["pack_column", "unpack_column"]


def pack_column(column: Sequence[Any]) -> tuple[str, Any]:
    """Turn a column of numpy scalars, or of arrays of one shape, into a single array."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not column:
        return "list", list(column)
    kind = type(column[0])
    if kind is numpy.ndarray:
        return _pack_arrays(column, numpy)
    # timedelta64 counts as a number, but has a unit of its own in each value.
    plain = issubclass(kind, (numpy.number, numpy.bool_)) and not issubclass(kind, numpy.timedelta64)
    if plain and all(type(value) is kind for value in column):
        return "scalars", numpy.array(column, dtype=kind)
    return "list", list(column)


def _pack_arrays(column: Sequence[Any], numpy: Any) -> tuple[str, Any]:
    shape, dtype = column[0].shape, column[0].dtype
    alike = not (dtype.hasobject or dtype.names) and all(
        type(value) is numpy.ndarray and value.shape == shape and value.dtype == dtype for value in column
    )
    if not alike:
        return "list", list(column)
    packed = numpy.empty((len(column), *shape), dtype)
    for i, value in enumerate(column):
        packed[i] = value
    return "arrays", packed


def unpack_column(kind: str, packed: Any) -> list[Any]:
    """Return the values of a packed column."""
    if kind == "arrays" and packed.ndim == 1:
        return [packed[i, ...] for i in range(len(packed))]
    return list(packed)
