"""One child process as its parent sees it: starting it, its pipes, what it holds, how it ended."""

from __future__ import annotations

import fcntl
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections import deque
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psyrun.worker.protocol import BLOCK, ERROR, HEADER, LENGTH, NO_ROW, READY, Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from psyrun.worker.queue import Piece

    _Message = tuple[int, int, float, bytearray]  # kind, rows, seconds, data


_PIPE_SIZE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """The children to employ.

    Parameters
    ----------
    argv
        Command that becomes a child; what `psyrun.worker.protocol.connect` reads is appended.
    size
        How many of them at a time. A child's slot number is below that; a replacement takes the dead one's.
    env
        Their environment; the parent's if None.
    timeout
        Seconds that a row may take.
    grace
        Seconds that children get to finish: the mini-batch at hand when stopped, their exit at the end.
    """

    argv: Sequence[str]
    size: int
    env: Mapping[str, str] | None = None
    timeout: float | None = None
    grace: float = 0.5


@dataclass(frozen=True, slots=True)
class InHand:
    """A mini-batch in a child's hands; the rows' places count from `first` on."""

    piece: Piece
    first: int


class Child:
    """A process, our ends of its pipes, and the orders that it has not answered."""

    def __init__(
        self, slot: int, process: subprocess.Popen[bytes], place: Place, fds: tuple[int, int, int]
    ) -> None:
        self.slot, self.process, self.place = slot, process, place
        self.down, self.up, self.life = fds
        self.orders: deque[InHand] = deque()
        self.ready = False
        self.seen = NO_ROW
        self.lost = 0.0  # seconds of the row at hand during which all of us were suspended
        self._next = NO_ROW + 1
        self._out = bytearray()
        self._inbox = _Inbox()

    def order(self, piece: Piece) -> None:
        """Queue an order to evaluate rows."""
        self.orders.append(InHand(piece, self._next))
        data = pickle.dumps((piece.work.tag, piece.rows, self._next), 5)
        self._out += LENGTH.pack(len(data)) + data
        self._next += len(piece)

    def flush(self) -> bool:
        """Write what the pipe takes, and return whether that was all."""
        try:
            while self._out:
                del self._out[: os.write(self.down, self._out)]
        except BlockingIOError:
            return False
        except BrokenPipeError:
            self._out.clear()
        return True

    def messages(self) -> Iterator[_Message]:
        """Yield what has arrived; EOFError: nothing more can come, or be understood."""
        return self._inbox.read(self.up)

    def dismiss(self) -> None:
        """Tell the child that there are no more orders."""
        if self.down >= 0:
            os.close(self.down)
            self.down = -1

    def wait(self, seconds: float) -> int | None:
        """Return its exit status, or None if it is alive after so many seconds."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(max(seconds, 0))
        return None

    def kill(self) -> None:
        """Kill the child and its process group, and where it is alive all that descends from it."""
        descendants = list(_find_descendants(self.process.pid)) if self.process.poll() is None else []
        with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM where only zombies are left
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()  # it may have left its group
        for pid in descendants:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Close our ends of the pipes, and the shared memory."""
        self.dismiss()
        self.place.close()
        os.close(self.up)
        os.close(self.life)


class _Inbox:
    """Puts messages together that arrive in parts; large ones are read in place."""

    def __init__(self) -> None:
        self._header: tuple[int, int, float] | None = None
        self._data = bytearray(HEADER.size)
        self._filled = 0

    def read(self, fd: int) -> Iterator[_Message]:
        while self._fill(fd):
            data, self._filled = self._data, 0
            if self._header is None:
                self._begin(*HEADER.unpack(data))
            else:
                header = self._header
                self._header, self._data = None, bytearray(HEADER.size)
                yield *header, data

    def _begin(self, kind: int, rows: int, seconds: float, length: int) -> None:
        if kind not in (READY, BLOCK, ERROR):
            raise EOFError  # user code wrote into the pipe
        self._header = kind, rows, seconds
        try:
            self._data = bytearray(length)
        except (MemoryError, OverflowError):
            raise EOFError from None

    def _fill(self, fd: int) -> bool:
        """Read until the buffer is full, or return False where that is for later."""
        with memoryview(self._data) as view:
            while self._filled < len(view):
                try:
                    n = os.readv(fd, [view[self._filled :]])
                except BlockingIOError:
                    return False
                if n == 0:
                    raise EOFError
                self._filled += n
        return True


def start_child(crew: PoolConfig, slot: int) -> Child:
    """Start a process for a slot, in a process group of its own."""
    with ExitStack() as ours, ExitStack() as theirs:
        (orders, down), (up, messages), (life, end) = os.pipe(), os.pipe(), os.pipe()
        for fd in (down, up, end):
            ours.callback(os.close, fd)
        fds = (orders, messages, life, _unnamed_file(Place.SIZE))
        for fd in fds:
            theirs.callback(os.close, fd)
        place = Place(fds[-1])
        ours.callback(place.close)
        _enlarge(up)
        os.set_blocking(down, False)
        os.set_blocking(up, False)
        numbers = map(str, (*fds, slot, os.getpid()))
        process = subprocess.Popen(
            [*crew.argv, *numbers], stdin=subprocess.DEVNULL, env=crew.env, pass_fds=fds, process_group=0
        )
        ours.pop_all()
        return Child(slot, process, place, (down, up, end))


def _unnamed_file(size: int) -> int:
    if sys.platform == "linux":
        fd = os.memfd_create("psyrun")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd


def _enlarge(pipe: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError):  # a user's pipes have a total limit
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)


def _find_descendants(pid: int) -> Iterator[int]:
    """Yield the processes below a living one, also those in sessions of their own; Linux tells."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, path.read_text().split()):
                yield child
                yield from _find_descendants(child)


def describe_exit(status: int) -> str:
    """Say how a process ended: ``exit 1`` or ``signal 11 (SIGSEGV)``."""
    if status >= 0:
        return f"exit {status}"
    try:
        return f"signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"signal {-status}"
