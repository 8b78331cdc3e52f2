"""A trial of a task: one assignment is evaluated as in a job, in a new process, and nothing is kept."""

from __future__ import annotations

import pickle
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.cli.text import count, duration, show_assignment
from psyrun.disk import make_folders
from psyrun.errors import ExecuteError, TaskFileError
from psyrun.jobs import describe_generators
from psyrun.source import SCHEME, write_zip
from psyrun.split import KINDS, name_input, pack_assignments
from psyrun.task import open_task, prefix_store_errors
from psyrun.values import dumps
from psyrun.workdir import (
    INPUTS,
    WHERE,
    JournalWriter,
    create_inputs,
    first_sections,
    list_journals,
    new_run,
    read_records,
    read_values,
    unpack_reads,
)
from psyrun.worker import PoolConfig, Work, command, evaluate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psyrun.task import Outline, Task
    from psyrun.workdir import BatchKey, Records
    from psyrun.worker import ChildProcess


def try_one(outline: Outline) -> Iterator[str]:
    """Evaluate the first assignment of a task, store its values and load them; yield lines about it.

    Raises
    ------
    TaskFileError
        If the task file can't be run, or the space can't be evaluated.
    ExecuteError
        If the row fails.
    StoreError
        If the store can't hold its values.
    """
    with open_task(outline) as task, tempfile.TemporaryDirectory(prefix="psyrun-") as folder:
        total = task.total
        if total == 0:
            yield "the space has no assignments: there is nothing to try"
            return
        assignment = _first_assignment(task)
        yield f"execute({show_assignment(assignment)})"
        began = time.perf_counter()
        values, records, read = _evaluate(task, assignment, Path(folder))
        yield f"returned {show_assignment(values)}"
        if read:
            more = f" and {len(read) - _MOST_READ:,} more" if len(read) > _MOST_READ else ""
            yield f"read {', '.join(read[:_MOST_READ])}{more}"
        if records.generators:
            yield describe_generators(sorted(records.generators))
        seconds = records.seconds
        overhead = max(0.0, time.perf_counter() - began - seconds)
        yield f"{seconds:.3g} s, and {overhead:.2g} s to start a process"
        row = assignment | values
        kept = {name: value for name, value in row.items() if name not in outline.exclude}
        first, further = _store(task, kept, Path(folder))
        yield (
            f"the whole space, {count(total, 'row')} like this: {duration(seconds * total)} of computing"
            f" and {_show_bytes(first + further * (total - 1))} in {task.store.ext}"
        )


def _first_assignment(task: Task) -> dict[str, Any]:
    try:
        assignment: dict[str, Any] = task.pspace[0]
    except Exception as error:
        raise TaskFileError(f"{task.outline.path}: pspace can't be evaluated: {error}") from error
    return assignment


class _Sink:
    """Writes what a child sends into a journal, and keeps the reason of its death."""

    def __init__(self, folder: Path, batch: BatchKey) -> None:
        self.journal = JournalWriter(folder, batch, new_run()).open()
        self.reason = ""
        self.read: list[str] = []

    def block(
        self, child: ChildProcess, batch: BatchKey, rows: Sequence[int], data: bytes | bytearray
    ) -> None:
        """Write a block, and keep what was read for it."""
        found = first_sections(data, WHERE, INPUTS)
        reads = unpack_reads(found[INPUTS]) if INPUTS in found else []
        self.read += [name_input(f"{each.kind} {each.path}") for each in reads if each.kind in KINDS]
        self.journal.append(data, found.get(WHERE, b"{}"))

    def fail(self, child: ChildProcess, batch: BatchKey, row: int, reason: str, seconds: float) -> None:
        """Keep the reason of a death."""
        self.reason = f"{reason} after {seconds:.3g} s"


def _evaluate(
    task: Task, assignment: dict[str, Any], folder: Path
) -> tuple[dict[str, Any], Records, list[str]]:
    """Return the values of a row, its record, and what it read."""
    outline = task.outline
    code, inputs, out = folder / f"{outline.source.code}.zip", folder / "in", folder / "out"
    make_folders(inputs, out)
    write_zip(outline.source, code)
    packed = pack_assignments(outline, {name: [value] for name, value in assignment.items()})
    about = {"task": task.name, "scheme": SCHEME, "code": outline.source.code, "space": "", "size": 1}
    (batch,) = create_inputs(inputs, 0, [(about, packed)])
    sink = _Sink(out, batch)
    argv = command(root=outline.root, code=code, inputs=inputs, exclude=outline.exclude)
    evaluate([Work(batch=batch, rows=range(1))], sink, PoolConfig(argv=argv, size=1, timeout=task.timeout))
    sink.journal.close()
    journals = list_journals(out).get(batch, ())
    records = read_records(journals)
    for failure in records.failures.values():
        raise ExecuteError(f"{outline.path}: {failure.reason}\n{failure.traceback}".rstrip())
    for _, columns in read_values(journals):
        return {name: column[0] for name, column in columns.items()}, records, sink.read
    raise ExecuteError(f"{outline.path}: the process died: {sink.reason}")


_MORE_ROWS = 20
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
