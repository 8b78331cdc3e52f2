"""Status of tasks, from their files and one query of each batch system."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from psyrun.cli.rows import read_assignments
from psyrun.errors import TaskFileError
from psyrun.jobs import TaskJobs, explain_ends
from psyrun.split import compute_digests, describe_unmanaged
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
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from psyrun.jobs import QueueCache
    from psyrun.source import SourceCache
    from psyrun.task import Outline
    from psyrun.workdir import Batch, Failure, Layout, Plan, PlanProgress, RowsInHand


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
    unmanaged
        Words for rows that psyrun did not write; '' where there are none.
    jobs
        What is known of its jobs.
    appears
        Whether the result appears by itself when they have ended.
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
    unmanaged: str = ""
    jobs: TaskJobs = field(default_factory=TaskJobs)
    appears: bool = False


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
        words = describe_unmanaged(outline, None)
        return Status(name=outline.name, total=total, missing=total, result=result, unmanaged=words)
    plan = replace(plan, settings=outline.settings)  # Those that were edited count at once.
    current = is_current(layout, plan)
    uptodate = current and _is_planned(outline, plan, cache)
    generators = tuple((read_receipt(layout.process) or {}).get("generators", ()))
    # The queues before the files, which hold the rows of jobs that end meanwhile.
    failed = (read_receipt(layout.receipt) or {}).get("failed", 0) if current else 0
    jobs = TaskJobs() if current and not failed else queues.read_jobs(outline)
    progress = read_progress(plan, layout)
    if current and not progress.complete:  # Its journals were removed; the result has the rows.
        done = plan.total - failed
        return Status(
            name=outline.name, total=plan.total, done=done, failed=failed, uptodate=uptodate, result=result
        )
    states, retried = jobs.states, jobs.retried
    missing = sum(each.missing for each in progress.batches if each.batch.number not in states)
    settled = sum(each.failed for each in progress.batches if each.batch.number not in retried)
    running = _count_in_hand(progress, jobs.running, list_rows_in_hand(layout.out) if states else [])
    return Status(
        name=outline.name,
        total=plan.total,
        done=progress.done,
        failed=progress.failed,
        running=running,
        queued=progress.missing - missing - running,
        missing=missing,
        uptodate=uptodate and progress.complete,
        result=result,
        generators=generators,
        allow_failed=outline.allow_failed,
        unmanaged="" if current else describe_unmanaged(outline, plan),
        jobs=jobs,
        appears=jobs.merges and not missing and plan.allowance.covers(settled, plan.total),
    )


def _count_in_hand(progress: PlanProgress, batches: Collection[int], workers: Iterable[RowsInHand]) -> int:
    """Count the rows that processes are at, of batches that may run."""
    left = {each.batch.key: each.missing for each in progress.batches if each.batch.number in batches}
    return sum(min(worker.processes, sum(left.pop(key, 0) for key in worker.keys)) for worker in workers)


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
    place
        Its batch, and the place in it.
    """

    assignment: Mapping[str, Any] | None
    failure: Failure | None
    reason: str | None
    place: tuple[Batch, int]

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
    active = queues.read_jobs(
        outline
    ).states  # Before the files, which hold the rows of jobs that end meanwhile.
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
            failure = records.failures.get(row)
            yield Detail(assignment, failure, reasons.get(batch.number), (batch, row))


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
