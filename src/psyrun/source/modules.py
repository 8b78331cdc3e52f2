"""Local modules: search for their sources, and imports of captured sources.

A module is local when its source lies under the project root or the task folder, and in no environment of
Python below them. `psyrun` never is.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import os
import pkgutil
import sys
import sysconfig
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from psyrun.source.searchpath import apply_edits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType


_ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta")
_PACKAGE_FOLDERS = frozenset({"site-packages", "dist-packages"})


# -- finding


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModule:
    """Place of a local module; `path` is None for a namespace package, `folders` for a plain module."""

    path: str | None
    folders: tuple[str, ...] | None


@dataclass(slots=True, kw_only=True)
class ModuleSearch:
    """Search for sources of local modules, as an import statement of a task file does it.

    Parameters
    ----------
    root
        The project root, absolute; searched last.
    folder
        The task folder, absolute; searched first, as when the task file runs.
    edits
        Folders that the task file adds to `sys.path`, from `path_edits`.
    """

    root: str
    folder: str
    edits: Sequence[tuple[int | None, str]] = ()
    _known: dict[str, LocalModule | None] = field(default_factory=dict)

    def find(self, name: str) -> LocalModule | None:
        """Find a module by its dotted name; None if there is none, or if it is not local."""
        if name not in self._known:
            parent = name.rpartition(".")[0]
            if parent:
                package = self.find(parent)
                spec = _search(name, (package and package.folders) or ())
            else:
                spec = None if name == "psyrun" else self._find_top(name)
            self._known[name] = self._as_local(spec)
        return self._known[name]

    def _find_top(self, name: str) -> ModuleSpec | None:
        path = apply_edits([self.folder, *filter(None, sys.path), self.root], self.edits, self.folder)
        for finder in sys.meta_path:
            spec = None
            if finder is importlib.machinery.PathFinder:
                spec = _search(name, path)
            elif not isinstance(finder, _CapturedFinder) and hasattr(finder, "find_spec"):
                with suppress(ImportError, AttributeError, ValueError, OSError):
                    spec = finder.find_spec(name, None)
            if spec is not None:
                return spec
        return None

    def _as_local(self, spec: ModuleSpec | None) -> LocalModule | None:
        if spec is None:
            return None
        locations = spec.submodule_search_locations
        folders = None if locations is None else tuple(locations)
        if spec.has_location and spec.origin is not None:
            fits = spec.origin.endswith(".py") and self._is_local(spec.origin)
            return LocalModule(path=spec.origin, folders=folders) if fits else None
        if folders and spec.origin is None and any(map(self._is_local, folders)):
            return LocalModule(path=None, folders=folders)
        return None

    def _is_local(self, path: str) -> bool:
        forms = (str, os.path.realpath)
        return any(_lies_in(form(path), form(home)) for form in forms for home in (self.root, self.folder))


def _search(name: str, path: Iterable[str]) -> ModuleSpec | None:
    """Search folders for a module, as `PathFinder` does; it needs no parent package in `sys.modules`."""
    portions: list[str] = []
    for folder in path:
        importer = pkgutil.get_importer(folder)
        if importer is None:
            continue
        spec = importer.find_spec(name)
        if spec is not None and spec.loader is not None:
            return spec
        if spec is not None:
            portions.extend(spec.submodule_search_locations or ())
    if not portions:
        return None
    spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = list(dict.fromkeys(portions))
    return spec


def _lies_in(path: str, home: str) -> bool:
    """Tell whether a path lies below a folder, and not in an environment of Python below that folder."""
    file = Path(path)
    if not file.is_relative_to(home):
        return False
    between = file.relative_to(home)
    if _PACKAGE_FOLDERS & set(between.parts):
        return False
    installed = {sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib")}
    if any(Path(p).is_relative_to(home) and p != home and file.is_relative_to(p) for p in installed):
        return False
    above = [Path(home, folder) for folder in between.parents if folder.parts]
    return not any((folder / mark).exists() for folder in above for mark in _ENVIRONMENT_MARKS)


# -- importing


class CapturedLoader(importlib.machinery.SourceFileLoader):
    """Loader of a module from captured bytes; no .pyc file is read or written."""

    def __init__(self, fullname: str, path: str, data: bytes) -> None:
        super().__init__(fullname, path)
        self._captured = data

    def get_data(self, path: str) -> bytes:
        """Return the captured bytes of the module, or those of another file, such as data of a package."""
        return self._captured if path == self.path else super().get_data(path)

    def get_code(self, fullname: str) -> CodeType:
        """Compile the captured bytes."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # Otherwise each child repeats it.
            return self.source_to_code(self._captured, self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _CapturedFinder(importlib.abc.MetaPathFinder):
    """Import hook that serves captured bytes."""

    root: str
    files: Mapping[str, bytes]
    modules: Mapping[str, str]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find captured modules; None leaves others to the next finder."""
        source = self.modules.get(fullname)
        if source is None:
            return None
        if not source:  # A namespace package, even where its folders are gone.
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            found = _search(fullname, sys.path if path is None else path)
            spec.submodule_search_locations = list((found and found.submodule_search_locations) or ())
            return spec
        location = os.path.normpath(Path(self.root, source))
        folders = [str(Path(location).parent)] if PurePosixPath(source).name == "__init__.py" else None
        loader = CapturedLoader(fullname, location, self.files[source])
        return importlib.util.spec_from_file_location(
            fullname, location, loader=loader, submodule_search_locations=folders
        )


@contextmanager
def captured_imports(root: str, files: Mapping[str, bytes], modules: Mapping[str, str]) -> Iterator[None]:
    """Import captured modules from their bytes inside the context, regardless of files and `sys.modules`.

    Parameters
    ----------
    root
        Folder that the paths in `files` are relative to.
    files
        Path -> bytes.
    modules
        Dotted name -> path in `files`, '' for a namespace package.
    """
    finder = _CapturedFinder(root=root, files=files, modules=modules)
    aside = _set_aside(modules)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.meta_path.remove(finder)
        _set_aside(modules)
        sys.modules.update(aside)


def _set_aside(modules: Mapping[str, str]) -> dict[str, ModuleType]:
    """Take modules of captured names out of `sys.modules`, submodules of captured packages too."""
    aside = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_captured(name, modules)}
    for name in aside:
        parent, _, child = name.rpartition(".")
        if parent in sys.modules:  # A namespace package; `from parent import child` asks it first.
            vars(sys.modules[parent]).pop(child, None)
    return aside


def _is_captured(name: str, modules: Mapping[str, str]) -> bool:
    if modules.get(name) == "":  # A namespace package; it stays if modules that were not captured use it.
        return not any(
            used.startswith(f"{name}.") and not _is_captured(used, modules) for used in sys.modules
        )
    return any(map(modules.get, with_packages(name)))


def with_packages(name: str) -> Iterator[str]:
    """Yield `a`, `a.b` and `a.b.c` for `a.b.c`."""
    parts = name.split(".")
    return (".".join(parts[: end + 1]) for end in range(len(parts)))


@contextmanager
def captured_lines(root: str, files: Mapping[str, bytes]) -> Iterator[None]:
    """Show captured lines in tracebacks inside the context, instead of those on disk."""
    paths = {os.path.normpath(Path(root, name)): data for name, data in files.items()}
    before = {path: linecache.cache[path] for path in paths if path in linecache.cache}
    for path, data in paths.items():
        lines = importlib.util.decode_source(data).splitlines(keepends=True)
        linecache.cache[path] = (len(data), None, lines, path)  # No mtime: never compared with the disk.
    try:
        yield
    finally:
        for path in paths:
            linecache.cache.pop(path, None)
        linecache.cache.update(before)
