"""Syntax trees: parsing, and the names that a top-level statement binds and reads."""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from psyrun.errors import TaskFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
SCOPES: Final = (*FUNCTIONS, ast.Lambda, ast.ClassDef)

_BINDING = (
    *(ast.Name, ast.alias, *FUNCTIONS, ast.ClassDef, ast.ExceptHandler, ast.Global, ast.Nonlocal),
    *(ast.MatchAs, ast.MatchStar, ast.MatchMapping),
)

_Inner: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
_Comprehension: TypeAlias = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_Place: TypeAlias = Literal["module", "class", "function"]
_Part: TypeAlias = tuple[ast.AST, frozenset[str], _Place]


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


@dataclass(slots=True, kw_only=True, eq=False)
class Statement:
    """A top-level statement: its nodes, and the names of its module in them.

    Attributes
    ----------
    node, path
        The statement, and its file.
    nodes
        Nodes that may run: no docstrings, and no bodies of ``if __name__ == "__main__"``.
    names
        Names of the module, read or bound.
    binds, imports
        Names that it binds when it runs; those of them that are imported.
    declares
        Names that functions in it declare global.
    imported, later
        Import statements in it; those of them inside functions.
    in_class
        Ids of names directly in the body of a class.
    skipped
        Ids of each `if` whose body never runs.
    """

    node: ast.stmt
    path: str
    nodes: list[ast.AST] = field(default_factory=list)
    names: list[ast.Name] = field(default_factory=list)
    binds: set[str] = field(default_factory=set)
    imports: set[str] = field(default_factory=set)
    declares: set[str] = field(default_factory=set)
    imported: list[ast.Import | ast.ImportFrom] = field(default_factory=list)
    later: list[ast.Import | ast.ImportFrom] = field(default_factory=list)
    in_class: set[int] = field(default_factory=set)
    skipped: set[int] = field(default_factory=set)

    @property
    def reads(self) -> set[str]:
        """Names of the module that it reads."""
        updated = {id(node.target) for node in self.nodes if isinstance(node, ast.AugAssign)}
        return {name.id for name in self.names if isinstance(name.ctx, ast.Load) or id(name) in updated}


def read_statements(trees: Iterable[tuple[str, ast.Module]]) -> list[Statement]:
    r"""Read the top-level statements of files that run in one namespace.

    Examples
    --------
    >>> [one] = read_statements([("a.py", ast.parse("def f(x):\n    return x + y"))])
    >>> one.binds, one.reads
    ({'f'}, {'y'})
    """
    found = [Statement(node=node, path=path) for path, tree in trees for node in tree.body]
    rebound: set[str] = set()
    for each in found:
        each.binds, each.imports = bind_names([each.node])
        rebound |= each.binds - _typing(each.node)
    for each in found:
        _read(each, rebound)
    return found


def _typing(node: ast.stmt) -> set[str]:
    """Return the names that an import of `typing` binds."""
    match node:
        case ast.Import(names=[ast.alias(name="typing", asname=None)]):
            return {"typing"}
        case ast.ImportFrom(module="typing", level=0, names=aliases):
            return {each.name for each in aliases if each.asname is None}
    return set()


def _is_skipped(test: ast.expr, rebound: Iterable[str]) -> bool:
    """Tell whether the body of an ``if`` never runs: ``__name__ == "__main__"``, ``TYPE_CHECKING``."""
    match test:
        case ast.Compare(
            left=ast.Name(id="__name__" as name),
            ops=[ast.Eq()],
            comparators=[ast.Constant(value="__main__")],
        ):
            return name not in rebound
        case ast.Name(id="TYPE_CHECKING" as name):
            return name not in rebound
        case ast.Attribute(value=ast.Name(id="typing" as name), attr="TYPE_CHECKING"):
            return name not in rebound
    return False


def _read(statement: Statement, rebound: set[str]) -> None:
    """Visit the nodes of a statement, each once."""
    stack: list[_Part] = [(statement.node, frozenset(), "module")]
    while stack:
        node, hidden, place = stack.pop()
        statement.nodes.append(node)
        if isinstance(node, ast.Name):
            if node.id not in hidden:
                statement.names.append(node)
            if place == "class":
                statement.in_class.add(id(node))
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            statement.imported.append(node)
            if place == "function":
                statement.later.append(node)
        elif isinstance(node, ast.Global):
            statement.declares.update(node.names)
        elif isinstance(node, ast.If) and _is_skipped(node.test, hidden | rebound):
            statement.skipped.add(id(node))
            stack += [(child, hidden, place) for child in (*reversed(node.orelse), node.test)]
            continue
        stack.extend(reversed(_parts(node, hidden, place)))


def _parts(node: ast.AST, hidden: frozenset[str], place: _Place) -> list[_Part]:
    """Return the children of a node that may run, each with the variables of functions around it."""
    if isinstance(node, SCOPES):
        return _inner_parts(node, hidden, place)
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return _comprehension_parts(node, hidden, place)
    if isinstance(node, ast.With) and place == "module":
        hidden |= _own_names(node)
    return [(child, hidden, place) for child in ast.iter_child_nodes(node)]


def _own_names(node: ast.With) -> set[str]:
    """Return the names of files in a `with`, where its body reads no others of these names."""
    if any(isinstance(part, (*SCOPES, ast.GeneratorExp)) for part in ast.walk(node)):
        return set()
    targets = [item.optional_vars for item in node.items]
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    before = {
        part.id for item in node.items for part in ast.walk(item.context_expr) if isinstance(part, ast.Name)
    }
    return names - before - bind_names(node.body)[0]


def _inner_parts(node: _Inner, hidden: frozenset[str], place: _Place) -> list[_Part]:
    hidden |= {each.name for each in getattr(node, "type_params", ())}
    body = body_of(node)
    inside = {id(child) for child in ([node.body] if isinstance(node, ast.Lambda) else node.body)}
    parts = [(child, hidden, place) for child in ast.iter_child_nodes(node) if id(child) not in inside]
    if isinstance(node, ast.ClassDef):
        return [*parts, *((child, hidden, "class") for child in body)]
    declared: dict[type, set[str]] = {ast.Global: set(), ast.Nonlocal: set()}
    own = bind_names(body, declared)[0] - declared[ast.Nonlocal]
    within = (hidden | parameters(node.args) | own) - declared[ast.Global]
    return [*parts, *((child, within, "function") for child in body)]


def _comprehension_parts(node: _Comprehension, hidden: frozenset[str], place: _Place) -> list[_Part]:
    within = hidden | {
        part.id
        for each in node.generators
        for part in ast.walk(each.target)
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
    }
    values = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
    parts: list[_Part] = [(value, within, place) for value in values]
    for number, each in enumerate(node.generators):
        parts.append((each.iter, within if number else hidden, place))
        parts += [(child, within, place) for child in (each.target, *each.ifs)]
    return parts


def assigned_value(node: ast.stmt) -> ast.expr | None:
    """Return what an assignment to a single name assigns; None for another statement."""
    match node:
        case ast.Assign(targets=[ast.Name()], value=value):
            return value
        case ast.AnnAssign(target=ast.Name()):
            return node.value
    return None


def body_of(node: _Inner) -> Sequence[ast.AST]:
    """Return the body of a function or class, without docstring."""
    if isinstance(node, ast.Lambda):
        return [node.body]
    return node.body if ast.get_docstring(node, clean=False) is None else node.body[1:]


def parameters(arguments: ast.arguments) -> set[str]:
    """Return the names of the parameters of a function."""
    return {each.arg for each in ast.iter_child_nodes(arguments) if isinstance(each, ast.arg)}


def bind_names(
    nodes: Iterable[ast.AST], declared: dict[type, set[str]] | None = None
) -> tuple[set[str], set[str]]:
    """Return the names that nodes of one scope bind or delete, and those of them that are imported.

    Names that they declare global or nonlocal are added to `declared`.
    """
    names: set[str] = set()
    imports: set[str] = set()
    for node in _scope_nodes(nodes):
        if not isinstance(node, _BINDING):
            continue
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                names.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.alias(name=name, asname=given) if name != "*":
                imports.add(given or name.partition(".")[0])
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
                | ast.MatchMapping(rest=str(name))
            ):
                names.add(name)
            case ast.Global(names=others) | ast.Nonlocal(names=others) if declared is not None:
                declared[type(node)].update(others)
    return names | imports, imports


def _scope_nodes(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield nodes and those below them, without the bodies of functions, classes and comprehensions."""
    stack = list(nodes)
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, SCOPES):
            inside = set(map(id, node.body if isinstance(node.body, list) else [node.body]))
            stack += [child for child in ast.iter_child_nodes(node) if id(child) not in inside]
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            # Its variables are its own, but not those of walruses in it.
            stack += [part.target for part in ast.walk(node) if isinstance(part, ast.NamedExpr)]
        else:
            stack.extend(ast.iter_child_nodes(node))
