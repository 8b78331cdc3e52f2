"""Previews: what a run would do, without doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun.console import count
from psyrun.orders import Orders
from psyrun.plan import read_plan
from psyrun.split import draft_plan, take_digests
from psyrun.stakes import compare_definitions
from psyrun.survey import is_current, survey_plan
from psyrun.task import open_task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psyrun.plan import Plan
    from psyrun.source import SourceCache
    from psyrun.task import Outline

__all__ = ["preview"]


def preview(outline: Outline, cache: SourceCache) -> Iterator[str]:
    """Yield what a run of a task would do, in lines of words.

    Raises
    ------
    TaskFileError
        If the task file can't be run.
    FormatError
        If a file of the task is damaged.
    """
    layout = outline.layout
    old = read_plan(layout.plan)
    digests = take_digests(outline, cache)
    if old is not None and digests.match(old):
        survey = survey_plan(old, layout)
        if is_current(layout, old):
            yield f"up to date ({count(old.total, 'row')})"
        elif survey.complete:
            yield f"write {outline.result} from {count(old.total, 'row')}"
        else:
            words = [f"evaluate {count(survey.missing, 'row')}"] if survey.missing else []
            words += [f"try {count(survey.failed, 'failed row')} again"] if survey.failed else []
            words += [f"keep {count(survey.done, 'row')}"] if survey.done else []
            yield ", ".join(words)
        return
    with open_task(outline) as task:
        plan = draft_plan(task, digests, old, Orders()).plan
    yield from _explain(outline, old, plan)
    fresh = sum(batch.wanted for batch in plan.batches if old is None or batch.number >= old.next_batch)
    line = f"evaluate {count(fresh, 'row')}"
    if plan.total > fresh:
        line += f", keep {count(plan.total - fresh, 'row')} planned before"
    yield line


def _explain(outline: Outline, old: Plan | None, plan: Plan) -> Iterator[str]:
    if old is None:
        yield "was never run"
    elif old.code != plan.code:
        changed = compare_definitions(old.definitions, outline.source.definitions) or outline.file_dep
        yield f"{', '.join(changed) or 'the code'} changed"
    else:
        yield "the parameter space changed"
