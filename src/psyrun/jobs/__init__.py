"""The process step: a plan becomes jobs, and jobs become journals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.jobs.queue import QueueCache as QueueCache
    from psyrun.jobs.queue import open_submissions as open_submissions
    from psyrun.jobs.queue import scheduler_of as scheduler_of
    from psyrun.jobs.step import finish as finish
    from psyrun.jobs.step import process as process
    from psyrun.jobs.step import wait_for_jobs as wait_for_jobs
    from psyrun.jobs.tracker import cancel_jobs as cancel_jobs
    from psyrun.jobs.tracker import count_active as count_active
    from psyrun.jobs.tracker import explain_ends as explain_ends
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        queue="QueueCache open_submissions scheduler_of",
        step="finish process wait_for_jobs",
        tracker="cancel_jobs count_active explain_ends",
    )
