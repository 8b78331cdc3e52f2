"""``python -m psyrun.worker SUBMISSION``: evaluates batches, here or in a job.

It runs a pool of children, sends them the rows that are missing, and is the only writer of its journals. Its
output goes to the job's log, for people to read.
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
from psyrun.worker.chunks import Work
from psyrun.worker.pool import StopRequest, evaluate
from psyrun.worker.process import PoolConfig

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
        0 when all rows ended, with values or a failure; 1 when that was not possible, for a reason printed to
        standard error; 75 when the worker was stopped before.
    """
    options = _parse(argv)
    stop = _install_signal_handlers()
    if options.parent:
        threading.Thread(target=_stop_when_parent_exits, args=(options.parent, stop), daemon=True).start()
    try:
        return _run(options, stop)
    except (PsyrunError, OSError) as error:
        _log(f"error: {error}", sys.stderr)
        return 1


def _run(options: argparse.Namespace, stop: _StopState) -> int:
    """Evaluate the rows of a submission; return the exit code."""
    try:
        submission = read_submission(options.submission)
    except FileNotFoundError:
        _log(f"{options.submission}: not wanted any more", sys.stdout)
        return 0
    folder = options.submission.parent.parent.absolute()
    batches = submission.batches
    if options.element is not None:
        batches = (batches[options.element],)
        _redirect_output(folder / "log" / f"{batches[0][0]}.log")
        _log(submission.mark, sys.stdout)
    work = list(_find_work(folder, submission, batches))
    if not work:
        return 0
    rows = sum(len(each.rows) for each in work)
    config = _configure_pool(folder, submission, rows)
    _log(f"{submission.task}: {len(work)} batches, {rows} rows, {config.size} processes", sys.stdout)
    return _evaluate(folder, work, config, stop)


def _log(message: str, stream: TextIO) -> None:
    stream.write(f"psyrun: {message}\n")
    stream.flush()


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m psyrun.worker", description=__doc__)
    parser.add_argument("submission", type=Path, help="jobs/<token>.json")
    parser.add_argument("--element", type=int, help="evaluate this entry only")
    parser.add_argument("--parent", type=int, help="end with this process")
    return parser.parse_args(argv)


class _StopState:
    """The strongest request so far."""

    # No Event: a signal handler may interrupt itself while it holds the lock of one.

    def __init__(self) -> None:
        self.request = StopRequest.NONE

    def add(self, request: StopRequest) -> None:
        self.request = max(self.request, request)


def _install_signal_handlers() -> _StopState:
    """Finish the rows at hand on SIGUSR1, which batch systems send before a time limit; stop on others."""
    stop = _StopState()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.add(StopRequest.FINISH if number == signal.SIGUSR1 else StopRequest.STOP)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, handle)
    return stop


def _stop_when_parent_exits(parent: int, stop: _StopState) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    stop.add(StopRequest.STOP)


def _redirect_output(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def _find_work(folder: Path, submission: Submission, batches: Sequence[tuple[int, Any]]) -> Iterator[Work]:
    """Yield the rows of a submission that no journal holds."""
    journals = list_journals(folder / "out")
    for number, ranges in batches:
        size = read_input_header(folder / "in" / f"{number}.pkl")["size"]
        rows = _missing_rows(size, ranges, journals.get(number, ()), submission.retry)
        if rows:
            yield Work(batch=number, rows=rows)


def _missing_rows(
    size: int, ranges: Sequence[tuple[int, int]] | None, journals: Sequence[JournalFile], retry: bool
) -> Sequence[int]:
    if ranges is None and not journals:
        return range(size)
    records = read_records(journals, rows=size)
    ended = records.done if retry else records.done | records.failures.keys()
    wanted = (row for first, end in (ranges or [(0, size)]) for row in range(first, end))
    return [row for row in wanted if row not in ended]


def _configure_pool(folder: Path, submission: Submission, rows: int) -> PoolConfig:
    cores = submission.cores or _granted_cores(submission.core_variables)
    size = max(1, min(submission.processes or cores, rows))
    argv = command(
        root=Path.cwd(),
        code=folder / "code" / f"{submission.code}.zip",
        inputs=folder / "in",
        exclude=submission.exclude,
    )
    threads = {name: str(max(1, cores // size)) for name in _THREADS}
    return PoolConfig(argv=argv, size=size, env=threads | os.environ, timeout=submission.timeout)


def _granted_cores(variables: Sequence[str]) -> int:
    """Return the number of cores from the first of the environment variables that holds one."""
    values = (os.environ.get(name, "") for name in variables)
    return next((max(1, int(value)) for value in values if value.isdecimal()), 1)


# ---------------------------------------------------------------------- journals


class _Journals:
    """Appends blocks of the children to a journal per batch, and closes it when all its rows ended."""

    def __init__(self, folder: Path, work: Sequence[Work]) -> None:
        self._folder = folder
        self._left = {each.batch: len(each.rows) for each in work}
        self._open: dict[int, JournalWriter] = {}
        self._lock = threading.Lock()
        self._error: OSError | None = None

    @property
    def left(self) -> int:
        """Number of rows that did not end."""
        return sum(self._left.values())

    def block(self, batch: int, rows: Sequence[int], data: bytes | bytearray, seconds: float) -> None:
        """Append the block of some rows."""
        with self._lock:
            if self._error is not None:
                raise self._error
            if batch not in self._open:
                self._open[batch] = JournalWriter(new_journal(self._folder, batch)).open()
            self._open[batch].append(data)
            self._left[batch] -= len(rows)
            if self._left[batch] == 0:
                self._open.pop(batch).close()

    def fail(self, batch: int, row: int, reason: str, seconds: float) -> None:
        """Append the failure of a row whose child died."""
        failure = Failure(row, reason, "", seconds, os.uname().nodename)
        self.block(batch, [row], encode_block([], {}, [failure], seconds), seconds)

    def sync_until(self, ended: threading.Event) -> None:
        """Sync regularly what was appended; the next append raises an error of this."""
        while not ended.wait(SYNC_SECONDS):
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


def _evaluate(folder: Path, work: Sequence[Work], config: PoolConfig, stop: _StopState) -> int:
    journals = _Journals(folder / "out", work)
    ended = threading.Event()
    syncer = threading.Thread(target=journals.sync_until, args=(ended,), daemon=True)
    syncer.start()
    try:
        complete = evaluate(work, journals, config, lambda: stop.request)
    finally:
        ended.set()
        syncer.join()
        journals.close()
    if complete:
        return 0
    when = "near its time limit" if stop.request is StopRequest.FINISH else "before its end"
    _log(f"stopped {when}, {journals.left} rows are left: psy run goes on with them", sys.stdout)
    return STOPPED


if __name__ == "__main__":
    sys.exit(main())
