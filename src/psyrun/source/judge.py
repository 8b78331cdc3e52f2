"""Statements: whether running one only binds names.

The lists are white: what is not on them may do anything. An expression has one of five kinds.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from psyrun.source.expressions import Expressions
from psyrun.source.pure import (
    BASES,
    DECORATORS,
    GROWING,
    HINTS,
    IN_CLASSES,
    LOGGING,
    MAKES_TEXT,
    OPENING,
    READS_OUTPUT,
    Kind,
)
from psyrun.source.syntax import SCOPES, assigned_value

if TYPE_CHECKING:
    from psyrun.source.inert import Inertness
    from psyrun.source.syntax import Statement


class Judge(Expressions):
    """Judges a statement.

    Attributes
    ----------
    bound
        Kinds of the values that it binds names to.
    grows
        Names whose own object it changes.
    """

    def __init__(self, known: Inertness, statement: Statement) -> None:
        super().__init__(known, statement)
        self.bound: dict[str, Kind] = {}
        self.grows: set[str] = set()

    # -- statements

    def find_act(self) -> ast.AST:
        """Return the smallest part of an acting statement that may do something."""
        calls = [node for node in reversed(self._statement.nodes) if isinstance(node, ast.Call)]
        outside = (each for each in calls if self.kind(each) < Kind.OPAQUE)
        return next(outside, self._statement.node)

    def is_inert(self, node: ast.stmt) -> bool:
        """Tell whether a statement only binds names."""
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                return self._defines_only(node)
            case ast.ClassDef():
                return self._is_plain_class(node)
            case ast.Import() | ast.ImportFrom():
                return self._is_found(node)
            case ast.Assign(targets=targets, value=value):
                kind = self.kind(value)
                return kind >= Kind.OPAQUE and all(self._bind(each, kind) for each in targets)
            case ast.AnnAssign(target=target, annotation=hint, value=value, simple=1):
                kind = self.kind(value)
                return self._is_hint(hint) and kind >= Kind.OPAQUE and self._bind(target, kind)
            case ast.AugAssign(target=ast.Name(id=name) as target, value=value):
                known, added = self._kind_of_name(target), self.kind(value)
                fixed = known == Kind.FROZEN or self._grow(target)
                return fixed and added >= Kind.PLAIN and self._bind_name(name, min(known, added))
            case ast.If() | ast.For() | ast.While() | ast.With():
                return self._is_inert_block(node)
            case ast.Expr(value=ast.Call() as call):
                return self._is_growth(call) or self.is_message(call) or self.kind(call) >= Kind.OPAQUE
            case ast.Expr(value=value):
                return self.kind(value) >= Kind.OPAQUE
        return isinstance(node, ast.Pass | ast.Break | ast.Continue)

    def _is_inert_block(self, node: ast.If | ast.For | ast.While | ast.With) -> bool:
        if isinstance(node, ast.With):
            return self._reads_only(node)
        body, paths = node.body, self._paths
        if isinstance(node, ast.For):
            begins = self.kind(node.iter) >= Kind.ONCE and self._bind(node.target, Kind.PLAIN)
            self._paths = paths | self._named_paths(node)
        elif id(node) in self._statement.skipped:
            begins, body = True, []
        else:
            begins = self.kind(node.test) >= Kind.PLAIN
        inert = begins and all(self.is_inert(each) for each in (*body, *node.orelse))
        self._paths = paths
        return inert

    def _reads_only(self, node: ast.With) -> bool:
        """Tell whether a `with` opens files for reading, which nothing else gets, and binds what it reads."""
        outer = self._local
        self._local = dict(outer)
        defines = any(isinstance(part, (ast.Import, ast.ImportFrom, *SCOPES)) for part in ast.walk(node))
        inert = not defines and all(map(self._opens, node.items)) and all(map(self._is_step, node.body))
        self._local = outer
        return inert

    def _opens(self, item: ast.withitem) -> bool:
        call, target = item.context_expr, item.optional_vars
        opens = isinstance(call, ast.Call) and (
            self._named(call.func) in (*OPENING, "numpy.load")
            or (isinstance(call.func, ast.Attribute) and call.func.attr == "open")
        )
        kind = self.kind(call)
        named = target is None or (isinstance(target, ast.Name) and self._keep(target.id, kind))
        return opens and named and kind >= Kind.ONCE

    def _is_step(self, node: ast.stmt) -> bool:
        """Tell whether a statement in a `with` is inert, or names an iterator for the rest of the body."""
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if self.kind(value) == Kind.ONCE:
                return self._keep(name, Kind.ONCE)
        return self.is_inert(node)

    def _keep(self, name: str, kind: Kind) -> bool:
        """Bind a name that is known in the body of a `with` only; tell whether it is new there."""
        new = name not in self._local
        self._local[name], self.bound[name] = kind, Kind.OPAQUE
        return new

    def _bind(self, target: ast.expr, kind: Kind) -> bool:
        match target:
            case ast.Name(id=name):
                return self._bind_name(name, kind)
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                parts = all(isinstance(each, ast.Name) for each in targets)
                return parts and kind >= Kind.ONCE and all(self._bind(t, Kind.PLAIN) for t in targets)
            case ast.Subscript(value=owner, slice=index):
                return min(kind, self.kind(index)) >= Kind.PLAIN and self._grow(owner)
            case ast.Attribute(value=owner):  # such as scheduler.poll
                return kind >= Kind.PLAIN and self._grow(owner, Kind.OPAQUE)
        return False

    def _bind_name(self, name: str, kind: Kind) -> bool:
        """Bind a name; tell whether it may have what it is bound to."""
        self.bound[name] = min(kind, self.bound.get(name, kind))
        return kind != Kind.ONCE and name not in self._local

    def _grow(self, node: ast.expr, least: Kind = Kind.PLAIN) -> bool:
        """Tell whether a name alone has its object, which a statement above made; this one changes it."""
        meaning = self._program.meaning(self._statement, node)
        if meaning[:2] != ("local", self._module.name) or self.kind(node) < least:
            return False
        name = meaning[2]
        makers = [each for each in self._module.bindings[name] if _assigns(each, name)]
        value = assigned_value(makers[0].node) if len(makers) == 1 else None
        if value is None or not Expressions(self._known, makers[0]).is_new(value):
            return False
        self.grows.add(name)
        places = self._module.statements
        return places.index(makers[0]) < places.index(self._statement)

    def _is_growth(self, call: ast.Call) -> bool:
        match call:
            case ast.Call(func=ast.Attribute(value=ast.Name() as owner, attr=method), args=args, keywords=[]):
                least = Kind.ONCE if method in ("extend", "update") else Kind.PLAIN
                plain = all(self.kind(each) >= least for each in args)
                return method in GROWING and plain and self._grow(owner)
        return False

    def is_message(self, call: ast.Call) -> bool:
        """Tell whether a call prints or logs plain values, or sets how arrays are shown."""
        plain = all(self.kind(each) >= Kind.PLAIN for each in (*call.args, *(k.value for k in call.keywords)))
        if self._named(call.func) == "numpy.set_printoptions":
            return plain and not self._known.words & MAKES_TEXT
        return plain and self.is_output(call)

    def is_output(self, call: ast.Call) -> bool:
        """Tell whether a call prints or logs, and nothing reads that."""
        if self._known.words & READS_OUTPUT or any(
            k.arg not in ("sep", "end", "flush") for k in call.keywords
        ):
            return False
        name = self._named(call.func)
        if name == "print" or (name.startswith("logging.") and name[len("logging.") :] in LOGGING):
            return True
        match call.func:
            case ast.Attribute(value=owner, attr=method) if method in LOGGING:
                bindings = self._program.bindings(self._program.meaning(self._statement, owner))
                values = [assigned_value(each.node) for each in bindings]
                made = [each.func for each in values if isinstance(each, ast.Call)]
                logger = ("foreign", "logging.getLogger")
                return len(values) == 1 and [self._program.meaning(bindings[0], e) for e in made] == [logger]
        return False

    def _is_found(self, node: ast.Import | ast.ImportFrom) -> bool:
        """Tell whether an import binds names that are there; what else it runs stands in its modules."""
        if isinstance(node, ast.Import):
            return True
        origin = self._module.origin(node)
        meanings = [self._program.resolve_import(origin, alias.name) for alias in node.names]
        return all(meaning[0] != "part" for meaning in meanings)

    # -- definitions

    def _defines_only(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        arguments = node.args
        hints = [each.annotation for each in ast.walk(arguments) if isinstance(each, ast.arg)]
        defaults = [*arguments.defaults, *arguments.kw_defaults]
        return (
            all(self.is_decorator(each, node.name) for each in node.decorator_list)
            and all(self.kind(each) >= Kind.OPAQUE for each in defaults)
            and all(each is None or self._is_hint(each) for each in (*hints, node.returns))
        )

    def is_decorator(self, node: ast.expr, name: str = "") -> bool:
        """Tell whether a decorator is known to leave what it decorates as it is."""
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr="setter" | "getter" | "deleter"):
                return owner == name and id(node.value) in self._statement.in_class
            case ast.Call(func=function, args=args, keywords=keywords):
                plain = all(self.kind(each) >= Kind.PLAIN for each in (*args, *(k.value for k in keywords)))
                return plain and self._named(function) in DECORATORS
        return self._named(node) in DECORATORS

    def _is_hint(self, node: ast.expr) -> bool:
        return not self._known.hooked and all(isinstance(part, HINTS) for part in ast.walk(node))

    def _is_plain_class(self, node: ast.ClassDef) -> bool:
        return (
            not (node.keywords or self._known.hooked)
            and all(self.is_decorator(each) for each in node.decorator_list)
            and all(map(self._is_base, node.bases))
            and all(map(self._is_member, node.body))
        )

    def _is_base(self, node: ast.expr) -> bool:
        if self._named(node) in BASES:
            return True
        bindings = self._program.bindings(self._program.meaning(self._statement, node))
        known = [isinstance(s.node, ast.ClassDef) and s not in self._known.acting for s in bindings]
        return known == [True]

    def _is_member(self, node: ast.stmt) -> bool:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                return self._defines_only(node)
            case ast.ClassDef():
                return self._is_plain_class(node)
            case ast.Assign(targets=[ast.Name()], value=value):
                return self._is_attribute(value)
            case ast.AnnAssign(target=ast.Name(), annotation=hint, value=value):
                return self._is_hint(hint) and (value is None or self._is_attribute(value))
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                return True
        return False

    def _is_attribute(self, value: ast.expr) -> bool:
        if isinstance(value, ast.Call) and self._named(value.func) in IN_CLASSES:
            return all(self.kind(keyword.value) >= Kind.OPAQUE for keyword in value.keywords)
        return isinstance(value, ast.Lambda) or self.kind(value) >= Kind.PLAIN


def _assigns(statement: Statement, name: str) -> bool:
    """Tell whether a statement binds a name other than by `+=` and its like."""
    updated = {id(node.target) for node in statement.nodes if isinstance(node, ast.AugAssign)}
    stored = [id(n) for n in statement.names if n.id == name and not isinstance(n.ctx, ast.Load)]
    return not set(stored) <= updated if stored else name in statement.binds
