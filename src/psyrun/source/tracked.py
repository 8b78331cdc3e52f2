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
_PACKAGES = ("/__pycache__/", "/site-packages/", "/dist-packages/")
_ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta")
_PSYRUN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - strings
# Taken before an `Observer` wraps it.
_stat = os.stat


class TrackedPaths:
    """The paths that count as inputs of a task.

    These are the paths below the project root and those elsewhere, but for folders of the system and of
    Python, temporary folders, caches, virtual environments and the work folder. Results of other tasks in the
    work folder count.

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
        left_out = {f"{os.path.normpath(each)}/" for each in _left_out()}
        self._inner = tuple(each for each in left_out if each.startswith(self._root))
        self._outer = tuple(left_out - {*self._inner})
        patterns = [os.path.normpath(os.path.join(folder, each)) for each in untracked]
        texts = [fnmatch.translate(text) for each in patterns for text in (each, f"{each}/*")]
        self._untracked = re.compile("|".join(texts)) if texts else None
        self._environments: dict[str, bool] = {}

    def name(self, path: str) -> str | None:
        """Return the name of an absolute path as an input; None where it does not count.

        It is relative to the project root where the path is below it, else the path.
        """
        probe = path + "/"
        inside = probe.startswith(self._root)
        if probe.startswith(self._inner if inside else self._outer) or any(
            map(probe.__contains__, _PACKAGES)
        ):
            return None
        if probe.startswith(self._work) and not self._is_result(path):
            return None
        if self._is_environment(os.path.dirname(path)):  # noqa: PTH120 - a string
            return None
        if self._untracked is not None and self._untracked.match(path):
            return None
        return (path[len(self._root) :] or ".") if inside else path

    def locate(self, name: str) -> str:
        """Return the absolute path of an input; of a pattern, one that `glob` takes."""
        return os.path.normpath(os.path.join(self._root, name))

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

    def _is_result(self, path: str) -> bool:
        folder, name = os.path.split(path)
        is_task = os.path.dirname(folder) + "/" == self._work and not path.startswith(self._own)  # noqa: PTH120
        return is_task and name.startswith("result.") and not name.endswith(".receipt")

    def _is_environment(self, folder: str) -> bool:
        if folder not in self._environments:
            above = os.path.dirname(folder)  # noqa: PTH120 - a string
            self._environments[folder] = f"{folder}/" != self._root and (
                any(describe_existence(f"{folder}/{mark}") != "absent" for mark in _ENVIRONMENT_MARKS)
                or (above != folder and self._is_environment(above))
            )
        return self._environments[folder]


def describe_existence(path: str) -> str:
    """Return what is at a path: ``file``, ``folder`` or ``absent``."""
    try:
        return "folder" if stat.S_ISDIR(_stat(path).st_mode) else "file"
    except (OSError, ValueError):
        return "absent"


def _left_out() -> list[str]:
    pythons = [sys.prefix, sys.base_prefix, *map(sysconfig.get_path, _SCHEMES)]
    return [*_SYSTEM, *pythons, _PSYRUN, os.environ.get("TMPDIR") or _SYSTEM[-1]]
