"""Cache of facts about sources, and of digests of data files; it saves time and decides nothing."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psyrun.disk import digest_file, is_settled, read_file, take_stamp, write_atomic
from psyrun.errors import TaskFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from psyrun.disk import Stamp


CACHE_PATH = "psy-work/.sources.json"  # relative to the project root

_FORMAT = "psyrun source cache 2"
_MOST_FACTS = 2000


@dataclass(slots=True, kw_only=True)
class SourceCache:
    """Facts by key, and digests of data files by path.

    A key holds a digest of everything that its fact depends on, so that no edit can be missed. Facts are JSON
    values; the 2,000 that were used last are kept.
    """

    _facts: dict[str, Any] = field(default_factory=dict)
    _data: dict[str, list[Any]] = field(default_factory=dict)
    _changed: bool = False

    @classmethod
    def load(cls, path: Path) -> SourceCache:
        """Read a cache; one that is missing, damaged or of another format is empty."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            head, _, body = read_file(path).partition(b"\n")
            if head == _head(body):
                saved = json.loads(body)
                return cls(_facts=saved["facts"], _data=saved["data"])
        return cls()

    def save(self, path: Path) -> None:
        """Write the cache if it changed; a cache that can't be written is not an error."""
        if not self._changed:
            return
        facts = dict(list(self._facts.items())[-_MOST_FACTS:])
        body = json.dumps({"facts": facts, "data": self._data}, separators=(",", ":")).encode()
        with suppress(OSError):
            write_atomic(path, _head(body) + b"\n" + body)
            self._changed = False

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the facts of this key; None if they are not in the cache."""
        facts: dict[str, Any] | None = self._facts.pop(key, None)
        if facts is not None:
            self._facts[key] = facts  # Facts used last stand last.
        return facts

    def put(self, key: str, facts: dict[str, Any]) -> None:
        """Keep facts, if JSON can express them."""
        with suppress(TypeError, ValueError):
            self._facts[key] = json.loads(json.dumps(facts))
            self._changed = True

    def recall(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the facts of this key, made if they are not in the cache."""
        facts = self.get(key)
        if facts is None:
            facts = make()
            self.put(key, facts)
        return facts

    def digest_file(self, name: str, path: str, stamp: Stamp | None) -> str:
        """Digest the content of a file with this stamp; the file is read again only if that changed.

        A digest taken within two seconds of the file's last change is taken again: another change may not
        show in the times.
        """
        known = self._data.get(name)
        if stamp and known and known[:-1] == [*stamp]:
            return str(known[-1])
        now = time.time_ns()
        content, after = digest_file(path)
        if after and after == stamp and is_settled(after, now):
            self._data[name] = [*after, content]
            self._changed = True
        return content


def _head(body: bytes) -> bytes:
    return f"{_FORMAT} {hashlib.sha256(body).hexdigest()}".encode()


def digest_data(root: Path, paths: Iterable[str], cache: SourceCache | None = None) -> dict[str, str]:
    """Digest the content of data files.

    Parameters
    ----------
    root
        The project root.
    paths
        Files, relative to the root.
    cache
        Digests of files read before.

    Returns
    -------
    dict
        Path -> digest, sorted by path.

    Raises
    ------
    TaskFileError
        If one is missing, is a folder, or can't be read.
    """
    cache = cache or SourceCache()
    digests = {}
    for name in sorted(set(paths)):
        path = str(root / name)
        stamp = take_stamp(path)
        if stamp is None and os.path.exists(path):  # noqa: PTH110 - a string
            raise TaskFileError(f"file_dep: {name} is a folder, or no regular file; name the files in it")
        try:
            digests[name] = cache.digest_file(os.path.normpath(name), path, stamp)
        except FileNotFoundError:
            raise TaskFileError(f"file_dep: {name} does not exist; create it, or correct its name") from None
        except OSError as error:
            raise TaskFileError(f"file_dep: {name} can't be read: {error.strerror}") from error
    return digests
