"""Records: which rows of a batch its journals hold, counted cheaply or read exactly."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from psyrun.workdir.journal import BatchKey, parse_name, read_blocks, read_headers
from psyrun.workdir.row_receipts import ReceiptReader, find_reads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from psyrun.workdir.journal import Block, Failure
    from psyrun.workdir.row_receipts import RowReceipt


_T = TypeVar("_T")
_SUFFIXES = (".part", ".rows")
_RECENT = 2_000_000_000  # nanoseconds within which a folder may change without another time of change


@dataclass(frozen=True, slots=True)
class JournalFile:
    """A journal as one listing of its folder shows it.

    Parameters
    ----------
    path
        ``out/<batch>-<tie>-<run>.part`` or ``.rows``.
    size
        In bytes.
    tie
        Its tie, which its blocks have too.
    end
        Read no further than this many bytes, where it is not None.
    mtime
        When it was written last, in nanoseconds; 0: not known.
    """

    path: Path
    size: int
    tie: bytes
    end: int | None = None
    mtime: int = 0

    @property
    def closed(self) -> bool:
        """Whether the journal is complete: no process appends to it."""
        return self.path.suffix == ".rows"


@dataclass(frozen=True, slots=True)
class Records:
    """What the journals of one batch hold, exactly.

    Parameters
    ----------
    done
        Numbers of the rows that have values.
    failures
        Row -> why it has none, for rows that have none; the last one where it was tried repeatedly.
    seconds
        Time spent in `execute` for all of them.
    ends
        (journal without its suffix, end of its last good block in bytes, checksum of that block), in the
        order in which their records count. A journal that went on stands there repeatedly.
    generators
        Random generators that outlive a row, and that rows drew from.
    reads
        (run, child) -> the highest number of its inputs that counts for a row.
    """

    done: frozenset[int] = frozenset()
    failures: Mapping[int, Failure] = field(default_factory=dict)
    seconds: float = 0.0
    ends: tuple[tuple[str, int, int], ...] = ()
    generators: frozenset[str] = frozenset()
    reads: Mapping[tuple[str, int], int] = field(default_factory=dict)

    def failed_for(self, reason: str | None) -> set[int]:
        """Return the rows that failed for a reason, which is named as `Failure.names` says; None: for any."""
        return {row for row, failure in self.failures.items() if reason is None or reason in failure.names}

    def count(self, wanted: frozenset[int] | None) -> RowCounts:
        """Count the rows, or the wanted ones of them."""
        if wanted is None:
            return RowCounts(len(self.done), len(self.failures), self.seconds)
        failed = sum(row in wanted for row in self.failures)
        return RowCounts(len(self.done & wanted), failed, self.seconds)


@dataclass(frozen=True, slots=True)
class RowCounts:
    """How many rows of a batch are done and failed, and the time that they took in seconds."""

    done: int = 0
    failed: int = 0
    seconds: float = 0.0


def list_journals(folder: Path) -> dict[BatchKey, list[JournalFile]]:
    """List the journals in a folder by batch, with one listing, or two where it changes.

    A listing may miss a journal that is closed meanwhile, since it is renamed then, once.

    Returns
    -------
    dict
        Batch number and tie -> its journals, in the order of their names.
    """
    try:
        changed, found = folder.stat().st_mtime_ns, list(_list_once(folder))
        if changed != folder.stat().st_mtime_ns or changed + _RECENT > time.time_ns():
            found += _list_once(folder)
    except FileNotFoundError:
        return {}
    journals: dict[BatchKey, dict[str, JournalFile]] = {}
    for batch, journal in sorted(found, key=lambda each: (each[1].path.name, each[1].size)):
        journals.setdefault(batch, {})[journal.path.stem] = journal
    return {batch: list(each.values()) for batch, each in journals.items()}


def _list_once(folder: Path) -> Iterator[tuple[BatchKey, JournalFile]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            named = parse_name(entry.name)
            look = None if named is None or not entry.name.endswith(_SUFFIXES) else _look(entry)
            if named is not None and look is not None:
                tie = bytes.fromhex(named[0].tie)
                yield named[0], JournalFile(folder / entry.name, look[0], tie, mtime=look[1])


def _look(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    """Return size and modification time of a file; None where it is no regular file, or renamed."""
    try:
        status = entry.stat()
    except OSError:  # Closed since it was listed; or a link to itself.
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def up_to_receipt(journals: Iterable[JournalFile], ends: Iterable[tuple[str, int]]) -> list[JournalFile]:
    """Return the journals that a receipt names, up to the sizes in it.

    Parameters
    ----------
    journals
        What there is.
    ends
        The receipt: (journal without its suffix, bytes of it that count), in the order in which they count.
    """
    there = {journal.path.stem: journal for journal in journals}
    return [replace(there[name], end=end) for name, end in ends if name in there]


def read_records(journals: Iterable[JournalFile], *, rows: int | None = None) -> Records:
    """Read which rows the journals hold, without their values.

    Parameters
    ----------
    journals
        In the order in which their records count.
    rows
        How many rows the batch has: a block that names others is damaged.
    """
    done: set[int] = set()
    tried: list[tuple[int, Failure]] = []
    seconds = 0.0
    ends = []
    read: dict[str, int] = {}
    generators: set[str] = set()
    reads: dict[tuple[str, int], int] = {}
    for journal in journals:
        name, last = journal.path.stem, None
        for block in read_journal(journal, rows):
            if block.header.end > read.get(name, 0):
                done.update(block.rows)
                tried += [(journal.mtime, failure) for failure in block.failures]
                seconds += block.header.counts.seconds
                generators.update(block.generators())
                for key, number in find_reads(name, block).items():
                    reads[key] = max(number, reads.get(key, 0))
                last = block.header
        if last is not None:
            ends.append((name, last.end, last.checksum))
            read[name] = last.end
    tried.sort(key=itemgetter(0))
    left = {failure.row: failure for _, failure in tried if failure.row not in done}
    return Records(frozenset(done), left, seconds, tuple(ends), frozenset(generators), reads)


def read_needed(
    journals: Sequence[JournalFile], known: Mapping[tuple[str, int], int], *, rows: int | None = None
) -> Mapping[tuple[str, int], int]:
    """Read the numbers of inputs that count for rows, as `Records.reads`; only headers where all are known.

    Parameters
    ----------
    journals
        The journals of a batch.
    known
        (run, child) -> the highest number of its inputs that is known.
    rows
        How many rows the batch has.
    """
    for journal in journals:
        named = parse_name(journal.path.name)
        run = named[1] if named is not None else ""
        for header in _follow(journal.path, partial(read_headers, tie=journal.tie)):
            if header.counts.inputs > known.get((run, header.counts.child), 0):
                return read_records(journals, rows=rows).reads
    return {}


def read_values(
    journals: Iterable[JournalFile],
    *,
    rows: int | None = None,
) -> Iterator[tuple[Sequence[int], Mapping[str, Sequence[Any]]]]:
    """Yield (rows, name -> values) per block; of several records of one row the first counts.

    Parameters
    ----------
    journals
        In the order in which their records count.
    rows
        How many rows the batch has: a block that names others is damaged.
    """
    for _, block, fresh in read_first_records(journals, rows=rows):
        if not fresh:
            continue
        columns = block.columns()
        if len(fresh) == len(block.rows):
            yield block.rows, columns
        else:
            left = [block.rows[i] for i in fresh]
            yield left, {name: [values[i] for i in fresh] for name, values in columns.items()}


def read_first_records(
    journals: Iterable[JournalFile], *, rows: int | None = None
) -> Iterator[tuple[JournalFile, Block, Sequence[int]]]:
    """Yield the blocks, each with the places in it of rows whose first record it holds."""
    seen: set[int] = set()
    for journal in journals:
        for block in read_journal(journal, rows):
            fresh: Sequence[int] = range(len(block.rows))
            if not seen.isdisjoint(block.rows):
                fresh = [i for i in fresh if block.rows[i] not in seen]
            seen.update(block.rows)
            yield journal, block, fresh


def read_journal(journal: JournalFile, rows: int | None = None) -> Iterator[Block]:
    """Yield the undamaged blocks of a journal; a block that names rows beyond `rows` is damaged."""
    read = partial(read_blocks, tie=journal.tie, size=journal.end, limit=rows)
    return _follow(journal.path, read)


def _follow(path: Path, read: Callable[[Path], Iterator[_T]]) -> Iterator[_T]:
    """Read a journal, also one that was renamed or removed since it was listed."""
    for name in dict.fromkeys((path, path.with_suffix(".rows"))):
        try:
            yield from read(name)
        except FileNotFoundError:  # From opening it, before the first block.
            continue
        return


def find_receipts(
    journals: Iterable[JournalFile], rows: Sequence[int], size: int
) -> Iterator[tuple[RowReceipt, Mapping[str, Any]]]:
    """Return receipt and place of some rows of a batch of `size` rows; an empty place: not known.

    They are those of the first record, or of the last failure where there is none.
    """
    reader, left, wanted = ReceiptReader(), set(rows), set(rows)
    for journal in journals:
        for block in read_journal(journal, size):
            found = [row for row in left if row in block.rows]
            left.difference_update(found)
            if found or any(failure.row in wanted for failure in block.failures):
                reader.add(0, journal, block, [block.rows.index(row) for row in found])
            else:
                reader.skip(journal, block)
    return reader.in_order((0, range(row, row + 1)) for row in rows).rows()


class RowCounter:
    """Counter of the rows of batches, which reads the headers of new blocks only.

    A batch with several journals, or with failures, is read exactly, so that no row is counted twice.
    """

    def __init__(self) -> None:
        self._counted: dict[str, tuple[int, RowCounts]] = {}

    def count(
        self,
        journals: Sequence[JournalFile],
        wanted: frozenset[int] | None = None,
        *,
        rows: int | None = None,
    ) -> RowCounts:
        """Count one batch.

        Parameters
        ----------
        journals
            The journals of the batch.
        wanted
            Count these rows only; all where it is None.
        rows
            How many rows the batch has.
        """
        counts = [self._count_headers(journal) for journal in journals]
        exact = len(journals) > 1 or any(
            each.failed or (rows is not None and each.done > rows) for each in counts
        )
        if wanted is None and not exact:
            return counts[0] if counts else RowCounts()
        return read_records(journals, rows=rows).count(wanted)

    def _count_headers(self, journal: JournalFile) -> RowCounts:
        start, counts = self._counted.get(journal.path.stem, (0, RowCounts()))
        if journal.size < start:  # Its writer could not sync what was counted, and cut it off.
            start, counts = 0, RowCounts()
        if start < journal.size:
            headers = list(_follow(journal.path, lambda name: read_headers(name, journal.tie, start)))
            counts = RowCounts(
                counts.done + sum(header.counts.rows for header in headers),
                counts.failed + sum(header.counts.failures for header in headers),
                counts.seconds + sum(header.counts.seconds for header in headers),
            )
            self._counted[journal.path.stem] = (headers[-1].end if headers else start, counts)
        return counts
