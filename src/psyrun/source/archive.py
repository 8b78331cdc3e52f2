"""Archives: zip files of captured sources, which jobs load."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import fields
from typing import TYPE_CHECKING

from psyrun.disk import write_atomic
from psyrun.errors import FormatError, NewerFormatError
from psyrun.source.capture import Source

if TYPE_CHECKING:
    from pathlib import Path


_FORMAT = 1


def write_zip(source: Source, path: Path) -> None:
    """Write captured sources to a file; equal sources give equal bytes.

    Raises
    ------
    OSError
        If it can't be written; an older file is untouched then.
    """
    meta = {each.name: getattr(source, each.name) for each in fields(source)}
    names = sorted(meta.pop("files"))
    meta |= {"format": _FORMAT, "files": names}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(_entry("meta.json"), json.dumps(meta, sort_keys=True, indent=1))
        for number, name in enumerate(names):
            archive.writestr(_entry(str(number)), source.files[name])
    write_atomic(path, buffer.getvalue())


def read_zip(path: Path) -> Source:
    """Read captured sources from a file.

    Raises
    ------
    FormatError
        If the file is damaged, or of a newer psyrun.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            meta = json.loads(archive.read("meta.json"))
            version = meta.pop("format")
            if version == _FORMAT:
                files = {name: archive.read(str(number)) for number, name in enumerate(meta.pop("files"))}
                return Source(**meta, files=files)
    except OSError:
        raise
    except Exception as error:  # Damaged archives raise anything.
        raise FormatError(f"{path}: damaged ({error}); run psy run again, it is written anew") from error
    raise NewerFormatError(f"{path}: written by a newer psyrun (format {version}); upgrade psyrun")


def _entry(name: str) -> zipfile.ZipInfo:
    """Return an entry without time and host, stored, since compressors differ in their bytes."""
    entry = zipfile.ZipInfo(name)  # dated 1980
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    return entry
