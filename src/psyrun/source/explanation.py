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
    from collections.abc import Iterator, Sequence

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
    reasons = _Reasons(analysis)
    verdicts = [
        Verdict(
            path=each.path,
            line=each.node.lineno,
            title=_title(each),
            code=each in analysis.code,
            space=each in analysis.space,
            acts=each in reasons.acting,
            reason=reasons.of(each),
            packages=_packages(program, each),
            imports=(each not in reasons.acting and isinstance(each.node, (*_IMPORTS, ast.Pass)))
            or _is_text(each),
        )
        for each in program.home
    ]
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


class _Reasons:
    """Why statements count."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        counted = analysis.code | analysis.space
        self.acting = {each for each in analysis.known.acting if each in counted}
        roots = [each for name in ("execute", "setup", "pspace") for each in analysis.bound(name)]
        self._roots = set(roots)
        self._unnamed = set(analysis.unnamed())
        self._made = set(analysis.made)
        self._by: dict[Statement, Statement] = {}
        order = {each: place for place, each in enumerate(analysis.program.home)}
        queue = [*roots, *sorted(self.acting, key=order.__getitem__)]
        seen = set(queue)
        for each in queue:  # grows
            read, _ = analysis.program.reads(each)
            for other in sorted((read & counted) - seen, key=order.__getitem__):
                seen.add(other)
                self._by[other] = each
                queue.append(other)

    def of(self, statement: Statement) -> str:
        """Return why a statement counts, in words."""
        analysis = self._analysis
        if statement not in analysis.code and statement not in analysis.space:
            return ""
        if statement in self.acting:
            act = _shorten(ast.unparse(Judge(analysis.known, statement).find_act()))
            return "may do something" if act == _title(statement) else f"may do something: {act}"
        if statement in self._roots:
            return ""
        if statement in self._unnamed:
            return "no import statement names its module"
        if statement in self._by:
            reader = _title(self._by[statement])
            made = ", and parameters may be made of it" if statement in self._made else ""
            return f"read by {reader}{made}"
        return ""


def _find_hidden(analysis: Analysis) -> str:
    """Return why the text does not show what is reached; empty where it does."""
    program = analysis.program
    if not analysis.code >= set(program.home):
        return ""
    if program.has_foreign_star:
        return "import * of an installed package may bind any name"
    for each in _reached(analysis):
        if program.reads(each)[1]:
            return f"{each.path}:{each.node.lineno} may reach names that its text does not show"
    return ""


def _reached(analysis: Analysis) -> Iterator[Statement]:
    """Yield the statements that `execute`, `setup` and those that may do something lead to."""
    queue = [*analysis.bound("execute"), *analysis.bound("setup"), *analysis.acting]
    seen = set(queue)
    for each in queue:  # grows
        yield each
        more = analysis.program.reads(each)[0] - seen
        seen |= more
        queue += more
