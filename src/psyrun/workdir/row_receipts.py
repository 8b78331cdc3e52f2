"""Receipts of rows: how long a row took, how much memory, where in the log its output is, what it read.

They are packed as runs of equal receipts: in the blocks of journals, those of the rows with values and then
those of the failures; and in ``receipts.rows``, which merge writes beside process.json, those of the rows of
the result in their order, so that they outlive the journals.
"""

from __future__ import annotations

import itertools
import json
import struct
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, NamedTuple

from psyrun.disk import open_file, write_atomic
from psyrun.workdir.frame import (
    ORIGINS,
    RECEIPTS,
    Counts,
    encode_frame,
    file_size,
    read_header,
    read_sections,
)
from psyrun.workdir.journal import parse_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from psyrun.workdir.journal import Block
    from psyrun.workdir.records import JournalFile


# Number of rows, origin, seconds, peak memory, begin and end in the log, inputs counted, first own input.
_RUN = struct.Struct("<IIdQQQII")


class RowReceipt(NamedTuple):
    """Receipt of a row, or of some rows that can't be told apart.

    Parameters
    ----------
    seconds
        Time spent in `execute`; the mean of its neighbours for a row of less than 5 ms that did not fail.
    memory
        Peak memory of its process in bytes; 0: not known.
    log, log_end
        Where its output begins and ends in the log of its process, in bytes. Rows of less than 5 ms share a
        range with their neighbours.
    inputs, reads
        How many inputs of its process counted when it ended, and the first that it read itself.
    origin
        0: the place that its journal names; else the place with this number, from 1.
    """

    seconds: float
    memory: int = 0
    log: int = 0
    log_end: int = 0
    inputs: int = 0
    reads: int = 0
    origin: int = 0


class Source(NamedTuple):
    """What tells which inputs count for a row.

    Parameters
    ----------
    run, child
        The worker and its child that evaluated the row; '' and 0: not known.
    inputs, reads
        As in `RowReceipt`.
    """

    run: str = ""
    child: int = 0
    inputs: int = 0
    reads: int = 0


Run = tuple[int, RowReceipt]  # number of rows, their receipt


def pack_receipts(runs: Iterable[Run]) -> bytes:
    """Pack the receipts of rows."""
    return b"".join(
        _RUN.pack(n, r.origin, r.seconds, r.memory, r.log, r.log_end, r.inputs, r.reads) for n, r in runs
    )


def unpack_receipts(packed: bytes) -> Iterator[Run]:
    """Yield the receipts of rows, some rows at a time."""
    for n, origin, seconds, memory, log, log_end, inputs, reads in _RUN.iter_unpack(packed):
        yield n, RowReceipt(seconds, memory, log, log_end, inputs, reads, origin)


class Receipts:
    """Receipts of the rows of a table, in their order, and the places that they refer to.

    Parameters
    ----------
    origins
        Places: host, machine, Python, packages, commit, run and slot, as far as they are known.
    runs
        The receipts; those without an origin are of rows of which nothing is known.
    """

    def __init__(self, origins: Sequence[Mapping[str, Any]] = (), runs: Iterable[Run] = ()) -> None:
        self.origins = list(origins)
        self._numbers = {json.dumps(each, sort_keys=True): i for i, each in enumerate(self.origins, 1)}
        self.runs = list(runs)

    def add_origin(self, place: Mapping[str, Any]) -> int:
        """Return the number of a place."""
        key = json.dumps(place, sort_keys=True)
        if key not in self._numbers:
            self.origins.append(place)
            self._numbers[key] = len(self.origins)
        return self._numbers[key]

    def add(self, n: int, receipt: RowReceipt) -> None:
        """Add the receipt of the next `n` rows."""
        if n and self.runs and self.runs[-1][1] is receipt:
            self.runs[-1] = (self.runs[-1][0] + n, receipt)
        elif n:
            self.runs.append((n, receipt))

    def rows(self) -> Iterator[tuple[RowReceipt, Mapping[str, Any]]]:
        """Yield the receipt of each row, and its place; an empty place: not known."""
        for n, receipt in self.runs:
            place = self.origins[receipt.origin - 1] if receipt.origin else {}
            yield from itertools.repeat((receipt, place), n)

    def sources(self) -> Iterator[tuple[int, Source]]:
        """Yield numbers of rows, and what tells which inputs count for them."""
        places = [("", 0), *(_worker_of(place) for place in self.origins)]
        for n, receipt in self.runs:
            yield n, Source(*places[receipt.origin], receipt.inputs, receipt.reads)

    def sections(self) -> dict[int, bytes]:
        """Return the sections of a frame."""
        return {RECEIPTS: pack_receipts(self.runs), ORIGINS: json.dumps(self.origins).encode()}

    def part(self, rows: Sequence[int]) -> Receipts:
        """Return the receipts of some rows."""
        ends = list(itertools.accumulate(n for n, _ in self.runs))
        found = Receipts(self.origins)
        for row in rows:
            index = bisect_right(ends, row)
            found.add(1, self.runs[index][1] if index < len(ends) else UNKNOWN)
        return found


UNKNOWN = RowReceipt(float("nan"))


def write_receipts(path: Path, receipts: Receipts, process: str) -> None:
    """Write receipts.rows, tied to the digest of process.json."""
    counts = Counts(rows=sum(n for n, _ in receipts.runs))
    write_atomic(path, encode_frame(receipts.sections(), counts, tie=_tie_to(process)))


def read_receipts(path: Path, process: str) -> Receipts:
    """Read receipts.rows; empty where it is missing, damaged, or belongs to another process.json.

    Raises
    ------
    NewerFormatError
        If a newer psyrun wrote it.
    """
    try:
        with open_file(path) as file:
            header = read_header(file, 0, file_size(file))
            known = header is not None and header.tie == _tie_to(process)
            sections = read_sections(file, header) if header is not None and known else None
    except OSError:
        sections = None
    if not sections or RECEIPTS not in sections:
        return Receipts()
    return Receipts(json.loads(sections[ORIGINS]), unpack_receipts(sections[RECEIPTS]))


def _tie_to(process: str) -> bytes:
    return bytes.fromhex(process[:16])


class ReceiptReader:
    """Collects the receipts of rows from the blocks of journals, and puts them in the order of a plan."""

    def __init__(self) -> None:
        self._receipts = Receipts()
        self._spans: dict[int, list[tuple[int, int, RowReceipt]]] = {}
        self._failed: dict[int, dict[int, RowReceipt]] = {}
        self._where: tuple[str, dict[str, Any] | None] = "", None

    def add(self, number: int, journal: JournalFile, block: Block, fresh: Sequence[int]) -> None:
        """Add a block of a batch; `fresh` are the places in it of rows whose first record it holds."""
        self.skip(journal, block)
        name, where = self._where
        named = parse_name(name)
        counts = block.header.counts
        run = {"run": named[1] if named is not None else "", "slot": counts.slot, "child": counts.child}
        own = 0 if where is None else self._receipts.add_origin({**where, **run})
        origins = [own, *(self._receipts.add_origin(place) for place in block.origins())]
        spans, failed = self._spans.setdefault(number, []), self._failed.setdefault(number, {})
        chosen = {block.rows[i] for i in fresh} if len(fresh) < len(block.rows) else None
        order = [*block.rows, *(failure.row for failure in block.failures)] if block.failures else block.rows
        done = len(block.rows)
        for place, first, end, receipt in _align(order, unpack_receipts(block.sections.get(RECEIPTS, b""))):
            found = RowReceipt(*receipt[:-1], origins[receipt.origin])
            if place >= done:
                failed |= dict.fromkeys(range(first, end), found)
            elif chosen is None:
                spans.append((first, end, found))
            else:
                spans += [(row, row + 1, found) for row in range(first, end) if row in chosen]

    def skip(self, journal: JournalFile, block: Block) -> None:
        """Pass a block whose receipts are not wanted: those after it may have its place."""
        name, where = journal.path.stem, block.where()
        if where is None and self._where[0] == name:
            where = self._where[1]
        self._where = name, where

    def in_order(self, segments: Iterable[tuple[int, range]]) -> Receipts:
        """Return the receipts of (batch number, its rows)."""
        for spans in self._spans.values():
            spans.sort(key=lambda span: span[0])
        for number, rows in segments:
            _add_segment(self._spans.get(number, []), self._failed.get(number, {}), rows, self._receipts)
        return self._receipts


def block_sources(name: str, block: Block) -> Iterator[tuple[int, Source]]:
    """Yield numbers of rows of a block, failed ones last, and what tells which inputs count for them.

    Parameters
    ----------
    name
        The name of its journal.
    block
        The block.
    """
    named = parse_name(name)
    own = named[1] if named is not None else "", block.header.counts.child
    places = [own, *map(_worker_of, block.origins())]
    for n, receipt in unpack_receipts(block.sections.get(RECEIPTS, b"")):
        yield n, Source(*places[receipt.origin], receipt.inputs, receipt.reads)


def find_reads(name: str, block: Block) -> dict[tuple[str, int], int]:
    """Return (run, child) -> the highest number of its inputs that counts for a row of a block."""
    found: dict[tuple[str, int], int] = {}
    if ORIGINS not in block.sections:
        named, counts = parse_name(name), block.header.counts
        return {(named[1], counts.child): counts.inputs} if named is not None and counts.inputs else found
    for _, source in block_sources(name, block):
        key = source.run, source.child
        if source.inputs > found.get(key, 0):
            found[key] = source.inputs
    return found


def _worker_of(place: Mapping[str, Any]) -> tuple[str, int]:
    return place.get("run", ""), place.get("child", 0)


def _align(rows: Sequence[int], runs: Iterable[Run]) -> Iterator[tuple[int, int, int, RowReceipt]]:
    """Yield (place in the block, first row, end, receipt) of the rows of a block."""
    place = 0
    for n, receipt in runs:
        part = rows[place : place + n]
        if isinstance(part, range):
            if part:
                yield place, part.start, part.stop, receipt
        else:
            yield from ((place + i, row, row + 1, receipt) for i, row in enumerate(part))
        place += n


def _add_segment(
    spans: list[tuple[int, int, RowReceipt]],
    failed: Mapping[int, RowReceipt],
    rows: range,
    receipts: Receipts,
) -> None:
    """Add the receipts of consecutive rows of a batch.

    Parameters
    ----------
    spans
        (first, end, receipt) of rows with values, in order.
    failed
        Receipts of rows that failed, which count where there are no values.
    rows
        The rows.
    receipts
        Is added to.
    """

    def fill(end: int) -> None:
        if not failed:
            receipts.add(max(0, end - place), UNKNOWN)
        for row in range(place, end) if failed else ():
            receipts.add(1, failed.get(row, UNKNOWN))

    place = rows.start
    for i in range(max(0, bisect_right(spans, place, key=lambda span: span[0]) - 1), len(spans)):
        first, end, receipt = spans[i]
        if first >= rows.stop:
            break
        if first > place:
            fill(first)
            place = first
        if end > place:
            receipts.add(min(end, rows.stop) - place, receipt)
            place = end
    fill(rows.stop)
