"""Slurm for real: a cluster on this machine, `psy` in front of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest

from clusters.sweep import assert_right, gated, submissions, task, xs_seen
from psyrun.errors import NoAnswerError, SubmitLimitError
from psyrun.scheduler import JobSpec, JobState, Slurm
from psyrun.scheduler.slurm import (
    parse_accounting,
    parse_ended,
    parse_queue,
)
from psyrun.testing import DependencyContract, ExplainContract, ThrottleContract, WarningContract

pytestmark = pytest.mark.xdist_group("slurm")


@pytest.fixture
def cluster(slurm, enter):
    return enter(slurm)


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """Count the calls of a command."""
    folder = tmp_path / "counted commands"
    folder.mkdir()

    def count(command):
        log = tmp_path / f"{command}.log"
        log.touch()
        real = subprocess.run(["which", command], capture_output=True, text=True, check=True).stdout.strip()
        script = folder / command
        script.write_text(f'#!/bin/sh\necho "$*" >> "{log}"\nexec "{real}" "$@"\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return lambda: len(log.read_text().splitlines())

    return count


class TestContract(ThrottleContract, DependencyContract, WarningContract, ExplainContract):
    options = {"timelimit": 5}

    @pytest.fixture
    def scheduler(self, cluster):
        return Slurm()

    @pytest.fixture
    def unreachable(self, cluster, tmp_path, monkeypatch):
        """As if the controller was on a port at which nothing listens."""
        text = (cluster.folder / "slurm.conf").read_text()
        text = text.replace(f"SlurmctldPort={cluster.port}", f"SlurmctldPort={cluster.port + 10}")
        (tmp_path / "cgroup.conf").touch()
        elsewhere = tmp_path / "slurm.conf"
        elsewhere.write_text(text + "MessageTimeout=1\n")  # for which commands try

        @contextmanager
        def enter():
            with monkeypatch.context() as context:
                context.setenv("SLURM_CONF", str(elsewhere))
                yield

        return enter

    @pytest.fixture
    def full(self, cluster):
        @contextmanager
        def enter():
            limit = ["sacctmgr", "-i", "modify", "user", "root", "set"]
            cluster.run(*limit, "maxsubmitjobs=0")
            try:
                yield
            finally:
                cluster.run(*limit, "maxsubmitjobs=-1")

        return enter

    @pytest.fixture
    def hold(self, cluster):
        return lambda job: cluster.run("scontrol", "hold", job)

    @pytest.fixture
    def warn(self, cluster):
        return lambda job: cluster.run("scancel", "--batch", "--signal=USR1", job)

    @pytest.fixture
    def foreign(self, cluster):
        cluster.run("sacctmgr", "-i", "add", "user", "nobody", "account=lab", check=False)
        where = ("--uid=nobody", "--gid=nogroup", "--chdir=/", "--hold")  # It could not read its script.
        job = cluster.run("sbatch", "--parsable", *where, "--wrap", "true")
        yield job
        cluster.run("scancel", job)


# ---------------------------------------------------------------------- the life of a task


def test_many_assignments_over_a_hundred_elements_equal_the_local_result(
    cluster, project, wait_until, counted
):
    squeue, sbatch = counted("squeue"), counted("sbatch")
    project.task("a", task(1000, 100))
    done = project.psy("run", code=75)
    assert "100 jobs in flight" in done.stdout
    assert sbatch() == 2  # one array, and the job that merges
    assert squeue() <= 1
    again = project.psy("run", code=75)
    assert "in flight" in again.stdout  # Some jobs may have ended meanwhile.
    assert sbatch() == 2
    assert squeue() <= 2
    result = project.root / "psy-work" / "a" / "result.pkl"
    wait_until(result.exists, 120)  # It appears by itself.
    assert_right(project, 1000)
    assert xs_seen(project) == list(range(1000))
    assert project.count("run") == 0
    assert submissions(project) == []


def test_waiting_asks_once_a_poll_for_all_tasks_and_runs_chains(cluster, project, counted):
    squeue = counted("squeue")
    for name in ("a", "b"):
        project.task(name, task(8, 4))
    project.task("c", task(3, 1, file_dep=["../psy-work/b/result.pkl"]))
    detached = project.psy("run", code=75)
    assert "c: waits for psy-work/b/result.pkl, the result of b" in detached.stdout
    before, began = squeue(), time.monotonic()
    project.psy("run", "--wait")
    polls = (time.monotonic() - began) / 0.5 + 3
    assert squeue() - before <= polls
    for name, n in (("a", 8), ("b", 8), ("c", 3)):
        assert_right(project, n, name=name)
    assert len(project.rows_seen()) == 19


@pytest.fixture
def chain(cluster, project):
    """Three tasks, each of which needs the result of the one before; the first waits for the gate."""
    project.task("a", gated(task(4, 2)))
    project.task("b", task(3, 1, file_dep=["../psy-work/a/result.pkl"]))
    project.task("c", task(2, 1, file_dep=["../psy-work/b/result.pkl"]))
    return (("a", 4), ("b", 3), ("c", 2))


WAITS = "{}: waits for psy-work/{}/result.pkl, the result of {}; once it is there: psy run {}, or"


def test_detached_chain_says_what_waits_for_what_and_what_to_type_next(chain, project, wait_until):
    b, c = WAITS.format("b", "a", "a", "b"), WAITS.format("c", "b", "b", "c")
    begun = project.psy("run", code=75).stdout
    assert f"{b} for the whole chain: psy run --wait b\n" in begun
    assert f"{c} for the whole chain: psy run --wait c\n" in begun
    (project.root / "gate").touch()
    for name, _ in chain:
        wait_until((project.root / "psy-work" / name / "result.pkl").exists)  # It appears by itself.
        done = project.psy("run", code=75 if name != "c" else 0)
        assert f"{name}: up to date" in done.stdout
        assert (c in done.stdout) == (name == "a")
    for name, rows in chain:
        assert_right(project, rows, name=name)
    assert len(project.rows_seen()) == 9


def test_task_whose_upstream_is_in_flight_waits_when_it_is_run_alone(chain, project):
    project.psy("run", "a", code=75)
    alone = project.psy("run", "c", code=75).stdout
    assert "a: 0 of 4 rows done, 2 jobs in flight" in alone
    assert WAITS.format("c", "b", "b", "c") in alone
    (project.root / "gate").touch()
    project.psy("run", "--wait", "c")
    for name, rows in chain:
        assert_right(project, rows, name=name)


def test_interrupt_leaves_the_jobs_running(cluster, project, wait_until):
    project.task("a", gated(task(4, 2)))
    run = project.start("run", "--wait")
    wait_until(lambda: cluster.run("squeue", "-h", "-t", "R"))
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=20)
    assert run.returncode == 130
    assert "2 jobs in flight go on" in out, out + err
    (project.root / "gate").touch()
    wait_until((project.root / "psy-work" / "a" / "result.pkl").exists, 60)
    assert xs_seen(project) == [0, 1, 2, 3]


def test_plain_doit_waits(cluster, project):
    project.task("a", task(6, 3))
    project.psy("doit")
    assert_right(project, 6)


def test_kill_between_submitting_and_writing_the_id_submits_nothing_twice(
    cluster, project, tmp_path, monkeypatch
):
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    real = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    (fakes / "sbatch").write_text(f'#!/bin/sh\n"{real}" "$@" > /dev/null\nkill -9 $PPID\n')
    (fakes / "sbatch").chmod(0o755)
    project.task("a", gated(task(6, 3)))
    with monkeypatch.context() as context:
        context.setenv("PATH", f"{fakes}:{os.environ['PATH']}")
        project.psy("run", code=-9)
    (left,) = submissions(project)
    assert left["job"] is None
    done = project.psy("run", code=75)
    assert "3 jobs in flight" in done.stdout
    (healed,) = submissions(project)
    assert healed["job"] is not None
    (project.root / "gate").touch()
    project.psy("run", "--wait")
    assert_right(project, 6)
    assert xs_seen(project) == list(range(6))


def test_edited_task_cancels_its_own_outdated_jobs_and_no_others(cluster, project, wait_until, tmp_path):
    foreign = cluster.run("sbatch", "--parsable", "-D", str(tmp_path), "--wrap", "sleep 600")
    project.task("a", gated(task(6, 3)))
    project.task("b", gated(task(4, 2)))
    project.psy("run", code=75)
    project.edit("psy-tasks/task_a.py", "2 * x", "3 * x")
    done = project.psy("run", "a", code=75)
    assert "3 jobs in flight were outdated by an edit and are cancelled" in done.stdout
    (project.root / "gate").touch()
    project.psy("run", "--wait")
    assert_right(project, 6, factor=3)
    assert_right(project, 4, name="b")
    assert foreign in cluster.run("squeue", "-h", "-o", "%A").split()


def test_extended_space_adds_jobs_and_leaves_the_others_alone(cluster, project):
    project.task("a", gated(task(6, 3)))
    project.psy("run", code=75)
    first = {each["job"] for each in submissions(project)}
    project.edit("psy-tasks/task_a.py", "range(6)", "range(10)")
    done = project.psy("run", code=75)
    assert "cancelled" not in done.stdout
    assert first < {each["job"] for each in submissions(project)}
    (project.root / "gate").touch()
    project.psy("run", "--wait")
    assert_right(project, 10)
    assert xs_seen(project) == list(range(10))


def test_rows_that_read_a_data_file_before_its_edit_are_evaluated_again_and_no_others(
    cluster, project, wait_until
):
    """The file is edited while 16 jobs run, whose first rows have read it, and 4 are queued."""
    project.write("data/factor.txt", "2")
    text = gated(task(40, 20)).replace("2 * x", "factor * x")
    reading = "    factor = int(open('../data/factor.txt').read())\n    open(f'../marks/{x}', 'w').close()\n"
    project.task("a", text.replace("    import os\n", f"    import os\n{reading}") + "stateless = True\n")
    marks = project.root / "marks"
    marks.mkdir()
    project.psy("run", code=75)
    wait_until(lambda: len(list(marks.iterdir())) == 16)
    project.write("data/factor.txt", "3")
    (project.root / "gate").touch()
    project.psy("run", "--wait")
    assert_right(project, 40, factor=3)
    counts = Counter(xs_seen(project))
    assert counts.total() == 56
    assert sorted(x for x, n in counts.items() if n == 2) == list(range(0, 32, 2))
    project.write("data/factor.txt", "4")
    assert "data/factor.txt changed; 40 rows read it" in project.psy("plan", "a").stdout
    project.psy("run", "--wait")
    assert_right(project, 40, factor=4)


def test_kill_ends_the_jobs_of_the_task_and_no_others(cluster, project, wait_until, tmp_path):
    foreign = cluster.run("sbatch", "--parsable", "-D", str(tmp_path), "--wrap", "sleep 600")
    for name in ("a", "b"):
        project.task(name, gated(task(6, 3)))
    project.psy("run", code=75)
    done = project.psy("kill", "a")
    assert "3 jobs cancelled" in done.stdout
    assert project.status("a")["missing"] == 6
    (b,) = submissions(project, "b")
    left = {foreign, b["job"], b["merge"]}
    wait_until(lambda: set(cluster.run("squeue", "-h", "-o", "%F").split()) == left)
    assert "nothing is in flight" in project.psy("kill", "a").stdout
    (project.root / "gate").touch()
    project.psy("run", "--wait")
    assert_right(project, 6)


def test_status_tells_what_is_queued_and_running(cluster, project, wait_until):
    project.task("a", gated(task(40, 20)))
    project.psy("run", code=75)
    wait_until(lambda: project.status("a")["running"] == 16)  # cores
    assert project.status("a")["queued"] == 24
    (project.root / "gate").touch()
    project.psy("run", "--wait")
    assert project.status("a")["done"] == 40


# ---------------------------------------------------------------------- what goes wrong


def test_failing_row_is_reported_and_only_it_is_tried_again(cluster, project):
    text = task(20, 5).replace(
        "    return",
        "    if x == 7 and not os.path.exists('../mended'):\n        raise ValueError('seven')\n    return",
    )
    project.task("a", "import os\n" + text)
    done = project.psy("run", "--wait", code=1)
    assert "1 failed" in done.stdout
    assert "seven" in project.psy("errors").stdout
    (project.root / "mended").touch()
    assert project.count("run", "--wait") == 1
    assert_right(project, 20)


def test_more_memory_for_those_that_lacked_it(cluster, project):
    if not cluster.limits_memory:
        pytest.skip("this machine has no cgroups to limit memory")
    text = task(6, 3, scheduler_args={"timelimit": "10", "memory": "150M"})
    text = text.replace("    return", "    if x == 3:\n        hog = b'x' * 400_000_000\n    return")
    project.task("a", text)
    project.psy("run", "--wait", code=1)
    assert "OUT_OF_MEMORY" in project.psy("errors").stdout
    assert "OUT_OF_MEMORY" in project.psy("status", "-v").stdout
    project.edit("psy-tasks/task_a.py", "150M", "800M")
    assert project.count("run", "--wait") == 1
    assert_right(project, 6)


@pytest.mark.long
def test_job_near_its_time_limit_stops_taking_rows_and_the_next_run_goes_on(cluster, project):
    """A limit of one minute ends after a minute at least, the warning comes ten seconds or more before."""
    text = task(200, 1, scheduler_args={"timelimit": "0:20"})
    project.task("a", text.replace("    seen(x)\n", "    seen(x)\n    time.sleep(1)\n"))
    done = project.psy("run", "--wait", code=1)
    assert "stopped near its time limit" in done.stdout
    status = project.status("a")
    assert 0 < status["done"] < 200
    assert status["failed"] == 0
    assert len(project.rows_seen()) == status["done"]
    assert "stopped near its time limit" in project.psy("status", "-v").stdout
    project.edit("psy-tasks/task_a.py", "time.sleep(1)", "pass")  # An edit of the code...
    assert project.count("run", "--continue", "--wait") == 200 - status["done"]  # ...that keeps the rows.
    assert_right(project, 200)


@pytest.mark.long
def test_job_over_its_time_limit_is_reported_and_only_its_rows_are_repeated(cluster, project):
    text = task(4, 2, scheduler_args={"timelimit": "0:15"})
    slow = "    if x == 1 and not os.path.exists('../mended'):\n        time.sleep(600)\n    return"
    project.task("a", "import os\n" + text.replace("    return", slow))
    project.psy("run", "--wait", code=1)
    assert project.status("a")["missing"] == 1
    assert "TIMEOUT" in project.psy("status", "-v").stdout
    (project.root / "mended").touch()
    assert project.count("run", "--wait") == 1
    assert_right(project, 4)


@pytest.mark.long
def test_requeued_element_goes_on_where_it_was(cluster, project, wait_until):
    text = task(40, 1).replace("    return", "    time.sleep(0.3)\n    return")
    project.task("a", text)
    project.psy("run", code=75)
    wait_until(lambda: project.status("a")["done"] >= 10, 60)
    (job,) = [each["job"] for each in submissions(project)]
    cluster.run("scontrol", "requeue", f"{job}_0")
    project.psy("run", "--wait", timeout=240)
    assert_right(project, 40)
    assert len(project.rows_seen()) <= 41  # the row that it was at


@pytest.mark.long
def test_controller_that_is_down_is_said_and_nothing_is_submitted_again(cluster, project):
    project.task("a", gated(task(6, 3)))
    project.psy("run", code=75)
    cluster.stop_controller()
    try:
        done = project.psy("run", code=75)
        assert "Slurm does not answer: nothing is submitted again meanwhile" in done.stdout
        said = project.psy("status").stdout
        assert (
            "a: Slurm does not answer: nothing is submitted again meanwhile, and whether 3 jobs run" in said
        )
        status = project.status("a")
        assert (status["queued"], status["running"], status["missing"]) == (6, 0, 0)
        killed = project.psy("kill", "a", code=1)
        assert "Unable to contact slurm controller" in killed.stderr
        waiting = project.start("run", "--wait")
        time.sleep(12)
        assert waiting.poll() is None
        (project.root / "gate").touch()
    finally:
        cluster.start_controller()
    out, err = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, out + err
    assert "does not answer" in out
    assert_right(project, 6)
    assert xs_seen(project) == list(range(6))


def test_controller_that_is_down_when_the_first_job_is_submitted(cluster, project):
    project.task("a", task(6, 3))
    cluster.stop_controller()
    try:
        done = project.psy("run", code=1)
    finally:
        cluster.start_controller()
    assert "Unable to contact slurm controller" in done.stderr
    assert "Traceback" not in done.stderr
    project.psy("run", "--wait")
    assert_right(project, 6)


def test_result_with_failed_rows_appears_by_itself_and_again_after_a_retry(cluster, project, wait_until):
    fails = "    import os\n    if x % 5 == 3 and not os.path.exists('../ok'):\n        raise ValueError(x)\n"
    text = (
        task(20, 4).replace("    seen(x)\n", f"{fails}    seen(x)\n")
        + "untracked = ['../ok']\nallow_failed = 0.2\n"
    )
    project.task("a", text)
    project.psy("run", code=75)
    path = project.root / "psy-work/a/result.pkl"
    wait_until(path.exists, 60)
    bad = [3, 8, 13, 18]
    assert [x for x, why in enumerate(project.result("a")["failure"]) if why] == bad
    assert project.count("run") == 0
    (project.root / "ok").touch()
    assert "in flight" in project.psy("run", "--retry", code=75).stdout
    before = path.stat().st_mtime_ns
    wait_until(lambda: path.stat().st_mtime_ns != before, 60)
    assert project.result("a")["failure"] == [""] * 20
    assert project.result("a")["y"] == [2 * x for x in range(20)]
    assert sorted(xs_seen(project)) == [*range(20)]
    assert project.count("run") == 0


@pytest.mark.long
def test_node_that_dies_costs_no_finished_row(cluster, project, wait_until):
    """Slurm takes two minutes to notice; what another node does meanwhile stays."""
    project.task("a", gated(task(32, 16)))
    project.psy("run", code=75)
    wait_until(lambda: project.status("a")["running"] == 16)
    assert cluster.processes_of(1)
    cluster.kill_node(1)
    (project.root / "gate").touch()
    wait_until(lambda: project.status("a")["done"] == 24)
    status = project.status("a")
    assert (status["running"] + status["queued"], status["missing"]) == (8, 0)  # Nobody has noticed yet.
    try:
        project.psy("run", "--wait", code=None, timeout=400)
    finally:
        cluster.start_node(1)
        cluster.wait_for_nodes()
    project.psy("run", "--wait", timeout=400)
    assert_right(project, 32)
    assert set(xs_seen(project)) == set(range(32))


def test_site_with_tiny_arrays(cluster, project):
    cluster.reconfigure(MaxArraySize="11")
    try:
        project.task("a", task(100, 100))
        project.psy("run", "--wait")
    finally:
        cluster.reconfigure()
    assert_right(project, 100)
    assert xs_seen(project) == list(range(100))


@pytest.mark.long
def test_site_that_limits_how_many_are_submitted(cluster, project):
    cluster.run("sacctmgr", "-i", "modify", "user", "root", "set", "maxsubmitjobs=20")
    try:
        project.task("a", gated(task(100, 100)))
        done = project.psy("run", code=75)
        assert "the site takes no more jobs now: 20 of 100 are submitted" in done.stdout
        assert "20 jobs in flight" in done.stdout
        assert "20 jobs in flight" in project.psy("run", code=75).stdout
        (project.root / "gate").touch()
        project.psy("run", "--wait", timeout=300)
    finally:
        cluster.run("sacctmgr", "-i", "modify", "user", "root", "set", "maxsubmitjobs=-1")
    assert_right(project, 100)
    assert xs_seen(project) == list(range(100))


def test_options_that_slurm_refuses_are_shown(cluster, project):
    project.task("a", task(6, 3, scheduler_args={"partition": "nowhere"}))
    done = project.psy("run", code=1)
    assert "sbatch exited with 1" in done.stderr
    assert "invalid partition" in done.stderr.lower()
    assert submissions(project) == []


def test_throttle_of_load_balancing(cluster, project, wait_until):
    text = gated(task(60, 2)).replace("import Param", "import LoadBalancingBackend, Param")
    project.task("a", text + "backend = LoadBalancingBackend()\n")
    project.psy("run", code=75)
    (array,) = submissions(project)
    sizes = [len(json.dumps(batch)) for batch in array["batches"]]
    assert len(sizes) > 2
    wait_until(lambda: cluster.run("squeue", "-h", "-t", "R", "-o", "%A"))
    time.sleep(1)
    assert len(cluster.run("squeue", "-h", "-t", "R", "-o", "%A").splitlines()) == 2
    (project.root / "gate").touch()
    project.psy("run", "--wait")
    assert_right(project, 60)


def test_functions_of_the_job_name_and_merge_args(cluster, project, counted):
    """The job that merges may have a partition, and a limit, of its own."""
    sbatch = counted("sbatch")
    project.write("psy-tasks/env.sh", "export FROM_PROLOGUE=1\n")
    text = task(4, 2, merge_args={"timelimit": "3"}, prologue="env.sh")
    text = text.replace(
        '{"timelimit": "10"}', '{"timelimit": lambda name: {"a:process": 7}[name], "extra": ["--nice=1"]}'
    )
    text = text.replace("    return {", "    import os\n    return {'p': os.environ['FROM_PROLOGUE'], ")
    project.task("a", text)
    project.psy("run", "--wait")
    assert project.result("a")["p"] == ["1"] * 4
    process, merge = (sbatch.__closure__[0].cell_contents).read_text().splitlines()
    assert "--time=0:07:00" in process
    assert "--nice=1" in process
    assert "--time=0:03:00" in merge
    assert "--nice" not in merge


# ---------------------------------------------------------------------- reading what Slurm prints


def test_names_may_hold_any_character():
    (entry,) = parse_queue("7|0|RUNNING|None|a|b c.p123\n")
    assert entry.label == "a|b c.p123"
    assert entry.state is JobState.RUNNING


def test_states_that_nobody_knows_are_kept_as_unknown():
    assert [each.state for each in parse_queue("7|0|HYPERSPACE|None|n\n7|1|COMPLETED|None|n\n")] == [
        JobState.UNKNOWN,
        None,
    ]


def test_reasons_of_those_that_ended():
    text = "7|0|COMPLETED|0|\n7|1|FAILED|768|\n7|2|FAILED|9|\n7|3|TIMEOUT|0|\n"
    text += "7|4|RUNNING|0|\n8|N/A|NODE_FAIL|0|\n9|0|FAILED|3:0|\n9|1|FAILED|0:9|\n"  # as versions print it
    assert parse_ended(text) == {
        ("7", 0): None,
        ("7", 1): "FAILED (exit 3)",
        ("7", 2): "FAILED (signal 9)",
        ("7", 3): "TIMEOUT",
        ("8", -1): "NODE_FAIL",
        ("9", 0): "FAILED (exit 3)",
        ("9", 1): "FAILED (signal 9)",
    }


def test_accounting_that_takes_an_element_for_a_plain_job_is_not_believed(tmp_path, monkeypatch):
    """As it does for a moment after the end of an array of one."""
    for command, line in (("sacct", "26|FAILED|0:9"), ("squeue", "26|0|FAILED|9|")):
        (tmp_path / command).write_text(f"#!/bin/sh\necho '{line}'\n")
        (tmp_path / command).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert Slurm().explain_ends(["26"]) == {("26", 0): "FAILED (signal 9)"}


def test_accounting_that_lags_explains_nothing():
    assert parse_accounting("7_0|RUNNING|0:0\n7_[1-3]|PENDING|0:0\n7_4|CANCELLED by 0|0:15\n") == {
        ("7", 4): "CANCELLED"
    }


def test_old_constructor(tmp_path):
    Slurm(str(tmp_path / "scripts"))
    assert not (tmp_path / "scripts").exists()


@pytest.fixture
def broken_sbatch(tmp_path, monkeypatch):
    """Put an sbatch on PATH that prints and fails."""

    def make(text):
        script = tmp_path / "bin" / "sbatch"
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\necho '{text}' >&2\nexit 1\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
        return JobSpec(
            argv=["true"],
            name="a:process",
            token="p123",
            indices=range(3),
            log=tmp_path / "log",
            folder=tmp_path,
            scratch=tmp_path / "p123",
            env=dict(os.environ),
        )

    return make


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller", NoAnswerError),
        ("sbatch: error: Socket timed out on send/recv operation", NoAnswerError),
        ("sbatch: error: AssocMaxSubmitJobLimit", SubmitLimitError),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", SubmitLimitError),
    ],
)
def test_refusals_are_told_apart(broken_sbatch, said, error):
    with pytest.raises(error):
        Slurm().submit(broken_sbatch(said))


@pytest.mark.parametrize(
    "extra", [["--exclusive", "--nice=10"], "--exclusive --nice=10"], ids=["list", "text"]
)
def test_further_options_may_be_given_as_one_would_type_them(broken_sbatch, extra):
    argv = Slurm().submit_argv(replace(broken_sbatch(""), options={"extra": extra}))
    at = argv.index("--exclusive")
    assert argv[at : at + 2] == ["--exclusive", "--nice=10"]
