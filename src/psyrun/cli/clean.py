"""Cleaning: finding the files that psyrun made for a task, and removing them."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from psyrun.disk import find_temporaries, read_file
from psyrun.errors import DirtyError, FormatError
from psyrun.jobs import find_active
from psyrun.workdir import (
    find_needed_journals,
    find_stale_claims,
    is_input,
    list_journals,
    parse_name,
    read_inputs,
    read_plan,
    read_receipt,
    read_records,
    task_lock,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from psyrun.jobs import QueueCache
    from psyrun.task import Outline
    from psyrun.workdir import Layout, Plan


_FOLDERS = ("code", "in", "out", "reads", "log", "jobs")
_OLD_SECONDS = 3600.0  # A temporary file is renamed long before.


def find_files(outline: Outline, *, stale: bool = False) -> list[Path]:
    """List the files of a task that cleaning removes.

    Parameters
    ----------
    outline
        The task.
    stale
        Only what the plan does not name: batches and captured sources of older code, and leftovers of a psy
        that was killed.

    Returns
    -------
    list of Path
        The files; only such that psyrun made.
    """
    layout = outline.layout
    folders = [layout.folder / name for name in _FOLDERS]
    found = list(find_stale_claims(layout.lock))
    for folder in (layout.folder, *folders):
        found += find_temporaries(folder)
    for target in (layout.result, layout.receipt):
        found += find_temporaries(target.parent, target.name)
    files = [path for folder in folders for path in folder.glob("*") if _is_file(path)]
    if not stale:
        found += [*filter(_is_ours, files), *layout.files]
        found += [layout.receipt, layout.result] if _is_file(layout.receipt) else []
    elif (plan := read_plan(layout)) is not None:
        found += _find_stale(layout, plan, [path for path in files if _is_ours(path)])
    return sorted({path for path in found if _is_file(path)})


def _find_stale(layout: Layout, plan: Plan, files: Iterable[Path]) -> Iterator[Path]:
    """Yield the files that the plan does not name, and those of failures that were tried again since."""
    codes, numbers = {plan.code, *plan.adopted}, {str(batch.number) for batch in plan.batches}
    for batch in plan.batches:
        with suppress(OSError, FormatError):  # Digests of older rules have other names.
            codes.add(read_inputs(layout.input(batch.number), batch.tie).code)
    kept = set(find_needed_journals(plan, layout))
    runs = {named[1] for path in kept if (named := parse_name(path.name)) is not None}
    runs |= {run for run, *_ in (read_receipt(layout.process) or {}).get("reads", ())}
    journals = list_journals(layout.out)
    for batch in plan.batches:
        runs |= {run for run, _ in read_records(journals.get(batch.key, ()), rows=batch.size).reads}
    tokens = {path.stem for path in layout.jobs.glob("*.json")}
    for path in files:
        match path.parent.name:
            case "code":
                stale = path.stem not in codes
            case "in":
                stale = path.name.partition(".")[0] not in numbers and _is_old(path)
            case "out":
                stale = path not in kept
            case "reads":
                stale = path.stem not in runs
            case "log":
                names = {path.stem, path.stem.partition("-")[0]}
                stale = names.isdisjoint(runs | tokens | numbers) and not _names_run(path, runs)
            case _:
                stale = False
        if stale:
            yield path


def _names_run(log: Path, runs: Iterable[str]) -> bool:
    """Whether a log of a worker says that it wrote the journals of one of these runs."""
    text = read_file(log)
    return any(f", run {run}\n".encode() in text for run in runs)


def _is_old(path: Path) -> bool:
    """Whether a file is older than an hour: a younger one may be of a psy that plans."""
    with suppress(OSError):
        return path.stat().st_mtime + _OLD_SECONDS < time.time()
    return False


def _is_file(path: Path) -> bool:
    return path.is_file() or path.is_symlink()


def _is_ours(path: Path) -> bool:
    """Whether psyrun wrote a file in one of its folders; psyrun 0.8 had folders of the same names."""
    match path.parent.name:
        case "in":
            return is_input(path)
        case "out":
            return parse_name(path.name) is not None
        case folder:
            return path.suffix == {"code": ".zip", "reads": ".reads", "log": ".log", "jobs": ".json"}[folder]


def remove_files(outline: Outline, files: Sequence[Path], queues: QueueCache) -> None:
    """Remove files of a task, and its folders that are empty then.

    Raises
    ------
    DirtyError
        If another psy is at work on the task, or jobs of it may be in flight.
    """
    layout = outline.layout
    if not layout.folder.is_dir():  # There is only a result, elsewhere.
        _unlink(files, layout)
        return
    with task_lock(layout.lock, lambda owner: _refuse(outline, f"{owner} is at work on it")):
        jobs = find_active(outline, queues)
        for why in [each.unknown for each in jobs.reports if each.lost]:
            where = layout.relative(layout.folder)
            raise DirtyError(
                f"{outline.name}: whether its jobs are in flight is not known: {why};"
                f" where you know that they are not, remove the folder {where} yourself"
            )
        if jobs.states:
            _refuse(outline, f"{len(jobs.states)} batches may be in flight")
        _unlink([path for path in files if path != layout.lock], layout)
    for folder in (*(layout.folder / name for name in _FOLDERS), layout.folder):
        with suppress(OSError):
            folder.rmdir()


def _refuse(outline: Outline, why: str) -> None:
    raise DirtyError(f"{outline.name}: {why}; end that first: psy kill {outline.name}")


def _unlink(files: Iterable[Path], layout: Layout) -> None:
    # The plan goes first: after a crash, it must not name files that are gone.
    first = (layout.plan, layout.plan_copy)
    for path in sorted(files, key=lambda path: path not in first):
        path.unlink(missing_ok=True)


def remove_old_temporaries(folder: Path) -> None:
    """Remove temporary files that are older than an hour from the folder of all work folders.

    Any psy may write there at any time: a younger one may be in use.
    """
    for path in find_temporaries(folder):
        if _is_old(path):
            with suppress(OSError):
                path.unlink()
