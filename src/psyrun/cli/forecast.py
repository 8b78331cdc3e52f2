"""Previews: what a run would do, without doing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psyrun.cli.text import count
from psyrun.jobs import open_submissions, scheduler_of
from psyrun.options import Orders
from psyrun.split import count_again, draft_plan, name_changes, refuse_foreign, take_digests
from psyrun.task import open_task
from psyrun.workdir import is_current, read_plan, survey_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psyrun.source import SourceCache
    from psyrun.split import Digests
    from psyrun.task import Outline
    from psyrun.workdir import Plan


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
