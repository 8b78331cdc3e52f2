"""``python -m psyrun.jobs.finalize TASK_FILE``: merges in a job of its own, when the others have ended.

Where rows are missing, it records why jobs ended. It submits nothing, keeps no database, and leaves tasks
alone that were edited since it was submitted.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from psyrun.errors import OK, UNFINISHED, PsyrunError, explain
from psyrun.jobs.queue import QueueCache
from psyrun.jobs.step import collect
from psyrun.jobs.tracker import note_ends
from psyrun.merge import merge
from psyrun.options import RunOptions
from psyrun.source import SourceCache
from psyrun.split import compute_digests, describe_meanwhile
from psyrun.task import read_outline
from psyrun.workdir import read_plan, task_lock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psyrun.task import Outline


def main(argv: Sequence[str] | None = None) -> int:
    """Merge the rows of a task if they are all there.

    Parameters
    ----------
    argv
        The task file, relative to the project root, which is the working directory.

    Returns
    -------
    int
        0, unless that was not possible; what was done is printed.
    """
    (path,) = sys.argv[1:] if argv is None else argv
    root = Path.cwd()
    try:
        outline = read_outline(root, root / path)
        with task_lock(outline.layout.lock, _say):
            _say(f"{outline.name}: {_finish(outline)}")
    except (PsyrunError, OSError) as error:
        sys.stderr.write(f"psyrun: error: {explain(error)}\n")
        return UNFINISHED
    return OK


def _finish(outline: Outline) -> str:
    plan = read_plan(outline.layout)
    if plan is None:
        return "there is no plan any more"
    edited = not compute_digests(outline, SourceCache()).match(plan) or plan.settings != outline.settings
    if edited:
        return f"it was edited meanwhile; psy run {outline.name} has the say"
    progress = collect(plan, outline.layout).progress
    rows = f"{progress.total:,} row" + "s" * (progress.total != 1)
    if not progress.complete:
        with suppress(PsyrunError):  # This host may not reach the batch system.
            note_ends(outline, QueueCache(), progress)
        return f"{progress.done:,} of {rows} are done; psy run {outline.name} goes on"
    merged = merge(outline, RunOptions())
    changed = describe_meanwhile(outline, plan, SourceCache())
    done = f"{rows} in {outline.result}" if merged.written else "up to date"
    return f"{done}; {changed}" if changed else done


def _say(message: str) -> None:
    sys.stdout.write(f"psyrun: {message}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
