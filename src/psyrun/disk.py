"""Files that are there whole, or not at all; errors that name their file."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path
    from typing import Self

    Stamp = tuple[int, int, int, int]


_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.\w+")
_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
_RESOLUTION = 2_000_000_000  # nanoseconds: FAT keeps times in steps of two seconds
_PART = 1 << 16  # bytes read at a time
_SHARED = stat.S_ISGID | stat.S_IWGRP
_stat = os.stat  # before anyone wraps it


@contextmanager
def naming(path: Path, alias: Path | None = None) -> Iterator[None]:
    """Let errors of the disk say that they are about `path`: those that name no file, or the file `alias`.

    Calls with a file descriptor (write, read, fsync, truncate, close) raise errors that name no file.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, alias and str(alias)):
            error.filename = str(path)
            del error.filename2
        raise


def open_file(path: Path) -> BufferedReader:
    """Open a regular file for reading; a pipe in its place is not waited for.

    Raises
    ------
    OSError
        If it can't be opened, or is something else (FileExistsError).
    """
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - Path.open takes no opener
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FileExistsError(errno.EEXIST, "not a regular file", str(path))
    return file


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def take_stamp(path: str | int) -> Stamp | None:
    """Return what tells that a file changed: size, mtime and ctime in nanoseconds, inode.

    The file is a path or open; None where it is no regular file, or is not there.
    """
    try:
        found = _stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def is_settled(stamp: Stamp, now: int) -> bool:
    """Whether a change after this time, in nanoseconds, shows in the stamp: the last was long before."""
    return max(stamp[1:3]) + _RESOLUTION < now


def digest_file(path: str, most: int = sys.maxsize) -> tuple[str, Stamp | None]:
    """Return the SHA-256 of a file, and its stamp after it was read; reading ends after so many bytes.

    A pipe in its place is not waited for.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        digest, left = hashlib.sha256(), most
        while left > 0 and (data := os.read(fd, _PART)):
            digest.update(data)
            left -= len(data)
        return digest.hexdigest(), take_stamp(fd)
    finally:
        os.close(fd)


def read_file(path: Path) -> bytes:
    """Read all bytes of a regular file.

    Raises
    ------
    OSError
        If it can't be read, or is something else; with its name.
    """
    with naming(path), open_file(path) as file:
        return file.read()


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


def random_name(length: int) -> str:
    """Return lower-case letters and digits that were not used before, 5 bits each."""
    return "".join("abcdefghijklmnopqrstuvwxyz234567"[byte & 31] for byte in os.urandom(length))


@contextmanager
def _renaming(path: Path, suffix: str) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}{suffix}")
    try:
        with naming(path, temporary):
            yield temporary
            share_file(temporary)
            _sync_file(temporary)
            temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def share_file(path: Path) -> None:
    """Let the group read and write a file of a shared folder, whatever the umask; see `share_folder`."""
    if path.parent.stat().st_mode & _SHARED == _SHARED:
        with suppress(OSError):  # Another user made it.
            path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o660)


def share_folder(folder: Path) -> None:
    """Give a new folder the group of the folder around it, if that group may write there.

    Folders and files that psyrun creates in it are shared in turn.
    """
    around, found = folder.parent.stat(), folder.stat()
    if around.st_mode & (stat.S_IWGRP | stat.S_ISVTX) == stat.S_IWGRP:
        with suppress(OSError):  # A user who is not in the group has nothing to share with it.
            if found.st_gid != around.st_gid:
                os.chown(folder, -1, around.st_gid)
            folder.chmod(stat.S_IMODE(found.st_mode) | 0o2770)


def write_atomic(path: Path, data: bytes) -> None:
    """Write all bytes of a file by `replacing` it."""
    with replacing(path) as temporary, temporary.open("xb") as file:
        file.write(data)


def make_folders(*folders: Path) -> None:
    """Create folders where they are missing, with their parents, so that they survive a power cut.

    In a folder that is shared with a group (it may write there, and set-group-ID is set), they are shared
    too, so that each of several users can go on with what another began.
    """
    parents = set()
    for folder in folders:
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        for each in reversed(missing or [folder]):  # An error if it is a file.
            each.mkdir(exist_ok=True)
            if each in missing and each.parent.stat().st_mode & _SHARED == _SHARED:
                share_folder(each)
        parents |= {each.parent for each in missing}
    for parent in parents:
        sync_folder(parent)


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
        with naming(folder):
            _sync_file(folder)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:  # Some network file systems can't sync a folder.
            raise


class AppendedFile:
    """File to which this process alone appends.

    Parameters
    ----------
    path
        The file; `open` creates it.

    Attributes
    ----------
    size, synced
        Its size in bytes, and how many of them are synced.

    Notes
    -----
    One thread appends and another syncs; after an error the file ends where it was last synced, since the
    system may show bytes that are not on disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._fd = -1
        self.synced = 0
        self._error: OSError | None = None

    def open(self) -> Self:
        """Create the file; it must not exist yet."""
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        share_file(self.path)
        return self

    @property
    def dirty(self) -> bool:
        """Whether there are bytes that are not synced."""
        return self.size > self.synced

    def write(self, data: bytes) -> None:
        """Append bytes, or raise OSError."""
        if self._error is not None:
            raise self._error
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            self.give_up(error)
            raise
        self.size += len(data)

    def sync(self) -> None:
        """Sync what was appended, so that it survives the loss of the machine."""
        if self._error is not None:  # A second fsync would succeed, although data is lost.
            raise self._error
        size = self.size
        if size > self.synced:
            try:
                os.fsync(self._fd)
            except OSError as error:
                self.give_up(error)
                raise
            self.synced = size

    def give_up(self, error: OSError) -> None:
        """End the file where it was last synced; from now on, appending and syncing raise the error."""
        error.filename = error.filename or str(self.path)
        self._error = error
        with suppress(OSError):
            os.ftruncate(self._fd, self.synced)

    def close(self) -> None:
        """Sync and close the file."""
        try:
            self.sync()
        finally:
            os.close(self._fd)
