"""Staleness: which rows on disk were evaluated with inputs that changed since, as the workers' files tell.

An input counts for the row that read it and for all rows that its process evaluated after it, since `execute`
may keep what it read; with ``stateless = True`` for the row alone. What was read while the task file was
loaded counts for all rows of the process, unless only the space reaches the statement that read it: then only
the space is evaluated again. Where nothing is known of a row's inputs, it is not stale by them.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from psyrun.disk import take_stamp
from psyrun.source import Observer, TrackedPaths, describe_existence, find_parts
from psyrun.workdir import (
    RECEIPTS,
    list_journals,
    parse_name,
    read_first_records,
    read_reads,
    unpack_receipts,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from psyrun.disk import Stamp
    from psyrun.source import Source, SourceCache
    from psyrun.task import Outline
    from psyrun.workdir import Input, JournalFile, Plan, RowReceipt
    from psyrun.workdir.journal import Block


_FILES = ("file", "declared")
KINDS = ("file", "declared", "folder", "glob", "exists")


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
    unseen
        A declared file that changed and that nothing was seen to read: it counts for rows of whose inputs
        nothing is known, too.
    runs
        The workers whose inputs are known.
    accepted
        ``<kind> <path>`` -> state that `--continue` accepted, of inputs that are in this state yet.
    """

    inputs: Mapping[tuple[str, int], Sequence[Input]]
    states: Mapping[str, str | None]
    space: bool
    stateless: bool
    unseen: str | None
    runs: Collection[str]
    accepted: Mapping[str, str | None] = field(default_factory=dict)

    def accept(self) -> dict[str, str | None]:
        """Return the states of inputs that count as those that rows read, once `--continue` accepts these."""
        return {**self.accepted, **self.states}

    def stale_rows(self, journals: Iterable[JournalFile], size: int) -> dict[int, str]:
        """Return the rows of a batch that are stale -> the path of an input that changed."""
        found: dict[int, str] = {}
        if not self.inputs and self.unseen is None:
            return found
        for journal, block, fresh in read_first_records(journals, rows=size):
            named = parse_name(journal.path.name)
            run, chosen = named[1] if named else "", {block.rows[place] for place in fresh}
            if run not in self.runs and self.unseen is not None:
                found |= dict.fromkeys(chosen, self.unseen)
            changed = self.inputs.get((run, block.header.counts.child), ())
            if changed and changed[0].number <= block.header.counts.inputs:
                paths = ((row, self._find(changed, receipt)) for row, receipt in _each_row(block))
                found |= {row: path for row, path in paths if path is not None and row in chosen}
        return found

    def _find(self, changed: Sequence[Input], receipt: RowReceipt) -> str | None:
        """Return the path of the first changed input that counts for a row."""
        for each in changed:
            own = each.number >= receipt.reads or each.loading or not self.stateless
            if own and each.number <= receipt.inputs:
                return each.path
        return None


NO_CHANGES = Changes(inputs={}, states={}, space=False, stateless=False, unseen=None, runs=())


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
    reads = {path.stem: read_reads(path) or [] for path in sorted(outline.layout.out.glob("*.reads"))}
    products = {each.path for inputs in reads.values() for each in inputs if each.kind == "product"}
    states = InputStates(outline, cache, products)
    accepted = {} if plan is None else plan.accepted
    accepted = {key: state for key, state in accepted.items() if states.of_key(key) == state}
    changed = {
        (run, each.child, each.number): each
        for run, inputs in reads.items()
        for each in inputs
        if each.kind in KINDS
        and each.path not in products
        and f"{each.kind} {each.path}" not in accepted
        and states.of(each) != _recorded(each)
    }
    if _outside_is_gone(changed.values(), reads):
        changed = {key: each for key, each in changed.items() if not Path(each.path).is_absolute()}
    before: dict[str, str | None] = {}
    if plan is not None:
        before = {**{f"declared {path}": state for path, state in plan.data.items()}, **plan.inputs}
    moved = {key for key, state in before.items() if key not in accepted and states.of_key(key) != state}
    changes = _attribute(outline, plan, reads, changed, moved, states) if changed or moved else NO_CHANGES
    return replace(changes, accepted=accepted)


class InputStates:
    """States of inputs as they are now, each looked at once.

    Parameters
    ----------
    outline
        The task.
    cache
        Digests of files read before.
    products
        Paths that rows of the task wrote, which count nowhere.
    """

    def __init__(self, outline: Outline, cache: SourceCache, products: Collection[str] = ()) -> None:
        self._root, self._cache, self._products = outline.root, cache, products
        self._paths = tracked_paths(outline)
        self._states: dict[tuple[str, str, bool], str | None] = {}
        self._stamps: dict[str, Stamp | None] = {}

    def of(self, each: Input) -> str | None:
        """Return the state of an input as it would be recorded now; None where there is no such file.

        A file is not read where its stamp is the one that the worker noted with the digest.
        """
        if each.inode is not None and self._stamp(each.path) == each.stamp:
            return each.digest
        return self.of_key(f"{each.kind} {each.path}", by_stat=each.kind in _FILES and each.digest is None)

    def of_key(self, key: str, *, by_stat: bool = False) -> str | None:
        """Return the state of ``<kind> <path>``; size and mtime instead of the content where `by_stat`."""
        kind, _, path = key.partition(" ")
        if (kind, path, by_stat) not in self._states:
            self._states[kind, path, by_stat] = self._look(kind, path, by_stat)
        return self._states[kind, path, by_stat]

    def _look(self, kind: str, path: str, by_stat: bool) -> str | None:
        if kind == "folder":
            return self._paths.digest_listing(path, self._products)
        if kind == "glob":
            return self._paths.digest_matches(path, self._products)
        if kind == "exists":
            return describe_existence(self._paths.locate(path))
        stamp = self._stamp(path)
        if stamp is None or by_stat:
            return None if stamp is None else f"{stamp[0]} {stamp[1]}"
        with suppress(OSError):
            return self._cache.digest_file(path, self._paths.locate(path), stamp)
        return None

    def _stamp(self, path: str) -> Stamp | None:
        try:
            return self._stamps[path]
        except KeyError:
            stamp = self._stamps[path] = take_stamp(self._paths.locate(path))
            return stamp


def tracked_paths(outline: Outline) -> TrackedPaths:
    """Return the paths that count as inputs of a task."""
    return TrackedPaths(
        root=str(outline.root),
        folder=str((outline.root / outline.path).parent),
        work=str(outline.layout.folder),
        untracked=outline.untracked,
    )


def _recorded(each: Input) -> str | None:
    if each.kind in _FILES and each.digest is None:
        return f"{each.size} {each.mtime}"
    return each.digest


def _outside_is_gone(changed: Iterable[Input], reads: Mapping[str, Sequence[Input]]) -> bool:
    """Whether all files outside of the project that were read are gone: it was copied to another machine."""
    gone = {each.path for each in changed if Path(each.path).is_absolute() and not Path(each.path).exists()}
    read = {each.path for inputs in reads.values() for each in inputs if each.kind == "file"}
    return bool(gone) and gone >= {path for path in read if Path(path).is_absolute()}


def _attribute(
    outline: Outline,
    plan: Plan | None,
    reads: Mapping[str, Sequence[Input]],
    changed: Mapping[tuple[str, int, int], Input],
    moved: Collection[str],
    states: InputStates,
) -> Changes:
    """Tell which changes count for rows, and which for the space.

    Parameters
    ----------
    outline, plan
        The task, and its plan.
    reads
        Worker -> what its children read.
    changed
        The inputs of rows that changed.
    moved
        ``<kind> <path>`` of the inputs of the space, and of declared files, that changed.
    states
        States of now.
    """
    everything = [each for inputs in reads.values() for each in inputs]
    only_space = _find_space_only(outline.source, {each.place for each in everything if each.loading})

    def counts_for_rows(each: Input) -> bool:
        return not (each.loading and each.place in only_space)

    by_rows = {each.path for each in everything if each.kind == "file" and counts_for_rows(each)}
    by_space = {key.partition(" ")[2] for key in (plan.inputs if plan else ()) if key.startswith("file ")}
    inputs: dict[tuple[str, int], list[Input]] = {}
    for (run, child, _), each in sorted(changed.items(), key=lambda item: item[0]):
        seen = each.kind == "declared" and each.path in by_rows | by_space
        if counts_for_rows(each) and not seen:
            inputs.setdefault((run, child), []).append(each)
    declared = {key.partition(" ")[2] for key in moved if key.startswith("declared ")}
    unseen = sorted(declared - by_rows - by_space)
    keys = {f"{each.kind} {each.path}" for each in changed.values()} | set(moved)
    return Changes(
        inputs=inputs,
        states={key: states.of_key(key) for key in sorted(keys)},
        space=bool(unseen) or any(not key.startswith("declared ") for key in moved),
        stateless=outline.stateless,
        unseen=unseen[0] if unseen else None,
        runs=reads.keys(),
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
    if not changes.inputs and changes.unseen is None:
        return counts
    journals, wanted = list_journals(outline.layout.out), plan.wanted_rows()
    for batch in plan.batches:
        for row, path in changes.stale_rows(journals.get(batch.key, ()), batch.size).items():
            if batch.number not in wanted or row in wanted[batch.number]:
                counts[path] = counts.get(path, 0) + 1
    return counts


_WORDS = {"folder": "names in {}", "glob": "files {}", "exists": "whether there is {}"}


def name_input(key: str) -> str:
    """Return words for ``<kind> <path>`` of an input.

    Examples
    --------
    >>> name_input("file data/rates.csv"), name_input("glob data/*.csv")
    ('data/rates.csv', 'files data/*.csv')
    """
    kind, _, path = key.partition(" ")
    return _WORDS.get(kind, "{}").format(path)


def count_readers(outline: Outline, plan: Plan) -> dict[str, int]:
    """Return what rows were seen to read, in words -> rows of a plan that it counts for."""
    counts: Counter[str] = Counter()
    reads = {path.stem: read_reads(path) or [] for path in outline.layout.out.glob("*.reads")}
    loading = {each.place for inputs in reads.values() for each in inputs if each.loading}
    left_out = _find_space_only(outline.source, loading)
    for (run, child), rows in (_count_receipts(outline, plan) if reads else {}).items():
        first: dict[str, Input] = {}
        for each in reads.get(run, ()):
            kept = each.kind in KINDS and each.kind != "declared" and each.place not in left_out
            if each.child == child and kept:
                first.setdefault(name_input(f"{each.kind} {each.path}"), each)
        for name, each in first.items():
            whole = each.loading or not outline.stateless
            counts[name] += sum(
                n for (own, last), n in rows.items() if each.number <= last and (whole or each.number >= own)
            )
    return {name: rows for name, rows in counts.items() if rows}


def _count_receipts(outline: Outline, plan: Plan) -> dict[tuple[str, int], Counter[tuple[int, int]]]:
    """Return (run, child) -> first own input and inputs counted -> number of its rows."""
    found: dict[tuple[str, int], Counter[tuple[int, int]]] = {}
    journals = list_journals(outline.layout.out)
    for batch in plan.batches:
        for journal, block, fresh in read_first_records(journals.get(batch.key, ()), rows=batch.size):
            named, chosen = parse_name(journal.path.name), {block.rows[place] for place in fresh}
            child = named[1] if named else "", block.header.counts.child
            receipts = (receipt for row, receipt in _each_row(block) if row in chosen)
            found.setdefault(child, Counter()).update((each.reads, each.inputs) for each in receipts)
    return found


def is_stale(outline: Outline, plan: Plan, changes: Changes) -> bool:
    """Whether the space, or a wanted row of a plan, was made with inputs that changed."""
    return changes.space or bool(count_stale_rows(outline, plan, changes))


def observe_planning(outline: Outline) -> Observer:
    """Return an observer of what loading a task file and evaluating its space read; see `inputs_of_space`."""
    sources = {str(outline.root / name): name for name in outline.source.files}
    observer = Observer(tracked_paths(outline), sources)
    observer.declare(outline.file_dep)
    return observer


def inputs_of_space(outline: Outline, observer: Observer, cache: SourceCache) -> dict[str, str | None]:
    """Return ``<kind> <path>`` -> state of what was read, but for what only the code reads."""
    readings = [each for each in observer.take() if each.kind in KINDS]
    parts = find_parts(outline.source) if any(each.place for each in readings) else {}
    code = {(path, first, last) for (path, first, last), part in parts.items() if part == "code"}
    states = InputStates(outline, cache)
    found: dict[str, str | None] = {}
    for each in readings:
        if any(_lies_in(each.place, *statement) for statement in code):
            continue
        state = states.of_key(f"{each.kind} {each.path}")
        changed = each.kind in _FILES and states.of_key(f"file {each.path}", by_stat=True) != (
            f"{each.size} {each.mtime}"
        )
        found[f"{each.kind} {each.path}"] = "changed meanwhile" if changed else state
    return found
