"""Effects of code besides binding names, and aliases, as its text shows them."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping


# fmt: off
_MESSAGES = frozenset({"print", "pprint", "exit", "quit"})
_MESSAGE_METHODS = frozenset({
    "debug", "info", "warning", "warn", "error", "critical", "exception", "log", "exit",
})
_CONTAINER_METHODS = frozenset({
    "append", "extend", "add", "insert", "update", "remove", "discard", "pop", "popitem", "clear", "sort",
    "reverse", "setdefault", "appendleft", "extendleft", "popleft",
})
# Methods that may return their object, or parts of it.
_PASSING_METHODS = frozenset({"asarray", "get", "items", "ravel", "reshape", "setdefault", "values", "view"})
# Modules whose functions are pure, unless the name says otherwise: `set_printoptions`, `seed`.
_PURE_MODULES = frozenset({
    "collections", "copy", "dataclasses", "decimal", "fractions", "functools", "itertools", "math", "numpy",
    "operator", "pandas", "pathlib", "psyrun", "scipy", "statistics",
})
# fmt: on
_IMMUTABLE = (
    ast.Constant,
    ast.Tuple,
    ast.UnaryOp,
    ast.BinOp,
    ast.operator,
    ast.unaryop,
    ast.JoinedStr,
    ast.FormattedValue,
    ast.expr_context,
)
_SETTER = re.compile(r"(?:^|_)(?:set|seed)|seed$")

_Manner: TypeAlias = Literal["called", "changed", "updated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A place where an object changes.

    Attributes
    ----------
    root
        The name at its root; None if it has none, so that the object is unknown.
    how
        ``called``: the root itself is called. ``changed``: the object at the root changes. ``updated``: the
        object changes if it is a variable of the file, not if it is a module or function.
    arguments
        Names in the arguments; their objects may change too.
    """

    root: str | None
    how: _Manner
    arguments: frozenset[str] = frozenset()


def changes_of(own: Iterable[ast.AST], variables: Collection[str]) -> Iterator[Change]:
    """Yield the changes that nodes of one scope make."""
    for node in own:
        match node:
            case ast.Expr(value=ast.Call() as call):
                yield from _bare_call(call, variables)
            case ast.Expr(value=value) if any(_may_mutate(part) for part in ast.walk(value)):
                yield Change(root=None, how="changed")
            case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
                yield Change(root=root_of(node), how="changed")
            case ast.AugAssign(target=ast.Name(id=name)) | ast.Name(id=name, ctx=ast.Del()):
                yield Change(root=name, how="updated")
            case ast.Call(func=ast.Attribute(attr=method) as func) if method in _CONTAINER_METHODS:
                yield Change(root=root_of(func), how="updated")
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield from (Change(root=root_of(used), how="updated") for used in node.decorator_list)


def _bare_call(call: ast.Call, variables: Collection[str]) -> Iterator[Change]:
    if not _may_mutate(call):
        return
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    passed = frozenset(name for value in values for name in _aliases_of(value, variables))
    match call.func:
        case ast.Name(id=name):
            yield Change(root=name, how="called", arguments=passed)
        case ast.Attribute(attr=method) if method in _CONTAINER_METHODS:
            yield Change(root=root_of(call), how="changed")
        case _:
            yield Change(root=root_of(call), how="changed", arguments=passed)


def _may_mutate(node: ast.AST) -> bool:
    """Tell whether a node is a call or await that may change something; messages to the user do not."""
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name not in _MESSAGES
        case ast.Call(func=ast.Attribute(attr=method)):
            return method not in _MESSAGE_METHODS
    return isinstance(node, ast.Call | ast.Await)


def is_pure(function: ast.expr, module: str) -> bool:
    """Tell whether a function of an imported module has no effects, by a list of modules."""
    words = [part.attr for part in ast.walk(function) if isinstance(part, ast.Attribute)]
    words += [part.id for part in ast.walk(function) if isinstance(part, ast.Name)]
    return module.partition(".")[0] in _PURE_MODULES and not any(_SETTER.search(word) for word in words)


def root_of(node: ast.AST) -> str | None:
    """Return the variable at the root of an expression: `xs` in ``xs[0].f(1).y``.

    Examples
    --------
    >>> root_of(ast.parse("np.random.seed(0)", mode="eval").body)
    'np'
    """
    while True:
        match node:
            case ast.Attribute(value=inside) | ast.Subscript(value=inside) | ast.Starred(value=inside):
                node = inside
            case ast.Call(func=inside) | ast.Await(value=inside):
                node = inside
            case ast.Name(id=name):
                return name
            case _:
                return None


# -- aliases


def alias_map(own: Iterable[ast.AST], variables: Collection[str]) -> dict[str, set[str]]:
    """Map the names that nodes of a scope bind to the names whose objects they may share.

    An assignment shares through names, attributes, items, displays and conditions, not through calls: `f(xs)`
    is taken for a new object. Loops and `with` share through calls too: ``zip(xs, ys)`` has elements of `xs`.
    """
    shared: dict[str, set[str]] = {}
    for node in own:
        for target, value, through_calls in _bindings(node):
            names = set(_aliases_of(value, variables, through_calls=through_calls))
            for part in ast.walk(target):
                if (name := _bound_here(part)) is not None:
                    shared.setdefault(name, set()).update(names - {name})
    return shared


def _bindings(node: ast.AST) -> Iterator[tuple[ast.AST, ast.expr, bool]]:
    """Yield target, value, and whether the target may be an element of arguments of calls in the value."""
    match node:
        case ast.Assign(targets=targets, value=value):
            yield from ((target, value, False) for target in targets)
        case (
            ast.AnnAssign(target=target, value=ast.expr() as value)
            | ast.NamedExpr(target=target, value=value)
        ):
            yield target, value, False
        case ast.For() | ast.AsyncFor() | ast.comprehension():
            yield node.target, node.iter, True
        case ast.withitem(context_expr=value, optional_vars=ast.expr() as target):
            yield target, value, True
        case ast.Match(subject=value, cases=cases):
            yield from ((case.pattern, value, True) for case in cases)


def _bound_here(part: ast.AST) -> str | None:
    match part:
        case ast.Name(id=name, ctx=ast.Store()) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return name
    return None


def _aliases_of(value: ast.expr, variables: Collection[str], *, through_calls: bool = False) -> Iterator[str]:
    """Yield the names whose objects, or parts of them, an expression may be or contain."""
    stack: list[ast.AST] = [value]
    while stack:
        node = stack.pop()
        match node:
            case ast.Name(id=name):
                yield name
            case ast.Subscript(value=inside):
                stack.append(inside)
            case ast.Compare() | ast.BinOp() | ast.UnaryOp() | ast.Lambda() | ast.JoinedStr():
                pass
            case ast.IfExp(body=body, orelse=orelse):
                stack += [body, orelse]
            case ast.Call():
                passes = isinstance(node.func, ast.Attribute) and node.func.attr in _PASSING_METHODS
                root = root_of(node.func)
                if passes and root is not None and root in variables:
                    yield root
                if through_calls or passes:
                    stack += [*node.args, *(keyword.value for keyword in node.keywords)]
            case _:
                stack.extend(ast.iter_child_nodes(node))


def close_over(names: Iterable[str], shared: Mapping[str, Iterable[str]]) -> set[str]:
    """Return names and those whose objects they may share, transitively."""
    found: set[str] = set()
    todo = set(names)
    while todo:
        found.add(name := todo.pop())
        todo.update(set(shared.get(name, ())) - found)
    return found


def constants_of(own: Iterable[ast.AST]) -> set[str]:
    """Return the variables of a scope that are bound to numbers, strings and tuples of them only."""
    stored: dict[str, list[ast.AST]] = {}
    plain: set[int] = set()
    for node in own:
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                stored.setdefault(name, []).append(node)
            case ast.Assign(targets=targets, value=value) if _is_immutable(value):
                plain.update(id(target) for target in targets)
            case ast.AnnAssign(target=target, value=ast.expr() as value) if _is_immutable(value):
                plain.add(id(target))
    return {name for name, places in stored.items() if all(id(place) in plain for place in places)}


def _is_immutable(value: ast.expr) -> bool:
    return all(isinstance(part, _IMMUTABLE) for part in ast.walk(value))
