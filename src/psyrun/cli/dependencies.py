"""What a task depends on, in words: statements of its files, packages, inputs."""

from __future__ import annotations

import textwrap
from itertools import accumulate, groupby
from typing import TYPE_CHECKING

from psyrun.cli.text import count
from psyrun.source import explain
from psyrun.split import count_readers, name_input
from psyrun.workdir import read_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from psyrun.source import Verdict
    from psyrun.task import Outline


_MOST = 25  # statements of a list; of more, those that may do something, and the names of the others
_MOST_ACTING = 12
_MOST_NAMES = 300  # characters
_WIDTH = 100
_FIXED = "\x1f"  # a blank inside a name, where no line is broken
_ALL = " (all of them: psy plan -v --all)".replace(" ", _FIXED)


def describe_dependencies(outline: Outline, *, everything: bool = False) -> Iterator[str]:
    """Yield lines about what the values and the space of a task depend on, and why.

    Parameters
    ----------
    outline
        The task.
    everything
        Whether to list all statements, however many there are.
    """
    explanation = explain(outline.source)
    code = [each for each in explanation.verdicts if each.code]
    if explanation.hidden:
        yield f"all that the files of the project hold counts, since {explanation.hidden}"
        yield from (f"  {path}: {count(len(list(part)), 'statement')}" for path, part in _by_file(code))
    else:
        yield from _describe_part("values depend on", code, everything=everything)
        if any(each.acts for each in code):
            yield "  what may do something when the file is loaded counts, whether anything reads it or not"
        space = [each for each in explanation.verdicts if each.space and not each.acts]
        yield from _describe_part("the space depends on", space, everything=everything)
        yield from _describe_rest(explanation.verdicts, everything=everything)
    packages = {name for each in code for name in each.packages}
    if packages:
        yield from _wrap(
            "installed packages, whose changes are not seen: ", sorted(packages), everything=True
        )
    yield from _describe_inputs(outline, everything=everything)


def _describe_inputs(outline: Outline, *, everything: bool) -> Iterator[str]:
    """Yield lines about what rows and the space of the last plan were seen to read."""
    plan = read_plan(outline.layout)
    readers = {} if plan is None else count_readers(outline, plan)
    if readers:
        yield "rows were seen to read"
        ranked = sorted(readers.items(), key=lambda item: (-item[1], item[0]))
        shown = ranked if everything else ranked[:_MOST]
        yield from (f"  {name}  {count(rows, 'row')}" for name, rows in shown)
        if len(ranked) > len(shown):
            yield f"  and {len(ranked) - len(shown):,} more{_ALL.replace(_FIXED, ' ')}"
    of_space = [] if plan is None else [key for key in plan.inputs if not key.startswith("declared ")]
    if of_space:
        yield "the space was seen to read"
        yield from (f"  {name_input(key)}" for key in sorted(of_space))
    unseen = [path for path in outline.file_dep if path not in readers and f"file {path}" not in of_space]
    if unseen:
        yield "file_dep that nothing was seen to read yet, which counts for values and space"
        yield from (f"  {path}" for path in unseen)


def _describe_part(title: str, verdicts: Iterable[Verdict], *, everything: bool) -> Iterator[str]:
    """Yield lines about statements that count; imports of packages are left to a line of their own."""
    chosen = [each for each in verdicts if not each.imports]
    if not chosen:
        return
    yield title
    if everything or len(chosen) <= _MOST:
        listed = {id(each) for each in chosen}
    else:
        acting = [each for each in chosen if each.acts and each.reason]
        roots = (each for each in chosen if not each.reason)
        listed = {id(each) for each in (*roots, *acting[:_MOST_ACTING])}
    for path, part in _by_file(chosen):
        statements = list(part)
        yield f"  {path}"
        yield from _list_statements([each for each in statements if id(each) in listed])
        rest = [each for each in statements if id(each) not in listed]
        for head, names in (
            ("may do something, too: ", [_cite(each) for each in rest if each.acts]),
            ("read by these, or by what they read: ", [_cite(each) for each in rest if not each.acts]),
        ):
            if names:
                yield from _wrap(f"    {head}", names, everything=False)


def _list_statements(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Yield a line for each statement: where it stands, what it binds, why it counts."""
    number = max((len(str(each.line)) for each in verdicts), default=0)
    width = min(30, max((len(each.title) for each in verdicts if each.reason), default=0))
    for each in verdicts:
        yield f"    {each.line:{number}}  {each.title:{width}}  {each.reason}".rstrip()


def _describe_rest(verdicts: Iterable[Verdict], *, everything: bool) -> Iterator[str]:
    """Yield a line about statements that do not count."""
    rest = [each for each in verdicts if not (each.code or each.space) and not each.imports]
    if not rest:
        return
    yield "proven to bind names only, which nothing of the above reads"
    for path, part in _by_file(rest):
        names = [_cite(each) for each in part]
        yield from _wrap(f"  {path}: ", names, everything=everything)


def _cite(verdict: Verdict) -> str:
    return f"{verdict.title} ({verdict.line})"


def _wrap(head: str, names: Sequence[str], *, everything: bool) -> Iterator[str]:
    """Yield names as lines of text, and how many more there are."""
    sizes = accumulate(len(name) + 2 for name in names)
    shown = len(names) if everything else max(1, sum(size <= _MOST_NAMES for size in sizes))
    more = f" and {len(names) - shown:,} more" + _ALL if shown < len(names) else ""
    indent = " " * (len(head) - len(head.lstrip()) + 2)
    text = head + ", ".join(name.replace(" ", _FIXED) for name in names[:shown]) + more
    for line in textwrap.wrap(text, _WIDTH, subsequent_indent=indent, break_long_words=False):
        yield line.replace(_FIXED, " ")


def _by_file(verdicts: Iterable[Verdict]) -> Iterator[tuple[str, Iterator[Verdict]]]:
    return groupby(verdicts, key=lambda each: each.path)
