"""Keys of values and of rows: equal keys mean that two values, or two rows, are the same.

There are two notions of the same. The algebra of parameter spaces compares the *value*: `1`, `1.0` and `True`
are one (`value_key`). Results are reused by value *within a kind*: the row of `1` is not given to `1.0`, for
which a function may well return something else (`identity`). Rows are compared whole, never column by column.

Keys are plain values that go into sets and dicts. Numbers, strings and None may stand for themselves; all
else is a tuple that begins with a tag, and no number or string is ever equal to a tuple.
"""

from __future__ import annotations

import hashlib
import math
import sys
from fractions import Fraction
from itertools import repeat
from typing import TYPE_CHECKING, Any

from psyrun.errors import IdentityError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence


MANY = 50_000  # Rows that are worth the import of NumPy; see `psyrun.pspace.label_rows`.
_KINDS = {bool: "bool", int: "integer", float: "real", complex: "complex", Fraction: "fraction"}
_NUMBERS = "?bhilqpBHILQPefdFD"  # As dtype.char; g and G, of extended precision, fit no Python number.
_WIDEST = {"b": "?", "i": "<i8", "u": "<u8", "f": "<f8", "c": "<c16"}
_ATTOSECONDS = {unit: 1000**power for power, unit in enumerate(["as", "fs", "ps", "ns", "us", "ms", "s"])}
_ATTOSECONDS |= {unit: n * 10**18 for unit, n in {"m": 60, "h": 3_600, "D": 86_400, "W": 604_800}.items()}


def value_key(value: Any) -> Hashable:
    """Return the key of a value in the algebra: values that compare equal have equal keys.

    Numbers count by their exact value, whatever their type. Every NaN equals every NaN. Arrays count by shape
    and values, containers element by element; a list is not a tuple. Any other value counts by its type and
    its `joblib.hash`, which is that of its pickled state.

    Parameters
    ----------
    value
        Any value that can be pickled.

    Returns
    -------
    Hashable
        A key, to be compared with other keys of this function only.

    Raises
    ------
    IdentityError
        If the value, or a part of it, can't be pickled.

    Examples
    --------
    >>> value_key(1) == value_key(1.0) == value_key(True)
    True
    >>> value_key(float("nan")) == value_key(float("nan"))
    True
    """
    return _key(value, exact=False)


def identity(value: Any) -> Hashable:
    """Return the key of a value for looking up results: by value, within a kind.

    The kinds are bool, integer, real, complex, str, bytes, None, and arrays by the kind of their dtype;
    NumPy's scalars belong to the kinds of Python's. Unlike in `value_key`, 0.0 is not -0.0, and a set is not
    a frozenset. Equal keys have equal `repr`, the same in every process.

    Parameters
    ----------
    value
        Any value that can be pickled.

    Returns
    -------
    Hashable
        A key, to be compared with other keys of this function only.

    Raises
    ------
    IdentityError
        If the value, or a part of it, can't be pickled.

    Examples
    --------
    >>> identity(1) == identity(1.0)
    False
    >>> identity([1, "a"]) == identity([1, "a"])
    True
    """
    return _key(value, exact=True)


def stored_key(value: Any) -> Hashable:
    """Return the key of a value that a file may hold as another kind: numbers of one type, lists as arrays.

    Like `value_key`, but lists, tuples, ranges and arrays with the same items are equal, bytes equal their
    text, trailing NULs do not count, and None is NaN.

    Raises
    ------
    IdentityError
        If the value, or a part of it, can't be pickled.

    Examples
    --------
    >>> import numpy as np
    >>> stored_key([1, 2]) == stored_key(np.array([1.0, 2.0])), stored_key("a") == stored_key(b"a")
    (True, True)
    """
    value = unbox(value)
    if value is None:
        return value_key(math.nan)
    if isinstance(value, bytes):
        value = value.decode(errors="surrogateescape")
    if isinstance(value, str):
        return value.rstrip("\0")
    np = sys.modules.get("numpy")
    if isinstance(value, list | tuple | range) or (
        np is not None and type(value) is np.ndarray and value.ndim
    ):
        return ("array", tuple(map(stored_key, value)))
    return value_key(value)


def row_keys(
    columns: Mapping[str, Sequence[Any]], key: Callable[[Any], Hashable] = identity
) -> list[Hashable]:
    """Return one key per row of a table.

    Keys of different calls may be compared: they depend on the names, in any order, and on the values of the
    row, and on nothing else.

    Parameters
    ----------
    columns
        Name -> sequence or array of shape (n, ...), the same n for all.
    key
        The key of a value: `identity` or `value_key`.

    Returns
    -------
    list of length n
        Empty if there are no columns.

    Raises
    ------
    IdentityError
        If a value can't be pickled; the message names its parameter.
    ValueError
        If the columns differ in length, or `key` is neither of the two.

    Examples
    --------
    >>> first, second = row_keys({"a": [1, 2], "b": [3.0, 4.0]})
    >>> [first] == row_keys({"b": [3.0], "a": [1]})
    True
    """
    if key not in (identity, value_key):
        raise ValueError(
            "rows are compared by identity or by value_key of psyrun.pspace; pass one of these as key"
        )
    if not columns:
        return []
    names = tuple(sorted(columns))
    keys = [column_keys(name, columns[name], exact=key is identity) for name in names]
    lengths = [len(column) for column in keys]
    if len(set(lengths)) > 1:
        raise ValueError(f"columns {list(names)} have {lengths} values; a table has as many in each")
    return list(zip(repeat(names), *keys))


def column_keys(name: str, column: Sequence[Any], *, exact: bool) -> list[Hashable]:
    """Return the keys of the values of a parameter: by `identity` if they are to be exact, else by value.

    Raises
    ------
    IdentityError
        If a value can't be pickled; the message names the parameter.
    """
    try:
        return _column_keys(column, exact=exact)
    except IdentityError as error:
        raise IdentityError(f"parameter {name!r}: {error}") from error


def unbox(value: Any) -> Any:
    """Return a NumPy scalar as the Python scalar of exactly the same value, anything else as it is.

    Examples
    --------
    >>> import numpy as np
    >>> unbox(np.float32(0.5)), unbox("a")
    (0.5, 'a')
    """
    convert = _unboxer(type(value))
    return convert(value) if convert else value


def _unboxer(kind: type) -> Callable[[Any], Any] | None:
    """Return the function that converts scalars of a NumPy type to Python's; None for types without one."""
    np = sys.modules.get("numpy")  # Not imported: without it, no value can be NumPy's.
    if np is None or not issubclass(kind, np.generic):
        return None
    if issubclass(kind, np.datetime64 | np.timedelta64 | np.void):
        return None
    if issubclass(kind, np.longdouble | np.clongdouble):
        return _narrow
    if issubclass(kind, np.str_ | np.bytes_):
        return str.__str__ if issubclass(kind, str) else bytes.__bytes__
    item: Callable[[Any], Any] = kind.item  # type: ignore[attr-defined]
    return item


def _narrow(value: Any) -> Any:
    """Convert a number of extended precision to a Python number of exactly its value, where there is one."""
    narrow = complex(value) if value.dtype.kind == "c" else float(value)
    if narrow == value or value != value:
        return narrow
    return value if isinstance(narrow, complex) else Fraction(*value.as_integer_ratio())


def _column_keys(column: Sequence[Any], *, exact: bool) -> list[Hashable]:
    """Return the keys of many values: of plain columns in bulk, else of every object once."""
    values = _unbox_column(column)
    kinds = set(map(type, values))
    if kinds <= {str}:
        return values
    if len(kinds) == 1 and kinds <= {bool, int, float}:
        return _number_keys(values, kinds.pop(), exact=exact)
    distinct = {id(value): value for value in values}
    keys = {number: _key(value, exact=exact) for number, value in distinct.items()}
    return [keys[id(value)] for value in values]


def _unbox_column(column: Any) -> list[Any]:
    """List the values of a column; NumPy's numbers as Python's, if all have one type."""
    np = sys.modules.get("numpy")
    if np is None:
        return list(column)
    if type(column) is not np.ndarray:
        column = list(column)
        kinds = set(map(type, column))
        kind = kinds.pop() if len(kinds) == 1 else object
        if not issubclass(kind, np.generic) or np.dtype(kind).char not in _NUMBERS:
            return column  # type: ignore[no-any-return]
        column = np.array(column, dtype=kind)
    is_plain = column.ndim == 1 and column.dtype.char in _NUMBERS + "US"
    values: list[Any] = column.tolist() if is_plain else list(column)
    return values


def _number_keys(values: list[Any], kind: type, *, exact: bool) -> list[Hashable]:
    keys: list[Hashable] = list(zip(repeat(_KINDS[kind]), values)) if exact else list(values)
    for i, value in enumerate(values) if kind is float else ():
        if not value or value != value:
            keys[i] = _number_key(value, exact=exact)
    return keys


def _key(value: Any, *, exact: bool) -> Hashable:
    value = unbox(value)
    kind = type(value)
    if kind in _KINDS:
        return _number_key(value, exact=exact)
    if value is None or kind is str:
        return value  # type: ignore[no-any-return]
    if kind is bytes:
        return ("bytes", value)
    if kind in (list, tuple):
        return (kind.__name__, tuple(_column_keys(value, exact=exact)))
    if kind in (set, frozenset):
        name = kind.__name__ if exact else "set"
        return (name, _unordered(_column_keys(list(value), exact=exact), exact=exact))
    if kind is dict:
        keys = (_column_keys(list(part), exact=exact) for part in (value.keys(), value.values()))
        return ("dict", _unordered(zip(*keys), exact=exact))
    return _numpy_key(value, exact=exact) or _pickle_key(value)


def _number_key(value: Any, *, exact: bool) -> Hashable:
    if not exact:
        return ("nan",) if value != value else value
    name = _KINDS[type(value)]
    if name == "complex" or (name == "real" and (not value or value != value)):
        return (name, repr(value))  # Differs by the sign of zero, but not by that of NaN.
    return (name, value)


def _unordered(keys: Iterable[Hashable], *, exact: bool) -> Hashable:
    """Make one key of keys in any order; not a set where `repr` counts, for its order differs by process."""
    return tuple(sorted(keys, key=repr)) if exact else frozenset(keys)


def _numpy_key(value: Any, *, exact: bool) -> Hashable:
    """Return the key of an array or a time; None for any other value."""
    np = sys.modules.get("numpy")
    if np is None:
        return None
    if isinstance(value, np.datetime64 | np.timedelta64):
        return _time_key(value)
    if type(value) not in (np.ndarray, np.memmap):
        return None
    flat = np.asarray(value).ravel()
    if not exact:
        return ("array", value.shape, tuple(_column_keys(flat, exact=False)))
    content = _digest(flat) or tuple(_column_keys(flat, exact=True))
    return ("array", value.dtype.kind, value.shape, content)


def _digest(flat: Any) -> str | None:
    """Return a digest of the values of an array of numbers; None if 64 bits can't hold each exactly."""
    import numpy as np

    widest = _WIDEST.get(flat.dtype.kind)
    if widest is None or flat.dtype.char not in _NUMBERS:
        return None
    wide = flat.astype(widest)
    if widest in ("<f8", "<c16"):
        parts = wide.view("<f8")
        parts[np.isnan(parts)] = np.nan
    return hashlib.blake2b(wide.tobytes(), digest_size=32).hexdigest()


def _time_key(value: Any) -> Hashable:
    """Return a time in attoseconds, of which all units but months are multiples; NaT equals NaT."""
    import numpy as np

    name = type(value).__name__
    if np.isnat(value):
        return (name, "NaT")
    if name == "datetime64" and np.datetime_data(value.dtype)[0] in "YM":
        value = value.astype("datetime64[D]")
    unit, count = np.datetime_data(value.dtype)
    ticks = int(value.astype("int64")) * count
    if unit in _ATTOSECONDS:
        return (name, "as", ticks * _ATTOSECONDS[unit])
    return (name, "M", 12 * ticks) if unit == "Y" else (name, unit, ticks)


def _pickle_key(value: Any) -> Hashable:
    import joblib

    name = f"{type(value).__module__}.{type(value).__qualname__}"
    # joblib looks at the numbers of any array alone, and misses the mask or the unit that a subclass adds.
    is_array = hasattr(type(value), "__array_finalize__")
    try:
        return ("object", name, joblib.hash(value.__reduce__() if is_array else value))
    except Exception as error:
        raise IdentityError(
            f"a value of type {name} can't be pickled ({error.args[0] if error.args else error!r}); "
            "pass a name, a number or a module-level function, and make the object in execute"
        ) from error
