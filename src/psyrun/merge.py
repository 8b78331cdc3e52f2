"""The merge step: journals become a result file, in the order of the space."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psyrun.disk import replacing, write_atomic
from psyrun.errors import FormatError
from psyrun.foreign import refuse_folder, refuse_foreign
from psyrun.inputs import read_inputs
from psyrun.loading import hidden, shown
from psyrun.plan import read_plan
from psyrun.records import list_journals, read_values, vouched
from psyrun.rows import ABSENT, stack
from psyrun.store import ChunkStore
from psyrun.survey import file_digest, is_current, read_ends, read_receipt
from psyrun.task import naming, open_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from psyrun.layout import Layout
    from psyrun.orders import Orders
    from psyrun.plan import Plan
    from psyrun.records import JournalFile
    from psyrun.store import Store
    from psyrun.task import Outline

__all__ = ["Merged", "date_receipt", "merge", "read_batch"]

FORMAT = 1
_CHUNK_ROWS = 10_000
_CACHED_ROWS = 200_000


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge step did.

    Parameters
    ----------
    written
        Whether the result had to be written.
    filled
        Names that some rows had no value of.
    """

    written: bool
    filled: tuple[str, ...] = ()


def merge(outline: Outline, orders: Orders) -> Merged:
    """Write the result file of a task whose rows are all there, unless it is current.

    Raises
    ------
    DirtyError
        If there is a result file that psyrun did not write.
    FormatError
        If a journal is not what process.json says.
    StoreError
        If the store can't hold a value.
    """
    layout = outline.layout
    refuse_folder(outline)
    plan = read_plan(layout)
    receipt = read_receipt(layout.process)
    if plan is None or receipt is None or receipt.get("table") != plan.table_digest:
        raise FormatError(f"{layout.relative(layout.process)}: not made for this plan; psy run makes it anew")
    if is_current(layout, plan):
        return Merged(written=False)
    refuse_foreign(outline, plan, orders)
    layout.result.parent.mkdir(parents=True, exist_ok=True)
    ends = read_ends(layout.process)
    with open_task(outline) as task, replacing(layout.result, task.store.ext) as temporary:
        read = shown(outline.source, read_batch)
        reader = _Reader(layout, plan, ends, set(outline.exclude), read)
        with hidden(outline.source), naming(outline):
            _store(task.store, temporary, reader)
        status = temporary.stat()
        content = {
            "format": FORMAT,
            "mtime": status.st_mtime_ns,
            "next_batch": plan.next_batch,
            "process": file_digest(layout.process),
            "sha256": file_digest(temporary),
            "size": status.st_size,
            "table": plan.table_digest,
        }
        # Without any receipt, the result would be taken for somebody else's.
        _write_receipt(layout, {"format": FORMAT})
    _write_receipt(layout, content)
    return Merged(written=True, filled=tuple(sorted(reader.find_lacking())))


def date_receipt(layout: Layout) -> None:
    """Note when a result that is current was touched or copied, so that its content is not read each time."""
    receipt = read_receipt(layout.receipt) or {}
    status = layout.result.stat()
    if receipt.get("mtime") != status.st_mtime_ns and file_digest(layout.result) == receipt.get("sha256"):
        _write_receipt(layout, {**receipt, "mtime": status.st_mtime_ns})


def _write_receipt(layout: Layout, content: Mapping[str, Any]) -> None:
    write_atomic(layout.receipt, json.dumps(content, indent=0, sort_keys=True).encode() + b"\n")


def _store(store: Store, path: Path, reader: _Reader) -> None:
    if isinstance(store, ChunkStore):
        store.save_chunks(path, reader.chunks)
    else:
        store.save(path, reader.table())


# ---------------------------------------------------------------------- reading rows


def read_batch(
    layout: Layout,
    number: int,
    journals: Iterable[JournalFile],
    exclude: Iterable[str] = (),
) -> tuple[dict[str, list[Any]], list[bool]]:
    """Read assignments and values of a batch.

    Returns
    -------
    table : dict
        Name -> values (size,); `rows.ABSENT` for rows that have none.
    done : list of bool
        Whether row i has values.
    """
    header, columns = read_inputs(layout.input(number))
    size = header["size"]
    table = {name: list(values) for name, values in columns.items()}
    done = [False] * size
    for rows, values in read_values(journals, rows=size):
        for row in rows:
            done[row] = True
        for name, column in values.items():
            target = table.setdefault(name, [ABSENT] * size)
            _place(target, rows, column)
    for name in exclude:
        table.pop(name, None)
    return table, done


def _place(target: list[Any], rows: Sequence[int], column: Sequence[Any]) -> None:
    if isinstance(rows, range):
        target[rows.start : rows.stop] = column
        return
    for row, value in zip(rows, column):
        target[row] = value


@dataclass(slots=True)
class _Reader:
    """Reads the rows of a plan in the order of the space, and notes which names rows lack."""

    layout: Layout
    plan: Plan
    ends: Mapping[int, Sequence[tuple[str, int]]]
    exclude: set[str]
    read: Callable[..., tuple[dict[str, list[Any]], list[bool]]]
    names: list[set[str]] = field(default_factory=list)
    partial: set[str] = field(default_factory=set)

    def find_lacking(self) -> set[str]:
        """Return the names that some rows have values of and others have not."""
        everywhere = set.intersection(*self.names) if self.names else set()
        return self.partial | (set().union(*self.names) - everywhere)

    def table(self) -> dict[str, list[Any]]:
        """Return all rows; names that a row lacks are filled."""
        return stack(self._slices(math.inf), self._parameters())

    def _parameters(self) -> list[str]:
        return [name for name in self.plan.names if name not in self.exclude]

    def chunks(self) -> Iterator[dict[str, list[Any]]]:
        """Yield tables of some thousand consecutive rows; None stands for what single rows lack."""
        gathered: list[dict[str, list[Any]]] = []
        rows = 0
        for part in self._slices(_CACHED_ROWS):
            gathered.append(part)
            rows += _count_rows(part)
            if rows >= _CHUNK_ROWS:
                yield stack(gathered, ())
                gathered, rows = [], 0
        if gathered or not self.plan.total:  # Without rows, there still are names.
            yield stack(gathered, () if gathered else self._parameters())

    def _slices(self, most: float) -> Iterator[dict[str, list[Any]]]:
        """Yield consecutive rows of one batch at a time, keeping batches of `most` rows in all in memory."""
        journals = list_journals(self.layout.out)
        cache: OrderedDict[int, dict[str, list[Any]]] = OrderedDict()
        cached = 0
        for number, rows in self.plan.segments():
            if number not in cache:
                cache[number] = self._read(
                    number, vouched(journals.get(number, ()), self.ends.get(number, ()))
                )
                cached += _count_rows(cache[number])
                while cached > most and len(cache) > 2:
                    cached -= _count_rows(cache.popitem(last=False)[1])
            batch = cache[number]
            yield {name: values[rows.start : rows.stop] for name, values in batch.items()}

    def _read(self, number: int, journals: list[JournalFile]) -> dict[str, list[Any]]:
        table, done = self.read(self.layout, number, journals, self.exclude)
        if not all(done) and not self._has_wanted(number, done):
            # process.json vouches for rows that are not there any more: process has to look again.
            self.layout.process.unlink(missing_ok=True)
            out = self.layout.relative(self.layout.out)
            raise FormatError(
                f"{out}: a journal of batch {number} was damaged or removed;"
                " psy run again: it evaluates the rows that are lost"
            )
        self.names.append(set(table))
        for name, values in table.items():
            if any(value is ABSENT and there for value, there in zip(values, done)):
                self.partial.add(name)
        return table

    def _has_wanted(self, number: int, done: Sequence[bool]) -> bool:
        wanted = self.plan.wanted_rows().get(number)
        return wanted is not None and all(done[row] for row in wanted)


def _count_rows(table: Mapping[str, Sequence[Any]]) -> int:
    return max(map(len, table.values()), default=0)
