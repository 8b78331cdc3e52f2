"""Schedulers by name, and what psyrun knows of all their systems together."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psyrun.scheduler.protocol import Scheduler


# Not entry points: to read those takes longer than all else that `psy status` does of jobs in flight.
BUILT_IN = ("GridEngine", "Hosts", "ImmediateRun", "Local", "PBS", "Slurm", "Sqsub")


def create_scheduler(name: str) -> Scheduler:
    """Return a scheduler of this class name: one of ours, or of the entry points ``psyrun.schedulers``.

    Raises
    ------
    LookupError
        If no installed package provides it.
    """
    if name in BUILT_IN:
        return _create(name)
    from importlib.metadata import entry_points

    entries = entry_points(group="psyrun.schedulers")
    for entry in entries.select(name=name):
        scheduler: Scheduler = entry.load()()
        return scheduler
    known = sorted({*BUILT_IN, *entries.names})
    raise LookupError(f"no scheduler {name!r}; there are {', '.join(known)}")


def job_environment(scheduler: Scheduler) -> dict[str, str]:
    """Return the environment for a job: that of this process, less what describes a job around it.

    The job around it may be of any system that psyrun has; what the given scheduler keeps stays.
    """
    known = [scheduler, *map(_create, BUILT_IN)]
    return {
        name: value
        for name, value in os.environ.items()
        if scheduler.kept_variables.match(name) or not any(each.job_variables.match(name) for each in known)
    }


def _create(name: str) -> Scheduler:
    scheduler: Scheduler = getattr(import_module("psyrun.scheduler"), name)()
    return scheduler
