"""Captured sources, running as a module."""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from psyrun.errors import PsyrunError, TaskFileError
from psyrun.source.modules import (
    CapturedLoader,
    LocalFinder,
    Place,
    captured_lines,
    is_editable,
    local_imports,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import ModuleType

    from psyrun.source.archive import Source


# What psyrun imports late, and what these import, comes first where a local module hides one of Python's own.
_NEEDED = (
    *("inspect", "pkgutil", "traceback", "numpy", "joblib", "cloudpickle"),
    *("psyrun.values", "psyrun.pspace.keys"),
    *("psyrun.workdir.inputs", "psyrun.workdir.journal", "psyrun.workdir.records", "psyrun.store.columns"),
)


@contextmanager
def loaded(source: Source, root: Path) -> Iterator[ModuleType]:
    """Run a task file as it was captured, as an import would, and return its module while the context lasts.

    Inside, the task folder is the working directory and first on `sys.path`, the project root is last; local
    modules are imported as they were captured, also later on; the module is in `sys.modules` under the stem
    of the file, so that its classes pickle by reference. On leaving, all of that is as before.

    Parameters
    ----------
    source
        The captured sources.
    root
        The project root on this machine.

    Raises
    ------
    TaskFileError
        If the file raises, be it ``SystemExit``; the original exception is its cause.
    """
    home = os.path.normpath(root.absolute())
    place = Place(root=home, folder=os.path.normpath(Path(home, source.task).parent))
    finder = LocalFinder(place=place, files=dict(source.files), modules=dict(source.modules))
    with run_scripts(source.task, source.conf, finder) as module:
        yield module


@contextmanager
def run_scripts(task: str, conf: str | None, finder: LocalFinder) -> Iterator[ModuleType]:
    """Run psy-conf.py and the task file in one namespace; local modules come from a finder. See `loaded`."""
    place, files = finder.place, finder.files
    name, path = task_module(task), place.locate(task, None)
    spec = importlib.machinery.ModuleSpec(name, CapturedLoader(name, path, files[task]), origin=path)
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    hidden = _hidden_modules(place, finder.modules)
    for each in _NEEDED if hidden else ():
        with contextlib.suppress(ImportError):
            importlib.import_module(each)
    lines = {place.locate(each, None): data for each, data in files.items() if not is_editable(each)}
    with (
        _working_in(place),
        captured_lines(lines),
        local_imports(finder, hidden),
        replaced_modules({name: module}),
    ):
        try:
            for each in (task,) if conf is None else (conf, task):
                module.__file__ = place.locate(each, None)
                _execute(files[each], module)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise TaskFileError(_explain(error, task, finder)) from error
        yield module


def _hidden_modules(place: Place, modules: Iterable[str]) -> set[str]:
    """Return the modules of Python that local ones hide, such as `queue`."""
    files = {each.partition(".")[0] for folder in (place.folder, place.root) for each in _list(folder)}
    return {*files, *modules} & sys.stdlib_module_names


def _list(folder: str) -> list[str]:
    with contextlib.suppress(OSError):
        return [
            each.name for each in Path(folder).iterdir() if each.name.endswith(".py") or "." not in each.name
        ]
    return []


def _execute(data: bytes, module: ModuleType) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        code = compile(data, str(module.__file__), "exec", dont_inherit=True)
    exec(code, vars(module))  # noqa: S102 - what it is for


def imported_modules(source: Source) -> dict[str, ModuleType]:
    """Return the task's module and its local modules, as far as they are imported: name -> module."""
    names = (task_module(source.task), *source.modules)
    return {name: sys.modules[name] for name in names if sys.modules.get(name) is not None}


@contextmanager
def replaced_modules(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """Replace modules, imported or not, while the context lasts; None makes one unimportable.

    Pickle can't refer to classes of unimportable modules. Their objects are pickled by value instead, so that
    the file can be read without the task file.
    """
    before = {name: sys.modules[name] for name in modules if name in sys.modules}
    sys.modules.update(modules)  # type: ignore[arg-type]  # None: can't be imported
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def task_module(task: str) -> str:
    """Return the name of a task file's module."""
    return PurePosixPath(task).stem.replace(".", "_")


@contextmanager
def _working_in(place: Place) -> Iterator[None]:
    path = list(sys.path)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(contextlib.chdir(place.folder))
        except OSError as error:
            raise TaskFileError(
                f"{place.folder}: {error.strerror}; a task runs in the folder of its file"
            ) from error
        stack.callback(sys.path.__setitem__, slice(None), path)
        sys.path[:] = [place.folder, *path, place.root]
        yield


def _explain(error: BaseException, task: str, finder: LocalFinder) -> str:
    """Return an error message: place in the user's files, exception, cure."""
    import traceback

    paths = {finder.place.locate(each, None): each for each in finder.files}
    message = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    cure = "correct it"
    if isinstance(error, PsyrunError):
        message = str(error)
    if isinstance(error, ImportError):
        cure = "install it for this Python, or correct the import"
    return f"{_place(error, paths) or task}: {message}; {cure}"


def _place(error: BaseException, paths: Mapping[str, str]) -> str | None:
    """Return file and line of the innermost frame in the user's files."""
    import traceback

    if isinstance(error, SyntaxError) and error.filename is not None and error.filename in paths:
        return f"{paths[error.filename]}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{paths[frame.filename]}:{frame.lineno}" for frame in frames if frame.filename in paths]
    return places[-1] if places else None
