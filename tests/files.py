"""Files of a work folder, as tests write and damage them."""

from __future__ import annotations

import zlib

from psyrun.workdir.frame import reframe
from psyrun.workdir.inputs import create_inputs, pack_inputs, read_inputs
from psyrun.workdir.journal import encode_block, journal_path


def seal(*blocks, tie, offset=0, where=None):
    """The bytes of blocks as they stand in a journal with this tie (16 digits)."""
    return reframe(b"".join(blocks), tie=bytes.fromhex(tie), offset=offset, where=where)


def key_of(folder, number):
    """A batch of the work folder of a task, with the tie of its input file."""
    return read_inputs(folder / "in" / f"{number}.pkl").key


def add_journal(folder, number, rows, columns, failures=(), *, run="aaaaaaaa", suffix=".rows"):
    """Write a journal of one block into the work folder of a task."""
    key = key_of(folder, number)
    path = journal_path(folder / "out", key, run, suffix)
    path.write_bytes(seal(encode_block(rows, columns, failures), tie=key.tie))
    return path


def add_inputs(folder, columns, *, code="c" * 32, first=0):
    """Create an input file and return its batch."""
    size = len(next(iter(columns.values()), ()))
    about = {"task": "x", "scheme": 1, "code": code, "space": "s" * 32, "size": size}
    (key,) = create_inputs(folder, first, [(about, pack_inputs(columns))])
    return key


def make_newer(data, *, offset=0):
    """The first frame of some bytes as a newer psyrun may write it: another magic, right checksums."""
    length = int.from_bytes(data[4:6], "little")
    front = b"PSY3" + data[4 : length - 4]
    seed = zlib.crc32(data[8:16] + offset.to_bytes(8, "little"))
    return front + zlib.crc32(front, seed).to_bytes(4, "little") + data[length:]
