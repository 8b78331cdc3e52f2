"""Staleness: which rows on disk were evaluated with inputs that changed since, as the workers' files tell.

An input counts for the row that read it and for all rows that its process evaluated after it, since `execute`
may keep what it read; with ``stateless = True`` for the row alone. What was read while the task file was
loaded counts for all rows of the process, unless only the space reaches the statement that read it: then only
the space is evaluated again. Where nothing is known of a row's inputs, it is not stale by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.source import find_parts, input_state
from psyrun.workdir import (
    RECEIPTS,
    list_journals,
    parse_name,
    read_first_records,
    read_reads,
    unpack_receipts,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from psyrun.source import Source, SourceCache
    from psyrun.task import Outline
    from psyrun.workdir import Input, JournalFile, Plan, RowReceipt
    from psyrun.workdir.journal import Block


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Inputs that changed since rows read them.

    Parameters
    ----------
    inputs
        (run, child) -> its inputs that changed and count for rows, in the order of their numbers.
    states
        ``<kind> <path>`` -> state of now, of all inputs that changed.
    space
        Whether an input of the space changed.
    stateless
        Whether an input counts only for the row that read it, and those read while loading.
    """

    inputs: Mapping[tuple[str, int], Sequence[Input]]
    states: Mapping[str, str | None]
    space: bool
    stateless: bool

    def stale_rows(self, journals: Iterable[JournalFile], size: int) -> dict[int, str]:
        """Return the rows of a batch that are stale -> the path of an input that changed."""
        found: dict[int, str] = {}
        for journal, block, fresh in read_first_records(journals, rows=size) if self.inputs else ():
            named = parse_name(journal.path.name)
            changed = self.inputs.get((named[1] if named else "", block.header.counts.child), ())
            if not changed or changed[0].number > block.header.counts.inputs:
                continue
            chosen = {block.rows[place] for place in fresh}
            for row, receipt in _each_row(block):
                path = self._find(changed, receipt)
                if row in chosen and path is not None:
                    found[row] = path
        return found

    def _find(self, changed: Sequence[Input], receipt: RowReceipt) -> str | None:
        """Return the path of the first changed input that counts for a row."""
        for each in changed:
            own = each.number >= receipt.reads or each.loading or not self.stateless
            if own and each.number <= receipt.inputs:
                return each.path
        return None


NO_CHANGES = Changes(inputs={}, states={}, space=False, stateless=False)


def _each_row(block: Block) -> Iterator[tuple[int, RowReceipt]]:
    rows = iter(block.rows)
    for n, receipt in unpack_receipts(block.sections.get(RECEIPTS, b"")):
        for _, row in zip(range(n), rows):
            yield row, receipt


def find_changes(outline: Outline, plan: Plan | None, cache: SourceCache) -> Changes:
    """Look at the inputs that rows on disk have read; each file is read again only if it was touched.

    Parameters
    ----------
    outline
        The task.
    plan
        Its plan: inputs whose state is one that `--continue` accepted do not count as changed.
    cache
        Digests of files read before.
    """
    runs = {named[1] for path in outline.layout.out.glob("*-*") if (named := parse_name(path.name))}
    reads = {run: read_reads(outline.layout.out / f"{run}.reads") or [] for run in sorted(runs)}
    accepted = plan.accepted if plan is not None else {}
    states: dict[str, str | None] = {}
    everything = [each for inputs in reads.values() for each in inputs]
    for each in everything:
        key = f"{each.kind} {each.path}"
        if key not in states:
            states[key] = input_state(outline.root, each.kind, each.path, cache, by_stat=each.digest is None)
    gone = _outside_is_gone(everything, states)
    changed = {
        (run, each.child, each.number): each
        for run, inputs in reads.items()
        for each in inputs
        if states[f"{each.kind} {each.path}"]
        not in (_recorded(each), accepted.get(f"{each.kind} {each.path}", ()))
        and not (gone and Path(each.path).is_absolute())
    }
    of_space = {} if plan is None else plan.inputs
    space = any(_state_of(outline, key, cache) != was for key, was in of_space.items())
    return _attribute(outline, changed, states, space=space) if changed or space else NO_CHANGES


def _state_of(outline: Outline, key: str, cache: SourceCache) -> str | None:
    kind, _, path = key.partition(" ")
    return input_state(outline.root, kind, path, cache)


def _recorded(each: Input) -> str | None:
    return each.digest if each.digest is not None else f"{each.size} {each.mtime}"


def _outside_is_gone(inputs: Sequence[Input], states: Mapping[str, str | None]) -> bool:
    """Whether no input outside of the project is there: the project was copied to another machine."""
    outside = [each for each in inputs if Path(each.path).is_absolute() and each.kind == "file"]
    return bool(outside) and all(states[f"{each.kind} {each.path}"] is None for each in outside)


def _attribute(
    outline: Outline,
    changed: Mapping[tuple[str, int, int], Input],
    states: Mapping[str, str | None],
    *,
    space: bool,
) -> Changes:
    """Tell inputs of rows from those that only the space reaches."""
    loading = [each for each in changed.values() if each.loading]
    only_space = _find_space_only(outline.source, {each.place for each in loading})
    inputs: dict[tuple[str, int], list[Input]] = {}
    for (run, child, _), each in sorted(changed.items(), key=lambda item: item[0]):
        if not (each.loading and each.place in only_space):
            inputs.setdefault((run, child), []).append(each)
    keys = {f"{each.kind} {each.path}" for each in changed.values()}
    return Changes(
        inputs=inputs,
        states={key: states[key] for key in sorted(keys)},
        space=space,
        stateless=outline.stateless,
    )


def _find_space_only(source: Source, places: set[str]) -> set[str]:
    """Return the places, as ``file:line``, of statements that only the space reaches."""
    if not places:
        return set()
    found = set()
    for (path, first, last), part in find_parts(source).items():
        if part == "space":
            found |= {each for each in places if _lies_in(each, path, first, last)}
    return found


def _lies_in(place: str, path: str, first: int, last: int) -> bool:
    file, _, line = place.rpartition(":")
    return file == path and line.isdecimal() and first <= int(line) <= last


def count_stale_rows(outline: Outline, plan: Plan, changes: Changes) -> dict[str, int]:
    """Return path of an input -> wanted rows of the plan that are stale because of it."""
    counts: dict[str, int] = {}
    journals: Mapping[Any, Any] = list_journals(outline.layout.out) if changes.inputs else {}
    wanted = plan.wanted_rows()
    for batch in plan.batches if changes.inputs else ():
        for row, path in changes.stale_rows(journals.get(batch.key, ()), batch.size).items():
            if batch.number not in wanted or row in wanted[batch.number]:
                counts[path] = counts.get(path, 0) + 1
    return counts


def is_stale(outline: Outline, plan: Plan, changes: Changes) -> bool:
    """Whether the space, or a wanted row of a plan, was made with inputs that changed."""
    return changes.space or bool(count_stale_rows(outline, plan, changes))


def accept(old: Plan | None, changes: Changes) -> dict[str, str | None]:
    """Return the states of inputs that count as those which rows have read, once these are accepted."""
    return {**(old.accepted if old is not None else {}), **changes.states}
