"""Local modules: which they are, the search for their sources, and imports of captured sources.

A module is local when its source lies in the project, in the task folder or in an editable install, and in no
environment of Python. The project reaches up to the folder with ``.git`` or ``pyproject.toml`` around the
folder in which psy runs. `psyrun` never is local.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import linecache
import os
import sys
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType


_PROJECT_MARKS = (".git", "pyproject.toml")
_ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta")
_PACKAGE_FOLDERS = frozenset({"site-packages", "dist-packages"})
_EDITABLE = "@"  # begins the path of a module of an editable install, which is named like the module


def with_packages(name: str) -> Iterator[str]:
    """Yield `a`, `a.b` and `a.b.c` for `a.b.c`."""
    parts = name.split(".")
    return (".".join(parts[: end + 1]) for end in range(len(parts)))


# -- what is local


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The project of a task.

    Parameters
    ----------
    root
        The folder in which psy runs, absolute.
    folder
        The task folder, absolute.
    """

    root: str
    folder: str

    def name_source(self, module: str, spec: ModuleSpec | None) -> str | None:
        """Return the path of the source of a module, relative to the root where it is no editable install.

        '' for a namespace package, None for a module that is not local.
        """
        if spec is None or module.partition(".")[0] == "psyrun":
            return None
        if spec.origin is None or not spec.has_location:
            folders = spec.submodule_search_locations
            return "" if spec.origin is None and folders and any(map(self._is_near, folders)) else None
        if not spec.origin.endswith(".py") or (
            spec.origin.startswith(_installed_folders()) and not self.root.startswith(_installed_folders())
        ):
            return None
        if self._is_near(spec.origin):
            return self.relative(spec.origin)
        if any(_lies_in(os.path.realpath(spec.origin), home) for home in _editable_folders(tuple(sys.path))):
            inside = "/__init__" if spec.submodule_search_locations is not None else ""
            return f"{_EDITABLE}{module.replace('.', '/')}{inside}.py"
        return None

    def relative(self, path: str) -> str:
        """Return a path relative to the root."""
        path, real = os.path.normpath(path), os.path.realpath(path)  # which a link to itself has too
        for place, root in ((path, self.root), (real, os.path.realpath(self.root))):
            if Path(place).is_relative_to(root):
                return Path(place).relative_to(root).as_posix()
        return Path(os.path.relpath(real, os.path.realpath(self.root))).as_posix()

    def locate(self, source: str, spec: ModuleSpec | None) -> str:
        """Return the absolute path of a source; `spec` is what other finders know of its module."""
        if not source.startswith(_EDITABLE):
            return os.path.normpath(Path(self.root, source))
        return (spec and spec.origin) or os.path.join(self.folder, source)

    def _is_near(self, path: str) -> bool:
        homes = (_project_of(self.root), self.folder)
        return any(_lies_in(form(path), form(home)) for form in (str, os.path.realpath) for home in homes)


def is_editable(source: str) -> bool:
    """Tell the source of an editable install, whose path is not relative to the root."""
    return source.startswith(_EDITABLE)


@lru_cache
def _installed_folders() -> tuple[str, ...]:
    """Return the folders of Python's library and of installed packages."""
    import sysconfig

    return tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib")})


@lru_cache
def _project_of(root: str) -> str:
    """Return the folder that the project reaches up to."""
    above = (root, *map(str, Path(root).parents))
    return next((each for each in above if any(Path(each, mark).exists() for mark in _PROJECT_MARKS)), root)


@lru_cache
def _editable_folders(path: tuple[str, ...]) -> list[str]:
    """Return the folders of editable installs that the folders of a search path name."""
    found = []
    for file in (file for folder in path for file in Path(folder).glob("*.dist-info/direct_url.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            said = json.loads(file.read_bytes())
            if said["dir_info"].get("editable"):
                found.append(os.path.realpath(unquote(urlsplit(said["url"]).path)))
    return found


def _lies_in(path: str, home: str) -> bool:
    """Tell whether a path lies below a folder, and not in an environment of Python below that folder."""
    file = Path(path)
    if not file.is_relative_to(home):
        return False
    between = file.relative_to(home)
    if _PACKAGE_FOLDERS & set(between.parts):
        return False
    import sysconfig

    installed = {sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib")}
    if any(Path(p).is_relative_to(home) and p != home and file.is_relative_to(p) for p in installed):
        return False
    above = [Path(home, folder) for folder in between.parents if folder.parts]
    return not any((folder / mark).exists() for folder in above for mark in _ENVIRONMENT_MARKS)


# -- finding


class ModuleSearch:
    """Search for sources of local modules without importing anything.

    Parameters
    ----------
    place
        The project.
    path
        The folders to search, as in `sys.path`.
    """

    def __init__(self, place: Place, path: Sequence[str]) -> None:
        self._place, self._path = place, path
        self._specs: dict[str, ModuleSpec | None] = {}

    def find(self, name: str) -> str | None:
        """Return the path of the source of a module, as `Place.name_source` does."""
        return self._place.name_source(name, self._find(name))

    def locate(self, name: str) -> str:
        """Return the absolute path of the source of a module that was found."""
        spec = self._find(name)
        return (spec and spec.origin) or ""

    def _find(self, name: str) -> ModuleSpec | None:
        if name not in self._specs:
            parent = name.rpartition(".")[0]
            package = self._find(parent) if parent else None
            folders = (package and package.submodule_search_locations) or ()
            self._specs[name] = search_folders(name, folders) if parent else self._find_top(name)
        return self._specs[name]

    def _find_top(self, name: str) -> ModuleSpec | None:
        for finder in sys.meta_path:
            spec = None
            if finder is importlib.machinery.PathFinder:
                spec = search_folders(name, self._path)
            elif not isinstance(finder, LocalFinder) and hasattr(finder, "find_spec"):
                with suppress(ImportError, AttributeError, ValueError, OSError):
                    spec = finder.find_spec(name, None)
            if spec is not None:
                return spec
        return None


def search_folders(name: str, path: Iterable[str]) -> ModuleSpec | None:
    """Search folders for a module, as `PathFinder` does; it needs no parent package in `sys.modules`."""
    import pkgutil

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
class LocalFinder:
    """Import hook that serves captured bytes, and captures local modules that were not.

    Attributes
    ----------
    place
        The project.
    files, modules
        Captured sources, as in `Source`.
    added
        Names of the modules that were not captured before.
    missing
        Names of modules that were asked for and not found.
    """

    place: Place
    files: MutableMapping[str, bytes]
    modules: MutableMapping[str, str]
    added: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find modules; None leaves others to the next finder."""
        source = self.modules.get(fullname)
        spec = None
        if source is None or not source or is_editable(source):
            spec = self._ask_others(fullname, path, target)
        if source is None:
            source = self.place.name_source(fullname, spec)
            if source is None or spec is None:
                self.missing.update({fullname} if spec is None else ())
                return spec
            self._add(fullname, source, spec)
        if not source:
            return _namespace(fullname, spec)
        location = self.place.locate(source, spec)
        folders = [str(Path(location).parent)] if PurePosixPath(source).name == "__init__.py" else None
        loader = CapturedLoader(fullname, location, self.files[source])
        return importlib.util.spec_from_file_location(
            fullname, location, loader=loader, submodule_search_locations=folders
        )

    def _ask_others(self, *request: object) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if not isinstance(finder, LocalFinder) and hasattr(finder, "find_spec"):
                spec = finder.find_spec(*request)  # type: ignore[arg-type]
                if spec is not None:
                    return spec
        return None

    def _add(self, name: str, source: str, spec: ModuleSpec) -> None:
        if source and source not in self.files:
            self.files[source] = Path(str(spec.origin)).read_bytes()
        self.modules[name] = source
        self.added.add(name)


def _namespace(name: str, found: ModuleSpec | None) -> ModuleSpec:
    """Return a namespace package, even where its folders are gone."""
    spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
    locations = found and found.submodule_search_locations
    spec.submodule_search_locations = list(locations or ())
    return spec


@contextmanager
def local_imports(finder: LocalFinder, hidden: Iterable[str]) -> Iterator[None]:
    """Import local modules from captured bytes inside the context, regardless of files and `sys.modules`.

    Modules of Python that local ones hide are taken out of `sys.modules`, too.
    """
    aside = _set_aside(finder, hidden)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.meta_path.remove(finder)
        _set_aside(finder, hidden)
        sys.modules.update(aside)


def uncaptured_modules(place: Place, modules: Mapping[str, str]) -> dict[str, str]:
    """Return the local modules in `sys.modules` that were not captured: name -> path of the source."""
    found = {}
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if name not in modules and name == getattr(spec, "name", None):
            source = place.name_source(name, spec)
            if source:
                found[name] = source
    return found


def _set_aside(finder: LocalFinder, hidden: Iterable[str]) -> dict[str, ModuleType]:
    """Take local modules, those of captured names, and what is in them, out of `sys.modules`."""
    local = {**uncaptured_modules(finder.place, finder.modules), **finder.modules}
    local |= dict.fromkeys(hidden, "-")
    aside = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_captured(name, local)}
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


@contextmanager
def captured_lines(paths: Mapping[str, bytes]) -> Iterator[None]:
    """Show captured lines in tracebacks inside the context, instead of those on disk."""
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
