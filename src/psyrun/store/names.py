"""Column names as names of nodes and archive members: what a format can't spell is percent-encoded."""

from __future__ import annotations

import re

_EMPTY = "%e"
_CODE = re.compile(r"(?:%[0-9A-F]{2})+")
_LOOKS_ESCAPED = re.compile(r"%(?=[0-9A-F]{2})|^%(?=e\Z)")
_UNSPEAKABLE = re.compile("[\x00\ud800-\udfff]")


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
    return re.sub(unsafe, _encode, _UNSPEAKABLE.sub(_encode, name))


def unescape(name: str) -> str:
    """Undo `escape`."""
    return "" if name == _EMPTY else _CODE.sub(_decode, name)


def _encode(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def _decode(match: re.Match[str]) -> str:
    try:
        return bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # Not written by `escape`.
        return match[0]
