"""Changes: what an edit changed, and which finished rows would be evaluated again because of it."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from psyrun.pspace import row_keys
from psyrun.split.matching import Space
from psyrun.workdir import (
    Plan,
    has_inputs,
    list_journals,
    read_input_header,
    read_inputs,
    read_progress,
    read_records,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from psyrun.split.draft import Draft
    from psyrun.split.matching import Space
    from psyrun.task import Outline
    from psyrun.workdir import Layout, Plan


def changed_definitions(outline: Outline, old: Plan) -> list[str]:
    """Name the definitions that changed since a plan was made, or else the data files, one of which has."""
    before, after = old.definitions, outline.source.definitions
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return changed or list(outline.file_dep) or ["the code"]


def count_repeats(
    layout: Layout, old: Plan, plan: Plan, space: Space, new: Mapping[int, Sequence[int]]
) -> int:
    """Count the rows that have values by an old plan, and would be evaluated by a new one.

    Parameters
    ----------
    layout
        Where the files are.
    old, plan
        The plans.
    space
        The space of the new plan.
    new
        New batch -> the rows of the space that it holds.
    """
    there = (batch.number for batch in plan.batches if batch.number not in new)
    lacking = Counter(_keys(layout, plan, there, done=False))
    for rows in new.values():
        part = {name: [values[i] for i in rows] for name, values in space.columns.items()}
        lacking.update(_row_keys(part, len(rows)))
    finished = Counter(_keys(layout, old, (batch.number for batch in old.batches), done=True))
    return (lacking & finished).total()


def count_kept(layout: Layout, plan: Plan) -> tuple[int, int]:
    """Count the rows that `--continue` kept: of older code, and such that the space does not name.

    Raises
    ------
    FormatError
        If an input file is damaged.
    """
    older = 0
    for batch in plan.batches if plan.adopted else ():
        with suppress(FileNotFoundError):  # Its rows are in the result.
            if read_input_header(layout.input(batch.number))["code"] != plan.code:
                older += batch.wanted
    return older, plan.total - plan.rows


def _keys(layout: Layout, plan: Plan, numbers: Iterator[int], *, done: bool) -> Iterator[Any]:
    """Yield the keys of the wanted rows that have values, or that have none."""
    journals, wanted = list_journals(layout.out), plan.wanted_rows()
    for number in numbers:
        header, columns = read_inputs(layout.input(number))
        ended = read_records(journals.get(number, ()), rows=header["size"]).done
        keys = _row_keys(columns, header["size"])
        for row in wanted.get(number, range(header["size"])):
            if (row in ended) is done:
                yield keys[row]


def _row_keys(columns: Mapping[str, Sequence[Any]], rows: int) -> Sequence[Any]:
    return row_keys(columns) if columns else [()] * rows


def count_reevaluated(outline: Outline, old: Plan, draft: Draft) -> int:
    """Count the finished rows that a new plan evaluates again because the code changed."""
    if draft.plan.code == old.code:
        return 0
    if not has_inputs(old, outline.layout):  # Then nobody can tell which they are.
        return read_progress(old, outline.layout).done
    return count_repeats(outline.layout, old, draft.plan, draft.space, draft.new)
