"""Python imports this at its start where it is on the path: it notes what psyrun's processes do to files.

``TRACED=<folder>`` says below which folder, ``TRACE=<file>`` where the records go: one marshalled tuple
``(operation, monotonic time, *details)`` after the other, in the order in which the operations took effect.
Files are known by their inodes. A sync has two records: what was written before ``syncing`` is on disk from
``synced`` on. The disk itself is not waited for, so that a busy one does not make a difference.

``STOP=<number>`` stops the process that runs psy itself, as Ctrl-Z does, after its record of that number,
counted from 1.
"""

# What pathlib calls is replaced here, and so is `os.open`.
# ruff: noqa: PTH100, PTH110, PTH115, PTH116

import builtins
import errno
import fcntl
import io
import itertools
import marshal
import os
import signal
import stat
import sys
import threading
import time


class _Trace:
    """Does operations one at a time, over all processes, and writes them down."""

    def __init__(self, folder, path):
        self._folder = folder
        fd = _open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)  # out of the way of others
        os.close(fd)
        self._mutex = threading.RLock()
        self._depth = 0
        os.register_at_fork(after_in_child=self._forget_threads)

    def _forget_threads(self):
        self._mutex, self._depth = threading.RLock(), 0

    def __enter__(self):
        self._mutex.acquire()
        self._depth += 1
        if self._depth == 1:  # No descriptor is shared in such a lock: a forked process has its own.
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
        return self

    def __exit__(self, *error):
        self._depth -= 1
        if self._depth == 0:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)
        self._mutex.release()

    def note(self, operation, *details):
        _write(self._fd, marshal.dumps((operation, time.monotonic(), *details)))
        if next(_records) == _stop_at:
            os.kill(os.getpid(), signal.SIGSTOP)

    def name(self, path, dir_fd=None):
        """Return a path below the folder, relative to it; None for others."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
            if not path.startswith("/"):  # a pipe
                return None
        path = os.fsdecode(path)
        if dir_fd is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        folder, name = os.path.split(os.path.abspath(path))
        path = os.path.join(os.path.realpath(folder), name)
        return os.path.relpath(path, self._folder) if f"{path}/".startswith(f"{self._folder}/") else None

    def is_ours(self, fd):
        try:
            return self.name(fd) is not None
        except OSError:
            return False


_records = itertools.count(1)
_stop_at = int(os.environ.get("STOP", "0")) if "psyrun.cli" in sys.orig_argv else 0


def _note_write(fd, do):
    """Write something; note where it went, and the time that the file has then."""
    with _trace:
        appends = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
        offset = os.fstat(fd).st_size if appends else os.lseek(fd, 0, os.SEEK_CUR)
        data = do()
        after = os.fstat(fd)
        _trace.note("write", after.st_ino, offset, bytes(data), after.st_mtime_ns)
        return len(data)


def _note_open(name, do, *, truncates=False):
    """Open a file for writing; note whether that created it or cut it short."""
    path = os.path.join(_trace._folder, name)
    with _trace:
        was_there = os.path.exists(path)
        opened = do()
        inode = os.stat(path).st_ino
        if not was_there:
            _trace.note("create", name, inode)
        elif truncates:
            _trace.note("truncate", inode, 0)
        return opened


# ---------------------------------------------------------------------- operations on descriptors


def _write_noted(fd, data):
    if not _trace.is_ours(fd):
        return _write(fd, data)
    return _note_write(fd, lambda: bytes(memoryview(data)[: _write(fd, data)]))


def _writev_noted(fd, buffers):
    return _write_noted(fd, b"".join(buffers)) if _trace.is_ours(fd) else _writev(fd, buffers)


def _open_noted(path, flags, mode=0o777, *, dir_fd=None):
    name = _trace.name(path, dir_fd) if flags & (os.O_CREAT | os.O_TRUNC) else None
    if name is None:
        return _open(path, flags, mode, dir_fd=dir_fd)
    return _note_open(
        name, lambda: _open(path, flags, mode, dir_fd=dir_fd), truncates=bool(flags & os.O_TRUNC)
    )


def _sync_noted(fd):
    fd = fd if isinstance(fd, int) else fd.fileno()
    if not _trace.is_ours(fd):
        return
    status = os.fstat(fd)
    with _trace:
        is_folder = stat.S_ISDIR(status.st_mode)
        what = ("folder", _trace.name(fd)) if is_folder else ("file", status.st_ino)
        _trace.note("syncing", *what)
    with _trace:
        _trace.note("synced", *what)


def _truncate_noted(target, length):
    if not (_trace.is_ours(target) if isinstance(target, int) else _trace.name(target)):
        _truncate(target, length)
        return
    with _trace:
        _truncate(target, length)
        _trace.note("truncate", os.stat(target).st_ino, length)


# ---------------------------------------------------------------------- operations on names


def _watch(name, operation):
    """Let an operation of `os` on a name, or on an old and a new one, be noted."""
    real = getattr(os, name)
    two = operation in ("rename", "link")

    def act(path, *arguments, **options):
        dir_fd = options.get("dir_fd", options.get("src_dir_fd"))
        target = _trace.name(arguments[0], options.get("dst_dir_fd")) if two else None
        source = _trace.name(path, dir_fd)
        if source is None and target is None:
            return real(path, *arguments, **options)
        with _trace:
            done = real(path, *arguments, **options)
            _trace.note(operation, source, *([target] if two else []))
            return done

    setattr(os, name, act)


def _utime_noted(path, *arguments, **options):
    done = _utime(path, *arguments, **options)
    if isinstance(path, int) or _trace.name(path):
        with _trace:
            status = os.stat(path)
            _trace.note("utime", status.st_ino, status.st_mtime_ns)
    return done


# ---------------------------------------------------------------------- file objects


class _File(io.FileIO):
    def write(self, data):
        def do():
            data_ = bytes(data)
            written = super(_File, self).write(data_)
            return data_[:written]

        return _note_write(self.fileno(), do) if _trace.is_ours(self.fileno()) else super().write(data)

    def truncate(self, size=None):
        size = self.tell() if size is None else size
        _truncate_noted(self.fileno(), size)
        return size


def _open_file_noted(
    file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None
):
    writes = bool(set(mode) & set("wxa+"))
    name = None
    if writes and isinstance(file, int):
        name = "" if _trace.is_ours(file) else None
    elif writes:
        name = _trace.name(file)
    if name is None:
        return _open_file(file, mode, buffering, encoding, errors, newline, closefd, opener)

    def do():
        return _File(file, mode.replace("b", "").replace("t", ""), closefd, opener)

    raw = _note_open(name, do, truncates="w" in mode) if name and opener is None else do()
    if buffering == 0:
        return raw
    buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
    if "b" in mode:
        return buffer
    return io.TextIOWrapper(buffer, encoding, errors, newline, line_buffering=buffering == 1)


def _refuse(*arguments, **options):
    raise OSError(errno.ENOSYS, "not traced")


_write, _open, _open_file, _truncate, _utime = os.write, os.open, builtins.open, os.truncate, os.utime
if "TRACE" in os.environ:
    _trace = _Trace(os.environ["TRACED"], os.environ["TRACE"])
    os.write, os.open, os.utime = _write_noted, _open_noted, _utime_noted
    _writev, os.writev = os.writev, _writev_noted
    os.fsync = os.fdatasync = _sync_noted
    os.truncate = os.ftruncate = _truncate_noted
    builtins.open = io.open = _open_file_noted
    for _call in ("pwrite", "pwritev", "copy_file_range", "posix_fallocate"):
        if hasattr(os, _call):
            setattr(os, _call, _refuse)
    if hasattr(os, "sendfile"):  # shutil falls back to reading and writing.
        del os.sendfile
    for _call, _operation in {
        "replace": "rename",
        "rename": "rename",
        "link": "link",
        "unlink": "unlink",
        "remove": "unlink",
        "mkdir": "mkdir",
        "rmdir": "rmdir",
    }.items():
        _watch(_call, _operation)
