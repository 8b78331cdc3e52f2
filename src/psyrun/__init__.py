"""Run one function over a parameter space, on a laptop or a cluster.

The names below are loaded when they are first used, so that ``import psyrun`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

__version__ = "1.0.0.dev0"

if TYPE_CHECKING:
    from psyrun.backend import DistributeBackend as DistributeBackend
    from psyrun.backend import LoadBalancingBackend as LoadBalancingBackend
    from psyrun.graph import doit_tasks as doit_tasks
    from psyrun.mapper import map_pspace as map_pspace
    from psyrun.mapper import map_pspace_hdd_backed as map_pspace_hdd_backed
    from psyrun.mapper import map_pspace_parallel as map_pspace_parallel
    from psyrun.pspace import AmbiguousOperationError as AmbiguousOperationError
    from psyrun.pspace import Param as Param
    from psyrun.pspace import ParameterSpace as ParameterSpace
    from psyrun.pspace import missing as missing
    from psyrun.results import Results as Results
    from psyrun.results import load as load
    from psyrun.scheduler import PBS as PBS
    from psyrun.scheduler import GridEngine as GridEngine
    from psyrun.scheduler import Hosts as Hosts
    from psyrun.scheduler import ImmediateRun as ImmediateRun
    from psyrun.scheduler import Local as Local
    from psyrun.scheduler import Slurm as Slurm
    from psyrun.scheduler import Sqsub as Sqsub
    from psyrun.store import AutodetectStore as AutodetectStore
    from psyrun.store import CsvStore as CsvStore
    from psyrun.store import DefaultStore as DefaultStore
    from psyrun.store import H5Store as H5Store
    from psyrun.store import NpzStore as NpzStore
    from psyrun.store import ParquetStore as ParquetStore
    from psyrun.store import PickleStore as PickleStore
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        backend="DistributeBackend LoadBalancingBackend",
        graph="doit_tasks",
        mapper="map_pspace map_pspace_hdd_backed map_pspace_parallel",
        pspace="AmbiguousOperationError Param ParameterSpace missing",
        results="Results load",
        scheduler="GridEngine Hosts ImmediateRun Local PBS Slurm Sqsub",
        store="AutodetectStore CsvStore DefaultStore H5Store NpzStore ParquetStore PickleStore",
    )
