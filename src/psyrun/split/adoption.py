"""Adoption: which rows on disk a new plan takes over, and what `--continue` adds to them.

Every plan takes rows of its own code, except those that `--force` gave up. `--continue` adopts more, and
removes nothing:

- Rows of older code that have values. They count as current, for later plain runs too, until the code is
  edited again.
- Rows of the last plan that the space no longer names. They stay in the result, behind those of the space.
- Rows of files that psyrun did not write, which become a batch: a result, or what 0.8 left of an unfinished
  task.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psyrun.errors import FormatError, NewerFormatError
from psyrun.source import SCHEME, digest_sources, read_zip
from psyrun.split.staleness import NO_CHANGES
from psyrun.split.unmanaged import find_unmanaged, load_result, read_unmanaged
from psyrun.workdir import (
    file_digest,
    find_damaged_inputs,
    holds_rows,
    is_current,
    list_journals,
    read_inputs,
    read_progress,
    read_receipt,
    read_records,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from psyrun.options import RunOptions
    from psyrun.split.staleness import Changes
    from psyrun.task import Task
    from psyrun.workdir import Layout, Plan


_NUMBER = re.compile(r"([0-9]{1,15})\.")

Cell = tuple[int, int]  # batch number, row


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """A batch on disk whose rows a plan may use.

    Parameters
    ----------
    number, size
        Its number, and how many assignments it holds.
    tie
        Its tie; empty for a batch that is yet to be written.
    code
        Digest of the code that its rows are, or will be, evaluated with.
    columns
        Its assignments, parameter -> values (size,).
    done
        Rows that have values.
    origin
        Digest of the result file that its rows were adopted from, or None.
    stale
        Rows whose inputs changed: they get new numbers.
    replicates
        Which of equal rows its rows are, or None where nothing says so.
    """

    number: int
    size: int
    tie: str = ""
    code: str
    columns: Mapping[str, Sequence[Any]]
    done: Collection[int]
    origin: str | None = None
    stale: Collection[int] = ()
    replicates: Sequence[int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedRows:
    """Rows of a result: a batch that is yet to be written, and its values."""

    batch: Existing
    values: Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """What a new plan takes over.

    Parameters
    ----------
    batches
        Batches whose rows count: all of them for `--continue`, else those of the code and of adopted codes.
    codes
        Digests of older code whose rows count since an earlier `--continue`.
    since
        The lowest batch number that counts: `--force` gave up the batches before.
    tables
        Tables, as (batch number, rows), whose rows follow those of the space where it names fewer equal ones.
    results
        Rows of the result, which are among the batches: all, where psyrun did not write it and it is adopted
        now, else those whose input files were lost.
    damaged
        Numbers of the input files of the last plan that are not what was planned.
    next_batch
        The lowest number that no batch ever had.
    """

    batches: Sequence[Existing]
    codes: tuple[str, ...] = ()
    since: int = 0
    tables: Sequence[Iterable[tuple[int, range]]] = ()
    results: Sequence[AdoptedRows] = ()
    damaged: Sequence[int] = ()
    next_batch: int = 0

    def codes_after(self, plan: Plan) -> tuple[str, ...]:
        """Return the digests of older code whose rows count as current once there is a plan."""
        codes = {batch.number: batch.code for batch in self.batches}
        used = {codes[batch.number] for batch in plan.batches if batch.number in codes}
        return tuple(sorted(used.union(self.codes) - {plan.code}))

    def find_tail(
        self, placed: Collection[Cell], wanted: Iterable[Any], keys: Mapping[int, Sequence[Any]]
    ) -> list[Cell]:
        """Return the rows of the tables that have values, less as many equal ones as the space names.

        Parameters
        ----------
        placed
            The rows that were found for the space.
        wanted
            The keys of the rows of the space.
        keys
            Batch number -> the keys of its rows.
        """
        candidates = self._find_done(keys)
        if not candidates:
            return []
        named, taken = Counter(wanted), set(placed)
        tail = []
        # What the space took comes first; where it took newer ones, these stand for the first of the others.
        for number, row in sorted(candidates, key=lambda cell: cell not in taken):
            key = keys[number][row]
            named[key] -= 1
            if named[key] < 0:
                tail.append((number, row))
        return tail

    def _find_done(self, keys: Mapping[int, Sequence[Any]]) -> dict[Cell, None]:
        """Return the rows that have values; of equal rows, as many as the table with most of them has."""
        done = {batch.number: batch.done for batch in self.batches}
        found: dict[Cell, None] = {}
        most: Counter[Any] = Counter()
        for table in self.tables:
            count: Counter[Any] = Counter()
            for number, row in ((number, row) for number, rows in table for row in rows):
                if row in done.get(number, ()):
                    key = keys[number][row]
                    count[key] += 1
                    if count[key] > most[key]:
                        found[number, row] = None
            most |= count
        return found


def adopt(
    task: Task,
    code: str,
    old: Plan | None,
    options: RunOptions,
    space: Mapping[str, Sequence[Any]],
    changes: Changes,
) -> Adoption:
    """Find what a new plan takes over; write nothing.

    Parameters
    ----------
    task
        The task.
    code
        The digest of its code now.
    old
        Its plan, if there is one.
    options
        What the user asked for.
    space
        Parameter -> values.
    changes
        Inputs that changed since rows read them; with `--continue`, such rows count all the same.

    Raises
    ------
    DirtyError
        If rows that psyrun did not write can't be read.
    IdentityError
        If such rows can't be compared with those of the space.
    FormatError
        If an input file is damaged, or a newer psyrun wrote it.
    """
    layout = task.outline.layout
    number = _next_number(layout, old)
    codes = old.adopted if old is not None and old.code == code and not options.force else ()
    since = number if options.force else old.since if old is not None else 0
    planned = {} if old is None else {batch.number: batch.tie for batch in old.batches}
    changes = NO_CHANGES if options.adopt else changes
    batches, damaged = _read_batches(
        layout, None if options.adopt else {code, *codes}, since, planned, changes
    )
    tables: list[list[tuple[int, range]]] = [old.segments()] if old is not None and options.adopt else []
    results: list[AdoptedRows] = []
    unmanaged = find_unmanaged(task.outline, old) if options.adopt else ()
    if unmanaged:
        digest = file_digest(layout.result)  # None: they are parts of a result.
        read_before = [b for b in batches if digest and b.origin == digest and len(b.done) == b.size]
        if not read_before:
            table = read_unmanaged(task, unmanaged, space)
            results.append(_make_batch(table, list(space), number, code, digest))
        batch = read_before[0] if read_before else results[0].batch
        tables.append([(batch.number, range(batch.size))])
    elif old is not None and not options.force and (old.code == code or options.adopt):
        results += _read_lost_rows(task, old, number)
    return Adoption(
        batches=[*batches, *(each.batch for each in results)],
        codes=codes,
        since=since,
        tables=tables,
        results=results,
        damaged=damaged,
        next_batch=number + len(results),
    )


def adopts_more(layout: Layout, plan: Plan, options: RunOptions) -> bool:
    """Whether `--continue` may adopt rows that the plan for these very sources lacks."""
    return options.adopt and not (is_current(layout, plan) or read_progress(plan, layout).complete)


def count_adopted(layout: Layout, plan: Plan) -> tuple[int, int]:
    """Count the rows of a plan that were adopted: of older code, and such that the space does not name.

    Raises
    ------
    FormatError
        If an input file is damaged.
    """
    older = 0
    for batch in plan.batches if plan.adopted else ():
        with suppress(FileNotFoundError):  # Its rows are in the result.
            inputs = read_inputs(layout.input(batch.number), batch.tie)
            if digest_anew(layout, inputs.scheme, inputs.code)[0] != plan.code:
                older += batch.wanted
    return older, plan.total - plan.rows


def _next_number(layout: Layout, old: Plan | None) -> int:
    """Return the first number above all that were used, as far as files tell."""
    used = [int(found[1]) for path in layout.inputs.glob("*") if (found := _NUMBER.match(path.name))]
    used += [batch.number for batch in list_journals(layout.out)]
    noted = (read_receipt(layout.receipt) or {}).get("next_batch")  # Known where the folder was removed.
    least = [old.next_batch if old is not None else 0, noted if isinstance(noted, int) else 0]
    return max([*least, *(number + 1 for number in used)])


def digest_anew(layout: Layout, scheme: int, code: str) -> tuple[str, str]:
    """Return the digests of code and space of captured sources by the rules of now.

    Digests of other rules can't be compared; those of sources that are lost match nothing.
    """
    try:
        source = read_zip(layout.code(code)) if scheme != SCHEME else None
    except (FormatError, OSError):
        return "", ""
    if source is None:
        return code, ""
    found = digest_sources(source.task, source.conf, source.files, source.modules)
    return found["code"], found["space"]


def _read_batches(
    layout: Layout,
    codes: Collection[str] | None,
    since: int,
    planned: Mapping[int, str],
    changes: Changes,
) -> tuple[list[Existing], list[int]]:
    """Return the batches of these codes, or of any, and the numbers of planned ones whose files are damaged.

    A number that the last plan names counts with the tie that is planned; other files that psyrun can't read
    are left out.
    """
    journals = list_journals(layout.out)
    batches, damaged = [], []
    for path in sorted(layout.inputs.glob("*.pkl")):
        number = int(path.stem) if path.stem.isdecimal() else -1
        try:
            inputs = read_inputs(path, planned.get(number))
        except NewerFormatError:
            raise
        except (FormatError, FileExistsError, FileNotFoundError):
            damaged += [number] if number in planned else []
            continue
        code = digest_anew(layout, inputs.scheme, inputs.code)[0]
        if number < since or not (codes is None or code in codes):
            continue
        ours = journals.get(inputs.key, ())
        stale = changes.stale_rows(ours, inputs.size).keys()
        batches.append(
            Existing(
                number=number,
                size=inputs.size,
                tie=inputs.tie,
                code=code,
                columns=inputs.columns(),
                done=read_records(ours, rows=inputs.size).done - stale,
                origin=inputs.origin,
                stale=stale,
                replicates=inputs.replicates(),
            )
        )
    return batches, damaged


def _read_lost_rows(task: Task, old: Plan, number: int) -> Iterator[AdoptedRows]:
    """Yield the rows of a current result whose input files were lost, as batches from `number` on."""
    layout = task.outline.layout
    lost = {batch.number for batch in find_damaged_inputs(old, layout)}
    replaced = (read_receipt(layout.receipt) or {}).get("replaced")
    if not lost or replaced != [] or not holds_rows(layout, old):  # [] says that no parameter was replaced.
        return
    table, reasons = load_result(task)
    places: dict[int, list[int]] = {batch: [] for batch in lost}
    start = 0
    for batch, rows in old.segments():
        if batch in lost:
            places[batch] += (place for place in range(start, start + len(rows)) if not reasons[place])
        start += len(rows)
    if not set(old.names) <= table.keys():
        return
    for new, chosen in enumerate(filter(None, places.values()), number):
        part = {name: [column[place] for place in chosen] for name, column in table.items()}
        yield _make_batch(part, old.names, new, old.code, None)


def _make_batch(
    table: Mapping[str, Sequence[Any]], names: Sequence[str], number: int, code: str, origin: str | None
) -> AdoptedRows:
    """Make a batch of the rows of a table, whose parameters have these names."""
    size = max(map(len, table.values()), default=0)
    columns = {name: list(table[name]) for name in names}
    batch = Existing(
        number=number, size=size, code=code, columns=columns, done=frozenset(range(size)), origin=origin
    )
    return AdoptedRows(batch=batch, values={n: list(column) for n, column in table.items() if n not in names})
