"""Child processes that evaluate rows, and may die, hang or time out, a row at a time.

The pool knows nothing of tasks and files: it hands out row numbers, and gets bytes back. It never unpickles
what a child sends. Three pipes lead to each child: orders go down the first, messages come up the second,
and nothing ever passes the third, whose end tells the child that its parent is gone. Two numbers in shared
memory say which row a child is at and since when, so that a death is the fault of that row and no other.
`psyrun.child` is the other end.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from psyrun.child import BLOCK, ERROR, HEADER, LENGTH, LOST, NO_ROW, READY, Place
from psyrun.errors import ExecuteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    _Message = tuple[int, int, float, bytearray]  # kind, rows, seconds, data

__all__ = ["Crew", "Sink", "Work", "evaluate"]

_AIM = 0.05  # seconds of evaluation that a mini-batch should hold
_GROWTH = 8
_TICK = 0.05  # seconds between two looks at the children
_SUSPENDED = (
    1.0  # seconds between two looks that mean that this process was stopped, and children may have been
)
_PATIENCE = 0.5  # seconds from the end of a child's messages to its exit
_LONG = 5.0  # seconds that a killed process may take to go
_STRIKES = 3  # deaths for no known reason before rows are suspected one by one
_PIPE_SIZE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Rows to evaluate.

    Parameters
    ----------
    tag
        What the children know the rows' batch by.
    rows
        Numbers of the rows (n,) within the batch.
    """

    tag: int
    rows: Sequence[int]


class Sink(Protocol):
    """Takes what becomes of the rows; each row ends in exactly one call. An exception stops everything."""

    def block(self, tag: int, rows: Sequence[int], data: bytearray, seconds: float) -> None:
        """Take what a child sent for `rows`, which took it `seconds`."""

    def fail(self, tag: int, row: int, reason: str, seconds: float) -> None:
        """Take note that a child died at `row`, or was killed because of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The children to employ.

    Parameters
    ----------
    argv
        Command that becomes a child; what `psyrun.child.connect` reads is appended.
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


def evaluate(work: Iterable[Work], sink: Sink, crew: Crew, stop: Callable[[], bool] = lambda: False) -> bool:
    """Have all rows evaluated by child processes.

    Call it from a thread that outlives the call: on Linux, children die with the thread that started them.

    Parameters
    ----------
    work
        The rows, in the order in which they are begun.
    sink
        Where blocks and failures go, as they come.
    crew
        The children.
    stop
        Asked every 0.05 s; once it returns True, no more rows are handed out, and what is unfinished after
        the grace period is given up.

    Returns
    -------
    bool
        Whether every row ended in a block or a failure. No child is alive then, nor when an exception is
        raised, nor is anything that children started in their process groups.

    Raises
    ------
    ExecuteError
        If a child reports that it can't evaluate anything, or children die three times in a row before one
        of them is ready.
    """
    with _Pool(crew, sink, _Queue(work)) as pool:
        while pool.unfinished():
            if stop():
                pool.wind_up()
                break
            pool.hand_out()
            pool.step()
        return not pool.unfinished()


# ---------------------------------------------------------------------- rows not handed out yet


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows [lo, hi) of a work, and how often a child died over them for no known reason."""

    work: Work
    lo: int
    hi: int
    strikes: int = 0

    def __len__(self) -> int:
        return self.hi - self.lo

    @property
    def rows(self) -> Sequence[int]:
        return self.work.rows[self.lo : self.hi]

    def part(self, lo: int, hi: int) -> _Piece:
        """Return the rows from `lo` to `hi`, counted from this piece's first."""
        return _Piece(self.work, self.lo + lo, self.lo + hi, self.strikes)


class _Queue:
    def __init__(self, work: Iterable[Work]) -> None:
        self._pieces = deque(_Piece(w, 0, len(w.rows)) for w in work if len(w.rows))
        self.left = sum(map(len, self._pieces))

    def take(self, most: int) -> _Piece:
        """Remove at most `most` rows; suspects come one at a time."""
        piece = self._pieces.popleft()
        n = 1 if piece.strikes >= _STRIKES else min(most, len(piece))
        if n < len(piece):
            self._pieces.appendleft(piece.part(n, len(piece)))
        self.left -= n
        return piece.part(0, n)

    def put_back(self, piece: _Piece) -> None:
        if len(piece):
            self._pieces.appendleft(piece)
            self.left += len(piece)


class _Pace:
    """How many rows fill a mini-batch."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._limit = 1

    def measure(self, rows: int, seconds: float) -> None:
        fitting = int(_AIM * rows / max(seconds, 1e-6))
        self._limit = max(1, min(fitting, _GROWTH * self._limit))

    def rows(self, left: int) -> int:
        """Return how many of the rows `left` to take; towards the end fewer, so that no child idles."""
        return min(self._limit, max(1, left // (2 * self._size)))

    def depth(self, left: int) -> int:
        """Return how many mini-batches a child may have: rows that wait behind a slow row wait long."""
        return 2 if self._limit > 1 and left > self._size * self._limit else 1


# ---------------------------------------------------------------------- one child


@dataclass(frozen=True, slots=True)
class _Order:
    """A mini-batch in a child's hands; the rows' places count from `first` on."""

    piece: _Piece
    first: int


class _Child:
    """A process, our ends of its pipes, and the orders that it has not answered."""

    def __init__(
        self, slot: int, process: subprocess.Popen[bytes], place: Place, fds: tuple[int, int, int]
    ) -> None:
        self.slot, self.process, self.place = slot, process, place
        self.down, self.up, self.life = fds
        self.orders: deque[_Order] = deque()
        self.ready = False
        self.seen = NO_ROW
        self.lost = 0.0  # seconds of the row at hand during which all of us were suspended
        self._next = NO_ROW + 1
        self._out = bytearray()
        self._inbox = _Inbox()

    def order(self, piece: _Piece) -> None:
        self.orders.append(_Order(piece, self._next))
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
        """Kill the child and whatever it started in its process group."""
        with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM where only zombies are left
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()  # it may have left its group

    def close(self) -> None:
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


def _start(crew: Crew, slot: int) -> _Child:
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
        return _Child(slot, process, place, (down, up, end))


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


def _describe_exit(status: int) -> str:
    """Say how a process ended: ``exit 1`` or ``signal 11 (SIGSEGV)``."""
    if status >= 0:
        return f"exit {status}"
    try:
        return f"signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"signal {-status}"


# ---------------------------------------------------------------------- all of them


@dataclass(slots=True)
class _Pool:
    crew: Crew
    sink: Sink
    queue: _Queue
    children: dict[int, _Child] = field(default_factory=dict)
    stopped: bool = False
    early_deaths: int = 0
    looked: float = field(default_factory=time.monotonic)
    lost: float = 0.0
    pace: _Pace = field(init=False)
    selector: selectors.BaseSelector = field(init=False)

    def __enter__(self) -> Self:
        self.pace = _Pace(self.crew.size)
        self.selector = selectors.DefaultSelector()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self.stopped:
                self.dismiss_all()
        finally:
            for child in self.children.values():
                child.kill()
            for child in self.children.values():
                child.wait(_LONG)
                child.close()
            self.selector.close()

    def unfinished(self) -> bool:
        return self.queue.left > 0 or any(child.orders for child in self.children.values())

    def wind_up(self) -> None:
        """Wait for what children have in hand, as long as the grace period lasts."""
        self.stopped = True
        end = time.monotonic() + self.crew.grace
        while any(c.orders for c in self.children.values()) and (left := end - time.monotonic()) > 0:
            self.step(min(_TICK, left))

    def dismiss_all(self) -> None:
        end = time.monotonic() + self.crew.grace
        for child in self.children.values():
            child.dismiss()
        for child in self.children.values():
            child.wait(end - time.monotonic())

    def hand_out(self) -> None:
        """Give rows to children that have room, and employ as many as there are rows for."""
        for most in (1, 2):
            for child in self.children.values():
                depth = min(most, self.pace.depth(self.queue.left))
                if self.queue.left and child.ready and len(child.orders) < depth:
                    child.order(self.queue.take(self.pace.rows(self.queue.left)))
                    self.write(child)
        idle = sum(not child.orders for child in self.children.values())
        vacant = [slot for slot in range(self.crew.size) if slot not in self.children]
        for slot in vacant[: max(0, self.queue.left - idle)]:
            self.start(slot)

    def start(self, slot: int) -> None:
        child = self.children[slot] = _start(self.crew, slot)
        self.selector.register(child.up, selectors.EVENT_READ, child)

    def step(self, seconds: float = _TICK) -> None:
        """Wait for something to happen, at most so long, and deal with it."""
        for key, event in self.selector.select(seconds):
            child: _Child = key.data
            if self.children.get(child.slot) is not child:
                continue  # buried a moment ago
            if event & selectors.EVENT_WRITE:
                self.write(child)
            else:
                self.read(child)
        now = time.monotonic()
        gap, self.looked = now - self.looked, now
        self.lost = gap if gap > _SUSPENDED else 0.0
        for child in list(self.children.values()):
            if child.process.poll() is not None:
                self.bury(child)
            elif self.crew.timeout is not None:
                self.watch(child, self.crew.timeout)

    def write(self, child: _Child) -> None:
        """Write orders; the selector calls again when the pipe takes more."""
        waiting = child.down in self.selector.get_map()
        if child.flush():
            if waiting:
                self.selector.unregister(child.down)
        elif not waiting:
            self.selector.register(child.down, selectors.EVENT_WRITE, child)

    def read(self, child: _Child) -> None:
        try:
            self.receive(child)
        except EOFError:
            self.bury(child, heard=True)

    def receive(self, child: _Child) -> None:
        for kind, rows, seconds, data in child.messages():
            if kind == ERROR:
                raise ExecuteError(data.decode(errors="replace"))
            if kind == READY:
                child.ready = True
                self.early_deaths = 0
            else:
                self.pace.measure(rows, seconds)
                piece = child.orders.popleft().piece
                self.queue.put_back(piece.part(rows, len(piece)))
                self.sink.block(piece.work.tag, piece.part(0, rows).rows, data, seconds)

    def watch(self, child: _Child, timeout: float) -> None:
        """Kill a child whose row takes too long."""
        number, elapsed = child.place.numbers[0], time.monotonic() - child.place.times[0]
        # Seen twice: only then does the time surely belong to the number.
        if number != child.seen:
            child.seen, child.lost = number, min(self.lost, elapsed)
            return
        child.lost += self.lost
        if number != NO_ROW and elapsed - child.lost > timeout:
            child.kill()
            self.bury(child, overdue=number)

    def bury(self, child: _Child, *, heard: bool = False, overdue: int = NO_ROW) -> None:
        """Find out what a child died of, and what becomes of its rows; hear its last messages before."""
        status = child.wait(_PATIENCE)
        child.kill()
        if status is None:
            child.wait(_LONG)
        if not heard:
            with suppress(EOFError):
                self.receive(child)
        self.remove(child)
        try:
            if not child.ready:
                self.count_early_death(child, status)
            if child.orders:
                self.settle(child, status, overdue)
        finally:
            child.close()

    def remove(self, child: _Child) -> None:
        del self.children[child.slot]
        for fd in (child.down, child.up):
            if fd in self.selector.get_map():
                self.selector.unregister(fd)

    def count_early_death(self, child: _Child, status: int | None) -> None:
        self.early_deaths += 1
        if self.early_deaths >= _STRIKES:
            how = "it closed its pipes" if status is None else _describe_exit(status)
            raise ExecuteError(
                f"child {child.slot} died before it was ready, {_STRIKES} times in a row ({how}); "
                "look at `setup` and the imports of the task file"
            )

    def settle(self, child: _Child, status: int | None, overdue: int) -> None:
        """Fail the row that a child died of, and put back the others that it had."""
        order, *rest = child.orders
        for later in reversed(rest):
            self.queue.put_back(later.piece)
        piece = order.piece
        number = child.place.numbers[0]
        at = number - order.first
        blamed = number != NO_ROW and 0 <= at < len(piece)
        seconds = time.monotonic() - child.place.times[0] if blamed else 0.0
        if overdue != NO_ROW and number != overdue:  # it had gone on when it was killed
            self.queue.put_back(piece)
        elif overdue != NO_ROW:
            self.fail(piece, at, f"timeout ({self.crew.timeout:g} s)", seconds)
        elif status is None or (status == LOST and not blamed):
            self.suspect(piece, _STRIKES, "closed the pipes to psyrun", seconds)
        elif blamed:
            self.fail(piece, at, _describe_exit(status), seconds)
        else:
            self.suspect(piece, piece.strikes + 1, _describe_exit(status), seconds)

    def fail(self, piece: _Piece, at: int, reason: str, seconds: float) -> None:
        self.queue.put_back(piece.part(at + 1, len(piece)))
        self.queue.put_back(piece.part(0, at))
        self.sink.fail(piece.work.tag, piece.work.rows[piece.lo + at], reason, seconds)

    def suspect(self, piece: _Piece, strikes: int, reason: str, seconds: float) -> None:
        """Put back rows of which any may be to blame, or fail the one that was alone."""
        if piece.strikes >= _STRIKES and len(piece) == 1:
            self.fail(piece, 0, reason, seconds)
        else:
            self.queue.put_back(_Piece(piece.work, piece.lo, piece.hi, strikes))
