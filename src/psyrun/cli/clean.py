"""Cleaning: which files psyrun made for a task, and removing them."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from psyrun.disk import find_temporaries
from psyrun.errors import DirtyError
from psyrun.jobs import count_active
from psyrun.workdir import batch_of, find_stale_claims, is_input, read_plan, task_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from psyrun.jobs import QueueCache
    from psyrun.task import Outline
    from psyrun.workdir import Layout, Plan


_FOLDERS = ("code", "in", "out", "log", "jobs")
_FORGOTTEN = 3600.0  # seconds after which nobody is about to rename a temporary file


def find_files(outline: Outline, *, stale: bool = False) -> list[Path]:
    """List the files of a task that cleaning removes.

    Parameters
    ----------
    outline
        The task.
    stale
        Only what the plan does not name: batches and captured sources of older code, and what was left
        behind by a psy that was killed.

    Returns
    -------
    list of Path
        The files; nothing that psyrun did not make is among them.
    """
    layout = outline.layout
    if stale:
        plan = read_plan(layout)
        return sorted([*_left_behind(layout), *(() if plan is None else _stale_files(layout, plan))])
    found = [path for name in _FOLDERS for path in _files_in(layout.folder / name) if _is_ours(path)]
    found += [path for path in layout.files if _is_file(path)]
    if _is_file(layout.receipt):
        found += [path for path in (layout.receipt, layout.result) if _is_file(path)]
    return sorted([*found, *_left_behind(layout)])


def _left_behind(layout: Layout) -> Iterator[Path]:
    """Give the temporary files and the claims to the lock of a psy that was killed."""
    yield from find_stale_claims(layout.lock)
    folders = [layout.folder, *(layout.folder / name for name in _FOLDERS)]
    found = [path for folder in folders for path in find_temporaries(folder)]
    for target in (layout.result, layout.receipt):
        found += find_temporaries(target.parent, target.name)
    yield from dict.fromkeys(path for path in found if _is_file(path))


def _is_file(path: Path) -> bool:
    return path.is_file() or path.is_symlink()


def _files_in(folder: Path) -> Iterator[Path]:
    yield from (path for path in folder.glob("*") if _is_file(path)) if folder.is_dir() else ()


def _is_ours(path: Path) -> bool:
    """Whether psyrun wrote a file in one of its folders; psyrun 0.8 had folders of the same names."""
    match path.parent.name:
        case "in":
            return is_input(path)
        case "out":
            return batch_of(path.name) is not None
        case folder:
            return path.suffix in {"code": (".zip",), "log": (".log",), "jobs": (".json",)}[folder]


def _stale_files(layout: Layout, plan: Plan) -> Iterator[Path]:
    numbers = {str(batch.number) for batch in plan.batches}
    codes = {plan.code, *plan.adopted}
    for path in _files_in(layout.inputs):
        if path.stem not in numbers and is_input(path):
            yield path
    for path in _files_in(layout.out):
        batch = batch_of(path.name)
        if batch is not None and str(batch) not in numbers:
            yield path
    for path in _files_in(layout.code("x").parent):
        if path.suffix == ".zip" and path.stem not in codes:
            yield path


def remove_files(outline: Outline, files: Sequence[Path], queues: QueueCache) -> None:
    """Remove files of a task, and its folders that are empty then.

    Raises
    ------
    DirtyError
        If another psy is at work on the task, or jobs of it may be in flight.
    """
    layout = outline.layout
    if not layout.folder.is_dir():  # There is no more than a result, elsewhere.
        _unlink(files, layout)
        return
    with task_lock(layout.lock, lambda owner: _refuse(outline, f"{owner} is at work on it")):
        flying = count_active(outline, queues)
        if flying:
            _refuse(outline, f"{flying} batches may be in flight")
        _unlink([path for path in files if path != layout.lock], layout)
    _remove_empty([layout.folder / name for name in _FOLDERS] + [layout.folder])


def _refuse(outline: Outline, why: str) -> None:
    raise DirtyError(f"{outline.name}: {why}; end that first: psy kill {outline.name}")


def _unlink(files: Iterable[Path], layout: Layout) -> None:
    # The plan goes first: whatever is left after a crash is then known to nobody.
    first = (layout.plan, layout.plan_copy)
    for path in sorted(files, key=lambda path: path not in first):
        path.unlink(missing_ok=True)


def remove_old_temporaries(folder: Path) -> None:
    """Remove temporary files that lie in the folder of all work folders for an hour.

    Any psy may write there, at any time: a younger one may be in use.
    """
    for path in find_temporaries(folder):
        with suppress(OSError):
            if path.stat().st_mtime + _FORGOTTEN < time.time():
                path.unlink()


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
