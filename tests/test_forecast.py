"""What psy says, and asks, before a run: rows that would be left out, rows that would be repeated."""

import subprocess
import sys
from functools import partial

import pytest

import terminals

TASK = """\
from counting import seen
from psyrun import Param

pspace = {space}
max_jobs = 3


def execute(x):
    seen(x)
    return {{"y": {value}}}
"""
LINE = "match nothing in the new space; they stay on disk, psy run --continue t keeps them"


def write(project, space="Param(x=range(20))", value="2 * x"):
    project.task("t", TASK.format(space=space, value=value))


@pytest.mark.parametrize(
    ("space", "orphaned"),
    [
        ("Param(x=range(5, 20))", 5),
        ("Param(x=range(19, -1, -1))", 0),
        ("Param(x=range(30))", 0),
        ("Param(x=[x + 0.5 for x in range(20)])", 20),
        ("Param(x=[1, 1, 2, 3])", 17),
    ],
)
def test_rows_that_match_nothing_are_counted_in_plan_and_run(project, space, orphaned):
    write(project)
    project.psy("run")
    write(project, space)
    wanted = f"t: {orphaned} finished rows {LINE}\n"
    for verb in ("plan", "run"):
        said = project.psy(verb).stdout
        assert (wanted in said) if orphaned else ("match nothing" not in said)
    assert "match nothing" not in project.psy("run").stdout
    write(project)
    assert "match nothing" not in project.psy("plan", "--continue").stdout
    assert project.count("run") == 0  # They stayed on disk.


def test_continue_keeps_them_and_says_nothing(project):
    write(project)
    project.psy("run")
    write(project, "Param(x=range(2))")
    assert "match nothing" not in project.psy("run", "--continue").stdout
    assert sorted(project.result("t")["x"]) == [*range(20)]


def test_edit_of_the_code_as_well_says_both(project):
    write(project)
    project.psy("run")
    write(project, "Param(x=range(5))", "3 * x")
    said = project.psy("run").stdout
    assert f"t: 15 finished rows {LINE}" in said
    assert "5 rows (under 1 s of computing) will be evaluated again" in said


def test_space_that_counts_as_code_says_what_it_leaves_out(project):
    """A call that nothing proves to be inert: the space is drawn from a generator of the module."""
    text = TASK.replace(
        "pspace = {space}", "drawn = np.random.default_rng({seed}).random(8)\npspace = Param(x=drawn)"
    )
    for seed in (1, 2):
        project.task("t", "import numpy as np\n" + text.format(seed=seed, value="x"))
        said = project.psy("run").stdout
    assert f"t: 8 finished rows {LINE}" in said


def test_rows_of_a_file_that_the_space_reads_are_counted(project):
    project.write("grid.txt", "0 1 2 3")
    write(project, 'Param(x=[int(x) for x in open("../grid.txt").read().split()])')
    project.psy("run")
    project.write("grid.txt", "2 3 4")
    assert f"t: 2 finished rows {LINE}" in project.psy("run").stdout
    assert project.result("t")["x"] == [2, 3, 4]


COSTLY = """\
import sys
from psyrun.cli import main, run
run.ASK_SECONDS = -1.0  # Every row is costly.
sys.exit(main(sys.argv[1:]))
"""


def answer(project, text, *arguments):
    """Run psy on a terminal where an answer is typed; return exit code and output."""
    argv = [sys.executable, "-c", COSTLY, "run", *arguments]
    return terminals.talk(partial(subprocess.Popen, argv, cwd=project.root, env=project.env()), text)


@pytest.mark.parametrize("space", ["Param(x=range(5))", "Param(x=range(20))"], ids=["space", "code"])
def test_costly_rows_are_asked_about_on_a_terminal(project, space):
    write(project)
    project.psy("run")
    before = project.result("t")
    write(project, space, "2 * x" if "5" in space else "3 * x")
    code, said = answer(project, "n\n")
    assert code == 1
    question = "Go on without them?" if "5" in space else "Evaluate them again?"
    assert question in said
    assert project.result("t") == before
    code, said = answer(project, "", "--yes")
    assert (code, question in said) == (0, False)
    assert project.result("t") != before
