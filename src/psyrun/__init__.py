"""Run one function over a parameter space, on a laptop or a cluster.

The names below are loaded when they are first used, so that ``import psyrun`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from psyrun.version import __version__

if TYPE_CHECKING:
    from psyrun.backend import DistributeBackend, LoadBalancingBackend
    from psyrun.graph import doit_tasks
    from psyrun.mapper import map_pspace, map_pspace_hdd_backed, map_pspace_parallel
    from psyrun.pspace import AmbiguousOperationError, Param, ParameterSpace, missing
    from psyrun.scheduler import ImmediateRun, Local, Slurm, Sqsub
    from psyrun.store import AutodetectStore, DefaultStore, H5Store, NpzStore, PickleStore

__all__ = [
    "AmbiguousOperationError",
    "AutodetectStore",
    "DefaultStore",
    "DistributeBackend",
    "H5Store",
    "ImmediateRun",
    "LoadBalancingBackend",
    "Local",
    "NpzStore",
    "Param",
    "ParameterSpace",
    "PickleStore",
    "Slurm",
    "Sqsub",
    "__version__",
    "doit_tasks",
    "map_pspace",
    "map_pspace_hdd_backed",
    "map_pspace_parallel",
    "missing",
]

_HOMES = {
    "psyrun.backend": ("DistributeBackend", "LoadBalancingBackend"),
    "psyrun.graph": ("doit_tasks",),
    "psyrun.mapper": ("map_pspace", "map_pspace_hdd_backed", "map_pspace_parallel"),
    "psyrun.pspace": ("AmbiguousOperationError", "Param", "ParameterSpace", "missing"),
    "psyrun.scheduler": ("ImmediateRun", "Local", "Slurm", "Sqsub"),
    "psyrun.store": ("AutodetectStore", "DefaultStore", "H5Store", "NpzStore", "PickleStore"),
}
_MODULES = ("backend", "mapper", "pspace", "scheduler", "store")
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"psyrun.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'psyrun' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
