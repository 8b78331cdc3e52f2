"""The public names as users write them; mypy checks this file, nothing runs it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import psyrun
from psyrun import (
    AmbiguousOperationError,
    AutodetectStore,
    DefaultStore,
    DistributeBackend,
    H5Store,
    ImmediateRun,
    LoadBalancingBackend,
    Local,
    NpzStore,
    Param,
    ParameterSpace,
    PickleStore,
    doit_tasks,
    map_pspace,
    map_pspace_hdd_backed,
    map_pspace_parallel,
    missing,
)
from psyrun.backend import Backend
from psyrun.errors import PsyrunError, SchedulerError, StoreError, TaskFileError
from psyrun.scheduler import JobSpec, JobState, Scheduler
from psyrun.store import ChunkStore, Store

# ---------------------------------------------------------------------- a task file

pspace: ParameterSpace = (
    Param(a=np.arange(1, 5)) * Param(b=np.linspace(0, 1, 10)) * Param(c=[1.0, 1.5, 10.0, 10.5])
)
pspace += Param(a=range(3), b=[0.0, 0.5, 1.0], c="a string is one value")
pspace = pspace - Param(a=[2]) + Param(**{"net.rate": (i / 2 for i in range(4))})

store: Store = NpzStore()
stores: list[Store] = [PickleStore(), H5Store("/results"), H5Store(), AutodetectStore(), DefaultStore()]
chunked: ChunkStore = H5Store()
scheduler: Scheduler = Local()
schedulers: list[Scheduler] = [ImmediateRun(), Local()]
backend: Backend = LoadBalancingBackend()
backends: list[Backend] = [DistributeBackend(), LoadBalancingBackend()]
max_jobs, min_items = 100, 5
scheduler_args: dict[str, str | Callable[[str], str]] = {"time": "1h", "name": lambda job: job.upper()}


def setup(proc_id: int) -> dict[str, Any]:
    return {"device": proc_id}


def execute(a: int, b: float, c: float, device: int) -> dict[str, float]:
    return {"result": a * b + c, "device": device}


# ---------------------------------------------------------------------- spaces


def use_spaces(space: ParameterSpace) -> None:
    size: int = len(space)
    exact: int = space.size
    first: dict[str, Any] = space[0]
    last: dict[str, Any] = space[np.int64(-1)]
    some: ParameterSpace = space[1:10:2]
    names: list[str] = space.keys()
    table: dict[str, list[Any]] = space.build()
    rows: Iterator[dict[str, Any]] = space.iterate()
    for assignment in space:
        value: Any = assignment["a"]
        print(value)
    left: ParameterSpace = missing(space, some)
    if space and str(space) and repr(space):
        print(size, exact, first, last, names, table, list(rows), left)
    try:
        print(space * space)
    except AmbiguousOperationError as error:
        as_value_error: ValueError = error
        as_ours: PsyrunError = error
        print(as_value_error, as_ours)


# ---------------------------------------------------------------------- mapping


def objective(a: int, b: float) -> dict[str, float]:
    return {"value": a * b}


def use_mappers(space: ParameterSpace, file: Path, other: os.PathLike[str]) -> None:
    table: dict[str, list[Any]] = map_pspace(objective, space)
    table = map_pspace(lambda **row: {"n": len(row)}, space, exclude=["a"])
    table = map_pspace(objective, space, on_error="record", progress=True)
    table = map_pspace_parallel(objective, space, n_jobs=2, backend="loky")
    table = map_pspace_parallel(objective, space, on_error="raise", progress=False)
    grown: dict[str, list[Any]] | None = map_pspace_hdd_backed(objective, space, file, PickleStore())
    grown = map_pspace_hdd_backed(
        objective, space, "result.npz", store=NpzStore(), return_data=False, pool_size=2
    )
    map_pspace_hdd_backed(objective, space, other, AutodetectStore())
    map_pspace_hdd_backed(objective, space, "values.npz", on_error="record", progress=True)
    column: list[Any] = table["value"]
    print(column, grown)


# ---------------------------------------------------------------------- results


def use_stores(file: Path, kept: Store) -> None:
    kept.save(file, {"a": [1, 2], "b": np.zeros((2, 3)), "c": ("x", "y")})
    kept.append(str(file), {"a": [3]})
    table: dict[str, Any] = kept.load(file)
    row: dict[str, Any] = kept.load(file, row=1)
    found: Store = AutodetectStore.get_concrete_store(file)
    extension: str = found.ext
    try:
        kept.check(table)
    except StoreError as error:
        print(error, row, extension)


# ---------------------------------------------------------------------- doit


def task_psy() -> Iterator[dict[str, Any]]:
    yield from doit_tasks()
    yield from doit_tasks("psy-tasks")
    yield from psyrun.doit_tasks("other-tasks")


# ---------------------------------------------------------------------- extensions


class EqualShares:
    """A backend of a user."""

    def partition(self, rows: int, max_jobs: int, min_items: int) -> Sequence[int]:
        del max_jobs
        return [min_items] * (rows // min_items)

    def throttle(self, max_jobs: int) -> int | None:
        return max_jobs


class TextStore:
    """A store of a user."""

    ext = ".txt"

    def check(self, data: Mapping[str, Sequence[Any]]) -> None:
        del data

    def save(self, filename: str | os.PathLike[str], data: Mapping[str, Sequence[Any]]) -> None:
        Path(filename).write_text(repr(data))

    def load(self, filename: str | os.PathLike[str], row: int | None = None) -> dict[str, Any]:
        raise NotImplementedError(filename, row)

    def append(self, filename: str | os.PathLike[str], data: Mapping[str, Sequence[Any]]) -> None:
        raise NotImplementedError(filename, data)


class Queue:
    """A scheduler of a user."""

    options: Mapping[str, str] = {"mem": "memory per job"}
    required: Mapping[str, str] = {"mem": "2G"}
    merge_options = ()
    core_variables = ("QUEUE_CORES",)
    job_variables = re.compile("QUEUE_")
    kept_variables = re.compile("QUEUE_SERVER$")
    detached = True
    dependencies = throttles = warns = False
    system_options: Collection[str] = ("server",)
    poll = (10.0, 60.0)
    grace = 90.0

    def configure(self, options: Mapping[str, Any], folder: Path) -> None:
        print(options, folder)

    def system(self) -> str:
        return "a"

    def shows_others(self) -> bool:
        return False

    def array_limit(self) -> int:
        return 1

    def submit(self, spec: JobSpec) -> str:
        raise SchedulerError([*spec.argv], 1, f"{spec.name} in {spec.folder}: no")

    def find(self, tokens: Collection[str]) -> Mapping[str, str] | None:
        return dict.fromkeys(tokens, "1")

    def query(self, job_ids: Collection[str]) -> Mapping[str, Mapping[int, JobState]] | None:
        return {job: {-1: JobState.QUEUED} for job in job_ids}

    def explain(self, job_ids: Collection[str]) -> Mapping[tuple[str, int], str]:
        return {(job, 0): "TIMEOUT" for job in job_ids}

    def cancel(self, job_ids: Collection[str]) -> None:
        print(*job_ids)


own_backend: Backend = EqualShares()
own_store: Store = TextStore()
own_scheduler: Scheduler = Queue()


def tell(error: PsyrunError) -> str:
    match error:
        case SchedulerError(argv=argv, returncode=code, output=output):
            return f"{argv} {code} {output}"
        case TaskFileError():
            return str(error)
    return psyrun.__version__
