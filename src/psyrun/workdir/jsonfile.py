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
