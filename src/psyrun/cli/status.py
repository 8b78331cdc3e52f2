"""Status of tasks, from their files and one query of each batch system."""

from __future__ import annotations

import heapq
import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psyrun.cli.rows import locate_rows, read_assignments
from psyrun.errors import TaskFileError
from psyrun.jobs import explain_ends
from psyrun.scheduler import JobState
from psyrun.split import compute_digests
from psyrun.task import open_task
from psyrun.workdir import (
    is_current,
    list_journals,
    list_rows_in_hand,
    read_plan,
    read_progress,
    read_receipt,
    read_records,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from psyrun.jobs import QueueCache
    from psyrun.source import SourceCache
    from psyrun.task import Outline
    from psyrun.workdir import Failure, Layout, Plan, PlanProgress, RowsInHand


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Progress of a task; the counts are rows, and the last five of them add up to `total`.

    Parameters
    ----------
    name
        The task.
    total
        Rows of the space, and rows kept beyond it.
    done, failed, running, queued, missing
        Rows that have values, that failed, that processes are at, that jobs have yet to come to, and others.
    uptodate
        Whether there is a result, made from the sources as they are.
    result
        The result file, relative to the project root; None where there is none.
    generators
        Random generators that outlive a row, and that its rows drew from.
    allow_failed
        How many of its rows may fail.
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
    generators: tuple[str, ...] = ()
    allow_failed: bool | int | float = False


# The interface of `psy status --json`: documented, and stable.
_JSON_NAMES = ("name", "total", "done", "failed", "running", "queued", "missing", "uptodate", "result")


def as_json(statuses: Iterable[Status]) -> str:
    """Return statuses as one line of JSON, for programs."""
    return json.dumps({"tasks": [{name: getattr(each, name) for name in _JSON_NAMES} for each in statuses]})


def read_status(outline: Outline, cache: SourceCache, queues: QueueCache) -> Status:
    """Read the status of a task; write nothing.

    The task file is run only where there is no plan, for the length of its space.

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
    generators = tuple((read_receipt(layout.process) or {}).get("generators", ()))
    # The queues before the files, which hold the rows of jobs that end meanwhile.
    failed = (read_receipt(layout.receipt) or {}).get("failed", 0) if current else 0
    states = {} if current and not failed else queues.batch_states(outline)
    progress = read_progress(plan, layout)
    if current and not progress.complete:  # Its journals were removed; the result has the rows.
        done = plan.total - failed
        return Status(
            name=outline.name, total=plan.total, done=done, failed=failed, uptodate=uptodate, result=result
        )
    missing: Counter[JobState | None] = Counter()
    for each in progress.batches:
        missing[states.get(each.batch.number)] += each.missing
    running = _count_in_hand(progress, states, list_rows_in_hand(layout.out) if states else [])
    return Status(
        name=outline.name,
        total=plan.total,
        done=progress.done,
        failed=progress.failed,
        running=running,
        queued=sum(missing.values()) - missing[None] - running,
        missing=missing[None],
        uptodate=uptodate and progress.complete,
        result=result,
        generators=generators,
        allow_failed=outline.allow_failed,
    )


def _count_in_hand(
    progress: PlanProgress, states: Mapping[int, JobState], workers: Iterable[RowsInHand]
) -> int:
    """Count the rows that processes are at, and those of batches that may or may not run."""
    left = {
        each.batch.key: each.missing
        for each in progress.batches
        if states.get(each.batch.number) in (JobState.RUNNING, JobState.UNKNOWN)
    }
    running = 0
    for worker in workers:
        running += min(worker.processes, sum(left.pop(key, 0) for key in worker.keys))
    unknown = {
        each.batch.key for each in progress.batches if states.get(each.batch.number) is JobState.UNKNOWN
    }
    return running + sum(rows for key, rows in left.items() if key in unknown)


def _is_planned(outline: Outline, plan: Plan, cache: SourceCache) -> bool:
    try:
        return compute_digests(outline, cache).match(plan)
    except TaskFileError:  # A data file is missing.
        return False


# ---------------------------------------------------------------------- row by row


@dataclass(frozen=True, slots=True)
class Detail:
    """A wanted row that has no values.

    Parameters
    ----------
    assignment
        Parameter -> value; None where the input file can't be read.
    failure
        Its failure; None where it was not evaluated yet.
    reason
        Reason why its job ended early, where that is known.
    """

    assignment: Mapping[str, Any] | None
    failure: Failure | None
    reason: str | None = None

    @property
    def words(self) -> str | None:
        """Reason why it has no values; the batch system knows better what ended a process."""
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
    if plan is None or (is_current(layout, plan) and not _holds_failures(plan, layout)):
        return
    active = queues.batch_states(outline)  # Before the files, which hold the rows of jobs that end meanwhile.
    wanted = plan.wanted_rows()
    journals = list_journals(layout.out)
    progress = read_progress(plan, layout)
    reasons = explain_ends(outline, queues, progress)
    for batch in (each.batch for each in progress.batches if each.done < each.batch.wanted):
        records = read_records(journals.get(batch.key, ()), rows=batch.size)
        lacking = wanted.get(batch.number, frozenset(range(batch.size))) - records.done
        rows = sorted(lacking & records.failures.keys() if batch.number in active else lacking)
        assignments = read_assignments(layout, plan, batch, rows)
        for row, assignment in zip(rows, assignments):
            yield Detail(assignment, records.failures.get(row), reasons.get(batch.number))


def _holds_failures(plan: Plan, layout: Layout) -> bool:
    """Whether the journals of a finished task are there, and hold rows that failed as is allowed."""
    progress = read_progress(plan, layout) if plan.allowance else None
    return progress is not None and progress.failed > 0 and not progress.missing


def count_reasons(outline: Outline) -> Counter[tuple[str, ...]]:
    """Count the rows that failed, by the names of their reason."""
    plan, found = read_plan(outline.layout), Counter[tuple[str, ...]]()
    journals = list_journals(outline.layout.out)
    wanted = plan.wanted_rows() if plan is not None else {}
    for batch in plan.batches if plan is not None else ():
        failures = read_records(journals.get(batch.key, ()), rows=batch.size).failures
        found.update(
            failures[row].names for row in failures.keys() & wanted.get(batch.number, failures.keys())
        )
    return found


@dataclass(frozen=True, slots=True)
class TimedRow:
    """A row, how long it has been evaluated or was, and where."""

    assignment: Mapping[str, Any] | None
    seconds: float
    host: str


def list_running(outline: Outline, queues: QueueCache) -> list[TimedRow]:
    """Return the rows that have been evaluated for some seconds and have not ended, the oldest first."""
    layout, plan = outline.layout, read_plan(outline.layout)
    if plan is None:
        return []
    states, found = queues.batch_states(outline), []
    batches = {batch.key: batch for batch in plan.batches if batch.number in states}
    for worker in list_rows_in_hand(layout.out) if batches else ():
        for key in worker.keys & batches.keys():
            rows = [(row, since) for number, row, since in worker.rows if number == key.number]
            assignments = read_assignments(layout, plan, batches[key], [row for row, _ in rows])
            found += [
                TimedRow(assignment, max(0.0, time.time() - since), worker.host)
                for assignment, (_, since) in zip(assignments, rows)
            ]
    return sorted(found, key=lambda row: -row.seconds)


def list_slowest(outline: Outline, most: int = 3, least: float = 1.0) -> list[TimedRow]:
    """Return the rows that took longest, of those that ended and took at least so many seconds."""
    from psyrun.results import find_receipts

    layout, plan = outline.layout, read_plan(outline.layout)
    if plan is None:
        return []
    receipts, begin, slow = find_receipts(layout, plan), 0, []
    for n, receipt in receipts.runs:
        if receipt.seconds >= least:
            slow += [(receipt.seconds, begin + i, receipt.origin) for i in range(min(n, most))]
        begin += n
    slow = heapq.nlargest(most, slow)
    hosts = ["", *(str(place.get("host", "")) for place in receipts.origins)]
    places = locate_rows(plan, [row for _, row, _ in slow])
    return [
        TimedRow(read_assignments(layout, plan, batch, [row])[0], seconds, hosts[origin])
        for (seconds, _, origin), (batch, row) in zip(slow, places)
    ]


# Values in a reason that do not make it another reason: numbers, and text in quotes.
_VALUE = re.compile(r"""\d+(?:\.\d+)?(?:e[-+]?\d+)?|'[^']*'|"[^"]*\"""")


@dataclass(slots=True)
class Group:
    """Rows without values for one reason.

    Parameters
    ----------
    reason, traceback
        Reason and traceback of the first.
    count
        Their number.
    examples
        Some of their assignments.
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
    groups: dict[tuple[bool, str], Group] = {}
    for detail in details:
        failed, reason, traceback = detail.failure is not None, detail.reason, ""
        if detail.failure is not None:
            reason, traceback = detail.failure.reason, detail.failure.traceback
        if reason is None:
            continue
        key = failed, _frames(traceback) or _VALUE.sub("#", reason)
        group = groups.setdefault(key, Group(detail.words or reason, traceback, failed))
        group.count += 1
        if detail.assignment is not None and len(group.examples) < examples:
            group.examples.append(detail.assignment)
    return sorted(groups.values(), key=lambda group: -group.count)


def _frames(traceback: str) -> str:
    """Return what tracebacks of one cause share: the frames, and the type of the exception."""
    *frames, last = traceback.strip().splitlines() or [""]
    return "\n".join([*frames, last.partition(":")[0]])
