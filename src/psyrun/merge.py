"""The merge step: journals become a result file, in the order of the space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.disk import make_folders, replacing
from psyrun.errors import FormatError, StoreError
from psyrun.planrows import ColumnNames, RowReader, height, read_batch, read_rows
from psyrun.pspace import stack
from psyrun.source import imported_modules, replaced_modules
from psyrun.split import refuse_folder, refuse_unmanaged
from psyrun.store import AutodetectStore, ChunkStore, count_rows, list_tables
from psyrun.task import open_task, prefix_store_errors
from psyrun.workdir import (
    Layout,
    file_digest,
    is_current,
    list_journals,
    read_journal_ends,
    read_plan,
    read_receipt,
    write_receipt,
    write_receipts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psyrun.options import RunOptions
    from psyrun.task import Outline
    from psyrun.workdir import Plan


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge step did.

    Parameters
    ----------
    written
        Whether the result had to be written.
    filled
        Names that some rows had no value of.
    """

    written: bool
    filled: tuple[str, ...] = ()


def merge(outline: Outline, options: RunOptions) -> Merged:
    """Write the result file of a task whose rows are all there, unless it is current.

    Raises
    ------
    DirtyError
        If there is a result file that psyrun did not write.
    FormatError
        If a journal is not what process.json says.
    StoreError
        If the store can't hold a value.
    """
    layout = outline.layout
    refuse_folder(outline)
    plan = read_plan(layout)
    receipt = read_receipt(layout.process)
    if plan is None or receipt is None or receipt.get("table") != plan.table_digest:
        raise FormatError(f"{layout.relative(layout.process)}: not made for this plan; psy run makes it anew")
    if is_current(layout, plan):
        return Merged(written=False)
    refuse_unmanaged(outline, plan, options)
    return _write_result(outline, plan)


def _write_result(outline: Outline, plan: Plan) -> Merged:
    layout = outline.layout
    make_folders(layout.result.parent)
    with open_task(outline) as task, replacing(layout.result, task.store.ext) as temporary:
        modules = imported_modules(outline.source)
        read = replaced_modules(modules)(read_batch)
        names = ColumnNames(plan.names, set(outline.exclude))
        reader = RowReader(layout, plan, read_journal_ends(layout.process), names, read)
        with replaced_modules(dict.fromkeys(modules)), prefix_store_errors(outline):
            if isinstance(task.store, ChunkStore):
                task.store.save_chunks(temporary, reader.chunks)
            else:
                task.store.save(temporary, reader.table())
        status = temporary.stat()
        process = file_digest(layout.process) or ""
        content = {
            "mtime": status.st_mtime_ns,
            "next_batch": plan.next_batch,
            "process": process,
            "replaced": sorted(names.replaced()),
            "sha256": file_digest(temporary),
            **({"failed": reader.failed} if plan.allowance else {}),
            "size": status.st_size,
            "table": plan.table_digest,
        }
        write_receipts(layout.row_receipts, reader.receipts.in_order(plan.segments()), process)
        # Without any receipt, psyrun would not take the result for its own.
        write_receipt(layout, {})
    write_receipt(layout, content)
    return Merged(written=True, filled=tuple(sorted(names.lacking())))


def merge_partial(root: Path, folder: Path, filename: Path) -> int:
    """Merge the finished rows below a task's folder ``out``, or the tables of any other folder, into a file.

    Parameters
    ----------
    root
        The project root.
    folder
        The work folder of a task or its folder ``out``, where the plan says which rows, in which order.
        Without journals, the tables in a folder are read in the order of their names.
    filename
        The file to write; its extension says how it is stored.

    Returns
    -------
    int
        The number of rows.

    Raises
    ------
    FormatError
        If there are neither journals nor tables, or no plan, or a file is damaged.
    StoreError
        If the store can't hold a value, or a table can't be read.
    """
    store = AutodetectStore.get_concrete_store(filename)
    folder, filename = Path(folder).absolute(), Path(filename).absolute()
    if (folder / "in").is_dir() and (folder / "out").is_dir():  # A work folder.
        folder = folder / "out"
    home = folder.parent
    layout = Layout(root=root, folder=home, result=home / "result")
    tables = [path for path in list_tables(folder) if path != filename]
    if list_journals(folder):
        plan = read_plan(layout)
        if plan is None:
            raise FormatError(
                f"{layout.plan}: missing, so which rows count is not known; psy run makes it anew"
            )
        parts = (_choose(table, status, "done") for table, status in read_rows(layout, plan))
        table = stack(parts, plan.names)
    elif tables:
        table = stack(map(_load_table, tables), ())
    else:
        raise FormatError(
            f"{folder}: there are no finished rows (no journals <batch>-<run>.rows, no tables); name a task,"
            " its folder `out`, such as psy-work/example/out, or a folder of .pkl, .npz or .h5 files"
        )
    # Outside: objects of the task's own classes are then pickled by value, for readers that lack them.
    with replacing(filename, filename.suffix) as temporary:
        store.save(temporary, table)
    return height(table)


def _load_table(path: Path) -> dict[str, Any]:
    table = AutodetectStore().load(path)
    try:
        count_rows(table)
    except (StoreError, TypeError) as error:
        raise StoreError(f"{path}: not a table: {error}") from error
    return table


def _choose(table: Mapping[str, Sequence[Any]], status: Sequence[str], wanted: str) -> dict[str, list[Any]]:
    chosen = [place for place, each in enumerate(status) if each == wanted]
    return {name: [values[place] for place in chosen] for name, values in table.items()} if chosen else {}
