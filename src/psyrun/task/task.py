"""Tasks: what a task file says, checked and frozen; finding, loading and checking task files."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.errors import StoreError, TaskFileError
from psyrun.source import Source, loaded, read_source
from psyrun.store import AutodetectStore, PickleStore
from psyrun.task.settings import SETTINGS, check_settings, check_text, literal_settings
from psyrun.task.signatures import check_execute, check_setup
from psyrun.workdir import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from psyrun.backend import Backend
    from psyrun.pspace import ParameterSpace
    from psyrun.scheduler import Scheduler
    from psyrun.source import SourceCache
    from psyrun.store import Store


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")

# A task of such a name could not be addressed.
_PSY = {"run", "plan", "list", "status", "merge", "test", "clean", "errors", "kill", "new-task", "completion"}
_DOIT = {"auto", "doit", "dumpdb", "forget", "help", "ignore", "info", "reset-dep", "strace", "tabcompletion"}
COMMANDS = frozenset(_PSY | _DOIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What the graph needs to know of a task file.

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
        Whether results may become stale without a word.
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

    @property
    def path(self) -> str:
        """The task file, relative to the root."""
        return self.source.task

    @property
    def layout(self) -> Layout:
        """Where the task's files are."""
        folder = self.root / self.workdir / self.name
        return Layout(root=self.root, folder=folder, result=self.root / self.result)

    @property
    def settings(self) -> dict[str, Any]:
        """What of this a plan records."""
        return {
            "exclude": list(self.exclude),
            "file_dep": list(self.file_dep),
            "result": self.result,
            "store": self.ext,
        }


def find_task_files(root: Path, taskdir: str) -> list[Path]:
    """Return the task files of a folder, sorted by name.

    Raises
    ------
    TaskFileError
        If there is no such folder.
    """
    folder = root / taskdir
    if not folder.is_dir():
        above = next((str(parent) for parent in root.parents if (parent / taskdir).is_dir()), None)
        place = "where it is" if above is None else f"in {above}, where it is"
        raise TaskFileError(
            f"{taskdir}: no such folder in {root}; run psy {place}, name another with --taskdir,"
            " or begin with psy new-task NAME"
        )
    return sorted(folder.glob("task_*.py"))


def find_names(root: Path, taskdir: str) -> list[str]:
    """Return the names of the tasks of a folder as far as their text tells; nothing is run."""
    names = []
    for path in find_task_files(root, taskdir):
        name = name_of(path)
        with suppress(TaskFileError):
            name = (literal_settings(read_source(root, path)) or {}).get("name") or name
        names.append(name)
    return names


def name_of(path: Path) -> str:
    """Return the name of a task that its file gives it."""
    return path.stem.removeprefix("task_")


def read_outline(root: Path, path: Path, cache: SourceCache | None = None) -> Outline:
    """Read what the graph needs from a task file, without running it where that is possible.

    Settings that are plain literals, or a store of psyrun, are read off the text. A file that computes them
    is run once per edit.

    Raises
    ------
    TaskFileError
        If the file can't be read, or a setting is not what it has to be.
    """
    source = read_source(root, path, cache)
    check_text(source)
    values = literal_settings(source)
    if values is None:
        key = f"settings of {source.task} {_fingerprint(source)}"
        values = cache.get(key) if cache else None
        if values is None:
            values = _run_for_settings(source, root)
            if cache is not None:
                cache.put(key, values)
    return _outline(root, source, values)


def _fingerprint(source: Source) -> str:
    whole = hashlib.sha256()
    for path, text in sorted(source.files.items()):
        whole.update(f"{path} {len(text)}\n".encode(errors="surrogateescape"))
        whole.update(text)
    return whole.hexdigest()


def _run_for_settings(source: Source, root: Path) -> dict[str, Any]:
    with loaded(source, root) as module:
        values = check_settings(source, vars(module))
    plain = {name: values[name] for name in ("name", "exclude_from_result", "overwrite_dirty")}
    paths = {name: values[name] and os.fspath(values[name]) for name in ("workdir", "resultfile")}
    data = [os.fspath(path) for path in values["file_dep"]]
    return {**plain, **paths, "file_dep": data, "store": values["store"] and values["store"].ext}


def _outline(root: Path, source: Source, values: Mapping[str, Any]) -> Outline:
    name = values.get("name") or name_of(Path(source.task))
    check_name(source.task, name)
    folder = Path(source.task).parent
    workdir = _normalise(root, Path(values.get("workdir") or "psy-work"))
    resultfile = values.get("resultfile")
    ext = values.get("store") or _store_for(resultfile).ext
    result = _normalise(root, Path(resultfile or Path(workdir, name, "result" + ext)))
    return Outline(
        name=name,
        source=source,
        root=root,
        workdir=workdir,
        result=result,
        file_dep=tuple(_normalise(root, folder / path) for path in values.get("file_dep") or ()),
        exclude=tuple(values.get("exclude_from_result") or ()),
        ext=ext,
        overwrite_dirty=bool(values.get("overwrite_dirty", True)),
    )


def _store_for(result: str | os.PathLike[str] | None) -> Store:
    """Choose a store by the extension of the result file; PickleStore where that tells nothing."""
    if result is None:
        return PickleStore()
    try:
        return AutodetectStore.get_concrete_store(result)
    except StoreError:
        return PickleStore()


def outline_folder(root: Path, taskdir: str, name: str) -> Outline:
    """Outline a task whose file is broken or gone: its folder is where work folders are by default."""
    path = f"{taskdir}/task_{name}.py"
    check_name(path, name)
    nothing = Source(task=path, conf=None, files={}, modules={}, code="", space="", definitions={})
    workdir = SETTINGS["workdir"].default
    return Outline(
        name=name,
        source=nothing,
        root=root,
        workdir=workdir,
        result=f"{workdir}/{name}/result.pkl",
        file_dep=(),
        exclude=(),
        ext=".pkl",
        overwrite_dirty=False,
    )


@contextmanager
def prefix_store_errors(outline: Outline) -> Iterator[None]:
    """Let a store's refusal name the task file."""
    try:
        yield
    except StoreError as error:
        raise StoreError(f"{outline.path}: {error}") from error


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


def _normalise(root: Path, path: Path) -> str:
    """Return the one form of a path: relative to the root where it lies below or beside it as written."""
    absolute = os.path.normpath(root / path)
    if path.is_absolute() and not Path(absolute).is_relative_to(root):
        return absolute
    return Path(os.path.relpath(absolute, root)).as_posix()


# ---------------------------------------------------------------------- tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task file that was run: its settings, checked.

    Parameters
    ----------
    outline
        What could be known without running it, or is known to the graph.
    pspace, execute, setup
        The parameter space, the function to evaluate, and what prepares a process for it (or None).
    backend, scheduler, store
        Instances.
    max_jobs, min_items, pool_size, timeout
        Limits; None where the file leaves them to psyrun. `timeout` is in seconds.
    scheduler_args, merge_args
        Options for the scheduler.
    prologue
        Shell script for jobs to source, relative to the task folder, or None.
    python
        The Python that jobs run.
    """

    outline: Outline
    pspace: ParameterSpace
    execute: Callable[..., Any]
    setup: Callable[[int], Any] | None
    backend: Backend
    scheduler: Scheduler
    store: Store
    max_jobs: int
    min_items: int
    pool_size: int | None
    timeout: float | None
    scheduler_args: Mapping[str, Any]
    merge_args: Mapping[str, Any]
    prologue: str | None
    python: str

    @property
    def name(self) -> str:
        """The task's name."""
        return self.outline.name

    @property
    def total(self) -> int:
        """How many assignments the space has; TaskFileError where it can't tell."""
        try:
            return len(self.pspace)
        except Exception as error:
            raise TaskFileError(f"{self.outline.path}: pspace can't be evaluated: {error}") from error


@contextmanager
def open_task(outline: Outline) -> Iterator[Task]:
    """Run a task file, and keep its modules importable while the context lasts.

    Raises
    ------
    TaskFileError
        If it can't be run, misses `pspace` or `execute`, or a setting is wrong.
    """
    source = outline.source
    with loaded(source, outline.root) as module:
        values = check_settings(source, vars(module))
        for name in ("pspace", "execute"):
            if values[name] is None:
                raise TaskFileError(f"{source.task}: there is no `{name}`; a task file has to define it")
        names, setup = _list_names(source, values["pspace"]), values["setup"]
        check_execute(source.task, values["execute"], names, more=setup is not None)
        if setup is not None:
            check_setup(source.task, setup)
        _check_options(source, outline.root, values)
        yield Task(
            outline=outline,
            store=values["store"] or _store_for(outline.result),
            python=os.fspath(values["python"]),
            prologue=values["prologue"] and os.fspath(values["prologue"]),
            **{name: values[name] for name in _PLAIN},
        )


_PLAIN = (
    *("pspace", "execute", "setup", "backend", "scheduler", "max_jobs", "min_items", "pool_size", "timeout"),
    *("scheduler_args", "merge_args"),
)


def _list_names(source: Source, pspace: ParameterSpace) -> list[str]:
    try:
        return list(pspace.keys())
    except Exception as error:  # It is the user's own class.
        raise TaskFileError(f"{source.task}: pspace does not tell its parameters: {error!r}") from error


def _check_options(source: Source, root: Path, values: Mapping[str, Any]) -> None:
    scheduler = values["scheduler"]
    known = scheduler.options
    for setting in ("scheduler_args", "merge_args"):
        for option in values[setting]:
            if option not in known and known:
                near = difflib.get_close_matches(option, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
                raise TaskFileError(f"{source.task}: {setting}: {option!r} is not an option; {hint}")
    lacking = [name for name in scheduler.required if values["scheduler_args"].get(name) is None]
    if lacking:
        kind = type(scheduler).__name__
        raise TaskFileError(f"{source.task}: {kind} requires scheduler_args that are not there: {lacking}")
    prologue = values["prologue"]
    if prologue is not None and not (root / source.task).parent.joinpath(prologue).is_file():
        raise TaskFileError(
            f"{source.task}: there is no prologue {os.fspath(prologue)!r}, taken relative to the task file"
        )
