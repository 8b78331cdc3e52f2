"""Functions of the program: what calling one with plain values does."""

from __future__ import annotations

import ast
import builtins
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psyrun.source.judge import Judge
from psyrun.source.pure import CAUGHT, Kind
from psyrun.source.syntax import FUNCTIONS, bind_names, parameters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psyrun.source.expressions import Expressions
    from psyrun.source.inert import Inertness
    from psyrun.source.syntax import Statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function that does nothing but return a value where it is called with plain values.

    Parameters
    ----------
    parameters
        Names of its parameters that may be given by position.
    defaults
        Name of a parameter -> its default, where that is a constant.
    kind
        What is known of the value.
    new
        Whether nothing else has the value.
    paths
        Parameters that it opens as files, and that therefore have to be paths.
    """

    parameters: Sequence[str]
    defaults: Mapping[str, ast.Constant]
    kind: Kind = Kind.FROZEN
    new: bool = True
    paths: frozenset[str] = frozenset()

    @classmethod
    def of(cls, node: ast.FunctionDef) -> Function:
        """Return the best that may be known of a function; its body is not looked at."""
        arguments = node.args
        names = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
        given: list[tuple[str, ast.expr | None]] = [*zip(reversed(names), reversed(arguments.defaults))]
        given += zip((each.arg for each in arguments.kwonlyargs), arguments.kw_defaults)
        defaults = {name: default for name, default in given if isinstance(default, ast.Constant)}
        return cls(parameters=names, defaults=defaults)


class Body(Judge):
    """Judges the body of a function that is called with plain values.

    What it binds are variables of its own, which live as long as a call. So it may keep iterators and open
    files, and change objects that it made.
    """

    def __init__(self, known: Inertness, statement: Statement) -> None:
        super().__init__(known, statement)
        assert isinstance(statement.node, ast.FunctionDef)  # noqa: S101
        self._node = node = statement.node
        arguments = node.args
        self._given = parameters(arguments)
        self._names = {each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
        self._local = dict.fromkeys(bind_names(node.body)[0], Kind.FROZEN)
        self._local |= dict.fromkeys(self._given, Kind.PLAIN)
        self._inside = [part for each in node.body for part in ast.walk(each)]
        self._values = self._find_values()
        self._returned, self._new = Kind.FROZEN, True
        self._needed: set[str] = set()
        self._yields = 0

    def judge(self, before: Function | None) -> Function | None:
        """Return what is known of the function; None where a call may do something."""
        if before is None or not self._is_simple():
            return None
        kinds: dict[str, Kind] | None = None
        while kinds != self._local:
            kinds, self._yields = dict(self._local), 0
            if not all(map(self.is_inert, self._node.body)):
                return None
        yields = sum(isinstance(part, ast.Yield | ast.YieldFrom) for part in self._inside)
        if yields != self._yields:
            return None
        kind = Kind.ONCE if yields else self._returned
        new = before.new and self._new and not yields
        return replace(before, kind=min(before.kind, kind), new=new, paths=before.paths | self._needed)

    def _is_simple(self) -> bool:
        """Tell whether it has no names but its own and those of the module, and no state."""
        own = [*self._node.args.defaults, *filter(None, self._node.args.kw_defaults)]
        outside = Judge(self._known, self._statement)
        scopes = (ast.Global, ast.Nonlocal, ast.Import, ast.ImportFrom, ast.ClassDef, *FUNCTIONS)
        return (
            not self._node.decorator_list
            and all(outside.kind(each) == Kind.FROZEN for each in own)
            and not any(isinstance(part, scopes) for part in self._inside)
            and self._local.keys().isdisjoint(self._inner_names())
        )

    def _inner_names(self) -> set[str]:
        """Return the variables of comprehensions."""
        targets = [part.target for part in self._inside if isinstance(part, ast.comprehension)]
        return {part.id for each in targets for part in ast.walk(each) if isinstance(part, ast.Name)}

    def _find_values(self) -> dict[str, list[ast.expr | None]]:
        """Return what is assigned to each variable; None for what is bound otherwise."""
        simple: dict[int, ast.expr | None] = {}
        updated: set[int] = set()
        for part in self._inside:
            match part:
                case ast.Assign(targets=targets, value=value):
                    simple |= {id(each): value for each in targets}
                case ast.AnnAssign(target=target, value=value):
                    simple[id(target)] = value
                case ast.AugAssign(target=target):
                    updated.add(id(target))
        found: dict[str, list[ast.expr | None]] = {}
        for part in self._inside:
            if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load) and id(part) not in updated:
                found.setdefault(part.id, []).append(simple.get(id(part)))
        return found

    # -- statements

    def is_inert(self, node: ast.stmt) -> bool:
        """Tell whether a statement only binds variables of the function, or ends it."""
        match node:
            case ast.Return(value=value):
                kind = self.kind(value)
                self._returned = min(self._returned, kind)
                self._new &= value is None or self._is_own(value)
                return kind >= Kind.OPAQUE
            case ast.Expr(value=ast.Yield(value=value)):
                self._yields += 1
                return self.kind(value) >= Kind.PLAIN
            case ast.Expr(value=ast.YieldFrom(value=value)):
                self._yields += 1
                return self.kind(value) >= Kind.ONCE
            case ast.Assert(test=test, msg=message):
                return min(self.kind(test), self.kind(message)) >= Kind.PLAIN
            case ast.Raise(exc=ast.Call(func=error, args=args, keywords=[]), cause=None):
                return self._is_error(error) and self._least(args) >= Kind.PLAIN
            case ast.Raise(exc=error, cause=None):
                return error is None or self._is_error(error)
            case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=final):
                caught = all(map(self._catches, handlers))
                return caught and all(map(self.is_inert, (*body, *orelse, *final)))
        return super().is_inert(node)

    def _is_error(self, node: ast.expr) -> bool:
        kind = getattr(builtins, self._named(node), None)
        return isinstance(kind, type) and issubclass(kind, Exception)

    def _catches(self, handler: ast.ExceptHandler) -> bool:
        """Tell whether errors are caught that say nothing of names of the module."""
        kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        known = all(each is not None and self._named(each) in CAUGHT for each in kinds)
        bound = handler.name is None or self._bind_name(handler.name, Kind.OPAQUE)
        return known and bound and all(map(self.is_inert, handler.body))

    def _reads_only(self, node: ast.With) -> bool:
        return all(map(self._opens, node.items)) and all(map(self.is_inert, node.body))

    def _keep(self, name: str, kind: Kind) -> bool:
        return self._bind_name(name, kind)

    def _bind_name(self, name: str, kind: Kind) -> bool:
        self._local[name] = min(kind, self._local[name])
        return True

    def _grow(self, node: ast.expr, least: Kind = Kind.PLAIN) -> bool:
        return isinstance(node, ast.Name) and self.kind(node) >= least and self._is_own(node)

    def _is_own(self, node: ast.expr) -> bool:
        """Tell whether nothing else has an object when the function returns it."""
        if not isinstance(node, ast.Name):
            return self.is_new(node)
        values = self._values.get(node.id, ())
        made = all(each is not None and self.is_new(each) for each in values)
        return bool(values) and made and node.id not in self._given

    # -- paths

    def _is_path(self, node: ast.expr | None) -> bool:
        if not isinstance(node, ast.Name) or node.id in self._paths or node.id not in self._names:
            return super()._is_path(node)
        self._needed.add(node.id)
        return all(each is not None and self._is_path(each) for each in self._values_above(node))

    def _values_above(self, node: ast.Name) -> list[ast.expr | None]:
        """Return what a variable may have been assigned above; None where that is not clear."""
        values = self._values.get(node.id, [])
        place = node.lineno, node.col_offset
        above = [each and (each.end_lineno or 0, each.end_col_offset or 0) <= place for each in values]
        return [each if fits else None for each, fits in zip(values, above)]

    def _assigned(self, node: ast.Name) -> tuple[Expressions, ast.expr | None]:
        if node.id not in self._local:
            return super()._assigned(node)
        values = self._values_above(node)
        return self, values[0] if len(values) == 1 and node.id not in self._given else None

    def _stores(self, name: str) -> int:
        return len(self._values.get(name, ())) if name in self._local else 0
