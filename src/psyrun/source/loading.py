"""Captured sources, running as a module."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from psyrun.errors import PsyrunError, TaskFileError
from psyrun.source.modules import CapturedLoader, captured_imports, captured_lines
from psyrun.source.slices import slice_statements
from psyrun.source.syntax import parse

if TYPE_CHECKING:
    import ast
    from collections.abc import Collection, Iterator, Mapping
    from types import ModuleType

    from psyrun.source.capture import Source


@contextmanager
def loaded(source: Source, root: Path, part: Literal["whole", "code"] = "whole") -> Iterator[ModuleType]:
    """Run a task file as it was captured, and return its module; it can be used while the context lasts.

    Inside, the task folder is the working directory and first on `sys.path`, the project root is last; local
    modules are imported as they were captured, also later on; the module is in `sys.modules` under the stem
    of the file, so that its classes pickle by reference. On leaving, all of that is as before.

    Parameters
    ----------
    source
        The captured sources.
    root
        The project root on this machine.
    part
        ``code`` runs only the statements that `execute` and `setup` depend on.

    Raises
    ------
    TaskFileError
        If the file raises, be it ``SystemExit``; the original exception is its cause.
    """
    home = os.path.normpath(root.absolute())
    folder = os.path.normpath(Path(home, source.task).parent)
    name, path = _module_name(source), os.path.normpath(Path(home, source.task))
    module = _create_module(name, path, source.files[source.task])
    with (
        _working_in(folder, home),
        captured_lines(home, source.files),
        captured_imports(home, source.files, source.modules),
        replaced_modules({name: module}),
    ):
        try:
            _run(source, home, part, module)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise TaskFileError(_explain(error, source, home, part)) from error
        yield module


def imported_modules(source: Source) -> dict[str, ModuleType]:
    """Return the task's module and its local modules, as far as they are imported: name -> module."""
    names = (_module_name(source), *source.modules)
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


def _module_name(source: Source) -> str:
    return Path(source.task).stem.replace(".", "_")


@contextmanager
def _working_in(folder: str, root: str) -> Iterator[None]:
    path = list(sys.path)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(contextlib.chdir(folder))
        except OSError as error:
            raise TaskFileError(
                f"{folder}: {error.strerror}; a task runs in the folder of its file"
            ) from error
        stack.callback(sys.path.__setitem__, slice(None), path)
        sys.path[:] = [folder, *path, root]
        yield


def _create_module(name: str, path: str, data: bytes) -> ModuleType:
    """Create the task's module, empty."""
    spec = importlib.machinery.ModuleSpec(name, CapturedLoader(name, path, data), origin=path)
    spec.has_location = True
    return importlib.util.module_from_spec(spec)


def _run(source: Source, root: str, part: str, module: ModuleType) -> None:
    """Execute psy-conf.py and the task file in one namespace."""
    trees = {path: parse(source.files[path], path) for path in source.scripts}
    if part == "code":
        _keep_code(trees.values())
    for path, tree in trees.items():
        module.__file__ = os.path.normpath(Path(root, path))
        exec(compile(tree, module.__file__, "exec", dont_inherit=True), vars(module))  # noqa: S102 - what it is for


def _keep_code(trees: Collection[ast.Module]) -> None:
    statements = [statement for tree in trees for statement in tree.body]
    kept = {id(statements[index]) for index in slice_statements(statements).code}
    for tree in trees:
        tree.body = [statement for statement in tree.body if id(statement) in kept]


def _explain(error: BaseException, source: Source, root: str, part: str) -> str:
    """Return an error message: place in the user's files, exception, cure."""
    place = _place(error, {os.path.normpath(Path(root, path)): path for path in source.files}) or source.task
    message = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    cure = "correct it"
    if isinstance(error, PsyrunError):
        message = str(error)
    if isinstance(error, ImportError):
        cure = "install it for this Python, or correct the import"
    if part == "code" and isinstance(error, NameError):
        cure = (
            "children run only the statements that execute and setup depend on, and psyrun found none that"
            " binds this name for them; bind it by an assignment at the top level"
        )
    return f"{place}: {message}; {cure}"


def _place(error: BaseException, paths: Mapping[str, str]) -> str | None:
    """Return file and line of the innermost frame in the user's files."""
    if isinstance(error, SyntaxError) and error.filename is not None and error.filename in paths:
        return f"{paths[error.filename]}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{paths[frame.filename]}:{frame.lineno}" for frame in frames if frame.filename in paths]
    return places[-1] if places else None
