"""Stakes: finished rows that an edit makes stale, said before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psyrun.changes import name_changes
from psyrun.draft import count_again, draft_plan, take_digests
from psyrun.orders import Orders
from psyrun.plan import read_plan
from psyrun.queues import open_submissions, scheduler_of
from psyrun.survey import is_current, survey_plan
from psyrun.task import open_task

if TYPE_CHECKING:
    from psyrun.draft import Digests
    from psyrun.plan import Plan
    from psyrun.source import SourceCache
    from psyrun.task import Outline

__all__ = ["Stake", "Stakes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stake:
    """Finished rows that the code as it is now does not vouch for, and that are wanted.

    Parameters
    ----------
    task
        The task.
    changed
        Definitions that changed, ``psy-tasks/model.py: step``; or results of other tasks that may change.
    rows
        How many rows.
    seconds
        Time that they took in `execute`, on the average of all.
    sure
        Whether it changed; not where that depends on what other tasks come to.
    """

    task: str
    changed: tuple[str, ...]
    rows: int
    seconds: float
    sure: bool = True


class Stakes:
    """Finds what is at stake in one task after the other; in those that others need before these.

    Parameters
    ----------
    cache
        What is remembered of unchanged sources.
    """

    def __init__(self, cache: SourceCache) -> None:
        self._cache = cache
        self._changing: set[str] = set()  # results that may be written anew

    def find(self, outline: Outline, orders: Orders) -> Stake | None:
        """Return what would be evaluated again; None where nothing would, or where the user knows.

        Raises
        ------
        TaskFileError
            If the task file can't be run, or a data file of the task is missing.
        FormatError
            If the plan is damaged.
        """
        awaited = tuple(path for path in outline.file_dep if path in self._changing)
        self._changing.add(outline.result)
        old = read_plan(outline.layout)
        digests = take_digests(outline, self._cache)
        if old is None or orders.keep_rows or orders.again:
            return None
        if digests.code != old.code:
            return self._weigh(outline, old, digests)
        if awaited:
            return _foresee(outline, old, awaited)
        if digests.match(old) and (is_current(outline.layout, old) or _is_away(outline)):
            self._changing.discard(outline.result)
        return None

    def _weigh(self, outline: Outline, old: Plan, digests: Digests) -> Stake | None:
        """Return the rows that are stale already."""
        survey = survey_plan(old, outline.layout)
        if survey.done == 0:
            return None
        with open_task(outline) as task:
            again = count_again(outline, old, draft_plan(task, digests, old, Orders()))
        if again == 0:
            return None
        return Stake(
            task=outline.name,
            changed=tuple(name_changes(outline, old)),
            rows=again,
            seconds=survey.seconds * again / survey.done,
        )


def _is_away(outline: Outline) -> bool:
    """Whether jobs of a batch system are at it: when they were submitted, the user was asked."""
    return any(not scheduler_of(outline, each.scheduler).attended for each in open_submissions(outline))


def _foresee(outline: Outline, old: Plan, awaited: tuple[str, ...]) -> Stake | None:
    """Return the rows that will be stale if a task before this one comes to another result."""
    survey = survey_plan(old, outline.layout)
    if survey.done == 0:
        return None
    return Stake(task=outline.name, changed=awaited, rows=survey.done, seconds=survey.seconds, sure=False)
