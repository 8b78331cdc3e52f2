"""Previews: what a run would do, without doing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psyrun.cli.text import count
from psyrun.jobs import find_scheduler, open_submissions
from psyrun.options import RunOptions
from psyrun.split import (
    changed_definitions,
    compute_digests,
    count_reevaluated,
    draft_plan,
    refuse_unmanaged_result,
)
from psyrun.task import open_task
from psyrun.workdir import is_current, read_plan, read_progress

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
    options
        What the run would be told.
    """

    def __init__(self, cache: SourceCache, options: RunOptions) -> None:
        self._cache, self._options = cache, options
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
        old, options = read_plan(outline.layout), self._options.for_task(outline.name)
        refuse_unmanaged_result(outline, old, options)
        digests = compute_digests(outline, self._cache)
        if old is not None and digests.match(old) and not options.force:
            plan = old
            if is_current(outline.layout, old):
                yield f"up to date ({count(old.total, 'row')})"
                return
        else:
            with open_task(outline) as task:
                plan = draft_plan(task, digests, old, options).plan
            yield from _explain(outline, old, plan)
        self._changing[outline.result] = outline.name
        yield _count(outline, plan, options)


def _explain(outline: Outline, old: Plan | None, plan: Plan) -> Iterator[str]:
    if old is None:
        yield "was never run"
    elif old.code != plan.code:
        yield f"{', '.join(changed_definitions(outline, old))} changed"
    elif old.space != plan.space:
        yield "the parameter space changed"


def _count(outline: Outline, plan: Plan, options: RunOptions) -> str:
    survey = read_progress(plan, outline.layout)
    if survey.complete:
        return f"write {outline.result} from {count(survey.done, 'finished row')}"
    words = [f"evaluate {count(survey.missing, 'row')}"] if survey.missing else []
    if survey.failed:
        failed = count(survey.failed, "failed row")
        words.append(f"try {failed} again" if options.retry else f"leave {failed}")
    if survey.done:
        words.append(f"keep {count(survey.done, 'finished row')}")
    return ", ".join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleRows:
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


class StaleRowsFinder:
    """Finds what is at stake in one task after the other; in those that others need before these.

    Parameters
    ----------
    cache
        What is remembered of unchanged sources.
    """

    def __init__(self, cache: SourceCache) -> None:
        self._cache = cache
        self._changing: set[str] = set()  # results that may be written anew

    def find(self, outline: Outline, options: RunOptions) -> StaleRows | None:
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
        digests = compute_digests(outline, self._cache)
        if old is None or options.adopt or options.force:
            return None
        if digests.code != old.code:
            return self._weigh(outline, old, digests)
        if awaited:
            return _foresee(outline, old, awaited)
        if digests.match(old) and (is_current(outline.layout, old) or _is_away(outline)):
            self._changing.discard(outline.result)
        return None

    def _weigh(self, outline: Outline, old: Plan, digests: Digests) -> StaleRows | None:
        """Return the rows that are stale already."""
        survey = read_progress(old, outline.layout)
        if survey.done == 0:
            return None
        with open_task(outline) as task:
            again = count_reevaluated(outline, old, draft_plan(task, digests, old, RunOptions()))
        if again == 0:
            return None
        return StaleRows(
            task=outline.name,
            changed=tuple(changed_definitions(outline, old)),
            rows=again,
            seconds=survey.seconds * again / survey.done,
        )


def _is_away(outline: Outline) -> bool:
    """Whether jobs of a batch system are at it: when they were submitted, the user was asked."""
    return any(find_scheduler(outline, each.scheduler).detached for each in open_submissions(outline))


def _foresee(outline: Outline, old: Plan, awaited: tuple[str, ...]) -> StaleRows | None:
    """Return the rows that will be stale if a task before this one comes to another result."""
    survey = read_progress(old, outline.layout)
    if survey.done == 0:
        return None
    return StaleRows(task=outline.name, changed=awaited, rows=survey.done, seconds=survey.seconds, sure=False)
