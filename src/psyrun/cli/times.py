"""How long rows take: those that are being evaluated, and the slowest that ended."""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psyrun.cli.rows import locate_rows, read_assignments
from psyrun.workdir import list_journals, list_rows_in_hand, read_plan, read_records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psyrun.jobs import QueueCache
    from psyrun.task import Outline


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
    running, found = queues.read_jobs(outline).running, []
    batches = {batch.key: batch for batch in plan.batches if batch.number in running}
    journals = list_journals(layout.out)
    for worker in list_rows_in_hand(layout.out) if batches else ():
        for key in worker.keys & batches.keys():
            records = read_records(journals.get(key, ()), rows=batches[key].size)
            ended = records.done  # Since the worker wrote what it is at.
            rows = [(row, since) for n, row, since in worker.rows if n == key.number and row not in ended]
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
