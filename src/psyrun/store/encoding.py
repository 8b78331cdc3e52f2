"""Encoding of column names and strings for formats that can't hold all of them.

Names become names of nodes and archive members: what a format can't spell is percent-encoded. Strings
become values of fixed-width arrays, without losing the difference between '', None and trailing NULs: UTF-8
(of bytes as Latin-1 text, so that ASCII stays as it is), the byte FF for None, and a byte FE after a string
that ends in NUL. Neither byte occurs in UTF-8.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


_EMPTY = "%e"
_CODE = re.compile(r"(?:%[0-9A-F]{2})+")
_LOOKS_ESCAPED = re.compile(r"%(?=[0-9A-F]{2})|^%(?=e\Z)")
_NEVER_SAFE = re.compile("[\x00\ud800-\udfff]")
_NONE = b"\xff"
_END = b"\xfe"


def escape(name: str, unsafe: str = r"(?!)") -> str:
    """Encode a column name so that NUL, lone surrogates and what matches the pattern `unsafe` do not occur.

    Any other name stays as it is.

    Examples
    --------
    >>> escape("b.b"), escape("a/b", "/"), escape("50%"), escape("%2F")
    ('b.b', 'a%2Fb', '50%', '%252F')
    >>> unescape("a%2Fb"), unescape("%252F")
    ('a/b', '%2F')
    """
    if not name:
        return _EMPTY
    name = _LOOKS_ESCAPED.sub("%25", name)
    return re.sub(unsafe, _escape_match, _NEVER_SAFE.sub(_escape_match, name))


def _escape_match(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def unescape(name: str) -> str:
    """Undo `escape`."""
    return "" if name == _EMPTY else _CODE.sub(_unescape_match, name)


def _unescape_match(match: re.Match[str]) -> str:
    try:
        return bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # Not written by `escape`.
        return match[0]


def encode(strings: Iterable[str | bytes | None]) -> list[bytes]:
    r"""Encode strings or bytes so that no code ends in NUL.

    Examples
    --------
    >>> encode(["a", "", None, "a\0"])
    [b'a', b'', b'\xff', b'a\x00\xfe']
    """
    return [_NONE if string is None else _encode(string) for string in strings]


def _encode(string: str | bytes) -> bytes:
    text = string.decode("latin-1") if isinstance(string, bytes) else string
    code = text.encode("utf-8", "surrogatepass")
    return code + _END if code.endswith(b"\0") else code


def decode(codes: Iterable[bytes]) -> list[str | None]:
    """Undo `encode`; what was bytes is text of the same characters (Latin-1)."""
    return [
        None if code == _NONE else code.removesuffix(_END).decode("utf-8", "surrogatepass") for code in codes
    ]


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
