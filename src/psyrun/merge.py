"""The merge step: journals become a result file, in the order of the space."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.disk import replacing
from psyrun.errors import FormatError
from psyrun.pspace import ABSENT, stack
from psyrun.source import imported_modules, loaded, read_zip, replaced_modules
from psyrun.split import refuse_folder, refuse_unmanaged_result
from psyrun.store import AutodetectStore, ChunkStore
from psyrun.task import open_task, prefix_store_errors
from psyrun.workdir import (
    Layout,
    ReceiptReader,
    file_digest,
    is_current,
    list_journals,
    read_first_records,
    read_inputs,
    read_journal_ends,
    read_plan,
    read_receipt,
    up_to_receipt,
    write_receipt,
    write_receipts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from psyrun.options import RunOptions
    from psyrun.task import Outline
    from psyrun.workdir import Batch, BatchKey, JournalFile, Plan


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


def merge(outline: Outline, options: RunOptions) -> Merged:
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
    refuse_unmanaged_result(outline, plan, options)
    return _write_result(outline, plan)


def _write_result(outline: Outline, plan: Plan) -> Merged:
    layout = outline.layout
    layout.result.parent.mkdir(parents=True, exist_ok=True)
    with open_task(outline) as task, replacing(layout.result, task.store.ext) as temporary:
        modules = imported_modules(outline.source)
        read = replaced_modules(modules)(read_batch)
        reader = _Reader(layout, plan, read_journal_ends(layout.process), set(outline.exclude), read)
        with replaced_modules(dict.fromkeys(modules)), prefix_store_errors(outline):
            if isinstance(task.store, ChunkStore):
                task.store.save_chunks(temporary, reader.chunks)
            else:
                task.store.save(temporary, reader.table())
        status = temporary.stat()
        process = file_digest(layout.process) or ""
        content = {
            "mtime": status.st_mtime_ns,
            "next_batch": plan.next_batch,
            "process": process,
            "replaced": sorted(reader.replaced),
            "sha256": file_digest(temporary),
            "size": status.st_size,
            "table": plan.table_digest,
        }
        write_receipts(layout.row_receipts, reader.receipts.in_order(plan.segments()), process)
        # Without any receipt, psyrun would not take the result for its own.
        write_receipt(layout, {})
    write_receipt(layout, content)
    return Merged(written=True, filled=tuple(sorted(reader.find_lacking())))


# ---------------------------------------------------------------------- reading rows


@dataclass(frozen=True, slots=True)
class _BatchTable:
    """Rows of a batch.

    Parameters
    ----------
    columns
        Name -> values (size,); `pspace.ABSENT` for rows that have none.
    done
        Whether row i has values.
    replaced
        Parameters in whose place there are values of `execute`.
    partial
        Names that some of the rows with values lack.
    """

    columns: dict[str, list[Any]]
    done: list[bool]
    replaced: set[str]
    partial: set[str]


def read_batch(
    layout: Layout,
    batch: Batch,
    journals: Iterable[JournalFile],
    exclude: Iterable[str] = (),
    receipts: ReceiptReader | None = None,
) -> _BatchTable:
    """Read assignments and values of a batch; `receipts` takes those of its rows."""
    columns, size = read_inputs(layout.input(batch.number), batch.tie).columns(), batch.size
    table = {name: list(values) for name, values in columns.items()}
    done, counts = [False] * size, Counter[str]()
    for journal, block, fresh in read_first_records(journals, rows=size):
        rows, whole = block.rows, len(fresh) == len(block.rows)
        if whole and isinstance(rows, range):
            done[rows.start : rows.stop] = [True] * len(rows)
        else:
            for place in fresh:
                done[rows[place]] = True
        values = block.columns() if fresh else {}
        for name, column in values.items():
            counts[name] += len(fresh)
            target = table.setdefault(name, [ABSENT] * size)
            if whole and isinstance(rows, range):
                target[rows.start : rows.stop] = column
            else:
                for place in fresh:
                    target[rows[place]] = column[place]
        if receipts is not None:
            receipts.add(batch.number, journal, block, fresh)
    for name in exclude:
        table.pop(name, None)
    rows_done = sum(done)
    partial = {name for name in table.keys() - columns.keys() if counts[name] < rows_done}
    return _BatchTable(table, done, columns.keys() & counts.keys(), partial)


@dataclass(slots=True)
class _Reader:
    """Reader of the rows of a plan in the order of the space; notes which names rows lack."""

    layout: Layout
    plan: Plan
    ends: Mapping[BatchKey, Sequence[tuple[str, int]]]
    exclude: set[str]
    read: Callable[..., _BatchTable]
    names: list[set[str]] = field(default_factory=list)
    partial: set[str] = field(default_factory=set)
    replaced: set[str] = field(default_factory=set)
    receipts: ReceiptReader = field(default_factory=ReceiptReader)

    def find_lacking(self) -> set[str]:
        """Return the names that some rows have values of and others have not."""
        everywhere = set.intersection(*self.names) if self.names else set()
        return self.partial | (set().union(*self.names) - everywhere)

    def table(self) -> dict[str, list[Any]]:
        """Return all rows; values that a row lacks are filled in."""
        return stack(self._slices(math.inf), self._parameters())

    def _parameters(self) -> list[str]:
        return [name for name in self.plan.names if name not in self.exclude]

    def chunks(self) -> Iterator[dict[str, list[Any]]]:
        """Yield tables of some thousand consecutive rows; values that single rows lack are None."""
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
        """Yield consecutive rows of one batch at a time; batches of up to `most` rows together are cached."""
        journals = list_journals(self.layout.out)
        batches = {batch.number: batch for batch in self.plan.batches}
        cache: OrderedDict[int, dict[str, list[Any]]] = OrderedDict()
        cached = 0
        for number, rows in self.plan.segments():
            if number not in cache:
                batch = batches[number]
                named = up_to_receipt(journals.get(batch.key, ()), self.ends.get(batch.key, ()))
                cache[number] = self._read(batch, named)
                cached += _count_rows(cache[number])
                while cached > most and len(cache) > 2:
                    cached -= _count_rows(cache.popitem(last=False)[1])
            yield {name: values[rows.start : rows.stop] for name, values in cache[number].items()}

    def _read(self, batch: Batch, journals: list[JournalFile]) -> dict[str, list[Any]]:
        number = batch.number
        found = self.read(self.layout, batch, journals, self.exclude, self.receipts)
        done = found.done
        wanted = () if all(done) else self.plan.wanted_rows().get(number, range(len(done)))
        if not all(done[row] for row in wanted):
            # process.json names rows that are lost: without it, process runs again.
            self.layout.process.unlink(missing_ok=True)
            out = self.layout.relative(self.layout.out)
            raise FormatError(
                f"{out}: a journal of batch {number} was damaged or removed;"
                " psy run again: it evaluates the rows that are lost"
            )
        self.replaced |= found.replaced
        self.partial |= found.partial
        self.names.append(set(found.columns))
        return found.columns


def _count_rows(table: Mapping[str, Sequence[Any]]) -> int:
    return max(map(len, table.values()), default=0)


def merge_partial(root: Path, folder: Path, filename: Path) -> int:
    """Merge the finished rows below a task's folder ``out`` into a file.

    Parameters
    ----------
    root
        The project root.
    folder
        The folder ``out`` of a task. The plan beside it says which rows, in which order.
    filename
        The file to write; its extension says how it is stored.

    Returns
    -------
    int
        The number of rows.

    Raises
    ------
    FormatError
        If there are no journals or no plan, or a file is damaged.
    StoreError
        If the store can't hold a value.
    """
    store = AutodetectStore.get_concrete_store(filename)
    folder = Path(folder).absolute()
    home = folder.parent
    layout = Layout(root=root, folder=home, result=home / "result")
    if not list_journals(folder):
        raise FormatError(
            f"{folder}: there are no finished rows (no journals <batch>-<run>.rows);"
            " name the folder `out` of a task, such as psy-work/example/out"
        )
    plan = read_plan(layout)
    if plan is None:
        raise FormatError(f"{layout.plan}: missing, so which rows count is not known; psy run makes it anew")
    filename = Path(filename).absolute()
    with _importable(layout, plan):
        table = stack(_read_finished(layout, plan), plan.names)
    # Outside: objects of the task's own classes are then pickled by value, for readers that lack them.
    with replacing(filename, filename.suffix) as temporary:
        store.save(temporary, table)
    return _count_rows(table)


def _importable(layout: Layout, plan: Plan) -> AbstractContextManager[Any]:
    """Keep the task's own modules importable: values may be objects of their classes."""
    code = layout.code(plan.code)
    return loaded(read_zip(code), layout.root) if code.exists() else nullcontext()


def _read_finished(layout: Layout, plan: Plan) -> Iterator[Mapping[str, Sequence[Any]]]:
    journals = list_journals(layout.out)
    batches = {batch.number: batch for batch in plan.batches}
    read = cache(lambda number: read_batch(layout, batches[number], journals.get(batches[number].key, ())))
    for number, rows in plan.segments():
        found = read(number)
        chosen = [row for row in rows if found.done[row]]
        if chosen:
            yield {name: [values[row] for row in chosen] for name, values in found.columns.items()}
