"""Ends of jobs: why elements ended before the rows of their batches were there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psyrun.workdir import End

if TYPE_CHECKING:
    from pathlib import Path

    from psyrun.scheduler import Scheduler
    from psyrun.workdir import Layout, Submission


_ERROR = "psyrun: error: "
_TAIL = 20_000  # bytes of a log that may hold the last error


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of an element that left the queue early.

    Parameters
    ----------
    lost
        Whether it left rows without any record, rather than failed ones.
    since
        When it was first found to have left, seconds since 1970.
    reported
        The reason that the batch system gives, now or earlier.
    error
        The last error of a worker in the log.
    printed
        The last line of the log where no worker began.
    """

    lost: bool
    since: float
    reported: str | None = None
    error: str | None = None
    printed: str | None = None


def classify(found: Evidence, scheduler: Scheduler, now: float) -> End:
    """Return the end of an element: the worker's own error explains it better than the batch system.

    Rows that are missing without a reason are waited for within the scheduler's grace.
    """
    explained = found.reported or found.error
    late = found.lost and not explained and 0 <= now - found.since < scheduler.grace
    reason = found.reported
    if late:
        return End(since=found.since)
    if found.lost or reason is None:
        if reason is None and found.lost and scheduler.detached:
            reason = "left the queue without its rows"
        if reason is not None and found.printed and scheduler.detached and found.printed not in reason:
            reason = f"{reason} ({found.printed})"
        reason = found.error or reason
    return End(since=found.since, reason=reason, final=True)


def read_last_error(layout: Layout, submission: Submission, element: int) -> tuple[str | None, str | None]:
    """Return the last error of a worker in the log of an element or, where none began, the last line.

    What jobs print before a worker begins is in a log of the whole submission: it tells of an element where
    no worker of any element began.
    """
    text = _read_worker(layout, submission, element)
    begun = text is not None
    if text is None:
        others = (_read_worker(layout, submission, e) for e in range(len(submission.batches)) if e != element)
        if any(each is not None for each in others):
            return None, None
        text = _read_tail(layout.log / f"{submission.token}.log")
    _, found, error = text.rpartition(_ERROR)
    if found:
        return error.strip(), None
    lines = text.strip().splitlines()
    return None, lines[-1].strip()[:200] if lines and not begun else None


def _read_worker(layout: Layout, submission: Submission, element: int) -> str | None:
    """Return the end of what the worker of an element printed; None where it did not begin."""
    _, begun, text = _read_tail(element_log(layout, submission, element)).rpartition(submission.mark)
    return text if begun else None


def element_log(layout: Layout, submission: Submission, element: int) -> Path:
    """Return the log that a worker of one element writes."""
    return layout.log / f"{submission.numbers[element]}.log"


def _read_tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
