"""The journals of a worker: one per batch, appended to as rows come, and synced by a thread of its own."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.disk import sync_folder
from psyrun.errors import ExecuteError
from psyrun.workdir import (
    INPUTS,
    RECEIPTS,
    WHERE,
    Counts,
    Failure,
    JournalWriter,
    RowReceipt,
    RowsInHand,
    encode_block,
    first_sections,
    forget_rows_in_hand,
    pack_receipts,
    remove_rows_in_hand,
    unpack_reads,
    write_rows_in_hand,
)
from psyrun.worker.place import encode_place
from psyrun.worker.reads import Reads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from psyrun.workdir import BatchKey
    from psyrun.worker.chunks import Work
    from psyrun.worker.process import ChildProcess


_PAUSE_SECONDS = 1.0
_LONGEST_SHARE = 20  # the pause is so many times as long as the last sync took, where that is more
_SLOW_SECONDS = 2.0  # of rows that are named while they are in hand
_THREADS = 8  # a disk syncs several files at a time


class Journals:
    """Journals of the batches that a worker evaluates.

    Parameters
    ----------
    submission
        The file of the submission: where it is gone, no journal is opened any more.
    run
        The name that the journals of the worker share.
    work
        The rows.
    known
        What is known of the place where rows are evaluated.
    code
        The digest of the code that they are evaluated with.
    """

    def __init__(
        self, submission: Path, run: str, work: Sequence[Work], known: Mapping[str, Any], code: str
    ) -> None:
        self._submission, self._run = submission, run
        self._folder = submission.parent.parent / "out"
        self._left = {each.batch: len(each.rows) for each in work}
        self._place = encode_place(known, {})
        self._reads = Reads(Path.cwd(), self._folder.with_name("reads"), run, code)
        self._lock = threading.Lock()  # of the collections below, never held while a disk is waited for
        self._open: dict[BatchKey, JournalWriter] = {}
        self._ended: list[JournalWriter] = []
        self._names_changed = False
        self._failed: OSError | None = None
        self._processes = 0
        self._in_hand: RowsInHand | None = None
        self._in_hand_written: RowsInHand | None = None

    def begin(self, processes: int) -> None:
        """Take over from workers that were killed, with so many processes."""
        self._processes = processes
        forget_rows_in_hand(self._folder, self._left.keys())
        self.watch([])

    def watch(self, rows: Sequence[tuple[BatchKey, int, float]]) -> None:
        """Take the rows that children are at, and their seconds so far, for others to see."""
        now = time.time()
        known = {(number, row): since for number, row, since in self._in_hand.rows} if self._in_hand else {}
        slow = {(batch.number, row): now - took for batch, row, took in rows if took > _SLOW_SECONDS}
        slow |= {row: known[row] for row in slow.keys() & known.keys()}  # Clocks drift.
        self._in_hand = RowsInHand(
            host=os.uname().nodename,
            processes=self._processes,
            batches=tuple(sorted((batch.number, batch.tie) for batch in self._left)),
            rows=tuple(sorted((*row, since) for row, since in slow.items())),
        )

    def _show_rows_in_hand(self) -> None:
        found = self._in_hand
        if found is not None and found != self._in_hand_written:
            self._in_hand_written = found
            write_rows_in_hand(self._folder, self._run, found)

    @property
    def left(self) -> int:
        """Number of rows that did not end."""
        return sum(self._left.values())

    def block(
        self, child: ChildProcess, batch: BatchKey, rows: Sequence[int], data: bytes | bytearray
    ) -> None:
        """Append the block of some rows, or let it wait until the inputs that it counts are written."""
        found = first_sections(data, WHERE, INPUTS)
        child.where = found.get(WHERE) or child.where or self._place
        self._raise_error()
        inputs = unpack_reads(found[INPUTS]) if INPUTS in found else []
        append = partial(self._append, child.where, batch, rows, data)
        if inputs:
            child.inputs = inputs[-1].number
        if inputs or self._reads.busy:
            self._reads.put(inputs, append)
        else:
            append()

    def _raise_error(self) -> None:
        error = self._failed or self._reads.error
        if error is not None:
            raise error

    def _append(self, where: bytes, batch: BatchKey, rows: Sequence[int], data: bytes | bytearray) -> None:
        journal = self._open.get(batch) or self._create(batch)
        journal.append(data, where)
        self._left[batch] -= len(rows)
        if self._left[batch] == 0:
            with self._lock:
                self._ended.append(self._open.pop(batch))

    def _create(self, batch: BatchKey) -> JournalWriter:
        if not self._submission.exists():
            raise ExecuteError(f"{self._submission}: gone, so its rows are not wanted any more")
        journal = JournalWriter(self._folder, batch, self._run).open()
        with self._lock:
            self._open[batch] = journal
            self._names_changed = True
        return journal

    def fail(self, child: ChildProcess, batch: BatchKey, row: int, reason: str, seconds: float) -> None:
        """Append the failure of a row whose child died."""
        failure = Failure(row, reason, "", seconds, os.uname().nodename)
        begin = child.marker.logs[0]
        end = max(begin, child.log_size())
        receipt = RowReceipt(seconds, log=begin, log_end=end, inputs=child.inputs, reads=1)
        counts = Counts(seconds=seconds, child=child.number, slot=child.slot, inputs=child.inputs)
        sections = {RECEIPTS: pack_receipts([(1, receipt)])}
        self.block(child, batch, [row], encode_block([], {}, [failure], counts=counts, sections=sections))

    def sync_until(self, ended: threading.Event) -> None:
        """Sync regularly what was appended; the next append raises an error of this."""
        pause = _PAUSE_SECONDS
        self._show_rows_in_hand()
        while not ended.wait(pause):
            began = time.monotonic()
            try:
                self._show_rows_in_hand()
                self._sync()
            except OSError as error:
                self._failed = error
                return
            pause = max(_PAUSE_SECONDS, _LONGEST_SHARE * (time.monotonic() - began))

    def _sync(self) -> None:
        """Sync inputs, then journals with new rows, close those that ended, then sync their folder."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._reads.syncing())
            except OSError as error:
                self._give_up(error)
                raise
            with self._lock:
                dirty = [journal for journal in self._open.values() if journal.dirty]
                ended, self._ended = self._ended, []
                changed, self._names_changed = self._names_changed or bool(ended), False
            _run_all([*(journal.sync for journal in dirty), *(journal.close for journal in ended)])
            if changed:
                sync_folder(self._folder)

    def _give_up(self, error: OSError) -> None:
        """Take back the rows that are not synced: the inputs that they count are lost."""
        with self._lock:
            journals = [*self._open.values(), *self._ended]
        for journal in journals:
            journal.give_up(error)

    def close(self) -> None:
        """Sync and close all journals; raise the error that was met since the last append."""
        remove_rows_in_hand(self._folder, self._run)
        self._reads.drain()
        with self._lock:
            self._ended += self._open.values()
            self._open = {}
        self._raise_error()  # No append came after it to raise it.
        self._sync()
        self._reads.close()


def _run_all(jobs: Sequence[Callable[[], None]]) -> None:
    if len(jobs) > 1:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(_THREADS) as pool:
            done = [pool.submit(job) for job in jobs]
        for each in done:
            each.result()
    else:
        for job in jobs:
            job()
