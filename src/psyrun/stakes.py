"""Stakes: finished rows that an edit makes stale, said before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psyrun.changes import name_changes
from psyrun.draft import count_again, draft_plan, take_digests
from psyrun.orders import Orders
from psyrun.plan import read_plan
from psyrun.survey import survey_plan
from psyrun.task import open_task

if TYPE_CHECKING:
    from psyrun.source import SourceCache
    from psyrun.task import Outline

__all__ = ["Stake", "find_stake"]


@dataclass(frozen=True, slots=True)
class Stake:
    """Finished rows that the code as it is now does not vouch for, and that are wanted.

    Parameters
    ----------
    task
        The task.
    changed
        Definitions that changed, ``psy-tasks/model.py: step``.
    rows
        How many rows.
    seconds
        Time that they took in `execute`, on the average of all.
    """

    task: str
    changed: tuple[str, ...]
    rows: int
    seconds: float


def find_stake(outline: Outline, cache: SourceCache) -> Stake | None:
    """Return what would be evaluated again because the code was edited; None where nothing would.

    Raises
    ------
    TaskFileError
        If the task file can't be run, or a data file of the task is missing.
    FormatError
        If the plan is damaged.
    """
    old = read_plan(outline.layout.plan)
    digests = take_digests(outline, cache)
    if old is None or digests.code == old.code:
        return None
    survey = survey_plan(old, outline.layout)
    if survey.done == 0:
        return None
    with open_task(outline) as task:
        again = count_again(outline, old, draft_plan(task, digests, old, Orders()))
    if again == 0:
        return None
    return Stake(outline.name, tuple(name_changes(outline, old)), again, survey.seconds * again / survey.done)
