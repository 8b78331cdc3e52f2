"""The protocol between a pool and its children: requests, messages, and how each learns that the other died.

`connect` and `serve` are the child's side, used by `psyrun.worker.child` and open to other programs that
evaluate rows. The pool's side is `psyrun.worker.process`.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import pickle
import resource
import signal
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from psyrun.worker.meter import SLOW_SECONDS, RowMeter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType
    from typing import NoReturn


READY, BLOCK, ERROR = 1, 2, 3
HEADER = struct.Struct("<BIdQ")  # of a message: kind, rows, seconds, bytes that follow
LENGTH = struct.Struct("<Q")  # of a request, which is a pickle of (batch, rows, mark of the first row)
NO_ROW = 0
DISCONNECTED = 120  # exit status of a child that lost its pipes or its parent

_FLUSH_SECONDS = 0.1  # after which a child sends its finished rows and leaves the others to the pool


class RowMarker:
    """Numbers in shared memory: the mark of the row being evaluated, its start, and where its output begins.

    Parameters
    ----------
    fd
        Descriptor of a file of `RowMarker.SIZE` bytes; may be closed afterwards.
    """

    SIZE = 24

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, self.SIZE)
        # Views store eight bytes at once; a struct would store them one by one, and a kill come in between.
        self.marks = memoryview(self._map).cast("q")[:1]
        self.times = memoryview(self._map).cast("d")[1:2]
        self.logs = memoryview(self._map).cast("q")[2:]

    def close(self) -> None:
        """Unmap the memory."""
        self.marks.release()
        self.times.release()
        self.logs.release()
        self._map.close()


class Request:
    """A request to evaluate rows.

    Parameters
    ----------
    batch
        The batch.
    rows
        Row numbers (n,) within the batch.
    first
        Mark of the first row in shared memory; those of the others follow.
    """

    def __init__(self, batch: Any, rows: Sequence[int], first: int) -> None:
        self.batch, self.rows, self.first = batch, rows, first


class ParentConnection:
    """The child's end of its pipes; `connect` makes it."""

    def __init__(self, slot: int, number: int, requests: int, messages: int, marker: RowMarker) -> None:
        self.slot, self.number = slot, number
        self.meter = RowMeter(flush_output, _move_up)
        self.failed = False  # whether the row failed that was yielded last: it is measured by itself
        self._requests, self._messages, self._marker = requests, messages, marker
        self._forked = False
        os.register_at_fork(after_in_child=self._disconnect_fork)

    def receive(self) -> Request | None:
        """Wait for a request; None: there will be no more."""
        length = self._read(LENGTH.size)
        return Request(*pickle.loads(self._read(*LENGTH.unpack(length)))) if length else None

    def iter_rows(self, request: Request) -> Iterator[int]:
        """Yield rows of a request, marking each in shared memory, until the finished ones should be sent.

        `meter` has measured them then.
        """
        marks, times, clock = self._marker.marks, self._marker.times, time.monotonic
        began, mark, first = clock(), request.first - 1, request.first
        end = began + _FLUSH_SECONDS
        self._marker.logs[0] = self.meter.begin(began)
        try:
            for mark, row in enumerate(request.rows, first):
                now = clock()
                if (now - began > SLOW_SECONDS or self.failed) and mark > first:
                    self.failed = False
                    self._marker.logs[0] = self.meter.measure(mark - first - 1, began, now)
                    now = clock()
                if now > end and mark > first:
                    began, mark = now, mark - 1
                    break
                times[0] = began = now  # before the mark, which must not stand beside the time of another row
                marks[0] = mark
                yield row
                if self._forked:
                    os._exit(0)  # a copy that user code forked ends where its row ends
        finally:
            marks[0] = NO_ROW
            now = clock()
            if now - began > SLOW_SECONDS or self.failed:
                self.failed = False
                self.meter.measure(mark - first, began, now)
            self.meter.end(mark - first + 1, now)

    def elapsed(self) -> float:
        """Return the seconds since the row began."""
        return time.monotonic() - self._marker.times[0]

    def send(self, kind: int, data: bytes = b"", *, rows: int = 0, seconds: float = 0.0) -> None:
        """Send a message; a block is about the first `rows` rows of the request, which took `seconds`."""
        header = HEADER.pack(kind, rows, seconds, len(data))
        for part in (header + data,) if len(data) < mmap.PAGESIZE else (header, data):
            self._write(memoryview(part))

    def _read(self, n: int) -> bytes:
        data = b""
        try:
            while len(data) < n and (more := os.read(self._requests, n - len(data))):
                data += more
        except OSError:
            _exit_disconnected()
        return data

    def _write(self, data: memoryview) -> None:
        try:
            while data:
                data = data[os.write(self._messages, data) :]
        except OSError:
            _exit_disconnected()

    def _disconnect_fork(self) -> None:
        self._forked = True
        for fd in (self._requests, self._messages):
            with contextlib.suppress(OSError):
                os.close(fd)


def _exit_disconnected() -> NoReturn:
    """Exit because user code closed our pipes, or the parent is gone."""
    os._exit(DISCONNECTED)


def connect(arguments: Sequence[str]) -> ParentConnection:
    """Connect to the pool that started this process.

    Parameters
    ----------
    arguments
        The arguments that the pool appended to the command: descriptors (pipe of requests, pipe of messages,
        pipe that closes when the parent ends, shared memory), slot, number, process id of the parent.
    """
    *fds, slot, number, parent = map(int, arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _ignore_sigterm()
    requests, messages, life, memory = map(_move_up, fds)
    _exit_with_parent(parent, life)
    marker = RowMarker(memory)
    os.close(memory)
    return ParentConnection(slot, number, requests, messages, marker)


def serve(connection: ParentConnection, evaluate: Callable[[Request], tuple[int, bytes]]) -> None:
    """Answer requests until there are no more.

    Parameters
    ----------
    connection
        The connection to the pool.
    evaluate
        Evaluates the rows that `ParentConnection.iter_rows` yields for a request; returns their number and
        the data to send.
    """
    connection.send(READY)
    while (request := connection.receive()) is not None:
        started = time.monotonic()
        rows, data = evaluate(request)
        seconds = time.monotonic() - started
        connection.send(BLOCK, data, rows=rows, seconds=seconds)


def flush_output() -> None:
    """Flush standard output and standard error."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _move_up(fd: int) -> int:
    """Move a descriptor out of the range that user code closes or counts."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    high = 1024 if limit == resource.RLIM_INFINITY else min(limit, 1024)
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(3, high - 16))
    os.close(fd)
    return moved


def _ignore_sigterm() -> None:
    """Survive SIGTERM, which batch systems send to all processes of a job: the parent decides what to do.

    Processes that user code starts have the default handler, so that a pool of its own can be terminated.
    """
    before = threading.local()  # signals that the forking thread had blocked

    def block() -> None:
        before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    def restore() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    def reset() -> None:
        if signal.getsignal(signal.SIGTERM) is _do_nothing:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        restore()

    # A handler rather than SIG_IGN, which programs started by user code would inherit.
    signal.signal(signal.SIGTERM, _do_nothing)
    # Blocked during the fork, so that a signal sent to the new process is not lost.
    os.register_at_fork(before=block, after_in_parent=restore, after_in_child=reset)


def _do_nothing(number: int, frame: FrameType | None) -> None: ...


def _exit_with_parent(parent: int, life: int) -> None:
    """Make sure that this process ends with its parent, whatever it is doing then."""
    if sys.platform == "linux":
        # The kernel sends SIGKILL, which needs no interpreter lock, when the pipe closes or the parent ends.
        with contextlib.suppress(OSError):
            fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
        with contextlib.suppress(ImportError, AttributeError):
            import ctypes

            set_death_signal = 1  # PR_SET_PDEATHSIG: works even after user code closed the pipe
            ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        _exit_disconnected()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    _exit_disconnected()
