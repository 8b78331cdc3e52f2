"""Values through each store: from psy run to reading the result back."""

import random
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from psyrun.store import AutodetectStore

EXTENSIONS = {"PickleStore": ".pkl", "NpzStore": ".npz", "H5Store": ".h5"}
PLAIN = """\
def execute(i, word):
    return {
        "integer": i * 10,
        "real": i / 4,
        "complex": complex(i, -1),
        "truth": i > 1,
        "text": word * i + "ü",
        "octets": bytes([65 + i]),
        "nothing": None,
        "row": np.arange(3) + 0.5 * i,
        "table": [[i, 1], [2, 3]],
        "numpy": np.float32(i),
    }
"""
VARYING = """\
def execute(i, word):
    return {
        "row": np.full(i + 1, 2.5),
        "table": np.full((2, i + 1), i),
        "maybe": i if i else None,
    }
"""
OBJECTS = """\
class Point:
    def __init__(self, x):
        self.x = x

def execute(i, word):
    return {
        "mapping": {word: [i, None]},
        "group": {i, word},
        "fraction": Fraction(i, 3),
        "ragged": [[1] * i, [word]],
        "mixed": i if i else word,
        "point": Point([i, word]),
    }
"""
SETTINGS = """\
from fractions import Fraction
import numpy as np
from counting import seen
from psyrun import Param, {store}
store = {store}()
pspace = Param(i=range(3)) * Param(word=["a", "b c"])
"""
SPACE = [(i, word) for i in range(3) for word in ("a", "b c")]


@pytest.fixture(params=EXTENSIONS)
def store(request):
    """The name of a store."""
    return request.param


@pytest.fixture(params=["NpzStore", "H5Store"])
def array_store(request):
    """The name of a store that makes arrays of columns."""
    return request.param


def load(project, store, task="t"):
    """Read a result with the store that its extension stands for."""
    path = project.root / f"psy-work/{task}/result{EXTENSIONS[store]}"
    return AutodetectStore.get_concrete_store(path).load(path)


def run(project, store, body):
    """Run a task and return its result."""
    project.task("t", SETTINGS.format(store=store) + body)
    project.psy("run")
    return load(project, store)


def evaluate(body):
    """Return what execute returns for each assignment of the space: column -> values."""
    names = {"np": np, "Fraction": Fraction}
    exec(body, names)
    rows = [names["execute"](i, word) for i, word in SPACE]
    return {name: [row[name] for row in rows] for name in rows[0]}


def pad(values):
    """Put arrays of unlike shapes into one; NaN fills."""
    arrays = [np.asarray(value, dtype=float) for value in values]
    padded = np.full((len(arrays), *np.max([array.shape for array in arrays], axis=0)), np.nan)
    for target, array in zip(padded, arrays):
        target[tuple(map(slice, array.shape))] = array
    return padded


def assert_parameters(table):
    assert list(zip(list(table["i"]), [str(word) for word in table["word"]])) == SPACE


# ---------------------------------------------------------------------- values of each kind


def test_values_of_equal_shape_come_back_as_they_were(project, store):
    table = run(project, store, PLAIN)
    assert_parameters(table)
    for name, expected in evaluate(PLAIN).items():
        if name == "nothing":
            assert all(value is None or value != value for value in table[name])
            continue
        np.testing.assert_array_equal(np.asarray(table[name]), np.asarray(expected), err_msg=name)
    assert {np.asarray(table[name]).dtype.kind for name in ("integer", "real", "complex", "truth")} == set(
        "ifcb"
    )


def test_pickle_keeps_the_type_of_each_value(project):
    table = run(project, "PickleStore", PLAIN)
    for name, expected in evaluate(PLAIN).items():
        assert list(map(type, table[name])) == list(map(type, expected)), name
    assert type(table["i"][0]) is int


def test_arrays_of_varying_shape_come_back_as_they_were_from_pickle(project):
    table = run(project, "PickleStore", VARYING)
    expected = evaluate(VARYING)
    for name in ("row", "table"):
        for value, array in zip(table[name], expected[name], strict=True):
            np.testing.assert_array_equal(value, array)
            assert value.dtype == array.dtype
    assert table["maybe"] == expected["maybe"]


def test_arrays_of_varying_shape_are_padded_with_nan(project, array_store):
    table = run(project, array_store, VARYING)
    assert_parameters(table)
    expected = evaluate(VARYING)
    for name in ("row", "table"):
        np.testing.assert_array_equal(table[name], pad(expected[name]))
    np.testing.assert_array_equal(table["maybe"], [np.nan, np.nan, 1, 1, 2, 2])


@pytest.mark.parametrize("store", ["PickleStore", "NpzStore"])
def test_objects_come_back_where_the_store_pickles(project, store):
    table = run(project, store, OBJECTS)
    assert_parameters(table)
    expected = evaluate(OBJECTS)
    assert [point.x for point in table["point"]] == [point.x for point in expected.pop("point")]
    for name, values in expected.items():
        assert list(table[name]) == values


def test_parameters_of_any_kind_come_back(project, store):
    project.task(
        "t",
        f"""\
        import numpy as np
        from psyrun import Param, {store}
        store = {store}()
        pspace = Param(word=["", "ü"]) * Param(row=np.eye(2)) + Param(word=["last"], late=[2.5])
        def execute(word, row, late):
            return {{"size": float(np.nansum(row))}}
        """,
    )
    project.psy("run")
    table = load(project, store)
    assert [str(word) for word in table["word"]] == ["", "", "ü", "ü", "last"]
    assert [float(np.nansum(row)) for row in table["row"]] == [1, 1, 1, 1, 0]
    np.testing.assert_array_equal(table["row"][1], [0, 1])
    np.testing.assert_array_equal(table["late"], [np.nan] * 4 + [2.5])


# ---------------------------------------------------------------------- values that a store can't hold

GATED = """\
import os, time
from counting import seen
from psyrun import H5Store, NpzStore, Param
pspace = Param(x=range(40))
store = H5Store()
pool_size = 2
max_jobs = {max_jobs}
def execute(x):
    seen(x)
    deadline = time.monotonic() + 100
    while x > 0 and not os.path.exists("../gate"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return {{"size": x, "report": {{"x": x}}}}
"""


@pytest.mark.parametrize("max_jobs", [1, 100])
def test_value_that_the_store_cannot_hold_is_found_with_the_first_finished_row(project, max_jobs):
    """All rows but one wait for a gate that stays closed, so that the run has to end with that one."""
    project.task("t", GATED.format(max_jobs=max_jobs))
    done = project.psy("run", code=1, timeout=60)
    assert len(project.rows_seen()) < 10
    [line] = [line for line in done.stderr.splitlines() if "column" in line]
    for words in ("psy-tasks/task_t.py", "column 'report'", "type dict", "exclude_from_result"):
        assert words in line
    assert "Traceback" not in done.stdout + done.stderr
    assert not (project.root / "psy-work/t/result.h5").exists()
    status = project.status("t")
    assert (status["failed"], status["running"], status["queued"]) == (0, 0, 0)
    kept = status["done"]
    assert kept >= 1

    assert project.count("run", code=1) == 0  # Another try evaluates nothing before it ends.

    (project.root / "gate").touch()
    project.edit("psy-tasks/task_t.py", "store = H5Store()", 'exclude_from_result = ["report"]')
    assert project.count("run") == 40 - kept
    assert project.result("t") == {"x": list(range(40)), "size": list(range(40))}


def test_value_that_comes_later_is_named_and_no_row_is_lost(project):
    project.task("t", GATED.format(max_jobs=1).replace('{"x": x}', "x if x < 39 else {1}"))
    (project.root / "gate").touch()
    done = project.psy("run", code=1)
    for words in ("psy-tasks/task_t.py", "column 'report'", "int and set"):
        assert words in done.stderr
    assert project.status("t")["done"] == 40
    project.edit("psy-tasks/task_t.py", "H5Store()", "NpzStore()")
    assert project.count("run") == 0
    assert list(load(project, "NpzStore")["report"])[37:] == [37, 38, {1}]


# ---------------------------------------------------------------------- balancing, setup, no pickles

BALANCED = """\
import threading
from counting import seen
from psyrun import LoadBalancingBackend, NpzStore, Param
pspace = Param(x=range(12))
store = NpzStore()
backend = LoadBalancingBackend
pool_size = 2
max_jobs = 1
exclude_from_result = ["context"]
def setup(proc_id):
    seen("setup", proc_id)
    return {"context": threading.Lock(), "process": proc_id}
def execute(x, context, **others):
    with context:
        return {"y": x * 2, "z": [x] * (x % 3)}
"""


def test_balanced_rows_get_what_setup_returned_although_it_cannot_be_pickled(project):
    project.task("t", BALANCED)
    project.psy("run")
    table = load(project, "NpzStore")
    assert set(table) == {"x", "y", "z", "process"}
    assert table["x"].tolist() == list(range(12))
    assert table["y"].tolist() == [2 * x for x in range(12)]
    np.testing.assert_array_equal(table["z"], pad([[x] * (x % 3) for x in range(12)]))
    calls = project.rows_seen()
    assert len(set(calls)) == len(calls)
    assert set(calls) <= {"('setup', 0)", "('setup', 1)"}
    assert {f"('setup', {process})" for process in table["process"]} <= set(calls)
    assert project.count("run") == 0


def test_value_that_cannot_be_pickled_is_named_with_the_cure(project):
    project.task("t", BALANCED.replace('["context"]', "[]"))
    project.psy("run", code=1)
    errors = project.psy("errors").stdout
    assert "12 rows" in errors
    assert "context" in errors
    assert "exclude_from_result" in errors


# ---------------------------------------------------------------------- no rows, rows of unlike names


@pytest.mark.parametrize("space", ["Param(x=[])", "Param(x=[1, 2]) - Param(x=[1, 2])"])
def test_space_of_no_assignments_leaves_a_result_of_no_rows(project, store, space):
    project.task(
        "t",
        f"""\
        from counting import seen
        from psyrun import Param, {store}
        store = {store}()
        pspace = {space}
        def execute(x):
            seen(x)
            return {{"y": x}}
        """,
    )
    assert "0 rows" in project.psy("run").stdout
    assert {name: len(values) for name, values in load(project, store).items()} == {"x": 0}
    assert project.rows_seen() == []
    assert (project.status("t")["total"], project.status("t")["uptodate"]) == (0, True)


def test_names_that_rows_lack_are_filled_and_told_once(project, store):
    project.task(
        "t",
        f"""\
        from psyrun import Param, {store}
        store = {store}()
        pspace = Param(x=range(9))
        def execute(x):
            return {{"all": x}} | ({{"even": x / 2}} if x % 2 == 0 else {{"word": "odd"}})
        """,
    )
    done = project.psy("run")
    [line] = [line for line in (done.stdout + done.stderr).splitlines() if "even" in line or "word" in line]
    assert line.startswith("t: ")
    assert "'even'" in line
    assert "'word'" in line
    assert "'all'" not in line
    table = load(project, store)
    np.testing.assert_array_equal(table["even"], [x / 2 if x % 2 == 0 else np.nan for x in range(9)])
    assert [word if word == "odd" else None for word in table["word"]] == [
        "odd" if x % 2 else None for x in range(9)
    ]

    done = project.psy("run")
    assert "even" not in done.stdout + done.stderr


NAMES = """\
import random
from psyrun import Param, {store}

store = {store}()
pool_size = 2
max_jobs = 1
pspace = Param(i=[{rows}])


def execute(i):
    names = random.Random(i).sample(range(i, i + 4), 3)
    return {{f"n{{name}}": i for name in names}}
"""


def test_names_are_in_the_order_of_rows_whatever_ended_first(project, store):
    """Each row returns other names in another order; then there are rows before and among the old ones."""
    for rows in [range(8, 20), (*range(7, -1, -1), *range(19, 7, -1), *range(20, 24))]:
        project.task("t", NAMES.format(store=store, rows=", ".join(map(str, rows))))
        project.psy("run")
        drawn = (f"n{name}" for i in rows for name in random.Random(i).sample(range(i, i + 4), 3))
        result = load(project, store)
        assert list(result) == list(dict.fromkeys(["i", *drawn]))


def test_names_that_all_rows_have_are_not_told_of(project, store):
    project.task(
        "t", SETTINGS.format(store=store) + 'def execute(i, word):\n    return {"y": None, "i": i}\n'
    )
    done = project.psy("run")
    assert "lack" not in done.stdout + done.stderr


# ---------------------------------------------------------------------- many rows

METER = """\
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=sys.stderr)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(peak if sys.platform == "darwin" else peak * 1024)
sys.exit(code)
"""


def measure(project, *arguments):
    """Run psy and return the peak of memory, in bytes, of it or of one of the processes that it started."""
    psy = [sys.executable, "-P", "-m", "psyrun.cli", *arguments]
    done = subprocess.run(
        [sys.executable, "-c", METER, *psy],
        cwd=project.root,
        env=project.env(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
def test_a_million_rows_become_an_hdf5_file_in_less_than_500_mb(project):
    project.task(
        "t",
        """\
        from psyrun import Param, H5Store
        pspace = Param(x=range(1000)) * Param(y=range(1000))
        store = H5Store()
        def execute(x, y):
            return {"z": x + 0.5 * y}
        """,
    )
    assert measure(project, "run") < 500e6
    (project.root / "psy-work/t/result.h5").unlink()
    assert measure(project, "run") < 500e6  # The merge alone.
    table = load(project, "H5Store")
    number = np.arange(10**6)
    np.testing.assert_array_equal(table["z"], number // 1000 + 0.5 * (number % 1000))


def test_row_added_to_a_result_that_the_space_reads_as_plain_values_is_one_row_more(project):
    task = "from counting import seen\nfrom psyrun import Param\nfrom psyrun.store import load_plain\n"
    task += "pspace = {}\n"
    project.task("a", task.format("Param(x=[1, 2])") + "def execute(x):\n    return {'y': 10 * x}\n")
    rows = "file_dep = ['../psy-work/a/result.pkl']\ndef execute(z):\n    seen(z)\n    return {'w': z + 1}\n"
    project.task("b", task.format("Param(z=load_plain('../psy-work/a/result.pkl')['y'])") + rows)
    assert project.count("run") == 2
    project.edit("psy-tasks/task_a.py", "[1, 2]", "[1, 2, 3]")
    assert project.count("run") == 1
    assert project.result("b") == {"z": [10, 20, 30], "w": [11, 21, 31]}


@pytest.mark.parametrize("store", ["NpzStore", "H5Store"])
def test_values_that_the_store_changes_are_named_at_the_end_of_the_run(project, store):
    project.task(
        "a",
        f"""
        from psyrun import Param, {store}
        store = {store}()
        pspace = Param(x=range(4))
        def execute(x):
            return {{"good": [True, None][x % 2], "word": ["a", None][x % 2]}}
        """,
    )
    said = project.psy("run").stdout.splitlines()
    assert said[1:-1] == [
        "psy: 'good': None beside numbers is kept as NaN; PickleStore keeps None",
        "psy: 'good': True and False beside other values are kept as 1 and 0; PickleStore keeps them",
    ]
    loaded = AutodetectStore().load(
        project.root / f"psy-work/a/result.{'npz' if store == 'NpzStore' else 'h5'}"
    )
    assert loaded["word"].tolist() == ["a", None, "a", None]
