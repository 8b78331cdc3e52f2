"""Forecasts: what a run would do with each task of a chain, without doing it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psyrun.cli.text import count, duration
from psyrun.errors import PsyrunError
from psyrun.jobs import find_scheduler, open_submissions
from psyrun.split import (
    changed_definitions,
    compute_digests,
    count_orphaned,
    count_reevaluated,
    count_stale_rows,
    describe_gone,
    describe_stale,
    draft_plan,
    find_changes,
    name_input,
    refuse_unmanaged,
)
from psyrun.task import open_task
from psyrun.workdir import is_current, read_plan, read_progress, read_receipt, read_receipts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from psyrun.options import RunOptions
    from psyrun.source import SourceCache
    from psyrun.split import Changes, Digests
    from psyrun.task import Outline
    from psyrun.workdir import Layout, Plan


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would do with a task.

    Parameters
    ----------
    outline, options
        The task, and the options that apply to it.
    upstream
        Forecasts for tasks whose results it needs and whose results may change in the run.
    plan
        The plan on disk.
    digests
        Digests of the sources as they are, or the error that the run would end with.
    changes
        Inputs that changed since rows read them.
    """

    outline: Outline
    options: RunOptions
    upstream: Sequence[Forecast]
    plan: Plan | None
    digests: Digests | Exception
    changes: Changes | None = None

    @property
    def planned(self) -> bool:
        """Whether the plan stands."""
        if self.plan is None or isinstance(self.digests, Exception) or self.options.force:
            return False
        changed = (self.changes is not None and self.changes.space) or bool(self.stale)
        return self.digests.match(self.plan) and not changed

    @property
    def stale(self) -> dict[str, int]:
        """Inputs that changed -> how many wanted rows read them, and are evaluated again."""
        if self.plan is None or self.changes is None or self.options.adopt:
            return {}
        return count_stale_rows(self.outline, self.plan, self.changes)

    @property
    def kept(self) -> dict[str, int]:
        """Inputs that changed -> how many wanted rows read them, and are kept by `--continue`."""
        if self.plan is None or self.changes is None or not self.options.adopt:
            return {}
        return count_stale_rows(self.outline, self.plan, self.changes)

    @property
    def edited(self) -> bool:
        """Whether the values of `execute` may differ from those of the plan."""
        old, new = self.plan, self.digests
        return old is not None and not isinstance(new, Exception) and new.code != old.code

    @property
    def current(self) -> bool:
        """Whether the result on disk is up to date, as long as those upstream stay."""
        return self.planned and is_current(self.outline.layout, self.plan)


def forecast(chain: Iterable[Outline], options: RunOptions, cache: SourceCache) -> Iterator[Forecast]:
    """Yield what a run would do with each task of a chain.

    Parameters
    ----------
    chain
        The tasks, each behind those whose results it needs.
    options
        Options of the run.
    cache
        Cache of source facts.
    """
    changing: dict[str, Forecast] = {}
    for outline in chain:
        upstream = [changing[path] for path in outline.file_dep if path in changing]
        own = options.for_task(outline.name)
        try:
            plan = read_plan(outline.layout)
            if not upstream:
                refuse_unmanaged(outline, plan, own)
            digests, changes = compute_digests(outline, cache), find_changes(outline, plan, cache)
            if plan is not None:  # Settings that were edited count at once.
                plan = replace(plan, settings=outline.settings)
            found = Forecast(outline, own, upstream, plan, digests, changes)
        except (PsyrunError, OSError) as error:
            found = Forecast(outline, own, upstream, None, error)
        if upstream or not found.current:
            changing[outline.result] = found
        yield found


def describe(found: Forecast) -> Iterator[str]:
    """Yield lines about what the run would do.

    Raises
    ------
    PsyrunError or OSError
        The error that the run would end with.
    """
    old, digests = found.plan, found.digests
    if found.upstream:
        yield f"after {', '.join(each.outline.name for each in found.upstream)}, as it then turns out"
        return
    if isinstance(digests, Exception):
        raise digests
    if found.changes is not None and found.changes.gone:
        yield describe_gone(found.changes)
    if found.kept:
        yield f"{describe_stale(found.kept)}; kept"
    if old is not None and found.current:
        failed = (read_receipt(found.outline.layout.receipt) or {}).get("failed", 0)
        words = f", {failed:,} of them failed" if failed else ""
        again = "; try these again" if failed and found.options.retry else ""
        yield f"up to date ({count(old.total, 'row')}{words}){again}"
    elif old is not None and found.planned:
        yield _describe_rows(found, old)
    else:
        yield from _describe_draft(found, digests)


def _describe_draft(found: Forecast, digests: Digests) -> Iterator[str]:
    """Yield lines about a plan that would be made anew."""
    old = found.plan
    with open_task(found.outline) as task:
        draft = draft_plan(task, digests, old, found.options, found.changes)
    plan, unwritten = draft.plan, {rows.batch.number for rows in draft.results}
    adopted = sum(batch.wanted for batch in plan.batches if batch.number in unwritten)
    yield from _describe_changes(found, plan, adopts=bool(unwritten))
    orphaned = (
        0 if old is None or found.options.force else count_orphaned(found.outline, old, draft, found.changes)
    )
    if orphaned:
        yield _describe_orphans(found, orphaned)
    yield _describe_rows(found, plan, adopted)


def _describe_changes(found: Forecast, plan: Plan, *, adopts: bool) -> Iterator[str]:
    """Yield lines about why there is a new plan."""
    old = found.plan
    if old is None:
        yield "take over rows that psyrun did not write" if adopts else "was never run"
    elif old.code != plan.code:
        yield f"{', '.join(changed_definitions(found.outline, old))} changed"
    elif old.space != plan.space:
        yield "the parameter space changed"
    elif found.changes is not None and found.changes.space:
        names = [name_input(key) for key in found.changes.states if key in old.inputs]
        yield f"the parameter space is evaluated again: {', '.join(names) or 'a data file'} changed"
    if found.stale:
        yield describe_stale(found.stale)


def _describe_rows(found: Forecast, plan: Plan, adopted: int = 0) -> str:
    """Return what a run does with the rows of a plan; adopted ones are not in its files yet."""
    progress = read_progress(plan, found.outline.layout)
    missing, done = progress.missing - adopted, progress.done + adopted
    retried = found.options.retries(allowed=bool(plan.allowance))
    if (progress.complete and not (progress.failed and retried)) or (
        adopted and not missing and not progress.failed
    ):
        failed = f" and {count(progress.failed, 'failed row')}" if progress.failed else ""
        return f"write {found.outline.result} from {count(done, 'finished row')}{failed}"
    words = [f"evaluate {count(missing, 'row')}"] if missing else []
    if progress.failed:
        failed = count(progress.failed, "failed row")
        words.append(f"try {failed} again" if retried else f"leave {failed}")
    if done:
        words.append(f"keep {count(done, 'finished row')}")
    return ", ".join(words)


def _describe_orphans(found: Forecast, rows: int) -> str:
    match = "matches" if rows == 1 else "match"
    name = found.outline.name
    return (
        f"{count(rows, 'finished row')} {match} nothing in the new space; they stay on disk,"
        f" psy run --continue {name} keeps them"
    )


def describe_orphans(found: Forecast) -> tuple[str, float] | None:
    """Return a line about finished rows that the space does not name any more, and their seconds.

    Raises
    ------
    PsyrunError or OSError
        The error that the run would end with.
    """
    old, digests, changes, options = found.plan, found.digests, found.changes, found.options
    if old is None or isinstance(digests, Exception) or found.upstream:
        return None
    changed = digests.space != old.space or (changes is not None and changes.space)
    progress = read_progress(old, found.outline.layout) if changed else None
    if progress is None or progress.done == 0 or options.adopt or options.force:
        return None
    with open_task(found.outline) as task:
        draft = draft_plan(task, digests, old, options, changes)
    rows = count_orphaned(found.outline, old, draft, found.changes)
    line = f"{found.outline.name}: {_describe_orphans(found, rows)}"
    return (line, progress.seconds * rows / progress.done) if rows else None


def describe_stale_rows(found: Forecast) -> tuple[str, float] | None:
    """Return a line about finished rows that the run evaluates again although no option says so.

    Returns
    -------
    tuple or None
        The line, and the seconds that the rows took in `execute`, estimated from the average row.

    Raises
    ------
    PsyrunError or OSError
        The error that the run would end with.
    """
    task, old, digests = found.outline.name, found.plan, found.digests
    if isinstance(digests, Exception) and not found.upstream:
        raise digests
    if old is None or isinstance(digests, Exception) or found.options.adopt or found.options.force:
        return None
    awaited = ", ".join(each.outline.result for each in found.upstream if not _is_settled(each))
    stale = {} if found.edited else found.stale
    done, cost = _read_cost(found.outline.layout, old) if found.edited or awaited or stale else (0, 0.0)
    if done == 0:
        return None
    rows, cause, condition = done, "", f" if {awaited} changes"
    if stale:
        rows = min(sum(stale.values()), _count_reevaluated(found, old, digests))
        cause, condition = f"{describe_stale(stale)}. ", ""
        own = _count_own_readers(found, old)
        if own < rows:
            condition = (
                f", since {count(rows - own, 'row')} came later in a process that had read it (at most"
                f" {own:,} with stateless = True in the task file, if execute keeps nothing of what it reads)"
            )
    elif found.edited:
        rows = _count_reevaluated(found, old, digests)
        cause, condition = f"{', '.join(changed_definitions(found.outline, old))} changed. ", ""
    seconds = cost * rows / done
    line = (
        f"{task}: {cause}{count(rows, 'row')} ({duration(seconds)} of computing)"
        f" will be evaluated again{condition}; to keep them: psy run --continue {task}"
    )
    return (line, seconds) if rows else None


def _count_reevaluated(found: Forecast, old: Plan, digests: Digests) -> int:
    with open_task(found.outline) as task:
        draft = draft_plan(task, digests, old, found.options, found.changes)
    return count_reevaluated(found.outline, old, draft, stale=bool(found.stale))


def _read_cost(layout: Layout, plan: Plan) -> tuple[int, float]:
    """Return how many rows of a plan have values, and the seconds that they took, also without journals."""
    progress = read_progress(plan, layout)
    receipt = None if progress.done else read_receipt(layout.receipt)
    if receipt is None or not is_current(layout, plan):
        return progress.done, progress.seconds
    runs = read_receipts(layout.row_receipts, receipt["process"]).runs
    return plan.total, sum(n * each.seconds for n, each in runs if each.origin)


def _count_own_readers(found: Forecast, old: Plan) -> int:
    """Return at most how many rows read an input themselves that changed."""
    changes = found.changes
    alone = None if changes is None else replace(changes, stateless=True)
    return 0 if alone is None else sum(count_stale_rows(found.outline, old, alone).values())


def _is_settled(found: Forecast) -> bool:
    """Whether the result stays, or comes from jobs that the user agreed to when they were submitted."""
    return (
        (found.planned and not found.options.adopt)
        and all(map(_is_settled, found.upstream))
        and (found.current or has_detached_jobs(found.outline))
    )


def has_detached_jobs(outline: Outline) -> bool:
    """Whether jobs of a batch system are, or may be, in flight."""
    return any(find_scheduler(outline, each).detached for each in open_submissions(outline))
