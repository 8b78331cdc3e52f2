"""The split step: a task file becomes a plan, its batches' input files, and the captured sources."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from psyrun.disk import write_all, write_atomic
from psyrun.errors import DirtyError, FormatError, NewerFormatError, TaskFileError
from psyrun.source import read_zip, write_zip
from psyrun.split.adoption import is_unmanaged_result, refuse_folder, refuse_unmanaged_result
from psyrun.split.changes import changed_definitions, count_reevaluated
from psyrun.split.draft import compute_digests, draft_plan
from psyrun.task import open_task
from psyrun.workdir import (
    Plan,
    encode_block,
    encode_inputs,
    has_inputs,
    is_current,
    list_journals,
    read_plan,
    read_progress,
    read_records,
    task_lock,
    write_journal,
    write_plan,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from psyrun.options import RunOptions, Watcher
    from psyrun.source import SourceCache
    from psyrun.split.draft import Digests, Draft
    from psyrun.task import Outline, Task
    from psyrun.workdir import Layout


def split(outline: Outline, options: RunOptions, cache: SourceCache, watcher: Watcher) -> None:
    """Bring the plan of a task up to date; does nothing where it is.

    Raises
    ------
    TaskFileError
        If the task file can't be run or says something wrong.
    DirtyError
        If there is a result file that psyrun did not write.
    """
    layout = outline.layout
    digests = compute_digests(outline, cache)
    if _is_settled(outline, options, digests):
        return
    layout.folder.mkdir(parents=True, exist_ok=True)
    try:
        # Two that plan at once would give the same numbers to different batches.
        with task_lock(layout.lock, lambda owner: report_lock_owner(outline, watcher, owner)):
            _plan_anew(outline, options, digests)
    except BaseException:
        with suppress(OSError):  # It holds something.
            layout.folder.rmdir()
        raise


def _is_settled(outline: Outline, options: RunOptions, digests: Digests) -> bool:
    """Whether the plan stands as it is; bring the settings that it records up to date."""
    layout = outline.layout
    refuse_folder(outline)
    old = read_plan(layout)
    refuse_unmanaged_result(outline, old, options)
    if old is None or not digests.match(old) or not (has_inputs(old, layout) or is_current(layout, old)):
        return False
    if options.force or is_unmanaged_result(layout, old) or (options.adopt and not _is_finished(layout, old)):
        return False
    current = replace(old, settings=outline.settings, definitions=dict(outline.source.definitions))
    if current != old or not layout.plan.exists():
        write_plan(layout, current)
    return True


def _is_finished(layout: Layout, plan: Plan) -> bool:
    return is_current(layout, plan) or read_progress(plan, layout).complete


def _plan_anew(outline: Outline, options: RunOptions, digests: Digests) -> None:
    layout = outline.layout
    if _is_settled(outline, options, digests):  # Somebody else planned meanwhile.
        return
    old = read_plan(layout)
    with open_task(outline) as task:
        if old is not None and is_current(layout, old) and has_inputs(old, layout):
            restore_journals(task, old)
        draft = draft_plan(task, digests, old, options)
        if old is not None and not (outline.overwrite_dirty or options.force or options.adopt):
            _refuse_dirty(outline, old, draft)
        _write(draft, layout, outline)


def _refuse_dirty(outline: Outline, old: Plan, draft: Draft) -> None:
    again = count_reevaluated(outline, old, draft)
    if again:
        changed = ", ".join(changed_definitions(outline, old))
        raise DirtyError(
            f"{outline.path} says overwrite_dirty = False; {changed} changed, and"
            f" {again:,} finished rows would be evaluated again; keep them: psy run --continue"
            f" {outline.name}, give them up: psy run --force {outline.name}"
        )


def restore_journals(task: Task, old: Plan) -> None:
    """Write rows that only the result holds, for journals were removed, to journals again."""
    layout = task.outline.layout
    if read_progress(old, layout).complete:
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
            write_journal(layout.out, number, encode_block(lost, values))
        place += len(rows)


def report_lock_owner(outline: Outline, watcher: Watcher, owner: str) -> None:
    """Show how far a task is at which somebody else is at work."""
    plan = read_plan(outline.layout)
    if plan is not None:
        watcher.note(outline.name, f"{owner} is at work on it; waiting")
        watcher.progress(outline.name, read_progress(plan, outline.layout))


# ---------------------------------------------------------------------- writing


def _write(draft: Draft, layout: Layout, outline: Outline) -> None:
    """Write everything that a plan refers to, and the plan last."""
    columns = draft.space.columns
    plan = draft.plan
    inputs = {}
    for number, rows in draft.new.items():
        part = {name: _pick(values, rows) for name, values in columns.items()}
        inputs[number] = _encode(outline, plan, number, part)
    ensure_work_folder(outline, plan)
    if draft.found is not None:
        found = draft.found.batch
        data = _encode(outline, plan, found.number, found.columns, draft.found.origin)
        write_atomic(layout.input(found.number), data)
        write_journal(layout.out, found.number, encode_block(range(found.size), draft.found.values))
    if inputs:
        write_all(layout.inputs, {layout.input(number).name: data for number, data in inputs.items()})
    write_plan(layout, plan)


def ensure_work_folder(outline: Outline, plan: Plan) -> None:
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
