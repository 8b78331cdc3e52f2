"""Edits of `sys.path` in the text of a task file, such as ``sys.path.insert(0, "../lib")``."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from psyrun.source.syntax import scopes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


# Stands for the task folder; deep, so that ".." does not leave it.
_FOLDER = "/psyrun" + "/folder" * 20
# fmt: off
_PATH_NAMES = frozenset({
    "path", "join", "dirname", "abspath", "realpath", "normpath", "getcwd", "pardir", "curdir",
    "Path", "cwd", "parent", "parents", "resolve", "absolute", "joinpath", "as_posix",
})
# fmt: on


def path_edits(statements: Iterable[ast.stmt]) -> list[tuple[int | None, str]]:
    """List the folders that top-level statements add to `sys.path`.

    Only literals, ``__file__``, the working directory (the task folder), and functions of ``os.path`` and
    ``pathlib`` of these are understood.

    Returns
    -------
    list of (int or None, str)
        Index (None: at the end) and folder, absolute or relative to the task folder.

    Examples
    --------
    >>> path_edits(ast.parse("sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'lib'))").body)
    [(0, '../lib')]
    """
    names: dict[str, Any] = dict(_NAMES)
    edits: list[tuple[int | None, str]] = []
    for statement in statements:
        for node in sorted(scopes_of(statement)[0].own, key=lambda node: getattr(node, "lineno", 0)):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    names[name] = _evaluate(value, names)
                case _:
                    found = ((index, _evaluate(value, names)) for index, value in _additions(node))
                    edits += [(i, _relative(folder)) for i, folder in found if isinstance(folder, str | Path)]
    return edits


def apply_edits(path: list[str], edits: Iterable[tuple[int | None, str]], folder: str) -> list[str]:
    """Return a search path with the folders that `path_edits` lists."""
    edited = list(path)
    for index, addition in edits:
        edited.insert(len(edited) if index is None else index, os.path.normpath(Path(folder, addition)))
    return edited


def _additions(node: ast.AST) -> Iterator[tuple[int | None, ast.expr]]:
    """Yield the folders that a node adds to `sys.path`, each with its index."""
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Attribute(value=ast.Name(id="sys"), attr="path"), attr=method),
            args=args,
        ):
            match method, args:
                case "append", [value]:
                    yield None, value
                case "insert", [ast.Constant(value=int(index)), value]:
                    yield index, value
                case "extend", [ast.List(elts=values) | ast.Tuple(elts=values)]:
                    yield from ((None, value) for value in values)
        case ast.AugAssign(
            target=ast.Attribute(value=ast.Name(id="sys"), attr="path"),
            value=ast.List(elts=values) | ast.Tuple(elts=values),
        ):
            yield from ((None, value) for value in values)


def _evaluate(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """Return the value of an expression of literals and path functions; None for other expressions."""
    try:
        return _value_of(node, names)
    except Exception:
        return None


def _value_of(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=str() | int() as value):
            return value
        case ast.Name(id=name):
            return names[name]
        case ast.Attribute(value=inside, attr=name) if name in _PATH_NAMES:
            return getattr(_value_of(inside, names), name)
        case ast.Call(func=function, args=args, keywords=[]):
            return _value_of(function, names)(*[_value_of(each, names) for each in args])
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _value_of(left, names) / _value_of(right, names)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value_of(left, names) + _value_of(right, names)
        case ast.Subscript(value=inside, slice=index):
            return _value_of(inside, names)[_value_of(index, names)]
    raise LookupError(ast.dump(node))


def _absolute(path: str | Path) -> str:
    return os.path.normpath(Path(_FOLDER, path))


def _path(*parts: Any) -> Path:
    return Path(_FOLDER, *parts)


def _relative(folder: str | Path) -> str:
    absolute = _absolute(folder)
    return os.path.relpath(absolute, _FOLDER) if Path(absolute).is_relative_to("/psyrun") else absolute


_OS_PATH = SimpleNamespace(
    join=os.path.join,
    dirname=os.path.dirname,
    abspath=_absolute,
    realpath=_absolute,
    normpath=os.path.normpath,
    pardir=os.pardir,
)
_NAMES = {
    "__file__": f"{_FOLDER}/task.py",
    "os": SimpleNamespace(path=_OS_PATH, getcwd=lambda: _FOLDER, pardir=os.pardir, curdir=os.curdir),
    "Path": _path,
    "pathlib": SimpleNamespace(Path=_path),
    "str": str,
    "join": os.path.join,
    "dirname": os.path.dirname,
    "abspath": _absolute,
}
