"""Outlines: the part of a task file that the graph needs, read without running the file if possible."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.errors import StoreError, TaskFileError
from psyrun.source import Source, SourceCache, loaded, read_source
from psyrun.store import EXTENSIONS, AutodetectStore, PickleStore
from psyrun.task.settings import OUTLINE_NAMES, check_settings, check_text, literal_settings
from psyrun.workdir import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psyrun.store import Store


# A result under such a name would not be what it says.
_OTHER_FORMATS = (".feather", ".json", ".mat", ".nc", ".tsv", ".txt", ".xls", ".xlsx", ".zarr")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")

# Tasks of these names can't be named on the command line.
_PSY = {
    "run",
    "plan",
    "list",
    "status",
    "merge",
    "test",
    "clean",
    "errors",
    "kill",
    "log",
    "new-task",
    "completion",
    "debug",
    "export",
}
_DOIT = {"auto", "doit", "dumpdb", "forget", "help", "ignore", "info", "reset-dep", "strace", "tabcompletion"}
COMMANDS = frozenset(_PSY | _DOIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """Part of a task file that the graph needs.

    Parameters
    ----------
    name
        The task's name.
    source
        The captured sources.
    root
        The project root, absolute.
    workdir, result
        Work folder of all tasks, and the result file: relative to the root, or absolute.
    file_dep
        Data files, relative to the root.
    exclude
        Names that are not recorded.
    ext
        Extension of the store.
    overwrite_dirty
        Whether finished rows may be evaluated again after an edit without a question.
    stateless, untracked, track_inputs
        Whether `execute` keeps nothing of what a row reads, patterns of paths that are no inputs, and whether
        there are inputs at all, but for `file_dep`.
    allow_failed
        How many rows of a finished result may have failed: all, so many, or a share.
    """

    name: str
    source: Source
    root: Path
    workdir: str
    result: str
    file_dep: tuple[str, ...]
    exclude: tuple[str, ...]
    ext: str
    overwrite_dirty: bool
    stateless: bool = False
    untracked: tuple[str, ...] = ()
    allow_failed: bool | int | float = False
    track_inputs: bool = True

    @property
    def path(self) -> str:
        """The task file, relative to the root."""
        return self.source.task

    @property
    def layout(self) -> Layout:
        """Paths of the task's files."""
        folder = self.root / self.workdir / self.name
        return Layout(root=self.root, folder=folder, result=self.root / self.result)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that a plan records; as text where equal values differ, such as True and 1."""
        allowance = {"allow_failed": repr(self.allow_failed)} if self.allow_failed is not False else {}
        return {
            **allowance,
            "exclude": list(self.exclude),
            "file_dep": list(self.file_dep),
            "result": self.result,
            "store": self.ext,
        }


def read_outline(root: Path, path: Path, cache: SourceCache | None = None) -> Outline:
    """Read the part of a task file that the graph needs.

    Settings that are plain literals, or a store of psyrun, are read off the text. A file that computes them
    is run once per edit.

    Raises
    ------
    TaskFileError
        If the file can't be read, or a setting has a wrong value.
    """
    source = read_source(root, path, cache)
    check_text(source)
    values = literal_settings(source)
    if values is None:
        content = hashlib.sha256(ascii(sorted(source.files.items())).encode()).hexdigest()
        key = f"settings of {source.task} {content}"
        values = (cache or SourceCache()).recall(key, lambda: _run_for_settings(source, root))
    return _outline(root, source, values)


def outline_without_file(root: Path, taskdir: str, name: str) -> Outline:
    """Return the outline of a task whose file is broken or gone: settings have their defaults.

    Raises
    ------
    TaskFileError
        If a task can't have this name.
    """
    path = f"{taskdir}/task_{name}.py"
    source = Source(task=path, conf=None, files={}, modules={}, code="", space="", definitions={})
    return _outline(root, source, {"name": name, "overwrite_dirty": False})


def _run_for_settings(source: Source, root: Path) -> dict[str, Any]:
    with loaded(source, root) as module:
        values = check_settings(source, vars(module))
    return {name: values[name] for name in OUTLINE_NAMES} | {"store": values["store"] and values["store"].ext}


def _outline(root: Path, source: Source, values: Mapping[str, Any]) -> Outline:
    name = values.get("name") or name_of(Path(source.task))
    check_name(source.task, name)
    workdir = _normalise(root, Path(values.get("workdir") or "psy-work"))
    resultfile = values.get("resultfile")
    try:
        ext = values.get("store") or store_for(resultfile).ext
    except StoreError as error:
        raise TaskFileError(f"{source.task}: resultfile = {str(resultfile)!r}: {error}") from error
    folder = Path(source.task).parent
    result = folder / resultfile if resultfile else Path(workdir, name, "result" + ext)
    return Outline(
        name=name,
        source=source,
        root=root,
        workdir=workdir,
        result=_normalise(root, result),
        file_dep=tuple(_normalise(root, folder / path) for path in values.get("file_dep") or ()),
        exclude=tuple(values.get("exclude_from_result") or ()),
        ext=ext,
        overwrite_dirty=bool(values.get("overwrite_dirty", True)),
        stateless=bool(values.get("stateless", False)),
        untracked=tuple(values.get("untracked") or ()),
        allow_failed=values.get("allow_failed", False),
        track_inputs=bool(values.get("track_inputs", True)),
    )


def _normalise(root: Path, path: Path) -> str:
    """Return the one form of a path: relative to the root where it lies below or beside it as written."""
    absolute = os.path.normpath(root / path)
    if path.is_absolute() and not Path(absolute).is_relative_to(root):
        return absolute
    return Path(os.path.relpath(absolute, root)).as_posix()


def name_of(path: Path) -> str:
    """Return the task name that the name of a task file gives."""
    return path.stem.removeprefix("task_")


def check_name(path: str, name: Any) -> None:
    """Raise TaskFileError unless a task file at `path` may have this name."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise TaskFileError(
            f"{path}: {name!r} can't be a task's name; use letters, digits, '_', '.' and '-',"
            " a letter or digit first (rename the file, or set `name`)"
        )
    if name in COMMANDS:
        raise TaskFileError(
            f"{path}: {name!r} is a command of psy or doit and can't be a task's name;"
            " rename the file, or set `name`"
        )


def store_for(result: str | os.PathLike[str] | None) -> Store:
    """Return the store for the extension of a result file; PickleStore where it has none that is known.

    Raises
    ------
    StoreError
        If it names a format that psyrun can't write, or not without another package.
    """
    extension = Path(result or "").suffix.lower()
    known = extension in chain(_OTHER_FORMATS, *EXTENSIONS.values())
    try:
        return AutodetectStore.get_concrete_store(f"result{extension}")
    except StoreError:
        if known:
            raise
        return PickleStore()


@contextmanager
def prefix_store_errors(outline: Outline) -> Iterator[None]:
    """Prefix errors of a store with the task file."""
    try:
        yield
    except StoreError as error:
        raise StoreError(f"{outline.path}: {error}") from error
