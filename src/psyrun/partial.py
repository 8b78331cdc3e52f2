"""Partial results: the finished rows below a folder of journals, merged whether or not all are there."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.disk import replacing
from psyrun.errors import FormatError
from psyrun.inputs import read_inputs
from psyrun.layout import Layout
from psyrun.loading import loaded
from psyrun.merge import read_batch
from psyrun.plan import read_plan
from psyrun.records import list_journals
from psyrun.rows import row_keys, stack
from psyrun.source import read_zip
from psyrun.store import AutodetectStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from psyrun.plan import Plan

__all__ = ["merge_partial"]


def merge_partial(root: Path, folder: Path, filename: Path) -> int:
    """Merge the finished rows below a task's folder ``out`` into a file.

    Parameters
    ----------
    root
        The project root.
    folder
        The folder ``out`` of a task. The plan beside it says which rows, in which order; without a plan,
        these are all rows, and of equal ones those of the code that was planned last.
    filename
        The file to write; its extension says how it is stored.

    Returns
    -------
    int
        The number of rows.

    Raises
    ------
    FormatError
        If there are no journals, or a file is damaged.
    StoreError
        If the store can't hold a value.
    """
    store = AutodetectStore.get_concrete_store(filename)
    folder = Path(folder).absolute()
    home = folder.parent
    layout = Layout(root=root, folder=home, result=home / "result")
    if not list_journals(folder):
        raise FormatError(
            f"{folder}: there are no finished rows (no journals <batch>-<run>.rows);"
            " name the folder `out` of a task, such as psy-work/example/out"
        )
    plan = read_plan(layout)
    filename = Path(filename).absolute()
    with _importable(layout, plan):
        table = stack(_read_chunks(layout, folder, plan), () if plan is None else plan.names)
    # Outside: objects of the task's own classes are then pickled by value, for readers that lack them.
    with replacing(filename, filename.suffix) as temporary:
        store.save(temporary, table)
    return max((len(values) for values in table.values()), default=0)


def _importable(layout: Layout, plan: Plan | None) -> AbstractContextManager[Any]:
    """Keep the task's own modules importable: values may be objects of their classes."""
    if plan is None or not layout.code(plan.code).exists():
        return nullcontext()
    return loaded(read_zip(layout.code(plan.code)), layout.root, part="code")


def _read_chunks(layout: Layout, folder: Path, plan: Plan | None) -> Iterator[Mapping[str, Sequence[Any]]]:
    journals = list_journals(folder)
    read = cache(lambda number: read_batch(layout, number, journals.get(number, ())))
    for number, rows in _find_newest(layout, sorted(journals)) if plan is None else plan.segments():
        table, done = read(number)
        chosen = [row for row in rows if done[row]]
        if chosen:
            yield {name: [values[row] for row in chosen] for name, values in table.items()}


def _find_newest(layout: Layout, numbers: Sequence[int]) -> list[tuple[int, Sequence[int]]]:
    """Choose the rows to take where no plan says: of equal ones, those of the code that was planned last.

    Equal rows of one code are replicates, which all count.
    """
    inputs = {number: read_inputs(layout.input(number)) for number in numbers}
    keys = {number: row_keys(columns) for number, (_, columns) in inputs.items()}
    newest = {key: inputs[number][0]["code"] for number in numbers for key in keys[number]}
    return [
        (number, [row for row, key in enumerate(keys[number]) if newest[key] == inputs[number][0]["code"]])
        for number in numbers
    ]
