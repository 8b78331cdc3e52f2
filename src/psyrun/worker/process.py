"""A child process as its parent sees it: start, pipes, requests, messages, exit."""

from __future__ import annotations

import fcntl
import os
import pickle
import signal
import sys
import time
from collections import deque
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.worker.protocol import BLOCK, ERROR, HEADER, LENGTH, NO_ROW, READY, RowMarker

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from psyrun.worker.chunks import Chunk
    from psyrun.worker.fork import ForkedProcess

    Process: TypeAlias = "subprocess.Popen[bytes] | ForkedProcess"
    RowInHand = tuple[Any, int, float]  # batch, row, seconds so far
    _Message = tuple[int, int, float, bytearray]  # kind, rows, seconds, data


_PIPE_SIZE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """Number and properties of the child processes.

    Parameters
    ----------
    argv
        Command of a child; the arguments of `psyrun.worker.protocol.connect` are appended.
    size
        Number of children at a time. Their slots count from 0; a replacement gets the slot of the dead.
    env
        Environment of the children; the parent's if None.
    logs
        Prefix of the files that take what children print, ``<logs><slot>.log``; None: as the parent's output.
    timeout
        Seconds that a row may take.
    grace
        Seconds that children have to finish: the chunk at hand when stopped, their exit at the end.
    foreground
        Whether a child gets the terminal, for a debugger in it; afterwards, take it back.
    """

    argv: Sequence[str]
    size: int
    env: Mapping[str, str] | None = None
    logs: str | None = None
    timeout: float | None = None
    grace: float = 0.5
    foreground: bool = False


@dataclass(frozen=True, slots=True)
class PendingChunk:
    """A chunk that a child was asked to evaluate, and the mark of its first row in shared memory."""

    chunk: Chunk
    first: int


class ChildProcess:
    """A child process, our ends of its pipes, and the chunks that it has not answered."""

    def __init__(
        self,
        slot: int,
        number: int,
        process: Process,
        marker: RowMarker,
        fds: tuple[int, int, int],
    ) -> None:
        self.slot, self.number, self.process, self.marker = slot, number, process, marker
        self.log: str | None = None
        self.where: bytes | None = None  # what its blocks said last of the place where it runs
        self.inputs = 0  # how many its blocks named
        self.requests, self.messages, self._life = fds
        self.pending: deque[PendingChunk] = deque()
        self.ready = False
        self.last_mark = NO_ROW
        self.suspended = 0.0  # seconds of the current row during which we and our children were stopped
        self._next_mark = NO_ROW + 1
        self._unsent = bytearray()
        self._reader = _MessageReader()

    def send_request(self, chunk: Chunk) -> None:
        """Ask the child to evaluate rows; `flush` writes the request."""
        self.pending.append(PendingChunk(chunk, self._next_mark))
        data = pickle.dumps((chunk.work.batch, chunk.rows, self._next_mark), 5)
        self._unsent += LENGTH.pack(len(data)) + data
        self._next_mark += len(chunk)

    def flush(self) -> bool:
        """Write as much of the requests as the pipe takes; return whether that was all."""
        try:
            while self._unsent:
                del self._unsent[: os.write(self.requests, self._unsent)]
        except BlockingIOError:
            return False
        except BrokenPipeError:
            self._unsent.clear()
        return True

    def read_messages(self) -> Iterator[_Message]:
        """Yield the messages that have arrived; EOFError: the pipe is closed, or its content invalid."""
        return self._reader.read(self.messages)

    def row_in_hand(self, now: float) -> RowInHand | None:
        """Return batch and row that the child is at, and for how many seconds; None where it is at none."""
        mark, since = self.marker.marks[0], self.marker.times[0]
        first = self.pending[0] if self.pending else None
        if first is None or mark == NO_ROW or not 0 <= mark - first.first < len(first.chunk):
            return None
        return first.chunk.work.batch, first.chunk.rows[mark - first.first], now - since

    def log_size(self) -> int:
        """Return the size of its log in bytes; 0 where it has none."""
        with suppress(OSError):
            return os.stat(self.log).st_size if self.log is not None else 0  # noqa: PTH116 - a string
        return 0

    def close_requests(self) -> None:
        """Tell the child that there are no more requests."""
        if self.requests >= 0:
            os.close(self.requests)
            self.requests = -1

    def wait(self, seconds: float) -> int | None:
        """Return the exit status, or None if the child is alive after so many seconds."""
        end, pause = time.monotonic() + seconds, 0.0005
        while (status := self.process.poll()) is None and (left := end - time.monotonic()) > 0:
            pause = min(2 * pause, left, 0.05)
            time.sleep(pause)
        return status

    def kill(self) -> None:
        """Kill the child and its process group; if it is alive, all its descendants too."""
        descendants = list(_find_descendants(self.process.pid)) if self.process.poll() is None else []
        with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM if only zombies are left
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()  # it may have left its group
        for pid in descendants:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Close our ends of the pipes, and the shared memory."""
        self.close_requests()
        self.marker.close()
        os.close(self.messages)
        os.close(self._life)


class _MessageReader:
    """Assembles messages that arrive in parts, without waiting for the rest of one."""

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
        """Read into the rest of the buffer; return False if it is not full yet."""
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


def _spawn(config: PoolConfig, log: int | None, fds: Sequence[int], argv: Sequence[str]) -> Process:
    import subprocess

    process = subprocess.Popen(
        argv,
        stdin=None if config.foreground else subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=config.env,
        pass_fds=fds,
        process_group=0,
    )
    if config.foreground:
        take_terminal(process.pid)
    return process


def start_child(
    config: PoolConfig,
    slot: int,
    number: int = 1,
    start: Callable[[PoolConfig, int | None, Sequence[int], Sequence[str]], Process] = _spawn,
) -> ChildProcess:
    """Start a child process in a process group of its own; `number` counts the children of this process."""
    with ExitStack() as ours, ExitStack() as theirs:
        path = None if config.logs is None else f"{config.logs}{slot}.log"
        log = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        if log is not None:
            theirs.callback(os.close, log)
        # A pipe for requests, one for messages, and one that only closes when this process ends.
        pipes = [os.pipe() for _ in range(3)]
        (requests_end, requests), (messages, messages_end), (life, life_end) = pipes
        for fd in (requests, messages, life_end):
            ours.callback(os.close, fd)
        fds = (requests_end, messages_end, life, _shared_memory(RowMarker.SIZE))
        for fd in fds:
            theirs.callback(os.close, fd)
        marker = RowMarker(fds[-1])
        ours.callback(marker.close)
        os.set_blocking(requests, False)
        os.set_blocking(messages, False)
        if sys.platform == "linux":
            with suppress(OSError):  # the pipes of a user have a total limit
                fcntl.fcntl(messages, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        argv = [*config.argv, *map(str, (*fds, slot, number, os.getpid()))]
        try:
            process = start(config, log, fds, argv)
        except ForkedChild:
            theirs.pop_all()
            raise
        ours.pop_all()
        child = ChildProcess(slot, number, process, marker, (requests, messages, life_end))
        child.log = path
        return child


class ForkedChild(BaseException):
    """Raised in a process that `psyrun.worker.fork` made: it goes on as what the command of a child starts.

    Parameters
    ----------
    argv
        The command.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        super().__init__(argv)
        self.argv = argv


def take_terminal(group: int) -> None:
    """Put a process group into the foreground of the terminal, where standard input is one of ours."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        with suppress(OSError):
            os.tcsetpgrp(0, group)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _shared_memory(size: int) -> int:
    if sys.platform == "linux":
        fd = os.memfd_create("psyrun")
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd


def _find_descendants(pid: int) -> Iterator[int]:
    """Yield the descendants of a living process, also those in other sessions; none without /proc."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, path.read_text().split()):
                yield child
                yield from _find_descendants(child)


def describe_exit(status: int) -> str:
    """Return an exit status in words: ``exit 1`` or ``signal 11 (SIGSEGV)``."""
    if status >= 0:
        return f"exit {status}"
    try:
        return f"signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"signal {-status}"
