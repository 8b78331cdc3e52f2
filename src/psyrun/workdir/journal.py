"""Journals: append-only files of finished rows.

A journal is named ``<batch>-<run>.part``, and ``.rows`` once it is closed: 8 random characters for each run.
It is a sequence of blocks, each written in one go by the one process that owns the file::

    magic "PSY1" | index length u32 | values length u64 | rows u32 | failures u32 | seconds f64 | CRC-32 u32
    index        pickle of (row numbers within the batch, failures)
    values       pickle of the columns, packed

All numbers are little-endian; the checksum covers header, index and values. Counting needs the headers only,
telling which rows are done needs the index, and only a merge reads values. Readers stop at the first block
that is damaged or cut short, and never write; they refuse a journal whose first block has a newer version.
"""

from __future__ import annotations

import os
import pickle
import secrets
import struct
import sys
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from psyrun.disk import sync_folder, write_atomic
from psyrun.errors import NewerFormatError
from psyrun.values import PICKLE_PROTOCOL, dumps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


_MAGIC = b"PSY1"
_SUFFIXES = (".part", ".rows")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_HEADER = struct.Struct("<4sIQIIdI")


def new_journal(folder: Path, batch: int, suffix: str = ".part") -> Path:
    """Return the path of a journal that no other process writes."""
    run = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    return folder / f"{batch}-{run}{suffix}"


def batch_of(name: str) -> int | None:
    """Return the batch that a file name of a journal names; None for other files."""
    return parse_batch(name) if name.endswith(_SUFFIXES) else None


def parse_batch(stem: str) -> int | None:
    """Return the batch that a journal's name without suffix names."""
    number, dash, _ = stem.partition("-")
    return int(number) if dash and number.isdecimal() else None


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


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of a block say.

    Parameters
    ----------
    end
        Offset of the block's end in its file, in bytes.
    rows, failures
        How many rows it holds values of, and how many failures.
    seconds
        Time spent in `execute` for them.
    checksum
        CRC-32 of the block.
    """

    end: int
    rows: int
    failures: int
    seconds: float
    checksum: int


@dataclass(frozen=True, slots=True)
class Block:
    """A block that was read and found undamaged.

    Parameters
    ----------
    header
        Its header.
    rows
        Numbers of the rows (n,) that have values.
    failures
        The rows that have none.
    packed
        The values as they were written; `columns` unpacks them.
    """

    header: Header
    rows: Sequence[int]
    failures: Sequence[Failure]
    packed: bytes

    def columns(self) -> dict[str, list[Any]]:
        """Return name -> values (n,), in the order of `rows`."""
        if not self.packed:
            return {}
        return {name: unpack_column(*column) for name, column in pickle.loads(self.packed).items()}


def encode_block(
    rows: Sequence[int],
    columns: Mapping[str, Sequence[Any]],
    failures: Sequence[Failure] = (),
    seconds: float = 0.0,
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
    seconds
        Time spent in `execute` for all of them.

    Returns
    -------
    bytes
        The block; blocks may be concatenated.
    """
    fields = [(f.row, f.reason, f.traceback, f.seconds, f.host) for f in failures]
    index = pickle.dumps((_compact(rows), fields), PICKLE_PROTOCOL)
    values = dumps({name: pack_column(column) for name, column in columns.items()}) if rows else b""
    counts = (_MAGIC, len(index), len(values), len(rows), len(failures), seconds)
    return b"".join((_HEADER.pack(*counts, _checksum(counts, index, values)), index, values))


def read_headers(path: Path, start: int = 0) -> Iterator[Header]:
    """Yield the headers of the complete blocks of a journal from byte `start` on.

    The blocks' checksums are not verified: this is for counting.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while (found := _read_header(file, start, size)) is not None:
            header, _, _ = found
            yield header
            start = header.end


def read_blocks(path: Path, *, size: int | None = None, limit: int | None = None) -> Iterator[Block]:
    """Yield the undamaged blocks of a journal, up to the first that is not.

    Parameters
    ----------
    path
        The journal.
    size
        Read no further than this many bytes.
    limit
        How many rows the batch has: a block that names others is damaged.
    """
    with path.open("rb") as file:
        start = 0
        end = os.fstat(file.fileno()).st_size if size is None else size
        while (found := _read_header(file, start, end)) is not None:
            header, counts, index_length = found
            body = file.read(header.end - start - _HEADER.size)
            index, values = body[:index_length], body[index_length:]
            if _checksum(counts, index, values) != header.checksum:
                return
            block = _make_block(header, index, values, limit)
            if block is None:
                return
            yield block
            start = header.end


def _make_block(header: Header, index: bytes, values: bytes, limit: int | None) -> Block | None:
    """Decode the index of a block; None where psyrun did not write it for such a batch."""
    try:
        rows, failures = pickle.loads(index)
        block = Block(header, rows, [Failure(*each) for each in failures], values)
        named = [*block.rows[:1], *block.rows[-1:]] if isinstance(block.rows, range) else [*block.rows]
        named += [failure.row for failure in block.failures]
        fits = not named or (min(named) >= 0 and (limit is None or max(named) < limit))
    except Exception:  # Such an index may be anything.
        return None
    return block if fits and len(block.rows) == header.rows else None


def _read_header(file: BinaryIO, start: int, size: int) -> tuple[Header, tuple[Any, ...], int] | None:
    if start + _HEADER.size > size:
        return None
    file.seek(start)
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:  # Shortened since its size was taken.
        return None
    *counts, checksum = _HEADER.unpack(head)
    magic, index_length, values_length, rows, failures, seconds = counts
    if start == 0 and magic[:3] == _MAGIC[:3] and _MAGIC < magic <= b"PSY9":
        version = magic[3:].decode()
        raise NewerFormatError(f"{file.name}: written by a newer psyrun (format {version}); upgrade psyrun")
    end = start + _HEADER.size + index_length + values_length
    if magic != _MAGIC or end > size:
        return None
    return Header(end, rows, failures, seconds, checksum), tuple(counts), index_length


def _checksum(counts: tuple[Any, ...], index: bytes, values: bytes) -> int:
    return zlib.crc32(values, zlib.crc32(index, zlib.crc32(_HEADER.pack(*counts, 0))))


def _compact(rows: Sequence[int]) -> Sequence[int]:
    if isinstance(rows, range) or not rows:
        return rows
    contiguous = range(rows[0], rows[0] + len(rows))
    return contiguous if list(rows) == list(contiguous) else list(rows)


# ---------------------------------------------------------------------- writing


class JournalWriter:
    """Writer of a journal that no other process writes.

    Parameters
    ----------
    path
        The file to create, ``out/<batch>-<run>.part``. `open` creates it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._size = 0
        self._dirty = False
        self._lost: OSError | None = None

    def open(self) -> JournalWriter:
        """Create the file; it must not exist yet."""
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        return self

    def append(self, blocks: bytes | bytearray) -> None:
        """Append whole blocks, or raise OSError and leave the file as it was."""
        view = memoryview(blocks)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(blocks)
        self._dirty = True

    def sync(self) -> None:
        """Sync the appended blocks, so that they survive the loss of the machine."""
        if self._lost is not None:  # A second fsync would succeed, although data is lost.
            raise self._lost
        if self._dirty:
            try:
                os.fsync(self._fd)
            except OSError as error:
                self._lost = error
                raise
            self._dirty = False

    def close(self) -> Path | None:
        """Sync and rename to ``.rows``, which says that the journal is complete. An empty one is removed."""
        try:
            self.sync()
        finally:
            os.close(self._fd)
        if self._size == 0:
            self.path.unlink()
            return None
        closed = self.path.with_suffix(".rows")
        self.path.rename(closed)
        sync_folder(self.path.parent)
        return closed


def write_journal(folder: Path, batch: int, block: bytes) -> None:
    """Write a closed journal of one block."""
    write_atomic(new_journal(folder, batch, ".rows"), block)


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


def unpack_column(kind: str, packed: Any) -> list[Any]:
    """Return the values of a packed column."""
    if kind == "arrays" and packed.ndim == 1:
        return [packed[i, ...] for i in range(len(packed))]
    return list(packed)
