"""Drafts: the plan that the sources as they are now ask for, from the space and what exists of it on disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from psyrun.errors import FormatError, IdentityError, NewerFormatError, TaskFileError
from psyrun.source import digest_data, digest_with_data
from psyrun.split.adoption import find_adopted, is_unmanaged_result, read_unmanaged_result
from psyrun.split.matching import Existing, Space, make_plan
from psyrun.workdir import (
    Plan,
    has_inputs,
    list_journals,
    read_input_header,
    read_inputs,
    read_receipt,
    read_records,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from psyrun.options import RunOptions
    from psyrun.source import SourceCache
    from psyrun.split.adoption import AdoptedRows
    from psyrun.task import Outline, Task
    from psyrun.workdir import Layout


@dataclass(frozen=True, slots=True)
class Digests:
    """What the sources and data files of a task are now.

    Parameters
    ----------
    code, space
        The digests of `execute` and of the space, data files included.
    """

    code: str
    space: str

    def match(self, plan: Plan) -> bool:
        """Whether a plan was made for them."""
        return self.code == plan.code and self.space == plan.space


def compute_digests(outline: Outline, cache: SourceCache) -> Digests:
    """Take both digests of a task, now.

    Raises
    ------
    TaskFileError
        If a declared data file is missing.
    """
    source = outline.source
    try:
        data = digest_data(outline.root, outline.file_dep, cache)
    except TaskFileError as error:
        raise TaskFileError(f"{outline.path}: {error}") from error
    return Digests(digest_with_data(source.code, data), digest_with_data(source.space, data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A plan that was not written yet.

    Parameters
    ----------
    plan
        The plan.
    space
        The evaluated space.
    new
        New batch -> the rows of the space that it holds.
    found
        Rows of a result that psyrun did not write: a batch with its values, or None.
    """

    plan: Plan
    space: Space
    new: Mapping[int, Sequence[int]]
    found: AdoptedRows | None


def draft_plan(task: Task, digests: Digests, old: Plan | None, options: RunOptions) -> Draft:
    """Evaluate the space and find what exists of it already; write nothing.

    Raises
    ------
    TaskFileError
        If the space can't be evaluated, or a parameter can't be pickled.
    """
    layout = task.outline.layout
    space = _old_space(layout, old, digests) or _evaluate_space(task)
    number = _next_number(layout, old)
    adopted = _adopted(old, digests, options)
    codes = None if options.adopt else {digests.code, *adopted}
    since = number if options.force else old.since if old is not None else 0
    existing = _read_existing(layout, codes, since)
    keep: list[list[tuple[int, range]]] = [old.segments()] if old is not None and options.adopt else []
    found = None
    if options.adopt and is_unmanaged_result(layout, old):
        batch = find_adopted(layout, existing)
        if batch is None:
            found = read_unmanaged_result(task, number, digests.code, list(space.columns))
            number += 1
            batch = found.batch
            existing.append(batch)
        keep.append([(batch.number, range(batch.size))])
    blank = Plan(
        code=digests.code,
        space=digests.space,
        definitions=dict(task.outline.source.definitions),
        settings=task.outline.settings,
        names=tuple(space.columns),
        batches=(),
        order="",
        rows=space.rows,
        next_batch=number,
        adopted=adopted,
        since=since,
    )
    share = partial(_partition, task)
    try:
        plan, new = make_plan(space, existing, blank, partition=share, keep=keep)
    except IdentityError as error:
        raise TaskFileError(f"{task.outline.path}: {error}") from error
    return Draft(plan=plan, space=space, new=new, found=found)


def _partition(task: Task, rows: int) -> Sequence[int]:
    return task.backend.partition(rows, task.max_jobs, task.min_items)


def _evaluate_space(task: Task) -> Space:
    pspace = task.pspace
    try:
        return Space(columns=pspace.build(), rows=len(pspace))
    except Exception as error:
        raise TaskFileError(f"{task.outline.path}: pspace can't be evaluated: {error}") from error


def _old_space(layout: Layout, old: Plan | None, digests: Digests) -> Space | None:
    """Return the space as it was drawn before, where only the code changed."""
    if old is None or old.space != digests.space or not has_inputs(old, layout):
        return None
    inputs = {batch.number: read_inputs(layout.input(batch.number))[1] for batch in old.batches}
    columns: dict[str, list[Any]] = {name: [] for name in old.names}
    left = old.rows
    for number, rows in old.segments():
        part = rows[:left]
        left -= len(part)
        for name, values in columns.items():
            values += inputs[number][name][part.start : part.stop] if part else []
    return Space(columns=columns, rows=old.rows)


def _adopted(old: Plan | None, digests: Digests, options: RunOptions) -> tuple[str, ...]:
    """Return the digests of older code whose rows count as current since an earlier `--continue`."""
    goes_on = old is not None and old.code == digests.code and not options.force
    return old.adopted if old is not None and goes_on else ()


def _read_existing(layout: Layout, codes: set[str] | None, since: int) -> list[Existing]:
    journals = list_journals(layout.out)
    existing = []
    for path in layout.inputs.glob("*.pkl"):
        header = _own_header(path)
        if header is None or not (codes is None or header["code"] in codes):
            continue
        number = int(path.stem)
        if number < since:
            continue
        _, columns = read_inputs(path)
        done = read_records(journals.get(number, ()), rows=header["size"]).done
        existing.append(
            Existing(number=number, size=header["size"], code=header["code"], columns=columns, done=done)
        )
    return existing


def _own_header(path: Path) -> dict[str, Any] | None:
    """Return the header of an input file; None where the file is damaged, or psyrun did not write it."""
    try:
        header = read_input_header(path)
    except NewerFormatError:
        raise
    except FormatError:
        return None
    return header if path.stem.isdecimal() else None


def _next_number(layout: Layout, old: Plan | None) -> int:
    used = [int(path.stem) for path in layout.inputs.glob("*.pkl") if path.stem.isdecimal()]
    used += list_journals(layout.out)
    told = (read_receipt(layout.receipt) or {}).get("next_batch")  # Known where the folder was removed.
    least = [old.next_batch if old is not None else 0, told if isinstance(told, int) else 0]
    return max([*least, *(number + 1 for number in used)])
