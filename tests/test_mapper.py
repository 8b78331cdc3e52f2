import contextlib
import inspect
import io
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import joblib
import numpy as np
import pytest

from psyrun import Param
from psyrun.errors import ExecuteError, StoreError
from psyrun.mapper import map_pspace, map_pspace_hdd_backed, map_pspace_parallel
from psyrun.pspace.table import ABSENT, stack
from psyrun.store import AutodetectStore, H5Store, NpzStore, PickleStore
from psyrun.store.protocol import count_rows

NAN = float("nan")
SPACE = Param(b=[3, 1, 2]) * Param(a=[0.5, 0.25])
STORES = [PickleStore(), NpzStore(), H5Store()]


def multiply(a, b):
    return {"product": a * b}


def fail_at(wrong):
    def fn(a):
        if a == wrong:
            raise ZeroDivisionError("no")
        return {"x": a}

    return fn


class Recorder:
    """Counts what it is called with."""

    def __init__(self, fn, until=None, error=KeyboardInterrupt):
        self.fn = fn
        self.calls = []
        self.until = until
        self.error = error

    def __call__(self, **assignment):
        if len(self.calls) == self.until:
            raise self.error
        self.calls.append(assignment)
        return self.fn(**assignment)


@pytest.fixture(params=STORES, ids=lambda store: store.ext)
def store(request):
    return request.param


@pytest.fixture
def filename(tmp_path, store):
    return tmp_path / f"result{store.ext}"


# ---------------------------------------------------------------------- all of them

FILE = {"filename": "result.pkl", "store": PickleStore()}
ALL = [
    pytest.param(map_pspace, {}, id="serial"),
    pytest.param(map_pspace_parallel, {"n_jobs": 2, "backend": "threading"}, id="threading"),
    pytest.param(map_pspace_parallel, {"n_jobs": 2, "backend": "loky"}, id="loky"),
    pytest.param(map_pspace_parallel, {"n_jobs": 2, "backend": "multiprocessing"}, id="multiprocessing"),
    pytest.param(map_pspace_hdd_backed, FILE, id="file"),
    pytest.param(map_pspace_hdd_backed, FILE | {"pool_size": 2}, id="file-pool"),
]
every = pytest.mark.parametrize(("mapper", "options"), ALL)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_signatures_are_those_that_users_know():
    new = ["on_error", "progress"]
    assert [*inspect.signature(map_pspace).parameters] == ["fn", "pspace", "exclude", *new]
    parallel = inspect.signature(map_pspace_parallel).parameters
    assert [*parallel] == ["fn", "pspace", "n_jobs", "backend", "exclude", *new]
    assert (parallel["n_jobs"].default, parallel["backend"].default) == (-1, None)
    backed = inspect.signature(map_pspace_hdd_backed).parameters
    assert [*backed] == ["fn", "pspace", "filename", "store", "return_data", "pool_size", "exclude", *new]
    for parameters in (parallel, backed):
        assert {parameters[name].kind for name in new} == {inspect.Parameter.KEYWORD_ONLY}


@every
def test_result_has_the_order_of_the_space_and_parameters_first(mapper, options):
    result = mapper(multiply, SPACE, **options)
    assert list(result) == ["b", "a", "product"]
    assert result == {
        "b": [3, 3, 1, 1, 2, 2],
        "a": [0.5, 0.25] * 3,
        "product": [1.5, 0.75, 0.5, 0.25, 1.0, 0.5],
    }


@every
def test_order_does_not_depend_on_how_long_rows_take(mapper, options):
    result = mapper(lambda i: {"x": time.sleep((5 - i) / 100)}, Param(i=range(6)), **options)
    assert result == {"i": list(range(6)), "x": [None] * 6}


@every
def test_lambdas_and_closures_are_evaluated(mapper, options):
    factor = 3
    assert mapper(lambda a: {"x": factor * a}, Param(a=[1, 2]), **options)["x"] == [3, 6]


@every
def test_what_is_returned_wins_over_a_parameter(mapper, options):
    result = mapper(lambda a, b: {"a": -a, "x": a}, Param(a=[1, 2], b=0), **options)
    assert result == {"a": [-1, -2], "b": [0, 0], "x": [1, 2]}


@every
def test_a_parameter_is_kept_in_rows_that_do_not_return_it(mapper, options):
    result = mapper(lambda a: {"a": "two"} if a == 2 else {}, Param(a=[1, 2, 3]), **options)
    assert result == {"a": [1, "two", 3]}


@every
def test_excluded_names_are_left_out(mapper, options):
    def fn(a, b):
        return {"x": a + b, "y": a - b}

    assert mapper(fn, Param(a=[1, 2], b=1), exclude=["b", "y"], **options) == {"a": [1, 2], "x": [2, 3]}


def test_one_excluded_name_may_be_a_string():
    assert map_pspace(lambda ab: {"x": ab, "a": 0}, Param(ab=[1]), exclude="ab") == {"x": [1], "a": [0]}


@every
def test_names_that_rows_lack_are_nan_beside_numbers_and_none_beside_others(mapper, options):
    def fn(i):
        return [{"x": 1.5, "word": "zero"}, {"x": 2}, {"array": np.ones(2)}][i]

    result = mapper(fn, Param(i=range(3)), **options)
    assert list(result) == ["i", "x", "word", "array"]
    assert result["x"][:2] == [1.5, 2]
    assert math.isnan(result["x"][2])
    assert result["word"] == ["zero", None, None]
    assert math.isnan(result["array"][0])


def test_names_are_in_the_order_of_the_rows_even_if_later_rows_end_first(tmp_path):
    """Two processes: row 0 waits for row 1; then the file goes on with a row that has another name."""

    def fn(i):
        if i == 1:
            (tmp_path / "ended").touch()
        while i == 0 and not (tmp_path / "ended").exists():
            time.sleep(0.01)
        return [{"x": 0, "y": 0}, {"y": 1, "z": 1}, {"w": 2, "x": 2}][i]

    file = {"filename": "result.pkl", "store": PickleStore(), "pool_size": 2}
    assert list(map_pspace_hdd_backed(fn, Param(i=[0, 1]), **file)) == ["i", "x", "y", "z"]
    assert list(map_pspace_hdd_backed(fn, Param(i=[2, 0, 1]), **file)) == ["i", "x", "y", "z", "w"]


@every
@pytest.mark.parametrize("pspace", [Param(a=[], b=[]), Param(a=[1], b=2)[1:]], ids=["no values", "slice"])
def test_an_empty_space_gives_its_names(mapper, options, pspace):
    assert mapper(multiply, pspace, **options) == {"a": [], "b": []}


@every
@pytest.mark.parametrize("returned", [None, 42, [("x", 1)]], ids=repr)
def test_no_dict_is_an_error_that_shows_what_was_returned(mapper, options, returned):
    def simulate(a):
        return returned

    with pytest.raises(ExecuteError) as caught:
        mapper(simulate, Param(a=[1]), **options)
    assert str(caught.value).startswith(f"simulate returned {returned!r} ({type(returned).__name__})")
    assert "return a dict" in str(caught.value)


def test_what_was_returned_is_shortened():
    with pytest.raises(TypeError) as caught:
        map_pspace(lambda a: "x" * 10_000, Param(a=[1]))
    assert len(str(caught.value)) < 400


def test_names_must_be_strings():
    def simulate(a):
        return {1: a}

    with pytest.raises(ExecuteError, match=r"simulate returned a dict with the name 1 \(int\)"):
        map_pspace(simulate, Param(a=[1]))


@every
def test_exceptions_tell_the_assignment(mapper, options):
    with pytest.raises(ZeroDivisionError) as caught:
        mapper(fail_at(2), Param(a=np.arange(4)), **options)
    assert caught.value.__notes__ == ["psyrun: raised by fn for a=2"]


def fail_often(a):
    if a % 3 == 1:
        raise ZeroDivisionError(f"no {a}")
    if a % 3 == 2:
        sys.exit("enough")
    return {"half": a / 2, "word": "zero"}


@every
def test_recorded_errors_are_a_column_and_leave_the_other_rows_as_they_are(mapper, options):
    result = mapper(fail_often, Param(a=[0, 1, 2, 3]), on_error="record", **options)
    assert list(result) == ["a", "failure", "half", "word"]
    assert result["a"] == [0, 1, 2, 3]
    assert result["failure"] == ["", "ZeroDivisionError: no 1", "SystemExit: enough", ""]
    assert np.array_equal(result["half"], [0, NAN, NAN, 1.5], equal_nan=True)
    assert result["word"] == ["zero", None, None, "zero"]


@every
def test_column_of_errors_is_there_where_no_row_or_each_row_fails(mapper, options):
    good = mapper(lambda a: {"x": a}, Param(a=[1]), on_error="record", **options)
    assert good == {"a": [1], "failure": [""], "x": [1]}
    Path("result.pkl").unlink(missing_ok=True)
    bad = mapper(fail_at(1), Param(a=[1, 1]), on_error="record", **options)
    assert bad == {"a": [1, 1], "failure": ["ZeroDivisionError: no"] * 2}
    Path("result.pkl").unlink(missing_ok=True)
    assert mapper(fail_at(1), Param(a=[]), on_error="record", **options) == {"a": [], "failure": []}


@every
def test_what_is_no_dict_is_an_error_like_others(mapper, options):
    result = mapper(lambda a: 7, Param(a=[1]), on_error="record", **options)
    assert result["failure"][0].startswith("ExecuteError: <lambda> returned 7 (int)")


@every
def test_another_column_of_that_name_is_refused(mapper, options):
    def fn(**row):
        return {"failure": 1}

    with pytest.raises(ValueError, match="there is a parameter 'failure'"):
        mapper(fn, Param(failure=[1]), on_error="record", **options)
    with pytest.raises(ExecuteError, match=r"fn returned a value 'failure'; .* use another name"):
        mapper(fn, Param(a=[1]), on_error="record", **options)
    with pytest.raises(ValueError, match="'failure' is to be left out"):
        mapper(fn, Param(a=[1]), on_error="record", exclude=["failure"], **options)
    assert mapper(fn, Param(a=[1]), **options) == {"a": [1], "failure": [1]}


def test_other_ways_with_errors_are_refused():
    with pytest.raises(ValueError, match="on_error is 'ignore'; it may be 'raise' or 'record'"):
        map_pspace(multiply, SPACE, on_error="ignore")


@pytest.mark.parametrize(("mapper", "options"), [ALL[0], ALL[4]])
def test_ctrl_c_is_no_error_of_a_row(mapper, options):
    def fn(a):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mapper(fn, Param(a=[1]), on_error="record", **options)


@pytest.mark.parametrize("kind", ["map_pspace_parallel", "map_pspace_hdd_backed"])
def test_ctrl_c_ends_all_processes_and_shows_how_far_it_came(tmp_path, wait_until, kind):
    """Ctrl-C goes to all processes of a terminal, or of a notebook's kernel."""
    options = {"map_pspace_parallel": "n_jobs=2", "map_pspace_hdd_backed": "'result.pkl', pool_size=2"}[kind]
    program = tmp_path / "program.py"
    program.write_text(
        "import os, pathlib, time\n"
        f"from psyrun import Param, {kind}\n"
        "def fn(a):\n"
        "    time.sleep(0.01)\n"
        "    pathlib.Path(f'begun-{os.getpid()}').touch()\n"
        "    return {'x': a}\n"
        f"{kind}(fn, Param(a=range(100_000)), {options}, on_error='record', progress=True)\n"
    )
    argv = [sys.executable, "-W", "error", program]
    process = subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_until(lambda: len(list(tmp_path.glob("begun-*"))) == 2)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)  # Until no process has standard error open.
        assert process.returncode == -signal.SIGINT
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert said.endswith("\nKeyboardInterrupt\n")
    assert re.search(r"^[\d,]+ of 100,000 rows, ", said, flags=re.MULTILINE)


# ---------------------------------------------------------------------- progress


@every
def test_progress_is_a_line_at_the_end_where_there_is_no_terminal(mapper, options, capsys):
    result = mapper(fail_often, Param(a=range(4)), on_error="record", progress=True, **options)
    assert len(result["half"]) == 4
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"4 of 4 rows, 2 failed, [\d.,e+]+ rows/s, (under|about) \d+ s\n", said.err)


def test_no_rows_are_a_line_too(capsys):
    map_pspace(multiply, SPACE[:0], progress=True)
    assert capsys.readouterr().err == "0 of 0 rows, under 1 s\n"


def test_progress_is_shown_up_to_an_error(capsys):
    with pytest.raises(ZeroDivisionError):
        map_pspace(fail_at(2), Param(a=range(4)), progress=True)
    assert capsys.readouterr().err.startswith("2 of 4 rows, ")


def test_terminal_that_cannot_move_gets_the_line(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "dumb")
    map_pspace(multiply, SPACE, progress=True)
    assert re.fullmatch(r"6 of 6 rows, .*under 1 s\n", stream.getvalue())


def test_rows_of_a_file_are_not_counted_again(capsys):
    map_pspace_hdd_backed(multiply, SPACE[:4], "a.pkl")
    map_pspace_hdd_backed(multiply, SPACE, "a.pkl", progress=True)
    assert capsys.readouterr().err.startswith("2 of 2 rows, ")


def test_terminal_gets_a_bar_that_stays(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    map_pspace(fail_often, Param(a=range(4)), on_error="record", progress=True)
    last = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", stream.getvalue()).rstrip().splitlines()[-1]
    assert re.search(r"rows ━+ 4/4 2 failed, [\d.,e+]+ rows/s, under 1 s 0:00:00", last), last


def test_a_buffer_that_is_returned_again_and_again_is_copied():
    buffer, known = np.zeros(1), {}

    def fn(i):
        buffer[:] = i
        known.update(array=buffer)
        return known

    assert np.array_equal(map_pspace(fn, Param(i=[1, 2]))["array"], [[1], [2]])


def test_any_name_can_be_a_parameter():
    assert map_pspace(lambda **p: {"x": p["net.rate"]}, Param(**{"net.rate": [1]}))["x"] == [1]


def test_importing_the_module_imports_nothing_heavy():
    code = "import sys, psyrun.mapper; print({'joblib', 'numpy', 'cloudpickle'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


# ---------------------------------------------------------------------- joblib


def report_process(a):
    return {"process": os.getpid()}


def count_jobs(a):
    """Tell how many rows are evaluated at the same time."""
    with LOCK:
        RUNNING.append(a)
        most = len(RUNNING)
    time.sleep(0.02)
    with LOCK:
        RUNNING.remove(a)
    return {"running": most}


LOCK = threading.Lock()
RUNNING = []


@pytest.mark.parametrize("config", [{"backend": "threading"}, {"prefer": "threads"}], ids=repr)
def test_a_surrounding_backend_is_used(config):
    with joblib.parallel_config(**config, n_jobs=2):
        result = map_pspace_parallel(report_process, Param(a=range(4)))
    assert set(result["process"]) == {os.getpid()}


def test_a_surrounding_number_of_jobs_is_used():
    with joblib.parallel_config(backend="threading", n_jobs=1):
        result = map_pspace_parallel(count_jobs, Param(a=range(4)))
    assert max(result["running"]) == 1


@pytest.mark.parametrize("config", [{"backend": "threading"}, {"prefer": "threads"}], ids=repr)
def test_all_processors_are_used_where_the_surroundings_set_no_number(config, monkeypatch):
    asked = []
    parallel = joblib.Parallel
    monkeypatch.setattr(joblib, "Parallel", lambda **kw: asked.append(kw["n_jobs"]) or parallel(**kw))
    with joblib.parallel_config(**config):
        map_pspace_parallel(multiply, SPACE)
    map_pspace_parallel(multiply, SPACE, backend="threading")
    with joblib.parallel_config(**config, n_jobs=1):
        map_pspace_parallel(multiply, SPACE, n_jobs=2)
    assert asked == [-1, -1, 2]


def test_lambdas_work_in_a_surrounding_multiprocessing():
    with joblib.parallel_config(backend="multiprocessing", n_jobs=2):
        assert map_pspace_parallel(lambda a: {"x": a}, Param(a=[1, 2]))["x"] == [1, 2]


def test_functions_typed_into_a_program_or_notebook_work():
    code = (
        "from psyrun import Param\n"
        "from psyrun.mapper import map_pspace_parallel\n"
        "import os\n"
        "OFFSET = 1\n"
        "def fn(a):\n"
        "    return {'x': a + OFFSET, 'other': os.getpid() != PARENT}\n"
        "PARENT = os.getpid()\n"
        "print(map_pspace_parallel(fn, Param(a=[1, 2]), n_jobs=2))\n"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.strip() == "{'a': [1, 2], 'x': [2, 3], 'other': [True, True]}"


# Deprecations inside dask are not ours.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:(dask|distributed|tornado).*")
@pytest.mark.filterwarnings("ignore::FutureWarning:(dask|distributed).*")
def test_a_dask_cluster_around_is_used():
    from distributed import Client, LocalCluster, get_worker

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        names = set(client.scheduler_info()["workers"])
        with joblib.parallel_config(backend="dask"):
            result = map_pspace_parallel(
                lambda a: {"x": 2 * a, "at": get_worker().address}, Param(a=range(20))
            )
    assert result["x"] == list(range(0, 40, 2))
    assert set(result["at"]) <= names


def test_large_spaces_of_fast_rows_are_quick():
    started = time.monotonic()
    result = map_pspace_parallel(lambda a: {"x": a}, Param(a=range(50_000)), n_jobs=2)
    assert result["x"] == list(range(50_000))
    assert time.monotonic() - started < 5


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize("pool_size", [1, 2])
def test_file_holds_what_is_returned(store, filename, pool_size):
    result = map_pspace_hdd_backed(multiply, SPACE, filename, store, pool_size=pool_size)
    assert result == map_pspace(multiply, SPACE)
    assert {name: list(values) for name, values in store.load(filename).items()} == result


def test_nothing_is_returned_where_no_data_is_wanted(store, filename):
    assert map_pspace_hdd_backed(multiply, SPACE, filename, store, return_data=False) is None
    assert count_rows(store.load(filename)) == 6


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interrupted_file_is_continued_where_it_stopped(store, filename, error):
    with pytest.raises(error):
        map_pspace_hdd_backed(Recorder(multiply, until=4, error=error), SPACE, filename, store)
    assert count_rows(store.load(filename)) == 4
    rest = Recorder(multiply)
    result = map_pspace_hdd_backed(rest, SPACE, filename, store)
    assert rest.calls == list(SPACE)[4:]
    assert result == map_pspace(multiply, SPACE)


def test_interrupt_while_a_file_is_written_neither_loses_nor_repeats_rows(tmp_path, monkeypatch):
    class Interrupted(PickleStore):
        def append(self, filename, data):
            if not Path(filename).exists():
                super().append(filename, data)
                raise KeyboardInterrupt
            super().append(filename, data)

    monkeypatch.setattr("psyrun.resultfile._PAUSE", 0)
    monkeypatch.setattr("psyrun.resultfile._SHARE", 0)
    with pytest.raises(KeyboardInterrupt):
        map_pspace_hdd_backed(multiply, SPACE, tmp_path / "a.pkl", Interrupted())
    assert PickleStore().load(tmp_path / "a.pkl") == map_pspace(multiply, SPACE[:1])


def test_complete_file_is_only_read(store, filename):
    first = map_pspace_hdd_backed(multiply, SPACE, filename, store)
    content = filename.read_bytes()
    again = Recorder(multiply)
    assert map_pspace_hdd_backed(again, SPACE, filename, store) == first
    assert again.calls == []
    assert filename.read_bytes() == content


def test_file_and_result_get_the_order_of_the_space_whatever_order_rows_were_in(store, filename):
    store.save(filename, map_pspace(multiply, SPACE[::-2]))
    result = map_pspace_hdd_backed(multiply, SPACE, filename, store)
    assert result == map_pspace(multiply, SPACE)
    assert {name: list(values) for name, values in store.load(filename).items()} == result


def test_rows_that_the_space_does_not_have_stay_after_those_that_it_has(store, filename):
    store.save(filename, map_pspace(lambda a: {"x": -a}, Param(a=[7, 2, 8])))
    result = map_pspace_hdd_backed(lambda a: {"x": a}, Param(a=[1, 2]), filename, store)
    assert result == {"a": [1, 2], "x": [1, -2]}
    assert list(store.load(filename)["a"]) == [1, 2, 7, 8]


def test_equal_assignments_are_counted(store, filename):
    store.save(filename, {"a": [1, 2], "x": [10, 20]})
    fn = Recorder(lambda a: {"x": 0})
    result = map_pspace_hdd_backed(fn, Param(a=[1, 1, 2, 2, 1]), filename, store)
    assert fn.calls == [{"a": 1}, {"a": 2}, {"a": 1}]
    assert result["x"] == [10, 0, 20, 0, 0]


@pytest.mark.parametrize(
    "column",
    [
        [1, 2, NAN],
        [True, False],
        pytest.param([True, 2], marks=pytest.mark.filterwarnings("ignore:'a'. True and False")),
        [1.5, 2, NAN],
        [0.0, -0.0],
        ["a", "longer", "", "a\0"],
        [b"a", b"b\0"],
        list(np.arange(3, dtype=np.uint8)),
        [[1, 2], [3, 4]],
        [np.eye(2), np.ones((2, 2))],
        [np.datetime64("2024-01-01"), np.datetime64("2024-01-02T03")],
        [1j, 2.0],
    ],
    ids=repr,
)
def test_rows_are_found_again_after_they_went_through_a_store(store, filename, column):
    pspace = Param(a=column) + Param(a=column[::-1])
    map_pspace_hdd_backed(lambda a: {"x": 1}, pspace[:1], filename, store)
    first = Recorder(lambda a: {"x": 1})
    map_pspace_hdd_backed(first, pspace, filename, store)
    assert len(first.calls) == pspace.size - 1
    again = Recorder(lambda a: {"x": 2})
    assert map_pspace_hdd_backed(again, pspace, filename, store)["x"] == [1] * pspace.size
    assert again.calls == []


def test_row_of_an_integer_is_not_given_to_a_real_number(store, filename):
    map_pspace_hdd_backed(lambda a: {"x": 1}, Param(a=[1, 2]), filename, store)
    fn = Recorder(lambda a: {"x": 2})
    map_pspace_hdd_backed(fn, Param(a=[1.0, 2.0]), filename, store)
    assert len(fn.calls) == 2


def test_padded_arrays_are_not_mistaken_for_others(tmp_path):
    pspace = Param(a=[np.ones(1), np.ones(2)])
    filename = tmp_path / "result.npz"
    map_pspace_hdd_backed(lambda a: {"x": 1}, pspace, filename, NpzStore())
    with pytest.raises(
        StoreError, match=r"NpzStore does not give back the values of parameter 'a'.*PickleStore"
    ):
        map_pspace_hdd_backed(lambda a: {"x": 1}, pspace, filename, NpzStore())


def test_file_without_a_parameter_is_not_continued(store, filename):
    map_pspace_hdd_backed(multiply, SPACE, filename, store, exclude=["b"])
    with pytest.raises(StoreError, match=r"without the parameters \['b'\]"):
        map_pspace_hdd_backed(multiply, SPACE, filename, store)


def test_names_that_a_file_has_stay_in_it_when_they_are_excluded(store, filename):
    map_pspace_hdd_backed(multiply, SPACE[:2], filename, store)
    result = map_pspace_hdd_backed(multiply, SPACE, filename, store, exclude=["b"])
    assert list(result) == ["a", "product"]
    again = Recorder(multiply)
    assert map_pspace_hdd_backed(again, SPACE, filename, store) == map_pspace(multiply, SPACE)
    assert again.calls == []


@pytest.mark.parametrize("pspace", [SPACE[:0], Param()], ids=["no rows", "no names"])
def test_empty_space_leaves_a_file_as_it_is(store, filename, pspace):
    map_pspace_hdd_backed(multiply, SPACE, filename, store)
    result = map_pspace_hdd_backed(multiply, pspace, filename, store)
    assert result == {"b": [], "a": [], "product": []}
    assert count_rows(store.load(filename)) == SPACE.size


def test_file_whose_parameters_are_overwritten_is_not_continued(store, filename):
    def fn(a):
        return {"a": -a}

    assert map_pspace_hdd_backed(fn, Param(a=[1, 2]), filename, store) == {"a": [-1, -2]}
    with pytest.raises(ExecuteError, match="another value for the parameter 'a' is returned"):
        map_pspace_hdd_backed(fn, Param(a=[1, 2]), filename, store)
    assert list(store.load(filename)["a"]) == [-1, -2]


def test_parameters_may_be_returned_as_they_are(store, filename):
    map_pspace_hdd_backed(lambda **row: row, SPACE[:2], filename, store)
    assert map_pspace_hdd_backed(lambda **row: row, SPACE, filename, store) == SPACE.build()


def test_names_may_differ_between_writes(store, filename, monkeypatch):
    monkeypatch.setattr("psyrun.resultfile._PAUSE", 0)
    monkeypatch.setattr("psyrun.resultfile._SHARE", 0)

    def fn(i):
        return {"even": i} if i % 2 == 0 else {"odd": float(i), "word": "odd"}

    result = map_pspace_hdd_backed(fn, Param(i=range(4)), filename, store)
    assert np.array_equal(result["even"], [0, NAN, 2, NAN], equal_nan=True)
    assert np.array_equal(result["odd"], [NAN, 1, NAN, 3], equal_nan=True)
    assert result["word"] == [None, "odd", None, "odd"]


def test_rewriting_an_hdf5_file_leaves_what_else_it_holds(tmp_path):
    H5Store(node="/other").save(tmp_path / "a.h5", {"x": [1]})
    H5Store().append(tmp_path / "a.h5", map_pspace(multiply, SPACE[::-2]))
    map_pspace_hdd_backed(multiply, SPACE, tmp_path / "a.h5", H5Store())
    assert list(H5Store(node="/other").load(tmp_path / "a.h5")["x"]) == [1]


def test_value_that_a_store_cannot_hold_is_found_with_the_first_row(tmp_path):
    fn = Recorder(lambda a: {"x": object()})
    with pytest.raises(StoreError, match="column 'x'"):
        map_pspace_hdd_backed(fn, Param(a=[1, 2, 3]), tmp_path / "a.h5", H5Store())
    assert len(fn.calls) == 1


@pytest.mark.parametrize("name", ["a b'; echo.pkl", "new/folder/ä.pkl", "plain"])
def test_any_file_name_will_do(tmp_path, name):
    for pspace in (Param(a=[2]), Param(a=[1, 2])):
        result = map_pspace_hdd_backed(lambda a: {"x": a}, pspace, str(tmp_path / name), PickleStore())
    assert result == {"a": [1, 2], "x": [1, 2]}
    assert [path.name for path in (tmp_path / name).parent.iterdir()] == [Path(name).name]


def test_format_may_be_left_to_the_extension(tmp_path):
    for pspace in (Param(a=[2]), Param(a=[1, 2])):
        map_pspace_hdd_backed(lambda a: {"x": a}, pspace, tmp_path / "a.npz", AutodetectStore())
    assert np.load(tmp_path / "a.npz")["x"].tolist() == [1, 2]


def test_writing_takes_a_small_share_of_the_time(tmp_path):
    class Counting(PickleStore):
        writes = 0

        def append(self, filename, data):
            self.writes += 1
            time.sleep(0.01)
            super().append(filename, data)

    store = Counting()
    map_pspace_hdd_backed(lambda a: {"x": a}, Param(a=range(5000)), tmp_path / "a.pkl", store)
    assert store.writes <= 2


def test_rows_are_written_while_others_are_evaluated(tmp_path, monkeypatch):
    monkeypatch.setattr("psyrun.resultfile._PAUSE", 0.01)
    filename = tmp_path / "a.pkl"
    seen = []

    def fn(i):
        time.sleep(0.02)
        seen.append(count_rows(PickleStore().load(filename)) if filename.exists() else 0)
        return {"x": i}

    map_pspace_hdd_backed(fn, Param(i=range(10)), filename, PickleStore())
    assert 0 < seen[-1] < 10


def test_rows_of_a_file_that_failed_are_tried_again(store, filename):
    space = Param(a=[1, 2, 3, 2])
    first = map_pspace_hdd_backed(fail_at(2), space, filename, store, on_error="record")
    assert first["failure"] == ["", "ZeroDivisionError: no", "", "ZeroDivisionError: no"]
    again = Recorder(fail_at(7))
    second = map_pspace_hdd_backed(again, space, filename, store, on_error="record")
    assert again.calls == [{"a": 2}, {"a": 2}]
    assert second == {"a": [1, 2, 3, 2], "failure": [""] * 4, "x": [1, 2, 3, 2]}
    assert count_rows(store.load(filename)) == 4


def test_rows_of_a_file_that_failed_stay_where_errors_are_raised_or_the_space_lacks_them(store, filename):
    failures = ["", "ZeroDivisionError: no"]
    map_pspace_hdd_backed(fail_at(2), Param(a=[1, 2]), filename, store, on_error="record")
    never = Recorder(multiply)
    assert map_pspace_hdd_backed(never, Param(a=[1, 2]), filename, store)["failure"] == failures
    map_pspace_hdd_backed(never, Param(a=[1]), filename, store, on_error="record")
    assert never.calls == []
    assert list(store.load(filename)["failure"]) == failures


def test_rows_that_a_file_had_before_errors_are_recorded_have_none(store, filename):
    map_pspace_hdd_backed(fail_at(7), Param(a=[1, 2]), filename, store)
    read = map_pspace_hdd_backed(fail_at(7), Param(a=[1, 2]), filename, store, on_error="record")
    assert read["failure"] == ["", ""]
    result = map_pspace_hdd_backed(fail_at(3), Param(a=[1, 2, 3]), filename, store, on_error="record")
    assert result["failure"] == ["", "", "ZeroDivisionError: no"]
    assert list(store.load(filename)["failure"]) == result["failure"]


def test_interrupt_while_failed_rows_are_tried_again_neither_loses_nor_repeats_rows(store, filename):
    space = Param(a=[1, 2, 3])
    map_pspace_hdd_backed(fail_often, space, filename, store, on_error="record")
    interrupted = Recorder(fail_at(7), until=1)
    with pytest.raises(KeyboardInterrupt):
        map_pspace_hdd_backed(interrupted, space, filename, store, on_error="record")
    rest = Recorder(fail_at(7))
    result = map_pspace_hdd_backed(rest, space, filename, store, on_error="record")
    assert (interrupted.calls, rest.calls) == ([{"a": 1}], [{"a": 2}])
    assert result["failure"] == ["", "", ""]


def test_value_that_a_store_cannot_hold_is_found_with_the_first_row_that_has_values(tmp_path):
    def fn(a):
        return {"x": 1 // a, "y": object()}

    record = Recorder(fn)
    with pytest.raises(StoreError, match="column 'y'"):
        map_pspace_hdd_backed(record, Param(a=[0, 1, 2]), tmp_path / "a.h5", on_error="record")
    assert len(record.calls) == 2


@pytest.mark.parametrize("name", ["a.pkl", "a.npz", "a.h5", "a.csv", "a.parquet"])
def test_store_is_chosen_by_the_extension_where_none_is_given(name):
    for rows in (2, 4):
        result = map_pspace_hdd_backed(lambda a: {"x": 2 * a}, Param(a=range(rows)), name)
    assert result == {"a": [0, 1, 2, 3], "x": [0, 2, 4, 6]}
    assert list(AutodetectStore().load(name)["x"]) == [0, 2, 4, 6]


def test_unknown_extension_is_an_error_that_names_those_that_there_are():
    with pytest.raises(StoreError, match=r"result.xyz: no store for the extension '.xyz'; there are .*\.npz"):
        map_pspace_hdd_backed(multiply, SPACE, "result.xyz")


def test_file_that_another_changes_meanwhile_is_refused(tmp_path):
    filename = tmp_path / "a.pkl"

    def fn(a):
        PickleStore().append(filename, {"a": [a], "x": [0]})
        return {"x": 1}

    with pytest.raises(StoreError, match="changed by another program"):
        map_pspace_hdd_backed(fn, Param(a=[1, 2]), filename, PickleStore())


@pytest.mark.parametrize("evaluate", [map_pspace, map_pspace_parallel])
def test_what_is_no_space_is_refused(evaluate):
    with pytest.raises(TypeError, match="expected a parameter space, not a list"):
        evaluate(lambda a: {"b": a}, [{"a": 1}])


# ---------------------------------------------------------------------- stacking tables


def test_stack_keeps_the_given_names_first_and_fills_the_others():
    tables = [{"y": [1, 2], "a": [3, 4]}, {"a": np.array([5]), "z": [None]}]
    stacked = stack(tables, ["a", "b"])
    assert list(stacked) == ["a", "b", "y", "z"]
    assert stacked["a"] == [3, 4, 5]
    assert stacked["b"] == [None] * 3
    assert np.array_equal(stacked["y"], [1, 2, NAN], equal_nan=True)
    assert stacked["z"] == [None] * 3


def test_stack_fills_single_values():
    stacked = stack(
        [{"x": [1, ABSENT], "y": ["a", ABSENT], "z": [None, ABSENT], "s": [np.str_("a"), ABSENT]}], []
    )
    assert math.isnan(stacked["x"][1])
    assert [stacked[name][1] for name in "yzs"] == [None] * 3


def test_stack_of_nothing_has_the_names():
    assert stack([], ["a"]) == {"a": []}


def test_stack_leaves_its_tables_alone():
    table = {"x": [1]}
    stack([table, table], ["x"])["x"].append(2)
    assert table == {"x": [1]}
