"""Normal forms: a statement without comments, docstrings, hints, messages and names of local variables."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, TypeAlias

from psyrun.source.judge import Judge
from psyrun.source.syntax import FUNCTIONS, bind_names, parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psyrun.source.inert import Inertness
    from psyrun.source.program import Meaning
    from psyrun.source.syntax import Statement


Part: TypeAlias = "str | Meaning"

_IGNORED = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_WORD = re.compile(r"\w+")
_NAMED = (ast.ExceptHandler, ast.MatchAs, ast.MatchStar, ast.MatchMapping)
_NAMESPACES = frozenset({"locals", "vars", "dir", "eval", "exec"})


class Normalizer:
    """Writes a statement as parts: text, and what names mean.

    Parameters
    ----------
    whole
        Whether docstrings, annotations and names count, since something reads them.
    exposed
        Meanings of functions and classes that something unknown gets.
    """

    def __init__(self, known: Inertness, statement: Statement, *, whole: bool, exposed: set[Meaning]) -> None:
        self._statement, self._module = statement, known.program.home[statement]
        own = ("local", self._module.name, getattr(statement.node, "name", ""))
        self._whole = whole or own in exposed
        self._judge = Judge(known, statement)
        self._uses = known.program.uses(statement)
        self._renamed: dict[str, str] = {}
        self.parts: list[Part] = []
        node = statement.node
        if isinstance(node, ast.ClassDef):
            self.parts.append(f"{self._module.name} {'annotations' in self._module.bindings} ")
        if isinstance(node, FUNCTIONS):
            self._put_function(node, named=False)
        else:
            self._put(node)

    def _put(self, node: object) -> None:
        """Add a node, or a field of one."""
        if isinstance(node, list):
            for each in node:
                self._put(each)
                self.parts.append(",")
        elif not isinstance(node, ast.AST):
            text = hex(node) if type(node) is int else ascii(node)  # Digits of a huge int raise ValueError.
            self.parts.append(f"{type(node).__name__}:{text}")
        elif isinstance(node, ast.Name):
            self._put_name(node)
        elif isinstance(node, ast.Attribute) and id(node) in self._uses:
            self.parts += [self._uses[id(node)][1], type(node.ctx).__name__]
        elif isinstance(node, FUNCTIONS):
            self._put_function(node, named=True)
        elif isinstance(node, ast.ClassDef):
            self._put_class(node)
        elif id(node) in self._statement.skipped and isinstance(node, ast.If):
            self._put_block(node.orelse)
        elif isinstance(node, ast.AnnAssign) and node.simple and not self._whole:
            self._put(ast.Assign(targets=[node.target], value=node.value) if node.value else None)
        else:
            self._put_fields(node)

    def _put_fields(self, node: ast.AST) -> None:
        self.parts.append(f"({type(node).__name__}")
        for name in node._fields:
            value = getattr(node, name, None)
            if name in _IGNORED or value is None or value == []:
                continue
            if isinstance(node, ast.JoinedStr):
                value = _join_literals(node.values)
            self.parts.append(f" {name}=")
            if name in ("body", "orelse", "finalbody") and isinstance(value, list):
                self._put_block(value)
            elif isinstance(node, _NAMED) and isinstance(value, str) and value in self._renamed:
                self.parts.append(self._number(value))
            else:
                self._put(value)
        self.parts.append(")")

    def _put_name(self, node: ast.Name) -> None:
        _, meaning = self._uses.get(id(node), (node, None))
        if id(node) in self._statement.in_class:
            self.parts.append(f"{node.id}@")
        if node.id in self._renamed and meaning is None:
            self.parts.append(self._number(node.id))
        else:
            self.parts.append(node.id if meaning is None else meaning)

    def _number(self, name: str) -> str:
        if not self._renamed[name]:
            self._renamed[name] = f"${sum(map(bool, self._renamed.values()))}"
        return self._renamed[name]

    def _put_block(self, body: Sequence[ast.stmt]) -> None:
        self.parts.append("{")
        for each in body:
            if not self._is_silent(each):
                self._put(each)
                self.parts.append(";")
        self.parts.append("}")

    def _is_silent(self, node: ast.stmt) -> bool:
        """Tell `pass`, bare literals, and messages of names and literals."""
        match node:
            case ast.Pass() | ast.Expr(value=ast.Constant()):
                return True
            case ast.Expr(value=ast.Call() as call) if self._judge.is_output(call):
                values = [*call.args, *(keyword.value for keyword in call.keywords)]
                return all(self._is_shown(part) for value in values for part in ast.walk(value))
        return False

    def _is_shown(self, node: ast.AST) -> bool:
        """Tell whether a part of a message does nothing: it is no name that nothing binds."""
        return isinstance(node, _PLAIN) and self._uses.get(id(node), (node, ("",)))[1][0] != "unknown"

    def _put_class(self, node: ast.ClassDef) -> None:
        known = all(map(self._judge.is_decorator, node.decorator_list))
        body = node.body if self._whole or not known else _without_docstring(node)
        self.parts.append(f"(class {node.name}")
        for field in (node.bases, node.keywords, node.decorator_list, getattr(node, "type_params", [])):
            self.parts.append("|")
            self._put(field)
        for each in body:
            if isinstance(each, ast.AnnAssign):
                self._put_fields(each)
            else:
                self._put(each)
        self.parts.append(")")

    def _put_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, *, named: bool) -> None:
        known = all(self._judge.is_decorator(each, node.name) for each in node.decorator_list)
        whole = self._whole or not known
        arguments = node.args
        self.parts.append(f"({type(node).__name__} {node.name if named or whole else ''}")
        for field in (node.decorator_list, arguments.defaults, arguments.kw_defaults):
            self.parts.append("|")
            self._put(field)
        hinted = [each for each in ast.walk(arguments) if isinstance(each, ast.arg) and each.annotation]
        for each in (*(each.annotation for each in hinted), node.returns) if whole else ():
            self._put(each)
        self.parts.append(_show_parameters(arguments, [each.arg for each in hinted] if whole else []))
        outer = self._renamed
        if whole:
            self._put(ast.get_docstring(node, clean=False))
        elif not outer:
            self._renamed = _local_names(node)
        self._put_block(node.body)
        self._renamed = outer
        self.parts.append(")")


_PLAIN = (ast.Constant, ast.JoinedStr, ast.FormattedValue, ast.Name, ast.Load)


def _without_docstring(node: ast.ClassDef) -> list[ast.stmt]:
    return node.body if ast.get_docstring(node, clean=False) is None else node.body[1:]


def _show_parameters(arguments: ast.arguments, hinted: Sequence[str]) -> str:
    kinds = [[a.arg for a in each] for each in (arguments.posonlyargs, arguments.args, arguments.kwonlyargs)]
    return f"{kinds} {[each and each.arg for each in (arguments.vararg, arguments.kwarg)]} {hinted}"


def _local_names(node: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, str]:
    """Return the variables of a function that are numbered, since nothing can see their names."""
    inside = [part for each in node.body for part in ast.walk(each)]
    names = {part.id for part in inside if isinstance(part, ast.Name)}
    if names & _NAMESPACES:
        return {}
    found = {part.id for part in inside if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    found |= bind_names(node.body)[0]
    kept = parameters(node.args)
    for part in inside:
        match part:
            case ast.Global(names=declared) | ast.Nonlocal(names=declared):
                kept.update(declared)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                kept |= {name} | parameters(part.args)
            case ast.Lambda(args=arguments):
                kept |= parameters(arguments)
            case ast.ClassDef(name=name, body=body):
                kept |= {name} | bind_names(body)[0]
            case ast.Constant(value=str(text)):
                kept.update(_WORD.findall(text))
            case ast.alias(name=name):
                kept |= {name.partition(".")[0], part.asname or name}
    return dict.fromkeys(found - kept, "")


def _join_literals(parts: Sequence[ast.expr]) -> list[ast.expr]:
    """Join the literals of an f-string; Python 3.12 splits them differently."""
    joined: list[ast.expr] = []
    for part in parts:
        if not (isinstance(part, ast.Constant) and isinstance(part.value, str)):
            joined.append(part)
        elif joined and isinstance(last := joined[-1], ast.Constant) and isinstance(last.value, str):
            joined[-1] = ast.Constant(value=last.value + part.value)
        elif part.value:
            joined.append(part)
    return joined
