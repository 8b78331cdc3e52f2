"""Files ``reads/<run>.reads``: the inputs that the children of a worker read, for all its journals.

Such a file is a sequence of frames with the section INPUTS, JSON: a column for each field of `Input`, but
for those that hold its default only. A worker appends, and syncs, the inputs that a block counts before the
block. The inputs of a child are numbered from 1; the receipt of a row says how many of its child's counted
when it ended, and the lowest number of one that it read itself: those up to the highest hold all that it
read, and with `stateless` nothing else. A lowest number above the highest: it read nothing itself. What was
read while the file was loaded or by `setup` counts for all rows.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from psyrun.disk import AppendedFile, make_folders, open_file
from psyrun.errors import FormatError
from psyrun.workdir.frame import INPUTS, Counts, encode_frame, file_size, read_header, read_sections

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self


class Input(NamedTuple):
    """Something that a process read: a file, the listing of a folder, the matches of a pattern, an absence.

    Parameters
    ----------
    child, number
        The child of the worker, and the number of the input among those of the child, from 1.
    kind
        ``file`` (its content), ``folder`` (the names in it), ``glob`` (the paths that match), ``exists``
        (whether it is there, and what it is: file, folder or nothing), ``declared`` (a file that the task
        file names, whether or not it was read). Three kinds are no inputs: ``product``,
        a path that the process wrote, made or removed, which is no input of any row of the same code and left
        out of listings; ``program``, an audit event of a process that a row started, such as ``os.fork``;
        ``code``, the first of a file: the digest of the code that all of them are of.
    path
        Relative to the project root with ``/``, or absolute outside the project; of a glob its pattern.
    size, mtime
        Size in bytes and time of the last change in nanoseconds when it was read; None for what is no file.
    ctime, inode
        Time of the last change of its status in nanoseconds, and inode, when the digest was taken; None where
        another change might not show in the times.
    digest
        SHA-256 of the content, or of the names in order; for ``exists`` the word ``file``, ``folder`` or
        ``absent``. None where it was too large: then size and mtime count.
    loading
        Whether it was read while the task file was loaded, rather than by a row.
    place
        The statement of a local module that read it while loading, as ``psy-tasks/task_x.py:4``, else ''.
    """

    child: int
    number: int
    kind: str
    path: str
    size: int | None = None
    mtime: int | None = None
    ctime: int | None = None
    inode: int | None = None
    digest: str | None = None
    loading: bool = False
    place: str = ""

    @property
    def stamp(self) -> tuple[int | None, ...]:
        """What `take_stamp` returns as long as the file has the digest for certain."""
        return self[4:8]


def pack_reads(inputs: Sequence[Input]) -> bytes:
    """Encode inputs as a section INPUTS."""
    defaults = Input._field_defaults
    columns = {
        name: column
        for name, column in zip(Input._fields, zip(*inputs))
        if name not in defaults or any(value != defaults[name] for value in column)
    }
    return json.dumps(columns, separators=(",", ":")).encode()


def unpack_reads(section: bytes) -> list[Input]:
    """Decode a section INPUTS."""
    columns: dict[str, list[Any]] = json.loads(section)
    found = {
        name: [value] * len(columns["number"]) for name, value in Input._field_defaults.items()
    } | columns
    return list(map(Input, *(found[name] for name in Input._fields)))


def read_reads(path: Path) -> list[Input] | None:
    """Read the inputs of a worker's children, up to the first damaged frame; None where there is no file.

    Raises
    ------
    FormatError
        If an older or a newer psyrun wrote it.
    """
    found: list[Input] = []
    try:
        file = open_file(path)
    except FileNotFoundError:
        return None
    with file:
        start, end = 0, file_size(file)
        while (header := read_header(file, start, end)) is not None:
            sections = read_sections(file, header)
            if sections is None:
                break
            if INPUTS not in sections:
                raise FormatError(f"{path}: of an older psyrun; remove it: what its rows read is forgotten")
            found += unpack_reads(sections[INPUTS])
            start = header.end
    return found


def list_reads(folder: Path) -> dict[str, list[Input]]:
    """Read the inputs of all workers: run -> its inputs.

    Raises
    ------
    NewerFormatError
        If a newer psyrun wrote one of the files.
    """
    return {path.stem: read_reads(path) or [] for path in sorted(folder.glob("*.reads"))}


class ReadsWriter(AppendedFile):
    """Writer of the inputs of a worker's children.

    Parameters
    ----------
    folder
        The folder of such files, made where it is missing.
    run
        The worker.
    """

    def __init__(self, folder: Path, run: str) -> None:
        super().__init__(folder / f"{run}.reads")

    def open(self) -> Self:
        """Create the file; it must not exist yet."""
        make_folders(self.path.parent)
        return super().open()

    def append(self, inputs: Sequence[Input]) -> None:
        """Append inputs, or raise OSError."""
        self.write(encode_frame({INPUTS: pack_reads(inputs)}, Counts(), offset=self.size))
