"""Expressions: what evaluating one may do, and what is known of its value."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, TypeAlias

from psyrun.source.pure import (
    ATTRIBUTES_OF_PATHS,
    CONSTANTS,
    EXTENDS_YAML,
    FORBIDDEN,
    METHODS,
    METHODS_OF_FILES,
    OPENING,
    PATHS,
    PSYRUN,
    PURE,
    READ_WITH,
    READERS,
    READS_ALL,
    READS_FIRST,
    Kind,
)
from psyrun.source.syntax import assigned_value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psyrun.source.inert import Inertness
    from psyrun.source.program import Meaning
    from psyrun.source.syntax import Statement


_Comprehension: TypeAlias = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_OPERATIONS = (
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Set, ast.Subscript, ast.Slice),
    *(ast.JoinedStr, ast.FormattedValue),
)


class Expressions:
    """The expressions of a statement.

    Parameters
    ----------
    known
        What is known of the program.
    statement
        The statement that they stand in.
    """

    def __init__(self, known: Inertness, statement: Statement) -> None:
        self._known, self._program, self._statement = known, known.program, statement
        self._module = known.program.home[statement]
        self._local: dict[str, Kind] = {}  # variables of comprehensions, files and iterators in a `with`
        self._paths: set[str] = set()  # variables of loops over paths

    def kind(self, node: ast.expr | None) -> Kind:
        """Return what is known of an expression."""
        match node:
            case None | ast.Constant():
                return Kind.FROZEN
            case ast.Name() | ast.Attribute():
                return self._kind_of_name(node)
            case ast.Call():
                return self._kind_of_call(node)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                return self._kind_of_comprehension(node)
            case ast.Lambda(args=arguments):
                defaults = [*arguments.defaults, *arguments.kw_defaults]
                return Kind.OPAQUE if self._least(defaults) >= Kind.OPAQUE else Kind.ACTS
            case ast.Tuple(elts=parts):
                return self._kind_of_display(parts)
            case ast.List(elts=parts):
                return min(Kind.PLAIN, self._kind_of_display(parts))
            case ast.Dict(keys=keys, values=values):
                kinds = [self.kind(k or v) for k, v in zip(keys, values)]
                hashed = min(kinds, default=Kind.PLAIN) >= Kind.PLAIN
                return min(Kind.PLAIN, self._kind_of_display(values)) if hashed else Kind.ACTS
            case ast.Starred(value=value):
                return Kind.PLAIN if self.kind(value) >= Kind.ONCE else Kind.ACTS
        return self._kind_of_operation(node)

    def _kind_of_operation(self, node: ast.expr) -> Kind:
        """Return the kind of operators and their like: plain where all operands are."""
        if not isinstance(node, _OPERATIONS):
            return Kind.ACTS
        least = self._least(each for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr))
        if least < Kind.PLAIN:
            return Kind.ACTS
        if isinstance(node, ast.JoinedStr):
            return Kind.FROZEN
        return min(least, Kind.PLAIN) if isinstance(node, ast.Set) else least

    def _least(self, nodes: Iterable[ast.expr | None]) -> Kind:
        return min([self.kind(node) for node in nodes], default=Kind.FROZEN)

    def _kind_of_display(self, parts: Iterable[ast.expr]) -> Kind:
        """Return the kind of a tuple, which may hold what is opaque."""
        least = self._least(parts)
        return Kind.OPAQUE if least == Kind.ONCE else least

    def _kind_of_name(self, node: ast.Name | ast.Attribute) -> Kind:
        if isinstance(node, ast.Name) and node.id in self._local:
            return self._local[node.id]
        meaning = self._program.meaning(self._statement, node)
        match meaning:
            case ("local", module, name):
                if name in ("__name__", "__file__") and not self._program.bindings(meaning):
                    return Kind.FROZEN
                return self._known.kinds.get((module, name), Kind.OPAQUE)
            case ("foreign" | "builtin", _):
                return Kind.FROZEN if self._named(node) in CONSTANTS else Kind.OPAQUE
            case ("module", _):
                return Kind.OPAQUE
        if isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES_OF_PATHS:
            kind = self.kind(node.value)
            return kind if kind >= Kind.PLAIN else Kind.ACTS
        return Kind.ACTS

    def _named(self, node: ast.AST) -> str:
        """Return the name of a builtin or of a part of an installed module; '' where it may be patched."""
        kind, *name = self._program.meaning(self._statement, node)
        if kind not in ("builtin", "foreign"):
            return ""
        home = "builtins" if kind == "builtin" else name[0].partition(".")[0]
        used = READ_WITH | {home} if name[0] in READERS else {home}
        return name[0] if self._program.patched.isdisjoint(used) else ""

    def _kind_of_comprehension(self, node: _Comprehension) -> Kind:
        outer, paths = self._local, self._paths
        self._local = dict(outer)
        plain = all(self._is_plain_part(each) for each in node.generators)
        kind = self._least([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt])
        self._local, self._paths = outer, paths
        if not plain or kind < Kind.PLAIN:
            return Kind.ACTS
        return Kind.ONCE if isinstance(node, ast.GeneratorExp) else Kind.PLAIN

    def _is_plain_part(self, part: ast.comprehension) -> bool:
        iterable = self.kind(part.iter)
        names = part.target.elts if isinstance(part.target, ast.Tuple) else [part.target]
        self._local |= {each.id: Kind.PLAIN for each in names if isinstance(each, ast.Name)}
        self._paths = (self._paths - self._local.keys()) | self._named_paths(part)
        plain = iterable >= Kind.ONCE and all(isinstance(each, ast.Name) for each in names)
        return plain and not part.is_async and self._least(part.ifs) >= Kind.PLAIN

    # -- calls

    def _kind_of_call(self, node: ast.Call) -> Kind:
        name = self._named(node.func)
        kinds = [self.kind(each) for each in (*node.args, *(keyword.value for keyword in node.keywords))]
        least = min(kinds, default=Kind.FROZEN)
        meaning = self._program.meaning(self._statement, node.func)
        if meaning[0] == "local" and least >= Kind.PLAIN:
            return self._kind_of_own(node, meaning)
        if name == "logging.getLogger":
            return Kind.OPAQUE if least >= Kind.PLAIN else Kind.ACTS
        if name.startswith("psyrun.") and name.rpartition(".")[2] in PSYRUN:
            enough = Kind.ONCE if name.endswith(".Param") else Kind.PLAIN
            return Kind.PLAIN if least >= enough else min(least, Kind.OPAQUE)
        read = len(node.args) if name in READS_ALL else min(len(node.args), name in READS_FIRST)
        if least < Kind.ONCE or min(kinds[read:], default=Kind.FROZEN) < Kind.PLAIN:
            return Kind.ACTS
        match node.func:
            case ast.Attribute(value=owner, attr=method) if method in METHODS and not name:
                own = Kind.ONCE if method in METHODS_OF_FILES else Kind.PLAIN
                reads = self.kind(owner) >= own and (method != "open" or self._is_reading(node, 0))
                return METHODS[method] if reads else Kind.ACTS
        return PURE[name] if name in PURE and self._is_harmless(name, node) else Kind.ACTS

    def _kind_of_own(self, call: ast.Call, meaning: Meaning) -> Kind:
        """Return the kind of a call of a function of the program that gets plain values."""
        function = self._known.function(meaning)
        if function is None:
            return Kind.ACTS
        given: dict[str | None, ast.expr] = dict(zip(function.parameters, call.args))
        given |= {keyword.arg: keyword.value for keyword in call.keywords}
        unclear = None in given or any(isinstance(each, ast.Starred) for each in call.args)
        paths = all(self._is_path(given.get(name, function.defaults.get(name))) for name in function.paths)
        return Kind.ACTS if function.paths and (unclear or not paths) else function.kind

    def _is_harmless(self, name: str, call: ast.Call) -> bool:
        """Tell whether a call is without those arguments with which a function of the list does more."""
        if name in OPENING:
            return bool(call.args) and self._is_path(call.args[0]) and self._is_reading(call, OPENING[name])
        if name == "yaml.safe_load":
            return not self._known.words & EXTENDS_YAML
        forbidden = FORBIDDEN.get(name, ())
        unclear = len(call.args) != 1 or isinstance(call.args[0], ast.Starred)
        return not (forbidden and unclear) and all(k.arg not in forbidden for k in call.keywords)

    def _is_reading(self, call: ast.Call, place: int) -> bool:
        """Tell whether the mode of a call of `open` stands there, and is one for reading."""
        modes = [*call.args[place : place + 1], *(k.value for k in call.keywords if k.arg in ("mode", None))]
        shown = not any(isinstance(each, ast.Starred) for each in call.args)
        literals = [each.value for each in modes if isinstance(each, ast.Constant)]
        return shown and len(literals) == len(modes) and all(each in ("r", "rb", "rt") for each in literals)

    def is_new(self, value: ast.expr) -> bool:
        """Tell whether an expression makes an object that nothing else has, or one that can't change."""
        if not isinstance(value, ast.Call):
            new = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.BinOp | ast.Constant
            return isinstance(value, new)
        meaning = self._program.meaning(self._statement, value.func)
        if meaning[0] == "local":
            function = self._known.function(meaning)
            return function is not None and function.new
        own = meaning[0] == "foreign" and meaning[1].startswith("psyrun.")
        return own or (not value.keywords and meaning[-1] in ("list", "dict", "set", "numpy.zeros"))

    # -- paths

    def _is_path(self, node: ast.expr | None) -> bool:
        """Tell whether an expression is no number, which would be a file that something else opened."""
        match node:
            case ast.Constant():
                return isinstance(node.value, str)
            case ast.BinOp(left=left, right=right):
                return self._is_path(left) or self._is_path(right)
            case ast.Call(func=function):
                return self._named(function) in PATHS
            case ast.Name(id=name) if name not in self._paths:
                judge, value = self._assigned(node)
                return judge._is_path(value)  # noqa: SLF001 - of the same class
        return isinstance(node, ast.JoinedStr | ast.Name)

    def _named_paths(self, loop: ast.For | ast.comprehension) -> set[str]:
        """Return the variable of a loop over paths."""
        match loop.target:
            case ast.Name(id=name) if self._are_paths(loop.iter):
                return {name} if self._stores(name) <= isinstance(loop, ast.For) else set()
        return set()

    def _stores(self, name: str) -> int:
        """Return in how many places of the statement a name is bound."""
        return sum(not isinstance(each.ctx, ast.Load) for each in self._statement.names if each.id == name)

    def _are_paths(self, node: ast.expr | None) -> bool:
        match node:
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return all(map(self._is_path, parts))
            case ast.Call(func=ast.Name(id="sorted" | "list"), args=[inner, *_]):
                return self._are_paths(inner)
            case ast.Call(func=ast.Attribute(attr="glob" | "rglob" | "iterdir" | "splitlines" | "split")):
                return True
            case ast.Call(func=function):
                return self._named(function) in ("glob.glob", "glob.iglob", "os.listdir")
            case ast.Name():
                judge, value = self._assigned(node)
                return judge._are_paths(value)  # noqa: SLF001 - of the same class
        return False

    def _assigned(self, node: ast.Name) -> tuple[Expressions, ast.expr | None]:
        """Return what the only statement that binds a name assigns to it, where it stands above."""
        places = self._module.statements
        match self._program.bindings(self._program.meaning(self._statement, node)):
            case [each] if each in places[: places.index(self._statement)]:
                return Expressions(self._known, each), assigned_value(each.node)
        return self, None
