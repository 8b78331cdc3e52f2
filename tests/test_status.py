"""What the reading commands say, and that they write nothing; cleaning; words for mistakes."""

import json
import os
import re
from dataclasses import dataclass

import pytest

import files
import psyrun
from psyrun.cli.status import Status, as_json
from psyrun.cli.summary import summarise
from psyrun.graph import NodeOutcome, NodeState
from psyrun.workdir.inputs import read_inputs
from psyrun.workdir.journal import encode_block

TASK = """\
from counting import seen
from helper import scale
from psyrun import Param
pspace = Param(x=range(4))
pool_size = 1
def execute(x):
    seen(x)
    return {"y": scale(x)}
"""
HELPER = "def scale(x):\n    return 10 * x\n"
FAILING = TASK.replace("    return", "    if x == 2:\n        raise ValueError('two')\n    return")
TWO = {
    "psy-tasks/helper.py": HELPER,
    "psy-tasks/task_good.py": TASK,
    "psy-tasks/task_fails.py": FAILING,
}
KEYS = ["name", "total", "done", "failed", "running", "queued", "missing", "uptodate", "result"]
COUNTS = KEYS[2:7]


@pytest.fixture
def two(project):
    """A project of the tasks `good`, never run, and `fails`, of which one row raises."""
    for path, text in TWO.items():
        project.write(path, text)
    return project


def tree(project):
    """List everything below the project: path -> time and content."""
    return {
        str(path.relative_to(project.root)): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in sorted(project.root.rglob("*"))
    }


def listing(project, folder):
    path = project.root / folder
    return sorted(each.name for each in path.iterdir()) if path.exists() else None


READING = [
    *(["status"], ["status", "-v", "--all"], ["status", "--json"], ["plan"], ["list"], ["errors"], ["test"]),
    ["--version"],
    ["--help"],
]


# ---------------------------------------------------------------------- reading writes nothing


@pytest.mark.parametrize("state", ["never run", "failed", "edited", "foreign"])
def test_reading_commands_write_nothing(two, state):
    if state in ("failed", "edited"):
        two.finish(TWO, code=1)
    if state == "edited":
        two.edit("psy-tasks/helper.py", "10", "11")
        two.edit("psy-tasks/task_good.py", "range(4)", "range(6)")
    if state == "foreign":
        two.write("psy-work/good/result.pkl", "no pickle")
    before = tree(two)
    for arguments in READING:
        two.psy(*arguments, code=0 if arguments != ["test"] else None)
        after = {path: entry for path, entry in tree(two).items() if path != "evaluations.txt"}
        assert after == {path: before[path] for path in after}, arguments
        assert {*before} - {"evaluations.txt"} == {*after}, arguments


# ---------------------------------------------------------------------- status


def test_status_as_json_has_the_documented_keys_and_counts_that_add_up(two):
    def read():
        out = json.loads(two.psy("status", "--json").stdout)
        assert list(out) == ["tasks"]
        for task in out["tasks"]:
            assert list(task) == KEYS
            assert sum(task[name] for name in COUNTS) == task["total"]
            assert all(type(task[name]) is int for name in ("total", *COUNTS))
            assert type(task["uptodate"]) is bool
        return {task["name"]: tuple(task[name] for name in KEYS[1:]) for task in out["tasks"]}

    result = "psy-work/good/result.pkl"
    assert read() == {
        "fails": (4, 0, 0, 0, 0, 4, False, None),
        "good": (4, 0, 0, 0, 0, 4, False, None),
    }
    two.psy("run", code=1)
    assert read() == {
        "fails": (4, 3, 1, 0, 0, 0, False, None),
        "good": (4, 4, 0, 0, 0, 0, True, result),
    }
    two.edit("psy-tasks/helper.py", "10", "11")
    assert read()["good"][-2:] == (False, result)
    two.psy("run", "good")
    assert read()["good"] == (4, 4, 0, 0, 0, 0, True, result)
    (two.root / result).unlink()
    assert read()["good"] == (4, 4, 0, 0, 0, 0, False, None)


def test_new_fields_of_a_status_do_not_appear_in_its_json():
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Longer(Status):
        more: int = 1

    (task,) = json.loads(as_json([Longer(name="t", total=2, missing=2)]))["tasks"]
    assert list(task) == KEYS


def test_status_names_failed_and_missing_assignments(two):
    two.psy("run", "fails", code=1)
    out = two.psy("status", "-v").stdout
    lines = [line.split() for line in out.splitlines() if line.strip()]
    assert lines[0] == ["task", "rows", "done", "failed", "running", "queued", "missing", "result"]
    assert ["fails", "4", "3", "1", "0", "0", "0", "-"] in lines
    assert ["good", "4", "0", "0", "0", "0", "4", "-"] in lines
    assert re.search(r"^  failed:  x=2  ValueError: two$", out, re.MULTILINE)

    for journal in (two.root / "psy-work/fails/out").glob("0-*"):
        journal.unlink()
    assert re.search(r"^  missing: x=0$", two.psy("status", "-v", "fails").stdout, re.MULTILINE)
    status = two.status("fails")
    assert (status["done"], status["failed"], status["missing"]) == (2, 1, 1)


def test_status_names_the_first_hundred_unless_all_are_asked_for(project):
    project.task(
        "t",
        """\
        from psyrun import Param
        pspace = Param(x=range(103))
        pool_size = 1
        max_jobs = 2
        def execute(x):
            raise ValueError(f"no {x}")
        """,
    )
    project.psy("run", code=1)
    out = project.psy("status", "-v").stdout
    assert out.count("failed:") == 100
    assert "and 3 more" in out
    assert "--all" in out
    assert project.psy("status", "-v", "--all").stdout.count("failed:") == 103
    errors = project.psy("errors").stdout
    assert errors.count("Traceback") <= 1
    assert "103 rows failed" in errors


def test_status_of_named_tasks_only(two):
    assert two.psy("status", "good").stdout.count("good") == 1
    assert "fails" not in two.psy("status", "good").stdout


def test_errors_groups_failures_by_cause(project):
    project.task(
        "t",
        """\
        from psyrun import Param
        pspace = Param(x=range(6))
        pool_size = 1
        def execute(x):
            if x % 2:
                raise ValueError(f"odd {x}")
            if x == 4:
                return {"y": [][x]}
            return {}
        """,
    )
    project.psy("run", code=1)
    out = project.psy("errors").stdout
    odd, four = (out.index(words) for words in ("3 rows failed: ValueError: odd", "1 row failed: IndexError"))
    assert odd < four
    assert "for example  x=1" in out
    assert "for example  x=4" in out
    assert 'raise ValueError(f"odd {x}")' in out


# ---------------------------------------------------------------------- list and plan


def test_list_prints_bare_names_on_a_pipe(two):
    assert two.psy("list").stdout == "fails\ngood\n"
    two.task("broken", "def execute(:\n")
    done = two.psy("list")
    assert done.stdout.splitlines() in (["fails", "good"], ["broken", "fails", "good"])
    assert "task_broken.py" in done.stderr


def expected(evaluated):
    return f"evaluate {evaluated} row" if evaluated else "write psy-work/good/result.pkl from"


def test_plan_says_what_run_evaluates(two):
    good = "psy-tasks/task_good.py"
    steps = [
        (lambda: None, "good: was never run", 4),
        (lambda: None, "good: up to date (4 rows)", 0),
        (lambda: two.edit(good, "range(4)", "range(6)"), "good: the parameter space changed", 2),
        (lambda: two.edit(good, "range(6)", "[5, 0]"), "good: the parameter space changed", 0),
        (lambda: two.edit("psy-tasks/helper.py", "10", "11"), "good: psy-tasks/helper.py: scale changed", 2),
        (lambda: two.edit("psy-tasks/helper.py", "11", "10"), "good: psy-tasks/helper.py: scale changed", 0),
    ]
    for act, first, evaluated in steps:
        act()
        said = two.psy("plan", "good").stdout.splitlines()
        assert said[0] == first
        if "up to date" not in first:
            assert said[-1].startswith(f"good: {expected(evaluated)}"), said
        assert two.count("run", "good") == evaluated, said


def test_plan_tells_failed_rows(two):
    two.psy("run", "fails", code=1)
    assert "try 1 failed row again" in two.psy("plan", "fails").stdout
    assert two.count("run", "fails", code=1) == 1


def test_plan_counts_rows_that_are_finished_not_those_that_were_planned(two):
    two.psy("run", "fails", code=1)
    two.edit("psy-tasks/task_fails.py", "range(4)", "range(6)")
    said = two.psy("plan", "fails").stdout
    assert "fails: evaluate 2 rows, try 1 failed row again, keep 3 finished rows\n" in said
    said = two.psy("plan", "--no-retry", "fails").stdout
    assert "fails: evaluate 2 rows, leave 1 failed row, keep 3 finished rows\n" in said
    assert two.count("run", "--no-retry", "fails", code=1) == 2


def test_plan_follows_a_chain(two):
    two.task(
        "after",
        """\
        from psyrun import Param

        pspace = Param(x=[1])
        file_dep = ["../psy-work/good/result.pkl"]


        def execute(x):
            return {"y": x}
        """,
    )
    assert two.psy("plan", "after").stdout.splitlines() == [
        "good: was never run",
        "good: evaluate 4 rows",
        "after: after good, as it then turns out",
    ]
    two.psy("run", "after")
    assert two.psy("plan", "after").stdout.splitlines() == [
        "good: up to date (4 rows)",
        "after: up to date (1 row)",
    ]


def test_plan_takes_what_run_takes(two):
    two.psy("run", "good")
    two.edit("psy-tasks/task_good.py", "range(4)", "range(2)")
    assert "from 2 finished rows" in two.psy("plan", "good").stdout
    assert "from 4 finished rows" in two.psy("plan", "--continue", "good").stdout
    assert "evaluate 2 rows" in two.psy("plan", "--force", "good").stdout
    two.psy("plan", "--force", "--continue", "good", code=2)


def test_plan_and_run_say_that_a_task_waits_for_one_that_fails(two):
    two.task(
        "after",
        """\
        from psyrun import Param

        pspace = Param(x=[1])
        file_dep = ["../psy-work/good/result.pkl"]


        def execute(x):
            return {"y": x}
        """,
    )
    two.psy("run", "after")
    two.edit("psy-tasks/task_good.py", "pool_size = 1", 'pool_size = 1\nfile_dep = ["nowhere.csv"]')
    done = two.psy("plan", "after")
    assert "nowhere.csv" in done.stderr
    assert done.stdout == "after: after good, as it then turns out\n"
    done = two.psy("run", "after", code=2)
    assert "nowhere.csv" in done.stderr
    assert done.stdout.endswith("after: waits for psy-work/good/result.pkl, the result of good\n")


# ---------------------------------------------------------------------- the end of a run

WHY = "  why: psy errors t; which: psy status -v t"


def end(done, *, outcome=None, interrupted=False, **counts):
    """Return lines and exit code for a task of four rows."""
    result = "t.pkl" if done == 4 else None
    status = Status(name="t", total=4, done=done, uptodate=done == 4, result=result, **counts)
    return summarise(status, outcome, interrupted=interrupted)


def test_end_of_a_run_of_a_finished_task():
    written = NodeOutcome(step="merge", state=NodeState.FINISHED)
    assert end(4, outcome=written) == (["t: finished, 4 rows in t.pkl"], 0)
    assert end(4) == (["t: up to date, 4 rows in t.pkl"], 0)


def test_end_of_a_run_of_a_task_with_jobs_in_flight():
    pending = NodeOutcome(step="process", state=NodeState.PENDING, in_flight=frozenset({0, 1}))
    lines, code = end(1, outcome=pending, failed=1, queued=2)
    assert (lines[0], code) == ("t: 1 of 4 rows done, 1 failed, 2 jobs in flight", 75)
    assert "psy run --wait t" in lines[1]
    assert end(1, running=3) == (["t: 1 of 4 rows done, 3 in flight: psy status t"], 75)
    assert end(1, outcome=pending, queued=3, interrupted=True) == (["t: 1 of 4 rows done"], 1)


def test_end_of_a_run_of_an_unfinished_task():
    failed = NodeOutcome(step="process", state=NodeState.FAILED)
    lines, code = end(2, outcome=failed, failed=1, missing=1)
    assert (lines[:2], code) == (["t: 2 of 4 rows done, 1 failed, 1 missing", WHY], 1)
    assert "psy run --continue t" in lines[2]
    missing = "t: 2 of 4 rows done, 2 missing"
    assert end(2, outcome=failed, missing=2) == ([f"{missing}; to go on: psy run t", WHY], 1)
    assert end(2, missing=2, interrupted=True) == ([missing], 1)


# ---------------------------------------------------------------------- test


def test_test_evaluates_the_first_row_and_then_the_first_the_middle_and_the_last(two):
    said = two.psy("test", "good").stdout
    assert two.rows_seen() == ["(0,)", "(0,)", "(2,)", "(3,)"]
    assert "execute(x=0)" in said
    assert "y=0" in said
    assert "4 rows" in said
    assert not (two.root / "psy-work").exists()


def test_test_shows_why_execute_fails(two):
    two.edit("psy-tasks/task_fails.py", "x == 2", "x == 0")
    done = two.psy("test", "fails", code=1)
    assert "ValueError: two" in done.stdout + done.stderr
    assert "task_fails.py" in done.stdout + done.stderr
    assert not (two.root / "psy-work").exists()


# ---------------------------------------------------------------------- clean


def test_clean_removes_what_run_made_for_the_named_task(two):
    two.psy("run", code=1)
    two.psy("clean", "good")
    assert listing(two, "psy-work/good") is None
    assert two.status("fails")["done"] == 3
    assert two.status("good")["missing"] == 4
    assert (two.root / "psy-tasks/task_good.py").exists()
    assert two.psy("clean", "good").returncode == 0
    assert two.count("run", "good") == 4


@pytest.mark.parametrize("mishap", ["broken", "gone"])
def test_clean_takes_tasks_whose_files_are_broken_or_gone(two, mishap):
    two.psy("run", "good")
    path = two.root / "psy-tasks/task_good.py"
    path.write_text("def execute(:") if mishap == "broken" else path.unlink()
    two.psy("clean", "--yes", "good")
    assert listing(two, "psy-work/good") is None
    two.psy("clean", "good", code=2)


def test_clean_needs_names_or_all(two):
    two.psy("run", code=1)
    before = tree(two)
    done = two.psy("clean", code=2)
    assert "--all" in done.stderr
    assert tree(two) == before
    two.psy("clean", "--all")
    assert listing(two, "psy-work/good") is listing(two, "psy-work/fails") is None


def test_clean_leaves_what_psyrun_did_not_write(two):
    two.psy("run", "good")
    two.write("psy-work/good/notes.txt", "mine")
    foreign = two.write("psy-work/fails/result.pkl", "mine too")
    two.psy("clean", "--all")
    assert listing(two, "psy-work/good") == ["notes.txt"]
    assert foreign.read_text() == "mine too"


def test_clean_stale_removes_only_rows_that_no_plan_wants(two):
    two.psy("run", "good")
    two.edit("psy-tasks/helper.py", "10", "11")
    two.psy("run", "good")
    two.edit("psy-tasks/task_good.py", "range(4)", "range(3)")
    two.psy("run", "good")
    before = two.result("good")
    assert len(listing(two, "psy-work/good/code")) == 2
    for path in (two.root / "psy-work/good/in").iterdir():
        os.utime(path, (1, 1))  # Young ones may be of a psy that plans.

    two.psy("clean", "--stale", "good")
    assert len(listing(two, "psy-work/good/code")) == 1
    assert len(listing(two, "psy-work/good/in")) == 3
    assert len([name for name in listing(two, "psy-work/good/out") if name.endswith(".rows")]) == 3
    assert two.result("good") == before
    assert two.status("good")["uptodate"]
    assert two.count("run", "good") == 0
    assert two.psy("clean", "--stale", "good").returncode == 0

    two.edit("psy-tasks/helper.py", "11", "10")
    assert two.count("run", "good") == 3


def test_clean_stale_keeps_rows_that_were_adopted(two):
    two.psy("run", "good")
    two.edit("psy-tasks/helper.py", "10", "11")
    assert two.count("run", "--continue", "good") == 0
    two.psy("clean", "--stale", "--all")
    assert two.count("run", "good") == 0
    assert two.result("good") == {"x": [0, 1, 2, 3], "y": [0, 10, 20, 30]}


# ---------------------------------------------------------------------- words for mistakes


def test_version_is_told(project):
    assert project.psy("--version").stdout == f"psy {psyrun.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "god"], ["no task 'god'", "did you mean 'good'?"]),
        (["status", "god"], ["no task 'god'", "did you mean 'good'?"]),
        (["run", "task_good"], ["no task 'task_good'", "did you mean 'good'?"]),
        (["run", "psy-tasks/task_good.py"], ["did you mean 'good'?"]),
        (["run", "GOOD"], ["no task 'GOOD'", "did you mean 'good'?"]),
        (["plan", "good", "xyz"], ["no task 'xyz'", "good", "fails"]),
        (["errors", "god"], ["did you mean 'good'?"]),
        (["test", "god"], ["did you mean 'good'?"]),
        (["clean", "god"], ["did you mean 'good'?"]),
        (["rnu"], ["no command 'rnu'", "did you mean 'run'?"]),
        (["statsu"], ["did you mean 'status'?"]),
        (["run", "--contine"], ["--continue"]),
        (["merge", "psy-work/nowhere/out", "a.pkl"], ["psy-work/nowhere/out"]),
        (["merge", "psy-tasks", "a.pkl"], ["no finished rows", "psy-work/example/out"]),
    ],
)
def test_unknown_names_are_refused_with_a_suggestion(two, arguments, words):
    done = two.psy(*arguments, code=2)
    assert [word for word in words if word not in done.stderr] == []
    assert done.stdout == ""
    assert not (two.root / "psy-work").exists()


def test_reading_commands_tell_of_a_broken_task_file_and_go_on(two):
    two.task("broken", "def execute(:\n")
    for command in ("status", "plan", "errors"):
        done = two.psy(command, code=None)
        assert "psy-tasks/task_broken.py:1" in done.stderr, command
        assert "Traceback" not in done.stderr
    assert "no row failed" not in two.psy("errors").stdout  # Nobody looked at those of the broken one.
    assert "good" in two.psy("status", code=None).stdout
    assert [task["name"] for task in json.loads(two.psy("status", "--json", code=None).stdout)["tasks"]] == [
        "fails",
        "good",
    ]


def test_journal_of_another_tie_is_not_counted(two):
    two.psy("run", "fails", code=1)
    before = two.status("fails")
    folder = two.root / "psy-work/fails"
    number = next(path.stem for path in (folder / "in").iterdir() if read_inputs(path).columns()["x"] == [2])
    block = files.seal(encode_block([0], {"y": [7]}), tie="0" * 16)
    (folder / f"out/{number}-{'0' * 16}-aaaaaaaa.rows").write_bytes(block)
    assert two.status("fails") == before
    assert (before["done"], before["failed"]) == (3, 1)
