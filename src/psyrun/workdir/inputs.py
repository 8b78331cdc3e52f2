"""Input files: the assignments of a batch, which its journals answer.

An input file is two pickles, of a header and of the packed columns, and behind them a trailer: length and
CRC-32 of the header, CRC-32 of the columns, magic "PSYI". The header can be read without the classes of the
values.
"""

from __future__ import annotations

import os
import pickle
import struct
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from psyrun.errors import FormatError, NewerFormatError
from psyrun.workdir.journal import pack_column, unpack_column

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


FORMAT = 1
_MAGIC = b"PSYI"
_TRAILER = struct.Struct("<III4s")  # length and CRC-32 of the header, CRC-32 of the columns
_PROTOCOL = 5


def encode_inputs(header: Mapping[str, Any], columns: Mapping[str, Sequence[Any]]) -> bytes:
    """Encode the assignments of a batch: a header and the columns as two pickles, and their checksums.

    Raises
    ------
    Exception
        Whatever pickling the user's values raises.
    """
    head = pickle.dumps({"format": FORMAT, **header}, _PROTOCOL)
    packed = pickle.dumps({name: pack_column(column) for name, column in columns.items()}, _PROTOCOL)
    return head + packed + _TRAILER.pack(len(head), zlib.crc32(head), zlib.crc32(packed), _MAGIC)


def read_input_header(path: Path) -> dict[str, Any]:
    """Read what an input file says about itself, without its values.

    Raises
    ------
    FormatError
        If the file is not one of psyrun's, or a newer psyrun wrote it.
    """
    head, _, _ = _read_parts(path)
    return _load_header(head, path)


def is_input(path: Path) -> bool:
    """Whether psyrun wrote a file as the assignments of a batch."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - len(_MAGIC)))
            return file.read() == _MAGIC
    except OSError:
        return False


def read_inputs(path: Path) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Read the assignments of a batch.

    Returns
    -------
    tuple
        The header, and name -> values (n,).

    Raises
    ------
    FormatError
        If the file is damaged, or a newer psyrun wrote it.
    """
    head, packed, checksum = _read_parts(path, whole=True)
    header = _load_header(head, path)
    if zlib.crc32(packed) != checksum:
        raise _damaged(path)
    return header, {name: unpack_column(*column) for name, column in pickle.loads(packed).items()}


def _read_parts(path: Path, *, whole: bool = False) -> tuple[bytes, bytes, int]:
    """Read header, columns (where `whole`) and the checksum of the columns of an input file."""
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size - _TRAILER.size
        file.seek(max(end, 0))
        trailer = file.read(_TRAILER.size)
        length = 0
        if end >= 0:
            length, head_checksum, checksum, magic = _TRAILER.unpack(trailer)
        if end < length or not length or magic != _MAGIC:
            _refuse_strange(file, path)
        file.seek(0)
        head = file.read(length)
        packed = file.read(end - length) if whole else b""
    if zlib.crc32(head) != head_checksum:
        raise _damaged(path)
    return head, packed, checksum


def _refuse_strange(file: BinaryIO, path: Path) -> NoReturn:
    """Tell a newer format, of which only the header at the beginning is known, from damage."""
    file.seek(0)
    header = None
    with suppress(Exception):
        header = pickle.load(file)
    _refuse_newer(header, path)
    raise FormatError(f"{path}: not an input file of psyrun, or damaged; delete it")


def _refuse_newer(header: Any, path: Path) -> None:
    version = header.get("format") if isinstance(header, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise NewerFormatError(f"{path}: written by a newer psyrun (format {version}); upgrade psyrun")


def _load_header(head: bytes, path: Path) -> dict[str, Any]:
    header: dict[str, Any] = pickle.loads(head)
    _refuse_newer(header, path)
    if not isinstance(header, dict) or not isinstance(header.get("format"), int):
        raise FormatError(f"{path}: not an input file of psyrun; delete it")
    if not (isinstance(header.get("size"), int) and isinstance(header.get("code"), str)):
        raise _damaged(path)
    return header


def _damaged(path: Path) -> FormatError:
    return FormatError(f"{path}: damaged; delete it, psy run writes it anew")
