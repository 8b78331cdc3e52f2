"""Changes: what an edit changed, and which finished rows would be evaluated again because of it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from psyrun.split.matching import keys_of
from psyrun.workdir import (
    find_damaged_inputs,
    is_current,
    list_journals,
    read_inputs,
    read_progress,
    read_records,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from psyrun.split.draft import Draft
    from psyrun.split.staleness import Changes
    from psyrun.task import Outline
    from psyrun.workdir import Batch, Layout, Plan


def changed_definitions(outline: Outline, old: Plan) -> list[str]:
    """Name the definitions that changed since a plan was made, or else the data files, one of which has."""
    before, after = old.definitions, outline.source.definitions
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return changed or list(outline.file_dep) or ["the code"]


def count_reevaluated(outline: Outline, old: Plan, draft: Draft, *, stale: bool = False) -> int:
    """Count the finished rows that a new plan evaluates again because the code changed, or inputs did.

    Parameters
    ----------
    outline
        The task.
    old, draft
        Its plan, and the new one.
    stale
        Whether rows of the plan are stale by inputs.
    """
    layout, plan = outline.layout, draft.plan
    if plan.code == old.code and not stale:
        return 0
    done = read_progress(old, layout).done
    complete = not done and is_current(layout, old)  # Its journals were removed.
    if find_damaged_inputs(old, layout):  # It is not known then which they are.
        return old.total if complete else done
    there = [batch for batch in plan.batches if batch.tie]
    lacking = Counter(_keys(layout, plan, there, done=False))
    for rows in draft.new.values():
        lacking.update(keys_of(draft.space.part(rows), len(rows)))
    finished = Counter(_keys(layout, old, old.batches, done=True, complete=complete))
    return (lacking & finished).total()


def count_orphaned(outline: Outline, old: Plan, draft: Draft, changes: Changes | None) -> int:
    """Count the finished rows that a new plan leaves out because the space does not name them any more.

    Rows that are stale by `changes` do not count: they are evaluated again.
    """
    layout, plan, space = outline.layout, draft.plan, draft.space
    if find_damaged_inputs(old, layout):
        return 0
    if plan.code != old.code:  # The others are evaluated again.
        finished = Counter(_keys(layout, old, old.batches, done=True))
        return (finished - Counter(keys_of(space.columns, space.rows))).total()
    journals, before, after = list_journals(layout.out), old.wanted_rows(), plan.wanted_rows()
    kept = {batch.key: after.get(batch.number) for batch in plan.batches}
    orphaned = 0
    for batch in old.batches:
        wanted = before.get(batch.number, frozenset(range(batch.size)))
        left = kept.get(batch.key, frozenset())
        if left is not None and not wanted <= left:
            ours = journals.get(batch.key, ())
            stale = changes.stale_rows(ours, batch.size).keys() if changes is not None else ()
            orphaned += len(((wanted - left) & read_records(ours, rows=batch.size).done).difference(stale))
    return orphaned


def _keys(
    layout: Layout, plan: Plan, batches: Iterable[Batch], *, done: bool, complete: bool = False
) -> Iterator[Any]:
    """Yield the keys of the wanted rows that have values (all of a complete result), or that have none."""
    journals, wanted = list_journals(layout.out), plan.wanted_rows()
    for batch in batches:
        ended = read_records(journals.get(batch.key, ()), rows=batch.size).done
        keys = keys_of(read_inputs(layout.input(batch.number), batch.tie).columns(), batch.size)
        rows = wanted.get(batch.number, range(batch.size))
        yield from (keys[row] for row in rows if complete or (row in ended) is done)
