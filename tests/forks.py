"""psy commands forked from a process that has imported all that they need: no start of Python for each.

A forked psy has the arguments, folder, environment, module search path, standard streams and process group of
a started one, and ends as Python ends, but that objects which are alive then are not deleted. Its threads,
random state and signal handlers are those of a fresh process: this file, run as a program, is the server that
forks, and does nothing else.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# A psy that evaluates rows imports these sooner or later.
_LIBRARIES = ("click", "doit.cmd_run", "doit.doit_cmd", "flufl.lock", "joblib", "numpy", "sqlite3")
_LEFT_OUT = ("psyrun.testing", "psyrun.store.h5")  # They import pytest and tables, which psy does not.
# Python and C libraries read these when they start, so that a forked psy would not heed them.
_READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "TZ")


class ForkServer:
    """A process that forks psy commands; it is started with the first."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket, self._theirs = socket.socketpair()

    def accepts(self, environment: Mapping[str, str]) -> bool:
        """Whether a forked psy behaves like one that is started with this environment."""
        path = environment.get("PYTHONPATH", "").split(os.pathsep)
        if any(os.path.exists(os.path.join(folder, "sitecustomize.py")) for folder in path):  # noqa: PTH110
            return False
        return _read_at_start(environment) == _read_at_start(self._environment)

    def run(
        self, arguments: tuple[str, ...], *, folder: Path, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run psy and return how it ended, and what it printed.

        Raises
        ------
        subprocess.TimeoutExpired
            When it, or a process that inherited its output, did not end in time. Its process group is killed.
        """
        self._start()
        ours, theirs = socket.socketpair()
        out, its_out = os.pipe()
        err, its_err = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        passed = [nothing, its_out, its_err]
        request = {"arguments": arguments, "folder": str(folder), "environment": dict(environment)}
        with ours, theirs, os.fdopen(out, "rb", 0) as out_file, os.fdopen(err, "rb", 0) as err_file:
            socket.send_fds(self._socket, [b"x"], [theirs.fileno(), *passed])
            theirs.close()
            for fd in passed:
                os.close(fd)
            ours.sendall(json.dumps(request).encode())
            ours.shutdown(socket.SHUT_WR)
            read = _Reading({"reply": ours, "out": out_file, "err": err_file}, time.monotonic() + timeout)
            if not read.all():
                read.kill()
                raise subprocess.TimeoutExpired(["psy", *arguments], timeout)
        _, code = read.text("reply").split()
        return subprocess.CompletedProcess(["psy", *arguments], int(code), read.text("out"), read.text("err"))

    def _start(self) -> None:
        if self._process is None:
            fd = self._theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(fd)],
                pass_fds=[fd],
                env=self._environment | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                process_group=0,
            )
            self._theirs.close()

    def close(self) -> None:
        self._socket.close()
        self._theirs.close()
        if self._process is not None:
            self._process.wait()


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    found = {name: value for name, value in environment.items() if name.startswith(_READ_AT_START)}
    found.pop("PYTHONPATH", None)
    return found


class _Reading:
    """All that comes from several files, until each has ended."""

    def __init__(self, files: Mapping[str, Any], deadline: float) -> None:
        self._files = files
        self._deadline = deadline
        self._read = dict.fromkeys(files, b"")

    def all(self) -> bool:
        """Read to the end; tell whether that was reached in time."""
        with selectors.DefaultSelector() as selector:
            for name, file in self._files.items():
                selector.register(file, selectors.EVENT_READ, name)
            while selector.get_map():
                left = self._deadline - time.monotonic()
                if left < 0:
                    return False
                for key, _ in selector.select(left):
                    some = os.read(key.fd, 1 << 16)
                    self._read[key.data] += some
                    if not some:
                        selector.unregister(key.fileobj)
        return True

    def kill(self) -> None:
        with suppress(ProcessLookupError, IndexError):
            os.killpg(int(self.text("reply").split()[0]), 9)

    def text(self, name: str) -> str:
        return self._read[name].decode(errors="strict").replace("\r\n", "\n")


# ---------------------------------------------------------------------- the server


def _import_all() -> None:
    for name in _LIBRARIES:
        importlib.import_module(name)
    package = importlib.import_module("psyrun")
    for module in pkgutil.walk_packages(package.__path__, "psyrun."):
        if not module.name.startswith(_LEFT_OUT) and not module.name.endswith(".__main__"):
            importlib.import_module(module.name)


def _accept(listener: socket.socket) -> list[int]:
    """Fork for each request that comes; return its file descriptors in a child whose parent waits for it."""
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        message, fds, *_ = socket.recv_fds(listener, 1, 4)
        if not message:
            os._exit(0)
        if not os.fork():
            break
        for fd in fds:
            os.close(fd)
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        return fds
    listener.close()
    for fd in fds[1:]:
        os.close(fd)
    with socket.socket(fileno=fds[0]) as reply:
        reply.sendall(f"{pid} ".encode())
        status = os.waitpid(pid, 0)[1]
        with suppress(BrokenPipeError):  # It was given up.
            reply.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become_psy(fds: list[int], path: list[str]) -> None:
    """Make this process what Python is when it was started for a request."""
    with socket.socket(fileno=fds[0]) as reply, reply.makefile("rb") as file:
        request = json.load(file)
    for number, fd in enumerate(fds[1:]):
        os.dup2(fd, number)
    os.closerange(3, max(fds) + 1)
    sys.stdin = sys.__stdin__ = _reopen(sys.stdin, "r")
    sys.stdout = sys.__stdout__ = _reopen(sys.stdout, "w")
    sys.stderr = sys.__stderr__ = _reopen(sys.stderr, "w")
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    more = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[:] = [*more, *path]
    found = PathFinder.find_spec("psyrun")
    if found is None or found.origin != sys.modules["psyrun"].__file__:
        sys.exit(f"a psy that is started here would be another one: {found}")
    tempfile.tempdir = None
    sys.modules["numpy"].random.seed()  # Random numbers of Python are seeded anew by os.fork.
    sys.argv[1:] = request["arguments"]


def _reopen(file: io.TextIOWrapper, mode: str) -> io.TextIOWrapper:
    """Open a standard stream again, as Python does when it starts."""
    raw = os.fdopen(file.fileno(), mode + "b", 0 if file.write_through else -1, closefd=False)
    getattr(raw, "raw", raw).name = file.name
    text = io.TextIOWrapper(
        raw,
        file.encoding,
        file.errors,
        newline="\n",
        line_buffering=file.line_buffering,
        write_through=file.write_through,
    )
    text.mode = mode
    return text


class _Exit:
    """Ends a forked psy after its threads and exit handlers, before Python deletes all modules.

    That would write to every page of memory which processes share, and take longer than most commands.
    """

    def __init__(self) -> None:
        self.code: object = None
        atexit.register(self._leave)  # The first that is registered is the last that is called.

    def _leave(self) -> None:
        if isinstance(self.code, int):
            with suppress(OSError, ValueError):  # Python says what is wrong with them.
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(self.code & 0xFF)


if __name__ == "__main__":
    _exit = _Exit()
    _own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    _import_all()
    gc.collect()
    gc.freeze()
    _become_psy(
        _accept(socket.socket(fileno=int(sys.argv[1]))), [folder for folder in sys.path if folder not in _own]
    )
    try:
        runpy.run_module("psyrun.cli", run_name="__main__", alter_sys=True)
    except SystemExit as _ended:
        _exit.code = _ended.code
        raise
