"""``python -m psyrun.worker SUBMISSION``: evaluates batches, here or in a job.

It holds a pool of children, feeds them the rows that are missing, and is the only one that writes the
journals. It prints to the job's log; nobody reads that but people.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from psyrun.errors import PsyrunError
from psyrun.scheduler import STOPPED
from psyrun.workdir import (
    Failure,
    JournalWriter,
    encode_block,
    list_journals,
    new_journal,
    read_input_header,
    read_records,
    read_submission,
)
from psyrun.worker.child import command
from psyrun.worker.pool import Wish, evaluate
from psyrun.worker.process import PoolConfig
from psyrun.worker.queue import Work

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from psyrun.workdir import JournalFile, Submission


SYNC_SECONDS = 5.0
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker; return its exit code.

    Returns
    -------
    int
        0 when all rows ended, be it with a failure; 1 when that was not possible, said on standard error;
        75 when it was asked to stop before.
    """
    options = _parse(argv)
    wishes = _heed_signals()
    if options.parent:
        _stop_with(options.parent, wishes)
    try:
        submission = read_submission(options.submission)
    except FileNotFoundError:
        _say(f"{options.submission}: not wanted any more", sys.stdout)
        return 0
    folder = options.submission.parent.parent.absolute()
    entries = submission.batches if options.element is None else [submission.batches[options.element]]
    if options.element is not None:
        _log_to(folder / "log" / f"{entries[0][0]}.log")
        _say(submission.mark, sys.stdout)
    work = list(_find_work(folder, submission, entries))
    if not work:
        return 0
    crew = _make_crew(folder, submission, sum(len(piece.rows) for piece in work))
    rows = sum(len(piece.rows) for piece in work)
    _say(f"{submission.task}: {len(work)} batches, {rows} rows, {crew.size} processes", sys.stdout)
    return _evaluate(folder, work, crew, wishes)


def _say(message: str, stream: TextIO) -> None:
    stream.write(f"psyrun: {message}\n")
    stream.flush()


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m psyrun.worker", description=__doc__)
    parser.add_argument("submission", type=Path, help="jobs/<token>.json")
    parser.add_argument("--element", type=int, help="evaluate this entry only")
    parser.add_argument("--parent", type=int, help="end with this process")
    return parser.parse_args(argv)


class _Wishes:
    """How far to go. No Event: a handler may interrupt itself while it holds the lock of one."""

    __slots__ = ("wish",)

    def __init__(self) -> None:
        self.wish = Wish.GO_ON

    def __call__(self) -> Wish:
        return self.wish

    def limit(self, wish: Wish) -> None:
        """Go no further than this."""
        self.wish = max(self.wish, wish)


def _heed_signals() -> _Wishes:
    """Finish the rows at hand at SIGUSR1, which batch systems send before a time limit; stop at others."""
    wishes = _Wishes()

    def note(number: int, frame: FrameType | None) -> None:
        wishes.limit(Wish.FINISH if number == signal.SIGUSR1 else Wish.STOP)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, note)
    return wishes


def _stop_with(parent: int, wishes: _Wishes) -> None:
    """Stop when the process that started us is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        wishes.limit(Wish.STOP)

    threading.Thread(target=watch, daemon=True).start()


def _log_to(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def _find_work(folder: Path, submission: Submission, entries: Sequence[tuple[int, Any]]) -> Iterator[Work]:
    """Yield the rows that have to be evaluated; those that a journal holds already have not."""
    journals = list_journals(folder / "out")
    for number, ranges in entries:
        rows = _missing_rows(folder, submission, number, ranges, journals.get(number, ()))
        if rows:
            yield Work(tag=number, rows=rows)


def _missing_rows(
    folder: Path,
    submission: Submission,
    number: int,
    ranges: Sequence[tuple[int, int]] | None,
    journals: Sequence[JournalFile],
) -> Sequence[int]:
    size = read_input_header(folder / "in" / f"{number}.pkl")["size"]
    if ranges is None and not journals:
        return range(size)
    records = read_records(journals, rows=size)
    ended = records.done if submission.retry else records.done | records.failures.keys()
    wanted = (row for first, end in (ranges or [(0, size)]) for row in range(first, end))
    return [row for row in wanted if row not in ended]


# ---------------------------------------------------------------------- children


def _make_crew(folder: Path, submission: Submission, rows: int) -> PoolConfig:
    cores = submission.cores or _granted_cores(submission.core_variables)
    size = max(1, min(submission.processes or cores, rows))
    argv = command(
        root=Path.cwd(),
        code=folder / "code" / f"{submission.code}.zip",
        inputs=folder / "in",
        exclude=submission.exclude,
    )
    threads = {name: str(max(1, cores // size)) for name in _THREADS}
    return PoolConfig(
        argv=argv,
        size=size,
        env=threads | os.environ,
        timeout=submission.timeout,
    )


def _granted_cores(variables: Sequence[str]) -> int:
    """Return the number of cores from the first of the environment variables that holds one."""
    values = (os.environ.get(name, "") for name in variables)
    return next((max(1, int(value)) for value in values if value.isdecimal()), 1)


# ---------------------------------------------------------------------- journals


class _Journals:
    """Appends what comes up from the children to a journal per batch, closed when all its rows ended."""

    def __init__(self, folder: Path, work: Sequence[Work]) -> None:
        self._folder = folder
        self._host = os.uname().nodename
        self._left = {piece.tag: len(piece.rows) for piece in work}
        self._open: dict[int, JournalWriter] = {}
        self._lock = threading.Lock()
        self._error: OSError | None = None

    @property
    def left(self) -> int:
        """How many rows did not end."""
        return sum(self._left.values())

    def block(self, tag: int, rows: Sequence[int], data: bytes | bytearray, seconds: float) -> None:
        """Append the block of a mini-batch."""
        self._append(tag, data, len(rows))

    def fail(self, tag: int, row: int, reason: str, seconds: float) -> None:
        """Append the failure of a row whose child died."""
        failure = Failure(row, reason, "", seconds, self._host)
        self._append(tag, encode_block([], {}, [failure], seconds), 1)

    def _append(self, tag: int, data: bytes | bytearray, rows: int) -> None:
        with self._lock:
            if self._error is not None:
                raise self._error
            journal = self._open.get(tag) or self._create(tag)
            journal.append(data)
            self._left[tag] -= rows
            if self._left[tag] == 0:
                self._open.pop(tag).close()

    def _create(self, tag: int) -> JournalWriter:
        self._open[tag] = JournalWriter(new_journal(self._folder, tag)).open()
        return self._open[tag]

    def sync(self) -> None:
        """Sync what was appended; an error is raised by the next append."""
        with self._lock:
            for journal in self._open.values():
                try:
                    journal.sync()
                except OSError as error:
                    self._error = error

    def close(self) -> None:
        """Close all journals."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()


def _evaluate(folder: Path, work: Sequence[Work], crew: PoolConfig, wishes: _Wishes) -> int:
    journals = _Journals(folder / "out", work)
    over = threading.Event()
    syncer = threading.Thread(target=_sync_regularly, args=(journals, over), daemon=True)
    syncer.start()
    try:
        try:
            complete = evaluate(work, journals, crew, wishes)
        finally:
            over.set()
            syncer.join()
            journals.close()
    except (PsyrunError, OSError) as error:
        _say(f"error: {error}", sys.stderr)
        return 1
    if complete:
        return 0
    when = "near its time limit" if wishes.wish is Wish.FINISH else "before its end"
    _say(f"stopped {when}, {journals.left} rows are left: psy run goes on with them", sys.stdout)
    return STOPPED


def _sync_regularly(journals: _Journals, over: threading.Event) -> None:
    while not over.wait(SYNC_SECONDS):
        journals.sync()


if __name__ == "__main__":
    sys.exit(main())
