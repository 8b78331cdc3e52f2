"""The split step: writes the plan of a task, the input files of its batches, and the captured sources."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from psyrun.disk import make_folders, read_file
from psyrun.errors import DirtyError, FormatError, NewerFormatError, TaskFileError
from psyrun.source import SourceCache, read_zip, write_zip
from psyrun.split.adoption import adopts_more
from psyrun.split.changes import changed_definitions, count_reevaluated
from psyrun.split.draft import compute_digests, draft_plan
from psyrun.split.staleness import (
    count_stale_rows,
    find_changes,
    is_stale,
)
from psyrun.split.states import inputs_of_space, observe_planning
from psyrun.split.unmanaged import is_unmanaged_result, load_result, refuse_folder, refuse_unmanaged
from psyrun.split.words import describe_stale
from psyrun.task import open_task
from psyrun.workdir import (
    Failure,
    Plan,
    create_inputs,
    create_root,
    find_damaged_inputs,
    holds_rows,
    is_plan_damaged,
    list_journals,
    pack_inputs,
    pack_replicates,
    read_plan,
    read_progress,
    read_receipt,
    read_receipts,
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
    from psyrun.split.draft import Digests, Draft
    from psyrun.split.staleness import Changes
    from psyrun.task import Outline, Task
    from psyrun.workdir import Layout


_ATTEMPTS = 3


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
    changes = find_changes(outline, read_plan(layout), cache)
    if _is_settled(outline, options, digests, changes, watcher):
        return
    create_root(layout.folder.parent)
    make_folders(layout.folder)
    try:
        with hold_task(outline, watcher):
            _plan_anew(outline, options, digests, cache, watcher)
    except BaseException:
        with suppress(OSError):  # It holds something.
            layout.folder.rmdir()
        raise


def is_planned(layout: Layout, plan: Plan | None, digests: Digests) -> bool:
    """Whether a plan was made for these digests, and what it names is there."""
    if plan is None or is_unmanaged_result(layout, plan) or not digests.match(plan):
        return False
    return holds_rows(layout, plan) or not find_damaged_inputs(plan, layout)


def _is_settled(
    outline: Outline, options: RunOptions, digests: Digests, changes: Changes, watcher: Watcher
) -> bool:
    """Whether the plan stands as it is; bring the settings that it records up to date."""
    layout = outline.layout
    refuse_folder(outline)
    old = read_plan(layout)
    refuse_unmanaged(outline, old, options)
    damaged = is_plan_damaged(layout)
    if damaged:
        watcher.note(outline.name, f"{layout.relative(layout.plan)} was damaged, and is mended from its copy")
    if old is None or options.force or not is_planned(layout, old, digests):
        return False
    if changes.space or adopts_more(layout, old, options):
        return False
    if not options.adopt and is_stale(outline, old, changes):
        return False
    current = replace(
        old,
        settings=outline.settings,
        definitions=dict(outline.source.definitions),
        accepted=changes.accept() if options.adopt else changes.accepted,
    )
    if current != old or damaged or not layout.plan.exists():
        write_plan(layout, current)
    return True


def _plan_anew(
    outline: Outline, options: RunOptions, digests: Digests, cache: SourceCache, watcher: Watcher
) -> None:
    """Write a plan, anew where another psy, which may hold no lock, wrote one meanwhile."""
    layout = outline.layout
    for _ in range(_ATTEMPTS):
        before = _content(layout.plan)
        old = read_plan(layout)
        changes = find_changes(outline, old, cache)
        if _is_settled(outline, options, digests, changes, watcher):
            return
        observer = observe_planning(outline)
        with ExitStack() as stack:
            with observer:
                task = stack.enter_context(open_task(outline))
            observer.end_loading()
            if old is not None and holds_rows(layout, old):
                restore_journals(task, old)
            draft = draft_plan(task, digests, old, options, changes, observer)
            inputs = inputs_of_space(outline, observer, cache)
            if old is not None and not (options.force or options.adopt):
                _report_stale(outline, old, draft, changes, watcher)
            plan = _write(draft, outline, watcher)
            plan = replace(plan, inputs=inputs if draft.evaluated or old is None else old.inputs)
        if _content(layout.plan) == before:
            write_plan(layout, plan)
            return
    raise DirtyError(
        f"{outline.name}: another psy plans it, too, again and again; end one of them, then run psy run again"
        f" ({layout.relative(layout.lock)} names its process)"
    )


def _content(path: Path) -> bytes | None:
    return read_file(path) if path.exists() else None


def _report_stale(outline: Outline, old: Plan, draft: Draft, changes: Changes, watcher: Watcher) -> None:
    """Name what makes finished rows stale: to the watcher, or in the error where they are to be kept."""
    cause = describe_stale(count_stale_rows(outline, old, changes)) if draft.plan.code == old.code else ""
    if outline.overwrite_dirty and cause:
        watcher.stale(outline.name, cause)
    again = 0 if outline.overwrite_dirty else count_reevaluated(outline, old, draft, stale=bool(cause))
    if again:
        cause = cause or f"{', '.join(changed_definitions(outline, old))} changed"
        raise DirtyError(
            f"{outline.path} says overwrite_dirty = False; {cause}, and"
            f" {again:,} finished rows would be evaluated again; keep them: psy run --continue"
            f" {outline.name}, give them up: psy run --force {outline.name}"
        )


def restore_journals(task: Task, old: Plan) -> None:
    """Write rows whose journals were removed from the result to journals again, with their receipts."""
    layout = task.outline.layout
    if read_progress(old, layout).complete:
        return
    journals = list_journals(layout.out)
    make_folders(layout.out)
    table, reasons = load_result(task)
    receipts = read_receipts(layout.row_receipts, (read_receipt(layout.receipt) or {}).get("process", ""))
    keys = {batch.number: batch.key for batch in old.batches}
    records = {b.number: read_records(journals.get(b.key, ()), rows=b.size) for b in old.batches}
    place = 0
    for number, rows in old.segments():
        ended = records[number].done | records[number].failures.keys()
        lost = {row: place + row - rows.start for row in rows if row not in ended}
        failures = [Failure(row, reasons[at]) for row, at in lost.items() if reasons[at]]
        done = {row: at for row, at in lost.items() if not reasons[at]}
        if lost:
            values = {name: [column[at] for at in done.values()] for name, column in table.items()}
            part = receipts.part([*done.values(), *(lost[failure.row] for failure in failures)])
            most = max(source.inputs for _, source in part.sources())
            write_journal(layout.out, keys[number], list(done), values, failures, part.sections(), most)
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


def _write(draft: Draft, outline: Outline, watcher: Watcher) -> Plan:
    """Write everything that a plan refers to; return the plan, with the numbers and ties of new batches."""
    layout, plan = outline.layout, draft.plan
    replicates = draft.space.replicates() if draft.space.numbered and draft.new else []
    equals = {
        n: pack_replicates([replicates[row] for row in rows]) for n, rows in draft.new.items() if replicates
    }
    files = {each.batch.number: (each.batch.origin, each.batch.columns) for each in draft.results}
    files |= {number: (None, draft.space.part(rows)) for number, rows in draft.new.items()}
    packed = [
        (
            _describe(outline, plan, columns, origin=origin, equals=equals.get(number)),
            pack_assignments(outline, columns),
        )
        for number, (origin, columns) in files.items()
    ]
    ensure_work_folder(outline, plan)
    _move_aside(draft, outline, watcher)
    keys = create_inputs(layout.inputs, plan.next_batch - len(packed), packed)
    for key, result in zip(keys, draft.results):
        write_journal(layout.out, key, range(result.batch.size), result.values)
    return plan.with_keys(dict(zip(files, keys)))


def _describe(
    outline: Outline, plan: Plan, columns: Mapping[str, Sequence[Any]], **more: str | None
) -> dict[str, Any]:
    size = max((len(values) for values in columns.values()), default=0)
    about = {
        "task": outline.name,
        "scheme": plan.scheme,
        "code": plan.code,
        "space": plan.space,
        "size": size,
    }
    return about | {name: value for name, value in more.items() if value is not None}


def _move_aside(draft: Draft, outline: Outline, watcher: Watcher) -> None:
    """Rename input files that are not what was planned, and say so in a line."""
    layout = outline.layout
    for path in map(layout.input, draft.damaged):
        path.rename(path.with_name(f"{path.name}.damaged"))
    if draft.damaged:
        names = ", ".join(f"{number}.pkl" for number in draft.damaged[:3])
        more = f" and {len(draft.damaged) - 3:,} more" if len(draft.damaged) > 3 else ""
        kept = sum(each.batch.size for each in draft.results)
        fate = f"{kept:,} of them come from the result" if kept else "they are evaluated again"
        watcher.note(
            outline.name,
            f"{layout.relative(layout.inputs)}/{names}{more}: damaged, or not what was planned; kept as"
            f" *.damaged, and the rows get new numbers: {fate}",
        )


def ensure_work_folder(outline: Outline, plan: Plan) -> None:
    """Create the folders of a task and the captured sources of its plan, where they are missing.

    Raises
    ------
    FormatError
        If the captured sources have to be written, and the sources are others by now.
    """
    layout, code = outline.layout, outline.layout.code(plan.code)
    create_root(layout.folder.parent)
    make_folders(layout.inputs, layout.out, layout.log, layout.jobs, code.parent)
    if not _is_readable(code):
        if compute_digests(outline, SourceCache()).code != plan.code:
            raise FormatError(
                f"{layout.relative(code)}: missing or damaged, and the code changed; psy run again"
            )
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


def pack_assignments(outline: Outline, columns: Mapping[str, Sequence[Any]]) -> bytes:
    """Pack the assignments of a batch for its input file.

    Raises
    ------
    TaskFileError
        If a parameter can't be pickled, naming it.
    """
    try:
        return pack_inputs(columns)
    except Exception as error:
        for name, values in columns.items():
            try:
                pack_inputs({name: values})
            except Exception as why:
                raise TaskFileError(
                    f"{outline.path}: parameter {name!r} can't be pickled ({why});"
                    " let the space hold something that stands for it, and make the object in execute"
                ) from why
        raise TaskFileError(f"{outline.path}: the assignments can't be pickled: {error}") from error
