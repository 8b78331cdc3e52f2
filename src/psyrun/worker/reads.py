"""The inputs that a worker's children read: digested, then written before the blocks that count them."""

from __future__ import annotations

import os
import queue
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from psyrun.disk import digest_file, is_settled, sync_folder
from psyrun.workdir import Input, ReadsWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


_LARGEST = 1 << 25  # bytes of a file that is digested; larger ones count by size and mtime
_MOST_WAITING = 64  # blocks that may wait for digests before their children have to


class Reads:
    """Inputs of the children of a worker, and the blocks that wait until these are written.

    A block that brings inputs, and all blocks that come while one waits, go into a queue; a thread that is
    started for the first takes them out in turn: it digests the inputs, writes them, then appends the block.
    So a task without inputs has no queue, and its blocks are appended as they come; and a block is never in a
    journal before its inputs are in the file. `syncing` keeps that order on the disk.

    Parameters
    ----------
    root
        The project root.
    folder
        The folder of the files of inputs.
    run
        The worker.
    code
        The digest of the code that it evaluates rows with.
    """

    def __init__(self, root: Path, folder: Path, run: str, code: str) -> None:
        self._root, self._code = str(root), code
        self._writer = ReadsWriter(folder, run)
        self._waiting: queue.Queue[tuple[Sequence[Input], Callable[[], None]] | None] = queue.Queue(
            _MOST_WAITING
        )
        self._lock = threading.Lock()  # of the file and of what is appended after it
        self._known: dict[tuple[Any, ...], tuple[Any, ...]] = {}  # path, size, mtime -> ctime, inode, digest
        self._thread: threading.Thread | None = None
        self._opened = False
        self.error: Exception | None = None

    @property
    def busy(self) -> bool:
        """Whether a block waits; only the caller of `put` may rely on False."""
        return self._waiting.unfinished_tasks > 0

    def put(self, inputs: Sequence[Input], append: Callable[[], None]) -> None:
        """Write inputs, then call `append`, later and in the order of calls."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        self._waiting.put((inputs, append))

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                if self.error is None:
                    self._write(*item)
            except Exception as error:
                self.error = error
            finally:
                self._waiting.task_done()

    def _write(self, inputs: Sequence[Input], append: Callable[[], None]) -> None:
        digested = [self._digest(each) if each.kind in ("file", "declared") else each for each in inputs]
        with self._lock:
            if digested and not self._opened:
                self._writer.open()
                self._opened = True
                digested.insert(0, Input(child=0, number=0, kind="code", path=self._code))
            if digested:
                self._writer.append(digested)
            append()

    def _digest(self, found: Input) -> Input:
        key = found.path, found.size, found.mtime
        known = self._known.get(key)
        if known is None:
            path = os.path.join(self._root, found.path)
            known = self._known[key] = digest_reading(path, found.size, found.mtime)
        return Input._make((*found[:6], *known, *found[9:]))

    @contextmanager
    def syncing(self) -> Iterator[None]:
        """Sync the file, then keep blocks that bring inputs away from journals while these are synced."""
        with self._lock:
            if self._opened and self._writer.dirty:
                named = self._writer.synced
                self._writer.sync()
                if not named:
                    sync_folder(self._writer.path.parent)
            yield

    def drain(self) -> None:
        """Wait until no block waits any more."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """Close the file; it was synced."""
        if self._opened:
            self._writer.close()


def digest_reading(
    path: str, size: int | None, mtime: int | None
) -> tuple[int | None, int | None, str | None]:
    """Return ctime, inode and digest of a file that was read, as `Input` has them.

    There is no digest where it is too large, or not what it was when it was read.
    """
    nothing = None, None, None
    if size is None or size > _LARGEST:
        return nothing
    now = time.time_ns()
    try:
        digest, stamp = digest_file(path, size)
    except OSError:
        return nothing
    if stamp is None or stamp[:2] != (size, mtime):
        return nothing
    return (*stamp[2:], digest) if is_settled(stamp, now) else (None, None, digest)
