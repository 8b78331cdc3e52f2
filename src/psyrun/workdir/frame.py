"""Frames: sections of bytes behind a header with checksums; journals, inputs and receipts are made of them.

A frame is a header and a body, the sections one after the other. All numbers are little-endian::

    magic "PSY2" | header length u16 | flags u16 | tie 8 bytes
    rows u32 | failures u32 | seconds f64 | child u32 | slot u16 | inputs u32 | number of sections u16
    kind u16, length u64 of each section
    CRC-32 of the body | CRC-32 of the header before it

Both checksums begin with the tie and the offset of the frame in its file, since the tail of a file may hold
frames of a deleted one. The first 16 bytes and the last 4 of a header mean the same in every version, so that
a newer frame is told from damage. A reader refuses a flag of the low byte, or a section below 0x8000, that it
does not know, and ignores others.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from psyrun.errors import NewerFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping


MAGIC = b"PSY2"
NO_TIE = bytes(8)

# Kinds of sections.
WHERE, ROWS, RECEIPTS, FAILURES, VALUES, ABOUT, ORIGINS, _, INPUTS = range(1, 10)  # 8: inputs, row by row
_FIRST_OPTIONAL = 0x8000
_KNOWN_FLAGS = _FLAGS = 0

_PREFIX = struct.Struct("<4sHH8s")
_COUNTS = struct.Struct("<IIdIHIH")
_SECTION = struct.Struct("<HQ")
_CHECKSUM = struct.Struct("<I")
_SHORTEST = _PREFIX.size + _COUNTS.size + 2 * _CHECKSUM.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Numbers in the header of a frame.

    Parameters
    ----------
    rows, failures
        How many rows it holds values of, and how many failures.
    seconds
        Time spent in `execute` for them.
    child, slot
        Number of the child in its worker, and its slot.
    inputs
        The highest number of an input that its rows count.
    """

    rows: int = 0
    failures: int = 0
    seconds: float = 0.0
    child: int = 0
    slot: int = 0
    inputs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Header of a frame, its checksum verified.

    Parameters
    ----------
    start, body, end
        Offsets of the frame, of its body, and of what follows, in bytes.
    tie
        The tie.
    counts
        The numbers.
    sections
        (kind, length) of each section.
    checksum
        CRC-32 of the body.
    """

    start: int
    body: int
    end: int
    tie: bytes
    counts: Counts
    sections: tuple[tuple[int, int], ...]
    checksum: int


def encode_frame(
    sections: Mapping[int, bytes],
    counts: Counts,
    *,
    tie: bytes = NO_TIE,
    offset: int = 0,
    sealed: bool = True,
) -> bytes:
    """Encode a frame.

    Parameters
    ----------
    sections
        Kind -> content.
    counts
        Numbers for the header.
    tie, offset
        The tie, and where the frame begins in its file.
    sealed
        Whether to compute the checksums; without them it can only be given to `reframe`.
    """
    length = _SHORTEST + len(sections) * _SECTION.size
    head = [_PREFIX.pack(MAGIC, length, _FLAGS, tie)]
    head.append(
        _COUNTS.pack(
            counts.rows,
            counts.failures,
            counts.seconds,
            counts.child,
            counts.slot,
            counts.inputs,
            len(sections),
        )
    )
    head += [_SECTION.pack(kind, len(data)) for kind, data in sections.items()]
    checksum = seed = _seed(tie, offset) if sealed else 0
    for data in sections.values() if sealed else ():
        checksum = zlib.crc32(data, checksum)
    head.append(_CHECKSUM.pack(checksum))
    front = b"".join(head)
    return b"".join((front, _CHECKSUM.pack(zlib.crc32(front, seed)), *sections.values()))


def read_header(file: BinaryIO, start: int, end: int) -> Header | None:
    """Read the header of the frame at `start`; None where it is damaged, or not all of it is before `end`.

    Raises
    ------
    NewerFormatError
        If a newer psyrun wrote the frame.
    """
    if start + _SHORTEST > end:
        return None
    file.seek(start)
    prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size:  # Shortened since its size was taken.
        return None
    magic, length, flags, tie = _PREFIX.unpack(prefix)
    if magic[:3] != MAGIC[:3] or length < _SHORTEST:
        return None
    head = prefix + file.read(length - _PREFIX.size)
    if len(head) < length:
        return None
    front, checksum = head[: -_CHECKSUM.size], head[-_CHECKSUM.size :]
    if zlib.crc32(front, _seed(tie, start)) != _CHECKSUM.unpack(checksum)[0]:
        return None
    if magic != MAGIC or flags & 0xFF & ~_KNOWN_FLAGS:
        raise _newer(file)
    return _parse(front, start, tie, end)


def _parse(front: bytes, start: int, tie: bytes, end: int) -> Header | None:
    *counts, number = _COUNTS.unpack_from(front, _PREFIX.size)
    table = front[_PREFIX.size + _COUNTS.size : -_CHECKSUM.size]
    if len(table) != number * _SECTION.size:
        return None
    sections = tuple(_SECTION.iter_unpack(table))
    body = start + len(front) + _CHECKSUM.size
    stop = body + sum(length for _, length in sections)
    if stop > end:
        return None
    names = ("rows", "failures", "seconds", "child", "slot", "inputs")
    return Header(
        start=start,
        body=body,
        end=stop,
        tie=tie,
        counts=Counts(**dict(zip(names, counts))),
        sections=sections,
        checksum=_CHECKSUM.unpack(front[-_CHECKSUM.size :])[0],
    )


def read_sections(file: BinaryIO, header: Header) -> dict[int, bytes] | None:
    """Read the sections of a frame; None where the body is damaged.

    Raises
    ------
    NewerFormatError
        If there is a section that this psyrun has to know, and does not.
    """
    file.seek(header.body)
    body = file.read(header.end - header.body)
    if zlib.crc32(body, _seed(header.tie, header.start)) != header.checksum:
        return None
    if any(INPUTS < kind < _FIRST_OPTIONAL for kind, _ in header.sections):
        raise _newer(file)
    return _cut(body, header.sections)


def _cut(body: bytes | memoryview, sections: tuple[tuple[int, int], ...]) -> dict[int, bytes]:
    found, place = {}, 0
    for kind, length in sections:
        found[kind] = bytes(body[place : place + length])
        place += length
    return found


def reframe(data: bytes | bytearray, *, tie: bytes, offset: int, where: bytes | None) -> bytes:
    """Give frames that are not sealed their tie and place in a file, and the first a section WHERE.

    Parameters
    ----------
    data
        Whole frames, one after the other.
    tie, offset
        The tie, and where the first frame will begin.
    where
        Content of WHERE, or None; frames lose the WHERE and INPUTS that they have.
    """
    view, place, result = memoryview(data), 0, []
    while place < len(view):
        _, length, _, _ = _PREFIX.unpack_from(view, place)
        header = _parse(bytes(view[place : place + length - _CHECKSUM.size]), place, tie, len(view))
        if header is None:
            raise ValueError("not a whole frame")
        sections = _cut(view[header.body : header.end], header.sections)
        for kind in (WHERE, INPUTS):
            sections.pop(kind, None)
        if where is not None:
            sections = {WHERE: where, **sections}
            where = None
        result.append(encode_frame(sections, header.counts, tie=tie, offset=offset))
        offset += len(result[-1])
        place = header.end
    return b"".join(result)


def first_sections(data: bytes | bytearray, *kinds: int) -> dict[int, bytes]:
    """Return the sections of some kinds in the first of some frames that are not sealed."""
    _, length, _, _ = _PREFIX.unpack_from(data)
    header = _parse(bytes(data[: length - _CHECKSUM.size]), 0, NO_TIE, len(data))
    found, place = {}, length
    for kind, size in () if header is None else header.sections:
        if kind in kinds:
            found[kind] = bytes(data[place : place + size])
        place += size
    return found


def file_size(file: BinaryIO) -> int:
    """Return the size of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


def _seed(tie: bytes, offset: int) -> int:
    return zlib.crc32(tie + offset.to_bytes(8, "little"))


def _newer(file: BinaryIO) -> NewerFormatError:
    return NewerFormatError(f"{file.name}: written by a newer psyrun; upgrade psyrun")
