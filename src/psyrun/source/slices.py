"""Slices of a task file: the top-level statements that values of `execute`, or the space, depend on.

Two backward slices by name. A statement is in a slice if it binds or changes a name that the slice reaches;
the slice then reaches the names that the statement reads. A compound statement is one unit: it binds
everything bound inside and reads everything read inside. A few rules tell what a statement changes beyond the
names that it binds:

- A bare call, an assignment to an attribute or item, ``del x[...]`` and ``x += ...`` change the variable at
  their root and those that it is an alias of (`a = xs`). A bare call also changes the variables among its
  arguments, except where it is a method of containers.
- If the root is a module, function or class, the change is unknown: the statement is in both slices. So is a
  statement that binds a name which no statement reads to a call with possible side effects
  (`_ = torch.manual_seed(0)`).
- A statement that may call a function of the file changes the variables that the function changes.
- ``print``, ``assert``, messages of loggers and ``if __name__ == "__main__"`` change nothing.

Children execute the `code` slice only, so that no value depends on a statement that the digest leaves out; a
slice that is too small fails with a NameError. A class that the space reaches and a function that it names
without calling it are in `code` too, since a parameter may be one, pickled by reference.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psyrun.source.effects import Change, alias_map, changes_of, close_over, constants_of, is_pure, root_of
from psyrun.source.syntax import Kind, Scope, bound_names, is_text, scopes_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence


# fmt: off
SETTING_NAMES = frozenset({
    "pspace", "execute", "setup", "backend", "scheduler", "scheduler_args", "store", "workdir", "resultfile",
    "file_dep", "max_jobs", "min_items", "pool_size", "exclude_from_result", "python", "overwrite_dirty",
    "name", "timeout", "prologue", "merge_args",
})
_CLASS_MAKERS = frozenset({
    "namedtuple", "NamedTuple", "TypedDict", "NewType", "Enum", "IntEnum", "StrEnum", "Flag", "IntFlag",
    "make_dataclass", "new_class", "type",
})
# fmt: on
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """Two slices of a list of top-level statements.

    Attributes
    ----------
    code, space
        Indices of the statements in each slice.
    """

    code: frozenset[int]
    space: frozenset[int]


def slice_statements(body: Sequence[ast.stmt]) -> Slices:
    r"""Slice the statements of psy-conf.py and the task file, as one list.

    Examples
    --------
    >>> slices = slice_statements(ast.parse("N = 5\npspace = Param(n=range(N))\ndef execute(n): ...").body)
    >>> sorted(slices.code), sorted(slices.space)
    ([2], [0, 1])
    """
    statements = [_read(node) for node in body]
    names = _collect_names(statements)
    space = code = frozenset(i for i, node in enumerate(body) if not is_text(node))
    if not _needs_whole(statements, names):
        slicer = _Slicer.prepare(statements, names)
        space = slicer.reach({"pspace"})
        code = slicer.reach({"execute", "setup"} | _possible_values(statements, space, names))
    return Slices(code=code, space=space)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    """A top-level statement; `named` are the names in `reads` that it does more with than call."""

    node: ast.stmt
    scopes: list[Scope]
    binds: frozenset[tuple[str, Kind]]
    reads: frozenset[str]
    named: frozenset[str]
    never_runs: bool

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.binds}

    @property
    def later(self) -> list[Scope]:
        """Bodies of functions and lambdas."""
        return [scope for scope in self.scopes if not scope.runs_now]

    @property
    def now(self) -> list[ast.AST]:
        """Nodes that run when the statement runs, bodies of classes included."""
        return [node for scope in self.scopes if scope.runs_now for node in scope.own]


def _read(node: ast.stmt) -> _Statement:
    scopes = scopes_of(node)
    called = {id(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
    occurrences = [name for scope in scopes for name in scope.free_names()]
    return _Statement(
        node=node,
        scopes=scopes,
        binds=frozenset(bound_names(scopes[0].own)),
        reads=frozenset(name.id for name in occurrences),
        named=frozenset(name.id for name in occurrences if id(name) not in called),
        never_runs=_is_main_block(node),
    )


def _is_main_block(node: ast.stmt) -> bool:
    match node:
        case ast.If(test=ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]), orelse=[]):
            sides = [left, right]
            return any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides) and any(
                isinstance(side, ast.Constant) and side.value == "__main__" for side in sides
            )
    return False


# -- names of the whole file


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """Names of the file by kind; `shared` maps them to names whose objects they may share."""

    variables: frozenset[str]
    functions: frozenset[str]
    classes: frozenset[str]
    origins: Mapping[str, str]
    constants: frozenset[str]
    shared: Mapping[str, Iterable[str]]


def _collect_names(statements: Sequence[_Statement]) -> _Names:
    kinds: dict[Kind, set[str]] = {"variable": set(), "function": set(), "class": set(), "module": set()}
    for statement in statements:
        for name, kind in statement.binds:
            kinds[kind].add(name)
    own = [node for statement in statements for node in statement.scopes[0].own]
    variables = kinds["variable"] - kinds["function"] - kinds["class"] - kinds["module"]
    return _Names(
        variables=frozenset(variables),
        functions=frozenset(kinds["function"]),
        classes=frozenset(kinds["class"] | set(_made_classes(own))),
        origins=dict(_origins(own)),
        constants=frozenset(constants_of(own)),
        shared=alias_map(own, variables),
    )


def _made_classes(own: Iterable[ast.AST]) -> Iterator[str]:
    """Yield names bound like ``Point = namedtuple(...)``."""
    for node in own:
        match node:
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Call(func=ast.Name(id=maker) | ast.Attribute(attr=maker)),
            ) if maker in _CLASS_MAKERS:
                yield name


def _origins(own: Iterable[ast.AST]) -> Iterator[tuple[str, str]]:
    """Yield imported names, each with its module."""
    for node in own:
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else None
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0], alias.name if module is None else module


def _needs_whole(statements: Iterable[_Statement], names: _Names) -> bool:
    """Tell whether names may be read or bound in ways that the text does not show."""
    known = names.variables | names.functions | names.classes | set(names.origins)
    return any(
        ({"exec", "eval", "globals"} - known) & statement.reads or any(map(_shows_namespace, statement.now))
        for statement in statements
    )


def _shows_namespace(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="vars" | "locals"), args=[]):
            return True
        case ast.ImportFrom(names=[ast.alias(name="*")]):
            return True
    return False


def _possible_values(statements: Sequence[_Statement], space: Iterable[int], names: _Names) -> set[str]:
    """Return the classes and functions of the file that may be values of the space."""
    kept = [statements[index] for index in space]
    classes = {name for statement in kept for name in statement.reads & names.classes}
    return classes | {name for statement in kept for name in statement.named & names.functions}


# -- what statements change


def _changed_later(statement: _Statement, names: _Names) -> set[str]:
    """Return the variables of the file that functions of a statement change when called."""
    found: set[str] = set()
    for scope in statement.later:
        visible = names.variables | scope.hidden
        shared = alias_map(scope.own, visible)
        for change in changes_of(scope.own, visible):
            passed = change.arguments - names.constants
            roots = passed if change.root is None else passed | {change.root}
            found |= close_over(roots, shared) - scope.hidden
        found |= {name for name, _ in bound_names(scope.own)} - scope.hidden
    return found & names.variables


def _has_side_effects(statement: _Statement, names: _Names) -> bool:
    """Tell whether functions of a statement may change something outside of the file."""
    inside = names.functions | names.classes | names.variables
    return any(
        change.root not in inside and (change.how == "called" or change.root not in scope.hidden)
        for scope in statement.later
        for change in changes_of(scope.own, names.variables | scope.hidden)
        if change.how != "updated"
    )


def _spread(own: Mapping[str, set[str]], reads: Mapping[str, frozenset[str]]) -> dict[str, set[str]]:
    """Add to the effects of each definition those of the definitions that it reads, transitively."""
    return {name: set().union(*(own[n] for n in close_over([name], reads) if n in own)) for name in own}


def _effects(statements: Sequence[_Statement], names: _Names) -> tuple[dict[str, set[str]], set[str]]:
    """Return the variables that each function of the file changes, and the functions with other effects."""
    changed: dict[str, set[str]] = {}
    outside: dict[str, set[str]] = {}
    reads: dict[str, frozenset[str]] = {}
    for statement in statements:
        for name in statement.names if statement.later else ():
            changed.setdefault(name, set()).update(_changed_later(statement, names))
            outside.setdefault(name, set()).update({name} if _has_side_effects(statement, names) else ())
            reads[name] = reads.get(name, frozenset()) | statement.reads
    return _spread(changed, reads), {name for name, found in _spread(outside, reads).items() if found}


def _changed_now(statement: _Statement, names: _Names, effects: Mapping[str, set[str]]) -> set[str]:
    """Return the variables that a statement changes when it runs, through functions and aliases too."""
    roots: set[str] = set()
    for change in changes_of(statement.now, names.variables):
        roots |= change.arguments - names.constants
        roots |= {change.root} if change.root is not None else set()
    loaded = {
        node.id for node in statement.now if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    for name in loaded if isinstance(statement.node, _DEFINITIONS) else statement.reads:
        roots |= effects.get(name, set())
    return close_over(roots, names.shared) & names.variables


def _is_in_both(statement: _Statement, names: _Names) -> bool:
    """Tell whether a statement imports, or changes an object that is not a variable of the file."""
    if any(_is_import(node) for node in statement.scopes[0].own):
        return True
    return any(_mutates_outside(change, names) for change in changes_of(statement.now, names.variables))


def _is_import(node: ast.AST) -> bool:
    """Tell whether a node is an import that may do more than bind names; imports of psyrun do not."""
    match node:
        case ast.ImportFrom(module=str(module), level=0):
            return module.partition(".")[0] != "psyrun"
        case ast.Import(names=aliases):
            return any(alias.name.partition(".")[0] != "psyrun" for alias in aliases)
    return isinstance(node, ast.ImportFrom)


def _mutates_outside(change: Change, names: _Names) -> bool:
    if change.how == "updated":
        return False
    if change.root is None or change.how == "called":
        return True
    return not close_over([change.root], names.shared) <= names.variables


def _is_for_effect(
    statement: _Statement, names: _Names, read: Collection[str], impure: Collection[str]
) -> bool:
    """Tell whether a statement binds names that are not read to a call with possible side effects."""
    if not statement.names or any(name in read for name in statement.names):
        return False
    discarded = any(name.startswith("_") for name in statement.names)
    if isinstance(statement.node, _DEFINITIONS):
        called = statement.node.decorator_list
    else:
        called = [node.func for node in statement.now if isinstance(node, ast.Call)]
    for function in called:
        root = root_of(function) or ""
        module = names.origins.get(root)
        if root in impure or (module is not None and (discarded or not is_pure(function, module))):
            return True
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slicer:
    """Name -> indices of statements that bind or change it; `always` has the statements of both slices."""

    statements: Sequence[_Statement]
    owners: Mapping[str, Sequence[int]]
    always: frozenset[int]

    @classmethod
    def prepare(cls, statements: Sequence[_Statement], names: _Names) -> _Slicer:
        """Find the names that each statement binds or changes."""
        effects, impure = _effects(statements, names)
        read = {name for statement in statements for name in statement.reads} | SETTING_NAMES
        owners: dict[str, list[int]] = {}
        always = set()
        for index, statement in enumerate(statements):
            if statement.never_runs:
                continue
            if _is_in_both(statement, names) or _is_for_effect(statement, names, read, impure):
                always.add(index)
            for name in statement.names | _changed_now(statement, names, effects):
                owners.setdefault(name, []).append(index)
        return cls(statements=statements, owners=owners, always=frozenset(always))

    def reach(self, roots: Iterable[str]) -> frozenset[int]:
        """Return the indices of statements in the slice of some names."""
        kept = set(self.always)
        reached: set[str] = set()
        todo = set(roots).union(*(self.statements[index].reads for index in kept))
        while todo:
            reached.add(name := todo.pop())
            for index in self.owners.get(name, ()):
                kept.add(index)
                todo |= self.statements[index].reads - reached
        return frozenset(kept)
