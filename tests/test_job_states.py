"""What psy says of jobs and does with them, where a batch system tells little: with stand-ins for sqsub."""

from __future__ import annotations

import json

import pytest

TASK = """\
import os
import time
from counting import seen
from psyrun import Param
from psyrun.scheduler import Sqsub


class Mine(Sqsub):
    poll = (0.3, 1.0)
    grace = 0.0
    dependencies = False

    def system(self):
        return os.environ.get("CLUSTER", "east")


pspace = Param(x=range(12))
scheduler = Mine()
scheduler_args = {"timelimit": "1h", "memory": "512M"}
max_jobs = 4
untracked = ["../gate"]


def execute(x):
    while not os.path.exists("../gate"):
        time.sleep(0.02)
    seen(x)
    return {"y": 2 * x}
"""
RIGHT = {"x": list(range(12)), "y": [2 * x for x in range(12)]}
ELSEWHERE = "whether 4 jobs run is not known: they were submitted to east, and this is west"
CURE = "to replace them: psy run --take-over a"


@pytest.fixture
def begun(sqsub, project, gate):
    """A task whose four jobs wait for the gate."""
    project.task("a", TASK)
    begun = project.psy("run", code=75).stdout
    assert begun.endswith(
        "a: 0 of 12 rows done, 4 jobs in flight\n"
        "  then psy run a writes the result; meanwhile: psy status a, psy run --wait a\n"
    )
    return project


def read_submissions(project):
    return {path.name: path.read_text() for path in (project.root / "psy-work/a/jobs").glob("*.json")}


def test_system_without_dependencies_has_psy_run_write_the_result(begun, gate, wait_until):
    gate.touch()
    wait_until(lambda: begun.status("a")["done"] == 12)
    begun.psy("run")
    assert begun.result("a") == RIGHT


def test_jobs_of_another_cluster_are_neither_submitted_again_nor_cancelled(begun, gate, monkeypatch):
    before = read_submissions(begun)
    monkeypatch.setenv("CLUSTER", "west")
    assert f"a: {ELSEWHERE}; {CURE}\n" in begun.psy("status").stdout
    status = begun.status("a")
    assert (status["queued"], status["running"], status["missing"]) == (12, 0, 0)
    assert f"  {ELSEWHERE}; {CURE}\n" in begun.psy("run", code=75).stdout
    assert begun.psy("kill", "a", code=1).stderr == f"psy: a: {ELSEWHERE}; {CURE}\n"
    assert read_submissions(begun) == before
    monkeypatch.setenv("CLUSTER", "east")
    assert "4 jobs cancelled" in begun.psy("kill", "a").stdout


def test_files_of_jobs_of_another_cluster_are_not_cleaned_away_and_the_cure_is_said(begun, monkeypatch):
    before = read_submissions(begun)
    monkeypatch.setenv("CLUSTER", "west")
    said = begun.psy("clean", "--yes", "a", code=2).stderr
    assert (
        "not known: they were submitted to east, and this is west; where you know that they are not," in said
    )
    assert "remove the folder psy-work/a yourself" in said
    assert read_submissions(begun) == before
    monkeypatch.setenv("CLUSTER", "east")
    assert (
        "4 batches may be in flight; end that first: psy kill a"
        in begun.psy("clean", "--yes", "a", code=2).stderr
    )


def test_jobs_of_another_cluster_are_taken_over_and_each_row_counts_once(begun, gate, monkeypatch):
    monkeypatch.setenv("CLUSTER", "west")
    taken = begun.psy("run", "--take-over", code=75).stdout
    assert "a: 4 jobs given up: they were submitted to east, and this is west\n" in taken
    assert "4 jobs in flight" in taken
    gate.touch()
    begun.psy("run", "--wait")
    assert begun.result("a") == RIGHT
    assert "up to date" in begun.psy("run").stdout
    assert read_submissions(begun) == {}


def test_nothing_is_taken_over_that_answers(begun):
    before = read_submissions(begun)
    begun.psy("run", "--take-over", code=75)
    assert read_submissions(begun) == before


def test_machine_without_the_commands_says_so_in_status(begun, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    said = begun.psy("status").stdout
    assert "a: whether 4 jobs run is not known: Mine can't be asked here (sqjobs exited with 127" in said
    assert CURE in said
    assert begun.status("a")["queued"] == 12
    assert "psy: a: whether 4 jobs run is not known" in begun.psy("kill", "a", code=1).stderr


def test_jobs_of_another_user_are_theirs_to_cancel_also_where_the_id_was_not_written_down(begun):
    """The other is made up: the system shows jobs of this user only."""
    for path in (begun.root / "psy-work/a/jobs").glob("*.json"):
        content = json.loads(path.read_text()) | {"submitter": "alice", "job": None}
        path.write_text(json.dumps(content))
    before = read_submissions(begun)
    hidden = "whether 4 jobs run is not known: Mine does not show the jobs of alice to others"
    assert f"a: {hidden}; {CURE}\n" in begun.psy("status").stdout
    assert hidden in begun.psy("run", code=75).stdout
    left = "a: 4 jobs of alice may be left; alice can cancel them: psy kill a\n"
    assert begun.psy("kill", "a").stdout == left
    assert read_submissions(begun) == before


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_take_over_is_explained(project, option):
    assert "--take-over" in project.psy("run", option).stdout
