"""Matching: the rows of a space are found among those on disk, and the others become batches."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from psyrun.pspace import MANY, identity, number_equals, row_keys
from psyrun.workdir import Batch, Plan, pack_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from psyrun.split.adoption import Adoption, Cell, Existing


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A parameter space, evaluated.

    Parameters
    ----------
    columns
        Parameter -> values (n,).
    rows
        n, which can't be told from no columns.
    numbered
        Whether equal rows differ by a number, since each gets a generator of its own.
    """

    columns: Mapping[str, Sequence[Any]]
    rows: int
    numbered: bool = False

    def part(self, rows: Sequence[int]) -> dict[str, Sequence[Any]]:
        """Return the values of ascending rows."""
        first, end = rows[0], rows[-1] + 1
        if end - first == len(rows):
            return {name: values[first:end] for name, values in self.columns.items()}
        return {name: [values[row] for row in rows] for name, values in self.columns.items()}

    def replicates(self) -> list[int]:
        """Return which of equal rows each row is, from 0."""
        return number_equals(keys_of(self.columns, self.rows))


def make_plan(
    space: Space, adoption: Adoption, blank: Plan, *, partition: Callable[[int], Sequence[int]]
) -> tuple[Plan, dict[int, Sequence[int]]]:
    """Find the rows of a space among those on disk, and batch the others; new batches have no tie yet.

    A row of the space takes a row of equal identity: one that has values before one that has none, one of
    the current code before one of older code, a later batch before an earlier one. A row on disk is taken
    once: k equal rows are k evaluations.

    Parameters
    ----------
    space
        What is asked for, n rows.
    adoption
        What there is. Rows of other code than the plan's are used only where they have values.
    blank
        The plan to complete: digests, settings, next batch number.
    partition
        Number of rows -> sizes of new batches, which add up to it.

    Returns
    -------
    plan : Plan
    new : dict
        Number of a new batch -> the rows of the space (numbers from 0) that it holds.
    """
    existing = adoption.batches
    wanted, keys = _make_keys(space, existing) if existing else ((), {})
    if space.numbered:
        wanted, keys = list(zip(wanted, number_equals(wanted))), _number_keys(existing, keys)
    cells = _match(wanted, existing, keys, blank.code)
    fresh = [i for i, cell in enumerate(cells) if cell is None] if existing else range(space.rows)
    new = _number_batches(fresh, partition, blank.next_batch)
    if existing:
        for number, rows in new.items():
            for row, i in enumerate(rows):
                cells[i] = (number, row)
        placed = [cell for cell in cells if cell is not None]
        runs = _find_runs([*placed, *adoption.find_tail(placed, wanted, keys)])
    else:
        runs = [[number, 0, len(rows)] for number, rows in new.items()]
    known = {batch.number: (batch.size, batch.tie) for batch in existing}
    known |= {number: (len(rows), "") for number, rows in new.items()}
    batches, order = _arrange(runs, known)
    next_batch = blank.next_batch + len(new)
    plan = replace(blank, batches=batches, order=order, rows=space.rows, next_batch=next_batch)
    return replace(plan, adopted=adoption.codes_after(plan)), new


def _make_keys(
    space: Space, existing: Sequence[Existing]
) -> tuple[Sequence[Any], Mapping[int, Sequence[Any]]]:
    """Return keys of the rows of a space, and of those on disk; of many rows, numbers."""
    like = [batch for batch in existing if batch.columns.keys() == space.columns.keys()]
    if not space.columns or space.rows + sum(batch.size for batch in like) < MANY:
        return keys_of(space.columns, space.rows), {b.number: keys_of(b.columns, b.size) for b in existing}
    from psyrun.pspace import label_rows  # imports NumPy

    wanted, *parts = label_rows([space.columns, *(batch.columns for batch in like)], identity)
    keys = {batch.number: part.tolist() for batch, part in zip(like, parts)}
    others = [batch for batch in existing if batch.number not in keys]
    return wanted.tolist(), keys | {batch.number: keys_of(batch.columns, batch.size) for batch in others}


def keys_of(columns: Mapping[str, Sequence[Any]], rows: int) -> Sequence[Any]:
    """Return a key per row, by which equal rows are found."""
    return row_keys(columns) if columns else [()] * rows


def _number_keys(
    existing: Sequence[Existing], keys: Mapping[int, Sequence[Any]]
) -> Mapping[int, Sequence[Any]]:
    """Add to each key which of equal rows its row is: the lowest free number where its batch does not say."""
    said = [batch for batch in existing if batch.replicates is not None]
    numbered = {batch.number: list(zip(keys[batch.number], batch.replicates or ())) for batch in said}
    taken = {key for part in numbered.values() for key in part}
    counters: defaultdict[Any, count[int]] = defaultdict(count)
    for batch in reversed([batch for batch in existing if batch.replicates is None]):
        numbered[batch.number] = [
            next((key, n) for n in counters[key] if (key, n) not in taken) for key in keys[batch.number]
        ]
    return numbered


def _number_batches(
    rows: Sequence[int], partition: Callable[[int], Sequence[int]], first: int
) -> dict[int, Sequence[int]]:
    batches: dict[int, Sequence[int]] = {}
    start = 0
    for number, size in enumerate(partition(len(rows)) if rows else (), first):
        batches[number] = rows[start : start + size]
        start += size
    return batches


def _match(
    wanted: Iterable[Any], existing: Sequence[Existing], keys: Mapping[int, Sequence[Any]], code: str
) -> list[Cell | None]:
    """Find a row on disk for each key of the space; None where there is none."""
    # The first of equal rows is the best.
    ranked = sorted(existing, key=lambda batch: (batch.code == code, batch.number), reverse=True)
    index: dict[Any, Any] = {}  # key -> a cell, or a queue of cells
    for batch in ranked:
        _index_rows(index, keys[batch.number], batch, sorted(batch.done))
    for batch in ranked:
        if batch.code == code and len(batch.done) < batch.size:
            pending = [row for row in range(batch.size) if row not in batch.done and row not in batch.stale]
            _index_rows(index, keys[batch.number], batch, pending)
    return [_take(index, key) for key in wanted]


def _index_rows(index: dict[Any, Any], keys: Sequence[Any], batch: Existing, rows: Iterable[int]) -> None:
    number = batch.number
    for row in rows:
        cell = (number, row)
        other = index.setdefault(keys[row], cell)
        if other is not cell:
            if isinstance(other, deque):
                other.append(cell)
            else:
                index[keys[row]] = deque([other, cell])


def _take(index: dict[Any, Any], key: Any) -> Cell | None:
    found = index.pop(key, None)
    if not isinstance(found, deque):
        return found  # type: ignore[no-any-return]
    cell: Cell = found.popleft()
    index[key] = found if len(found) > 1 else found[0]
    return cell


def _find_runs(cells: Iterable[Cell]) -> list[list[int]]:
    """Join neighbouring rows of one batch to runs: batch number, first row, length."""
    runs: list[list[int]] = []
    batch = end = -1
    for number, row in cells:
        if number != batch or row != end:
            runs.append([number, row, 0])
        batch, end = number, row + 1
        runs[-1][2] += 1
    return runs


def _arrange(
    runs: Sequence[Sequence[int]], known: Mapping[int, tuple[int, str]]
) -> tuple[tuple[Batch, ...], str]:
    """Return the batches of these rows, and their order; `known` says size and tie."""
    wanted: dict[int, int] = {}
    for number, _, length in runs:
        wanted[number] = wanted.get(number, 0) + length
    numbers = sorted(wanted)
    index = {number: i for i, number in enumerate(numbers)}
    order = pack_order([n for number, first, length in runs for n in (index[number], first, length)])
    batches = [
        Batch(number, size, wanted[number], tie)
        for number, (size, tie) in ((number, known[number]) for number in numbers)
    ]
    return tuple(batches), order
