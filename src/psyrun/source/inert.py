"""Inert statements: their text proves that running them binds names, and does nothing else."""

from __future__ import annotations

import ast
import builtins
from typing import TYPE_CHECKING

from psyrun.source.functions import Body, Function
from psyrun.source.judge import Judge
from psyrun.source.program import imported_names
from psyrun.source.pure import HOOKS, Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from psyrun.source.program import Meaning, Program
    from psyrun.source.syntax import Statement


class Inertness:
    """Statements that are inert: the greatest set that agrees with itself.

    Attributes
    ----------
    acting
        The statements that may do something.
    kinds
        (module, name) -> what is known of the values of a name.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.acting: set[Statement] = set()
        self.kinds = {(m.name, name): Kind.FROZEN for m in program.modules.values() for name in m.bindings}
        self.words = {word for statement in program.home for word in words(statement)}
        self._grows: dict[Statement, set[str]] = {}
        self._functions: dict[Statement, Function | None] = {}
        self._handed: dict[Statement, set[Meaning]] = {}
        self._changed: set[Meaning] | None = set()  # what acting statements may change; None: anything
        self.hooked = bool(self.words & HOOKS)
        while self._step():
            pass
        for statement, names in self._grows.items():
            if statement not in self.acting:
                program.bind_more(statement, names - statement.binds)

    def _step(self) -> bool:
        """Judge all statements by what is known; tell whether something new is known then."""
        before = len(self.acting), dict(self.kinds), dict(self._functions)
        program = self.program
        bound: dict[tuple[str, str], Kind] = {}
        for statement, module in program.home.items():
            judge = Judge(self, statement)
            if statement not in self.acting and not judge.is_inert(statement.node):
                self.acting.add(statement)
            self._grows[statement] = judge.grows
            for name in statement.binds:
                inert = statement not in self.acting
                kind = judge.bound.get(name, Kind.OPAQUE) if inert else Kind.OPAQUE
                bound[module.name, name] = min(kind, bound.get((module.name, name), kind))
        for each in list(self._functions):
            self._functions[each] = Body(self, each).judge(self._functions[each])
        touched, hiding = reach(program, self.acting, self.acting)
        self._changed = None if hiding else set().union(*map(self.handed, touched))
        for module in program.modules.values():
            for name, statements in module.bindings.items():
                key = module.name, name
                kind = min(self.kinds[key], bound.get(key, Kind.OPAQUE))
                outside = any(name not in each.binds for each in statements)
                if outside or (kind < Kind.FROZEN and (hiding or not touched.keys().isdisjoint(statements))):
                    kind = min(kind, Kind.OPAQUE)
                self.kinds[key] = kind
        return before != (len(self.acting), self.kinds, self._functions)

    def function(self, meaning: Meaning) -> Function | None:
        """Return what is known of a function of the program; None where a call of it may do something."""
        bindings = self.program.bindings(meaning)
        if self._changed is None or meaning in self._changed or len(bindings) != 1:
            return None
        if hasattr(builtins, meaning[2]) or meaning[1].partition(".")[0] in self.program.patched:
            return None
        [statement] = bindings
        if statement in self.acting or not isinstance(statement.node, ast.FunctionDef):
            return None
        return self._functions.setdefault(statement, Function.of(statement.node))

    def handed(self, statement: Statement) -> set[Meaning]:
        """Return what a statement does more with than call it."""
        if statement not in self._handed:
            called = {id(node.func) for node in statement.nodes if isinstance(node, ast.Call)}
            uses = self.program.uses(statement).items()
            found = {meaning for place, (_, meaning) in uses if place not in called}
            self._handed[statement] = found.union(self.program.named_in_strings(statement))
        return self._handed[statement]


def reach(
    program: Program, roots: Iterable[Statement], acting: Collection[Statement] = ()
) -> tuple[dict[Statement, Statement | None], Statement | None]:
    """Return the statements that some lead to, the nearest first, each with one that leads to it.

    Parameters
    ----------
    acting
        What importing a module runs where a function that is reached imports it.

    Returns
    -------
    Statement or None
        One that may lead to any other, since its text does not show what it reaches.
    """
    found: dict[Statement, Statement | None] = dict.fromkeys(roots)
    queue, hiding = list(found), None
    for statement in queue:  # grows
        read, hides = program.reads(statement)
        more = list(read)
        if statement.later:
            package = program.home[statement].package
            names = [name for node in statement.later for name in imported_names(node, package)]
            more += (each for m in program.loads(names) for each in m.statements if each in acting)
        for each in more:
            if each not in found:
                found[each] = statement
                queue.append(each)
        hiding = hiding or (statement if hides else None)
    return found, hiding


def words(statement: Statement) -> Iterator[str]:
    """Yield the identifiers in a statement, but for parameters; the names of some operations too."""
    for node in statement.nodes:
        if isinstance(node, ast.Name):
            if node.id != "__name__":
                yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str) and node.value.isidentifier():
                yield node.value
        elif isinstance(node, ast.Mod | ast.JoinedStr):
            yield type(node).__name__
    for node in statement.imported:
        yield from (getattr(node, "module", None) or "").split(".")
        yield from (part for alias in node.names for part in alias.name.split("."))
