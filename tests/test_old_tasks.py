"""Task files, settings and work folders of psyrun 0.8: they run as they are, nothing is harmed."""

import importlib
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tables

import psyrun
from psyrun.store import AutodetectStore

# ---------------------------------------------------------------------- imports


@pytest.mark.parametrize(
    "line",
    [
        "from psyrun import Param, map_pspace, map_pspace_parallel, map_pspace_hdd_backed",
        "from psyrun import DefaultStore, PickleStore, ImmediateRun",
        "from psyrun import DistributeBackend, LoadBalancingBackend",
        "from psyrun.pspace import Param, missing, AmbiguousOperationError",
        "from psyrun.mapper import map_pspace, map_pspace_parallel, map_pspace_hdd_backed",
        "from psyrun.store import AutodetectStore, DefaultStore, PickleStore",
        "from psyrun.store.pickle import PickleStore",
        "from psyrun.store.npz import NpzStore",
        "from psyrun.store.h5 import H5Store",
        "from psyrun.backend import DistributeBackend, LoadBalancingBackend",
        "from psyrun.scheduler import GridEngine, ImmediateRun, Slurm, Sqsub",
        "from psyrun import Slurm, Sqsub; Slurm('scripts'), Sqsub('scripts')",
        "import psyrun.store; psyrun.store.PickleStore().load",
        "import psyrun.mapper; psyrun.mapper.map_pspace",
    ],
)
def test_names_are_where_they_were(line):
    exec(line, {})


def test_modules_that_are_gone_are_those_that_the_documentation_names():
    page = (Path(__file__).parent.parent / "docs/migration.md").read_text()
    (words,) = re.findall(r"These modules are gone: (.*?);", page, re.DOTALL)
    for name in re.findall("`(.*?)`", words):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)


def test_one_row_of_a_store_is_columns_of_one_value(tmp_path):
    for store in (psyrun.PickleStore(), psyrun.NpzStore(), psyrun.H5Store()):
        path = tmp_path / f"table{store.ext}"
        store.append(path, {"x": [1, 2, 3], "a": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]})
        row = psyrun.Param(**store.load(path, row=1))
        assert [(int(each["x"]), list(each["a"])) for each in row.iterate()] == [(2, [3.0, 4.0])]
        with pytest.raises(IndexError):  # Workers counted rows until they met it.
            store.load(path, row=3)


def test_operations_of_spaces_that_do_not_fit_are_runtime_errors():
    with pytest.raises(RuntimeError):
        psyrun.Param(a=[1]) * psyrun.Param(a=[2])


# ---------------------------------------------------------------------- task files

DARTS = """\
import numpy as np
from psyrun import Param, ImmediateRun
from psyrun.store.npz import NpzStore

pspace = Param(size=np.linspace(0.5, 1.0, 3)) * Param(repetition=np.arange(4))
min_items = 5
store = NpzStore()
workdir = {workdir!r}
scheduler = ImmediateRun()
scheduler_args = {{}}


def execute(size, repetition):
    darts = np.random.RandomState(repetition).uniform(-1, 1, (20, 2))
    return {{'inside': np.mean(np.abs(darts).max(axis=1) < size), 'darts': darts}}
"""


@pytest.mark.parametrize("absolute", [True, False], ids=["absolute", "relative"])
def test_arrays_in_an_npz_store_in_another_work_folder(project, tmp_path, absolute):
    workdir = str(tmp_path / "scratch/darts") if absolute else "scratch"
    project.task("darts", DARTS.format(workdir=workdir))
    project.psy("run")
    folder = project.root / workdir / "darts"
    with np.load(folder / "result.npz") as table:
        assert table["darts"].shape == (12, 20, 2)
        inside = np.abs(table["darts"]).max(axis=2) < table["size"][:, np.newaxis]
        np.testing.assert_allclose(table["inside"], inside.mean(axis=1))
        assert table["repetition"].tolist() == [0, 1, 2, 3] * 3
    assert len(list((folder / "in").iterdir())) == 2
    assert not (project.root / "psy-work/darts").exists()
    assert "up to date" in project.psy("run").stdout


DEVICES = """\
from psyrun import Param
from psyrun.backend import LoadBalancingBackend

pspace = Param(length=[3, 1, 2]) * Param(scale=[1., 10.])
backend = LoadBalancingBackend
pool_size = 2
max_jobs = 1

exclude_from_result = ['device']


def setup(proc_id):
    return {'device': (value for value in (proc_id, proc_id))}


def execute(device, **kwargs):
    assert kwargs.keys() == {'length', 'scale'}
    result = {'area': kwargs['length'] * kwargs['scale']}
    return result
"""
SAMPLED = """\
import numpy as np
from psyrun import Param

seed = 3
rng = np.random.RandomState(seed)
n_points = 6
pspace = Param(p=rng.uniform(-1, 1, n_points), q=rng.normal(0, 1, n_points), kind='random')


def execute(p, q, kind):
    return {'area': p * q, 'label': kind.upper()}
"""
COMBINED = """\
from psyrun import Param
from psyrun.mapper import map_pspace
from psyrun.pspace.algebra import missing
from psyrun.store.h5 import H5Store
import math

done = Param(a=[2, 4], extra=[0, 0])
pspace = missing(Param(a=[1, 2, 3, 4, 5]) - Param(a=[5]), done) + Param(a=[9], b=[0.5])
store = H5Store()
max_jobs = 2
overwrite_dirty = False


def execute(a, b):
    if math.isnan(b):
        b = 2.0
    return {'area': sum(map_pspace(lambda x: {'y': x * b}, Param(x=[a, 0]))['y'])}
"""
TEMPLATE = """\
import sys
from psyrun import Param
from psyrun.backend import DistributeBackend
from psyrun.scheduler import ImmediateRun
from psyrun.store import PickleStore

pspace = Param(u=[1, 2, 3]) * Param(v=[4, 5])

file_dep = ['numbers.txt']
resultfile = 'results/area.pkl'
store = PickleStore
workdir = 'psy-work'
overwrite_dirty = True

max_jobs = 100
min_items = 1
pool_size = 1

backend = DistributeBackend
scheduler = ImmediateRun
scheduler_args = {}
python = sys.executable
name = 'rectangle'


def execute(**kwargs):
    with open('numbers.txt') as f:
        return {'area': kwargs['u'] * kwargs['v'] * int(f.read())}
"""
OWN_SPACE = """\
from psyrun import map_pspace
from psyrun.pspace import ParameterSpace


class Triangle(ParameterSpace):
    def __init__(self, n):
        super().__init__(['i', 'j'])
        self.n = n

    def iterate(self):
        for i in range(self.n):
            for j in range(i):
                yield {'i': i, 'j': j}

    def __len__(self):
        return self.n * (self.n - 1) // 2


pspace = Triangle(4)


def execute(i, j):
    inner = map_pspace(lambda i, j: {'k': i * j}, Triangle(3))
    assert inner == {'i': [1, 2, 2], 'j': [0, 0, 1], 'k': [0, 0, 2]}
    return {'area': i * j}
"""
RANDOM = np.random.RandomState(3)
P, Q = RANDOM.uniform(-1, 1, 6), RANDOM.normal(0, 1, 6)


@pytest.mark.parametrize(
    ("text", "name", "path", "area"),
    [
        pytest.param(
            DEVICES, "t", "psy-work/t/result.pkl", [3, 30, 1, 10, 2, 20], id="a device for each process"
        ),
        pytest.param(SAMPLED, "t", "psy-work/t/result.pkl", list(P * Q), id="a random search"),
        pytest.param(COMBINED, "t", "psy-work/t/result.h5", [2, 6, 4.5], id="a space of parts"),
        pytest.param(
            OWN_SPACE, "t", "psy-work/t/result.pkl", [0, 0, 2, 0, 3, 6], id="a space of its own class"
        ),
        pytest.param(
            TEMPLATE, "rectangle", "psy-tasks/results/area.pkl", [12, 15, 24, 30, 36, 45], id="every setting"
        ),
    ],
)
def test_task_files_run_as_they_are(project, text, name, path, area):
    project.write("psy-tasks/numbers.txt", "3")
    project.task("t", text)
    said = project.psy("run", name).stdout
    assert said.endswith(f"{name}: finished, {len(area)} rows in {path}\n")
    table = AutodetectStore().load(project.root / path)
    assert list(table["area"]) == area
    assert "device" not in table
    assert "up to date" in project.psy("run").stdout


def test_defaults_in_psy_conf(project):
    project.write(
        "psy-tasks/psy-conf.py",
        "from psyrun.backend import LoadBalancingBackend\nfrom psyrun.scheduler import ImmediateRun\n"
        "backend = LoadBalancingBackend\nscheduler = ImmediateRun()\npool_size = 1\nmax_jobs = 2\n",
    )
    project.task(
        "t", "from psyrun import Param\npspace = Param(x=[5])\ndef execute(x):\n    return {'y': x}\n"
    )
    assert "1 process" in project.psy("run").stdout
    assert project.result("t") == {"x": [5], "y": [5]}


def test_scheduler_of_the_old_interface_is_refused_with_a_reason(project):
    """What it has to offer now is something else; guessing would lose jobs."""
    project.task(
        "t",
        """\
        from psyrun import Param
        from psyrun.scheduler import Scheduler

        class Mine(Scheduler):
            def submit(self, args, output_filename, name=None, depends_on=None, scheduler_args=None):
                return 1
            def kill(self, jobid):
                pass
            def get_status(self, jobid):
                pass
            def get_jobs(self):
                return []

        scheduler = Mine()
        pspace = Param(x=[5])
        def execute(x):
            return {'y': x}
        """,
    )
    done = project.psy("run", code=2)
    [line] = done.stderr.splitlines()
    assert "psy-tasks/task_t.py" in line
    assert "scheduler has to be" in line


def test_names_to_exclude_may_be_lacking_and_tasks_run_by_name(project):
    for name in "ab":
        project.task(name, f"{PLAIN}exclude_from_result = ['z']\n")
    said = project.psy("run", "b", "a").stdout
    assert said.index("a: finished") < said.index("b: finished")
    assert psyrun.map_pspace(lambda x: {"y": x}, psyrun.Param(x=[1]), exclude=["y", "z"]) == {"x": [1]}


# ---------------------------------------------------------------------- settings

PLAIN = """\
from counting import seen
from psyrun import Param
pspace = Param(x=range(3))
def execute(x):
    seen(x)
    return {"y": x * 10}
"""


@pytest.mark.parametrize("absolute", [True, False], ids=["absolute", "relative"])
def test_python_says_which_python_jobs_run(project, absolute):
    wrapper = project.write(
        "bin/my python", f'#!/bin/sh\necho "$@" >> called.txt\nexec "{sys.executable}" "$@"\n'
    )
    wrapper.chmod(0o755)
    python = str(wrapper) if absolute else "bin/my python"
    project.task("t", f"{PLAIN}python = {python!r}\n")
    assert project.count("run") == 3
    assert "psyrun.worker" in (project.root / "called.txt").read_text()
    assert project.result("t") == {"x": [0, 1, 2], "y": [0, 10, 20]}

    project.edit("psy-tasks/task_t.py", f"python = {python!r}\n", "")
    assert project.count("run") == 0


def test_python_that_is_not_there_is_named(project):
    project.task("t", f"{PLAIN}python = '/no/such/python'\n")
    done = project.psy("run", code=1)
    assert "/no/such/python" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert project.rows_seen() == []
    project.edit("psy-tasks/task_t.py", "python = '/no/such/python'", "")
    assert project.count("run") == 3


def test_resultfile_may_lie_outside_the_project(project, tmp_path):
    target = tmp_path / "results/of t.npz"
    project.task("t", f"{PLAIN}resultfile = {str(target)!r}\n")
    assert project.count("run") == 3
    with np.load(target) as table:
        assert table["y"].tolist() == [0, 10, 20]
    assert project.status("t")["result"] == str(target)
    target.unlink()
    assert project.count("run") == 0
    assert target.exists()


def test_resultfile_of_an_old_task_is_found_beside_its_task_file(project):
    """The merge job of 0.8 ran in that folder, whatever `psy` looked at later."""
    project.task("t", f"{PLAIN}resultfile = 'res/old.pkl'\n")
    project.write("psy-tasks/res/old.pkl", "")
    save_pickle(project.root / "psy-tasks/res/old.pkl", {"x": [0, 2], "y": [-1, -2]})
    assert "psy-tasks/res/old.pkl: psyrun did not write" in project.psy("run", code=2).stderr
    assert project.count("run", "--continue", "t") == 1
    assert AutodetectStore().load(project.root / "psy-tasks/res/old.pkl")["y"] == [-1, 10, -2]
    assert not (project.root / "res").exists()


def test_plan_that_names_the_result_elsewhere_keeps_rows_and_the_old_result(project):
    """Development versions took `resultfile` as relative to where psy ran."""
    project.task("t", f"{PLAIN}resultfile = '../res/t.pkl'\n")
    project.psy("run")
    project.edit("psy-tasks/task_t.py", "'../res/t.pkl'", "'res/t.pkl'")
    assert project.count("run") == 0
    assert read_files(project.root / "res").keys() == read_files(project.root / "psy-tasks/res").keys()


@pytest.mark.parametrize("written", ["ImmediateRun", "ImmediateRun()"])
def test_immediate_run_evaluates_on_this_machine(project, written):
    text = PLAIN.replace("import Param", "import ImmediateRun, Param")
    project.task("t", f"{text}scheduler = {written}\n")
    assert project.count("run") == 3
    assert project.result("t") == {"x": [0, 1, 2], "y": [0, 10, 20]}
    project.edit("psy-tasks/task_t.py", '{"y": x * 10}', '{"y": 10 // x}')
    assert project.count("run", code=1) == 3
    assert project.status("t")["failed"] == 1


# ---------------------------------------------------------------------- work folders

DONE = {"x": [3, 0, 2], "y": [-3, 0, -2]}  # The order in which files were listed.


def save_pickle(path, table):
    with path.open("wb") as file:
        pickle.dump(table, file, protocol=4)


def save_npz(path, table):
    with path.open("wb") as file:
        np.savez(file, **table)


def save_h5(path, table):
    with tables.open_file(str(path), "w") as h5:
        for name, values in table.items():
            h5.create_earray("/psyrun", name, obj=np.asarray(values), shape=(0,), createparents=True)


FORMATS = {"pkl": ("PickleStore", save_pickle), "npz": ("NpzStore", save_npz), "h5": ("H5Store", save_h5)}


def leave_behind(project, ext, result=True, balanced=False):
    """Write a task file and the work folder that 0.8 left, where x=1 failed; return its files."""
    name, save = FORMATS[ext]
    project.task(
        "t",
        f"""\
        from counting import seen
        from psyrun import Param, {name}
        pspace = Param(x=range(5))
        store = {name}()
        pool_size = 1
        def execute(x):
            seen(x)
            return {{"y": x * 10}}
        """,
    )
    folder = project.root / "psy-work/t"
    folder.mkdir(parents=True)
    if balanced:
        save(folder / f"in.{ext}", {"x": [0, 1, 2, 3]})
        (folder / "status").write_text("5")
        (folder / "status.lock").touch()
        save(folder / f"result.{'' if result else 'part.'}{ext}", DONE)
        jobs = ["t:pspace", "t:process", "t:finalize"]
    else:
        (folder / "in").mkdir()
        (folder / "out").mkdir()
        save(folder / f"pspace.{ext}", {"x": [0, 1, 2, 3]})
        for number, xs in enumerate([[0], [3, 1], [2]]):
            save(folder / f"in/{number}.{ext}", {"x": xs})
            (folder / f"t:process:{number}.log").write_text("Job started\n")
        for part, x in (("0", 0), ("1.part", 3), ("2", 2)):
            save(folder / f"out/{part}.{ext}", {"x": [x], "y": [-x]})
        if result:
            save(folder / f"result.{ext}", DONE)
        jobs = ["t:split", "t:process", "t:merge"]
    for job in jobs:
        (folder / f"{job}.py").write_text(f"#!{sys.executable}\nraise SystemExit('{job} was run')\n")
        (folder / f"{job}.log").write_text("Job started\n")
    return read_files(folder)


def read_files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_left_alone(project, before, *replaced):
    """Check that all files are as they were, but for those that a run was told to replace."""
    after = read_files(project.root / "psy-work/t")
    changed = [name for name, content in before.items() if after.get(name) != content]
    assert changed == list(replaced)


every_format = pytest.mark.parametrize("ext", FORMATS)


@every_format
def test_old_result_is_neither_misread_nor_overwritten(project, ext):
    before = leave_behind(project, ext)
    done = project.psy("run", code=2)
    for words in (f"psy-work/t/result.{ext}", "psy run --continue t", "psy run --force t"):
        assert words in done.stderr
    assert project.rows_seen() == []
    assert read_files(project.root / "psy-work/t") == before


@every_format
@pytest.mark.parametrize("balanced", [False, True], ids=["distributed", "balanced"])
def test_continue_adopts_the_rows_of_an_old_result(project, ext, balanced):
    before = leave_behind(project, ext, balanced=balanced)
    assert project.count("run", "--continue", "t") == 2
    assert sorted(project.rows_seen()) == ["(1,)", "(4,)"]
    table = AutodetectStore().load(project.root / f"psy-work/t/result.{ext}")
    assert [int(x) for x in table["x"]] == [0, 1, 2, 3, 4]
    assert [int(y) for y in table["y"]] == [0, 10, -2, -3, 40]
    assert_left_alone(project, before, f"result.{ext}")
    assert project.count("run") == 0
    project.edit("psy-tasks/task_t.py", "range(5)", "range(6)")
    assert project.count("run") == 1


@every_format
@pytest.mark.parametrize("balanced", [False, True], ids=["distributed", "balanced"])
def test_continue_adopts_the_rows_of_an_unfinished_old_work_folder(project, ext, balanced):
    before = leave_behind(project, ext, result=False, balanced=balanced)
    assert "evaluate 2 rows, keep 3 finished rows" in project.psy("plan", "--continue", "t").stdout
    assert project.count("run", "--continue", "t") == 2
    table = AutodetectStore().load(project.root / f"psy-work/t/result.{ext}")
    assert [int(x) for x in table["x"]] == [0, 1, 2, 3, 4]
    assert [int(y) for y in table["y"]] == [0, 10, -2, -3, 40]
    assert_left_alone(project, before)
    assert project.count("run") == 0


def test_part_of_an_old_work_folder_that_is_damaged_is_named(project):
    leave_behind(project, "pkl", result=False)
    path = project.root / "psy-work/t/out/2.pkl"
    path.write_bytes(path.read_bytes()[:9])
    assert "3 files with rows" in project.psy("run", code=2).stderr
    assert "psy-work/t/out/2.pkl: its rows can't be kept" in project.psy("run", "-c", "t", code=2).stderr
    path.unlink()
    assert project.count("run", "--continue", "t") == 3


def test_continue_adopts_only_rows_with_the_parameters_of_the_space(project):
    leave_behind(project, "npz", result=False)
    save_npz(project.root / "psy-work/t/result.npz", {"z": [0, 1], "y": [-1, -2]})
    assert "'x'" in project.psy("run", "--continue", "t", code=2).stderr
    assert project.rows_seen() == []


def test_continue_finds_rows_whose_kinds_the_store_changed(project):
    """Stores of 0.8 kept a column of numbers in one type, lists as arrays, bytes without NULs behind them."""
    project.task(
        "t",
        """\
        from counting import seen
        from psyrun import NpzStore, Param
        store = NpzStore()
        space = Param(i=[1, 2.5, True], v=[[1, 2], (3, 4), [5, 6.5]])
        pspace = space * Param(b=[b"ab", b"c\\0"], n=[None, 3])
        def execute(i, v, b, n):
            seen(i, v, b, n)
            return {"y": repr((i, v, b, n))}
        """,
    )
    table = {"i": [], "v": [], "b": [], "n": [], "y": []}
    rows = [
        (i, v, *more)
        for i, v in [(1, [1, 2]), (2.5, (3, 4)), (True, [5, 6.5])]
        for more in [(b"ab", np.nan), (b"c", 3)]
    ]
    for number, row in enumerate(reversed(rows[1:])):
        for name, value in zip(table, (*row, f"old {number}")):
            table[name].append(value)
    (project.root / "psy-work/t").mkdir(parents=True)
    save_npz(project.root / "psy-work/t/result.npz", table)
    assert project.count("run", "--continue") == 1
    assert project.rows_seen() == ["(1, [1, 2], b'ab', None)"]
    with np.load(project.root / "psy-work/t/result.npz", allow_pickle=True) as found:
        assert found["y"][1:].tolist() == [f"old {number}" for number in (4, 3, 2, 1, 0)]
    project.edit("psy-tasks/task_t.py", "repr((", "str((")
    assert project.count("run", "--yes") == 6
    assert (
        "(True, [5, 6.5], b'c\\x00', 3)" in project.rows_seen()
    )  # The values of the space, not those of the file.


def test_no_two_rows_of_the_space_share_a_row_whose_kind_the_store_changed(project):
    project.task(
        "t",
        """\
        from counting import seen
        from psyrun import NpzStore, Param
        store = NpzStore()
        pspace = Param(x=[1, True, 2, 3, 3])
        def execute(x):
            seen(x)
            return {"y": x * 10}
        """,
    )
    (project.root / "psy-work/t").mkdir(parents=True)
    save_npz(project.root / "psy-work/t/result.npz", {"x": [1.0, 2.0, 3.0], "y": [-1, -2, -3]})
    assert project.count("run", "--continue") == 3
    assert sorted(project.rows_seen()) == ["(1,)", "(3,)", "(True,)"]
    with np.load(project.root / "psy-work/t/result.npz", allow_pickle=True) as found:
        assert [int(y) for y in found["y"]] == [10, 10, -2, -3, 30, -1]


@every_format
def test_plan_and_status_know_an_old_result(project, ext):
    before = leave_behind(project, ext)
    said = project.psy("plan", "--continue").stdout
    assert said == "t: take over rows that psyrun did not write\nt: evaluate 2 rows, keep 3 finished rows\n"
    words = f"t: psy-work/t/result.{ext}: psyrun did not write this file; keep its rows: psy run --continue t"
    assert words in project.psy("status").stdout
    assert read_files(project.root / "psy-work/t") == before
    project.psy("run", "--continue")
    assert "did not write" not in project.psy("status").stdout
    assert project.psy("plan", "--continue").stdout == "t: up to date (5 rows)\n"


def test_plan_of_an_old_result_with_all_rows_evaluates_none(project):
    leave_behind(project, "npz")
    save_npz(project.root / "psy-work/t/result.npz", {"x": [0.0, 1, 2, 3, 4], "y": [0, -1, -2, -3, -4]})
    said = project.psy("plan", "--continue").stdout
    assert "t: write psy-work/t/result.npz from 5 finished rows\n" in said
    assert project.count("run", "--continue") == 0


def test_force_evaluates_all_rows_of_an_old_work_folder(project):
    before = leave_behind(project, "pkl")
    assert project.count("run", "--force", "t") == 5
    assert project.result("t") == {"x": list(range(5)), "y": [0, 10, 20, 30, 40]}
    assert_left_alone(project, before, "result.pkl")


@every_format
@pytest.mark.parametrize("balanced", [False, True], ids=["distributed", "balanced"])
def test_unfinished_old_work_folder_is_named_and_left_alone(project, ext, balanced):
    before = leave_behind(project, ext, result=False, balanced=balanced)
    folder = "psy-work/t" if balanced else "psy-work/t/out"
    words = f"{folder}: psyrun 0.8 left 3 rows there, of a task that it did not finish; keep them: psy run"
    assert words in project.psy("run", code=2).stderr
    assert words in project.psy("plan").stderr
    assert words in project.psy("status").stdout
    assert project.rows_seen() == []
    assert read_files(project.root / "psy-work/t") == before
    assert project.count("run", "--force") == 5
    assert project.count("run") == 0
    table = AutodetectStore().load(project.root / f"psy-work/t/result.{ext}")
    assert [int(y) for y in table["y"]] == [0, 10, 20, 30, 40]
    assert_left_alone(project, before)


@pytest.mark.parametrize("result", [True, False], ids=["finished", "unfinished"])
@pytest.mark.parametrize(
    "arguments", [["status", "-v"], ["plan"], ["errors"], ["list"], ["test"], ["kill", "t"]], ids=" ".join
)
def test_other_commands_work_on_an_old_work_folder_and_leave_it_alone(project, arguments, result):
    before = leave_behind(project, "pkl", result=result)
    done = project.psy(*arguments)
    assert "Traceback" not in done.stdout + done.stderr
    assert read_files(project.root / "psy-work/t") == before


@every_format
@pytest.mark.parametrize("source", ["psy-work/t/out", "psy-work/t", "t"])
def test_rows_in_an_old_folder_out_are_merged(project, ext, source):
    before = leave_behind(project, ext, result=False)
    assert project.psy("merge", source, f"partial.{ext}").stdout == f"partial.{ext}: 3 rows\n"
    table = AutodetectStore().load(project.root / f"partial.{ext}")
    assert {name: [int(value) for value in table[name]] for name in ("x", "y")} == {
        "x": [0, 3, 2],
        "y": [0, -3, -2],
    }
    assert read_files(project.root / "psy-work/t") == before


def test_merge_takes_any_folder_of_tables_in_the_order_of_their_names(project):
    folder = project.root / "any"
    folder.mkdir()
    save_pickle(folder / "10.pkl", {"x": [3], "y": ["c"]})
    save_npz(folder / "9.npz", {"x": [1, 2]})
    save_h5(folder / "b.h5", {"x": [4.5], "z": [1]})
    (folder / "notes.txt").write_text("no table")
    (folder / ".9.pkl").write_text("half")
    project.psy("merge", "any", "any/all.pkl")
    table = AutodetectStore().load(folder / "all.pkl")
    assert table["x"] == [1, 2, 3, 4.5]
    assert table["y"] == [None, None, "c", None]
    project.psy("merge", "--force", "any", "any/all.pkl")
    assert AutodetectStore().load(folder / "all.pkl")["x"] == table["x"]
    save_pickle(folder / "c.pkl", {"x": [1, 2], "y": [1]})
    assert "any/c.pkl: not a table" in project.psy("merge", "any", "more.pkl", code=1).stderr


def test_merge_takes_the_name_of_a_task(project):
    project.task("t", PLAIN.replace("x * 10", "10 // x"))
    project.psy("run", code=1)
    assert project.psy("merge", "t", "so-far.pkl").stdout == "so-far.pkl: 2 rows\n"
    assert AutodetectStore().load(project.root / "so-far.pkl") == {"x": [1, 2], "y": [10, 5]}
    project.write("psy-tasks/task_t.py", "1 +")  # The file is not needed.
    project.psy("merge", "--force", "t", "so-far.pkl")
    assert "no task 'u'" in project.psy("merge", "u", "more.pkl", code=2).stderr


@pytest.mark.parametrize("arguments", [["clean", "t"], ["clean", "--stale", "t"]], ids=" ".join)
def test_cleaning_leaves_files_of_an_old_work_folder(project, arguments):
    before = leave_behind(project, "pkl", result=False)
    project.psy("run", "--force")
    project.psy(*arguments)
    assert_left_alone(project, before)
