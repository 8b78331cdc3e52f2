"""Plans: a parameter space and what exists already become batches."""

from __future__ import annotations

import base64
import sys
import zlib
from array import array
from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from psyrun.pspace import row_keys
from psyrun.workdir import Batch, Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence


# ---------------------------------------------------------------------- planning


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A parameter space, evaluated.

    Parameters
    ----------
    columns
        Parameter -> values (n,).
    rows
        n, which can't be told from no columns.
    """

    columns: Mapping[str, Sequence[Any]]
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """A batch on disk whose rows a plan may use.

    Parameters
    ----------
    number, size
        Its number, and how many assignments it holds.
    code
        Digest of the code that its rows are, or will be, evaluated with.
    columns
        Its assignments, parameter -> values (size,).
    done
        Rows that have values.
    """

    number: int
    size: int
    code: str
    columns: Mapping[str, Sequence[Any]]
    done: Collection[int]


_Cell = tuple[int, int]  # batch number, row
_Run = tuple[int, int, int]  # batch number, first row, length


def make_plan(
    space: Space,
    existing: Sequence[Existing],
    blank: Plan,
    *,
    partition: Callable[[int], Sequence[int]],
    keep: Sequence[Iterable[tuple[int, range]]] = (),
) -> tuple[Plan, dict[int, Sequence[int]]]:
    """Find the rows of a space among those on disk, and batch the others.

    A row of the space takes a row of equal identity: one that has values before one that has none, one of
    the current code before one of older code, a later batch before an earlier one. A row on disk is taken
    once: k equal rows are k evaluations.

    Parameters
    ----------
    space
        What is asked for, n rows.
    existing
        What there is. Rows of other code than the plan's are used only where they have values.
    blank
        The plan to complete: digests, settings, next batch number, code that was adopted before.
    partition
        Number of rows -> sizes of new batches, which add up to it.
    keep
        Tables whose rows (batch number, rows) are kept behind those of the space, where the space names
        fewer equal ones; of equal rows, as many as the table has that has most of them.

    Returns
    -------
    plan : Plan
    new : dict
        Number of a new batch -> the rows of the space (numbers from 0) that it holds.
    """
    keys = {batch.number: row_keys(batch.columns) for batch in existing}
    wanted: Sequence[Any] = ()
    if existing:
        wanted = row_keys(space.columns) if space.columns else [()] * space.rows
        cells: list[_Cell | None] = _match(wanted, existing, keys, blank.code)
        fresh: Sequence[int] = [i for i, cell in enumerate(cells) if cell is None]
    else:
        cells, fresh = [], range(space.rows)
    new: dict[int, Sequence[int]] = {}
    start, number = 0, blank.next_batch
    for size in partition(len(fresh)) if fresh else ():
        new[number] = fresh[start : start + size]
        start, number = start + size, number + 1
    if existing:
        for new_number, rows in new.items():
            for row, i in enumerate(rows):
                cells[i] = (new_number, row)
        placed = [cell for cell in cells if cell is not None]
        runs = _find_runs([*placed, *_find_kept(keep, placed, wanted, existing, keys)])
    else:
        runs = [(new_number, 0, len(rows)) for new_number, rows in new.items()]
    sizes = {batch.number: batch.size for batch in existing} | {b: len(rows) for b, rows in new.items()}
    plan = replace(blank, rows=space.rows, next_batch=number, **_arrange(runs, sizes))
    codes = {batch.number: batch.code for batch in existing}
    used = {codes[batch.number] for batch in plan.batches if batch.number in codes}
    return replace(plan, adopted=tuple(sorted(used.union(blank.adopted) - {plan.code}))), new


def _match(
    wanted: Iterable[Any], existing: Sequence[Existing], keys: Mapping[int, Sequence[Any]], code: str
) -> list[_Cell | None]:
    """Find for each row of the space, told by its key, a row on disk; None where there is none."""
    # The first of equal rows is the best.
    ranked = sorted(existing, key=lambda batch: (batch.code == code, batch.number), reverse=True)
    index: dict[Any, Any] = {}  # key -> a cell, or a queue of cells
    for batch in ranked:
        _index_rows(index, keys[batch.number], batch, sorted(batch.done))
    for batch in ranked:
        if batch.code == code and len(batch.done) < batch.size:
            pending = [row for row in range(batch.size) if row not in batch.done]
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


def _take(index: dict[Any, Any], key: Any) -> _Cell | None:
    found = index.pop(key, None)
    if not isinstance(found, deque):
        return found  # type: ignore[no-any-return]
    cell: _Cell = found.popleft()
    index[key] = found if len(found) > 1 else found[0]
    return cell


def _find_kept(
    keep: Sequence[Iterable[tuple[int, range]]],
    placed: Collection[_Cell],
    wanted: Iterable[Any],
    existing: Sequence[Existing],
    keys: Mapping[int, Sequence[Any]],
) -> list[_Cell]:
    """Return the rows to keep that have values, less as many equal ones as the space names."""
    candidates = _find_done(keep, existing, keys)
    if not candidates:
        return []
    named, taken = Counter(wanted), set(placed)
    kept = []
    # What the space took comes first; where it took newer ones, these stand for the first of the others.
    for number, row in sorted(candidates, key=lambda cell: cell not in taken):
        key = keys[number][row]
        named[key] -= 1
        if named[key] < 0:
            kept.append((number, row))
    return kept


def _find_done(
    tables: Sequence[Iterable[tuple[int, range]]],
    existing: Sequence[Existing],
    keys: Mapping[int, Sequence[Any]],
) -> dict[_Cell, None]:
    """Return the rows that have values; of equal rows, as many as the table with most of them has."""
    done = {batch.number: batch.done for batch in existing}
    found: dict[_Cell, None] = {}
    most: Counter[Any] = Counter()
    for table in tables:
        count: Counter[Any] = Counter()
        for number, row in ((number, row) for number, rows in table for row in rows):
            if row in done.get(number, ()):
                key = keys[number][row]
                count[key] += 1
                if count[key] > most[key]:
                    found[number, row] = None
        most |= count
    return found


def _find_runs(cells: Iterable[_Cell]) -> list[_Run]:
    """Join neighbouring rows of one batch."""
    runs: list[_Run] = []
    first = end = batch = -1
    for number, row in cells:
        if number == batch and row == end:
            end += 1
            continue
        if batch >= 0:
            runs.append((batch, first, end - first))
        batch, first, end = number, row, row + 1
    if batch >= 0:
        runs.append((batch, first, end - first))
    return runs


def _arrange(runs: Sequence[_Run], sizes: Mapping[int, int]) -> dict[str, Any]:
    """Describe an order of rows as segments of batches."""
    wanted: dict[int, int] = {}
    for number, _, length in runs:
        wanted[number] = wanted.get(number, 0) + length
    numbers = sorted(wanted)
    index = {number: i for i, number in enumerate(numbers)}
    flat = array("q", [n for number, first, length in runs for n in (index[number], first, length)])
    if sys.byteorder == "big":
        flat.byteswap()
    batches = tuple(Batch(number, sizes[number], wanted[number]) for number in numbers)
    return {"batches": batches, "order": base64.b64encode(zlib.compress(flat.tobytes(), 6)).decode()}
