"""Two users in one folder: who knows of whose jobs, submits, cancels, and goes on."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from clusters import sweep, users
from clusters.sweep import assert_right, gated, submissions, xs_seen
from conftest import PRELUDE, Project, start_slurm

ALICE, BOB = users.USERS
# All tests of a batch system run in one process.
SLURM = pytest.param("slurm", marks=pytest.mark.xdist_group("slurm"))
GRID_ENGINE = pytest.param("gridengine", marks=pytest.mark.xdist_group("gridengine"))


class SharedSlurm:
    """What tests of two users ask of a cluster; one of another batch system has the same methods."""

    scheduler = "Slurm"
    system = "testing"
    held = "JobHeldAdmin"
    """The reason of a job that the site holds."""
    cancelled = "CANCELLED"
    """The reason of one that the site ended."""

    def __init__(self, cluster):
        self.cluster = cluster

    @property
    def env(self):
        return self.cluster.env

    def jobs_of(self, user):
        """Return the ids of a user's jobs."""
        return set(self.cluster.run("squeue", "-h", "-u", user, "-o", "%F").split())

    def hold(self, *jobs):
        self.cluster.run("scontrol", "hold", *jobs)

    def block(self):
        """Let new jobs wait in the queue."""
        self.cluster.run("scontrol", "update", "partitionname=debug", "state=down")

    def unblock(self):
        self.cluster.run("scontrol", "update", "partitionname=debug", "state=up")

    def hide_others(self):
        self.cluster.reconfigure(PrivateData="jobs")

    def show_others(self):
        self.cluster.reconfigure()

    def cancel_all(self):
        self.cluster.cancel_all()


class SharedGridEngine:
    """The same of Grid Engine, which shows the jobs of all users to all."""

    scheduler = "GridEngine"
    held = "hqw: held"
    cancelled = "signal 9 (qdel, a limit, or lack of memory)"

    def __init__(self, cell):
        self.cell = cell

    @property
    def env(self):
        return self.cell.env

    @property
    def system(self):
        return f"{self.cell.folder}/root/default at localhost"

    def jobs_of(self, user):
        """Return the ids of a user's jobs."""
        return {line.split()[0] for line in self.cell.run("qstat", "-u", user).splitlines()[2:]}

    def hold(self, *jobs):
        self.cell.run("qhold", "-h", "s", *jobs)

    def block(self):
        """Let new jobs wait in the queue."""
        self.cell.run("qmod", "-d", "all.q")

    def unblock(self):
        self.cell.run("qmod", "-e", "all.q")

    def cancel_all(self):
        self.cell.cancel_all()


@pytest.fixture(scope="module")
def lab():
    """A folder that everybody can read, in which two users have a Python."""
    lacking = users.lacks()
    if lacking:
        pytest.skip(lacking)
    folder = Path(tempfile.mkdtemp(prefix="psyrun-lab-"))
    folder.chmod(0o755)
    try:
        with users.added():
            (folder / "python").mkdir()
            users.copy_python(folder / "python")
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", params=[SLURM, GRID_ENGINE])
def shared(request, lab):
    if request.param == "gridengine":
        yield SharedGridEngine(request.getfixturevalue("gridengine"))
        return
    with start_slurm(lab / "slurm", nodes=2, cpus=4) as cluster:
        yield SharedSlurm(cluster)


@pytest.fixture
def alice(request, lab):
    """A project in a folder that a group may write to, as its first user sees it."""
    place = Path(tempfile.mkdtemp(prefix="place-", dir=lab))
    place.chmod(0o755)
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / "counting.py").write_text(PRELUDE)
    root = place / "our project"
    (root / "psy-tasks").mkdir(parents=True)
    (root / "evaluations.txt").touch()
    (root / "evaluations.txt").chmod(0o666)
    for folder in (root, root / "psy-tasks"):
        shutil.chown(folder, ALICE, users.GROUP)
        folder.chmod(0o775)
    python = next((lab / "python" / "bin").iterdir())
    return Project(root, prefix=users.as_user(ALICE), python=str(python))


@pytest.fixture
def bob(alice):
    """The same project, as its second user sees it."""
    return replace(alice, prefix=users.as_user(BOB))


@pytest.fixture
def environment(lab, monkeypatch):
    monkeypatch.setenv("HOME", str(lab))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(lab / "python" / "lib"))


@pytest.fixture
def cluster(shared, enter, environment):
    yield enter(shared)
    shared.cancel_all()


@pytest.fixture
def task(cluster):
    """Return the text of a task for the cluster at hand."""
    return partial(sweep.task, kind=cluster.scheduler)


def open_gate(project):
    (project.root / "gate").touch()


def test_each_goes_on_with_what_the_other_began_and_cancels_only_their_own(
    cluster, task, alice, bob, wait_until
):
    alice.task("a", gated(task(4, 2, grace=90)))
    assert "the result appears by itself" in alice.psy("run", code=75).stdout
    (hers,) = submissions(alice)
    wait_until(lambda: bob.status("a")["running"] == 4 or bob.status("a")["running"] == 2)
    assert (hers["submitter"], hers["system"]) == (ALICE, cluster.system)
    again = bob.psy("run", code=75).stdout
    assert "2 jobs in flight\n  the result appears by itself" in again
    assert submissions(bob) == [hers]
    left = f"a: 2 jobs of {ALICE} are left; {ALICE} can cancel them: psy kill a\n"
    assert bob.psy("kill", "a").stdout == left
    bob.edit("psy-tasks/task_a.py", "range(4)", "range(6)")
    assert "2 of 6 rows to evaluate" in bob.psy("run", code=75).stdout
    assert len(cluster.jobs_of(BOB)) == 2  # one array, and the job that merges
    killed = alice.psy("kill", "a").stdout
    assert "a: 2 jobs cancelled; what is finished is kept\n" in killed
    assert f"a: 2 jobs of {BOB} are left; {BOB} can cancel them: psy kill a\n" in killed
    wait_until(lambda: not cluster.jobs_of(ALICE))
    assert len(cluster.jobs_of(BOB)) == 2
    open_gate(bob)
    bob.psy("run", "--wait")
    assert_right(bob, 6)
    assert xs_seen(bob) == list(range(6))
    assert alice.count("run") == 0
    alice.edit("psy-tasks/task_a.py", "range(6)", "range(8)")
    alice.psy("run", "--wait")
    assert_right(alice, 8)
    log = alice.root / "psy-work" / "a" / "log" / "0.log"
    assert log.stat().st_mode & 0o660 == 0o660
    assert (alice.root / "psy-work" / ".doit.db").stat().st_mode & 0o660 == 0o660


def test_edit_of_one_names_the_outdated_jobs_of_the_other(cluster, task, alice, bob, wait_until):
    alice.task("a", gated(task(4, 2)))
    alice.psy("run", code=75)
    bob.edit("psy-tasks/task_a.py", "2 * x", "3 * x")
    edited = bob.psy("run", code=75).stdout
    assert f"outdated by an edit: 2 jobs of {ALICE} are left; {ALICE} can cancel them: psy kill a\n" in edited
    assert "2 jobs in flight" in edited
    assert "2 jobs cancelled" in alice.psy("kill", "a").stdout
    wait_until(lambda: not cluster.jobs_of(ALICE))
    open_gate(bob)
    bob.psy("run", "--wait")
    assert_right(bob, 4, factor=3)


def test_stuck_jobs_of_another_are_replaced_and_stay_theirs_to_cancel(cluster, task, alice, bob):
    cluster.block()
    try:
        alice.task("a", gated(task(4, 2)))
        alice.psy("run", code=75)
        (hers,) = submissions(alice)
        cluster.hold(hers["job"])
    finally:
        cluster.unblock()
    said = bob.psy("status").stdout
    assert f"a: 2 jobs of {ALICE} are stuck: {cluster.held}; {ALICE} can cancel them," in said
    assert "psy run --take-over a replaces them\n" in said
    assert f"2 jobs are stuck: {cluster.held}; psy kill a cancels them," in alice.psy("run", code=75).stdout
    taken = bob.psy("run", "--take-over", code=75).stdout
    assert "2 jobs replaced (stuck, and left in the queue)" in taken
    assert "the result appears by itself" in taken
    assert "2 jobs cancelled" not in bob.psy("run", code=75).stdout
    open_gate(bob)
    bob.psy("run", "--wait")
    assert_right(bob, 4)
    assert xs_seen(bob) == list(range(4))


def test_jobs_of_another_that_ended_early_are_explained_and_submitted_again(
    cluster, task, alice, bob, wait_until
):
    alice.task("a", gated(task(4, 2, grace=90)))
    alice.psy("run", code=75)
    wait_until(lambda: bob.status("a")["running"] == 2)
    cluster.cancel_all()
    said = f"2 of its jobs ended early: {cluster.cancelled}\n"
    again = [bob.psy("run", code=75).stdout]
    wait_until(lambda: said in again[-1] or again.append(bob.psy("run", code=75).stdout))
    assert "2 jobs in flight" in again[-1]
    assert [each["submitter"] for each in submissions(bob) if not each["closed"]] == [BOB]
    open_gate(bob)
    bob.psy("run", "--wait")
    assert_right(bob, 4)
    assert xs_seen(bob) == list(range(4))


@pytest.mark.parametrize("shared", [SLURM], indirect=True)  # Grid Engine can't hide jobs.
def test_jobs_that_the_site_hides_are_neither_submitted_again_nor_cancelled_until_taken_over(
    cluster, task, alice, bob, wait_until
):
    cluster.hide_others()
    try:
        alice.task("a", gated(task(4, 2)))
        alice.psy("run", code=75)
        hidden = f"whether 2 jobs run is not known: Slurm does not show the jobs of {ALICE} to others"
        assert f"a: {hidden}; to replace them: psy run --take-over a\n" in bob.psy("status").stdout
        status = bob.status("a")
        assert (status["queued"], status["running"], status["missing"]) == (4, 0, 0)
        again = bob.psy("run", code=75).stdout
        assert f"  {hidden}; to replace them: psy run --take-over a\n" in again
        assert "appears by itself" not in again
        assert (
            bob.psy("kill", "a").stdout
            == f"a: 2 jobs of {ALICE} may be left; {ALICE} can cancel them: psy kill a\n"
        )
        assert not cluster.jobs_of(BOB)
        taken = bob.psy("run", "--take-over", code=75).stdout
        assert "2 jobs given up: Slurm does not show" in taken
        assert "the result appears by itself" in taken
        open_gate(bob)
        wait_until((bob.root / "psy-work" / "a" / "result.pkl").exists)
        wait_until(lambda: not cluster.jobs_of(ALICE) | cluster.jobs_of(BOB))
    finally:
        cluster.show_others()
    assert_right(bob, 4)
    assert alice.count("run") == 0


@pytest.mark.xdist_group("slurm")  # as other tests that need a Python for two users
def test_lock_tells_who_is_at_work_and_is_broken_when_they_have_died(environment, alice, bob, wait_until):
    text = gated(sweep.task(3, 1)).replace("Param, Slurm", "Param")
    alice.task("a", "".join(line + "\n" for line in text.splitlines() if "scheduler" not in line))
    hers = alice.start("run", "-j", "1")
    lock = alice.root / "psy-work" / "a" / "lock"
    wait_until(lambda: lock.exists() and bob.status("a")["running"])
    pid = int(lock.read_text().split("|")[-2])
    assert pwd.getpwuid(lock.stat().st_uid).pw_name == ALICE
    his = bob.start("run", "-j", "1")
    assert his.stdout is not None
    wait_until(lambda: f"psy of {ALICE} with process id {pid} on" in his.stdout.readline())
    assert f"1 job of {ALICE} is left" in bob.psy("kill", "a").stdout
    os.killpg(hers.pid, signal.SIGKILL)
    hers.communicate()
    open_gate(bob)
    out, err = his.communicate(timeout=60)
    assert his.returncode == 0, out + err
    assert_right(bob, 3)
