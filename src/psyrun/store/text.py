"""Strings in fixed-width arrays, without losing the difference between '', None and trailing NULs.

Encoded, a string is its UTF-8 (bytes count as Latin-1 text, so that ASCII stays as it is); None is the single
byte FF, and a byte FE follows a string that ends in NUL. Neither byte occurs in UTF-8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


_NONE = b"\xff"
_END = b"\xfe"


def encode(strings: Iterable[str | bytes | None]) -> list[bytes]:
    r"""Encode strings or bytes so that no code ends in NUL.

    Examples
    --------
    >>> encode(["a", "", None, "a\0"])
    [b'a', b'', b'\xff', b'a\x00\xfe']
    """
    return [_NONE if string is None else _encode(string) for string in strings]


def decode(codes: Iterable[bytes]) -> list[str | None]:
    """Undo `encode`; what was bytes is text of the same characters (Latin-1)."""
    return [None if code == _NONE else _decode(code) for code in codes]


def _encode(string: str | bytes) -> bytes:
    text = string.decode("latin-1") if isinstance(string, bytes) else string
    code = text.encode("utf-8", "surrogatepass")
    return code + _END if code.endswith(b"\0") else code


def _decode(code: bytes) -> str:
    return code.removesuffix(_END).decode("utf-8", "surrogatepass")


def compact(array: NDArray[Any], kind: str) -> NDArray[Any]:
    """Turn an object array of strings into a fixed-width one, where that loses and wastes nothing.

    Parameters
    ----------
    array
        Strings, or bytes, and None, of any shape.
    kind
        ``"U"`` for strings, ``"S"`` for bytes.

    Returns
    -------
    numpy.ndarray
        Of the same shape. Still objects where a value is missing or ends in NUL, which numpy would strip, or
        where a few values are much longer than the rest.
    """
    strings = array.ravel().tolist()
    nul = "\0" if kind == "U" else b"\0"
    if any(string is None or string[-1:] == nul for string in strings):
        return array
    lengths = [len(string) for string in strings]
    width = max(lengths, default=1)
    if width * len(strings) > 4 * sum(lengths) + 64 * len(strings):
        return array
    return array.astype(f"{kind}{max(width, 1)}")
