"""Results with failed rows in them: allow_failed, --retry, --only."""

import math
import pickle
import shutil
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from psyrun.store import AutodetectStore
from psyrun.workdir.plan import Allowance

# Fails as the file `faults` says, which is no input: x=reason, one a line.
TASK = """\
import os
import time
from counting import seen
from psyrun import Param

pspace = Param(x=range(12))
pool_size = 2
max_jobs = 2
untracked = ["../faults"]
timeout = 1
{settings}


def execute(x):
    seen(x)
    with open("../faults") as file:
        faults = dict(line.split("=") for line in file.read().split())
    match faults.get(str(x)):
        case "value":
            raise ValueError(f"{{x}} is bad")
        case "slow":
            time.sleep(60)
        case "exit":
            os._exit(3)
    return {{"y": 2 * x, "word": "w"}}
"""
FAULTS = {2: "value", 5: "exit", 7: "value"}
REASONS = {2: "ValueError: 2 is bad", 5: "exit 3", 7: "ValueError: 7 is bad"}


def write(project, allow="True", faults=FAULTS, more=""):
    project.write("faults", "\n".join(f"{x}={kind}" for x, kind in faults.items()))
    project.task("t", TASK.format(settings=f"allow_failed = {allow}\n{more}" if allow else more))


def expected(reasons=REASONS, rows=range(12)):
    nan = math.nan
    return {
        "x": list(rows),
        "failure": [reasons.get(x, "") for x in rows],
        "y": [nan if x in reasons else 2 * x for x in rows],
        "word": [None if x in reasons else "w" for x in rows],
    }


def same(result, wanted):
    """Compare names in their order and values with their types; NaN is NaN."""
    assert repr(result) == repr(wanted)


@pytest.fixture
def finished(project):
    project.finish(
        {
            "faults": "2=value\n5=exit\n7=value",
            "psy-tasks/task_t.py": TASK.format(settings="allow_failed = True\n"),
        }
    )
    return project


def test_result_says_why_rows_failed_and_is_up_to_date(finished):
    same(finished.result("t"), expected())
    assert finished.count("run") == 0
    status = finished.status("t")
    assert (status["done"], status["failed"], status["missing"], status["uptodate"]) == (9, 3, 0, True)
    assert "3 of them failed" in finished.psy("run").stdout
    assert "2 rows failed: ValueError" in finished.psy("errors").stdout
    assert "x=5" in finished.psy("status", "-v").stdout


@pytest.mark.parametrize(("store", "ext"), [("NpzStore", "npz"), ("H5Store", "h5")])
def test_array_stores_hold_reasons_and_nan(project, store, ext):
    write(project, more=f"from psyrun import {store}\nstore = {store}()\nexclude_from_result = ['word']\n")
    project.psy("run")
    path = project.root / f"psy-work/t/result.{ext}"
    result = AutodetectStore.get_concrete_store(path).load(path)
    wanted = expected()
    assert [str(reason) for reason in result["failure"]] == wanted["failure"]
    np.testing.assert_array_equal(result["y"], wanted["y"])
    assert set(result) == {"x", "failure", "y"}


@pytest.mark.parametrize(
    ("value", "most"),
    [(False, 0), (True, 99), (0, 0), (1, 1), (3, 3), (1000, 99), (0.0, 0), (1.0, 99), (0.29, 29), (0.07, 7)],
)
def test_allowance_covers_a_number_or_a_share_but_never_all(value, most):
    covered = [failed for failed in range(101) if Allowance(value).covers(failed, 100)]
    assert covered == list(range(most + 1))


def test_share_is_compared_exactly():
    for total in range(1, 200):
        for failed in range(1, total):
            share = float(f"{failed / total:.17g}")
            assert Allowance(share).covers(failed, total)
            assert Fraction(share) * total > failed + 1 or not Allowance(share).covers(failed + 1, total)


def test_lowering_marks_the_result_and_evaluates_nothing(finished):
    before = (finished.root / "psy-work/t/result.pkl").read_bytes()
    for allow, code in [("3", 0), ("2", 1), ("0.25", 0), ("0.24", 1), ("1.0", 0), ("1", 1), ("True", 0)]:
        write(finished, allow)
        assert finished.status("t")["uptodate"] is (code == 0)  # The edit counts at once.
        assert ("up to date" if code == 0 else "leave 3 failed rows") in finished.psy("plan").stdout
        assert finished.count("run", code=code) == 0, allow
        assert finished.status("t")["uptodate"] is (code == 0)
        assert (finished.root / "psy-work/t/result.pkl").read_bytes() == before
        assert (finished.root / "psy-work/t/process.json").exists() is (code == 0)


def test_setting_that_is_removed_marks_the_result_and_tries_again(finished):
    write(finished, allow="")
    assert finished.count("run", code=1) == 3
    assert not finished.status("t")["uptodate"]
    write(finished, allow="", faults={})
    assert finished.count("run") == 3
    assert finished.result("t") == {"x": [*range(12)], "y": [*range(0, 24, 2)], "word": ["w"] * 12}


def test_setting_that_is_added_finishes_a_task_without_evaluating(project):
    write(project, allow="")
    said = project.psy("run", code=1).stdout
    assert "allow_failed = True" in said
    assert "try 3 failed rows again" in project.psy("plan").stdout
    write(project)
    wanted = "t: write psy-work/t/result.pkl from 9 finished rows and 3 failed rows\n"
    assert project.psy("plan").stdout == wanted
    assert "try 3 failed rows again" in project.psy("plan", "--retry").stdout
    assert project.count("run") == 0
    same(project.result("t"), expected())


def test_column_is_there_where_no_row_failed(project):
    write(project, faults={})
    project.psy("run")
    same(project.result("t"), expected({}))
    write(project, allow="", faults={})
    assert project.count("run") == 0
    assert "failure" not in project.result("t")


def test_rows_that_were_not_evaluated_are_missing_not_failed(project):
    write(project, allow="True", faults={}, more="max_jobs = 1\n")
    project.edit(
        "psy-tasks/task_t.py", "    match", "    if x == 6:\n        os.kill(os.getppid(), 9)\n    match"
    )
    project.psy("run", code=1)
    status = project.status("t")
    assert (status["failed"], status["uptodate"]) == (0, False)
    assert status["missing"] > 0


def test_no_result_where_no_row_has_values(project):
    write(project, faults=dict.fromkeys(range(12), "value"))
    done = project.psy("run", code=1)
    assert "no row has values" in done.stdout
    assert not (project.root / "psy-work/t/result.pkl").exists()


def test_those_that_need_the_result_run(finished):
    finished.task(
        "b",
        """\
        import pickle
        from psyrun import Param
        file_dep = ["../psy-work/t/result.pkl"]
        with open("../psy-work/t/result.pkl", "rb") as file:
            table = pickle.load(file)
        pspace = Param(x=[x for x, why in zip(table["x"], table["failure"]) if not why])
        def execute(x):
            return {"z": x}
        """,
    )
    finished.psy("run")
    assert finished.result("b")["x"] == [x for x in range(12) if x not in FAULTS]


@pytest.mark.parametrize(
    ("old", "new"),
    [("Param(x=range(12))", "Param(x=range(12), failure=1)"), ('"word": "w"', '"failure": ""')],
    ids=["parameter", "value"],
)
def test_own_names_of_that_column_are_refused(project, old, new):
    write(project)
    project.edit("psy-tasks/task_t.py", old, new)
    project.edit("psy-tasks/task_t.py", "execute(x)", "execute(x, failure=0)")
    done = project.psy("run", code=None)
    assert done.returncode in (1, 2)
    [line] = done.stderr.splitlines()
    assert "allow_failed" in line
    assert "'failure'" in line
    assert not (project.root / "psy-work/t/result.pkl").exists()


def test_own_value_of_that_name_is_refused_whenever_the_task_is_run(project):
    write(project, faults={})
    project.edit("psy-tasks/task_t.py", '"word": "w"', '"failure": ""')
    for _ in range(3):
        assert "under another name" in project.psy("run", code=1).stderr
    assert not (project.root / "psy-work/t/result.pkl").exists()


@pytest.mark.parametrize("value", ["-1", "1.5", "'all'", "None", "float('nan')"])
def test_other_values_are_refused(project, value):
    write(project, allow=value)
    assert "allow_failed" in project.psy("run", code=2).stderr


# ---------------------------------------------------------------------- trying again


def test_retry_tries_failed_rows_and_no_others(finished):
    before = (finished.root / "psy-work/t/result.pkl").read_bytes()
    assert finished.count("run", "--retry") == 3
    assert (finished.root / "psy-work/t/result.pkl").read_bytes() == before
    write(finished, faults={7: "value"})
    assert "try these again" in finished.psy("plan", "--retry").stdout
    assert finished.count("run", "--retry") == 3
    same(finished.result("t"), expected({7: "ValueError: 7 is bad"}))


def test_only_tries_rows_that_failed_for_a_reason(project):
    write(project, faults={1: "value", 4: "slow", 6: "exit", 9: "slow"})
    project.psy("run")
    write(project, faults={})
    before = len(project.rows_seen())
    project.psy("run", "--retry", "--only", "timeout")
    assert sorted(project.rows_seen()[before:]) == ["(4,)", "(9,)"]
    same(project.result("t"), expected({1: "ValueError: 1 is bad", 6: "exit 3"}))
    project.psy("run", "--retry", "--only", "ValueError")
    same(project.result("t"), expected({6: "exit 3"}))
    done = project.psy("run", "--retry", "--only", "ValueError", code=2)
    assert "exit 3 (1 row)" in done.stderr
    assert "--retry" in project.psy("run", "--only", "timeout", code=2).stderr
    assert "without --continue" in project.psy("run", "--retry", "--only", "a", "--continue", code=2).stderr
    assert len(project.rows_seen()) == before + 3


def test_only_works_without_allow_failed(project):
    write(project, allow="", faults={1: "value", 6: "exit"})
    project.psy("run", code=1)
    write(project, allow="", faults={})
    before = len(project.rows_seen())
    project.psy("run", "--retry", "--only", "exit 3", code=1)
    assert project.rows_seen()[before:] == ["(6,)"]


def test_signal_is_a_reason_by_its_name(project):
    write(project)
    project.edit("psy-tasks/task_t.py", "os._exit(3)", "os.kill(os.getpid(), 11)")
    project.psy("run")
    assert project.count("run", "--retry", "--only", "SIGSEGV") == 1
    assert project.count("run", "--retry", "--only", "signal 11") == 1


# ---------------------------------------------------------------------- losses


def test_result_alone_keeps_what_it_says(finished):
    """The folder of journals is gone: failed rows stay failed, and can be tried again."""
    shutil.rmtree(finished.root / "psy-work/t/out")
    assert finished.count("run") == 0
    status = finished.status("t")
    assert (status["done"], status["failed"], status["uptodate"]) == (9, 3, True)
    write(finished, faults={})
    assert finished.count("run", "--retry") == 3
    same(finished.result("t"), expected({}))


def test_lowering_after_the_journals_were_lost_evaluates_nothing(finished):
    shutil.rmtree(finished.root / "psy-work/t/out")
    write(finished, allow="1")
    assert finished.count("run", code=1) == 0
    assert finished.status("t")["failed"] == 3


def test_space_that_grows_after_the_journals_were_lost(finished):
    shutil.rmtree(finished.root / "psy-work/t/out")
    finished.edit("psy-tasks/task_t.py", "range(12)", "range(14)")
    assert finished.count("run") == 2
    same(finished.result("t"), expected(rows=range(14)))


@pytest.mark.parametrize("kept", [True, False])
def test_continue_adopts_the_rows_that_have_values(finished, kept):
    """The whole work folder is gone but for the result, and its receipt, or without it."""
    path = finished.root / "psy-work/t/result.pkl"
    receipt = path.with_name("result.pkl.receipt")
    saved = {each: each.read_bytes() for each in ([path, receipt] if kept else [path])}
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    for each, data in saved.items():
        each.write_bytes(data)
    write(finished, faults={})
    assert finished.count("run", "--continue") == 3
    result = finished.result("t")
    assert result["failure"] == [""] * 12
    assert result["y"] == list(range(0, 24, 2))


def test_edit_of_the_code_with_continue_tries_failed_rows(finished):
    finished.edit("psy-tasks/task_t.py", "raise ValueError", "return {'y': -x, 'word': 'w'} or ValueError")
    assert finished.count("run", "--continue") == 3
    result = finished.result("t")
    assert (result["y"][2], result["y"][7]) == (-2, -7)
    assert result["failure"][5] == "exit 3"


# ---------------------------------------------------------------------- plain doit, and clusters


def test_plain_doit_finishes(project):
    write(project)
    project.write("dodo.py", "import psyrun\ndef task_psy():\n    yield from psyrun.doit_tasks()\n")
    done = subprocess.run(
        [sys.executable, "-m", "doit"], cwd=project.root, env=project.env(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    same(project.result("t"), expected())


SQSUB = """\
from psyrun.scheduler import Sqsub
scheduler = Sqsub("psy-work")
scheduler.poll = (0.3, 1.0)
scheduler.grace = 0
scheduler_args = {"timelimit": "1h", "memory": "512M", "n_cpus": 1}
"""


def test_result_appears_by_itself_and_again_after_rows_were_tried_in_jobs(sqsub, project, wait_until):
    write(project, more=SQSUB)
    gate, path = project.root / "gate", project.root / "psy-work/t/result.pkl"
    project.edit("psy-tasks/task_t.py", '../faults"]', '../faults", "../gate"]')
    project.edit(
        "psy-tasks/task_t.py",
        "    seen(x)",
        '    while not os.path.exists("../gate"):\n        time.sleep(0.02)\n    seen(x)',
    )
    project.edit("psy-tasks/task_t.py", "timeout = 1", "")
    project.psy("run", code=75)
    gate.touch()
    wait_until(path.exists, 60)
    wait_until(lambda: project.status("t")["uptodate"], 60)
    same(project.result("t"), expected())
    gate.unlink()
    write_faults = project.root / "faults"
    write_faults.write_text("7=value")
    assert "in flight" in project.psy("run", "--retry", code=75).stdout
    assert "in flight" in project.psy("run", code=75).stdout
    assert pickle.loads(path.read_bytes())["failure"][2] == REASONS[2]
    before = path.stat().st_mtime_ns
    gate.touch()
    wait_until(lambda: path.stat().st_mtime_ns != before, 60)
    same(project.result("t"), expected({7: REASONS[7]}))
    assert project.count("run") == 0
    (project.root / "faults").write_text("")
    assert project.count("run", "--retry", "--wait") == 1
    same(project.result("t"), expected({}))
