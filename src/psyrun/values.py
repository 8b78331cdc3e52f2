"""What functions of users return or raise: words for it in messages, a check, pickles."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from psyrun.errors import ExecuteError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO, Self

    from numpy.typing import NDArray


PICKLE_PROTOCOL = 5
_REASON_LENGTH = 500  # characters


class PackedColumn(Sequence[Any]):
    """Values of a column in one array (n, ...): its elements, or its rows, which are arrays."""

    __slots__ = ("array",)

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.array)

    def __getitem__(self, index: Any) -> Any:
        return type(self)(self.array[index]) if isinstance(index, slice) else self.array[index]

    @classmethod
    def gather(cls, parts: Sequence[tuple[Sequence[int], Sequence[Any]]], size: int) -> Self | None:
        """Return a column made of (places, values); None where they differ in kind, or are not `size`."""
        arrays = [values.array for _, values in parts if isinstance(values, cls)]
        if len(arrays) < len(parts) or sum(map(len, arrays)) != size:
            return None
        if len(arrays) == 1 and parts[0][0] == range(size):
            return cls(arrays[0])
        if len({(array.dtype, array.shape[1:]) for array in arrays}) != 1:
            return None
        import numpy as np

        whole = np.empty((size, *arrays[0].shape[1:]), arrays[0].dtype)
        for (places, _), array in zip(parts, arrays):
            whole[slice(places.start, places.stop) if isinstance(places, range) else places] = array
        return cls(whole)


def count(number: int, noun: str) -> str:
    """Return ``1 row``, ``2 rows``, ``10,000 batches``."""
    plural = noun + ("es" if noun.endswith(("s", "ch")) else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def show_value(value: Any, limit: int = 60) -> str:
    """Return a value as Python would write it, on one line of at most `limit` characters."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        value = value.item()
    try:
        text = re.sub(r" at 0x[0-9a-f]+", "", repr(value)).replace("\n", " ")
    except BaseException:  # raised by a method of the user's
        text = "an object"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def describe_value(value: Any, limit: int = 200) -> str:
    """Return a value and its type, such as ``3 (int)``."""
    return f"{show_value(value, limit)} ({type(value).__name__})"


def describe_error(error: BaseException) -> str:
    """Return the type and the message of an exception on one line, at most 500 characters."""
    try:
        text = str(error)
    except BaseException:  # raised by a method of the user's
        text = "(its text can't be shown)"
    name = type(error).__name__
    return shorten(f"{name}: {text}".replace("\n", " ") if text else name, _REASON_LENGTH)


def shorten(text: str, limit: int) -> str:
    """Cut out the middle of a long text."""
    if len(text) <= limit:
        return text
    mark, head = " [...] ", limit // 4
    return text[:head] + mark + text[len(text) - (limit - head - len(mark)) :]


def check_returned(function: str, values: Any, *, exact: bool = False) -> None:
    """Check that a function returned a dict of names and values.

    Parameters
    ----------
    function
        Name of the function.
    values
        What it returned.
    exact
        Whether names of subclasses of `str` are refused.

    Raises
    ------
    ExecuteError
        If it did not.
    """
    if type(values) is not dict and not isinstance(values, Mapping):  # The former is faster.
        raise ExecuteError(f"{function} returned {describe_value(values)}; return a dict of names and values")
    for name in values:
        if type(name) is not str and (exact or not isinstance(name, str)):
            shown = describe_value(name)
            raise ExecuteError(f"{function} returned a dict with the name {shown}; names are strings")


def reference_to(module: str) -> bytes:
    """Return bytes that stand in every pickle which refers to a module (and in few others)."""
    name = module.encode()
    return b"\x8c" + bytes([len(name)]) + name if len(name) < 256 else name


def dumps(value: Any, local: Mapping[str, bytes] | None = None) -> bytes:
    """Pickle a value, with the code of classes and functions that can't be imported.

    Parameters
    ----------
    value
        The value.
    local
        Modules that readers may be unable to import -> `reference_to` them. Pickles do not refer to these.
    """
    import pickle

    local = local or {}
    try:
        data = pickle.dumps(value, PICKLE_PROTOCOL)
        if not any(reference in data for reference in local.values()):
            return data
    except Exception:  # noqa: S110 - cloudpickle may succeed, or raises the error
        pass
    import cloudpickle

    for name in local:
        if name in sys.modules:
            cloudpickle.register_pickle_by_value(sys.modules[name])
    return bytes(cloudpickle.dumps(value, PICKLE_PROTOCOL))


def dump(value: Any, file: BinaryIO, protocol: int) -> None:
    """Pickle a value into a file, with the code of classes and functions that can't be imported."""
    import pickle

    start = file.tell()
    try:
        pickle.dump(value, file, protocol)
    except OSError:
        raise
    except Exception:
        import cloudpickle

        file.seek(start)
        file.truncate()
        cloudpickle.dump(value, file, protocol)
