"""Drafts: the plan for the sources as they are now, not written yet."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from psyrun.errors import FormatError, IdentityError, TaskFileError
from psyrun.pspace import takes_rng
from psyrun.source import SCHEME, digest_data
from psyrun.split.adoption import adopt, digest_anew
from psyrun.split.matching import Space, make_plan
from psyrun.split.staleness import NO_CHANGES
from psyrun.workdir import Plan, read_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from psyrun.options import RunOptions
    from psyrun.source import SourceCache
    from psyrun.split.adoption import AdoptedRows
    from psyrun.split.staleness import Changes
    from psyrun.task import Outline, Task
    from psyrun.workdir import Layout


@dataclass(frozen=True, slots=True)
class Digests:
    """The digests of a task, as its sources and data files are now.

    Parameters
    ----------
    code, space
        The digests of `execute` and of the space.
    data
        Declared data file -> digest of its content.
    """

    code: str
    space: str
    data: Mapping[str, str]

    def match(self, plan: Plan) -> bool:
        """Whether a plan was made for them."""
        same = (SCHEME, self.code, self.space) == (plan.scheme, plan.code, plan.space)
        return same and self.data == plan.data


def compute_digests(outline: Outline, cache: SourceCache) -> Digests:
    """Compute the digests of a task and of its data files.

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
    return Digests(source.code, source.space, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A plan that is not written yet.

    Parameters
    ----------
    plan
        The plan.
    space
        The evaluated space.
    new
        New batch -> the rows of the space that it holds.
    results
        Rows of a result, to be written as batches.
    damaged
        Numbers of input files to move aside.
    evaluated
        Whether the space was evaluated, rather than read from the input files.
    """

    plan: Plan
    space: Space
    new: Mapping[int, Sequence[int]]
    results: Sequence[AdoptedRows]
    damaged: Sequence[int]
    evaluated: bool


def draft_plan(
    task: Task,
    digests: Digests,
    old: Plan | None,
    options: RunOptions,
    changes: Changes | None = None,
    observer: AbstractContextManager[Any] | None = None,
) -> Draft:
    """Evaluate the space and find what exists of it already; write nothing.

    The space is evaluated where its digest or an input of it changed, in the context of `observer`.

    Raises
    ------
    TaskFileError
        If the space can't be evaluated, or a parameter can't be pickled.
    DirtyError
        If the rows of a result that psyrun did not write can't be adopted.
    """
    outline = task.outline
    changes = changes or NO_CHANGES
    before = None if changes.space else _old_space(outline.layout, old, digests)
    with observer or nullcontext():
        space = before or _evaluate_space(task)
    space = replace(space, numbered=takes_rng(task.execute, space.columns))
    try:
        adoption = adopt(task, digests.code, old, options, space.columns, changes)
    except IdentityError as error:
        raise TaskFileError(f"{outline.path}: {error}") from error
    blank = Plan(
        scheme=SCHEME,
        code=digests.code,
        space=digests.space,
        data=digests.data,
        definitions=dict(outline.source.definitions),
        settings=outline.settings,
        names=tuple(space.columns),
        batches=(),
        order="",
        rows=space.rows,
        next_batch=adoption.next_batch,
        since=adoption.since,
        accepted=changes.accept() if options.adopt else changes.accepted,
    )

    def share(rows: int) -> Sequence[int]:
        return task.backend.partition(rows, task.max_jobs, task.min_items)

    try:
        plan, new = make_plan(space, adoption, blank, partition=share)
    except IdentityError as error:
        raise TaskFileError(f"{outline.path}: {error}") from error
    return Draft(
        plan=plan,
        space=space,
        new=new,
        results=adoption.results,
        damaged=adoption.damaged,
        evaluated=before is None,
    )


def _evaluate_space(task: Task) -> Space:
    pspace = task.pspace
    try:
        return Space(columns=pspace.build(), rows=pspace.size)
    except Exception as error:
        raise TaskFileError(f"{task.outline.path}: pspace can't be evaluated: {error}") from error


def _old_space(layout: Layout, old: Plan | None, digests: Digests) -> Space | None:
    """Return the space as it was drawn before, where only the code changed."""
    if old is None:
        return None
    space = old.space if old.scheme == SCHEME else digest_anew(layout, old.scheme, old.code)[1]
    if space != digests.space:
        return None
    try:
        inputs = {b.number: read_inputs(layout.input(b.number), b.tie).columns() for b in old.batches}
    except (FormatError, FileNotFoundError):
        return None
    columns: dict[str, list[Any]] = {name: [] for name in old.names}
    left = old.rows
    for number, rows in old.segments():
        part = rows[:left]
        left -= len(part)
        for name, values in columns.items():
            values += inputs[number][name][part.start : part.stop] if part else []
    return Space(columns=columns, rows=old.rows)
