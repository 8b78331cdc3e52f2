"""Staleness: which rows on disk were evaluated with inputs that changed since, as the workers' files tell.

An input counts for the row that read it and for all rows that its process evaluated after it, since `execute`
may keep what it read; with ``stateless = True`` for the row alone. What was read while the task file was
loaded counts for all rows of the process, unless only the space reaches the statement that read it: then only
the space is evaluated again. A row is stale, too, where it counts inputs that are not known any more.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from psyrun.source import find_parts
from psyrun.split.states import KINDS, InputStates, lies_in, recorded_state
from psyrun.workdir import (
    Source,
    block_sources,
    is_current,
    list_journals,
    list_reads,
    read_first_records,
    read_needed,
    read_receipt,
    read_receipts,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from psyrun.source import Source as Sources
    from psyrun.source import SourceCache
    from psyrun.task import Outline
    from psyrun.workdir import Input, JournalFile, Layout, Plan


_MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Inputs that changed since rows read them.

    Parameters
    ----------
    inputs
        (run, child) -> its inputs that changed and count for rows, in the order of their numbers.
    states
        ``<kind> <path>`` -> state of now, of all inputs that changed, and of files of inputs that are lost.
    space
        Whether an input of the space changed.
    stateless
        Whether an input counts only for the row that read it, and those read while loading.
    unseen
        A declared file that changed and that nothing was seen to read: it counts for rows of whose inputs
        nothing is known, too.
    known
        (run, child) -> the highest number of its inputs that is known; None: all counts as known.
    folder
        The folder of the files of inputs, relative to the project root.
    gone
        Files outside of the project that rows read and that are gone, where all of them are: they count as
        unchanged.
    varying
        Paths of inputs that rows seem to change -> their kind.
    accepted
        ``<kind> <path>`` -> state that `--continue` accepted, of inputs that are in this state yet.
    """

    inputs: Mapping[tuple[str, int], Sequence[Input]] = field(default_factory=dict)
    states: Mapping[str, str | None] = field(default_factory=dict)
    space: bool = False
    stateless: bool = False
    unseen: str | None = None
    known: Mapping[tuple[str, int], int] | None = None
    folder: str = ""
    gone: Sequence[str] = ()
    varying: Mapping[str, str] = field(default_factory=dict)
    accepted: Mapping[str, str | None] = field(default_factory=dict)

    def accept(self) -> dict[str, str | None]:
        """Return the states of inputs that count as those that rows read, once `--continue` accepts these."""
        return {**self.accepted, **self.states}

    def stale_rows(self, journals: Sequence[JournalFile], size: int) -> dict[int, str]:
        """Return the rows of a batch that are stale -> the path of an input that changed, or was lost."""
        found: dict[int, str] = {}
        if not (self.inputs or self.unseen is not None):
            needed = {} if self.known is None else read_needed(journals, self.known, rows=size)
            if not any(map(self.is_lost, needed.items())):
                return found
        for row, source in _row_sources(journals, size).items():
            path = self.find(source)
            if path is not None:
                found[row] = path
        return found

    def is_lost(self, needed: tuple[tuple[str, int], int]) -> bool:
        """Whether the inputs of (run, child) are not known up to a number, and that is not accepted."""
        (run, child), number = needed
        if self.known is None or number <= self.known.get((run, child), 0):
            return False
        return _key_of_file(self.folder, run) not in self.accepted

    def find(self, source: Source) -> str | None:
        """Return the path of the first changed input that counts for a row; the folder where it was lost."""
        worker = source.run, source.child
        if self.unseen is not None and worker not in (self.known or ()):
            return self.unseen
        if self.is_lost((worker, source.inputs)):
            return f"{self.folder}/"
        for each in self.inputs.get(worker, ()):
            own = each.number >= source.reads or each.loading or not self.stateless
            if own and each.number <= source.inputs:
                return each.path
        return None


NO_CHANGES = Changes()


def _key_of_file(folder: str, run: str) -> str:
    return f"file {folder}/{run}.reads"


def _row_sources(journals: Iterable[JournalFile], size: int) -> dict[int, Source]:
    """Return the rows of a batch that ended -> what tells which inputs count for them."""
    done: dict[int, Source] = {}
    failed: dict[int, tuple[float, Source]] = {}  # The last failure counts.
    for journal, block, fresh in read_first_records(journals, rows=size):
        sources = (repeat(source, n) for n, source in block_sources(journal.path.name, block))
        order = [*block.rows, *(failure.row for failure in block.failures)]
        chosen = {block.rows[place] for place in fresh}
        for place, (row, source) in enumerate(zip(order, chain.from_iterable(sources))):
            if place >= len(block.rows):
                failed[row] = max(failed.get(row, (0, source)), (journal.mtime, source), key=itemgetter(0))
            elif row in chosen:
                done[row] = source
    return {row: source for row, (_, source) in failed.items()} | done


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
    layout = outline.layout
    reads = list_reads(layout.reads)
    codes = {
        run: next((each.path for each in all_ if each.kind == "code"), "") for run, all_ in reads.items()
    }
    products: dict[str, set[str]] = {code: set() for code in codes.values()}
    for run, inputs in reads.items():
        products[codes[run]].update(each.path for each in inputs if each.kind == "product")
    states = InputStates(outline, cache, products)
    accepted = {} if plan is None else plan.accepted
    accepted = {key: state for key, state in accepted.items() if states.of_key(key) == state}
    changed = {
        (run, each.child, each.number): each
        for run, inputs in reads.items()
        for each in inputs
        if each.kind in KINDS
        and each.path not in products[codes[run]]
        and f"{each.kind} {each.path}" not in accepted
        and states.of(each, codes[run]) != recorded_state(each)
        and states.counts(f"{each.kind} {each.path}")
    }
    gone = _find_gone(changed.values(), reads)
    changed = {key: each for key, each in changed.items() if each.path not in gone}
    before: dict[str, str | None] = {}
    if plan is not None:
        before = {**{f"declared {path}": state for path, state in plan.data.items()}, **plan.inputs}
    moved = {
        key
        for key, state in before.items()
        if key not in accepted and states.of_key(key) != state and states.counts(key)
    }
    changes = NO_CHANGES
    if changed or moved:
        changes = _attribute(outline, plan, _Known(reads, codes), changed, moved, states)
    known = {(run, each.child): each.number for run, inputs in reads.items() for each in inputs}
    changes = replace(changes, accepted=accepted, known=known, folder=layout.relative(layout.reads))
    changes = replace(
        changes, gone=sorted(gone), varying=_find_varying(changed, set().union(*products.values()))
    )
    lost = {} if plan is None else filter(changes.is_lost, _find_needed(layout, plan, known).items())
    lost = lost if outline.track_inputs else ()
    keys = [_key_of_file(changes.folder, run) for (run, _), _ in lost]
    return replace(changes, states={**changes.states, **{key: states.of_key(key) for key in keys}})


def _find_needed(
    layout: Layout, plan: Plan, known: Mapping[tuple[str, int], int]
) -> dict[tuple[str, int], int]:
    """Return (run, child) -> the highest number of its inputs that counts for a row of a plan."""
    receipt = read_receipt(layout.process)
    if receipt is not None and receipt.get("table") == plan.table_digest:
        return {(run, child): number for run, child, number in receipt.get("reads", ())}
    found: dict[tuple[str, int], int] = {}
    journals = list_journals(layout.out)
    for batch in plan.batches:
        needed = read_needed(journals.get(batch.key, ()), known, rows=batch.size)
        for key, number in needed.items():
            found[key] = max(number, found.get(key, 0))
    return found


def _find_gone(changed: Iterable[Input], reads: Mapping[str, Sequence[Input]]) -> set[str]:
    """Return what changed outside of the project where no file of it is there: it was copied elsewhere."""
    outside = {each.path for each in changed if Path(each.path).is_absolute()}
    read = {each.path for inputs in reads.values() for each in inputs if each.kind == "file"}
    there = any(Path(path).exists() for path in outside.union(filter(os.path.isabs, read)))
    return set() if there else outside


def _find_varying(changed: Mapping[tuple[str, int, int], Input], products: Collection[str]) -> dict[str, str]:
    """Return path -> kind of inputs that rows seem to change.

    These are files of which rows of one worker read more than two states, and listings of folders that rows
    write into.
    """
    states: dict[tuple[str, str], set[str | None]] = {}
    listings: dict[str, str] = {}
    for (run, _, _), each in changed.items():
        if each.kind not in ("folder", "glob"):
            states.setdefault((run, each.path), set()).add(recorded_state(each))
        elif each.path not in listings:
            folder = each.path if each.kind == "folder" else _MAGIC.split(each.path)[0].rpartition("/")[0]
            if any(path.startswith(f"{folder}/") for path in products):
                listings[each.path] = each.kind
    return {path: "file" for (_, path), found in states.items() if len(found) > 2} | listings


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of inputs: worker -> what its children read, and worker -> the code of its rows."""

    reads: Mapping[str, Sequence[Input]]
    codes: Mapping[str, str]

    def places(self) -> set[str]:
        """Return the statements that read something while the task file was loaded."""
        return {each.place for inputs in self.reads.values() for each in inputs if each.loading}


def _attribute(
    outline: Outline,
    plan: Plan | None,
    known: _Known,
    changed: Mapping[tuple[str, int, int], Input],
    moved: Collection[str],
    states: InputStates,
) -> Changes:
    """Tell which changes count for rows, and which for the space.

    Parameters
    ----------
    outline, plan
        The task, and its plan.
    known
        What is known of inputs.
    changed
        The inputs of rows that changed.
    moved
        ``<kind> <path>`` of the inputs of the space, and of declared files, that changed.
    states
        States of now.
    """
    only_space = find_space_only(outline.source, known.places())

    def counts_for_rows(each: Input) -> bool:
        return not (each.loading and each.place in only_space)

    by_rows: dict[str, set[str]] = (
        {} if plan is None else {plan.code: set()}
    )  # code -> files that its rows read
    for run, code in known.codes.items():
        read = (each.path for each in known.reads[run] if each.kind == "file" and counts_for_rows(each))
        by_rows.setdefault(code, set()).update(read)
    by_space = {key.partition(" ")[2] for key in (plan.inputs if plan else ()) if key.startswith("file ")}
    inputs: dict[tuple[str, int], list[Input]] = {}
    for (run, child, _), each in sorted(changed.items(), key=lambda item: item[0]):
        seen = each.kind == "declared" and each.path in by_rows[known.codes[run]] | by_space
        if counts_for_rows(each) and not seen:
            inputs.setdefault((run, child), []).append(each)
    declared = {key.partition(" ")[2] for key in moved if key.startswith("declared ")}
    unseen = sorted(declared - by_space - (by_rows[plan.code] if plan is not None else set()))
    keys = {f"{each.kind} {each.path}" for each in changed.values()} | set(moved)
    return Changes(
        inputs=inputs,
        states={key: states.of_key(key) for key in sorted(keys)},
        space=bool(unseen) or any(not key.startswith("declared ") for key in moved),
        stateless=outline.stateless,
        unseen=unseen[0] if unseen else None,
    )


def find_space_only(source: Sources, places: set[str]) -> set[str]:
    """Return the places, as ``file:line``, of statements that only the space reaches."""
    if not places:
        return set()
    found = set()
    for (path, first, last), part in find_parts(source).items():
        if part == "space":
            found |= {each for each in places if lies_in(each, path, first, last)}
    return found


def count_sources(layout: Layout, plan: Plan) -> Counter[Source]:
    """Return what tells which inputs count for a wanted row of a plan -> how many such rows ended.

    Where the result is current, its receipts say so, also where journals were removed.
    """
    receipt = read_receipt(layout.receipt) if is_current(layout, plan) else None
    runs = list(read_receipts(layout.row_receipts, receipt["process"]).sources()) if receipt else []
    found: Counter[Source] = Counter()
    for n, source in runs:
        found[source] += n
    journals, wanted = list_journals(layout.out), plan.wanted_rows()
    for batch in plan.batches if not runs else ():
        rows = wanted.get(batch.number, range(batch.size))
        sources = _row_sources(journals.get(batch.key, ()), batch.size)
        found.update(source for row, source in sources.items() if row in rows)
    return found


def count_stale_rows(outline: Outline, plan: Plan, changes: Changes) -> dict[str, int]:
    """Return path of an input -> wanted rows of the plan that are stale because of it."""
    counts: Counter[str] = Counter()
    for source, rows in count_sources(outline.layout, plan).items() if changes.states else ():
        path = changes.find(source)
        if path is not None:
            counts[path] += rows
    return dict(counts)


def is_stale(outline: Outline, plan: Plan, changes: Changes) -> bool:
    """Whether the space, or a wanted row of a plan, was made with inputs that changed."""
    return changes.space or bool(count_stale_rows(outline, plan, changes))
