"""Loading results by name: finished ones from their file, the rows so far from the journals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.errors import PsyrunError, StoreError
from psyrun.planrows import read_rows
from psyrun.pspace import stack
from psyrun.results.provenance import describe_provenance, find_receipts
from psyrun.results.table import Results
from psyrun.store import AutodetectStore
from psyrun.workdir import (
    FAILURE,
    Layout,
    ReceiptReader,
    is_current,
    read_plan,
    read_progress,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from psyrun.workdir import Plan, Receipts


_WORK = "psy-work"
STATUS = "status"
_RECEIPTS = ("seconds", "peak_memory", "host")


def load(name: str | os.PathLike[str], *, partial: bool = False, receipts: bool = False) -> Results:
    """Load the rows of a task; its file is not needed, and not looked at.

    Parameters
    ----------
    name
        The name of a task, whose work folder is searched for in ``psy-work`` here and in the folders above;
        or the path of its work folder, or of a result file.
    partial
        Load all rows that the space has, evaluated or not, with a column ``status``: ``done``, ``failed`` or
        ``missing``. Values that rows lack are NaN beside numbers, else None.
    receipts
        Add the columns ``seconds`` (time in `execute`), ``peak_memory`` (of the process, in bytes) and
        ``host``; NaN and '' where that is not known.

    Returns
    -------
    Results
        A dict, name -> array of n values in the order of the space. `parameters` has the names of the
        parameters; `provenance` says where the rows come from: task, result and when it was
        written, digests of the code, commits, Python, packages, hosts and machines, and inputs.

    Raises
    ------
    FileNotFoundError
        If there is no such task and no such file.
    PsyrunError
        If the task is not finished, and `partial` is not set.
    StoreError
        If the file is damaged, its format needs a package that is not installed, or the rows have columns of
        the names that are to be added.

    Examples
    --------
    >>> import psyrun
    >>> table = psyrun.load("fig1")  # doctest: +SKIP
    >>> table.parameters, len(table["rate"])  # doctest: +SKIP
    (('n', 'seed'), 200)
    """
    layout = _find(name)
    if layout is None:
        return Results(_load_file(Path(name)))
    return load_task(layout, Path(name).name, partial=partial, receipts=receipts)


def load_task(layout: Layout, name: str, *, partial: bool = False, receipts: bool = False) -> Results:
    """Load the rows of a task by its layout; as `load` does.

    Raises
    ------
    PsyrunError
        If it has no plan, or is not finished and `partial` is not set.
    """
    plan = read_plan(layout)
    if plan is None:
        raise PsyrunError(f"{name}: it was never run; psy run {layout.folder.name}")
    if is_current(layout, plan):
        known = find_receipts(layout, plan)
        columns = _load_file(layout.result, plan.settings.get("store"))
        if partial:
            reasons = columns.get(FAILURE, [""] * plan.total) if plan.allowance else [""] * plan.total
            columns = _add(columns, {STATUS: ["failed" if len(reason) else "done" for reason in reasons]})
    elif partial:
        columns, known = _load_rows(layout, plan)
    else:
        raise PsyrunError(_describe_unfinished(layout, plan, name))
    if receipts:
        columns = _add(columns, _list_receipts(known, plan.total))
    parameters = [each for each in plan.names if each in columns]
    return Results(columns, parameters, describe_provenance(layout, plan, known))


def _find(name: str | os.PathLike[str]) -> Layout | None:
    """Return the layout of a task; None where the name is a file that no task has for a result."""
    path = Path(name)
    if path.is_file():
        return _find_by_result(path.absolute())
    if path.is_dir():
        if _is_work_folder(path):
            return _layout(path.absolute())
    elif len(path.parts) == 1:
        for root in (Path.cwd(), *Path.cwd().parents):
            if _is_work_folder(root / _WORK / path):
                return _layout(root / _WORK / path)
    there = sorted(each.name for each in Path(_WORK).glob("*") if _is_work_folder(each))
    known = f"{_WORK} has {', '.join(there)}" if there else f"there is no {_WORK} with tasks in {Path.cwd()}"
    raise FileNotFoundError(f"{name}: neither a task that was run, nor a file; {known}")


def _is_work_folder(folder: Path) -> bool:
    return any((folder / plan).is_file() for plan in ("plan.json", "plan.json.bak"))


def _layout(folder: Path) -> Layout:
    """Return the layout of a work folder; its plan says where the result is, relative to the project root."""
    plan = read_plan(Layout(root=folder.parent, folder=folder, result=folder / "result"))
    result = str(plan.settings.get("result", "")) if plan is not None else ""
    roots = [root for root in folder.parents if (root / result).is_file()]
    root = roots[0] if roots else folder.parent.parent
    return Layout(root=root, folder=folder, result=root / result)


def _find_by_result(path: Path) -> Layout | None:
    for root in path.parents:
        for folder in [path.parent, *sorted((root / _WORK).glob("*"))]:
            if _is_work_folder(folder) and (layout := _layout(folder)).result == path:
                return layout
    return None


def _load_file(path: Path, ext: str | None = None) -> dict[str, Any]:
    return dict(AutodetectStore.get_concrete_store(f"result{ext}" if ext else path).load(path))


def _load_rows(layout: Layout, plan: Plan) -> tuple[dict[str, Any], Receipts]:
    """Load the rows from the journals, and their receipts."""
    reader = ReceiptReader()
    parts = (_add(table, {STATUS: status}) for table, status in read_rows(layout, plan, reader))
    table = stack(parts, [*plan.names, STATUS])
    return table, reader.in_order(plan.segments())


def _add(columns: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    taken = columns.keys() & more.keys()
    if taken:
        raise StoreError(f"the rows have columns of their own of these names: {', '.join(sorted(taken))}")
    return {**columns, **more}


def _list_receipts(receipts: Receipts, rows: int) -> dict[str, list[Any]]:
    found: list[tuple[Any, ...]] = [
        (receipt.seconds, receipt.memory or math.nan, place.get("host", ""))
        for receipt, place in receipts.rows()
    ]
    found += [(math.nan, math.nan, "")] * (rows - len(found))
    return {name: list(values) for name, values in zip(_RECEIPTS, zip(*found) if found else [[]] * 3)}


def _describe_unfinished(layout: Layout, plan: Plan, name: str) -> str:
    progress, task = read_progress(plan, layout), layout.folder.name
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    words = f"{name}: {progress.done:,} of {plan.total:,} rows are done{failed}; load them with partial=True"
    before = f" ({layout.relative(layout.result)} is the result of before)" if layout.result.exists() else ""
    return f"{words}, evaluate the others with psy run {task}{before}"
