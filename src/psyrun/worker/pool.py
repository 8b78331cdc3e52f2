"""A pool of child processes that evaluate rows; a child may die, hang or exceed the time limit at any row.

The pool knows row numbers and bytes, neither tasks nor files, and never unpickles what a child sends. Three
pipes lead to each child: the first carries requests, the second messages, and the third only closes when the
parent ends. Two numbers in shared memory say which row a child is evaluating and since when, so that exactly
this row fails when the child dies. `psyrun.worker.child` is the other end.
"""

from __future__ import annotations

import enum
import selectors
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from psyrun.errors import ExecuteError
from psyrun.worker.chunks import MAX_UNEXPLAINED_DEATHS, Backlog, Chunk, ChunkSizer, Work
from psyrun.worker.process import ChildProcess, PoolConfig, describe_exit, start_child
from psyrun.worker.protocol import DISCONNECTED, ERROR, NO_ROW, READY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from psyrun.worker.process import RowInHand


_POLL_SECONDS = 0.05
_SUSPENDED_SECONDS = 1.0  # between two polls; more: this process was stopped, its children perhaps too
_EXIT_SECONDS = 0.5  # from the end of a child's messages to its exit
_KILL_SECONDS = 5.0  # from SIGKILL to the exit
_MAX_STARTUP_FAILURES = 3
_WATCH_SECONDS = 1.0


class Sink(Protocol):
    """Takes results; each row ends in exactly one call. An exception stops the evaluation."""

    def block(self, child: ChildProcess, batch: Any, rows: Sequence[int], data: bytearray) -> None:
        """Take the data that a child sent for `rows`."""

    def fail(self, child: ChildProcess, batch: Any, row: int, reason: str, seconds: float) -> None:
        """Take the failure of a row at which a child died or was killed."""


class StopRequest(enum.IntEnum):
    """A request to stop: none; after the rows that children have; at once."""

    NONE = 0
    FINISH = 1
    STOP = 2


def evaluate(
    work: Iterable[Work],
    sink: Sink,
    config: PoolConfig,
    stop: Callable[[], StopRequest] = lambda: StopRequest.NONE,
    watch: Callable[[list[RowInHand]], None] = lambda rows: None,
    children: Iterable[ChildProcess] = (),
) -> bool:
    """Evaluate rows in child processes.

    Call it from a thread that outlives the call: on Linux, children die with the thread that started them.

    Parameters
    ----------
    work
        The rows, in the order of evaluation.
    sink
        Takes blocks and failures as they come.
    config
        The children.
    stop
        Called every 0.05 s. On FINISH, children get no more rows; on STOP, rows that are unfinished after the
        grace period are given up.
    watch
        Called every second or so with (batch, row, seconds so far) of the rows that children are at.
    children
        Those that were started already; the pool starts the others.

    Returns
    -------
    bool
        Whether every row ended in a block or a failure. On return and after an exception, no child is alive,
        nor is a process that children started in their process groups.

    Raises
    ------
    ExecuteError
        If a child reports that it can't evaluate anything, or three in a row die before one is ready.
    """
    pool = _Pool(Backlog(work), sink, config, watch)
    for child in children:
        pool.add(child)
    try:
        return pool.run(stop)
    finally:
        pool.close()


class _Pool:
    def __init__(
        self,
        backlog: Backlog,
        sink: Sink,
        config: PoolConfig,
        watch: Callable[[list[RowInHand]], None],
    ) -> None:
        self.backlog, self.sink, self.config, self.watch = backlog, sink, config, watch
        self.watched = time.monotonic()
        self.children: dict[int, ChildProcess] = {}
        self.started = self.startup_failures = 0
        self.last_poll = time.monotonic()
        self.suspended = 0.0  # seconds since the poll before, if this process was stopped in between
        self.sizer = ChunkSizer(config.size)
        self.selector = selectors.DefaultSelector()

    def run(self, stop: Callable[[], StopRequest]) -> bool:
        """Evaluate rows until all ended or a request to stop; return whether all ended."""
        while self.is_busy() or self.backlog.size:
            request = stop()
            if request is StopRequest.STOP:
                self.shut_down()
                return not (self.is_busy() or self.backlog.size)
            if request is StopRequest.NONE:
                self.dispatch()
            elif not self.is_busy():
                break
            self.poll()
        end = time.monotonic() + self.config.grace
        for child in self.children.values():
            child.close_requests()
        for child in self.children.values():
            child.wait(end - time.monotonic())
        return not self.backlog.size

    def close(self) -> None:
        """Kill all children, and free the resources."""
        for child in self.children.values():
            child.kill()
        for child in self.children.values():
            child.wait(_KILL_SECONDS)
            child.close()
        self.selector.close()

    def is_busy(self) -> bool:
        return any(child.pending for child in self.children.values())

    def shut_down(self) -> None:
        """Wait for the chunks that children have, until the grace period ends."""
        end = time.monotonic() + self.config.grace
        while self.is_busy() and (left := end - time.monotonic()) > 0:
            self.poll(min(_POLL_SECONDS, left))

    def dispatch(self) -> None:
        """Send rows to children that have room for more, and start as many children as there are rows for."""
        backlog, sizer = self.backlog, self.sizer
        for limit in (1, 2):
            for child in self.children.values():
                room = min(limit, sizer.chunks_per_child(backlog.size)) - len(child.pending)
                if backlog.size and child.ready and room > 0:
                    child.send_request(backlog.take(sizer.rows_per_chunk(backlog.size)))
                    self.write(child)
        idle = sum(not child.pending for child in self.children.values())
        vacant = [slot for slot in range(self.config.size) if slot not in self.children]
        for slot in vacant[: max(0, backlog.size - idle)]:
            self.add(start_child(self.config, slot, self.started + 1))

    def add(self, child: ChildProcess) -> None:
        """Take a child that was started."""
        self.started = child.number
        self.children[child.slot] = child
        self.selector.register(child.messages, selectors.EVENT_READ, child)

    def poll(self, seconds: float = _POLL_SECONDS) -> None:
        """Wait at most `seconds` for pipes, use those that are ready, and reap children that died or hang."""
        for key, event in self.selector.select(seconds):
            child: ChildProcess = key.data
            if self.children.get(child.slot) is not child:
                continue  # reaped after the selector returned
            if event & selectors.EVENT_WRITE:
                self.write(child)
                continue
            try:
                self.read(child)
            except EOFError:
                self.reap(child, drained=True)
        now = time.monotonic()
        elapsed, self.last_poll = now - self.last_poll, now
        self.suspended = elapsed if elapsed > _SUSPENDED_SECONDS else 0.0
        if now - self.watched > _WATCH_SECONDS:
            self.watched = now
            self.watch([row for child in self.children.values() if (row := child.row_in_hand(now))])
        for child in list(self.children.values()):
            if child.process.poll() is not None:
                self.reap(child)
            elif self.config.timeout is not None:
                self.check_timeout(child, self.config.timeout)

    def write(self, child: ChildProcess) -> None:
        """Write requests; the selector calls again when the pipe takes more."""
        registered = child.requests in self.selector.get_map()
        if child.flush():
            if registered:
                self.selector.unregister(child.requests)
        elif not registered:
            self.selector.register(child.requests, selectors.EVENT_WRITE, child)

    def read(self, child: ChildProcess) -> None:
        for kind, rows, seconds, data in child.read_messages():
            if kind == ERROR:
                raise ExecuteError(data.decode(errors="replace"))
            if kind == READY:
                child.ready = True
                self.startup_failures = 0
            else:
                self.sizer.measure(rows, seconds)
                chunk = child.pending.popleft().chunk
                self.backlog.put_back(chunk.part(rows, len(chunk)))
                self.sink.block(child, chunk.work.batch, chunk.part(0, rows).rows, data)

    def check_timeout(self, child: ChildProcess, timeout: float) -> None:
        """Kill a child whose row takes too long."""
        mark, elapsed = child.marker.marks[0], time.monotonic() - child.marker.times[0]
        # Seen twice: only then does the time surely belong to the mark.
        if mark != child.last_mark:
            child.last_mark, child.suspended = mark, min(self.suspended, elapsed)
            return
        child.suspended += self.suspended
        if mark != NO_ROW and elapsed - child.suspended > timeout:
            child.kill()
            self.reap(child, timed_out=mark)

    def reap(self, child: ChildProcess, *, drained: bool = False, timed_out: int = NO_ROW) -> None:
        """Remove a child that died or has to, after reading its last messages, and decide about its rows."""
        status = child.wait(_EXIT_SECONDS)
        child.kill()
        if status is None:
            child.wait(_KILL_SECONDS)
        if not drained:
            with suppress(EOFError):
                self.read(child)
        del self.children[child.slot]
        for fd in (child.requests, child.messages):
            if fd in self.selector.get_map():
                self.selector.unregister(fd)
        try:
            if not child.ready:
                self.count_startup_failure(child, status)
            if child.pending:
                self.fail_or_retry(child, status, timed_out)
        finally:
            child.close()

    def count_startup_failure(self, child: ChildProcess, status: int | None) -> None:
        self.startup_failures += 1
        if self.startup_failures >= _MAX_STARTUP_FAILURES:
            how = "it closed its pipes" if status is None else describe_exit(status)
            raise ExecuteError(
                f"child {child.slot} died before it was ready, {self.startup_failures} times in a row"
                f" ({how}); look at `setup` and the imports of the task file"
            )

    def fail_or_retry(self, child: ChildProcess, status: int | None, timed_out: int) -> None:
        """Fail the row at which a child died, and put back its other rows."""
        first, *others = child.pending
        for other in reversed(others):
            self.backlog.put_back(other.chunk)
        chunk, mark = first.chunk, child.marker.marks[0]
        row = mark - first.first
        known = mark != NO_ROW and 0 <= row < len(chunk)
        seconds = time.monotonic() - child.marker.times[0] if known else 0.0
        if timed_out not in (NO_ROW, mark):  # it had begun another row when it was killed
            self.backlog.put_back(chunk)
        elif timed_out != NO_ROW:
            self.fail(child, chunk, row, f"timeout ({self.config.timeout:g} s)", seconds)
        elif status is None or (status == DISCONNECTED and not known):
            self.isolate(child, chunk, MAX_UNEXPLAINED_DEATHS, "closed the pipes to psyrun", seconds)
        elif known:
            self.fail(child, chunk, row, describe_exit(status), seconds)
        else:
            self.isolate(child, chunk, chunk.deaths + 1, describe_exit(status), seconds)

    def fail(self, child: ChildProcess, chunk: Chunk, row: int, reason: str, seconds: float) -> None:
        self.backlog.put_back(chunk.part(row + 1, len(chunk)))
        self.backlog.put_back(chunk.part(0, row))
        self.sink.fail(child, chunk.work.batch, chunk.rows[row], reason, seconds)

    def isolate(self, child: ChildProcess, chunk: Chunk, deaths: int, reason: str, seconds: float) -> None:
        """Put back rows after a death for an unknown reason; fail a row that was evaluated alone."""
        if chunk.deaths >= MAX_UNEXPLAINED_DEATHS and len(chunk) == 1:
            self.fail(child, chunk, 0, reason, seconds)
        else:
            self.backlog.put_back(Chunk(chunk.work, chunk.start, chunk.stop, deaths))
