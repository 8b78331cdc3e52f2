"""Rows that psyrun did not write: a result file of another origin, or what 0.8 left of an unfinished task."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from psyrun.errors import DirtyError, FormatError, StoreError
from psyrun.pspace import row_keys, stack, stored_key
from psyrun.store import AutodetectStore, list_tables
from psyrun.workdir import (
    FAILURE,
    file_digest,
    find_damaged_inputs,
    holds_rows,
    list_journals,
    read_inputs,
    read_progress,
    read_receipt,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from psyrun.options import RunOptions
    from psyrun.task import Outline, Task
    from psyrun.workdir import Layout, Plan


# Names that 0.8 gave to the parts of a result, below `out`: finished, being written, and taken over before.
_PART = re.compile(r"(\d+(\.part)?|pre)\Z")


def find_unmanaged(outline: Outline, plan: Plan | None) -> Sequence[Path]:
    """Find the files with rows that psyrun did not write and does not know: a result, or its parts."""
    layout = outline.layout
    if is_unmanaged_result(layout, plan):
        return [layout.result]
    if plan is not None or layout.result.exists() or list_journals(layout.out):
        return []
    parts = [path for path in list_tables(layout.out) if _PART.match(path.stem)]
    whole = layout.result.with_suffix(f".part{outline.ext}")  # Of LoadBalancingBackend.
    return [*parts, *([whole] if whole.exists() else [])]


def is_unmanaged_result(layout: Layout, plan: Plan | None) -> bool:
    """Whether there is a result file that psyrun did not write, or that the work folder does not know."""
    if not layout.result.exists():
        return False
    if not layout.receipt.exists():
        return not _holds_result(layout, plan)
    if plan is None:
        return not any(layout.inputs.glob("*.pkl"))
    if (
        layout.process.exists()
        or not find_damaged_inputs(plan, layout)
        or read_progress(plan, layout).complete
    ):
        return False
    return holds_rows(layout, plan)  # An older one is written anew.


def _holds_result(layout: Layout, plan: Plan | None) -> bool:
    """Whether a batch of the plan was made from the result file: it was adopted, and not yet written anew."""
    digest = file_digest(layout.result)
    for batch in plan.batches if plan is not None and digest is not None else ():
        with suppress(FileNotFoundError, FormatError):
            if read_inputs(layout.input(batch.number), batch.tie).origin == digest:
                return True
    return False


def describe_unmanaged(outline: Outline, plan: Plan | None) -> str:
    """Return words for rows that psyrun did not write, and what to do with them; '' where there are none."""
    layout, paths = outline.layout, find_unmanaged(outline, plan)
    keep, force = f"psy run --continue {outline.name}", f"psy run --force {outline.name}"
    if not paths:
        return ""
    if paths[0] != layout.result:
        return (
            f"{layout.relative(paths[0].parent)}: psyrun 0.8 left {_count_rows(paths)} there, of a task that"
            f" it did not finish; keep them: {keep}, evaluate all anew: {force}"
        )
    why = "psyrun did not write this file"
    if layout.receipt.exists():
        why = f"{layout.relative(layout.folder)} does not know any more what it was made from"
    return f"{outline.result}: {why}; keep its rows: {keep}, overwrite it: {force}"


def _count_rows(paths: Sequence[Path]) -> str:
    rows = 0
    for path in paths:
        try:
            rows += max(map(len, AutodetectStore().load(path).values()), default=0)
        except (StoreError, OSError, ImportError):
            return f"{len(paths):,} files with rows"
    return f"{rows:,} rows" if rows != 1 else "1 row"


def refuse_unmanaged(outline: Outline, plan: Plan | None, options: RunOptions) -> None:
    """Raise DirtyError where there are rows that psyrun did not write, and no option says what to do."""
    words = "" if options.force or options.adopt else describe_unmanaged(outline, plan)
    if words:
        raise DirtyError(words)


def refuse_folder(outline: Outline) -> None:
    """Raise DirtyError where there is a folder in the place of the result file."""
    if outline.layout.result.is_dir():
        raise DirtyError(
            f"{outline.path}: its result would be {outline.result}, which is a folder;"
            " move the folder away, or set another `resultfile`"
        )


def read_unmanaged(
    task: Task, paths: Sequence[Path], space: Mapping[str, Sequence[Any]]
) -> dict[str, list[Any]]:
    """Read rows that psyrun did not write; parameters get the kinds of the space where that names them.

    Raises
    ------
    DirtyError
        If they can't be read, or lack parameters.
    """
    tables = [_read_file(task, path, list(space)) for path in paths]
    table = tables[0] if len(tables) == 1 else stack(tables, list(space))
    _restore_kinds(table, space)
    return table


def _read_file(task: Task, path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    layout = task.outline.layout
    shown = layout.relative(path)
    try:
        if path == layout.result:
            table, reasons = load_result(task)
        else:
            store = task.store if path.suffix == task.store.ext else AutodetectStore()
            table = {name: list(column) for name, column in store.load(path).items()}
            reasons = [""] * max(map(len, table.values()), default=0)
    except (StoreError, OSError) as error:
        raise DirtyError(f"{shown}: its rows can't be kept: {error}; move it away, or use --force") from error
    lacking = [name for name in names if name not in table]
    sizes = {len(values) for values in table.values()} or {0}
    if lacking or len(sizes) > 1:
        why = f"it lacks the parameters {lacking}" if lacking else "its columns differ in length"
        raise DirtyError(f"{shown}: its rows can't be kept, for {why}; move it away, or use --force")
    done = [row for row, reason in enumerate(reasons) if not reason]
    if len(done) < len(reasons):
        table = {name: [column[row] for row in done] for name, column in table.items()}
    return table


def _restore_kinds(table: dict[str, list[Any]], space: Mapping[str, Sequence[Any]]) -> None:
    """Give rows of a file the values of the one row of the space that they equal: stores change kinds."""
    if not space:
        return
    wanted = row_keys(space)
    places: dict[Any, int] = {}
    for place, key in enumerate(_stored_keys(space)):
        first = places.setdefault(key, place)
        if first >= 0 and wanted[first] != wanted[place]:
            places[key] = -1  # Which of them a stored row is can't be told.
    exact = set(wanted)
    parameters = {name: table[name] for name in space}
    for row, (own, key) in enumerate(zip(row_keys(parameters), list(_stored_keys(parameters)))):
        place = places.get(key, -1)
        if place >= 0 and own not in exact:
            for name, column in parameters.items():
                column[row] = space[name][place]


def _stored_keys(columns: Mapping[str, Sequence[Any]]) -> zip[tuple[Any, ...]]:
    return zip(*(map(stored_key, columns[name]) for name in sorted(columns)))


def load_result(task: Task) -> tuple[dict[str, list[Any]], list[str]]:
    """Load a result: its columns, and for each row why it failed, '' for one that has values."""
    layout = task.outline.layout
    table = {name: list(column) for name, column in task.store.load(layout.result).items()}
    rows = max(map(len, table.values()), default=0)
    ours = task.outline.allow_failed is not False or "failed" in (read_receipt(layout.receipt) or {})
    reasons = list(map(str, table.pop(FAILURE))) if ours and FAILURE in table else [""] * rows
    return table, reasons
