"""psy errors: what failed rows printed, and what sets them apart."""

from __future__ import annotations

FAILING = """\
import os, subprocess, sys, time
from psyrun import Param
pspace = Param(n=[2**i for i in range(8, 15)]) * Param(solver=["lu", "qr"]) * Param(seed=range(4))
pool_size = 2
max_jobs = 5


def execute(n, solver, seed):
    print("begin", n, solver, seed)
    if solver == "lu" and n >= 4096:
        lines = "; ".join(f"echo step {i}" for i in range(20))
        subprocess.run(f"{lines}; echo sim: singular matrix of {n}/{seed} >&2", shell=True, check=True)
        raise ValueError("no result")
    if solver == "qr" and seed == 3 and n < 1024:
        os.write(2, b"out of tokens\\n")
        os._exit(4)
    return {"y": n}
"""


def test_errors_shows_the_end_of_what_the_first_failed_row_printed(project):
    project.task("t", FAILING)
    project.psy("run", code=1)
    said = project.psy("errors").stdout
    assert said.count("the last that the first of them printed (psy-work/t/log/") == 2
    assert "\n    step 19\n    sim: singular matrix of 4096/0\n  for example  n=4096, solver='lu'" in said
    assert "step 10\n" not in said  # ten lines
    assert "\n    begin 256 qr 3\n    out of tokens\n  for example  n=256, solver='qr', seed=3" in said


def test_errors_says_what_sets_the_rows_of_the_first_cause_apart(project):
    project.task("t", FAILING)
    project.psy("run", code=1)
    said = project.psy("errors").stdout
    claim = "  12 of 12 have n >= 4096 and solver=lu; all 12 rows with these fail"
    assert said.count(" have ") == 1
    assert f"{claim} for this reason\nt: 2 rows failed: exit 4" in said
    project.edit("psy-tasks/task_t.py", "seed == 3", "seed == 9")
    project.psy("run", "--yes", code=1)
    assert project.psy("errors").stdout.endswith(f"{claim}\n")


def test_rows_that_were_not_evaluated_are_no_reason_for_a_claim(project):
    """All rows that ended failed: those that are missing say nothing."""
    text = "from psyrun import Param\npspace = Param(x=range(40))\n"
    text += "pool_size = 1\nmax_jobs = 40\n"
    project.task("t", text + "def execute(x):\n    raise ValueError('no')\n")
    project.psy("run", code=1)
    for batch in range(20):
        [path] = project.root.glob(f"psy-work/t/out/{batch}-*.rows")
        path.unlink()
    said = project.psy("errors").stdout
    assert "20 rows failed: ValueError: no" in said
    assert " have " not in said


def test_failed_row_has_lines_of_its_own_among_rows_of_microseconds(project):
    text = "from psyrun import Param\npspace = Param(x=range(50))\nmax_jobs = 1\npool_size = 1\n"
    text += "def execute(x):\n    print('row', x)\n    if x == 30:\n        raise ValueError\n    return {}\n"
    project.task("t", text)
    project.psy("run", code=1)
    assert "    row 30\n  for example" in project.psy("errors").stdout


def test_errors_is_about_the_last_of_several_attempts(project):
    """Journals have random names: their order says nothing."""
    project.write("attempt", "0")
    text = "from psyrun import Param\npspace = Param(x=[1])\nuntracked = ['../attempt']\n"
    text += "def execute(x):\n    n = open('../attempt').read()\n    print('attempt', n)\n"
    project.task("t", text + "    raise ValueError(n)\n")
    for attempt in range(6):
        project.write("attempt", str(attempt))
        project.psy("run", code=1)
        said = project.psy("errors").stdout
        assert f"1 row failed: ValueError: {attempt}\n" in said
        assert f"    attempt {attempt}\n" in said
        assert project.psy("log", "t", "0").stdout.endswith(f"attempt {attempt}\n")


def test_errors_shows_where_a_process_crashed_and_no_function_of_psyrun(project):
    text = "import ctypes\nfrom psyrun import Param\npspace = Param(x=range(3))\n"
    text += "def execute(x):\n    print('begin', x)\n    return {'y': x if x != 1 else ctypes.string_at(0)}\n"
    project.task("t", text)
    project.psy("run", code=1)
    said = project.psy("errors").stdout
    assert "begin 1\n    Fatal Python error: Segmentation fault\n" in said
    assert "task_t.py" in said
    assert "child.py" not in said


def test_traceback_of_a_row_has_no_line_of_psyrun_and_no_other_exception(project):
    project.task(
        "a", "from psyrun import Param\npspace = Param(x=[0])\ndef execute(x):\n    raise ValueError(x)\n"
    )
    project.psy("run", code=1)
    said = project.psy("errors", "a").stdout
    assert "ValueError: 0" in said
    assert said.count("Traceback") == said.count("  File ") == 1
    assert "During handling" not in said


def test_errors_where_the_log_is_gone(project):
    project.task("t", FAILING)
    project.psy("run", code=1)
    for path in project.root.glob("psy-work/t/log/*"):
        path.unlink()
    said = project.psy("errors").stdout
    assert said.count("output of the first of them: not known any more: psy-work/t/log/") == 1
    assert "printed (" not in said
