"""The split step: writes the plan of a task, the input files of its batches, and the captured sources."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from psyrun.disk import write_all, write_atomic
from psyrun.errors import DirtyError, FormatError, NewerFormatError, TaskFileError
from psyrun.source import read_zip, write_zip
from psyrun.split.adoption import adopts_more, is_unmanaged_result, refuse_folder, refuse_unmanaged_result
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
    from contextlib import AbstractContextManager
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
        with hold_task(outline, watcher):
            _plan_anew(outline, options, digests)
    except BaseException:
        with suppress(OSError):  # It holds something.
            layout.folder.rmdir()
        raise


def is_planned(layout: Layout, plan: Plan | None, digests: Digests) -> bool:
    """Whether a plan was made for these digests, and what it names is there."""
    if plan is None or is_unmanaged_result(layout, plan) or not digests.match(plan):
        return False
    return has_inputs(plan, layout) or is_current(layout, plan)


def _is_settled(outline: Outline, options: RunOptions, digests: Digests) -> bool:
    """Whether the plan stands as it is; bring the settings that it records up to date."""
    layout = outline.layout
    refuse_folder(outline)
    old = read_plan(layout)
    refuse_unmanaged_result(outline, old, options)
    if old is None or options.force or not is_planned(layout, old, digests):
        return False
    if adopts_more(layout, old, options):
        return False
    current = replace(old, settings=outline.settings, definitions=dict(outline.source.definitions))
    if current != old or not layout.plan.exists():
        write_plan(layout, current)
    return True


def _plan_anew(outline: Outline, options: RunOptions, digests: Digests) -> None:
    layout = outline.layout
    if _is_settled(outline, options, digests):  # Another psy planned meanwhile.
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
    """Write rows whose journals were removed from the result to journals again."""
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


def hold_task(outline: Outline, watcher: Watcher) -> AbstractContextManager[None]:
    """Return the lock of a task; as long as another psy holds it, its owner and progress are shown."""

    def report(owner: str) -> None:
        plan = read_plan(outline.layout)
        if plan is not None:
            watcher.note(outline.name, f"{owner} is at work on it; waiting")
            watcher.progress(outline.name, read_progress(plan, outline.layout))

    return task_lock(outline.layout.lock, report)


# ---------------------------------------------------------------------- writing


def _write(draft: Draft, layout: Layout, outline: Outline) -> None:
    """Write everything that a plan refers to, and the plan last."""
    inputs = {
        layout.input(number).name: _encode(outline, draft.plan, number, draft.space.part(rows))
        for number, rows in draft.new.items()
    }
    ensure_work_folder(outline, draft.plan)
    if draft.result is not None:
        batch = draft.result.batch
        data = _encode(outline, draft.plan, batch.number, batch.columns, origin=batch.origin)
        write_atomic(layout.input(batch.number), data)
        write_journal(layout.out, batch.number, encode_block(range(batch.size), draft.result.values))
    if inputs:
        write_all(layout.inputs, inputs)
    write_plan(layout, draft.plan)


def ensure_work_folder(outline: Outline, plan: Plan) -> None:
    """Create the folders of a task and the captured sources of its plan, where they are missing."""
    layout, code = outline.layout, outline.layout.code(plan.code)
    for folder in (layout.inputs, layout.out, layout.log, layout.jobs, code.parent):
        folder.mkdir(parents=True, exist_ok=True)
    if not _is_readable(code):
        write_zip(outline.source, code)


def _is_readable(code: Path) -> bool:
    """Whether captured sources can be loaded.

    Raises
    ------
    NewerFormatError
        If a newer psyrun wrote them: they must not be overwritten.
    """
    try:
        read_zip(code)
    except NewerFormatError:
        raise
    except (FormatError, FileNotFoundError):
        return False
    return True


def _encode(
    outline: Outline, plan: Plan, number: int, columns: Mapping[str, Sequence[Any]], **more: str | None
) -> bytes:
    size = max((len(values) for values in columns.values()), default=0)
    header = {"batch": number, "size": size, "code": plan.code, "space": plan.space, "names": list(columns)}
    return encode_assignments(outline, header | more, columns)


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
            try:
                encode_inputs({}, {name: values})
            except Exception as why:
                raise TaskFileError(
                    f"{outline.path}: parameter {name!r} can't be pickled ({why});"
                    " let the space hold something that stands for it, and make the object in execute"
                ) from why
        raise TaskFileError(f"{outline.path}: the assignments can't be pickled: {error}") from error
