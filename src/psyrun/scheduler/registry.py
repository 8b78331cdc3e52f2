"""Schedulers by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun.scheduler.local import ImmediateRun, Local
from psyrun.scheduler.slurm import Slurm
from psyrun.scheduler.sqsub import Sqsub

if TYPE_CHECKING:
    from collections.abc import Callable

    from psyrun.scheduler.protocol import Scheduler


def create_scheduler(name: str) -> Scheduler:
    """Return a scheduler of this class name: one of ours, or of the entry points ``psyrun.schedulers``.

    Raises
    ------
    LookupError
        If nobody provides it.
    """
    ours: dict[str, Callable[[], Scheduler]] = {
        "ImmediateRun": ImmediateRun,
        "Local": Local,
        "Slurm": Slurm,
        "Sqsub": Sqsub,
    }
    if name in ours:
        return ours[name]()
    from importlib.metadata import entry_points

    for entry in entry_points(group="psyrun.schedulers", name=name):
        scheduler: Scheduler = entry.load()()
        return scheduler
    known = sorted({*ours, *(entry.name for entry in entry_points(group="psyrun.schedulers"))})
    raise LookupError(f"no scheduler {name!r}; there are {', '.join(known)}")
