"""The line between a pool and a child: how rows are ordered, answers are sent, and who is alive.

The pool has one end of it, `serve` runs at the other: in `psyrun.worker.child`, or in any other evaluator
of rows.
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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType
    from typing import NoReturn


READY, BLOCK, ERROR = 1, 2, 3
HEADER = struct.Struct("<BIdQ")  # of a message: kind, rows, seconds, bytes that follow
LENGTH = struct.Struct("<Q")  # of an order, which is a pickle of (tag, rows, number of the first)
NO_ROW = 0
LOST = 120  # exit status of a child that can't reach its parent any more

_HAND_IN = 0.1  # seconds after which a child sends what it has, and gives back the rest


class Place:
    """Two numbers in memory that parent and child share: which row the child is at, and since when.

    Parameters
    ----------
    fd
        Descriptor of a file of `Place.SIZE` bytes; may be closed afterwards.
    """

    SIZE = 16

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, self.SIZE)
        # Views store eight bytes at once; a struct would store them one by one, and a kill come in between.
        self.numbers = memoryview(self._map).cast("q")[:1]
        self.times = memoryview(self._map).cast("d")[1:]

    def close(self) -> None:
        """Unmap the memory."""
        self.numbers.release()
        self.times.release()
        self._map.close()


class Order:
    """A mini-batch: rows to evaluate, and the numbers by which the shared memory names them.

    Parameters
    ----------
    tag
        The batch.
    rows
        Row numbers (n,) within the batch.
    first
        The number of the first of them; the others follow.
    """

    __slots__ = ("first", "rows", "tag")

    def __init__(self, tag: int, rows: Sequence[int], first: int) -> None:
        self.tag, self.rows, self.first = tag, rows, first


class Line:
    """The child's end of its pipes; `connect` makes it."""

    def __init__(self, slot: int, orders: int, messages: int, place: Place) -> None:
        self.slot = slot
        self._options, self._messages, self._place = orders, messages, place
        self._forked = False
        os.register_at_fork(after_in_child=self._leave_to_parent)

    def receive(self) -> Order | None:
        """Wait for an order; None: there are no more."""
        length = self._read(LENGTH.size)
        return Order(*pickle.loads(self._read(*LENGTH.unpack(length)))) if length else None

    def walk(self, order: Order) -> Iterator[int]:
        """Yield rows of an order, marking each in shared memory, until it is time to hand in."""
        numbers, times, clock = self._place.numbers, self._place.times, time.monotonic
        end = clock() + _HAND_IN
        try:
            for number, row in enumerate(order.rows, order.first):
                now = clock()
                if now > end and number > order.first:
                    break
                times[0] = now  # before the number, which must not stand beside the time of another row
                numbers[0] = number
                yield row
                if self._forked:
                    os._exit(0)  # a copy that user code forks ends where its row ends
        finally:
            numbers[0] = NO_ROW

    def elapsed(self) -> float:
        """Return the seconds since the row began."""
        return time.monotonic() - self._place.times[0]

    def send(self, kind: int, data: bytes = b"", *, rows: int = 0, seconds: float = 0.0) -> None:
        """Send a message; for a block, `rows` says how many of the order's rows it is about."""
        header = HEADER.pack(kind, rows, seconds, len(data))
        for part in (header + data,) if len(data) < mmap.PAGESIZE else (header, data):
            self._write(memoryview(part))

    def _read(self, n: int) -> bytes:
        data = b""
        try:
            while len(data) < n and (more := os.read(self._options, n - len(data))):
                data += more
        except OSError:
            self._lose()
        return data

    def _write(self, data: memoryview) -> None:
        try:
            while data:
                data = data[os.write(self._messages, data) :]
        except OSError:
            self._lose()

    def _lose(self) -> NoReturn:
        os._exit(LOST)  # user code closed our pipes, or the parent is gone

    def _leave_to_parent(self) -> None:
        self._forked = True
        for fd in (self._options, self._messages):
            with contextlib.suppress(OSError):
                os.close(fd)


def connect(numbers: Sequence[str]) -> Line:
    """Take up the line to the pool.

    Parameters
    ----------
    numbers
        The arguments that the pool appended to the command: descriptors of orders, messages, the pipe that
        ends with the parent, and shared memory; slot; process id of the parent.
    """
    *fds, slot, parent = map(int, numbers)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _leave_sigterm_to_parent()
    orders, messages, life, memory = map(_move_up, fds)
    _die_with(parent, life)
    place = Place(memory)
    os.close(memory)
    return Line(slot, orders, messages, place)


def serve(line: Line, evaluate: Callable[[Order], tuple[int, bytes]]) -> None:
    """Answer orders until there are no more.

    Parameters
    ----------
    line
        The line to the pool.
    evaluate
        Evaluates rows that `Line.walk` yields for an order; returns how many they were, and what to send.
    """
    line.send(READY)
    while (order := line.receive()) is not None:
        started = time.monotonic()
        rows, data = evaluate(order)
        seconds = time.monotonic() - started
        flush()
        line.send(BLOCK, data, rows=rows, seconds=seconds)


def flush() -> None:
    """Hand on what was printed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _move_up(fd: int) -> int:
    """Move a descriptor to where user code that closes or counts descriptors won't meet it."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    high = 1024 if limit == resource.RLIM_INFINITY else min(limit, 1024)
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(3, high - 16))
    os.close(fd)
    return moved


def _leave_sigterm_to_parent() -> None:
    """Outlive SIGTERM, which batch systems send to all processes of a job: it is no fault of a row.

    The parent decides what becomes of us. What user code starts has the default again, so that a pool of its
    own can be terminated.
    """
    before = threading.local()  # what the thread that forks had blocked

    def reset() -> None:
        if signal.getsignal(signal.SIGTERM) is _ignore:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        restore()

    def block() -> None:
        before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    def restore() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    signal.signal(signal.SIGTERM, _ignore)
    # Blocked in between, so that none that is meant for a fork gets lost.
    os.register_at_fork(before=block, after_in_parent=restore, after_in_child=reset)


def _ignore(number: int, frame: FrameType | None) -> None: ...


def _die_with(parent: int, life: int) -> None:
    """See to it that this process does not outlive its parent, whatever it is doing."""
    if sys.platform == "linux":
        _die_by_kernel(life)
    else:
        _die_by_thread(parent)
    if os.getppid() != parent:
        os._exit(LOST)


if sys.platform == "linux":

    def _die_by_kernel(life: int) -> None:
        """Have the kernel send SIGKILL, which needs no interpreter lock, when the pipe or the parent ends."""
        with contextlib.suppress(OSError):
            fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
        with contextlib.suppress(ImportError, AttributeError):
            import ctypes

            set_death_signal = 1  # PR_SET_PDEATHSIG: holds even after the pipe was closed
            ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL, 0, 0, 0)


def _die_by_thread(parent: int) -> None:
    import threading

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(LOST)

    threading.Thread(target=watch, daemon=True).start()
