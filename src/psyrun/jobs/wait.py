"""Waiting for jobs of batch systems, of all tasks together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from psyrun.jobs.queue import find_scheduler, open_submissions
from psyrun.workdir import RowCounter, read_progress, require_plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psyrun.jobs.queue import QueueCache
    from psyrun.options import Watcher
    from psyrun.scheduler import JobState
    from psyrun.task import Outline


def wait_for_jobs(outlines: Sequence[Outline], watcher: Watcher, queues: QueueCache) -> None:
    """Wait until a task is complete, or has fewer jobs in flight than before.

    Looks at files first, and asks each batch system once for all tasks, ever more rarely.

    Parameters
    ----------
    outlines
        Tasks with jobs in flight.
    watcher
        Progress listener.
    queues
        Answers of batch systems.
    """
    counters = {outline.name: RowCounter() for outline in outlines}
    before = {outline.name: len(_read_jobs(outline, watcher, queues)) for outline in outlines}
    polls = [find_scheduler(o, each).poll for o in outlines for each in open_submissions(o)]
    interval, most = min(polls, default=(1.0, 1.0))
    due = time.monotonic() + interval
    while True:
        for outline in outlines:
            layout = outline.layout
            progress = read_progress(require_plan(layout), layout, counters[outline.name])
            watcher.progress(outline.name, progress)
            if progress.complete and not progress.failed:  # Jobs may try failed rows again.
                return
        if time.monotonic() >= due:
            queues.refresh()
            now = {outline.name: len(_read_jobs(outline, watcher, queues)) for outline in outlines}
            if any(now[name] < count or not count for name, count in before.items()):
                return
            interval = min(most, 1.5 * interval)
            due = time.monotonic() + interval
        time.sleep(min(1.0, interval / 10))


def _read_jobs(outline: Outline, watcher: Watcher, queues: QueueCache) -> dict[int, JobState]:
    """Return batch -> state, and note what is not known or stuck."""
    jobs = queues.read_jobs(outline)
    for line in jobs.describe(outline.name):
        watcher.note(outline.name, f"{line}; waiting")
    return jobs.states
