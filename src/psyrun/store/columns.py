"""Columns: what their values have in common, which decides what array holds them.

- Numbers take the dtype that numpy promotes theirs to; Python's count as int64 (uint64 where only that fits),
  float64 and complex128. What is missing is NaN, which turns integers and booleans to float64. Integers that
  would lose digits there, or that have more than 64 bits, stay Python objects.
- Lists and tuples count as arrays where numpy makes a regular array of numbers or strings of them.
- Values of varying shape are padded at the end of each axis to a common shape. A value of fewer dimensions
  gets leading axes of length 1: a scalar comes to stand at index 0, a vector in the first row of a matrix.
- Strings are padded with None, dates and time differences with NaT.
- A column of nothing but None holds None. Mixtures of the above, and anything else, are objects.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from psyrun.errors import PsyrunWarning
from psyrun.store import encoding
from psyrun.store.protocol import count_rows
from psyrun.values import PackedColumn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray


_OBJECT = np.dtype(object)
_FLOAT = np.dtype(np.float64)
_INTEGERS = (np.dtype(np.int64), np.dtype(np.uint64))
_EXACT = 2**53  # Every integer up to here is a float64.
_KINDS = dict.fromkeys("biufc", "number") | {"U": "text", "S": "bytes", "M": "datetime", "m": "timedelta"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Type, shape and range of the values of a column.

    Parameters
    ----------
    kind
        ``number``, ``text``, ``bytes``, ``datetime``, ``timedelta``, ``object``, or ``missing`` where all
        values are.
    dtype
        Of numbers, dates and time differences; object for the rest, and for integers of more than 64 bits.
    shape
        The common shape of the values.
    holes
        Whether values are missing, or are smaller than `shape`.
    low, high
        Range of the integers.
    exact
        Whether float64 holds all integers exactly.
    nones, flags
        Whether there are values None, and booleans.
    width
        Bytes of the longest encoded string.
    types
        Names of the types that occur, for messages.
    """

    kind: str = "missing"
    dtype: np.dtype[Any] = _OBJECT
    shape: tuple[int, ...] = ()
    holes: bool = False
    low: int = 0
    high: int = 0
    exact: bool = True
    nones: bool = False
    flags: bool = False
    width: int = 1
    types: frozenset[str] = frozenset()

    @property
    def array_dtype(self) -> np.dtype[Any]:
        """The dtype of the column as an array."""
        if self.kind == "missing":
            return _FLOAT if self.types else _OBJECT
        if self.kind != "number":
            return self.dtype
        floating = self.dtype.kind in "fc"
        if (floating or self.holes) and not self.exact:
            return _OBJECT
        return _FLOAT if self.holes and not floating else self.dtype

    @property
    def boxed(self) -> bool:
        """Whether only Python objects can hold the values."""
        return self.kind == "object" or (self.kind == "number" and self.array_dtype == _OBJECT)


def join(a: Column, b: Column) -> Column:
    """Describe the values of two columns, one below the other."""
    shape, uneven = _join_shapes(a, b)
    both = Column(
        shape=shape,
        holes=a.holes or b.holes or uneven,
        low=min(a.low, b.low),
        high=max(a.high, b.high),
        exact=a.exact and b.exact,
        nones=a.nones or b.nones,
        flags=a.flags or b.flags,
        width=max(a.width, b.width),
        types=a.types | b.types,
    )
    if "missing" in (a.kind, b.kind):
        known = a if b.kind == "missing" else b
        return replace(both, kind=known.kind, dtype=known.dtype)
    if a.kind != b.kind:
        return replace(both, kind="object", shape=())
    try:
        return replace(both, kind=a.kind, dtype=_join_dtypes(a.dtype, b.dtype, both))
    except TypeError:  # Years and days have no common unit.
        return replace(both, kind="object", shape=())


def _join_shapes(a: Column, b: Column) -> tuple[tuple[int, ...], bool]:
    if not (a.types and b.types):
        return (a.shape if a.types else b.shape), False
    ndim = max(len(a.shape), len(b.shape))
    pair = ((1,) * (ndim - len(c.shape)) + c.shape for c in (a, b))
    return tuple(map(max, *pair)) if ndim else (), a.shape != b.shape


def _join_dtypes(a: np.dtype[Any], b: np.dtype[Any], both: Column) -> np.dtype[Any]:
    if a == b:
        return a
    if a.kind in "iuO" and b.kind in "iuO":
        joint = _OBJECT if _OBJECT in (a, b) else np.promote_types(a, b)
        return joint if joint.kind in "iu" else _integer_dtype(both.low, both.high)
    if _OBJECT in (a, b):  # Integers of more than 64 bits among other numbers.
        other = a if b == _OBJECT else b
        return np.promote_types(other, _FLOAT) if other.kind in "fc" else _OBJECT
    return np.promote_types(a, b)


def _integer_dtype(low: int, high: int) -> np.dtype[Any]:
    for dtype in _INTEGERS:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return dtype
    return _OBJECT


# ---------------------------------------------------------------------- describing


def describe(values: Sequence[Any] | NDArray[Any]) -> Column:
    """Describe the n values of a column.

    Examples
    --------
    >>> column = describe([1, 2, None])
    >>> column.kind, column.array_dtype, column.holes
    ('number', dtype('float64'), True)
    >>> describe([[1, 2], [3, 4, 5]]).shape
    (3,)
    """
    if isinstance(values, np.ndarray) and values.dtype != _OBJECT:
        return _describe_array(values, _name(values.dtype.type))
    if isinstance(values, PackedColumn) and len(values):
        return _describe_array(values.array, _name(type(values[0])))
    types = set(map(type, values))
    holes = type(None) in types
    types.discard(type(None))
    known = Column(holes=holes, nones=holes)
    for kind in sorted(types, key=_name):
        group = values if len(types) == 1 and not holes else [v for v in values if type(v) is kind]
        known = join(known, _describe_group(kind, group))
    return known


def _describe_group(kind: type, group: Any) -> Column:
    """Describe values that are all of one type."""
    if kind is int:
        low, high = min(group), max(group)
        known = Column(kind="number", dtype=_integer_dtype(low, high), types=frozenset({"int"}))
        return replace(known, low=low, high=high, exact=_are_exact(low, high, group))
    if kind in (bool, float, complex):
        types = frozenset({_name(kind)})
        return Column(kind="number", dtype=np.dtype(kind), high=1, flags=kind is bool, types=types)
    if kind in (str, np.str_, bytes, np.bytes_):
        return _describe_strings("text" if issubclass(kind, str) else "bytes", group, _name(kind))
    if issubclass(kind, np.generic) and kind not in (np.datetime64, np.timedelta64):
        return _describe_array(np.array(group), _name(kind))
    if _is_array(kind):
        return _describe_arrays(group, _name(kind))
    return Column(kind="object", types=frozenset({_name(kind)}))


def _is_array(kind: type) -> bool:
    arrays = (np.ndarray, np.datetime64, np.timedelta64, list, tuple, range)  # Units differ between dates.
    return issubclass(kind, arrays) and not issubclass(kind, np.ma.MaskedArray)


def _are_exact(low: int, high: int, values: Iterable[int]) -> bool:
    return (low >= -_EXACT and high <= _EXACT) or all(map(_is_exact, values))


def _is_exact(value: int) -> bool:
    try:
        return float(value) == value
    except OverflowError:
        return False


def _describe_strings(kind: str, values: Iterable[Any], name: str) -> Column:
    width = max(map(len, encoding.encode(values)), default=1)
    return Column(kind=kind, width=max(width, 1), types=frozenset({name}))


def _describe_array(array: NDArray[Any], name: str) -> Column:
    """Describe the rows of an array (n, ...)."""
    kind, shape = _KINDS.get(array.dtype.kind, "object"), array.shape[1:]
    if kind == "object":
        return Column(kind=kind, types=frozenset({name}))
    if kind in ("text", "bytes"):
        return replace(_describe_strings(kind, array.ravel().tolist(), name), shape=shape)
    dtype = array.dtype.newbyteorder("=")
    known = Column(kind=kind, dtype=dtype, shape=shape, flags=dtype.kind == "b", types=frozenset({name}))
    if array.dtype.kind not in "iu" or array.size == 0:
        return known
    low, high = int(array.min()), int(array.max())
    return replace(known, low=low, high=high, exact=_are_exact(low, high, map(int, array.ravel())))


def _describe_arrays(group: Sequence[Any], name: str) -> Column:
    """Describe arrays or lists, those of one dtype and shape together."""
    alike: dict[tuple[np.dtype[Any], tuple[int, ...]], list[NDArray[Any]]] = defaultdict(list)
    known = Column()
    for value in group:
        array = as_array(value)
        if array is None:
            what = frozenset({f"{name} (ragged or of mixed types)"})
            known = join(known, Column(kind="object", types=what))
        elif array.dtype == _OBJECT:
            known = join(known, _describe_leaves(array, name))
        elif array.size == 0 and isinstance(value, list | tuple | range):  # [] fits numbers and strings.
            known = join(known, Column(shape=array.shape, types=frozenset({name})))
        else:
            alike[array.dtype, array.shape].append(array)
    for (dtype, _), arrays in alike.items():
        matters = dtype.kind in "iuUS"  # Of the others, one is as good as all.
        known = join(known, _describe_array(np.stack(arrays if matters else arrays[:1]), name))
    return known


def _describe_leaves(array: NDArray[Any], name: str) -> Column:
    leaves = describe(array.ravel().tolist())
    if leaves.kind == "object" or leaves.shape != ():
        return Column(kind="object", types=frozenset({f"{name} of {' and '.join(sorted(leaves.types))}"}))
    return replace(leaves, shape=array.shape, types=frozenset({name}))


def as_array(value: Any) -> NDArray[Any] | None:
    """Convert a list as numpy does, but never numbers to strings; None where it is not regular."""
    if isinstance(value, np.ndarray):
        return value
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "US":
            return array
        boxed = np.array(value, dtype=object)  # As strings of fixed width they would lose trailing NULs.
    except (ValueError, TypeError, OverflowError):
        return None
    types = {str, np.str_} if array.dtype.kind == "U" else {bytes, np.bytes_}
    return boxed if types.issuperset(map(type, boxed.ravel())) else None


def _name(kind: type) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class Description:
    """Description of tables, one below the other.

    Attributes
    ----------
    columns
        Name -> its values in all tables; a name that a table lacks has no values there.
    rows
        How many rows the tables have.
    """

    def __init__(self) -> None:
        self.columns: dict[str, Column] = {}
        self.rows = 0

    def add(self, table: Mapping[str, Sequence[Any]]) -> dict[str, Column]:
        """Add a table; return the description of its own columns."""
        count = count_rows(table)
        own = {name: describe(values) for name, values in table.items()}
        for name in dict.fromkeys([*self.columns, *own]):
            known = self.columns.get(name, Column(holes=self.rows > 0))
            self.columns[name] = join(known, own.get(name, Column(holes=count > 0)))
        self.rows += count
        return own


def warn_of_changes(columns: Mapping[str, Column]) -> None:
    """Warn of columns whose values become numbers of another meaning."""
    numbers = {
        name: column for name, column in columns.items() if column.kind == "number" and not column.boxed
    }
    nones = [name for name, column in numbers.items() if column.nones and not column.shape]
    flags = [name for name, column in numbers.items() if column.flags and column.array_dtype.kind != "b"]
    for names, change in (
        (nones, "None beside numbers is kept as NaN; PickleStore keeps None"),
        (flags, "True and False beside other values are kept as 1 and 0; PickleStore keeps them"),
    ):
        if names:
            warnings.warn(f"{', '.join(map(repr, names))}: {change}", PsyrunWarning, stacklevel=2)
