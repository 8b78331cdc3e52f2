"""Failures by cause: traceback, what the first row printed, and what sets the rows apart."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psyrun.cli.contrast import find_contrast
from psyrun.cli.output import find_output
from psyrun.cli.rows import read_columns
from psyrun.cli.status import list_details
from psyrun.cli.text import count, show_assignment
from psyrun.workdir import list_journals, read_progress, read_records, require_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from psyrun.cli.contrast import Contrast
    from psyrun.cli.output import Output
    from psyrun.cli.status import Detail
    from psyrun.jobs import QueueCache
    from psyrun.task import Outline
    from psyrun.workdir import Batch, Layout, Plan


_OUTPUT_LINES = 10


def describe_failures(outline: Outline, queues: QueueCache) -> Iterator[str]:
    """Yield why rows of a task have no values, a text for each cause, the most frequent first.

    Raises
    ------
    FormatError
        If a file of the task is damaged.
    """
    groups = group_failures(list_details(outline, queues))
    if not groups:
        return
    layout, plan = outline.layout, require_plan(outline.layout)
    failing = [group for group in groups if group.failed]
    found = find_output(layout, plan, [group.places[0] for group in failing])
    outputs = {id(group): output for group, output in zip(failing, found)}
    for group in groups:
        output = outputs.get(id(group))
        contrast = _contrast(layout, plan, group.places) if failing and group is failing[0] else None
        yield _show_group(group, output, contrast, others=len(failing) > 1)


# Values in a reason that do not make it another reason: numbers, and text in quotes.
_VALUE = re.compile(r"""\d+(?:\.\d+)?(?:e[-+]?\d+)?|'[^']*'|"[^"]*\"""")


@dataclass(slots=True)
class Group:
    """Rows without values for one reason.

    Parameters
    ----------
    reason, traceback
        Reason and traceback of the first.
    failed
        Whether they were evaluated, and failed.
    places
        Batch of each of them, and the place in it.
    examples
        Some of their assignments.
    """

    reason: str
    traceback: str
    failed: bool
    places: list[tuple[Batch, int]] = field(default_factory=list)
    examples: list[Mapping[str, Any]] = field(default_factory=list)


def group_failures(details: Iterable[Detail], examples: int = 3) -> list[Group]:
    """Group failures by traceback, the most frequent first; those without one by reason."""
    groups: dict[tuple[bool, str], Group] = {}
    for detail in details:
        failed, reason, traceback = detail.failure is not None, detail.reason, ""
        if detail.failure is not None:
            reason, traceback = detail.failure.reason, detail.failure.traceback
        if reason is None:
            continue
        key = failed, _frames(traceback) or _VALUE.sub("#", reason)
        group = groups.setdefault(key, Group(detail.words or reason, traceback, failed))
        group.places.append(detail.place)
        if detail.assignment is not None and len(group.examples) < examples:
            group.examples.append(detail.assignment)
    return sorted(groups.values(), key=lambda group: -len(group.places))


def _frames(traceback: str) -> str:
    """Return what tracebacks of one cause share: the frames, and the type of the exception."""
    *frames, last = traceback.strip().splitlines() or [""]
    return "\n".join([*frames, last.partition(":")[0]])


# ---------------------------------------------------------------------- words


def _show_group(group: Group, output: Output | None, contrast: Contrast | None, *, others: bool) -> str:
    """Return failures of one cause: how many, the traceback, output, what sets them apart, examples."""
    state = "failed" if group.failed else "not evaluated"
    lines = [f"{count(len(group.places), 'row')} {state}: {group.reason}"]
    lines += [f"    {line}" for line in group.traceback.rstrip().splitlines()]
    printed = output.last_lines(_OUTPUT_LINES) if output is not None else []
    if output is not None and printed:
        lines += [f"  the last that the first of them printed ({output.log}):"]
        lines += [f"    {line}" for line in printed]
    elif output is not None and not group.traceback:
        lines.append(f"  output of the first of them: {output.note or 'nothing'}")
    lines += [f"  for example  {show_assignment(example)}" for example in group.examples]
    if contrast is not None:
        lines.append(f"  {contrast.describe(' for this reason' if others else '')}")
    return "\n".join(lines)


def _contrast(layout: Layout, plan: Plan, places: Iterable[tuple[Batch, int]]) -> Contrast | None:
    """Return what sets some failed rows apart from all other rows that ended."""
    ours = {(batch.number, row) for batch, row in places}
    columns: dict[str, list[Any]] = {name: [] for name in plan.names}
    failed: list[bool] = []
    for batch, rows in _list_ended(layout, plan):
        found = read_columns(layout, plan, batch)
        if found is None or found.keys() != columns.keys():
            continue
        for name, values in found.items():
            columns[name] += values if len(rows) == len(values) else map(values.__getitem__, rows)
        failed += [(batch.number, row) in ours for row in rows]
    return find_contrast(columns, failed)


def _list_ended(layout: Layout, plan: Plan) -> Iterator[tuple[Batch, Sequence[int]]]:
    """Yield the batches of a plan with their wanted rows that are done or failed, in ascending order."""
    journals, wanted = list_journals(layout.out), plan.wanted_rows()
    for each in read_progress(plan, layout).batches:
        batch = each.batch
        rows: Iterable[int] = wanted.get(batch.number, range(batch.size))
        if each.missing:
            records = read_records(journals.get(batch.key, ()), rows=batch.size)
            rows = (records.done | records.failures.keys()).intersection(rows)
        yield batch, sorted(rows)
