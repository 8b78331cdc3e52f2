"""``python -m psyrun.worker SUBMISSION``: evaluates batches, here or in a job.

It runs a pool of children, sends them the rows that are missing, and is the only writer of its journals. Its
output goes to the job's log, for people to read.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from psyrun.disk import share_file
from psyrun.errors import FormatError, PsyrunError, explain
from psyrun.scheduler import STOPPED
from psyrun.workdir import list_journals, new_run, read_inputs, read_records, read_submission
from psyrun.worker import child
from psyrun.worker.chunks import Work
from psyrun.worker.fork import fork_children
from psyrun.worker.journals import Journals
from psyrun.worker.pool import StopRequest, evaluate
from psyrun.worker.process import ForkedChild, PoolConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

    from psyrun.workdir import JournalFile, Submission
    from psyrun.worker.process import ChildProcess


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

    Raises
    ------
    ForkedChild
        In a process that was forked to evaluate rows.
    """
    options = _Options(*(sys.argv[1:] if argv is None else argv))
    stop = _install_signal_handlers()
    try:
        return _run(options, stop)
    except (PsyrunError, OSError) as error:
        _log(f"error: {explain(error)}", sys.stderr)
        return 1


def _run(options: _Options, stop: _StopState) -> int:
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
    run = new_run()
    known = {"commit": submission.commit, "clean": submission.clean, "began": int(time.time())}
    config = _configure_pool(folder, submission, rows, run, known)
    _log(
        f"{submission.task}: {len(work)} batches, {rows} rows, {config.size} processes, run {run}", sys.stdout
    )
    children = fork_children(config)
    if options.parent:
        threading.Thread(target=_stop_when_parent_exits, args=(options.parent, stop), daemon=True).start()
    journals = Journals(options.submission, run, work, known, submission.code)
    try:
        return _evaluate(journals, work, config, children, stop)
    finally:
        _remove_empty_logs(folder / "log", run)


def _remove_empty_logs(folder: Path, run: str) -> None:
    for log in folder.glob(f"{run}-*.log"):
        with suppress(OSError):
            if log.stat().st_size == 0:
                log.unlink()


def _log(message: str, stream: TextIO) -> None:
    stream.write(f"psyrun: {message}\n")
    stream.flush()


class _Options:
    """What the command line says: ``jobs/<token>.json [--element N] [--parent PID]``.

    With an element, this entry alone is evaluated; with a parent, the worker ends with this process.
    """

    def __init__(self, submission: str, *more: str) -> None:
        numbers = dict(zip(more[::2], map(int, more[1::2]), strict=True))
        self.submission = Path(submission)
        self.element, self.parent = numbers.pop("--element", None), numbers.pop("--parent", None)
        if numbers:
            raise ValueError(f"no options of a worker: {' '.join(numbers)}")


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
    share_file(path)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def _find_work(
    folder: Path, submission: Submission, batches: Sequence[tuple[int, str, Any]]
) -> Iterator[Work]:
    """Yield the rows of a submission that no journal holds.

    Raises
    ------
    FormatError
        If the assignments of a batch are not those that were submitted, or were planned for other code.
    """
    journals = list_journals(folder / "out")
    for number, tie, ranges in batches:
        inputs = read_inputs(folder / "in" / f"{number}.pkl", tie)
        if inputs.code != submission.code:
            raise FormatError(f"batch {number} was planned for other code than was submitted")
        rows = _missing_rows(inputs.size, ranges, journals.get(inputs.key, ()), submission)
        if rows:
            yield Work(batch=inputs.key, rows=rows)


def _missing_rows(
    size: int,
    ranges: Sequence[tuple[int, int]] | None,
    journals: Sequence[JournalFile],
    submission: Submission,
) -> Sequence[int]:
    if ranges is None and not journals:
        return range(size)
    records = read_records(journals, rows=size)
    again = records.failed_for(submission.only) if submission.retry else set()
    ended = records.done | (records.failures.keys() - again)
    wanted = (row for first, end in (ranges or [(0, size)]) for row in range(first, end))
    return [row for row in wanted if row not in ended]


def _configure_pool(
    folder: Path, submission: Submission, rows: int, run: str, known: Mapping[str, Any]
) -> PoolConfig:
    cores = submission.cores or _granted_cores(submission.core_variables)
    size = max(1, min(submission.processes or cores, rows))
    argv = child.command(
        root=Path.cwd(),
        code=folder / "code" / f"{submission.code}.zip",
        inputs=folder / "in",
        exclude=submission.exclude,
        known=known,
        untracked=submission.untracked if submission.track_inputs else None,
        stateless=submission.stateless,
        declared=submission.declared,
    )
    threads = {name: str(max(1, cores // size)) for name in _THREADS}
    return PoolConfig(
        argv=argv,
        size=size,
        env=threads | os.environ,
        logs=f"{folder / 'log' / run}-",
        timeout=submission.timeout,
    )


def _granted_cores(variables: Sequence[str]) -> int:
    """Return the number of cores from the first of the environment variables that holds one."""
    values = (os.environ.get(name, "") for name in variables)
    return next((max(1, int(value)) for value in values if value.isdecimal()), 1)


def _evaluate(
    journals: Journals,
    work: Sequence[Work],
    config: PoolConfig,
    children: Sequence[ChildProcess],
    stop: _StopState,
) -> int:
    ended = threading.Event()
    journals.begin(config.size)
    syncer = threading.Thread(target=journals.sync_until, args=(ended,), daemon=True)
    syncer.start()
    try:
        complete = evaluate(work, journals, config, lambda: stop.request, journals.watch, children)
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
    arguments: Sequence[str] | None = None
    try:
        code = main()
    except ForkedChild as forked:
        arguments = forked.argv[4:]
    if arguments is None:  # There is nothing to tidy up, which takes as long as a good part of a short job.
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.argv[:] = [child.__file__, *arguments]
    child.main(sys.argv[1:])  # not where an exception is caught, which would be the context of those of rows
