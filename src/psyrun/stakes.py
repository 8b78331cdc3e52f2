"""Stakes: finished rows that an edit makes stale, said before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psyrun.plan import read_plan
from psyrun.split import take_digests
from psyrun.survey import survey_plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psyrun.source import SourceCache
    from psyrun.task import Outline

__all__ = ["Stake", "compare_definitions", "find_stake"]


@dataclass(frozen=True, slots=True)
class Stake:
    """Rows that the code as it is now does not vouch for.

    Parameters
    ----------
    task
        The task.
    changed
        Definitions that changed, ``psy-tasks/model.py: step``.
    rows
        Finished rows.
    seconds
        Time that they took in `execute`.
    """

    task: str
    changed: tuple[str, ...]
    rows: int
    seconds: float


def find_stake(outline: Outline, cache: SourceCache) -> Stake | None:
    """Return what an edit of the code makes stale; None where nothing is.

    Raises
    ------
    TaskFileError
        If a data file of the task is missing.
    FormatError
        If the plan is damaged.
    """
    layout = outline.layout
    plan = read_plan(layout.plan)
    if plan is None or take_digests(outline, cache).code == plan.code:
        return None
    survey = survey_plan(plan, layout)
    if survey.done == 0:
        return None
    changed = compare_definitions(plan.definitions, outline.source.definitions) or outline.file_dep
    return Stake(outline.name, tuple(changed), survey.done, survey.seconds)


def compare_definitions(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return the names of definitions that differ."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
