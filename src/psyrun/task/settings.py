"""Settings: the names with a meaning in a task file, checks of their values, and those read off the text."""

from __future__ import annotations

import ast
import difflib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psyrun.backend import Backend, DistributeBackend
from psyrun.errors import TaskFileError
from psyrun.scheduler import Local, Scheduler
from psyrun.source import parse, read_statements
from psyrun.store import EXTENSIONS, Store
from psyrun.values import describe_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Set

    from psyrun.source import Source


@dataclass(frozen=True, slots=True)
class Setting:
    """A name with a meaning in a task file.

    Parameters
    ----------
    meaning
        One line for the template.
    expected
        Description of its values, for messages.
    accepts
        Predicate of its values.
    default
        Value if the file does not set it.
    """

    meaning: str
    expected: str
    accepts: Callable[[Any], bool]
    default: Any = None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool)


def _is_allowance(value: Any) -> bool:
    if isinstance(value, float):
        return 0 <= value <= 1
    return isinstance(value, int) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike)) and bool(path := os.fspath(value)) and "\0" not in str(path)


def _is_options(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value))


def _or_none(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or accepts(value)


def _list_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (list, tuple)) and all(map(accepts, value))


def _is_space(value: Any) -> bool:
    names = ("build", "keys", "iterate", "__len__")
    return not isinstance(value, type) and all(hasattr(value, name) for name in names)


def _is_a(protocol: type) -> Callable[[Any], bool]:
    # isinstance accepts subclasses of the protocol that lack members.
    members = [name for name in {**protocol.__annotations__, **vars(protocol)} if not name.startswith("_")]
    return lambda value: all(hasattr(value, name) for name in members)


_SWITCH = "True or False"
_OPTIONS = "a dict of options with names (strings)"

SETTINGS: Mapping[str, Setting] = {
    "pspace": Setting("the parameter space to explore", "a parameter space built of Param(...)", _is_space),
    "execute": Setting("the function to evaluate, returns a dict", "a function", callable),
    "setup": Setting(
        "a function called once per process, with its number", "a function or None", _or_none(callable)
    ),
    "name": Setting("the task's name", "a name", _or_none(_is_text)),
    "file_dep": Setting("data files that the task reads", "a list of paths", _list_of(_is_path), ()),
    "workdir": Setting("folder of work folders", "a path", _is_path, "psy-work"),
    "resultfile": Setting("the result file, relative to this folder", "a path or None", _or_none(_is_path)),
    "store": Setting("how the result is stored", "a store, such as NpzStore()", _or_none(_is_a(Store))),
    "exclude_from_result": Setting("names that are not recorded", "a list of names", _list_of(_is_text), ()),
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
        "whether an edit may evaluate finished rows again unasked", _SWITCH, _is_switch, True
    ),
    "allow_failed": Setting(
        "how many rows of a finished result may have failed",
        "True, a whole number, or a share from 0.0 to 1.0",
        _is_allowance,
        False,
    ),
    "untracked": Setting(
        "files that rows may read without depending on them", "a list of paths", _list_of(_is_path), ()
    ),
    "stateless": Setting(
        "whether execute keeps nothing of what it read for later rows", _SWITCH, _is_switch, False
    ),
    "track_inputs": Setting(
        "whether rows depend on the files that they were seen to read", _SWITCH, _is_switch, True
    ),
}


def check_settings(source: Source, names: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the settings from the names that a task file and its psy-conf.py define, and check them.

    Parameters
    ----------
    source
        The captured sources, for messages.
    names
        Variables of the module that ran.

    Returns
    -------
    dict
        Name -> value for every setting, defaults filled in, classes of stores, schedulers and backends
        replaced by instances, paths by strings.

    Raises
    ------
    TaskFileError
        If a setting has a wrong type.
    """
    values = {}
    for name, setting in SETTINGS.items():
        value = names.get(name, setting.default)
        if isinstance(value, type) and name in ("store", "scheduler", "backend"):
            value = _instance(source, name, value)
        if name in names and not setting.accepts(value):
            raise _refusal(_file_of(source, name), name, value)
        values[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
    for name in ("file_dep", "untracked"):
        values[name] = [os.fspath(path) for path in values[name]]
    return values


def _instance(source: Source, name: str, kind: type) -> Any:
    try:
        return kind()
    except Exception as error:
        raise TaskFileError(f"{source.task}: {name} = {kind.__name__} can't be created: {error}") from error


def _refusal(path: str, name: str, value: Any) -> TaskFileError:
    found = describe_value(value, 60)
    return TaskFileError(f"{path}: {name} has to be {SETTINGS[name].expected}, not {found}")


# -- read off the text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    """A top-level statement, and names of the module; `bound` has also what it imports or declares global."""

    node: ast.stmt
    assigned: Set[str]
    bound: Set[str]
    read: Set[str]


def _statements(source: Source, path: str) -> Iterator[_Statement]:
    for each in read_statements([(path, parse(source.files[path], path))]):
        stars = {"*" for part in each.nodes if isinstance(part, ast.alias) and part.name == "*"}
        yield _Statement(
            node=each.node,
            assigned=each.binds - each.imports,
            bound=each.binds | each.declares | stars,
            read=each.reads,
        )


def _file_of(source: Source, name: str) -> str:
    """Return the file that sets a name: psy-conf.py if the task file does not."""
    if source.conf is None or any(name in each.bound for each in _statements(source, source.task)):
        return source.task
    return source.conf


def check_text(source: Source) -> None:
    """Check for misspelt settings, and types of literals, without running the file.

    Raises
    ------
    TaskFileError
        If a name that nothing reads looks like a misspelt setting, or a setting has a wrong type.
    """
    statements = {path: list(_statements(source, path)) for path in source.scripts}
    everything = [each for path in statements for each in statements[path]]
    assigned, bound, read = (
        {name for each in everything for name in getattr(each, names)}
        for names in ("assigned", "bound", "read")
    )
    for name in sorted(assigned - read - SETTINGS.keys()):
        near = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.8)
        could_be = near and all(_could_be(each.node, name, near[0]) for each in everything)
        if could_be and near[0] not in bound and not name.startswith("_"):
            path = _file_of(source, name)
            raise TaskFileError(f"{path}: {name!r} is not a setting; did you mean {near[0]!r}?")
    for path, each in statements.items():
        for statement in each:
            match statement.node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in SETTINGS:
                    _check_literal(path, name, value)


def _could_be(node: ast.stmt, name: str, setting: str) -> bool:
    """Tell whether the value that a statement gives a name could be that of a setting."""
    match node:
        case ast.Assign(targets=[ast.Name(id=given)], value=value) if given == name:
            try:
                return SETTINGS[setting].accepts(ast.literal_eval(value))
            except (ValueError, TypeError):
                return True
    return True


def _check_literal(path: str, name: str, node: ast.expr) -> None:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):  # It is computed, or Python can't make it.
        return
    if not SETTINGS[name].accepts(value):
        raise _refusal(path, name, value)


OUTLINE_NAMES = (
    *("name", "workdir", "resultfile", "file_dep", "exclude_from_result", "overwrite_dirty", "store"),
    *("stateless", "untracked", "track_inputs", "allow_failed"),
)
_OUTLINE = frozenset(OUTLINE_NAMES)
_ANY_NAME = {"exec", "eval", "globals", "vars", "locals", "*"}


def literal_settings(source: Source) -> dict[str, Any] | None:
    """Read the settings that the graph needs without running the file.

    Returns
    -------
    dict or None
        Name -> value where each is bound by one plain assignment of a literal (`store`: to its extension);
        None where the file has to be run to know.
    """
    values: dict[str, Any] = {}
    try:
        for path in source.scripts:
            values |= _literals(_statements(source, path))
    except (ValueError, TypeError):
        return None
    return values


def _literals(statements: Iterable[_Statement]) -> dict[str, Any]:
    """Raise ValueError if a setting is computed, or may be changed through another name."""
    found: dict[str, Any] = {}
    for each in statements:
        is_definition = isinstance(each.node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        names = (each.bound if is_definition else each.bound | each.read) & (_OUTLINE | _ANY_NAME)
        match each.node:
            case _ if not names:
                pass
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if (
                names == {name} & _OUTLINE - found.keys()
            ):
                found[name] = _extension(value) if name == "store" else ast.literal_eval(value)
            case _:
                raise ValueError(f"line {each.node.lineno}: {', '.join(names)} is computed")
    return found


def _extension(value: ast.expr) -> str:
    function = value.func if isinstance(value, ast.Call) else value
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name not in EXTENSIONS:
        raise ValueError(f"line {value.lineno}: the store is computed")
    return EXTENSIONS[name][0]
