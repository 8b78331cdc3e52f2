"""Previews: what a run would do, without doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun.changes import name_changes
from psyrun.console import count
from psyrun.draft import draft_plan, take_digests
from psyrun.foreign import refuse_foreign
from psyrun.plan import read_plan
from psyrun.survey import is_current, survey_plan
from psyrun.task import open_task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psyrun.orders import Orders
    from psyrun.plan import Plan
    from psyrun.source import SourceCache
    from psyrun.task import Outline

__all__ = ["Preview"]


class Preview:
    """Tells of one task after the other what a run would do; of those that others need before these.

    Parameters
    ----------
    cache
        What is remembered of unchanged sources.
    orders
        What the run would be told.
    """

    def __init__(self, cache: SourceCache, orders: Orders) -> None:
        self._cache, self._orders = cache, orders
        self._changing: dict[str, str] = {}  # result -> the task that will write it anew

    def tell(self, outline: Outline) -> Iterator[str]:
        """Yield what a run of a task would do, in lines of words.

        Raises
        ------
        TaskFileError
            If the task file can't be run.
        DirtyError
            If there is a result that a run would not overwrite.
        FormatError
            If a file of the task is damaged.
        """
        awaited = [self._changing[path] for path in outline.file_dep if path in self._changing]
        if awaited:
            self._changing[outline.result] = outline.name
            yield f"after {', '.join(awaited)}, as it then turns out"
            return
        old, orders = read_plan(outline.layout), self._orders.of(outline.name)
        refuse_foreign(outline, old, orders)
        digests = take_digests(outline, self._cache)
        if old is not None and digests.match(old) and not orders.again:
            plan = old
            if is_current(outline.layout, old):
                yield f"up to date ({count(old.total, 'row')})"
                return
        else:
            with open_task(outline) as task:
                plan = draft_plan(task, digests, old, orders).plan
            yield from _explain(outline, old, plan)
        self._changing[outline.result] = outline.name
        yield _count(outline, plan, orders)


def _explain(outline: Outline, old: Plan | None, plan: Plan) -> Iterator[str]:
    if old is None:
        yield "was never run"
    elif old.code != plan.code:
        yield f"{', '.join(name_changes(outline, old))} changed"
    elif old.space != plan.space:
        yield "the parameter space changed"


def _count(outline: Outline, plan: Plan, orders: Orders) -> str:
    survey = survey_plan(plan, outline.layout)
    if survey.complete:
        return f"write {outline.result} from {count(survey.done, 'finished row')}"
    words = [f"evaluate {count(survey.missing, 'row')}"] if survey.missing else []
    if survey.failed:
        failed = count(survey.failed, "failed row")
        words.append(f"try {failed} again" if orders.retry else f"leave {failed}")
    if survey.done:
        words.append(f"keep {count(survey.done, 'finished row')}")
    return ", ".join(words)
