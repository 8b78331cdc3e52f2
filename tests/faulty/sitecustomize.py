"""Python imports this at its start where it is on the path: it lets one file operation of psyrun go wrong.

``FAULT=<module>:<number>:<deed>`` says in which process (psyrun.cli, psyrun.worker), at which of its
operations on files below ``psy-work``, counted from 1, and how: ``kill`` dies before the operation; ``torn``
dies when half of the bytes are written; ``EIO`` and ``ESTALE`` fail this once; ``ENOSPC`` and ``EDQUOT`` fail
from there on wherever space is needed, as a disk does that is full, ``EROFS`` and ``EACCES`` wherever a name
is. Errors of calls with a descriptor name no file, as those of the system. ``OPERATIONS`` names a file that
is told all operations.
"""

# What pathlib calls is replaced here.
# ruff: noqa: PTH100, PTH115, PTH119

import builtins
import errno
import io
import os
import signal
import sys

_GROWS = {"create", "write", "link", "mkdir"}
_NAMES = {"create", "link", "mkdir", "rename", "remove"}
_LASTING = {"ENOSPC": _GROWS, "EDQUOT": _GROWS, "EROFS": _NAMES, "EACCES": _NAMES}
_ONCE = {"EIO", "ESTALE"}


class _Fault:
    """Counts operations, and lets the one go wrong."""

    def __init__(self, number, deed, log):
        self.number, self.deed, self.log = number, deed, log
        self.count = 0

    def meet(self, operation, target, do, do_half=None):
        """Do an operation, if it may be done."""
        self.count += 1
        if self.log is not None:
            _write(self.log, f"{self.count} {operation} {os.path.basename(_name(target))}\n".encode())
        if self.count < self.number or not self.number:
            return do()
        if self.deed in ("kill", "torn") and self.count == self.number:
            if do_half is not None and self.deed == "torn":
                do_half()
            os.kill(os.getpid(), signal.SIGKILL)
        lasts = operation in _LASTING.get(self.deed, ())
        if lasts and self.count == self.number and do_half is not None:
            return do_half()
        if lasts or (self.deed in _ONCE and self.count == self.number):
            number = getattr(errno, self.deed)
            named = () if operation in ("write", "sync", "truncate") else (_name(target),)
            raise OSError(number, os.strerror(number), *named)
        return do()


def _name(target):
    if isinstance(target, int):
        return os.readlink(f"/proc/self/fd/{target}")
    return os.path.abspath(os.fspath(target))


def _is_ours(target):
    try:
        return "/psy-work" in _name(target)
    except OSError:
        return False


def _watch(name, operation):
    """Put an operation of `os`, whose first argument says on what, under the fault."""
    real = getattr(os, name)

    def act(target, *arguments, **options):
        if not _is_ours(target):
            return real(target, *arguments, **options)
        return _fault.meet(operation, target, lambda: real(target, *arguments, **options))

    setattr(os, name, act)


def _write_watched(fd, data):
    if not _is_ours(fd):
        return _write(fd, data)
    half = memoryview(data)[: len(data) // 2]
    return _fault.meet("write", fd, lambda: _write(fd, data), lambda: _write(fd, half))


def _open_watched(path, flags, *arguments, **options):
    if not flags & os.O_CREAT or not _is_ours(path):
        return _open(path, flags, *arguments, **options)
    return _fault.meet("create", path, lambda: _open(path, flags, *arguments, **options))


class _File(io.FileIO):
    def write(self, data):
        data = bytes(data)
        half = data[: len(data) // 2]
        write = super().write
        return _fault.meet("write", self.name, lambda: write(data), lambda: write(half))


def _open_file_watched(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, **options):
    if isinstance(file, int) or not set(mode) & set("wxa+") or not _is_ours(file):
        return _open_file(file, mode, buffering, encoding, errors, newline, **options)
    raw = _fault.meet("create", file, lambda: _File(file, mode.replace("b", "").replace("t", "")))
    buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
    return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, errors, newline)


_write, _open, _open_file = os.write, os.open, builtins.open
_module, _, _rest = os.environ.get("FAULT", "").partition(":")
if _module and _module in sys.orig_argv:
    _number, _, _deed = _rest.partition(":")
    _path = os.environ.get("OPERATIONS")
    _log = None if _path is None else _open(_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    _fault = _Fault(int(_number), _deed, _log)
    os.write, os.open, builtins.open, io.open = (
        _write_watched,
        _open_watched,
        _open_file_watched,
        _open_file_watched,
    )
    for _call, _operation in {
        "fsync": "sync",
        "replace": "rename",
        "rename": "rename",
        "link": "link",
        "unlink": "remove",
        "remove": "remove",
        "mkdir": "mkdir",
        "rmdir": "remove",
        "ftruncate": "truncate",
    }.items():
        _watch(_call, _operation)
