"""The split step: a task file becomes a plan, its batches' input files, and the captured sources."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from psyrun.disk import write_all, write_atomic
from psyrun.errors import DirtyError, FormatError, IdentityError, NewerFormatError, StoreError, TaskFileError
from psyrun.journal import encode_block, encode_inputs, read_input_header, read_inputs
from psyrun.lock import hold
from psyrun.plan import Existing, Plan, Space, make_plan, read_plan, write_plan
from psyrun.records import list_journals, read_records
from psyrun.source import digest_data, digest_with_data, read_zip, write_zip
from psyrun.survey import file_digest, is_current, survey_plan
from psyrun.task import open_task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from psyrun.orders import Orders, Watcher
    from psyrun.plan import Layout
    from psyrun.source import SourceCache
    from psyrun.task import Outline, Task

__all__ = [
    "Digests",
    "Draft",
    "attend",
    "draft_plan",
    "encode_assignments",
    "furnish",
    "has_inputs",
    "refuse_folder",
    "split",
    "take_digests",
]


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


def take_digests(outline: Outline, cache: SourceCache) -> Digests:
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


def has_inputs(plan: Plan, layout: Layout) -> bool:
    """Whether all input files that a plan names are there, by one listing."""
    there = {path.name for path in layout.inputs.glob("*.pkl")} if plan.batches else set()
    return all(f"{batch.number}.pkl" in there for batch in plan.batches)


def split(outline: Outline, orders: Orders, cache: SourceCache, watcher: Watcher) -> None:
    """Bring the plan of a task up to date; does nothing where it is.

    Raises
    ------
    TaskFileError
        If the task file can't be run or says something wrong.
    DirtyError
        If there is a result file that psyrun did not write.
    """
    layout = outline.layout
    digests = take_digests(outline, cache)
    if _is_settled(outline, orders, digests):
        return
    layout.folder.mkdir(parents=True, exist_ok=True)
    try:
        # Two that plan at once would give the same numbers to different batches.
        with hold(layout.lock, lambda owner: attend(outline, watcher, owner)):
            _plan_anew(outline, orders, digests)
    except BaseException:
        with suppress(OSError):  # It holds something.
            layout.folder.rmdir()
        raise


def _is_settled(outline: Outline, orders: Orders, digests: Digests) -> bool:
    """Whether the plan stands as it is; bring the settings that it records up to date."""
    layout = outline.layout
    refuse_folder(outline)
    old = read_plan(layout.plan)
    foreign = _is_foreign(layout)
    if foreign and not (orders.again or orders.keep_rows):
        raise DirtyError(
            f"{outline.result}: psyrun did not write this file;"
            f" keep its rows: psy run --continue {outline.name}, overwrite it: psy run --force {outline.name}"
        )
    if old is None or not digests.match(old) or not (has_inputs(old, layout) or is_current(layout, old)):
        return False
    if orders.again or foreign or (orders.keep_rows and not _is_finished(layout, old)):
        return False
    current = replace(old, settings=outline.settings, definitions=dict(outline.source.definitions))
    if current != old:
        write_plan(layout.plan, current)
    return True


def refuse_folder(outline: Outline) -> None:
    """Raise DirtyError where there is a folder in the place of the result file."""
    if outline.layout.result.is_dir():
        raise DirtyError(
            f"{outline.path}: its result would be {outline.result}, which is a folder;"
            " move the folder away, or set another `resultfile`"
        )


def _is_finished(layout: Layout, plan: Plan) -> bool:
    return is_current(layout, plan) or survey_plan(plan, layout).complete


def _plan_anew(outline: Outline, orders: Orders, digests: Digests) -> None:
    layout = outline.layout
    if _is_settled(outline, orders, digests):  # Somebody else planned meanwhile.
        return
    old = read_plan(layout.plan)
    if old is not None and digests.code != old.code and not (orders.again or orders.keep_rows):
        _refuse_dirty(outline, old)
    with open_task(outline) as task:
        if old is not None and is_current(layout, old) and has_inputs(old, layout):
            _restore_journals(task, old)
        _write(draft_plan(task, digests, old, orders), layout, outline)


def _refuse_dirty(outline: Outline, old: Plan) -> None:
    done = 0 if outline.overwrite_dirty else survey_plan(old, outline.layout).done
    if done:
        raise DirtyError(
            f"{outline.path}: it was edited, {done:,} finished rows would become stale, and it says"
            f" overwrite_dirty = False; keep them: psy run --continue {outline.name},"
            f" give them up: psy run --force {outline.name}"
        )


def _restore_journals(task: Task, old: Plan) -> None:
    """Write rows that only the result holds, for journals were removed, to journals again."""
    layout = task.outline.layout
    if survey_plan(old, layout).complete:
        return
    journals = list_journals(layout.out)
    layout.out.mkdir(exist_ok=True)
    table = {name: list(column) for name, column in task.store.load(layout.result).items()}
    done = {b.number: read_records(journals.get(b.number, ()), rows=b.size).done for b in old.batches}
    place = 0
    for number, rows in old.segments():
        lost = [row for row in rows if row not in done[number]]
        if lost:
            places = [place + row - rows.start for row in lost]
            values = {name: [column[i] for i in places] for name, column in table.items()}
            _write_journal(layout, number, encode_block(lost, values))
        place += len(rows)


def attend(outline: Outline, watcher: Watcher, owner: str) -> None:
    """Show how far a task is at which somebody else is at work."""
    plan = read_plan(outline.layout.plan)
    if plan is not None:
        watcher.note(outline.name, f"{owner} is at work on it; waiting")
        watcher.progress(outline.name, survey_plan(plan, outline.layout))


# ---------------------------------------------------------------------- drafting


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
    found: _Found | None


@dataclass(frozen=True, slots=True)
class _Found:
    batch: Existing
    values: Mapping[str, Sequence[Any]]
    origin: str | None  # digest of the file


def draft_plan(task: Task, digests: Digests, old: Plan | None, orders: Orders) -> Draft:
    """Evaluate the space and find what exists of it already; write nothing.

    Raises
    ------
    TaskFileError
        If the space can't be evaluated, or a parameter can't be pickled.
    """
    layout = task.outline.layout
    space = _old_space(layout, old, digests) or _evaluate_space(task)
    number = _next_number(layout, old)
    adopted = _adopted(old, digests, orders)
    codes = None if orders.keep_rows else {digests.code, *adopted}
    since = number if orders.again else old.since if old is not None else 0
    existing = _read_existing(layout, codes, since)
    keep = [] if old is None or not orders.keep_rows else old.segments()
    found = None
    if orders.keep_rows and _is_foreign(layout):
        batch = _find_adopted(layout, existing)
        if batch is None:
            found = _read_foreign(task, number, digests.code, list(space.columns))
            number += 1
            batch = found.batch
            existing.append(batch)
        keep.append((batch.number, range(batch.size)))
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


def _adopted(old: Plan | None, digests: Digests, orders: Orders) -> tuple[str, ...]:
    """Return the digests of older code whose rows count as current since an earlier `--continue`."""
    goes_on = old is not None and old.code == digests.code and not orders.again
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
    return max([old.next_batch if old is not None else 0, *(number + 1 for number in used)])


# ---------------------------------------------------------------------- results that psyrun did not write


def _is_foreign(layout: Layout) -> bool:
    return layout.result.exists() and not layout.receipt.exists()


def _find_adopted(layout: Layout, existing: Sequence[Existing]) -> Existing | None:
    """Return the batch that a run which got no further made of the result file."""
    origin = file_digest(layout.result)
    for batch in existing:
        header = read_input_header(layout.input(batch.number))
        if header.get("origin") == origin and len(batch.done) == batch.size:
            return batch
    return None


def _read_foreign(task: Task, number: int, code: str, names: Sequence[str]) -> _Found:
    result = task.outline.result
    try:
        table = task.store.load(task.outline.layout.result)
    except (StoreError, OSError) as error:
        raise DirtyError(
            f"{result}: its rows can't be kept: {error}; move it away, or use --force"
        ) from error
    lacking = [name for name in names if name not in table]
    if lacking:
        raise DirtyError(
            f"{result}: its rows can't be kept, for it lacks the parameters {lacking};"
            " move it away, or use --force"
        )
    size = max((len(values) for values in table.values()), default=0)
    columns = {name: list(table[name]) for name in names}
    values = {name: list(column) for name, column in table.items() if name not in columns}
    batch = Existing(number=number, size=size, code=code, columns=columns, done=frozenset(range(size)))
    return _Found(batch, values, file_digest(task.outline.layout.result))


# ---------------------------------------------------------------------- writing


def _write(draft: Draft, layout: Layout, outline: Outline) -> None:
    """Write everything that a plan refers to, and the plan last."""
    columns = draft.space.columns
    plan = draft.plan
    inputs = {}
    for number, rows in draft.new.items():
        part = {name: _pick(values, rows) for name, values in columns.items()}
        inputs[number] = _encode(outline, plan, number, part)
    furnish(outline, plan)
    if draft.found is not None:
        found = draft.found.batch
        data = _encode(outline, plan, found.number, found.columns, draft.found.origin)
        write_atomic(layout.input(found.number), data)
        _write_journal(layout, found.number, encode_block(range(found.size), draft.found.values))
    if inputs:
        write_all(layout.inputs, {layout.input(number).name: data for number, data in inputs.items()})
    write_plan(layout.plan, plan)


def furnish(outline: Outline, plan: Plan) -> None:
    """Make the folders of a task, and keep the sources that it was planned from, where they are missing."""
    layout, code = outline.layout, outline.layout.code(plan.code)
    for folder in (layout.inputs, layout.out, layout.log, layout.jobs, code.parent):
        folder.mkdir(parents=True, exist_ok=True)
    if not _is_readable(code):
        write_zip(outline.source, code)


def _is_readable(code: Path) -> bool:
    """Whether captured sources can be loaded; those that can't are written anew, unless they are newer."""
    try:
        read_zip(code)
    except NewerFormatError:
        raise
    except (FormatError, FileNotFoundError):
        return False
    return True


def _pick(values: Sequence[Any], rows: Sequence[int]) -> Sequence[Any]:
    first, last = rows[0], rows[-1]
    if last - first + 1 == len(rows):
        return values[first : last + 1]
    return [values[row] for row in rows]


def _encode(
    outline: Outline,
    plan: Plan,
    number: int,
    columns: Mapping[str, Sequence[Any]],
    origin: str | None = None,
) -> bytes:
    size = max((len(values) for values in columns.values()), default=0)
    header = {"batch": number, "size": size, "code": plan.code, "space": plan.space, "names": list(columns)}
    if origin is not None:
        header["origin"] = origin
    return encode_assignments(outline, header, columns)


def encode_assignments(
    outline: Outline, header: Mapping[str, Any], columns: Mapping[str, Sequence[Any]]
) -> bytes:
    """Encode the assignments of a batch for its input file.

    Raises
    ------
    TaskFileError
        If a parameter can't be pickled, naming it.
    """
    try:
        return encode_inputs(header, columns)
    except Exception as error:
        for name, values in columns.items():
            _check_picklable(outline, name, values)
        raise TaskFileError(f"{outline.path}: the assignments can't be pickled: {error}") from error


def _check_picklable(outline: Outline, name: str, values: Sequence[Any]) -> None:
    try:
        encode_inputs({}, {name: values})
    except Exception as error:
        raise TaskFileError(
            f"{outline.path}: parameter {name!r} can't be pickled ({error});"
            " let the space hold something that stands for it, and make the object in execute"
        ) from error


def _write_journal(layout: Layout, number: int, block: bytes) -> None:
    write_atomic(layout.out / f"{number}-{secrets.token_hex(4)}.rows", block)
