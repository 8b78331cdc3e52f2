"""Status: how far tasks are, told by files and one query."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psyrun.errors import FormatError, TaskFileError
from psyrun.jobs import explain_ends
from psyrun.scheduler import JobState
from psyrun.source import loaded, read_zip
from psyrun.split import compute_digests
from psyrun.task import open_task
from psyrun.workdir import (
    Failure,
    RowCounter,
    is_current,
    list_journals,
    read_inputs,
    read_plan,
    read_progress,
    read_records,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from psyrun.jobs import QueueCache
    from psyrun.source import SourceCache
    from psyrun.task import Outline
    from psyrun.workdir import BatchProgress, Layout, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How far a task is; the counts are rows, and the last five of them add up to `total`.

    Parameters
    ----------
    name
        The task.
    total
        Rows of the space (and rows kept beyond it).
    done, failed, running, queued, missing
        Rows that have values, that failed, whose batch is running or queued, and the rest.
    uptodate
        Whether the result is there and made from the sources as they are now.
    result
        The result file, relative to the project root; None where there is none.
    """

    name: str
    total: int
    done: int = 0
    failed: int = 0
    running: int = 0
    queued: int = 0
    missing: int = 0
    uptodate: bool = False
    result: str | None = None


# The interface of `psy status --json`: documented, and stable.
_JSON_NAMES = ("name", "total", "done", "failed", "running", "queued", "missing", "uptodate", "result")


def as_json(statuses: Iterable[Status]) -> str:
    """Return statuses as one line of JSON, for programs."""
    return json.dumps({"tasks": [{name: getattr(each, name) for name in _JSON_NAMES} for each in statuses]})


def read_status(outline: Outline, cache: SourceCache, queues: QueueCache) -> Status:
    """Tell how far a task is, without writing anything.

    A task that was never planned is run for the length of its space.

    Raises
    ------
    TaskFileError
        If it was never planned and can't be run.
    FormatError
        If a file of the task is damaged.
    """
    layout = outline.layout
    plan = read_plan(layout)
    result = outline.result if layout.result.exists() else None
    if plan is None:
        with open_task(outline) as task:
            total = task.total
        return Status(name=outline.name, total=total, missing=total, result=result)
    current = is_current(layout, plan)
    uptodate = current and _is_planned(outline, plan, cache)
    states = (
        {} if current else queues.batch_states(outline)
    )  # Before the files: what ends meanwhile is seen there.
    survey = read_progress(plan, layout, RowCounter())
    if current and not survey.complete:  # Its journals were removed; the result has the rows.
        return Status(name=outline.name, total=plan.total, done=plan.total, uptodate=uptodate, result=result)
    running, queued = _count_in_flight(states, survey.batches)
    return Status(
        name=outline.name,
        total=plan.total,
        done=survey.done,
        failed=survey.failed,
        running=running,
        queued=queued,
        missing=survey.missing - running - queued,
        uptodate=uptodate and survey.complete,
        result=result,
    )


def _is_planned(outline: Outline, plan: Plan, cache: SourceCache) -> bool:
    try:
        return compute_digests(outline, cache).match(plan)
    except TaskFileError:  # A data file is missing.
        return False


def _count_in_flight(states: Mapping[int, JobState], batches: Sequence[BatchProgress]) -> tuple[int, int]:
    """Count rows that are neither done nor failed and whose batch is running, and queued."""
    counts = dict.fromkeys(JobState, 0)
    for progress in batches:
        state = states.get(progress.batch.number)
        if state is not None:
            counts[state] += progress.missing
    return counts[JobState.RUNNING] + counts[JobState.UNKNOWN], counts[JobState.QUEUED]


# ---------------------------------------------------------------------- row by row


@dataclass(frozen=True, slots=True)
class Detail:
    """A wanted row that has no values.

    Parameters
    ----------
    assignment
        Parameter -> value; None where the input file can't be read.
    failure
        Why it has none; None where it was not evaluated yet.
    reason
        Why its job ended early, where that is known.
    """

    assignment: Mapping[str, Any] | None
    failure: Failure | None
    reason: str | None = None

    @property
    def words(self) -> str | None:
        """Why it has no values; what ended its process is better known to the batch system."""
        if self.failure is None:
            return self.reason
        if self.failure.traceback or self.reason is None:
            return self.failure.reason
        return f"{self.failure.reason}; its job: {self.reason}"


def list_details(outline: Outline, queues: QueueCache) -> Iterator[Detail]:
    """Yield the wanted rows that failed or are missing, in the order of their batches.

    Raises
    ------
    FormatError
        If a file of the task is damaged.
    """
    layout = outline.layout
    plan = read_plan(layout)
    if plan is None or (is_current(layout, plan)):
        return
    flying = queues.batch_states(outline)  # Before the files: what ends meanwhile is seen there.
    wanted = plan.wanted_rows()
    journals = list_journals(layout.out)
    survey = read_progress(plan, layout, RowCounter())
    reasons = explain_ends(outline, queues, survey)
    for progress in survey.batches:
        batch = progress.batch
        if progress.done == batch.wanted:
            continue
        records = read_records(journals.get(batch.number, ()), rows=batch.size)
        lacking = wanted.get(batch.number, frozenset(range(batch.size))) - records.done
        rows = sorted(lacking & records.failures.keys() if batch.number in flying else lacking)
        assignments = _read_assignments(outline, layout, batch.number, rows)
        for row, assignment in zip(rows, assignments):
            yield Detail(assignment, records.failures.get(row), reasons.get(batch.number))


def _read_assignments(
    outline: Outline, layout: Layout, number: int, rows: Iterable[int]
) -> list[dict[str, Any] | None]:
    try:
        columns = _read_columns(outline, layout, number)
    except (FormatError, OSError):
        return [None for _ in rows]
    return [{name: values[row] for name, values in columns.items()} for row in rows]


def _read_columns(outline: Outline, layout: Layout, number: int) -> dict[str, list[Any]]:
    """Read assignments; where they are objects of the task's own classes, load the code that they are of."""
    path = layout.input(number)
    try:
        return read_inputs(path)[1]
    except (ImportError, AttributeError):
        plan = read_plan(layout)
        if plan is None:
            raise
        with loaded(read_zip(layout.code(plan.code)), outline.root, part="code"):
            return read_inputs(path)[1]


# Values in a reason, which do not make it another one: numbers and what stands in quotes.
_VALUE = re.compile(r"""\d+(?:\.\d+)?(?:e[-+]?\d+)?|'[^']*'|"[^"]*\"""")


@dataclass(slots=True)
class Group:
    """Rows that have no values for one reason.

    Parameters
    ----------
    reason, traceback
        What they have in common.
    count
        How many there are.
    examples
        Some of the assignments.
    failed
        Whether they were evaluated, and failed.
    """

    reason: str
    traceback: str
    failed: bool
    count: int = 0
    examples: list[Mapping[str, Any]] = field(default_factory=list)


def group_failures(details: Iterable[Detail], examples: int = 3) -> list[Group]:
    """Group failures by traceback, the most frequent first; those without one by reason."""
    groups: dict[str, Group] = {}
    for detail in details:
        failure = detail.failure
        failed = failure is not None
        if failure is None and detail.reason is not None:
            failure = Failure(0, detail.reason)
        if failure is None:
            continue
        reason = detail.words or failure.reason
        key = f"{failed} " + (_place(failure.traceback) or _VALUE.sub("#", failure.reason))
        group = groups.setdefault(key, Group(reason, failure.traceback, failed))
        group.count += 1
        if detail.assignment is not None and len(group.examples) < examples:
            group.examples.append(detail.assignment)
    return sorted(groups.values(), key=lambda group: -group.count)


def _place(traceback: str) -> str:
    """Return what tracebacks of one cause share: the frames, and the type of the exception."""
    lines = traceback.strip().splitlines()
    if not lines:
        return ""
    return "\n".join([*lines[:-1], lines[-1].partition(":")[0]])
