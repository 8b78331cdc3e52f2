"""Which paths count as inputs, by what name, and what digests of listings and patterns hold."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
import re
import stat
import sys
import sysconfig
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/dev", "/sys", "/tmp")  # noqa: S108 - not to be used, to be left out
_SCHEMES = ("stdlib", "platstdlib", "purelib", "platlib")
_PACKAGES = frozenset({"__pycache__", "site-packages", "dist-packages"})
_ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta")
_PSYRUN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - strings
# Taken before an `Observer` wraps it.
_stat = os.stat


class TrackedPaths:
    """The paths that count as inputs of a task.

    These are the paths below the project root and those elsewhere, but for folders of the system and of
    Python, temporary folders, the user's cache, virtual environments and the work folder. Results of other
    tasks in the work folder count.

    Parameters
    ----------
    root
        The project root, absolute.
    folder
        The task folder, absolute.
    work
        The task's folder in the work folder, ``psy-work/<task>``, absolute.
    untracked
        Patterns of paths, relative to the task folder, that do not count; nor does what is below them.
    """

    def __init__(self, *, root: str, folder: str, work: str, untracked: Iterable[str] = ()) -> None:
        self._root = root.rstrip("/") + "/"
        self._own = work + "/"
        self._work = os.path.dirname(work) + "/"  # noqa: PTH120 - a string
        self._left_out = {f"{os.path.normpath(each)}/" for each in _left_out()} | {self._work}
        self._inner = tuple(each for each in self._left_out if each.startswith(self._root))
        self._outer = tuple(self._left_out - {*self._inner})
        patterns = [os.path.normpath(os.path.join(folder, each)) for each in untracked]
        texts = [fnmatch.translate(text) for each in patterns for text in (each, f"{each}/*")]
        self._untracked = re.compile("|".join(texts)) if texts else None
        special = {each.split("/")[-2] for each in (*self._left_out, self._root)}
        self._special = _PACKAGES | special  # last parts of paths that are looked at more closely
        self._folders: dict[str, tuple[bool, str]] = {}  # folder -> whether what is in it counts, its name

    def name(self, path: str) -> str | None:
        """Return the name of an absolute path as an input; None where it does not count.

        It is relative to the project root where the path is below it, else the path.
        """
        folder, _, last = path.rpartition("/")
        known = self._folders.get(folder)
        if known is None:
            known = self._is_counted(folder), f"{folder}/".removeprefix(self._root)
            self._folders[folder] = known
        counts, prefix = known
        if not counts and not self._is_result(folder, last):
            return None
        special = last in self._special
        if special and (last in _PACKAGES or f"{path}/" in self._left_out):
            return None
        if self._untracked is not None and self._untracked.match(path):
            return None
        return "." if special and f"{path}/" == self._root else prefix + last

    def locate(self, name: str) -> str:
        """Return the absolute path of an input; of a pattern, one that `glob` takes."""
        return normalize(name if name.startswith("/") else self._root + name)

    def digest_listing(self, name: str, products: Collection[str] = ()) -> str | None:
        """Return the SHA-256 of the names in a folder that count; None where it can't be listed."""
        folder = self.locate(name)
        try:
            found = os.listdir(folder)  # noqa: PTH208 - names only
        except OSError:
            return None
        return self._digest((os.path.join(folder, each) for each in found), products)

    def digest_matches(self, name: str, products: Collection[str] = ()) -> str:
        """Return the SHA-256 of the paths that match a pattern and count; ``**`` is any folders."""
        return self._digest(glob.iglob(self.locate(name), recursive=True, include_hidden=True), products)  # noqa: PTH207

    def _digest(self, paths: Iterable[str], products: Collection[str]) -> str:
        names = {name for name in map(self.name, paths) if name is not None and name not in products}
        return hashlib.sha256("\0".join(sorted(names)).encode(errors="surrogateescape")).hexdigest()

    def _is_counted(self, folder: str) -> bool:
        """Return whether what is in a folder counts."""
        probe = f"{folder}/"
        if probe.startswith(self._inner if probe.startswith(self._root) else self._outer):
            return False
        if _PACKAGES.intersection(folder.split("/")):
            return False
        while folder and f"{folder}/" != self._root:
            if any(describe_existence(f"{folder}/{mark}") != "absent" for mark in _ENVIRONMENT_MARKS):
                return False
            folder = folder.rpartition("/")[0]
        return True

    def _is_result(self, folder: str, name: str) -> bool:
        is_task = f"{folder.rpartition('/')[0]}/" == self._work and f"{folder}/" != self._own
        return is_task and name.startswith("result.") and not name.endswith(".receipt")


def normalize(path: str) -> str:
    """Return an absolute path without dots and doubled slashes."""
    return os.path.normpath(path) if "/." in path or "//" in path or path[-1] == "/" else path


def describe_existence(path: str) -> str:
    """Return what is at a path: ``file``, ``folder`` or ``absent``."""
    try:
        return "folder" if stat.S_ISDIR(_stat(path).st_mode) else "file"
    except (OSError, ValueError):
        return "absent"


def _left_out() -> list[str]:
    pythons = [sys.prefix, sys.base_prefix, *map(sysconfig.get_path, _SCHEMES)]
    temporary = os.environ.get("TMPDIR") or _SYSTEM[-1]
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - a string
    return [*_SYSTEM, *pythons, _PSYRUN, temporary, caches]
