"""Capturing sources: the bytes of a task file, psy-conf.py and local modules, read once.

Digests, the archive for jobs and the module that runs are all made of these bytes, not of the files on disk.
Which modules there are is seen, not guessed: the task file is run, and what it imports is captured as it is
imported; modules that functions import are searched for. While none of them changes, it is not run again.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.errors import TaskFileError
from psyrun.source.archive import SCHEME, Source
from psyrun.source.cache import SourceCache
from psyrun.source.digests import digest_sources
from psyrun.source.loading import run_scripts
from psyrun.source.modules import (
    LocalFinder,
    ModuleSearch,
    Place,
    is_editable,
    uncaptured_modules,
    with_packages,
)
from psyrun.source.program import imported_names, package_of
from psyrun.source.syntax import parse, read_statements

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


_CONF = "psy-conf.py"


def read_source(root: Path, task_file: Path, cache: SourceCache | None = None) -> Source:
    """Capture a task file, psy-conf.py beside it, and the local modules that they import.

    The task file runs, with what it prints thrown away, unless the cache knows its sources as they are now.

    Parameters
    ----------
    root
        The project root.
    task_file
        The task file, absolute or relative to the working directory.
    cache
        Facts about sources read before.

    Raises
    ------
    TaskFileError
        If a file can't be read, parsed, or run.
    """
    cache = cache or SourceCache()
    capture = _Capture.begin(root, task_file)
    key = f"modules of {capture.task}"
    loaded = cache.get(key)
    if loaded is None or not loaded["complete"] or not capture.take(loaded):
        capture = _Capture.begin(root, task_file)
        cache.put(key, capture.load())
    facts = cache.recall(f"digests {SCHEME} {capture.content()}", capture.digest)
    return capture.finish(facts)


def read_scripts(root: Path, task_file: Path) -> Source:
    """Read a task file and psy-conf.py beside it; nothing is run, digested or searched for.

    Raises
    ------
    TaskFileError
        If a file can't be read.
    """
    return _Capture.begin(root, task_file).finish({"code": "", "space": "", "definitions": {}})


@dataclass(slots=True, kw_only=True)
class _Capture:
    """Files read so far, each once."""

    place: Place
    task: str
    conf: str | None
    files: dict[str, bytes] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    _imported: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    @classmethod
    def begin(cls, root: Path, task_file: Path) -> _Capture:
        """Read the task file, and psy-conf.py."""
        home, path = (os.path.normpath(each.absolute()) for each in (root, task_file))
        place = Place(root=home, folder=str(Path(path).parent))
        conf = Path(path).with_name(_CONF)
        has_conf = os.path.lexists(conf)
        capture = cls(
            place=place, task=place.relative(path), conf=place.relative(str(conf)) if has_conf else None
        )
        for each in (path, *([str(conf)] if has_conf else [])):
            capture.read(place.relative(each), each)
        return capture

    def read(self, name: str, path: str) -> None:
        """Read a file, once."""
        if name in self.files:
            return
        file = Path(path)
        if file.exists() and not file.is_file():  # Reading a pipe would wait for ever.
            raise TaskFileError(f"{name}: not a regular file, so psyrun can't read it; move or rename it")
        try:
            self.files[name] = file.read_bytes()
        except OSError as error:
            raise TaskFileError(f"{name}: {error.strerror}; psyrun has to read it") from error

    def take(self, loaded: Mapping[str, Any]) -> bool:
        """Read the modules that the task file loaded before; tell whether all is as it was then."""
        path = self._path()
        for index, each in loaded["path"]:
            path.insert(index, os.path.normpath(Path(self.place.root, each)))
        importlib.invalidate_caches()
        search = ModuleSearch(self.place, path)
        if any(search.find(name) != source for name, source in loaded["names"].items()):
            return False
        self.modules |= loaded["modules"]
        for name, source in self.modules.items():
            location = search.locate(name) if is_editable(source) else self.place.locate(source, None)
            if source and not Path(location).is_file():
                return False
            if source:
                self.read(source, location)
        return bool(self.content() == loaded["content"])

    def content(self) -> str:
        """Digest the content of the files, and the names of the modules."""
        files = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}
        told = [self.task, self.conf, sorted(files.items()), sorted(self.modules.items())]
        return hashlib.sha256(ascii(told).encode()).hexdigest()

    def load(self) -> dict[str, Any]:
        """Run the task file, and capture what it imports, now and later; return how to find it again."""
        importlib.invalidate_caches()
        finder = LocalFinder(place=self.place, files=self.files, modules=self.modules)
        base = path = self._path()
        for each in (self.conf, self.task):
            if each is not None:
                parse(self.files[each], each)
        complete = False
        with (
            suppress(TaskFileError),  # It may lack the result of another task; planning it says so.
            Path(os.devnull).open("w") as sink,
            redirect_stdout(sink),
            redirect_stderr(sink),
            run_scripts(self.task, self.conf, finder),
        ):
            path = list(sys.path)
            self._take_others()
            complete = True
        found = self._follow(path, {name for name in finder.missing if self._may_be_local(name)})
        added = [
            (i, os.path.join(self.place.folder, each)) for i, each in enumerate(path) if each not in base
        ]
        return {
            "complete": complete,
            "modules": self.modules,
            "content": self.content(),
            "path": [(index, os.path.relpath(each, self.place.root)) for index, each in added],
            "names": found,
        }

    def _take_others(self) -> None:
        """Capture local modules that were not imported in the usual way."""
        for name, source in uncaptured_modules(self.place, self.modules).items():
            if source != self.task:
                self.read(source, str(sys.modules[name].__file__))
                self.modules[name] = source

    def _may_be_local(self, name: str) -> bool:
        return "." not in name or name.rpartition(".")[0] in self.modules

    def _path(self) -> list[str]:
        return [self.place.folder, *filter(None, sys.path), self.place.root]

    def _follow(self, path: Sequence[str], missing: Iterable[str]) -> dict[str, str | None]:
        """Capture the modules that imports in functions name; return what is found for each name."""
        search = ModuleSearch(self.place, [os.path.normpath(Path(self.place.folder, each)) for each in path])
        found: dict[str, str | None] = {}
        todo = {*missing, *self.modules, *self._named()}
        while todo:
            for name in sorted(todo):
                source = found[name] = search.find(name)
                if source is not None and source != self.task and name not in self.modules:
                    if source:
                        self.read(source, search.locate(name))
                    self.modules[name] = source
            todo = self._named() - found.keys()
        real = {above for name, source in self.modules.items() if source for above in with_packages(name)}
        for name in self.modules.keys() - real:  # namespace packages without modules
            del self.modules[name]
        return found

    def _named(self) -> set[str]:
        """Return the names that may be imported, by the text of what was captured."""
        packages = {self.task: "", self.conf or self.task: ""}
        packages |= {source: package_of(name, source) for name, source in self.modules.items() if source}
        return {name for source, package in packages.items() for name in self._imports(source, package)}

    def _imports(self, source: str, package: str) -> Iterable[str]:
        if (source, package) not in self._imported:
            statements = read_statements([(source, parse(self.files[source], source))])
            nodes = (node for each in statements for node in each.imported)
            names = {name for node in nodes for name in imported_names(node, package)}
            above = {each for name in names for each in with_packages(name) if not name.startswith(".")}
            self._imported[source, package] = above
        return self._imported[source, package]

    def digest(self) -> dict[str, Any]:
        """Digest what was captured."""
        return digest_sources(self.task, self.conf, self.files, self.modules)

    def finish(self, facts: Mapping[str, Any]) -> Source:
        """Return what was captured."""
        files = dict(sorted(self.files.items()))
        modules = dict(sorted(self.modules.items()))
        return Source(task=self.task, conf=self.conf, files=files, modules=modules, **facts)
