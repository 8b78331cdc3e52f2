"""Schedulers: who runs the jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.scheduler.batchsystem import BatchSystem as BatchSystem
    from psyrun.scheduler.batchsystem import Option as Option
    from psyrun.scheduler.batchsystem import QueueEntry as QueueEntry
    from psyrun.scheduler.batchsystem import job_script as job_script
    from psyrun.scheduler.gridengine import GridEngine as GridEngine
    from psyrun.scheduler.hosts import Hosts as Hosts
    from psyrun.scheduler.local import ImmediateRun as ImmediateRun
    from psyrun.scheduler.local import Local as Local
    from psyrun.scheduler.pbs import PBS as PBS
    from psyrun.scheduler.protocol import STOPPED as STOPPED
    from psyrun.scheduler.protocol import JobSpec as JobSpec
    from psyrun.scheduler.protocol import JobState as JobState
    from psyrun.scheduler.protocol import Scheduler as Scheduler
    from psyrun.scheduler.registry import BUILT_IN as BUILT_IN
    from psyrun.scheduler.registry import create_scheduler as create_scheduler
    from psyrun.scheduler.registry import job_environment as job_environment
    from psyrun.scheduler.slurm import Slurm as Slurm
    from psyrun.scheduler.sqsub import Sqsub as Sqsub
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        batchsystem="BatchSystem Option QueueEntry job_script",
        gridengine="GridEngine",
        hosts="Hosts",
        local="ImmediateRun Local",
        pbs="PBS",
        protocol="JobSpec JobState STOPPED Scheduler",
        registry="BUILT_IN create_scheduler job_environment",
        slurm="Slurm",
        sqsub="Sqsub",
    )
