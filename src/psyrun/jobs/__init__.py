"""The process step: a plan becomes jobs, and jobs become journals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.jobs.queue import QueueCache, TaskJobs, find_scheduler, open_submissions
    from psyrun.jobs.step import describe_generators, finish, process
    from psyrun.jobs.tracker import cancel_jobs, explain_ends, find_active
    from psyrun.jobs.wait import wait_for_jobs
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        queue="QueueCache TaskJobs open_submissions find_scheduler",
        step="describe_generators finish process",
        tracker="cancel_jobs explain_ends find_active",
        wait="wait_for_jobs",
    )
