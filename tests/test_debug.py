"""One row under the microscope: `psy debug`, at a terminal and without one."""

import re
from functools import partial

import pytest

import terminals

TASK = """\
import os
import random
from counting import seen
from helper import divide
from psyrun import Param

pspace = Param(x=[1, 4, 0]) * Param(seed=range(2))
{settings}


def setup(proc_id):
    return {{"scale": 10}}


def execute(x, seed, scale, rng):
    seen(x, seed, os.path.basename(os.getcwd()))
    {line}
    return {{"y": divide(scale, x), "draw": rng.random()}}
"""


@pytest.fixture
def task(project):
    def write(line="pass", settings=""):
        project.write("psy-tasks/helper.py", "def divide(a, b):\n    return a / b\n")
        project.task("t", TASK.format(line=line, settings=settings))
        return project

    return write


def talk(project, typed, *arguments):
    return terminals.talk(partial(project.start, *arguments), typed)


def test_row_is_evaluated_here_with_its_setup_folder_and_generator(task):
    project = task()
    project.psy("run", code=1)
    project.edit("psy-tasks/task_t.py", "[1, 4, 0]", "[1, 4]")
    project.psy("run")
    result = project.result("t")
    files = sorted(path for path in (project.root / "psy-work").rglob("*"))
    for words, row in [(["3"], 3), (["-1"], 3), (["x=4", "seed=1"], 3), (["x=1", "seed=0"], 0)]:
        said = project.psy("debug", "t", *words).stdout
        assert f"t: row {row}: execute(x={result['x'][row]}, seed={result['seed'][row]})" in said
        assert f"returned y={result['y'][row]}, draw={result['draw'][row]}" in said
        assert project.rows_seen()[-1].endswith("'psy-tasks')")
    assert sorted(path for path in (project.root / "psy-work").rglob("*")) == files


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["17"], "numbered from 0 to 5"),
        (["x=17"], "x=4"),
        (["z=1"], "there is no parameter 'z'"),
        (["x=4"], "2 rows are meant"),
        (["0", "1"], "2 rows are meant"),
        (["four"], "such as x=4"),
    ],
)
def test_rows_that_are_not_there_are_refused_with_what_there_is(task, words, answer):
    project = task()
    done = project.psy("debug", "t", *words, code=2)
    assert answer in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert project.rows_seen() == []


def test_error_without_a_terminal_is_a_traceback_of_the_users_code(task):
    done = task().psy("debug", "t", "4", code=1)
    assert "ZeroDivisionError" in done.stderr
    assert "psyrun" not in re.sub(r"psy: |popen-\S+", "", done.stderr).replace("psyrun-", "")
    assert "helper.py" in done.stderr


def test_debugger_stands_at_the_raising_line(task):
    code, said = talk(task(), "p (a, b)\nup\np (x, seed, scale)\nq\n", "debug", "t", "x=0", "seed=1")
    assert code == 0
    assert "-> return a / b" in said
    assert "(10, 0)" in said
    assert "(0, 1, 10)" in said
    assert "ZeroDivisionError" in said


def test_breakpoint_stops_and_the_row_goes_on(task):
    code, said = talk(task("breakpoint()"), "p x\nscale = 20\nc\n", "debug", "t", "x=4", "seed=0")
    assert code == 0
    assert "returned y=" in said
    assert "\r\n4\r\n" in said


def test_leaving_the_debugger_ends_the_command(task):
    code, said = talk(task("breakpoint()"), "q\n", "debug", "t", "0")
    assert code == 0
    assert "BdbQuit" not in said.replace("bdb.BdbQuit", "")
    assert said.count("(Pdb)") == 1


# ---------------------------------------------------------------------- psy test


def test_trial_takes_a_row_by_its_values(task):
    said = task().psy("test", "t", "x=4", "seed=1").stdout
    assert "execute(x=4, seed=1)" in said
    assert "y=2.5" in said
    assert "whole space" not in said
    assert "x=4" in task().psy("test", "t", "x=5", code=2).stderr
    assert "name the task" in task().psy("test", "x=5", code=2).stderr


def test_trial_warms_up_before_it_estimates(project):
    """The first row is slow, being the first of its process, as where it imports much; others are quick."""
    project.task(
        "t",
        """\
        import time
        from psyrun import Param
        pspace = Param(x=range(10_000))
        seen = []
        def execute(x):
            if not seen:
                time.sleep(0.5)
            seen.append(x)
            time.sleep(0.02 if x == 9_999 else 0.01)
            return {"y": x}
        """,
    )
    said = project.psy("test").stdout
    [line] = [line for line in said.splitlines() if "once warm" in line]
    first, middle, last = map(float, re.findall(r"([\d.e-]+) s for", line))
    assert 0.01 <= first < 0.3
    assert 0.01 <= middle < 0.3
    assert 0.02 <= last < 0.3
    [words] = re.findall(r"10,000 rows like these: about (.*) of computing", said)
    assert words.endswith(" min")
    assert float(words.split()[0]) < 25  # With the first row it would be over an hour.


def test_trial_of_slow_rows_evaluates_one(project, monkeypatch):
    project.task(
        "t",
        """\
        import time
        from counting import seen
        from psyrun import Param
        pspace = Param(x=range(10))
        def execute(x):
            seen(x)
            time.sleep(5.1)
            return {}
        """,
    )
    said = project.psy("test").stdout
    assert project.rows_seen() == ["(0,)"]
    assert "10 rows like this: about 51 s of computing" in said


def test_trial_says_that_the_last_row_fails(task):
    said = task().psy("test").stdout
    assert "the last fails: x=0, seed=1  ZeroDivisionError: division by zero" in said
    assert "the whole space, 6 rows" in said


def test_breakpoint_stops_in_a_trial(task):
    """In the child process, which has the terminal; without a limit of time."""
    code, said = talk(
        task("breakpoint()", "timeout = 0.1"), "import time; time.sleep(0.3)\np x\nc\n", "test", "t", "x=4"
    )
    assert code == 0, said
    assert "\r\n4\r\n" in said
    assert "y=2.5" in said
