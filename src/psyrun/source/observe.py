"""Observation of what this process reads: files opened, listed, matched, asked for, handed to programs.

An audit hook sees what Python opens, lists and starts; `os.stat` and its kin, which raise no audit event, are
wrapped. What C libraries open themselves, and what other processes read, is not seen.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import re
import stat
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from psyrun.source.audit import AUDIT
from psyrun.source.callers import find_caller
from psyrun.source.tracked import describe_existence, normalize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from psyrun.source.tracked import TrackedPaths


_stat = os.stat

# Functions that look at more of a file than whether it is there.
_LOOKS = frozenset({"", "stat", "lstat", "getsize", "getmtime", "getatime", "getctime"})
_WRITES, _REPLACES = os.O_ACCMODE, os.O_TRUNC | os.O_APPEND | os.O_EXCL
_WORDS = re.compile(r"[\s=;|<>&'\"]+")


@dataclass(slots=True)
class Reading:
    """Something that was read, as `psyrun.workdir.Input` has it; further kinds are no inputs.

    Parameters
    ----------
    number, kind, path, size, mtime, digest, loading, place
        As in `Input`; a file has no digest. The kind ``product`` is a path that was written, made or removed,
        ``program`` an audit event of a process that was started.
    stamp
        What tells that a file or a folder changed.
    """

    number: int
    kind: str
    path: str
    size: int | None = None
    mtime: int | None = None
    digest: str | None = None
    loading: bool = False
    place: str = ""
    stamp: tuple[int, int] | None = None

    def fields(self) -> tuple[Any, ...]:
        """Return the fields of an `Input`, from its number on; the worker knows ctime and inode."""
        stamp = self.size, self.mtime, None, None
        return self.number, self.kind, self.path, *stamp, self.digest, self.loading, self.place


class Observer:
    """Observer of what this process reads, in three phases: loading the task file, `setup`, rows.

    Parameters
    ----------
    paths
        The paths that count.
    sources
        Captured sources, absolute path -> name; not inputs where Python itself opens them.
    by_row
        Whether each row is to have readings of its own, rather than the first row that read something.

    Attributes
    ----------
    lowest
        The lowest number of a reading that the current row made, or made again; 0 where there is none.
    count
        How many readings there were; they are numbered from 1.
    """

    def __init__(self, paths: TrackedPaths, sources: Mapping[str, str], *, by_row: bool = False) -> None:
        self._paths, self._sources, self._by_row = paths, sources, by_row
        self.count = self.lowest = 0
        self._loading, self._places, self._first = True, True, 0
        self._readings: list[Reading] = []
        self._products: set[str] = set()
        self._tentative: dict[int, tuple[Reading, str]] = {}
        self._programs: set[str] = set()
        self.handlers = self._make_handlers()
        self._forget()

    def _forget(self) -> None:
        self._seen: dict[tuple[str, str, str], Reading] = {}
        self._forget_paths()

    def _forget_paths(self) -> None:
        self._opened: dict[str, tuple[str, Reading]] = {}  # by the path as it was given
        self._asked: dict[str, tuple[str, Reading, str]] = {}
        self._written: set[str] = set()
        self._folder: str | None = None

    # -- phases

    def __enter__(self) -> Observer:
        AUDIT.add(self.handlers)
        return self

    def __exit__(self, *error: object) -> None:
        AUDIT.remove(self.handlers)

    def declare(self, names: Iterable[str]) -> None:
        """Note data files that the task file names, which count as long as no read of them is seen."""
        for name in names:
            self._note("declared", name, stamp=_stamp(self._paths.locate(name)))

    def end_loading(self) -> None:
        """Say that the task file is loaded; what is read until the first row counts for all rows."""
        self._places = False
        self._forget()

    def begin_rows(self) -> None:
        """Say that the first row begins."""
        self._loading = False
        self._forget()
        self.lowest = 0
        self._first = self.count + 1 if self._by_row else 0

    def end_row(self) -> tuple[int, int]:
        """Say that a row ended; return how many readings count for it, and the first of its own.

        That is a number above where it read nothing.
        """
        found = self.count, self.lowest or self.count + 1
        self.lowest = 0
        if self._by_row:
            self._first = self.count + 1
        return found

    def take(self) -> list[Reading]:
        """Return the readings since the last call, without those of what was written."""
        for reading, path in self._tentative.values():
            if _stamp(path) != reading.stamp:
                self._add_product(reading.path)
        self._tentative.clear()
        found, self._readings = self._readings, []
        return [each for each in found if each.kind == "product" or each.path not in self._products]

    # -- events

    def _make_handlers(self) -> dict[str, Callable[..., None]]:
        """Return a method for each audit event, and for each function that is wrapped."""
        return {
            "open": self._open,
            **dict.fromkeys(("os.listdir", "os.scandir"), self._list),
            "glob.glob/2": self._match,
            "pathlib.Path.glob": lambda folder, pattern: self._match(pattern, True, folder),
            "pathlib.Path.rglob": lambda folder, pattern: self._match(f"**/{pattern}", True, folder),
            "sqlite3.connect": self._connect,
            "import": self._load,
            "os.mkdir": self._make,
            **dict.fromkeys(("os.remove", "os.rmdir"), self._write),
            "os.rename": self._rename,
            "os.link": self._link,
            "os.symlink": lambda source, target, folder: self._link(_beside(target, source), target, folder),
            "os.chdir": lambda path: self._forget_paths(),
            "os.fork": lambda: self._start("os.fork"),
            "os.system": lambda command: self._start("os.system", command),
            "os.posix_spawn": lambda path, argv, env: self._start("os.posix_spawn", argv),
            "subprocess.Popen": lambda path, argv, cwd, env: self._start("subprocess.Popen", argv, cwd),
            **dict.fromkeys(("stat", "lstat"), self._ask),
            "access": lambda path: self._ask(path, "access"),
        }

    def _open(self, path: Any, mode: object, flags: int) -> None:
        known = self._opened.get(path) if type(path) is str else None
        if known is not None and not flags & _WRITES and self._is_same(*known):
            return
        if type(path) is int or path in self._written:
            return
        if flags & _REPLACES or flags & _WRITES == os.O_WRONLY:
            self._write(path)
            return
        absolute = self._absolute(path)
        name = self._name(absolute)
        if name is None or (absolute in self._sources and find_caller()[0] == "python"):
            return
        reading = self._note_file(name, absolute)
        if reading is None:
            return
        if flags & _WRITES:
            self._tentative[reading.number] = reading, absolute
        elif type(path) is str and not self._places:
            self._opened[path] = absolute, reading

    def _write(self, path: Any, *more: int) -> None:
        if more[-1:] not in ((), (-1,)):  # relative to a folder of which only a descriptor is known
            return
        name = self._paths.name(self._absolute(path))
        if name is not None:
            self._add_product(name)
            self._written.add(path)

    def _make(self, path: Any, mode: int, folder: int) -> None:
        if describe_existence(self._absolute(path)) == "absent":  # else it fails, as makedirs lets it
            self._write(path, folder)

    def _rename(self, source: Any, target: Any, *folders: int) -> None:
        self._write(source, folders[0])
        self._write(target, folders[1])

    def _link(self, source: Any, target: Any, *folders: int) -> None:
        """Note a file that is read by another name from now on."""
        self._write(target, folders[-1])
        if folders[0] == -1:
            self._open(source, None, os.O_RDONLY)

    def _list(self, path: Any = None) -> None:
        if type(path) is int or find_caller()[0] != "code":
            return
        absolute = self._absolute("." if path is None else path)
        name = self._name(absolute)
        if name is None or describe_existence(absolute) != "folder":
            return
        stamp, old = _stamp(absolute), self._seen.get(("folder", name, self._place()))
        same = old is not None and old.stamp == stamp
        digest = old.digest if old and same else self._digest(self._paths.digest_listing, name)
        self._note("folder", name, digest=digest, stamp=stamp)

    def _match(self, pattern: Any, recursive: bool, folder: Any, *more: object) -> None:
        pattern = os.path.join(os.fsdecode(folder or ""), os.fsdecode(pattern))
        absolute = self._absolute(pattern if recursive else pattern.replace("**", "*"))
        name = self._name(absolute)
        if name is None or find_caller()[0] == "python":
            return
        if not glob.has_magic(pattern):
            self._note("exists", name, digest=describe_existence(absolute))
            return
        old = self._seen.get(("glob", name, self._place()))
        same = old is not None and old.number >= self._first and not self._places
        digest = old.digest if old and same else self._digest(self._paths.digest_matches, name)
        self._note("glob", name, digest=digest)

    def _digest(self, digest: Callable[..., str | None], name: str) -> str | None:
        """Return a digest of what is in a folder, without noting that it was looked at."""
        with AUDIT.paused():
            return digest(name, self._products)

    def _load(self, module: object, path: Any, *more: object) -> None:
        """Note an extension module, which Python does not open itself."""
        if path:
            self._open(path, None, os.O_RDONLY)

    def _connect(self, database: Any) -> None:
        path = str(os.fsdecode(database))
        if path.startswith("file:"):
            parts = urlsplit(path)
            path = ":memory:" if parse_qs(parts.query).get("mode") == ["memory"] else unquote(parts.path)
        if path not in ("", ":memory:"):
            self._open(path, None, os.O_RDWR)

    def _start(self, event: str, arguments: Any = (), folder: Any = None) -> None:
        """Note a process, and its arguments that are files."""
        if event not in self._programs and not self._loading:
            self._programs.add(event)
            self._note("program", event)
        given = [arguments] if isinstance(arguments, (str, bytes, os.PathLike)) else arguments
        for argument in map(os.fsdecode, given):
            for word in {argument, *_WORDS.split(argument)}:
                absolute = self._absolute(os.path.join(os.fsdecode(folder or ""), word))
                if word and describe_existence(absolute) == "file":
                    self._open(absolute, None, os.O_RDWR)

    def _ask(self, path: Any, function: str = "") -> None:
        known = self._asked.get(path) if type(path) is str else None
        if known is not None and self._is_there_still(*known):
            return
        absolute = self._absolute(path)
        name = self._name(absolute)
        if name is None:
            return
        reader, used = find_caller()
        if reader != "code":
            return
        state = describe_existence(absolute)
        if (function or used) in _LOOKS and state == "file":
            self._note_file(name, absolute)
            return
        reading = self._seen.get(("file", name, self._place())) if state == "file" else None
        if reading is not None and reading.number >= self._first:
            self._touch(reading)
        else:
            reading = self._note("exists", name, digest=state)
        if type(path) is str and not self._places:
            self._asked[path] = absolute, reading, state

    # -- notes

    def _absolute(self, path: Any) -> str:
        path = path if type(path) is str else os.fsdecode(path)
        if not path.startswith("/"):
            if self._folder is None:
                self._folder = os.getcwd()  # noqa: PTH109 - a string
            path = f"{self._folder}/{path}"
        if path.endswith(".pyc") and "__pycache__" in path:
            path = str(importlib.util.source_from_cache(path))
        return normalize(path)

    def _name(self, path: str) -> str | None:
        name = self._paths.name(path)
        return None if name in self._products else name

    def _note_file(self, name: str, absolute: str) -> Reading | None:
        """Note the content of a file, or that there is none; nothing where it is no regular file."""
        try:
            found = _stat(absolute)
        except OSError:
            return self._note("exists", name, digest="absent")
        if not stat.S_ISREG(found.st_mode):
            return None
        return self._note("file", name, stamp=(found.st_size, found.st_mtime_ns))

    def _note(
        self, kind: str, name: str, *, digest: str | None = None, stamp: tuple[int, int] | None = None
    ) -> Reading:
        """Note a reading, or that one was made again."""
        place = self._place()
        old = self._seen.get((kind, name, place))
        # The digest of a listing leaves out products, whose making changes the folder.
        same = old is not None and old.digest == digest and (digest is not None or old.stamp == stamp)
        if old is not None and same and old.number >= self._first:
            old.stamp = stamp
            return self._touch(old)
        self.count += 1
        size, mtime = stamp if stamp and kind in ("file", "declared") else (None, None)
        reading = Reading(self.count, kind, name, size, mtime, digest, self._loading, place, stamp)
        self._seen[kind, name, place] = reading
        self._readings.append(reading)
        return self._touch(reading)

    def _touch(self, reading: Reading) -> Reading:
        if not self.lowest or reading.number < self.lowest:
            self.lowest = reading.number
        return reading

    def _add_product(self, name: str) -> None:
        if name not in self._products:
            self._products.add(name)
            self._note("product", name)
            self._forget_paths()

    def _is_same(self, absolute: str, reading: Reading) -> bool:
        same = reading.number >= self._first and _stamp(absolute) == reading.stamp
        return same and bool(self._touch(reading))

    def _is_there_still(self, absolute: str, reading: Reading, state: str) -> bool:
        same = reading.number >= self._first and describe_existence(absolute) == state
        return same and bool(self._touch(reading))

    def _place(self) -> str:
        """Return the innermost statement of a local module that is at work, while the task file is loaded."""
        frame = sys._getframe(1) if self._places else None  # noqa: SLF001 - what it is for
        while frame is not None:
            code = frame.f_code
            if code.co_name == "<module>":
                path = code.co_filename
                name = self._sources.get(path) or (self._paths.name(path) if path.startswith("/") else None)
                if name is not None:
                    return f"{name}:{frame.f_lineno}"
            frame = frame.f_back
        return ""


def _beside(path: Any, other: Any) -> str:
    return os.path.join(os.path.dirname(os.fsdecode(path)), os.fsdecode(other))  # noqa: PTH120 - strings


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = _stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
