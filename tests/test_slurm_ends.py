"""Why jobs ended, as Slurm tells it: without accounting, the controller remembers it for some minutes."""

from __future__ import annotations

import os

import pytest

from clusters.sweep import assert_right, submissions, task
from conftest import start_slurm

pytestmark = pytest.mark.xdist_group("slurm")

# Row 1 holds its job until somebody ends that.
HELD = """\
    import os
    if x == 1 and not os.path.exists("../mended"):
        time.sleep(600)
    return {"""


@pytest.fixture(scope="module", params=[False, True], ids=["no accounting", "accounting"])
def ending_slurm(request, tmp_path_factory):
    config = {"PreemptType": "preempt/partition_prio", "PreemptMode": "REQUEUE"}
    partitions = ("urgent PriorityTier=9", "patient PreemptMode=REQUEUE", "doomed PreemptMode=CANCEL")
    options = {"nodes": 2, "cpus": 2, "partitions": partitions, "config": config}
    with start_slurm(tmp_path_factory.mktemp("ends"), accounting=request.param, **options) as cluster:
        yield cluster


@pytest.fixture
def cluster(ending_slurm, enter):
    return enter(ending_slurm)


@pytest.fixture
def held(cluster, project, wait_until):
    """Submit four rows in two jobs, of which the first goes on until somebody ends it; return its id."""

    def begin(**settings):
        project.task("a", task(4, 2, **settings).replace("    return {", HELD))
        project.psy("run", code=75)
        wait_until(lambda: len(project.rows_seen()) == 4)
        (job,) = [each["job"] for each in submissions(project)]
        return f"{job}_0"

    return begin


@pytest.fixture
def forgetful(tmp_path):
    """The folder of a squeue that knows nothing any more."""
    script = tmp_path / "forgetful" / "squeue"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    return script.parent


@pytest.fixture
def assert_told(cluster, project, wait_until, forgetful, monkeypatch):
    """Check that a reason is told when all jobs have ended, when Slurm has forgotten it, and by psy run."""

    def check(why):
        wait_until(lambda: not cluster.run("squeue", "-h"), 120)
        assert f"missing: x=1  {why}\n" in project.psy("status", "-v").stdout
        assert f"1 row not evaluated: {why}\n" in project.psy("errors").stdout
        with monkeypatch.context() as context:
            context.setenv("PATH", f"{forgetful}:{os.environ['PATH']}")
            assert f"missing: x=1  {why}\n" in project.psy("status", "-v").stdout
        (project.root / "mended").touch()
        assert project.status("a")["missing"] == 1
        done = project.psy("run", "--wait")
        assert f"1 of its jobs ended early: {why}\n" in done.stdout
        assert_right(project, 4)
        assert len(project.rows_seen()) == 5

    return check


@pytest.fixture
def preempt(cluster, tmp_path):
    """Let a job that needs all nodes come first."""
    urgent = ["--partition=urgent", "--exclusive", "--nodes=2", "-D", str(tmp_path), "--wrap", "sleep 1"]
    return lambda: cluster.run("sbatch", *urgent)


def test_job_that_somebody_cancelled(cluster, held, assert_told):
    cluster.run("scancel", held())
    assert_told("CANCELLED")


def test_job_that_was_preempted(held, preempt, assert_told):
    held(scheduler_args={"timelimit": "10", "partition": "doomed"})
    preempt()
    assert_told("PREEMPTED")


@pytest.mark.long
def test_job_over_its_time_limit(held, assert_told):
    held(scheduler_args={"timelimit": "0:15"})
    assert_told("TIMEOUT")


@pytest.mark.long
def test_job_whose_node_died(cluster, held, assert_told):
    job = held(scheduler_args={"timelimit": "10", "extra": ["--no-requeue"]})
    node = cluster.run("squeue", "-h", "-j", job, "-o", "%N")
    number = [cluster.node(1), cluster.node(2)].index(node) + 1
    cluster.kill_node(number)
    try:
        assert_told("NODE_FAIL")
    finally:
        cluster.start_node(number)
        cluster.wait_for_nodes()


def test_job_over_its_memory(cluster, project, wait_until):
    if not cluster.limits_memory:
        pytest.skip("this machine has no cgroups to limit memory")
    text = task(4, 2, scheduler_args={"timelimit": "10", "memory": "150M"})
    text = text.replace("    return", "    if x == 1:\n        hog = b'x' * 400_000_000\n    return")
    project.task("a", text)
    project.psy("run", code=75)
    wait_until(lambda: not cluster.run("squeue", "-h"), 60)
    why = "signal 9 (SIGKILL); its job: OUT_OF_MEMORY"
    assert f"failed:  x=1  {why}\n" in project.psy("status", "-v").stdout
    assert f"1 row failed: {why}\n" in project.psy("errors").stdout
    project.edit("psy-tasks/task_a.py", "150M", "800M")
    assert project.count("run", "--wait") == 1
    assert_right(project, 4)


@pytest.mark.long
def test_preempted_element_goes_on_where_it_was(cluster, project, held, preempt, wait_until):
    """Slurm puts it into the queue again, for two minutes at least."""
    held(scheduler_args={"timelimit": "10", "partition": "patient"})
    preempt()
    wait_until(lambda: project.status("a")["queued"] == 1)
    assert "1 job in flight" in project.psy("run", code=75).stdout
    (project.root / "mended").touch()
    done = project.psy("run", "--wait", timeout=240)
    assert "ended early" not in done.stdout
    assert_right(project, 4)
    assert len(project.rows_seen()) == 5  # the row that it was at, twice
