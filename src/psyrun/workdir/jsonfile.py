"""JSON files that name their format, which a newer psyrun may have changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from psyrun.disk import read_file
from psyrun.errors import FormatError, NewerFormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


_T = TypeVar("_T")
COUNT = range(2**53)  # the shape of numbers that count something


def encode_json(version: int, content: Mapping[str, Any]) -> bytes:
    """Encode the content of a file of this format; equal content gives equal bytes."""
    return json.dumps({"format": version, **content}, indent=0, sort_keys=True).encode() + b"\n"


def read_json(
    path: Path,
    version: int,
    decode: Callable[[dict[str, Any]], _T],
    *,
    cure: str,
    outdated: str | None = None,
    upgrade: str = "upgrade psyrun",
) -> _T:
    """Read a file of this format.

    Parameters
    ----------
    path
        The file.
    version
        Its format.
    decode
        Makes a value of its content, format removed; raises ValueError, TypeError, KeyError or AttributeError
        where that is not what psyrun writes.
    cure, outdated, upgrade
        What the user should do where the file is damaged, of an older format (None: the same), or of a newer.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If it is damaged, or of an older format.
    NewerFormatError
        If it is of a newer format.
    """
    try:
        content = json.loads(read_file(path))
        found = content.pop("format")
        if found == version:
            return decode(content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FormatError(f"{path}: damaged ({error}); {cure}") from error
    if isinstance(found, int) and found < version:
        raise FormatError(f"{path}: format {found} is of an older psyrun; {outdated or cure}")
    raise NewerFormatError(f"{path}: format {found} is not known to this psyrun; {upgrade}")


def check_shape(value: Any, shape: Any, place: str = "it") -> None:
    """Raise ValueError, naming the place, where a JSON value is not of a shape.

    Parameters
    ----------
    value
        The value.
    shape
        A type, that the value is exactly of; None, for itself; a range, for integers in it; a tuple, of which
        one shape fits; a list of one shape, for a list of any length, or of more, for one of that length; a
        dictionary, name -> shape, for the values of names that are there, with the key `str` for others.

    Examples
    --------
    >>> check_shape({"batches": [[0, "a"], [1, None]]}, {"batches": [[COUNT, (str, None)]]})
    >>> check_shape({"batches": [[0, "a"], [-1, None]]}, {"batches": [[COUNT, (str, None)]]})
    Traceback (most recent call last):
    ValueError: batches: -1 is not what psyrun writes
    """
    if isinstance(shape, tuple):
        shape = next((each for each in shape if _is_alike(value, each)), shape[0])
    if not _is_alike(value, shape):
        raise ValueError(f"{place}: {repr(value)[:40]} is not what psyrun writes")
    if isinstance(shape, dict):
        for name in value.keys() if str in shape else value.keys() & shape.keys():
            check_shape(value[name], shape.get(name, shape.get(str)), name)
    elif isinstance(shape, list):
        for each, kind in zip(value, shape if len(shape) > 1 else shape * len(value)):
            check_shape(each, kind, place)


def _is_alike(value: Any, shape: Any) -> bool:
    """Whether a value is of a shape, but for what is in it."""
    if isinstance(shape, range):
        return type(value) is int and value in shape
    if isinstance(shape, list):
        return type(value) is list and len(shape) in (1, len(value))
    return type(value) is (dict if isinstance(shape, dict) else shape or type(None))
