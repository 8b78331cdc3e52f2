"""Cleaning: which files psyrun made for a task, and removing them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from psyrun.errors import DirtyError
from psyrun.journal import is_input
from psyrun.plan import read_plan
from psyrun.submissions import list_submissions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from psyrun.plan import Layout, Plan
    from psyrun.task import Outline

__all__ = ["find_files", "remove_files"]

_FOLDERS = ("code", "in", "out", "log", "jobs")
_FILES = ("plan.json", "process.json", "lock")


def find_files(outline: Outline, *, stale: bool = False) -> list[Path]:
    """List the files of a task that cleaning removes.

    Parameters
    ----------
    outline
        The task.
    stale
        Only what the plan does not name: batches and captured sources of older code, and logs of ended jobs.

    Returns
    -------
    list of Path
        The files; nothing that psyrun did not make is among them.
    """
    layout = outline.layout
    if stale:
        plan = read_plan(layout.plan)
        return [] if plan is None else sorted(_stale_files(layout, plan))
    found = [path for name in _FOLDERS for path in _files_in(layout.folder / name) if _is_ours(path)]
    found += [path for name in _FILES if (path := layout.folder / name).exists()]
    if layout.receipt.exists():
        found += [path for path in (layout.receipt, layout.result) if path.exists()]
    return sorted(found)


def _files_in(folder: Path) -> Iterator[Path]:
    yield from (path for path in folder.glob("*") if path.is_file()) if folder.is_dir() else ()


def _is_ours(path: Path) -> bool:
    """Whether psyrun wrote a file in one of its folders; psyrun 0.8 had folders of the same names."""
    match path.parent.name:
        case "in":
            return is_input(path)
        case "out":
            number, _, rest = path.name.partition("-")
            return number.isdecimal() and rest.endswith((".part", ".rows"))
        case folder:
            return path.suffix in {"code": (".zip",), "log": (".log",), "jobs": (".json",)}[folder]


def _stale_files(layout: Layout, plan: Plan) -> Iterator[Path]:
    numbers = {str(batch.number) for batch in plan.batches}
    codes = {plan.code, *plan.adopted}
    for path in _files_in(layout.inputs):
        if path.stem not in numbers and is_input(path):
            yield path
    for path in _files_in(layout.out):
        if path.name.partition("-")[0] not in numbers and _is_ours(path):
            yield path
    for path in _files_in(layout.code("x").parent):
        if path.suffix == ".zip" and path.stem not in codes:
            yield path


def remove_files(outline: Outline, files: Sequence[Path]) -> None:
    """Remove files of a task, and its folders that are empty then.

    Raises
    ------
    DirtyError
        If jobs of the task may be in flight.
    """
    layout = outline.layout
    flying = [submission for submission in list_submissions(layout.jobs) if not submission.over]
    if flying:
        raise DirtyError(
            f"{outline.name}: {len(flying)} submissions may be in flight;"
            f" end them first: psy kill {outline.name}"
        )
    # The plan goes first: whatever is left after a crash is then known to nobody.
    for path in sorted(files, key=lambda path: path != layout.plan):
        path.unlink(missing_ok=True)
    _remove_empty([layout.folder / name for name in _FOLDERS] + [layout.folder])


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
