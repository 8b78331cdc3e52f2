"""The cases: what psyrun is measured at, its rivals, and the ratios that it is to reach."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness import HERE, MB, PYTHON, Case, Program, Reach, Round, compare, run

if TYPE_CHECKING:
    from collections.abc import Callable

RIVALS = HERE / "rivals"
PSY = str(Path(PYTHON).with_name("psy"))
DOIT = str(Path(PYTHON).with_name("doit"))

GRID = """\
from psyrun import Param, {store}

pspace = Param(a=range({a})) * Param(b={b}) * Param(c=[each / 7 for each in range({c})])
store = {store}()


def execute(a, b, c):
    return {{"result": a * b + c}}
"""
TIMED = """\
import time

import numpy as np

from psyrun import Param

pspace = Param(x=range({n}))
{more}


def execute(x):
    began, used = time.perf_counter(), time.thread_time()
    {body}
    return {{"began": began, "ended": time.perf_counter(){value}}}
"""
BUSY = "while time.thread_time() - used < {seconds}:\n        pass"
LOGNORMAL = "SECONDS = np.random.default_rng(0).lognormal(np.log(0.008), 1.25, {n})"
MERGED = """\
import numpy as np

from psyrun import H5Store, NpzStore, Param, PickleStore

pspace = Param(x=np.arange({n}))
store = {store}()


def execute(x):
    return {{"y": x + np.arange(10.0)}}
"""
READING = """\
from psyrun import Param

pspace = Param(x=range({n}))
track_inputs = {tracked}


def execute(x):
    with open(f"data/{{x}}") as file:
        return {{"y": int(file.read())}}
"""


def write_task(folder: Path, text: str) -> None:
    """Write the only task file of a project."""
    path = folder / "psy-tasks" / "task_t.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def grid_task(n: int, store: str = "PickleStore") -> str:
    """Return a task file with the grid of `rivals/grid.py`."""
    a, b, c = (n, [0.5], 1) if n % 100 else (10, [each / 10 for each in range(10)], n // 100)
    text = GRID.format(a=a, b=b, c=c, store=store)
    return text.replace("each / 7 for each in range(1)", "1.0") if n % 100 else text


def write_grid(folder: Path, n: int, store: str = "PickleStore") -> None:
    write_task(folder, grid_task(n, store))


def write_finished(folder: Path, n: int) -> None:
    """Write a project whose rows are finished."""
    write_grid(folder, n)
    run(PSY, "run", folder=folder)


def write_half_done(folder: Path, n: int) -> None:
    """Write a project as a run leaves it that is killed half-way."""
    write_finished(folder, n)
    work = folder / "psy-work" / "t"
    journals = sorted(work.glob("out/*.rows"))
    for path in [work / "process.json", *work.glob("re*.*"), *journals[len(journals) // 2 :]]:
        path.unlink()
    (task,) = json.loads(run(PSY, "status", "--json", folder=folder))["tasks"]
    if (task["total"], task["done"]) != (n, n // 2):
        raise RuntimeError(f"not half done: {task}")


def write_extended(folder: Path, n: int, more: int) -> None:
    """Write a project of which `more` rows are new."""
    write_finished(folder, n)
    write_task(
        folder, grid_task(n).replace("\nstore", f" + Param(a=range(100, {100 + more}), b=0.5, c=1.0)\nstore")
    )


def inside(function: str, n: int, *needs: str) -> Program:
    """Return a program that measures one function of `rivals/inside.py`."""
    return Program(name=function, argv=(PYTHON, str(RIVALS / "inside.py"), function, str(n)), needs=needs)


def check_grid(file: str, n: int) -> tuple[str, ...]:
    return (PYTHON, str(RIVALS / "check.py"), file, str(n))


def psy_run(n: int, store: str = "PickleStore", ext: str = "pkl", name: str = "psy run") -> Program:
    """Return a run of the grid from its start to its result."""
    return Program(
        name=name,
        argv=(PSY, "run"),
        prepare=partial(write_grid, n=n, store=store),
        check=check_grid(f"psy-work/t/result.{ext}", n),
    )


def by_hand(script: str, n: int, *needs: str) -> Program:
    """Return a rival that writes `result.npz`."""
    return Program(
        name=script,
        argv=(PYTHON, str(RIVALS / f"{script}.py"), str(n), "result.npz"),
        check=check_grid("result.npz", n),
        needs=needs,
    )


def gnu_parallel(n: int) -> Program:
    """Return 16 Pythons started by GNU parallel, and one that joins what they wrote."""
    chunk = f"{PYTHON} {RIVALS / 'chunks.py'} {n}"
    return Program(
        name="GNU parallel",
        argv=("sh", "-c", f"seq 0 15 | parallel -j{os.cpu_count()} {chunk} && {chunk} result.npz"),
        check=check_grid("result.npz", n),
        needs=("$parallel",),
    )


def doit_chunks(n: int) -> Program:
    """Return 16 Pythons started by doit, and one that joins what they wrote."""
    argv = ("env", f"ROWS={n}", DOIT, "-f", str(RIVALS / "dodo.py"), "-d", ".", "-n", str(os.cpu_count()))
    return Program(name="doit, 16 chunks", argv=argv, check=check_grid("result.npz", n))


def rivals(n: int) -> tuple[Program, ...]:
    """Return all who evaluate the grid and write a file."""
    return (
        by_hand("pool", n),
        by_hand("joblib_parallel", n),
        by_hand("joblib_memory", n),
        by_hand("xyzpy_runner", n, "xyzpy"),
        by_hand("executorlib_map", n, "executorlib"),
        gnu_parallel(n),
        doit_chunks(n),
    )


DOIT_LIST = Program(
    name="doit list",
    argv=(DOIT, "list"),
    prepare=lambda folder: shutil.copy(RIVALS / "dodo.py", folder),
    keep=True,
)


# ---------------------------------------------------------------------- runs


def run_small(n: int) -> Case:
    found = rivals(n)
    limits = {"pool": 2.5, "GNU parallel": 1.0, "executorlib_map": 1.0}
    return Case(
        name="run-1e4",
        title="`psy run` of 10**4 rows, start to result on disk",
        programs=(psy_run(n), *found),
        reaches=tuple(compare("psy run", each.name, limits.get(each.name)) for each in found),
    )


def run_tiny() -> Case:
    def against_list(each: Round) -> float:
        return each["psy run"].cpu / max(each["doit list"].cpu, 0.5 / 3)

    return Case(
        name="run-3",
        title="`psy run` of 3 rows, CPU time",
        programs=(psy_run(3), DOIT_LIST),
        reaches=(
            Reach(what="CPU / doit list, or / 0.167 s", most=3, value=against_list),
            Reach(what="CPU seconds", most=None, value=lambda each: each["psy run"].cpu),
        ),
    )


def finished(n: int) -> Program:
    """Return a run that has nothing to do."""
    prepare = partial(write_finished, n=n)
    return Program(name=f"psy run, {n:,} done rows", argv=(PSY, "run"), prepare=prepare, keep=True)


def nothing(n: int, many: int) -> Case:
    one, other = finished(n), finished(many)
    return Case(
        name="nothing",
        title="nothing to do, 10**4 and 10**6 rows",
        programs=(one, DOIT_LIST, other),
        reaches=(
            compare(one.name, "doit list", 1.4, what="10**4 / doit list"),
            compare(other.name, "doit list", 1.4, what="10**6 / doit list"),
            compare(other.name, one.name, 1.2, what="10**6 / 10**4"),
        ),
    )


def run_large(n: int) -> Case:
    stores = {"pickle": ("PickleStore", "pkl"), "npz": ("NpzStore", "npz"), "h5": ("H5Store", "h5")}
    large = [psy_run(n, *store, name=name) for name, store in stores.items()]

    return Case(
        name="run-1e6",
        title="`psy run` of 10**6 rows",
        programs=(*large, by_hand("pool", n), psy_run(n // 10, name="a tenth")),
        reaches=(
            *(compare(name, "pool", 2.5, what=f"{name} / pool") for name in stores),
            compare("pickle", "a tenth", 1.1, scale=10, what="10**6 / (10 x 10**5)"),
            Reach(what="parent, MB", most=300, value=lambda each: each["pickle"].own / MB),
            Reach(what="largest process, MB", most=None, value=lambda each: each["pickle"].peak / MB),
        ),
    )


def extend(n: int, more: int) -> Case:
    return Case(
        name="extend",
        title="10**5 done rows extended by 1,000",
        programs=(
            Program(name="extended", argv=(PSY, "run"), prepare=partial(write_extended, n=n, more=more)),
            psy_run(more),
        ),
        reaches=(compare("extended", "psy run", 1.3, what="/ 1,000 rows alone"),),
    )


def status(n: int) -> Case:
    half = Program(name="psy status", argv=(PSY, "status"), prepare=partial(write_half_done, n=n), keep=True)
    return Case(
        name="status",
        title="`psy status` while 10**6 rows are half done",
        programs=(half, finished(n)),
        reaches=(compare(half.name, finished(n).name, 1.5, what="/ nothing to do"),),
    )


def start() -> Case:
    ask = f"COMP_WORDS='psy run ' COMP_CWORD=2 _PSY_COMPLETE=bash_complete {PSY} >found"
    programs = (
        Program(name="psy --help", argv=(PSY, "--help")),
        Program(
            name="completion",
            argv=("sh", "-c", ask),
            prepare=partial(write_grid, n=3),
            check=("grep", "-q", "plain,t$", "found"),
        ),
        Program(name="import click", argv=(PYTHON, "-c", "import click")),
    )
    return Case(
        name="help",
        title="`psy --help`, completion",
        programs=programs,
        reaches=tuple(
            compare(each.name, "import click", 1.3, what=f"{each.name} / import click")
            for each in programs[:2]
        ),
    )


# ---------------------------------------------------------------------- rows that take time or space


def timed_rows(name: str, n: int, text: str, compare: bool = True) -> tuple[Program, ...]:
    check = (PYTHON, str(RIVALS / "inside.py"), "check_times", str(n))
    prepare = partial(write_task, text=text)
    pool = (PYTHON, str(RIVALS / "inside.py"), "pool_rows", str(n))
    ours = Program(name="psy run", argv=(PSY, "run"), prepare=prepare, check=check)
    return (ours, Program(name="pool", argv=pool, prepare=prepare, check=check)) if compare else (ours,)


def arrays(n: int) -> Case:
    text = TIMED.format(n=n, more="", body="value = np.arange(1024.0) + x", value=', "value": value')
    size = 8192 * n

    def rate(each: Round) -> float:
        return each["psy run"].said["span"] / each["save_and_sync"].wall

    return Case(
        name="arrays",
        title="8 kB array rows, 10**4",
        programs=(*timed_rows("arrays", n, text, compare=False), inside("save_and_sync", n)),
        reaches=(
            Reach(what="bytes written / data", most=2.2, value=lambda each: each["psy run"].written / size),
            Reach(what="first to last row / (numpy.save + fsync)", most=3, value=rate),
        ),
    )


def execute_1ms(n: int) -> Case:
    text = TIMED.format(n=n, more="", body=BUSY.format(seconds=0.001), value="")

    return Case(
        name="execute-1ms",
        title="`execute` of 1 ms, 10**4 rows",
        programs=timed_rows("execute-1ms", n, text),
        reaches=(
            Reach(
                what="cores idle or elsewhere, %",
                most=3,
                value=lambda each: 100 * (1 - each["psy run"].said["share"]),
            ),
            Reach(
                what="the same of pool", most=None, value=lambda each: 100 * (1 - each["pool"].said["share"])
            ),
        ),
    )


def heavy_tailed(n: int) -> Case:
    text = TIMED.format(n=n, more=LOGNORMAL.format(n=n), body=BUSY.format(seconds="SECONDS[x]"), value="")
    return Case(
        name="heavy-tailed",
        title="heavy-tailed `execute` (lognormal), 1,000 rows",
        programs=timed_rows("heavy-tailed", n, text),
        reaches=(
            Reach(what="/ best schedule", most=1.07, value=lambda each: each["psy run"].said["stretch"]),
            Reach(what="the same of pool", most=None, value=lambda each: each["pool"].said["stretch"]),
        ),
    )


def inputs(n: int) -> Case:
    def write(folder: Path, tracked: bool) -> None:
        write_task(folder, READING.format(n=n, tracked=tracked))
        (folder / "psy-tasks" / "data").mkdir()
        for x in range(n):
            (folder / "psy-tasks" / "data" / str(x)).write_text(str(x))

    programs = [
        Program(name=name, argv=(PSY, "run"), prepare=partial(write, tracked=tracked))
        for name, tracked in (("tracked", True), ("not tracked", False))
    ]
    return Case(
        name="inputs",
        title="10**4 rows that each read a file of their own",
        programs=tuple(programs),
        reaches=(compare("tracked", "not tracked"),),
    )


# ---------------------------------------------------------------------- within one process


def pair(name: str, title: str, most: float, ours: Program, *others: Program) -> Case:
    """Return a case of functions within one process, of which the first has a rival that counts."""
    reaches = [compare(ours.name, each.name, None if number else most) for number, each in enumerate(others)]
    return Case(name=name, title=title, programs=(ours, *others), reaches=tuple(reaches))


def index(n: int) -> Case:
    def milliseconds(name: str) -> Callable[[Round], float]:
        return lambda each: 1000 * each[name].wall

    return Case(
        name="index",
        title="row 10**9 // 3 and a slice of 1,000 of a space of 10**9",
        programs=(inside("row_psyrun", n), inside("slice_psyrun", n)),
        reaches=(
            Reach(what="row, ms", most=1, value=milliseconds("row_psyrun")),
            Reach(what="slice, ms", most=1, value=milliseconds("slice_psyrun")),
            Reach(
                what="memory, MB", most=1, value=lambda each: max(s.said["grown"] for s in each.values()) / MB
            ),
        ),
    )


def missing(n: int) -> Case:
    ours, tenth = inside("missing_psyrun", n), inside("missing_psyrun", n // 10)
    return Case(
        name="missing",
        title="`missing` on 10**6 three-parameter rows, a random half done",
        programs=(ours, inside("missing_pandas", n, "pandas"), replace(tenth, name="a tenth")),
        reaches=(
            compare(ours.name, "missing_pandas", 3, what="/ pandas anti-join"),
            compare(ours.name, "a tenth", 1.2, scale=10, what="10**6 / (10 x 10**5)"),
        ),
    )


def map_parallel(n: int) -> Case:
    ours = inside("parallel_psyrun", n)
    bare = [inside(f"parallel_{each}", n) for each in ("joblib", "batches", "threads")]

    def best(each: Round) -> float:
        return each[ours.name].wall / min(each[other.name].wall for other in bare[:2])

    return Case(
        name="map-parallel",
        title="`map_pspace_parallel`, 10**4",
        programs=(ours, *bare),
        reaches=(
            Reach(what="/ best of bare joblib.Parallel, processes", most=1.2, value=best),
            *(replace(compare(ours.name, each.name), cpu=None) for each in bare),
        ),
    )


def merging(n: int, store: str, ext: str) -> Case:
    def prepare(folder: Path) -> None:
        write_task(folder, MERGED.format(n=n, store=store))
        run(PSY, "run", folder=folder)

    argv = inside("merge_psyrun", n).argv
    ours = Program(name="merge", argv=argv, prepare=prepare, keep=True)
    return pair(
        f"merge-{ext}",
        f"merge of 100 batches of 1,000 rows with 10-float arrays, {ext}",
        2,
        ours,
        inside(f"merge_{ext}", n),
    )


def make_cases(*, quick: bool = False) -> list[Case]:
    """Return all cases, of the sizes that they name or small ones."""

    def size(n: int, small: int = 200) -> int:
        return small if quick else n

    return [
        run_small(size(10**4)),
        run_tiny(),
        nothing(size(10**4), size(10**6, 1000)),
        run_large(size(10**6, 1000)),
        pair(
            "iterate",
            "iterate a product of 10**6 as dicts",
            1.8,
            inside("iterate_psyrun", size(10**6)),
            inside("iterate_product", size(10**6)),
            inside("iterate_sklearn", size(10**6), "sklearn"),
        ),
        pair(
            "build",
            "`build()` of the same from NumPy columns",
            4,
            inside("build_psyrun", size(10**6)),
            inside("build_meshgrid", size(10**6)),
            inside("build_lists", size(10**6)),
        ),
        index(size(10**9, 10**6)),
        missing(size(10**6, 1000)),
        pair(
            "map",
            "`map_pspace`, 10**5",
            1.2,
            inside("map_psyrun", size(10**5)),
            inside("map_by_hand", size(10**5)),
        ),
        map_parallel(size(10**4)),
        arrays(size(10**4)),
        execute_1ms(size(10**4)),
        heavy_tailed(size(1000, 20)),
        status(size(10**6)),
        *(
            merging(size(10**5, 2000), store, ext)
            for store, ext in (("NpzStore", "npz"), ("H5Store", "h5"), ("PickleStore", "pickle"))
        ),
        start(),
        extend(size(10**5), size(1000, 100)),
        inputs(size(10**4)),
    ]
