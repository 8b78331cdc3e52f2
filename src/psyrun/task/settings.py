"""Settings: the names with a meaning in a task file, and what their values have to be."""

from __future__ import annotations

import ast
import difflib
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psyrun.backend import Backend, DistributeBackend
from psyrun.errors import TaskFileError
from psyrun.scheduler import Local, Scheduler
from psyrun.source import unread_names
from psyrun.store import EXTENSIONS, Store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psyrun.source import Source


@dataclass(frozen=True, slots=True)
class Setting:
    """A name with a meaning in a task file.

    Parameters
    ----------
    meaning
        What it sets, in one line.
    expected
        What a value has to be, in words.
    accepts
        Whether a value is that.
    default
        The value where the file does not set it.
    """

    meaning: str
    expected: str
    accepts: Callable[[Any], bool]
    default: Any = None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value)


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike)) and bool(path := os.fspath(value)) and "\0" not in str(path)


def _is_paths(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_path, value))


def _or_none(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or accepts(value)


def _is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _is_options(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


def _is_space(value: Any) -> bool:
    names = ("build", "keys", "iterate", "__len__")
    return not isinstance(value, type) and all(hasattr(value, name) for name in names)


def _is_a(protocol: type) -> Callable[[Any], bool]:
    # isinstance is content with a subclass of the protocol, which may lack what it should have.
    members = [name for name in {**protocol.__annotations__, **vars(protocol)} if not name.startswith("_")]
    return lambda value: all(hasattr(value, name) for name in members)


_OPTIONS = "a dict of options with names (strings)"

SETTINGS: Mapping[str, Setting] = {
    "pspace": Setting("the parameter space to explore", "a parameter space built of Param(...)", _is_space),
    "execute": Setting("the function to evaluate, returns a dict", "a function", callable),
    "setup": Setting(
        "a function called once per process, with its number", "a function or None", _or_none(callable)
    ),
    "name": Setting("the task's name", "a name", _or_none(lambda value: isinstance(value, str))),
    "file_dep": Setting("data files that the task reads", "a list of paths", _is_paths, ()),
    "workdir": Setting("folder of work folders", "a path", _is_path, "psy-work"),
    "resultfile": Setting("the result file", "a path or None", _or_none(_is_path)),
    "store": Setting("how the result is stored", "a store, such as NpzStore()", _or_none(_is_a(Store))),
    "exclude_from_result": Setting("names that are not recorded", "a list of names", _is_names, ()),
    "max_jobs": Setting("at most so many jobs (batches)", "a whole number from 1", _is_count, 100),
    "min_items": Setting("at least so many assignments a job", "a whole number from 1", _is_count, 1),
    "pool_size": Setting("processes per job", "a whole number from 1, or None", _or_none(_is_count)),
    "timeout": Setting("seconds that an assignment may take", "seconds or None", _or_none(_is_seconds)),
    "backend": Setting("how assignments are shared out", "a backend", _is_a(Backend), DistributeBackend),
    "scheduler": Setting("who runs the jobs", "a scheduler, such as Slurm()", _is_a(Scheduler), Local),
    "scheduler_args": Setting("options for the scheduler", _OPTIONS, _is_options, {}),
    "merge_args": Setting("other options for the merge job", _OPTIONS, _is_options, {}),
    "prologue": Setting(
        "a shell script beside this file that jobs source", "a path or None", _or_none(_is_path)
    ),
    "python": Setting(
        "the Python that jobs run, relative to where psy runs", "a path", _is_path, sys.executable
    ),
    "overwrite_dirty": Setting(
        "whether an edit may evaluate finished rows again unasked",
        "True or False",
        lambda value: isinstance(value, bool),
        True,
    ),
}


def check_settings(source: Source, names: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the settings from the names that a task file and its psy-conf.py define, and check them.

    Parameters
    ----------
    source
        The captured sources, to say where a name stands.
    names
        Name -> value: what executing them left.

    Returns
    -------
    dict
        Name -> value for every setting, defaults filled in, classes of stores, schedulers and backends
        replaced by instances.

    Raises
    ------
    TaskFileError
        If a setting has a wrong type, or a name looks like a misspelt setting.
    """
    values = {}
    for name, setting in SETTINGS.items():
        value = names.get(name, setting.default)
        if isinstance(value, type) and name in ("store", "scheduler", "backend"):
            value = _instance(source, name, value)
        if name in names:
            _check(_file_of(source, name), name, value)
        values[name] = value
    return values


def _check(path: str, name: str, value: Any) -> None:
    if not SETTINGS[name].accepts(value):
        found = f"{_shorten(value)} ({type(value).__name__})"
        raise TaskFileError(f"{path}: {name} has to be {SETTINGS[name].expected}, not {found}")


def _file_of(source: Source, name: str) -> str:
    """Return the file that sets a name: psy-conf.py where the task file does not."""
    if source.conf is None or any(name in _bound_names(each) for each in _parse(source, source.task)):
        return source.task
    return source.conf


def _parse(source: Source, path: str) -> list[ast.stmt]:
    return ast.parse(source.files[path]).body


def _instance(source: Source, name: str, kind: type) -> Any:
    try:
        return kind()
    except Exception as error:
        raise TaskFileError(f"{source.task}: {name} = {kind.__name__} can't be created: {error}") from error


def check_text(source: Source) -> None:
    """Check what can be read off the text: misspelt settings, and the types of literals.

    Raises
    ------
    TaskFileError
        If a name that nothing reads looks like a misspelt setting, or a setting has a wrong type.
    """
    unread = {name for name in unread_names(source) if not name.startswith("_") and name not in SETTINGS}
    statements = [each for path in source.scripts for each in _parse(source, path)]
    bound = {name for each in statements for name in _bound_names(each)}
    for name in sorted(unread):
        near = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.8)
        if near and near[0] not in bound:
            path = _file_of(source, name)
            raise TaskFileError(f"{path}: {name!r} is not a setting; did you mean {near[0]!r}?")
    for path in source.scripts:
        for statement in _parse(source, path):
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in SETTINGS:
                    _check_literal(path, name, value)


def _check_literal(path: str, name: str, node: ast.expr) -> None:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):  # It is computed, or Python can't make it.
        return
    _check(path, name, value)


def _shorten(value: Any, limit: int = 60) -> str:
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    return text if len(text) <= limit else text[: limit - 3] + "..."


# ---------------------------------------------------------------------- read off the text

_OUTLINE = ("name", "workdir", "resultfile", "file_dep", "store", "exclude_from_result", "overwrite_dirty")


def literal_settings(source: Source) -> dict[str, Any] | None:
    """Read the settings that the graph needs off the syntax trees.

    Returns
    -------
    dict or None
        Name -> value where each is bound by one plain assignment of a literal (`store`: to its extension);
        None where the file has to be run to know.
    """
    values: dict[str, Any] = {}
    for path in source.scripts:
        try:
            values |= _literals(_parse(source, path))
        except (ValueError, TypeError):
            return None
    return values


_DYNAMIC = {"exec", "eval", "globals", "vars", "locals"}


def _literals(statements: Iterable[ast.stmt]) -> dict[str, Any]:
    """Raise ValueError where a setting is computed, or may be changed through another name."""
    found: dict[str, Any] = {}
    for statement in statements:
        names = {name for name in _touched_names(statement) if name in _OUTLINE or name == "*"}
        if not names:
            continue
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if names == {name} - found.keys():
                found[name] = _extension(value) if name == "store" else ast.literal_eval(value)
            case _:
                raise ValueError(f"line {statement.lineno}: {', '.join(names)} is computed")
    return found


def _touched_names(statement: ast.stmt) -> set[str]:
    """Return the names that a statement may bind or hand on at module level; '*' where it can't be told."""
    names = _bound_names(statement)
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return names
    read = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    return (names | read) - _comprehension_names(statement) | ({"*"} if read & _DYNAMIC else set())


def _comprehension_names(statement: ast.stmt) -> set[str]:
    """Return the names that comprehensions bind for themselves."""
    targets = [node.target for node in ast.walk(statement) if isinstance(node, ast.comprehension)]
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def _bound_names(statement: ast.stmt) -> set[str]:
    """Return the names that a statement may bind at module level."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name} | _globals_in(statement)
    names = set()
    for node in ast.walk(statement):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                names.add(name)
            case (
                ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name))
            ):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {(alias.asname or alias.name).partition(".")[0] for alias in aliases}
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
    return names


def _globals_in(function: ast.stmt) -> set[str]:
    return {name for node in ast.walk(function) if isinstance(node, ast.Global) for name in node.names}


def _extension(value: ast.expr) -> str:
    function = value.func if isinstance(value, ast.Call) else value
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name not in EXTENSIONS:
        raise ValueError(f"line {value.lineno}: the store is computed")
    return EXTENSIONS[name][0]
