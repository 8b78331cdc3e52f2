"""Captured sources, and the zip files of them that jobs load."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any
from zipimport import zipimporter

from psyrun.disk import read_file, write_atomic
from psyrun.errors import FormatError, NewerFormatError
from psyrun.source.modules import is_editable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from zipfile import ZipInfo


SCHEME = 3  # version of the rules of digests: goes up when equal sources get other digests than before

_FORMAT = 2
_LAST = "digest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Captured sources of a task, and their digests.

    Parameters
    ----------
    task
        The task file, a POSIX path relative to the project root.
    conf
        psy-conf.py beside it, likewise, or None.
    files
        Path -> bytes, of these two and of local modules; those of editable installs are named by module.
    modules
        Dotted name of each local module -> path, '' for a namespace package.
    code, space
        Digests of the statements that values of `execute`, and the space, depend on; without data files.
    definitions
        Digest of each definition in `code`, named like ``psy-tasks/model.py: step``.
    """

    task: str
    conf: str | None
    files: Mapping[str, bytes]
    modules: Mapping[str, str]
    code: str
    space: str
    definitions: Mapping[str, str]

    @property
    def scripts(self) -> tuple[str, ...]:
        """Paths of the files that run in the task's own namespace, in order."""
        return (self.task,) if self.conf is None else (self.conf, self.task)

    @property
    def paths(self) -> Sequence[str]:
        """Paths relative to the project root, without those of editable installs."""
        return [path for path in self.files if not is_editable(path)]


def write_zip(source: Source, path: Path) -> None:
    """Write captured sources to ``<digest>.zip``; equal sources give equal bytes.

    The last member says the digest in the file's name, the version of the rules for digests, and the SHA-256
    of the members before it.

    Raises
    ------
    OSError
        If it can't be written; an older file is untouched then.
    """
    from zipfile import ZipFile

    meta = {each.name: getattr(source, each.name) for each in fields(source)}
    names = sorted(meta.pop("files"))
    meta |= {"format": _FORMAT, "files": names}
    members = {"meta.json": json.dumps(meta, sort_keys=True, indent=1).encode()}
    members |= {str(number): source.files[name] for number, name in enumerate(names)}
    last = {"digest": path.stem, "scheme": SCHEME, "sha256": _digest(members)}
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        for name, data in {**members, _LAST: json.dumps(last, sort_keys=True).encode()}.items():
            archive.writestr(_entry(name), data)
    write_atomic(path, buffer.getvalue())


def _digest(members: Mapping[str, bytes]) -> str:
    parts = [f"{name} {len(data)}\n".encode() + data for name, data in members.items()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _check_digests(last: Mapping[str, Any], digest: str, members: Mapping[str, bytes]) -> None:
    if (last["digest"], last["sha256"]) != (digest, _digest(members)):
        raise ValueError("its content is not what its name says")


def read_zip(path: Path) -> Source:
    """Read captured sources from a file.

    Raises
    ------
    FormatError
        If the file is damaged, is not what its name says, or is of a newer psyrun.
    """
    read_file(path)  # Errors of the disk are those of no archive.
    try:
        archive = zipimporter(str(path))  # Python has it at hand; to import zipfile takes long.
        archive.invalidate_caches()
        members = {"meta.json": archive.get_data("meta.json")}
        meta = json.loads(members["meta.json"])
        version = meta.pop("format")
        if version == _FORMAT:
            names = meta.pop("files")
            members |= {str(number): archive.get_data(str(number)) for number in range(len(names))}
            _check_digests(json.loads(archive.get_data(_LAST)), path.stem, members)
            files = {name: members[str(number)] for number, name in enumerate(names)}
            return Source(**meta, files=files)
    except Exception as error:  # Damaged archives raise anything.
        raise FormatError(f"{path}: damaged ({error}); run psy run again, it is written anew") from error
    if isinstance(version, int) and version < _FORMAT:
        raise FormatError(f"{path}: of an older psyrun; run psy run again, it is written anew")
    raise NewerFormatError(f"{path}: written by a newer psyrun (format {version}); upgrade psyrun")


def _entry(name: str) -> ZipInfo:
    """Return an entry without time and host, stored, since compressors differ in their bytes."""
    from zipfile import ZipInfo

    entry = ZipInfo(name)  # dated 1980
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    return entry
