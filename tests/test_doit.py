"""doit: what psyrun relies on in it, and psy, plain doit and a dodo file of one's own on the same files."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain
from doit.exceptions import TaskFailed

from psyrun.cli import commands as cli

TEMPLATE = Path(__file__).parent.parent / "dodo_template.py"
TASK = """\
from counting import seen
from psyrun import Param

pspace = Param(x=range(8))
pool_size = 1
max_jobs = 2


def execute(x):
    seen(x)
    return {"y": 2 * x}
"""
OWN_DODO = """\
import psyrun


def task_psy():
    yield from psyrun.doit_tasks("psy-tasks")


def plot():
    with open("psy-work/example/result.pkl", "rb") as source, open("plot.log", "a") as log:
        log.write(f"{len(source.read())}\\n")


def task_plot():
    return {"file_dep": ["psy-work/example/result.pkl"], "targets": ["plot.log"], "actions": [plot]}
"""


@pytest.fixture
def doit(project):
    """Run plain doit in the project and return what it printed."""

    def run(*arguments, code=0):
        argv = [sys.executable, "-P", "-m", "doit", *arguments]
        done = subprocess.run(
            argv, cwd=project.root, env=project.env(), capture_output=True, text=True, timeout=60, check=False
        )
        said = done.stdout + done.stderr
        assert done.returncode == code if code is not None else done.returncode != 0, said
        return said

    return run


@pytest.fixture
def template(project):
    """A project with a task and the template as its dodo file."""
    project.task("example", TASK)
    shutil.copy(TEMPLATE, project.root / "dodo.py")
    return project


@pytest.fixture
def own(project):
    """A project with a task and a dodo file that plots its result."""
    project.task("example", TASK)
    project.write("dodo.py", OWN_DODO)
    return project


def count(project, run, *arguments, **more):
    """Return how many rows are evaluated by a call of `run`."""
    before = len(project.rows_seen())
    run(*arguments, **more)
    return len(project.rows_seen()) - before


def plots(project):
    log = project.root / "plot.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def assert_right(project, n, factor=2, task="example"):
    assert project.result(task) == {"x": list(range(n)), "y": [factor * x for x in range(n)]}


# ---------------------------------------------------------------------- what psyrun relies on


def run_graph(folder, *arguments, **creators):
    """Run doit on functions that create tasks; return its exit code."""
    config = {"dep_file": str(folder / "doit.db"), "backend": "sqlite3", "verbosity": 0}
    loader = ModuleTaskLoader({"DOIT_CONFIG": config, **creators})
    return DoitMain(loader, config_filenames=()).run(["run", *arguments])


def test_doit_never_records_a_pending_node_as_success(tmp_path):
    runs = []
    (tmp_path / "dep").write_text("1")

    def act():
        runs.append(1)
        (tmp_path / "target").write_text("1")
        return TaskFailed("in flight", report=False)

    def task_a():
        return {"actions": [act], "file_dep": [str(tmp_path / "dep")], "targets": [str(tmp_path / "target")]}

    assert [run_graph(tmp_path, task_a=task_a) for _ in range(2)] == [1, 1]
    assert len(runs) == 2


def test_doit_ends_the_whole_run_where_a_predicate_raises(tmp_path):
    runs = []

    def task_a():
        return {"actions": [lambda: runs.append("a")], "uptodate": [lambda: 1 / 0]}

    def task_b():
        return {"actions": [lambda: runs.append("b")]}

    assert run_graph(tmp_path, "--continue", task_a=task_a, task_b=task_b) != 0
    assert runs == []


def test_doit_hashes_a_file_dep_after_the_action(tmp_path):
    runs = []
    dep = tmp_path / "dep"
    dep.write_text("1")

    def act():
        runs.append(1)
        dep.write_text("edited during the action")

    def task_a():
        return {"actions": [act], "file_dep": [str(dep)]}

    assert [run_graph(tmp_path, task_a=task_a) for _ in range(2)] == [0, 0]
    assert len(runs) == 1


def test_doit_takes_predicates_and_file_deps_as_a_conjunction(tmp_path):
    runs, settled, dep = [], [True], tmp_path / "dep"
    dep.write_text("1")

    def task_a():
        return {"actions": [lambda: runs.append(1)], "file_dep": [str(dep)], "uptodate": [lambda: settled[0]]}

    def again():
        before = len(runs)
        run_graph(tmp_path, task_a=task_a)
        return len(runs) - before

    assert (again(), again()) == (1, 0)
    settled[0] = False
    assert again() == 1
    settled[0] = True
    dep.write_text("2")
    assert (again(), again()) == (1, 0)


def test_doit_groups_nodes_by_basename(tmp_path):
    runs = []

    def task_any():
        for group in "ab":
            yield {"basename": group, "name": None, "doc": f"group {group}"}
            for name in "xy":
                yield {
                    "basename": group,
                    "name": name,
                    "actions": [(lambda run: runs.append(run), [group + name])],
                }

    assert run_graph(tmp_path, "b", task_any=task_any) == 0
    assert runs == ["bx", "by"]
    assert run_graph(tmp_path, "a:y", task_any=task_any) == 0
    assert runs[2:] == ["ay"]


def test_doit_writes_its_database_at_the_end_only(tmp_path):
    listed = []

    def look():
        with closing(sqlite3.connect(tmp_path / "doit.db")) as database:
            listed.append(database.execute("select count(*) from doit").fetchone()[0])

    def task_a():
        return {"actions": [lambda: None]}

    def task_b():
        return {"actions": [look], "task_dep": ["a"]}

    assert run_graph(tmp_path, task_a=task_a, task_b=task_b) == 0
    look()
    assert listed == [0, 2]


# ---------------------------------------------------------------------- the template


@pytest.mark.slow
def test_template_runs_every_step_once(template, doit):
    assert count(template, doit) == 8
    assert_right(template, 8)
    said = doit()
    assert [line for line in said.splitlines() if line.startswith(".")] == []
    assert len(template.rows_seen()) == 8
    listed = doit("list")
    assert "example" in listed
    assert "example:split" not in listed
    listed = doit("list", "--all")
    for step in ("split", "process", "merge"):
        assert f"example:{step}" in listed
    info = doit("info", "example:process")
    assert "psy-work/example/plan.json" in info
    assert "psy-work/example/process.json" in info
    template.edit("psy-tasks/task_example.py", "range(8)", "range(10)")
    assert count(template, doit, "example") == 2
    assert_right(template, 10)


@pytest.mark.slow
def test_psy_and_doit_evaluate_nothing_twice_in_turn(template, doit):
    assert template.count("run") == 8
    assert count(template, doit) == 0
    template.edit("psy-tasks/task_example.py", "range(8)", "range(10)")
    assert count(template, doit) == 2
    assert template.count("run") == 0
    template.edit("psy-tasks/task_example.py", "range(10)", "range(11)")
    assert template.count("run") == 1
    assert count(template, doit) == 0
    assert_right(template, 11)


@pytest.mark.slow
def test_plain_doit_goes_on_without_a_damaged_database(template, doit):
    assert count(template, doit) == 8
    database_of(template).write_bytes(b"not a database, by far " * 200)
    said = doit()
    assert said.count(".doit.db: file is not a database") == 1
    assert ".doit.db" not in doit()
    assert len(template.rows_seen()) == 8


@pytest.mark.slow
def test_split_takes_its_orders_as_options(template, doit):
    doit()
    template.edit("psy-tasks/task_example.py", "2 * x", "3 * x")
    assert count(template, doit, "example:split", "--keep-rows") == 0
    assert count(template, doit) == 0
    assert_right(template, 8)
    assert count(template, doit, "example:split", "--again") == 0
    assert count(template, doit) == 8
    assert_right(template, 8, factor=3)
    assert count(template, doit) == 0


def test_broken_task_file_does_not_stop_the_others(template, doit):
    template.task("broken", "from psyrun import Param\npspace = Param(x=range(3)\n")
    template.task("raising", "pspace = 1 / 0\ndef execute(x):\n    return {}\n")
    said = doit(code=None)
    assert "task_broken.py" in said
    assert "task_raising.py" in said
    assert_right(template, 8)


def test_damaged_plan_does_not_stop_the_others(template, doit):
    template.task("other", TASK)
    doit()
    for name in ("plan.json", "plan.json.bak"):
        (template.root / "psy-work/example" / name).write_bytes(b"garbage")
    (template.root / "psy-work/other/result.pkl").unlink()
    said = doit(code=None)
    assert "plan.json" in said
    assert_right(template, 8, task="other")


def test_failed_rows_fail_plain_doit(template, doit):
    template.edit("psy-tasks/task_example.py", "seen(x)", "seen(x)\n    1 / (x - 3)")
    said = doit(code=None)
    assert "psy errors example" in said
    assert not (template.root / "psy-work/example/result.pkl").exists()
    assert template.status("example")["failed"] == 1


def test_psy_doit_runs_plain_doit_without_a_dodo_file(project):
    project.task("example", TASK)
    listed = project.psy("doit", "list", "--all").stdout
    for step in ("split", "process", "merge"):
        assert f"example:{step}" in listed
    before = len(project.rows_seen())
    project.psy("doit", "run", "example")
    assert len(project.rows_seen()) - before == 8
    assert project.count("run") == 0
    assert_right(project, 8)


def test_psy_doit_refuses_an_empty_argument_in_one_line(project):
    project.task("example", TASK)
    said = project.psy("doit", "run", "", code=2).stderr
    assert said.splitlines()[-1] == "Error: doit takes no empty argument; name a task, or leave it out"
    assert "Traceback" not in said


# ---------------------------------------------------------------------- a dodo file of one's own


@pytest.mark.slow
def test_own_task_runs_after_the_merge_whenever_the_result_changed(own, doit):
    assert count(own, doit, "plot") == 8
    assert plots(own) == 1
    doit()
    assert plots(own) == 1
    own.edit("psy-tasks/task_example.py", "range(8)", "range(9)")
    assert count(own, doit) == 1
    assert plots(own) == 2
    own.edit("psy-tasks/task_example.py", "seen(x)", "seen(x)  # a remark")
    assert count(own, doit) == 0
    assert plots(own) == 2


MADE = """\
from pathlib import Path
import psyrun


def make():
    with open("made.log", "a") as log:
        log.write("made\\n")
    Path("data.txt").write_text(Path("raw.txt").read_text())


def task_psy():
    yield from psyrun.doit_tasks("psy-tasks")


def task_zz_make():
    return {"file_dep": ["raw.txt"], "targets": ["data.txt"], "actions": [make]}
"""


@pytest.fixture
def made(project, doit):
    """A project whose rows read a file that a later task of the dodo file makes, after its first run."""
    project.write("raw.txt", "1")
    project.write("data.txt", "1")
    body = "    seen(x)\n    return {'y': open('../data.txt').read()}\n"
    project.task("example", TASK.replace('    seen(x)\n    return {"y": 2 * x}\n', body))
    project.write("dodo.py", MADE)
    doit()
    assert len(project.rows_seen()) == 8
    return project


def test_own_task_that_makes_what_rows_were_seen_to_read_runs_before_split(made, doit):
    made.write("raw.txt", "2")
    assert "example: data.txt changed; 8 rows read it" in doit()
    assert made.result("example")["y"] == ["2"] * 8
    assert len(made.rows_seen()) == 16


def test_files_that_rows_were_seen_to_read_run_split_only_where_their_content_changed(made, doit):
    assert "-- example:split" in doit()
    os.utime(made.root / "data.txt", (1, 1))
    assert "-- example:split" in doit()
    (made.root / "data.txt").chmod(0o640)
    assert "-- example:split" in doit()
    doit("forget", "zz_make")
    assert "-- example:split" in doit()
    assert len(made.rows_seen()) == 8


def test_file_that_rows_were_seen_to_read_may_be_gone(made, doit):
    (made.root / "data.txt").unlink()
    doit()  # Its maker comes first.
    assert len(made.rows_seen()) == 8
    made.write("dodo.py", MADE.partition("def task_zz")[0])
    (made.root / "data.txt").unlink()
    assert "data.txt changed; 8 rows read it" in doit(code=1)
    assert len(made.rows_seen()) == 16


def test_results_and_products_order_nothing_by_being_read(project, doit):
    text = TASK.replace(
        "    seen(x)\n", "    seen(x)\n    open('../made.txt', 'a').close(); open('../made.txt')\n"
    )
    project.task(
        "a",
        text.replace(
            "    seen(x)\n",
            "    seen(x)\n    os.path.exists('../psy-work/b/result.pkl') and"
            " open('../psy-work/b/result.pkl', 'rb')\n",
        ).replace("from c", "import os\nfrom c"),
    )
    project.task("b", TASK.replace("pool_size", "file_dep = ['../psy-work/a/result.pkl']\npool_size"))
    project.write(
        "dodo.py",
        MADE.partition("def make")[0] + MADE[MADE.index("def task_psy") : MADE.index("def task_zz")],
    )
    doit()
    doit()  # a reads the result of b now, which comes after it
    doit()
    assert "a:split" in doit("list", "--all")


def test_own_task_does_not_run_where_rows_failed(own, doit):
    own.edit("psy-tasks/task_example.py", "seen(x)", "seen(x)\n    1 / (x - 3)")
    doit("plot", code=None)
    assert plots(own) == 0
    doit("--continue", code=None)
    assert plots(own) == 0


@pytest.mark.slow
def test_psy_run_and_an_own_dodo_file_work_on_the_same_files(own, doit):
    assert own.count("run") == 8
    assert count(own, doit) == 0
    assert plots(own) == 1
    own.edit("psy-tasks/task_example.py", "range(8)", "range(9)")
    assert own.count("run") == 1
    assert count(own, doit) == 0
    assert plots(own) == 2
    own.edit("psy-tasks/task_example.py", "range(9)", "range(10)")
    assert count(own, doit) == 1
    assert own.count("run") == 0
    assert_right(own, 10)


# ---------------------------------------------------------------------- the database is a cache


def database_of(project):
    return project.root / "psy-work" / ".doit.db"


def assert_one_warning(done):
    said = done.stdout + done.stderr
    assert said.count(".doit.db") == 1, said
    assert "Traceback" not in said


def test_lost_database_costs_no_evaluation(project):
    project.finish({"psy-tasks/task_example.py": TASK})
    database_of(project).unlink()
    result = project.root / "psy-work/example/result.pkl"
    before = result.stat().st_mtime_ns
    assert project.count("run") == 0
    assert result.stat().st_mtime_ns == before
    assert database_of(project).exists()


@pytest.mark.slow
def test_locked_database_is_one_warning(project):
    project.finish({"psy-tasks/task_example.py": TASK})
    with closing(sqlite3.connect(database_of(project), isolation_level=None)) as other:
        other.execute("begin immediate")
        done = project.psy("run", timeout=30)
        assert_one_warning(done)
        assert "locked" in done.stdout + done.stderr
        project.edit("psy-tasks/task_example.py", "range(8)", "range(9)")
        assert project.count("run") == 1
        assert_right(project, 9)
    assert project.count("run") == 0
    assert ".doit.db" not in project.psy("run").stderr


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["success", "failure"])
def test_database_that_is_locked_during_the_run_is_one_warning(project, wait_until, ending):
    project.task("example", TASK)
    project.edit("psy-tasks/task_example.py", "seen(x)", "seen(x)\n    wait()\n    1 / (x - FAILING)")
    project.edit(
        "psy-tasks/task_example.py",
        "def execute",
        f"""untracked = ["../gate"]
FAILING = {3 if ending == "failure" else -1}


def wait():
    import os
    import time

    while not os.path.exists("../gate"):
        time.sleep(0.01)


def execute""",
    )
    run = project.start("run")
    wait_until(project.rows_seen)
    with closing(sqlite3.connect(database_of(project), isolation_level=None)) as other:
        other.execute("begin immediate")
        (project.root / "gate").touch()
        out, err = run.communicate(timeout=60)
    said = out + err
    assert "Traceback" not in said, said
    assert said.count(".doit.db") == 1, said
    assert run.returncode == (1 if ending == "failure" else 0), said
    status = project.status("example")
    assert (status["done"], status["failed"]) == ((7, 1) if ending == "failure" else (8, 0))


@pytest.mark.parametrize("garbage", [b"not a database, by far " * 200, b"SQLite format 3\0" + b"\xff" * 4096])
def test_damaged_database_is_one_warning(project, garbage):
    project.finish({"psy-tasks/task_example.py": TASK})
    database_of(project).write_bytes(garbage)
    project.edit("psy-tasks/task_example.py", "range(8)", "range(9)")
    before = len(project.rows_seen())
    assert_one_warning(project.psy("run"))
    assert len(project.rows_seen()) - before == 1
    assert_right(project, 9)


def test_error_that_nobody_foresaw_is_shown_although_rows_failed(project, monkeypatch, capfd):
    project.task(
        "t", "from psyrun import Param\npspace = Param(x=[0, 1])\ndef execute(x):\n    return {'y': 1 // x}\n"
    )
    project.psy("run", code=1)
    monkeypatch.chdir(project.root)

    def break_down(*arguments):
        raise IndexError("unforeseen")

    monkeypatch.setattr("psyrun.graph.process", break_down)
    assert cli.main(["run"]) == 1
    said = capfd.readouterr()
    assert "IndexError: unforeseen" in said.err


def test_plain_doit_says_as_much_as_psy_run(project):
    project.write("dodo.py", "import psyrun\ndef task_psy():\n    yield from psyrun.doit_tasks()\n")
    project.task(
        "t",
        """\
        from psyrun import Param
        pspace = Param(x=range(4))
        pool_size = 2
        allow_failed = True
        def execute(x):
            return {"y": 1 / x}
        """,
    )
    argv = [sys.executable, "-m", "doit"]
    done = subprocess.run(
        argv, cwd=project.root, env=project.env(), capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("t: ")]
    said = project.psy("run", "--force").stdout.splitlines()
    assert lines == [line for line in said if line.startswith("t: ")]
    assert lines[-1] == "t: finished, 4 rows in psy-work/t/result.pkl, 1 of them failed"
