"""Explanations: what each statement of a program counts for, and why, for users to see and to argue with."""

from __future__ import annotations

import ast
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psyrun.source.digests import Analysis, deep_recursion
from psyrun.source.judge import Judge
from psyrun.source.syntax import FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psyrun.source.archive import Source
    from psyrun.source.program import Program
    from psyrun.source.syntax import Statement


_LONGEST = 60  # characters of a statement
_IMPORTS = (ast.Import, ast.ImportFrom)
_BINDING = (*_IMPORTS, *FUNCTIONS, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.AugAssign)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a statement counts for.

    Parameters
    ----------
    path, line, title
        Its file and line, and the names that it binds, or the beginning of its text.
    code, space
        Whether values of `execute`, and the space, depend on it.
    acts
        Whether it may do something when it runs, so that it counts whatever reads its names.
    reason
        Why it counts, in words; empty where it does not, and for what psy itself calls.
    packages
        Installed packages that it uses.
    imports
        Whether it is an import, or text that nothing reads: not worth a line.
    """

    path: str
    line: int
    title: str
    code: bool
    space: bool
    acts: bool
    reason: str
    packages: Sequence[str]
    imports: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What counts in the sources of a task, and why.

    Parameters
    ----------
    verdicts
        Of all statements, in the order of the files.
    hidden
        Why everything counts, where it does: a place, and what it does.
    """

    verdicts: Sequence[Verdict]
    hidden: str


def explain(source: Source) -> Explanation:
    """Explain what counts in captured sources."""
    try:
        with deep_recursion():
            return _explain(source)
    except RecursionError:
        return Explanation(verdicts=(), hidden="an expression is too deep to be looked at")


def find_parts(source: Source) -> dict[tuple[str, int, int], str]:
    """Return what the top-level statements of captured sources count for.

    What a statement reads while the task file is loaded counts for the same.

    Returns
    -------
    dict
        Path, first and last line -> ``code``, ``space``, ``code and space``, or empty. Statements that share
        their lines count together. Empty where the sources are too deep to tell: then all counts for both.

    Raises
    ------
    TaskFileError
        If a file can't be parsed.
    """
    found: dict[tuple[str, int, int], set[str]] = {}
    with deep_recursion(), suppress(RecursionError):
        analysis = Analysis(source.task, source.conf, source.files, source.modules)
        for each in analysis.program.home:
            first = min(node.lineno for node in (each.node, *getattr(each.node, "decorator_list", [])))
            parts = found.setdefault((each.path, first, each.node.end_lineno or each.node.lineno), set())
            parts |= {"code"} if each in analysis.code else set()
            parts |= {"space"} if each in analysis.space else set()
    return {place: " and ".join(sorted(parts)) for place, parts in found.items()}


def _explain(source: Source) -> Explanation:
    analysis = Analysis(source.task, source.conf, source.files, source.modules)
    program = analysis.program
    verdicts = []
    for each in program.home:
        code, space = each in analysis.code, each in analysis.space
        acts = (code or space) and each in analysis.known.acting
        no_line = not acts and isinstance(each.node, (*_IMPORTS, ast.Pass))
        verdict = Verdict(
            path=each.path,
            line=each.node.lineno,
            title=_title(each),
            code=code,
            space=space,
            acts=acts,
            reason=_find_reason(analysis, each, acts=acts) if code or space else "",
            packages=_packages(program, each),
            imports=no_line or _is_text(each),
        )
        verdicts.append(verdict)
    return Explanation(verdicts=verdicts, hidden=_find_hidden(analysis))


def _title(statement: Statement) -> str:
    if statement.binds and isinstance(statement.node, _BINDING):
        return ", ".join(sorted(statement.binds))
    return _shorten(ast.unparse(statement.node))


def _is_text(statement: Statement) -> bool:
    return isinstance(statement.node, ast.Expr) and isinstance(statement.node.value, ast.Constant)


def _shorten(text: str) -> str:
    first, *more = text.splitlines() or [""]
    return first if len(first) <= _LONGEST and not more else f"{first[: _LONGEST - 4]} ..."


def _packages(program: Program, statement: Statement) -> Sequence[str]:
    """Return the installed packages that a statement uses."""
    foreign = [meaning[1] for _, meaning in program.uses(statement).values() if meaning[0] == "foreign"]
    return sorted({name.partition(".")[0] for name in foreign} - sys.stdlib_module_names - {"psyrun"})


def _find_reason(analysis: Analysis, statement: Statement, *, acts: bool) -> str:
    """Return why a statement counts, in words."""
    if acts:
        act = _shorten(ast.unparse(Judge(analysis.known, statement).find_act()))
        return "may do something" if act == _title(statement) else f"may do something: {act}"
    if any(statement in analysis.bound(name) for name in ("execute", "setup", "pspace")):
        return ""
    if statement in analysis.unnamed:
        return "no import statement names its module"
    reader = analysis.code.get(statement) or analysis.space.get(statement)
    made = ", and parameters may be made of it" if statement in analysis.made else ""
    return f"read by {_title(reader)}{made}" if reader else ""


def _find_hidden(analysis: Analysis) -> str:
    """Return why the text does not show what is reached; empty where it does."""
    if analysis.program.has_foreign_star:
        return "import * of an installed package may bind any name"
    if analysis.hiding is None:
        return ""
    place = f"{analysis.hiding.path}:{analysis.hiding.node.lineno}"
    return f"{place} may reach names that its text does not show"
