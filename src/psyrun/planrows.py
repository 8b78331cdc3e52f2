"""The rows of a plan, read from journals in the order of the space."""

from __future__ import annotations

import math
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate, chain, repeat
from typing import TYPE_CHECKING, Any

from psyrun.errors import FormatError, StoreError
from psyrun.pspace import ABSENT, stack
from psyrun.source import loaded, read_zip
from psyrun.values import PackedColumn
from psyrun.workdir import (
    FAILURE,
    Layout,
    ReceiptReader,
    list_journals,
    read_first_records,
    read_inputs,
    up_to_receipt,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from psyrun.workdir import Batch, BatchKey, JournalFile, Plan


_CHUNK_ROWS = 10_000
_CACHED_ROWS = 200_000
_Part = tuple["Sequence[int]", "Sequence[Any]"]  # rows, their values


@dataclass(frozen=True, slots=True)
class BatchTable:
    """Rows of a batch.

    Parameters
    ----------
    columns
        Name -> values (size,), packed where they are alike; `pspace.ABSENT` for rows that have none.
    returned
        For each row the names that `execute` returned, in its order; None for a row without values.
    kinds
        All that occur in it.
    reasons
        Row -> why it has no values, for rows that failed.
    """

    columns: dict[str, Sequence[Any]]
    returned: list[tuple[str, ...] | None]
    kinds: set[tuple[str, ...]]
    reasons: dict[int, str]

    def status(self, row: int) -> str:
        """Return ``done``, ``failed`` or ``missing``."""
        if self.returned[row] is not None:
            return "done"
        return "failed" if row in self.reasons else "missing"


def read_batch(
    layout: Layout,
    batch: Batch,
    journals: Iterable[JournalFile],
    receipts: ReceiptReader | None = None,
) -> BatchTable:
    """Read assignments and values of a batch; `receipts` takes those of its rows."""
    table, size = read_inputs(layout.input(batch.number), batch.tie).packed(), batch.size
    parts: dict[str, list[_Part]] = {}
    returned: list[tuple[str, ...] | None] = [None] * size
    kinds, reasons = set[tuple[str, ...]](), dict[int, str]()
    for journal, block, fresh in read_first_records(journals, rows=size):
        reasons.update((failure.row, failure.reason) for failure in block.failures)
        if receipts is not None:
            receipts.add(batch.number, journal, block, fresh)
        if not fresh:
            continue
        values, rows = block.packed(), block.rows
        names = tuple(values)
        kinds.add(names)
        if len(fresh) < len(rows):
            rows = [rows[place] for place in fresh]
            values = {name: [column[place] for place in fresh] for name, column in values.items()}
        _set(returned, rows, repeat(names, len(rows)))
        for name, column in values.items():
            parts.setdefault(name, []).append((rows, column))
    table |= {name: _gather(found, table.get(name), size) for name, found in parts.items()}
    return BatchTable(table, returned, kinds, {r: text for r, text in reasons.items() if returned[r] is None})


def _gather(parts: Sequence[_Part], before: Sequence[Any] | None, size: int) -> Sequence[Any]:
    """Return a column of a batch, with the values that some rows had before."""
    packed = PackedColumn.gather(parts, size)
    if packed is not None:
        return packed
    values = [ABSENT] * size if before is None else list(before)
    for rows, column in parts:
        _set(values, rows, column)
    return values


def _set(values: list[Any], rows: Sequence[int], new: Iterable[Any]) -> None:
    if isinstance(rows, range):
        values[rows.start : rows.stop] = new
    else:
        for row, value in zip(rows, new):
            values[row] = value


@dataclass(slots=True)
class ColumnNames:
    """Names of columns in the order in which rows, in the order of the space, are the first to have them.

    Parameters
    ----------
    parameters
        Names that come first.
    exclude
        Names that are left out.
    kinds
        The names that rows returned, of all rows so far.
    """

    parameters: Sequence[str]
    exclude: set[str] = field(default_factory=set)
    kinds: dict[tuple[str, ...], None] = field(default_factory=dict)

    def add(self, found: BatchTable, rows: Iterable[int]) -> list[str]:
        """Take rows of a batch; return the names of all rows so far."""
        for row in rows:
            if self.kinds.keys() >= found.kinds:
                break
            names = found.returned[row]
            if names is not None:
                self.kinds.setdefault(names)
        return self.ordered()

    def ordered(self) -> list[str]:
        """Return the names of all rows so far."""
        names = dict.fromkeys(chain(self.parameters, *self.kinds))
        return [name for name in names if name not in self.exclude]

    def replaced(self) -> set[str]:
        """Return the parameters that rows returned."""
        return set(self.parameters).intersection(*[chain.from_iterable(self.kinds)])

    def lacking(self) -> set[str]:
        """Return the names that some rows returned and others did not."""
        everywhere = set.intersection(*map(set, self.kinds)) if self.kinds else set()
        return set(self.ordered()).difference(everywhere, self.parameters)


@dataclass(slots=True)
class RowReader:
    """Reader of the rows of a plan in the order of the space."""

    layout: Layout
    plan: Plan
    ends: Mapping[BatchKey, Sequence[tuple[str, int]]]
    names: ColumnNames
    read: Callable[..., BatchTable]
    receipts: ReceiptReader = field(default_factory=ReceiptReader)
    failed: int = 0

    def first(self) -> list[str]:
        """Return the names of the columns that come first."""
        return [*self.names.ordered(), *([FAILURE] if self.plan.allowance else [])]

    def table(self) -> dict[str, list[Any]]:
        """Return all rows; values that a row lacks are filled in."""
        return stack(self._slices(math.inf), self.first())

    def chunks(self) -> Iterator[dict[str, Sequence[Any]]]:
        """Yield tables of some thousand consecutive rows; values that single rows lack are None."""
        gathered: list[dict[str, Sequence[Any]]] = []
        rows = 0
        for part in self._slices(_CACHED_ROWS):
            gathered.append(part)
            rows += height(part)
            if rows >= _CHUNK_ROWS:
                yield _stack(gathered, rows)
                gathered, rows = [], 0
        if gathered or not self.plan.total:  # Without rows, there still are names.
            yield _stack(gathered, rows) if gathered else {name: [] for name in self.first()}

    def _slices(self, most: float) -> Iterator[dict[str, Sequence[Any]]]:
        """Yield consecutive rows of one batch at a time; batches of up to `most` rows together are cached."""
        journals = list_journals(self.layout.out)
        batches = {batch.number: batch for batch in self.plan.batches}
        cache: OrderedDict[int, BatchTable] = OrderedDict()
        cached = 0
        for number, rows in self.plan.segments():
            if number not in cache:
                batch = batches[number]
                named = up_to_receipt(journals.get(batch.key, ()), self.ends.get(batch.key, ()))
                cache[number] = self._read(batch, named)
                cached += batch.size
                while cached > most and len(cache) > 2:
                    cached -= len(cache.popitem(last=False)[1].returned)
            columns, part = cache[number].columns, slice(rows.start, rows.stop)
            names = self.names.add(cache[number], rows)
            chosen = {name: columns[name][part] for name in names if name in columns}
            yield chosen if not self.plan.allowance else self._add_reasons(chosen, cache[number], rows)

    def _add_reasons(
        self, table: Mapping[str, Sequence[Any]], found: BatchTable, rows: range
    ) -> dict[str, Sequence[Any]]:
        """Add, after the parameters, the column that says why rows failed."""
        if FAILURE in table:
            raise StoreError(
                f"with allow_failed, the result has a column {FAILURE!r}; let execute return that value under"
                " another name"
            )
        reasons = [found.reasons.get(row, "") for row in rows]
        self.failed += sum(map(bool, reasons))
        parameters = {name: table[name] for name in self.plan.names if name in table}
        return {**parameters, FAILURE: reasons, **table}

    def _read(self, batch: Batch, journals: list[JournalFile]) -> BatchTable:
        number = batch.number
        found = self.read(self.layout, batch, journals, self.receipts)
        lacks = None in found.returned
        wanted = self.plan.wanted_rows().get(number, range(batch.size)) if lacks else ()
        failed = found.reasons.keys() if self.plan.allowance else ()
        if any(found.returned[row] is None and row not in failed for row in wanted):
            # process.json names rows that are lost: without it, process runs again.
            self.layout.process.unlink(missing_ok=True)
            out = self.layout.relative(self.layout.out)
            raise FormatError(
                f"{out}: a journal of batch {number} was damaged or removed;"
                " psy run again: it evaluates the rows that are lost"
            )
        return found


def _stack(tables: Sequence[Mapping[str, Sequence[Any]]], rows: int) -> dict[str, Sequence[Any]]:
    """Do what `stack` does with tables of `rows` rows in all, but leave packed columns packed."""
    if any(table.keys() != tables[0].keys() for table in tables):
        return {**stack(tables, ())}
    ends = list(accumulate(map(height, tables)))
    spans = [range(start, end) for start, end in zip([0, *ends], ends)]
    return {
        name: PackedColumn.gather([(span, table[name]) for span, table in zip(spans, tables)], rows)
        or stack([{name: table[name]} for table in tables], ())[name]
        for name in tables[0]
    }


def height(table: Mapping[str, Sequence[Any]]) -> int:
    """Return how many rows a table has, which may have no columns."""
    return max(map(len, table.values()), default=0)


def _importable(layout: Layout, plan: Plan) -> AbstractContextManager[Any]:
    """Keep the task's own modules importable: values may be objects of their classes."""
    code = layout.code(plan.code)
    return loaded(read_zip(code), layout.root) if code.exists() else nullcontext()


def read_rows(
    layout: Layout, plan: Plan, receipts: ReceiptReader | None = None
) -> Iterator[tuple[dict[str, Sequence[Any]], list[str]]]:
    """Yield the rows of a plan from the journals as they are now, in the order of the space.

    Parameters
    ----------
    layout, plan
        Where the files are, and which rows are wanted.
    receipts
        Takes the receipts of the rows.

    Yields
    ------
    table : dict
        Name -> values of some rows; `pspace.ABSENT` where a row has none.
    status : list of str
        For each of them ``done``, ``failed`` or ``missing``.
    """
    journals = list_journals(layout.out)
    batches = {batch.number: batch for batch in plan.batches}

    @cache
    def read(number: int) -> BatchTable:
        arguments = layout, batches[number], journals.get(batches[number].key, ()), receipts
        try:
            return read_batch(*arguments)
        except (ImportError, AttributeError):  # Objects of the task's own classes.
            with _importable(layout, plan):
                return read_batch(*arguments)

    names = ColumnNames(plan.names)
    for number, rows in plan.segments():
        found = read(number)
        part = slice(rows.start, rows.stop)
        present = [name for name in names.add(found, rows) if name in found.columns]
        yield {name: found.columns[name][part] for name in present}, [found.status(row) for row in rows]
