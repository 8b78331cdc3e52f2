"""Journals: append-only files of finished rows.

A journal is named ``<batch>-<tie>-<run>.part``, and ``.rows`` once nothing is appended any more. Its tie is
that of the batch's input file, in hexadecimal digits; a run is 8 random characters, which all journals of a
worker share. It is a sequence of frames, each written in one go by the process that owns the file::

    WHERE     JSON: host, machine, Python, packages, commit; in the first, and where it changed
    ROWS      runs of row numbers within the batch: first and length, u32 each
    RECEIPTS  see `row_receipts`; of the rows, then of the failures
    FAILURES  pickle of the failures, where there are any
    VALUES    pickle of the columns, packed

Counting needs the headers only, telling which rows are done needs ROWS, and only a merge reads VALUES.
Readers stop at the first frame that is damaged or cut short, and never write; they refuse what a newer psyrun
wrote.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import re
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from psyrun.disk import AppendedFile, open_file, random_name, write_atomic
from psyrun.values import PICKLE_PROTOCOL, PackedColumn, dumps
from psyrun.workdir.frame import (
    FAILURES,
    NO_TIE,
    ORIGINS,
    ROWS,
    VALUES,
    WHERE,
    Counts,
    encode_frame,
    file_size,
    read_header,
    read_sections,
    reframe,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from psyrun.workdir.frame import Header


_NAME = re.compile(r"(0|[1-9][0-9]{0,14})-([0-9a-f]{16})-([a-z0-9]{8})(\.part|\.rows)?")
_RUN = struct.Struct("<II")


class BatchKey(NamedTuple):
    """A batch as journals name it: its number, and the tie of its input file, 16 hexadecimal digits."""

    number: int
    tie: str


def new_run() -> str:
    """Return a name that no other worker has."""
    return random_name(8)


def journal_path(folder: Path, batch: BatchKey, run: str, suffix: str = ".part") -> Path:
    """Return the path of a worker's journal of a batch."""
    return folder / f"{batch.number}-{batch.tie}-{run}{suffix}"


def parse_name(name: str) -> tuple[BatchKey, str] | None:
    """Return batch and run of a journal's name, with or without suffix; None for other names."""
    match = _NAME.fullmatch(name)
    return None if match is None else (BatchKey(int(match[1]), match[2]), match[3])


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a row has no values.

    Parameters
    ----------
    row
        Its number within the batch, from 0.
    reason
        One line: the exception, ``timeout``, ``exit 1`` or ``signal 11 (SIGSEGV)``.
    traceback
        The traceback from the user's code on; empty where there is none.
    seconds
        How long the row had been evaluated.
    host
        Where that was.
    """

    row: int
    reason: str
    traceback: str = ""
    seconds: float = 0.0
    host: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its kind: of an exception, ``timeout``, ``exit 1``, ``signal 11`` and ``SIGSEGV``."""
        kind, _, more = self.reason.partition(":")[0].partition(" (")
        return (kind, more.rstrip(")")) if more.startswith("SIG") else (kind,)


@dataclass(frozen=True, slots=True)
class Block:
    """Frame of a journal that was read and found undamaged.

    Parameters
    ----------
    header
        Its header.
    rows
        Numbers of the rows (n,) that have values.
    failures
        The rows that have none.
    sections
        Its sections, by kind; `columns`, `where` and `origins` decode them.
    """

    header: Header
    rows: Sequence[int]
    failures: Sequence[Failure]
    sections: Mapping[int, bytes]

    def columns(self) -> dict[str, list[Any]]:
        """Return name -> values (n,), in the order of `rows`."""
        return {name: list(values) for name, values in self.packed().items()}

    def packed(self) -> dict[str, Sequence[Any]]:
        """Return name -> values (n,), in the order of `rows`, where possible as a `PackedColumn`."""
        packed = pickle.loads(self.sections[VALUES]) if VALUES in self.sections else {}
        return {name: unpack_column(*column) for name, column in packed.items()}

    def where(self) -> dict[str, Any] | None:
        """Return where this block and those after it were evaluated; None where that is as before."""
        return json.loads(self.sections[WHERE]) if WHERE in self.sections else None

    def generators(self) -> Sequence[str]:
        """Return the generators that outlive a row, and that rows drew from, where this block names any."""
        where = self.where() if b'"generators"' in self.sections.get(WHERE, b"") else None
        return where.get("generators", ()) if where else ()

    def origins(self) -> list[dict[str, Any]]:
        """Return the places that receipts of rows from elsewhere refer to."""
        return json.loads(self.sections[ORIGINS]) if ORIGINS in self.sections else []


def encode_block(
    rows: Sequence[int],
    columns: Mapping[str, Sequence[Any]],
    failures: Sequence[Failure] = (),
    *,
    counts: Counts | None = None,
    sections: Mapping[int, bytes] | None = None,
    sealed: bool = False,
    tie: str = "",
) -> bytes:
    """Encode finished rows as one block of a journal.

    Parameters
    ----------
    rows
        Numbers of the rows (n,) within their batch.
    columns
        Name -> values (n,).
    failures
        Rows that have no values, with the reason.
    counts
        Further numbers for the header.
    sections
        Further sections.
    sealed, tie
        Whether the block is the first of a journal with this tie; else `JournalWriter.append` seals it.

    Returns
    -------
    bytes
        The block; blocks may be concatenated.
    """
    parts = {ROWS: pack_rows(rows), **(sections or {})}
    if failures:
        fields = [(f.row, f.reason, f.traceback, f.seconds, f.host) for f in failures]
        parts[FAILURES] = pickle.dumps(fields, PICKLE_PROTOCOL)
    if rows:
        parts[VALUES] = dumps({name: pack_column(column) for name, column in columns.items()})
    if WHERE in parts:  # stands first
        parts = {WHERE: parts.pop(WHERE), **parts}
    given = counts or Counts()
    numbers = Counts(
        rows=len(rows),
        failures=len(failures),
        seconds=given.seconds,
        child=given.child,
        slot=given.slot,
        inputs=given.inputs,
    )
    return encode_frame(parts, numbers, tie=bytes.fromhex(tie) or NO_TIE, sealed=sealed)


def pack_rows(rows: Sequence[int]) -> bytes:
    """Pack row numbers as runs of consecutive ones."""
    span = range(rows[0], rows[0] + len(rows)) if rows else range(0)
    if rows == span or list(rows) == list(span):
        return _RUN.pack(span.start, len(span)) if rows else b""
    runs: list[list[int]] = []
    for row in rows:
        if runs and row == sum(runs[-1]):
            runs[-1][1] += 1
        else:
            runs.append([row, 1])
    return b"".join(itertools.starmap(_RUN.pack, runs))


def unpack_rows(packed: bytes, limit: int | None, number: int) -> Sequence[int] | None:
    """Return `number` packed row numbers; None where they are others, or not below the limit."""
    runs = list(_RUN.iter_unpack(packed))
    fits = limit is None or all(first + length <= limit for first, length in runs)
    if not fits or sum(length for _, length in runs) != number:
        return None
    spans = [range(first, first + length) for first, length in runs]
    return spans[0] if len(spans) == 1 else list(itertools.chain(*spans))


def read_headers(path: Path, tie: bytes, start: int = 0) -> Iterator[Header]:
    """Yield the headers of the complete blocks of a journal from byte `start` on, for counting.

    The checksums of headers are verified, those of what follows them are not.
    """
    with open_file(path) as file:
        size = file_size(file)
        while (header := read_header(file, start, size)) is not None and header.tie == tie:
            yield header
            start = header.end


def read_blocks(
    path: Path, tie: bytes, *, size: int | None = None, limit: int | None = None
) -> Iterator[Block]:
    """Yield the undamaged blocks of a journal, up to the first that is not.

    Parameters
    ----------
    path
        The journal.
    tie
        Its tie: other blocks are not its own.
    size
        Read no further than this many bytes.
    limit
        How many rows the batch has: a block that names others is damaged.
    """
    with open_file(path) as file:
        start, end = 0, file_size(file) if size is None else size
        while (header := read_header(file, start, end)) is not None and header.tie == tie:
            sections = read_sections(file, header)
            block = None if sections is None else _make_block(header, sections, limit)
            if block is None:
                return
            yield block
            start = header.end


def _make_block(header: Header, sections: Mapping[int, bytes], limit: int | None) -> Block | None:
    """Decode the row numbers of a block; None where psyrun did not write it for such a batch."""
    try:
        rows = unpack_rows(sections[ROWS], limit, header.counts.rows)
        fields = pickle.loads(sections[FAILURES]) if FAILURES in sections else []
        failures = [Failure(*each) for each in fields]
        fits = all(0 <= each.row < (each.row + 1 if limit is None else limit) for each in failures)
    except Exception:  # Such a section may be anything.
        return None
    if rows is None or not fits or len(failures) != header.counts.failures:
        return None
    return Block(header, rows, failures, sections)


# ---------------------------------------------------------------------- writing


class JournalWriter(AppendedFile):
    """Writer of a journal that no other process writes.

    Parameters
    ----------
    folder
        The folder of journals.
    batch, run
        The batch, and the worker. `open` creates the file.
    """

    def __init__(self, folder: Path, batch: BatchKey, run: str) -> None:
        super().__init__(journal_path(folder, batch, run))
        self._tie = bytes.fromhex(batch.tie)
        self._where: bytes | None = None

    def append(self, blocks: bytes | bytearray, where: bytes) -> None:
        """Append whole blocks, evaluated at `where`, or raise OSError."""
        changed = None if where == self._where else where
        self.write(reframe(blocks, tie=self._tie, offset=self.size, where=changed))
        self._where = where

    def close(self) -> None:
        """Sync, and rename to ``.rows``, which says that the journal is complete. An empty one is removed.

        The folder is to be synced afterwards.
        """
        try:
            self.sync()
        finally:
            os.close(self._fd)
        if self.size == 0:
            self.path.unlink()
        else:
            self.path.rename(self.path.with_suffix(".rows"))


def write_journal(
    folder: Path,
    batch: BatchKey,
    rows: Sequence[int],
    columns: Mapping[str, Sequence[Any]],
    failures: Sequence[Failure] = (),
    sections: Mapping[int, bytes] | None = None,
    inputs: int = 0,
) -> None:
    """Write a closed journal of one block; some of its rows may count so many inputs."""
    counts = Counts(inputs=inputs)
    block = encode_block(
        rows, columns, failures, counts=counts, sections=sections, sealed=True, tie=batch.tie
    )
    write_atomic(journal_path(folder, batch, new_run(), ".rows"), block)


def pack_column(column: Sequence[Any]) -> tuple[str, Any]:
    """Turn a column of numpy scalars, or of arrays of one shape, into a single array."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not column:
        return "list", list(column)
    kind = type(column[0])
    if kind is numpy.ndarray:
        return _pack_arrays(column, numpy)
    # timedelta64 counts as a number, but has a unit of its own in each value.
    plain = issubclass(kind, (numpy.number, numpy.bool_)) and not issubclass(kind, numpy.timedelta64)
    if plain and all(type(value) is kind for value in column):
        return "scalars", numpy.array(column, dtype=kind)
    return "list", list(column)


def _pack_arrays(column: Sequence[Any], numpy: Any) -> tuple[str, Any]:
    shape, dtype = column[0].shape, column[0].dtype
    alike = not (dtype.hasobject or dtype.names) and all(
        type(value) is numpy.ndarray and value.shape == shape and value.dtype == dtype for value in column
    )
    if not alike:
        return "list", list(column)
    packed = numpy.empty((len(column), *shape), dtype)
    for i, value in enumerate(column):
        packed[i] = value
    return "arrays", packed


def unpack_column(kind: str, packed: Any) -> Sequence[Any]:
    """Return the values of a packed column."""
    if kind == "arrays" and packed.ndim == 1:  # Its elements would be scalars.
        return [packed[i, ...] for i in range(len(packed))]
    return PackedColumn(packed) if kind in ("arrays", "scalars") else list(packed)
