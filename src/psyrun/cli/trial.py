"""A trial of a task: a few rows are evaluated as in a job, in a new process, and nothing is kept."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.cli.debugging import find_in_space, read_assignment
from psyrun.cli.text import count, duration, show_assignment
from psyrun.disk import make_folders
from psyrun.errors import ExecuteError
from psyrun.jobs import describe_generators
from psyrun.source import SCHEME, write_zip
from psyrun.split import KINDS, name_input, pack_assignments
from psyrun.task import open_task, prefix_store_errors
from psyrun.values import dumps
from psyrun.workdir import (
    INPUTS,
    WHERE,
    JournalWriter,
    ReceiptReader,
    create_inputs,
    first_sections,
    list_journals,
    new_run,
    read_first_records,
    read_records,
    read_values,
    unpack_reads,
)
from psyrun.worker import PoolConfig, StopRequest, Work, command, evaluate, take_terminal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psyrun.task import Outline, Task
    from psyrun.workdir import BatchKey
    from psyrun.worker import ChildProcess


def try_rows(outline: Outline, words: Sequence[str] = ()) -> Iterator[str]:
    """Evaluate a row of a task, store its values and load them; yield lines about it.

    Without words it is the first row; where that is quick, the first, the middle and the last follow in the
    same process, for an estimate of the whole space.

    Parameters
    ----------
    outline
        The task.
    words
        Number of the row, or values of parameters.

    Raises
    ------
    TaskFileError
        If the task file can't be run, or the space can't be evaluated.
    SelectionError
        If there is no such row.
    ExecuteError
        If a row fails.
    StoreError
        If the store can't hold its values.
    """
    with open_task(outline) as task, tempfile.TemporaryDirectory(prefix="psyrun-") as folder:
        total = task.total
        if total == 0:
            yield "the space has no assignments: there is nothing to try"
            return
        rows = find_in_space(task, words)[:1] if words else [0, *dict.fromkeys((0, total // 2, total - 1))]
        which = [_WHICH[place] for place in _CHOSEN[len(rows) - 1]]
        assignments = [read_assignment(task, row) for row in rows]
        yield f"execute({show_assignment(assignments[0])})"
        trial = _Trial.run(task, assignments, Path(folder))
        yield f"returned {show_assignment(trial.values)}"
        if trial.read:
            more = f" and {len(trial.read) - _MOST_READ:,} more" if len(trial.read) > _MOST_READ else ""
            yield f"read {', '.join(trial.read[:_MOST_READ])}{more}"
        if trial.generators:
            yield describe_generators(sorted(trial.generators))
        first, *warm = trial.seconds
        yield f"{first:.3g} s, and {trial.overhead:.2g} s to start a process"
        if warm:
            yield "once warm: " + ", ".join(f"{took:.3g} s for {name}" for took, name in zip(warm, which))
        for row, reason in trial.failures.items():
            yield f"{which[row - 1]} fails: {show_assignment(assignments[row])}  {reason}"
        kept = {n: value for n, value in (assignments[0] | trial.values).items() if n not in outline.exclude}
        alone, further = _store(task, kept, Path(folder))
        if not words:
            seconds = sum(trial.seconds[1:] or trial.seconds) / len(trial.seconds[1:] or trial.seconds)
            yield (
                f"the whole space, {count(total, 'row')} like {'these' if warm else 'this'}:"
                f" {duration(seconds * total)} of computing"
                f" and {_show_bytes(alone + further * (total - 1))} in {task.store.ext}"
            )


class _Sink:
    """Writes what a child sends into a journal, and keeps the reason of its death."""

    def __init__(self, folder: Path, batch: BatchKey) -> None:
        self.journal = JournalWriter(folder, batch, new_run()).open()
        self.began = time.monotonic()
        self.first: float | None = None
        self.reason = ""
        self.read: dict[str, None] = {}

    def block(
        self, child: ChildProcess, batch: BatchKey, rows: Sequence[int], data: bytes | bytearray
    ) -> None:
        """Write a block, and keep what was read for it."""
        found = first_sections(data, WHERE, INPUTS)
        reads = unpack_reads(found[INPUTS]) if INPUTS in found else []
        names = (name_input(f"{each.kind} {each.path}") for each in reads if each.kind in KINDS)
        if self.first is None:
            self.read.update(dict.fromkeys(names))
        self.journal.append(data, found.get(WHERE, b"{}"))
        self.first = self.first or time.monotonic() - self.began

    def fail(self, child: ChildProcess, batch: BatchKey, row: int, reason: str, seconds: float) -> None:
        """Keep the reason of a death."""
        self.reason = f"{reason} after {seconds:.3g} s"

    def stop(self) -> StopRequest:
        """Ask for no more rows where the first took long, or a process died."""
        slow = self.first is not None and self.first > _PATIENCE
        return StopRequest.FINISH if slow or self.reason else StopRequest.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """What came of some rows in one process.

    Parameters
    ----------
    values
        What the first row returned.
    seconds
        What each of them took.
    overhead
        Seconds until the first began.
    read
        What the first read.
    generators
        Random generators that outlive a row, and that they drew from.
    failures
        Which of them failed -> why; not the first.
    """

    values: dict[str, Any]
    seconds: list[float]
    overhead: float
    read: list[str]
    generators: frozenset[str]
    failures: dict[int, str]

    @classmethod
    def run(cls, task: Task, assignments: Sequence[dict[str, Any]], folder: Path) -> _Trial:
        """Evaluate rows one after the other; only the first where that takes long."""
        outline = task.outline
        code, inputs, out = folder / f"{outline.source.code}.zip", folder / "in", folder / "out"
        make_folders(inputs, out)
        write_zip(outline.source, code)
        columns = {name: [row[name] for row in assignments] for name in assignments[0]}
        about = {"task": task.name, "scheme": SCHEME, "code": outline.source.code, "space": ""}
        about["size"] = len(assignments)
        (batch,) = create_inputs(inputs, 0, [(about, pack_assignments(outline, columns))])
        sink = _Sink(out, batch)
        work = [Work(batch=batch, rows=range(len(assignments)))]
        _evaluate(
            task, work, sink, command(root=outline.root, code=code, inputs=inputs, exclude=outline.exclude)
        )
        sink.journal.close()
        journals = list_journals(out).get(batch, ())
        records, reader = read_records(journals), ReceiptReader()
        if failure := records.failures.get(0):
            raise ExecuteError(f"{outline.path}: {failure.reason}\n{failure.traceback}".rstrip())
        for each in read_first_records(journals):
            reader.add(0, *each)
        ended = range(len(records.done) + len(records.failures))
        seconds = [each.seconds for each, _ in reader.in_order([(0, ended)]).rows()]
        for _, values in read_values(journals):
            return cls(
                values={name: column[0] for name, column in values.items()},
                seconds=seconds,
                overhead=max(0.0, (sink.first or 0.0) - seconds[0]),
                read=list(sink.read),
                generators=records.generators,
                failures={row: each.reason for row, each in sorted(records.failures.items())},
            )
        raise ExecuteError(f"{outline.path}: the process died: {sink.reason}")


def _evaluate(task: Task, work: Sequence[Work], sink: _Sink, argv: Sequence[str]) -> None:
    """Evaluate rows; where the code stops in pdb and there is a terminal, with that and without a limit."""
    texts = task.outline.source.files.values()
    stops = sys.stdin.isatty() and any(call in text for text in map(str, texts) for call in _STOPPING)
    config = PoolConfig(argv=argv, size=1, timeout=None if stops else task.timeout, foreground=stops)
    try:
        evaluate(work, sink, config, sink.stop)
    finally:
        if stops:
            take_terminal(os.getpgrp())


_MORE_ROWS = 20
_PATIENCE = 5.0  # seconds that the first row may take where others are to follow
_WHICH = ("the first row", "the middle one", "the last")
_CHOSEN = ((), (0,), (0, 2), (0, 1, 2))  # of these, where 0 to 3 rows follow the first
_STOPPING = ("breakpoint(", "set_trace(")
_MOST_READ = 10  # names of inputs that are shown


def _store(task: Task, row: dict[str, Any], folder: Path) -> tuple[int, float]:
    """Store a row and load it; return the bytes of a file of one row, and those of each further row."""
    sizes = []
    for rows in (1, 1 + _MORE_ROWS):
        path = folder / f"result{task.store.ext}"
        with prefix_store_errors(task.outline):
            task.store.save(path, {name: _copies(value, rows) for name, value in row.items()})
            task.store.load(path)
        sizes.append(path.stat().st_size)
        path.unlink()
    return sizes[0], max(0, sizes[1] - sizes[0]) / _MORE_ROWS


def _copies(value: Any, number: int) -> list[Any]:
    """Return copies of a value: pickle would write one object that occurs in many rows only once."""
    data = dumps(value)
    return [pickle.loads(data) for _ in range(number)]


def _show_bytes(number: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} TB"
