"""Sharcnet's sqsub, run with stand-ins for its commands: no such cluster is left."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

import pytest

from psyrun.scheduler import Sqsub
from psyrun.testing import DependencyContract

OPTIONS = {"timelimit": "1h", "memory": "512M"}
TASK = """\
import os
import time
from counting import seen
from psyrun import Param
from psyrun.scheduler import Sqsub

workdir = "psy-work"
pspace = Param(x=range(12))
scheduler = Sqsub(workdir)
scheduler.poll = (0.3, 1.0)
scheduler.grace = 0
scheduler_args = {"timelimit": "1h", "memory": "512M", "n_cpus": 1}
max_jobs = 4
untracked = ["../gate"]


def execute(x):
    while not os.path.exists("../gate"):
        time.sleep(0.02)
    seen(x)
    return {"y": 2 * x}
"""
RIGHT = {"x": list(range(12)), "y": [2 * x for x in range(12)]}


@pytest.fixture
def cluster(sqsub):
    """Return the folder of its jobs."""
    return sqsub


class TestContract(DependencyContract):
    options = OPTIONS
    seconds = 30

    @pytest.fixture
    def scheduler(self, cluster):
        return Sqsub()

    @pytest.fixture
    def unreachable(self, monkeypatch):
        @contextmanager
        def enter():
            with monkeypatch.context() as context:
                context.setenv("SQ_FOLDER", "nowhere")
                yield

        return enter

    def test_nobody_tells_why_a_job_ended(self, trial):
        job = trial.submit("raise SystemExit(3)")
        trial.settle(job)
        assert trial.scheduler.explain([job]) == {}


def test_each_batch_is_a_job_and_the_result_appears_by_itself(cluster, project, wait_until):
    project.task("a", TASK)
    assert "4 jobs in flight" in project.psy("run", code=75).stdout
    assert "4 jobs in flight" in project.psy("run", code=75).stdout
    assert len(list(cluster.iterdir())) == 5  # four batches, and the job that merges
    (project.root / "gate").touch()
    wait_until((project.root / "psy-work" / "a" / "result.pkl").exists, 60)
    assert project.result("a") == RIGHT
    assert project.count("run") == 0
    assert len(project.rows_seen()) == 12


def test_kill_ends_its_own_jobs_and_the_next_run_goes_on(cluster, project):
    for name in ("a", "b"):
        project.task(name, TASK)
    project.psy("run", code=75)
    assert "4 jobs cancelled" in project.psy("kill", "a").stdout
    assert project.status("a")["missing"] == 12
    assert project.status("b")["missing"] == 0
    (project.root / "gate").touch()
    project.psy("run", "--wait")
    assert project.result("a") == project.result("b") == RIGHT
    assert len(project.rows_seen()) == 24


def test_what_a_result_may_cost_downstream_is_said_once_and_not_while_jobs_are_in_flight(cluster, project):
    project.task("a", TASK)
    project.task(
        "b",
        """\
        from psyrun import Param
        pspace = Param(z=[1, 2])
        file_dep = ["../psy-work/a/result.pkl"]
        def execute(z):
            return {}
        """,
    )
    gate = project.root / "gate"
    gate.touch()
    project.psy("run", "--wait")
    gate.unlink()
    project.edit("psy-tasks/task_a.py", "range(12)", "range(13)")
    note = "will be evaluated again if psy-work/a/result.pkl changes"
    assert f"b: 2 rows (under 1 s of computing) {note}" in project.psy("run", code=75).stdout
    assert note not in project.psy("run", code=75).stdout
    gate.touch()
    project.psy("run", "--wait")
    assert project.result("b") == {"z": [1, 2]}


def test_job_that_dies_is_reported_and_only_its_rows_are_repeated(cluster, project, wait_until):
    project.task("a", TASK)
    project.psy("run", code=75)
    wait_until(lambda: len(list(cluster.glob("*/started"))) == 4)
    os.killpg(int((cluster / "1" / "pid").read_text()), signal.SIGKILL)
    (cluster / "1" / "ended").touch()
    (project.root / "gate").touch()
    wait_until((cluster / "5" / "ended").exists, 60)
    assert project.status("a")["missing"] == 3
    assert project.count("run", "--wait") == 3
    assert project.result("a") == RIGHT


@pytest.mark.parametrize("lacking", ["timelimit", "memory"])
def test_required_options_are_asked_for_before_anything_runs(cluster, project, lacking):
    options = {name: value for name, value in OPTIONS.items() if name != lacking}
    project.task("a", TASK + f"scheduler_args = {options}\n")
    done = project.psy("run", code=2)
    assert lacking in done.stderr
    assert not (project.root / "psy-work" / "a").exists()


@pytest.mark.parametrize("scheduler", ["Local", "Slurm"])
def test_jobs_of_the_scheduler_before_have_to_end_first(cluster, project, scheduler):
    """Their ids mean nothing to another scheduler: it would lose them, or take them for its own."""
    project.task("a", TASK)
    project.psy("run", code=75)
    project.edit("psy-tasks/task_a.py", "scheduler = Sqsub(workdir)", "")
    project.edit("psy-tasks/task_a.py", "scheduler.poll = (0.3, 1.0)\nscheduler.grace = 0\n", "")
    project.edit("psy-tasks/task_a.py", "import Sqsub", f"import {scheduler} as scheduler")
    project.edit(
        "psy-tasks/task_a.py", 'scheduler_args = {"timelimit": "1h", "memory": "512M", "n_cpus": 1}', ""
    )
    done = project.psy("run", code=2)
    assert "jobs of Sqsub are in flight" in done.stderr
    assert "psy kill a" in done.stderr
    assert project.status("a")["running"] + project.status("a")["queued"] == 12
    assert "4 jobs cancelled" in project.psy("kill", "a").stdout
    if scheduler == "Local":
        (project.root / "gate").touch()
        project.psy("run")
        assert project.result("a") == RIGHT
