"""``python inside.py FUNCTION N``: what happens within one process, ours and by hand, by the same function.

Each function measures one block, checks what that block made, and prints what it used as JSON.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import sys
import time
from contextlib import contextmanager, nullcontext
from itertools import product
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # More would spin for a while, and count as CPU time.

import numpy as np

from grid import axes, execute

UNIT = 1 if sys.platform == "darwin" else 1024


def peak():
    return UNIT * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def cpu():
    used = [resource.getrusage(each) for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


@contextmanager
def measured(**more):
    held, used, began = peak(), cpu(), time.perf_counter()
    yield
    wall = time.perf_counter() - began
    said = {"wall": wall, "cpu": cpu() - used, "peak": peak(), "grown": peak() - held}
    print(json.dumps({**said, **more}))


def make_space(n):
    from psyrun import Param

    a, b, c = map(np.array, axes(n))
    return Param(a=a) * Param(b=b) * Param(c=c)


# ---------------------------------------------------------------------- iterating


def iterate_psyrun(n):
    from psyrun import Param

    a, b, c = axes(n)
    space = Param(a=a) * Param(b=b) * Param(c=c)
    with measured():
        for _ in space:
            pass
    assert list(space) == [dict(zip("abc", row)) for row in product(*axes(n))]


def iterate_product(n):
    with measured():
        for row in product(*axes(n)):
            dict(zip("abc", row))


def iterate_sklearn(n):
    from sklearn.model_selection import ParameterGrid

    grid = ParameterGrid(dict(zip("abc", axes(n))))
    with measured():
        for _ in grid:
            pass
    assert len(grid) == n


def build_psyrun(n):
    space = make_space(n)
    with measured():
        columns = space.build()
    check_columns(columns, n)


def build_meshgrid(n):
    a, b, c = map(np.array, axes(n))
    with measured():
        columns = dict(zip("abc", (each.ravel() for each in np.meshgrid(a, b, c, indexing="ij"))))
    check_columns(columns, n)


def build_lists(n):
    a, b, c = map(np.array, axes(n))
    with measured():
        grid = np.meshgrid(a, b, c, indexing="ij")
        columns = dict(zip("abc", (list(each.ravel()) for each in grid)))
    check_columns(columns, n)


def check_columns(columns, n):
    for name, expected in zip("abc", zip(*product(*axes(n)))):
        assert np.array_equal(np.asarray(columns[name]), np.array(expected)), name


def row_psyrun(n):
    from psyrun import Param

    side = round(n ** (1 / 3))
    space = Param(a=range(side)) * Param(b=range(side)) * Param(c=range(side))
    space[0]
    k = side**3 // 3
    with measured():
        row = space[k]
    assert row == {"a": k // side**2, "b": k // side % side, "c": k % side}


def slice_psyrun(n):
    from psyrun import Param

    side = round(n ** (1 / 3))
    space = Param(a=range(side)) * Param(b=range(side)) * Param(c=range(side))
    list(space[:1])
    k = side**3 // 3
    with measured():
        rows = list(space[k : k + 1000])
    assert rows == [{"a": i // side**2, "b": i // side % side, "c": i % side} for i in range(k, k + 1000)]


# ---------------------------------------------------------------------- what is missing


def half(n):
    return np.sort(np.random.default_rng(1).permutation(n)[: n // 2])


def missing_psyrun(n):
    from psyrun import Param
    from psyrun.pspace import missing

    space = make_space(n)
    table = {name: np.asarray(values) for name, values in space.build().items()}
    done = Param(**{name: values[half(n)] for name, values in table.items()})
    with measured():
        found = missing(space, done)
        columns = found.build()
    rest = np.setdiff1d(np.arange(n), half(n))
    for name, values in columns.items():
        assert np.array_equal(np.asarray(values), table[name][rest]), name


def missing_pandas(n):
    import pandas as pd

    space = pd.DataFrame(dict(zip("abc", map(np.array, zip(*product(*axes(n)))))))
    done = space.iloc[half(n)]
    with measured():
        both = space.merge(done, on=list("abc"), how="left", indicator=True)
        found = both[both["_merge"] == "left_only"][list("abc")]
    assert len(found) == n - n // 2


# ---------------------------------------------------------------------- mapping


def map_psyrun(n):
    from psyrun import Param, map_pspace

    a, b, c = axes(n)
    with measured():
        table = map_pspace(execute, Param(a=a) * Param(b=b) * Param(c=c))
    check_mapped(table, n)


def map_by_hand(n):
    with measured():
        table = {"a": [], "b": [], "c": [], "result": []}
        for row in product(*axes(n)):
            assignment = dict(zip("abc", row))
            values = execute(**assignment)
            for name, value in {**assignment, **values}.items():
                table[name].append(value)
    check_mapped(table, n)


def parallel_psyrun(n):
    import joblib  # noqa: F401 - loaded by both before they begin

    from psyrun import Param, map_pspace_parallel

    a, b, c = axes(n)
    with measured():
        table = map_pspace_parallel(execute, Param(a=a) * Param(b=b) * Param(c=c))
    check_mapped(table, n)


def parallel_joblib(n, batch_size="auto"):
    from joblib import Parallel, delayed

    with measured():
        rows = [dict(zip("abc", row)) for row in product(*axes(n))]
        found = Parallel(n_jobs=-1, batch_size=batch_size)(delayed(execute)(**row) for row in rows)
        table = tabulate(rows, found)
    check_mapped(table, n)


def parallel_batches(n):
    parallel_joblib(n, max(1, n // 100))


def parallel_threads(n):
    from joblib import parallel_config

    with parallel_config(backend="threading"):
        parallel_joblib(n)


def tabulate(rows, found):
    return {name: [row[name] for row in rows] for name in "abc"} | {"result": [r["result"] for r in found]}


def check_mapped(table, n):
    rows = list(product(*axes(n)))
    assert list(zip(table["a"], table["b"], table["c"])) == rows
    assert table["result"] == [execute(*row)["result"] for row in rows]


# ---------------------------------------------------------------------- merging

ROWS, WIDTH = 1000, 10


def merge_psyrun(n):
    """Merge what psy run left here: for the second time, with all modules loaded as those of the rivals."""
    from psyrun.merge import merge
    from psyrun.options import RunOptions
    from psyrun.task import read_outline

    outline = read_outline(Path.cwd(), Path.cwd() / "psy-tasks" / "task_t.py")
    for context in (nullcontext(), measured()):
        outline.layout.result.unlink()
        with context:
            merge(outline, RunOptions())
    check_merged(outline.layout.result, n)


def merge_npz(n):
    write_parts(n, lambda part, table: np.savez(f"{part}.npz", **table))
    with measured():
        parts = [np.load(f"{part}.npz") for part in range(n // ROWS)]
        np.savez("result.npz", **{name: np.concatenate([part[name] for part in parts]) for name in "xy"})
    check_merged(Path("result.npz"), n)


def merge_h5(n):
    import tables

    def write(part, table):
        with tables.open_file(f"{part}.h5", "w") as file:
            for name, values in table.items():
                file.create_array("/", name, values)

    write_parts(n, write)
    with measured(), tables.open_file("result.h5", "w") as joined:
        for part in range(n // ROWS):
            with tables.open_file(f"{part}.h5") as file:
                for node in file.root:
                    if part == 0:
                        joined.create_earray("/", node.name, node.atom, (0, *node.shape[1:]), expectedrows=n)
                    joined.root[node.name].append(node.read())
    check_merged(Path("result.h5"), n)


def merge_pickle(n):
    def write(part, table):
        lists = {name: list(values) for name, values in table.items()}
        Path(f"{part}.pkl").write_bytes(pickle.dumps(lists))

    write_parts(n, write)
    with measured():
        joined = {"x": [], "y": []}
        for part in range(n // ROWS):
            for name, values in pickle.loads(Path(f"{part}.pkl").read_bytes()).items():
                joined[name].extend(values)
        Path("result.pkl").write_bytes(pickle.dumps(joined))
    check_merged(Path("result.pkl"), n)


def write_parts(n, write):
    for part in range(n // ROWS):
        x = np.arange(part * ROWS, (part + 1) * ROWS)
        write(part, {"x": x, "y": x[:, None] + np.arange(10.0)})


def check_merged(path, n):
    from check import read_table

    table = read_table(str(path))
    x = np.arange(n)
    assert np.array_equal(np.asarray(table["x"]), x)
    assert np.array_equal(np.asarray(table["y"]), x[:, None] + np.arange(10.0))


# ---------------------------------------------------------------------- rows that note when they ran


def save_and_sync(n):
    """Write n rows of 8 kB as one array."""
    values = np.arange(1024.0) + np.arange(n)[:, None]
    with measured(), Path("values.npy").open("wb") as file:
        np.save(file, values)
        file.flush()
        os.fsync(file.fileno())


def pool_rows(n):
    """Evaluate the rows of the task in this folder by a Pool, one at a time."""
    from multiprocessing import Pool

    sys.path.insert(0, "psy-tasks")
    from task_t import execute as timed

    with Pool() as pool:
        rows = list(pool.imap(timed, range(n)))
    table = {name: [row[name] for row in rows] for name in rows[0]}
    Path("result.pkl").write_bytes(pickle.dumps(table))


def check_times(n):
    """Say how well the rows of a result were spread over the cores."""
    (path,) = [*Path("psy-work/t").glob("result.pkl"), *Path().glob("result.pkl")]
    table = pickle.loads(path.read_bytes())
    seconds = np.array(table["ended"]) - np.array(table["began"])
    assert len(seconds) == n
    assert (seconds >= 0).all()
    if "value" in table:
        assert np.array_equal(np.asarray(table["value"]), np.arange(1024.0) + np.arange(n)[:, None])
    span, cores = max(table["ended"]) - min(table["began"]), os.cpu_count()
    best = max(seconds.sum() / cores, seconds.max())
    print(json.dumps({"span": span, "share": seconds.sum() / cores / span, "stretch": span / best}))


if __name__ == "__main__":
    globals()[sys.argv[1]](int(sys.argv[2]))
