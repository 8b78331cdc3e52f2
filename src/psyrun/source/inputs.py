"""States of inputs: what a file, a listing, a pattern or an absence is now."""

from __future__ import annotations

import glob
import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from psyrun.source.cache import SourceCache


def input_state(root: Path, kind: str, path: str, cache: SourceCache, *, by_stat: bool = False) -> str | None:
    """Return the state of an input, as the digest of an `Input` records it; None where there is nothing.

    Parameters
    ----------
    root
        The project root, which paths are relative to.
    kind, path
        Those of the input.
    cache
        Digests of files read before.
    by_stat
        Whether size and mtime count rather than the content of a file.
    """
    place = os.path.normpath(root / path)
    with suppress(OSError):
        if kind == "folder":
            return digest_names(os.listdir(place))  # noqa: PTH208 - names only
        if kind == "glob":
            return digest_names(os.path.relpath(each, root) for each in glob.glob(place, recursive=True))  # noqa: PTH207
        if kind == "exists":
            return describe_existence(place)
        if by_stat:
            status = os.stat(place)  # noqa: PTH116 - as it was read
            return f"{status.st_size} {status.st_mtime_ns}"
        if os.path.isfile(place):  # noqa: PTH113 - as it was read
            return cache.digest_file(path, root / path)
    return None


def digest_names(names: Iterable[str]) -> str:
    """Digest names in a folder, or paths that match a pattern."""
    text = "\n".join(sorted(names))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def describe_existence(path: str) -> str:
    """Return ``file``, ``folder`` or ``absent``."""
    return "folder" if os.path.isdir(path) else "file" if os.path.exists(path) else "absent"  # noqa: PTH110, PTH112
