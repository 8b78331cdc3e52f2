"""Crafted files: JSON with values of other kinds at each of its places."""

from __future__ import annotations

import copy
import json
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["craft", "seal"]

VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    1.5,
    2**62,
    10**400,
    float("inf"),
    float("nan"),
    "",
    "x" * 100_000,
    "../../victim",
    "\0",
    "\ud800",
    [],
    [[]],
    [1, 2],
    {},
    {"a": 1},
)


def _find_places(value: Any, most: int) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each leaf and container; of long containers, to the first and last elements."""
    yield ()
    if isinstance(value, (dict, list)):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        for key in keys if len(keys) <= most else [*keys[: most - 1], keys[-1]]:
            yield from ((key, *rest) for rest in _find_places(value[key], most))


def _replace(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    changed = copy.copy(value)
    changed[place[0]] = _replace(value[place[0]], place[1:], new)
    return changed


def craft(data: bytes, most: int = 4) -> Iterator[tuple[str, bytes]]:
    """Yield (what was done, file): each value by each other one, each entry left out, one added."""
    content = json.loads(data)
    for place in _find_places(content, most):
        words = ".".join(map(str, place))
        old = content
        for key in place:
            old = old[key]
        for new in VALUES:
            if type(new) is not type(old) or new != old:
                what = f"{words} = {str(new)[:20]!r} ({type(new).__name__})"
                yield what, seal(_replace(content, place, new))
        if isinstance(old, dict):
            yield f"{words} + strange", seal(_replace(content, place, {**old, "strange": 1}))
            for key in old:
                less = {name: each for name, each in old.items() if name != key}
                yield f"{words} - {key}", seal(_replace(content, place, less))


def seal(content: Any) -> bytes:
    """Encode a content with the checksum that it should have."""
    if isinstance(content, dict) and type(content.get("checksum")) is int:
        fields = {name: each for name, each in content.items() if name not in ("format", "checksum")}
        content = {**content, "checksum": zlib.crc32(json.dumps(fields, sort_keys=True).encode())}
    return json.dumps(content, indent=0, sort_keys=True).encode() + b"\n"
