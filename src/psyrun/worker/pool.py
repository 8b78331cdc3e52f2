"""Child processes that evaluate rows, and may die, hang or time out, a row at a time.

The pool knows nothing of tasks and files: it hands out row numbers, and gets bytes back. It never unpickles
what a child sends. Three pipes lead to each child: orders go down the first, messages come up the second,
and nothing ever passes the third, whose end tells the child that its parent is gone. Two numbers in shared
memory say which row a child is at and since when, so that a death is the fault of that row and no other.
`psyrun.worker.child` is the other end.
"""

from __future__ import annotations

import enum
import selectors
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from psyrun.errors import ExecuteError
from psyrun.worker.process import Child, PoolConfig, describe_exit, start_child
from psyrun.worker.protocol import ERROR, LOST, NO_ROW, READY
from psyrun.worker.queue import STRIKES, Pace, Piece, Queue, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType
    from typing import Self


_TICK = 0.05  # seconds between two looks at the children
_SUSPENDED = 1.0  # seconds between two looks that mean that this process was stopped, children perhaps too
_PATIENCE = 0.5  # seconds from the end of a child's messages to its exit
_LONG = 5.0  # seconds that a killed process may take to go


class Sink(Protocol):
    """Takes what becomes of the rows; each row ends in exactly one call. An exception stops everything."""

    def block(self, tag: int, rows: Sequence[int], data: bytearray, seconds: float) -> None:
        """Take what a child sent for `rows`, which took it `seconds`."""

    def fail(self, tag: int, row: int, reason: str, seconds: float) -> None:
        """Take note that a child died at `row`, or was killed because of it."""


class Wish(enum.IntEnum):
    """How far a pool should go: on; to the end of the rows that were begun; no further."""

    GO_ON = 0
    FINISH = 1
    STOP = 2


def _go_on() -> Wish:
    return Wish.GO_ON


def evaluate(work: Iterable[Work], sink: Sink, crew: PoolConfig, wish: Callable[[], Wish] = _go_on) -> bool:
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
    wish
        Asked every 0.05 s. Once it is to finish, no more rows are handed out; once it is to stop, what is
        unfinished after the grace period is given up.

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
    with _Pool(crew, sink, Queue(work)) as pool:
        while pool.unfinished():
            wished = wish()
            if wished is Wish.STOP:
                pool.wind_up()
                break
            if wished is Wish.GO_ON:
                pool.hand_out()
            elif not pool.busy():
                break
            pool.step()
        return not pool.unfinished()


@dataclass(slots=True)
class _Pool:
    crew: PoolConfig
    sink: Sink
    queue: Queue
    children: dict[int, Child] = field(default_factory=dict)
    stopped: bool = False
    early_deaths: int = 0
    looked: float = field(default_factory=time.monotonic)
    lost: float = 0.0
    pace: Pace = field(init=False)
    selector: selectors.BaseSelector = field(init=False)

    def __enter__(self) -> Self:
        self.pace = Pace(self.crew.size)
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
        return self.queue.left > 0 or self.busy()

    def busy(self) -> bool:
        return any(child.orders for child in self.children.values())

    def wind_up(self) -> None:
        """Wait for what children have in hand, as long as the grace period lasts."""
        self.stopped = True
        end = time.monotonic() + self.crew.grace
        while self.busy() and (left := end - time.monotonic()) > 0:
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
        child = self.children[slot] = start_child(self.crew, slot)
        self.selector.register(child.up, selectors.EVENT_READ, child)

    def step(self, seconds: float = _TICK) -> None:
        """Wait for something to happen, at most so long, and deal with it."""
        for key, event in self.selector.select(seconds):
            child: Child = key.data
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

    def write(self, child: Child) -> None:
        """Write orders; the selector calls again when the pipe takes more."""
        waiting = child.down in self.selector.get_map()
        if child.flush():
            if waiting:
                self.selector.unregister(child.down)
        elif not waiting:
            self.selector.register(child.down, selectors.EVENT_WRITE, child)

    def read(self, child: Child) -> None:
        try:
            self.receive(child)
        except EOFError:
            self.bury(child, heard=True)

    def receive(self, child: Child) -> None:
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

    def watch(self, child: Child, timeout: float) -> None:
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

    def bury(self, child: Child, *, heard: bool = False, overdue: int = NO_ROW) -> None:
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

    def remove(self, child: Child) -> None:
        del self.children[child.slot]
        for fd in (child.down, child.up):
            if fd in self.selector.get_map():
                self.selector.unregister(fd)

    def count_early_death(self, child: Child, status: int | None) -> None:
        self.early_deaths += 1
        if self.early_deaths >= STRIKES:
            how = "it closed its pipes" if status is None else describe_exit(status)
            raise ExecuteError(
                f"child {child.slot} died before it was ready, {STRIKES} times in a row ({how}); "
                "look at `setup` and the imports of the task file"
            )

    def settle(self, child: Child, status: int | None, overdue: int) -> None:
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
            self.suspect(piece, STRIKES, "closed the pipes to psyrun", seconds)
        elif blamed:
            self.fail(piece, at, describe_exit(status), seconds)
        else:
            self.suspect(piece, piece.strikes + 1, describe_exit(status), seconds)

    def fail(self, piece: Piece, at: int, reason: str, seconds: float) -> None:
        self.queue.put_back(piece.part(at + 1, len(piece)))
        self.queue.put_back(piece.part(0, at))
        self.sink.fail(piece.work.tag, piece.work.rows[piece.lo + at], reason, seconds)

    def suspect(self, piece: Piece, strikes: int, reason: str, seconds: float) -> None:
        """Put back rows of which any may be to blame, or fail the one that was alone."""
        if piece.strikes >= STRIKES and len(piece) == 1:
            self.fail(piece, 0, reason, seconds)
        else:
            self.queue.put_back(Piece(piece.work, piece.lo, piece.hi, strikes))
