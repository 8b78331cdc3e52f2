"""Atomic and durable writing of files."""

from __future__ import annotations

import errno
import os
import re
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.\w+")
_THREADS = 8  # a disk syncs several files at a time


@contextmanager
def replacing(path: Path, suffix: str = ".tmp") -> Iterator[Path]:
    """Give a temporary name beside `path`; the file written there replaces it at the end.

    Parameters
    ----------
    path
        The file; its folder exists.
    suffix
        Suffix of the temporary name.

    Raises
    ------
    OSError
        From fsync or rename; the old file stays then, as it does when the block raises.

    Notes
    -----
    The bytes are synced, then renamed; then the folder is synced. Readers see the old bytes or the new
    ones, also after a crash.
    """
    with _renaming(path, suffix) as temporary:
        yield temporary
    sync_folder(path.parent)


@contextmanager
def _renaming(path: Path, suffix: str) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{suffix}")
    try:
        yield temporary
        _sync_file(temporary)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Write all bytes of a file by `replacing` it."""
    with replacing(path) as temporary, temporary.open("xb") as file:
        file.write(data)


def write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write many files of a folder, name -> bytes, each by `replacing` it; on return, all are synced."""
    from concurrent.futures import ThreadPoolExecutor

    def write(name: str) -> None:
        with _renaming(folder / name, ".tmp") as temporary, temporary.open("xb") as file:
            file.write(files[name])

    pool = ThreadPoolExecutor(_THREADS)
    try:
        list(pool.map(write, files))
    finally:
        pool.shutdown(cancel_futures=True)
    sync_folder(folder)


def find_temporaries(folder: Path, name: str | None = None) -> list[Path]:
    """List the temporary files in a folder, or those of one file."""
    if not folder.is_dir():
        return []
    found = ((path, _TEMPORARY.fullmatch(path.name)) for path in folder.iterdir())
    return [path for path, match in found if match is not None and name in (None, match["name"])]


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut."""
    try:
        _sync_file(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Some network file systems can't sync a folder.
            raise
