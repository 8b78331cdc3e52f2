"""Syntax trees: parsing, digests that are equal on every Python, imports, and names bound and read."""

from __future__ import annotations

import ast
import hashlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from psyrun.errors import TaskFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


Kind: TypeAlias = Literal["variable", "function", "class", "module"]

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Inner: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef

_DOCUMENTED = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_IGNORED_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_ignores"})


def parse(data: bytes, name: str) -> ast.Module:
    """Parse the bytes of a source file, its encoding as the file declares it.

    Raises
    ------
    TaskFileError
        Where this Python can't read the file; the message begins with ``name:line``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            return ast.parse(data, filename=name)
    except SyntaxError as error:
        place = f"{name}:{error.lineno}" if error.lineno else name
        raise TaskFileError(f"{place}: {error.msg}; correct it, until then the task is left alone") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise TaskFileError(f"{name}: {error}; correct it, until then the task is left alone") from error


def is_text(statement: ast.stmt) -> bool:
    """Tell a docstring, or another statement that is nothing but a literal."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


# -- digests


def digest(tree: ast.AST) -> str:
    """Digest a tree: 64 hexadecimal characters, equal on every Python from 3.11.

    Comments, formatting, docstrings and line numbers are no part of it.

    Examples
    --------
    >>> one, other = ast.parse("x = f'{a}b'  # why"), ast.parse("x = (f'{a}' 'b')")
    >>> digest(one) == digest(other)
    True
    """
    parts: list[str] = []
    stack: list[ast.AST | str] = [tree]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            parts.append(item)
        else:
            stack.extend(reversed(_serialize(item)))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _serialize(node: ast.AST) -> list[ast.AST | str]:
    """Return the class name and non-empty fields of a node, child nodes as they are."""
    parts: list[ast.AST | str] = [f"({type(node).__name__}"]
    for name in node._fields:
        value = _content(node, name)
        if name in _IGNORED_FIELDS or value is None or value == []:
            continue
        items = value if isinstance(value, list) else [value]
        parts.append(f" {name}:{len(items)}=" if isinstance(value, list) else f" {name}=")
        parts.extend(item if isinstance(item, ast.AST) else _serialize_value(item) for item in items)
    parts.append(")")
    return parts


def _serialize_value(value: object) -> str:
    # Decimal digits of a huge int raise ValueError.
    text = hex(value) if type(value) is int else ascii(value)
    return f"{type(value).__name__} {text},"


def _content(node: ast.AST, field: str) -> object:
    """Return a field without docstring, literals of f-strings joined (3.12 splits them differently)."""
    value = getattr(node, field, None)
    if field == "body" and isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
        return node.body[1:]
    if field == "values" and isinstance(node, ast.JoinedStr):
        return _join_literals(node.values)
    return value


def _join_literals(parts: Sequence[ast.expr]) -> list[ast.expr]:
    joined: list[ast.expr] = []
    for part in parts:
        if not (isinstance(part, ast.Constant) and isinstance(part.value, str)):
            joined.append(part)
        elif joined and isinstance(last := joined[-1], ast.Constant) and isinstance(last.value, str):
            joined[-1] = ast.Constant(value=last.value + part.value)
        elif part.value:
            joined.append(part)
    return joined


# -- imports


def imported_names(trees: Iterable[ast.AST]) -> list[str]:
    r"""List the modules that trees may import, relative names with their leading dots.

    Examples
    --------
    >>> imported_names([ast.parse("import a.b\nfrom .c import d")])
    ['.c', '.c.d', 'a.b']
    """
    names: set[str] = set()
    for tree in trees:
        for node in ast.walk(tree):
            match node:
                case ast.Import():
                    names.update(alias.name for alias in node.names)
                case ast.ImportFrom():
                    module = "." * node.level + (node.module or "")
                    names.add(module)
                    glue = "." if node.module else ""
                    names.update(f"{module}{glue}{alias.name}" for alias in node.names if alias.name != "*")
                case ast.Call(
                    func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                    args=[ast.Constant(value=str(name)), *_],
                ) if name:
                    names.add(name)
    return sorted(names)


def exported_names(tree: ast.Module) -> list[str]:
    """List the names in the ``__all__`` of a package; star imports load submodules among them."""
    exported: set[str] = set()
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.AugAssign(target=ast.Name(id="__all__")):
                parts = [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
                exported.update(part for part in parts if isinstance(part, str) and part.isidentifier())
    return sorted(exported)


# -- names


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Code that shares one set of local variables.

    Attributes
    ----------
    own
        Its nodes, without the bodies of functions and classes inside and without variables of comprehensions.
    hidden
        Names of local variables of functions, which hide variables of the module.
    runs_now
        Whether it runs with the statement, not when a function is called.
    """

    own: tuple[ast.AST, ...]
    hidden: frozenset[str] = frozenset()
    runs_now: bool = True

    def free_names(self) -> Iterator[ast.Name]:
        """Yield the places where this scope reads variables of the module."""
        updated = {id(node.target) for node in self.own if isinstance(node, ast.AugAssign)}
        for node in self.own:
            if not isinstance(node, ast.Name) or node.id in self.hidden:
                continue
            if isinstance(node.ctx, ast.Load) or id(node) in updated:
                yield node


def scopes_of(statement: ast.stmt) -> list[Scope]:
    """List the scopes of a top-level statement: its own one first, then functions and classes inside."""
    passing = _comprehension_variables(statement)
    found: list[Scope] = []
    todo: list[tuple[Sequence[ast.AST], _Inner | None, frozenset[str], bool]] = [
        ([statement], None, frozenset(), True)
    ]
    while todo:
        roots, owner, hidden, runs_now = todo.pop()
        nodes, inner = _split(roots)
        own = tuple(node for node in nodes if id(node) not in passing)
        if isinstance(owner, _Function):
            hidden = _hide(owner, own, hidden)
        found.append(Scope(own=own, hidden=hidden, runs_now=runs_now))
        for node in inner:
            body = [node.body] if isinstance(node, ast.Lambda) else node.body
            todo.append((body, node, hidden, runs_now and isinstance(node, ast.ClassDef)))
    return found


def bound_names(own: Iterable[ast.AST]) -> Iterator[tuple[str, Kind]]:
    """Yield the names that nodes of one scope bind or delete, each with the kind of its value."""
    for node in own:
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name, "variable"
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, "function"
            case ast.ClassDef(name=name):
                yield name, "class"
            case ast.alias(name=name, asname=given) if name != "*":
                yield given or name.partition(".")[0], "module"
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
                | ast.MatchMapping(rest=str(name))
            ):
                yield name, "variable"


def _split(roots: Iterable[ast.AST]) -> tuple[list[ast.AST], list[_Inner]]:
    """Return the nodes below roots that run in this scope, and the functions and classes among them."""
    own: list[ast.AST] = []
    inner: list[_Inner] = []
    stack = list(roots)
    while stack:
        node = stack.pop()
        own.append(node)
        if isinstance(node, _Inner):
            inner.append(node)
            stack.extend(_evaluated_outside(node))
        else:
            stack.extend(ast.iter_child_nodes(node))
    return own, inner


def _evaluated_outside(node: _Inner) -> list[ast.AST]:
    """Return the children of a function or class that are evaluated outside of its body."""
    body = {id(child) for child in ([node.body] if isinstance(node, ast.Lambda) else node.body)}
    return [child for child in ast.iter_child_nodes(node) if id(child) not in body]


def _hide(function: _Function, own: Sequence[ast.AST], outer: frozenset[str]) -> frozenset[str]:
    """Return the local variables of a function and of functions around it."""
    declared: dict[type, set[str]] = {ast.Global: set(), ast.Nonlocal: set()}
    for node in own:
        if isinstance(node, ast.Global | ast.Nonlocal):
            declared[type(node)].update(node.names)
    local = {each.arg for each in ast.iter_child_nodes(function.args) if isinstance(each, ast.arg)}
    local |= {parameter.name for parameter in getattr(function, "type_params", [])}
    local |= {name for name, _ in bound_names(own)} - declared[ast.Nonlocal]
    return (outer | local) - declared[ast.Global]


def _comprehension_variables(tree: ast.AST) -> set[int]:
    """Return the ids of nodes that are variables of a comprehension."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, _COMPREHENSIONS):
            first = {id(inside) for inside in ast.walk(node.generators[0].iter)}
            names = {
                part.id
                for generator in node.generators
                for part in ast.walk(generator.target)
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
            }
            found.update(
                id(part)
                for part in ast.walk(node)
                if isinstance(part, ast.Name) and part.id in names and id(part) not in first
            )
    return found
