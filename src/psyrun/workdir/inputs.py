"""Input files: the assignments of a batch, which its journals answer.

An input file is one frame with the sections ABOUT, JSON that says what it is, and VALUES, a pickle of the
packed columns. It is created exclusively and written once, so that a number has one meaning without a lock.
Its tie, the first 8 bytes of the SHA-256 of its content, names it in plans, submissions and journals.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import pickle
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psyrun.disk import naming, open_file, read_file, share_file, sync_folder
from psyrun.errors import FormatError
from psyrun.workdir.frame import ABOUT, MAGIC, VALUES, Counts, encode_frame, read_header, read_sections
from psyrun.workdir.journal import BatchKey, pack_column, unpack_column

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


_PROTOCOL = 5
_THREADS = 8  # a disk syncs several files at a time
_OPEN = 128  # files at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Content of an input file.

    Parameters
    ----------
    task, batch
        The task, and the number of the batch.
    scheme, code, space
        Digests of the code and the space that it was made for, and the version of the rules for digests.
    size
        How many assignments it holds.
    tie
        Its tie, as hexadecimal digits.
    origin
        Digest of the result file that its rows were adopted from, or None.
    equals
        Which of equal rows its rows are, packed; None where nothing depends on it.
    """

    task: str
    batch: int
    scheme: int
    code: str
    space: str
    size: int
    tie: str
    origin: str | None
    equals: str | None
    _packed: bytes

    @property
    def key(self) -> BatchKey:
        """The batch as journals name it."""
        return BatchKey(self.batch, self.tie)

    def columns(self) -> dict[str, list[Any]]:
        """Return name -> values (n,); raises what unpickling the user's values raises."""
        return {name: list(values) for name, values in self.packed().items()}

    def packed(self) -> dict[str, Sequence[Any]]:
        """Return name -> values (n,), where possible as a `PackedColumn`."""
        return {name: unpack_column(*column) for name, column in pickle.loads(self._packed).items()}

    def replicates(self) -> Sequence[int] | None:
        """Return which of equal rows its rows (n,) are, from 0; None where the file does not say."""
        if self.equals is None:
            return None
        return struct.unpack(f"<{self.size}I", zlib.decompress(base64.b64decode(self.equals)))


def pack_replicates(numbers: Sequence[int]) -> str:
    """Pack which of equal rows the rows of a batch are, to be said about it as `equals`."""
    return base64.b64encode(zlib.compress(struct.pack(f"<{len(numbers)}I", *numbers))).decode()


def pack_inputs(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """Pack the assignments of a batch; raises what pickling the user's values raises."""
    return pickle.dumps({name: pack_column(column) for name, column in columns.items()}, _PROTOCOL)


def create_inputs(
    folder: Path, first: int, batches: Sequence[tuple[Mapping[str, Any], bytes]]
) -> list[BatchKey]:
    """Create the input files of new batches under the first numbers that are free.

    Parameters
    ----------
    folder
        The folder of input files.
    first
        The lowest number to use.
    batches
        (what to say about it, `pack_inputs` of its assignments) of each batch.

    Returns
    -------
    list of BatchKey
        The batches, in ascending order; their files are synced.
    """
    from concurrent.futures import ThreadPoolExecutor

    def write(claim: tuple[int, int], batch: tuple[Mapping[str, Any], bytes]) -> BatchKey:
        (number, fd), (about, packed) = claim, batch
        said = {**about, "batch": number, "salt": os.urandom(8).hex()}
        data = encode_frame({ABOUT: json.dumps(said).encode(), VALUES: packed}, Counts())
        with naming(folder / f"{number}.pkl"), open(fd, "wb") as file:  # noqa: PTH123 - a descriptor
            share_file(folder / f"{number}.pkl")
            file.write(data)
            file.flush()
            os.fsync(fd)
        return BatchKey(number, _tie_of(data))

    keys: list[BatchKey] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for begin in range(0, len(batches), _OPEN):
            part, claims = batches[begin : begin + _OPEN], []
            for _ in part:
                claims.append(_claim(folder, first))
                first = claims[-1][0] + 1
            keys += pool.map(write, claims, part)
    sync_folder(folder)
    return keys


def _claim(folder: Path, number: int) -> tuple[int, int]:
    """Create the first file that is not there, from this number on; return its number and descriptor."""
    while True:
        with suppress(FileExistsError):
            return number, os.open(folder / f"{number}.pkl", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        number += 1


def read_inputs(path: Path, tie: str | None = None) -> Inputs:
    """Read the assignments of a batch.

    Parameters
    ----------
    path
        The file.
    tie
        The tie that it has to have; None: any.

    Raises
    ------
    FileNotFoundError
        If there is none.
    FormatError
        If the file is damaged, is that of another batch or plan, or a newer psyrun wrote it.
    """
    data = read_file(path)
    file = io.BytesIO(data)
    file.name = str(path)
    header = read_header(file, 0, len(data))
    sections = None if header is None else read_sections(file, header)
    try:
        about = json.loads((sections or {})[ABOUT])
        found = Inputs(
            task=about["task"],
            batch=about["batch"],
            scheme=about["scheme"],
            code=about["code"],
            space=about["space"],
            size=about["size"],
            origin=about.get("origin"),
            equals=about.get("equals"),
            tie=_tie_of(data),
            _packed=(sections or {})[VALUES],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path}: damaged, or not written by psyrun; psy run plans its rows anew"
        ) from error
    if path.stem != str(found.batch) or tie not in (None, found.tie):
        raise FormatError(f"{path}: not the assignments that were planned; psy run plans its rows anew")
    return found


def _tie_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def is_input(path: Path) -> bool:
    """Whether psyrun wrote a file as the assignments of a batch, or began to."""
    try:
        with open_file(path) as file:
            return file.read(len(MAGIC)) in (MAGIC, b"")
    except OSError:
        return False
