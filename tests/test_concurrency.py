"""Two at work on one project, or one at work and one looking: nothing twice, nothing lost or disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import files
from conftest import GATED
from hosts import move, needs_hosts, shorten_leases
from processes import Processes
from psyrun.workdir import task_lock

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")

PLAIN = """\
from counting import seen
from psyrun import Param

pspace = Param(x=range(20))
pool_size = 2


def execute(x):
    seen(x)
    return {"y": 2 * x}
"""


@pytest.fixture
def two(project, start, gate, wait_until):
    """Return a run that waits for the gate, and one that waits for this run."""
    project.task("example", GATED)
    first = start("run")
    wait_until(lambda: len(project.rows_seen()) == 2)
    second = start("run")
    wait_until(lambda: "waiting" in second.said())
    return first, second


@pytest.fixture
def orphaned(project, start, gate, wait_until):
    """Return the process id of a worker whose psy was killed a moment ago."""
    project.task("example", GATED)
    psy = start("run").process
    wait_until(lambda: len(project.rows_seen()) == 2)
    [worker] = find_workers(psy.pid)
    psy.kill()
    psy.wait()
    return worker


def find_workers(parent):
    """Return the ids of the processes that a process started."""
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # It ended meanwhile.
            stats.append(path.read_text())
    return [int(stat.split()[0]) for stat in stats if int(stat.rpartition(")")[2].split()[1]) == parent]


def assert_right(project, n=20, factor=2, task="example"):
    assert project.result(task) == {"x": list(range(n)), "y": [factor * x for x in range(n)]}


def snapshot(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------------- two runs


def test_second_run_waits_and_evaluates_nothing_twice(project, two, gate):
    first, second = two
    assert str(first.process.pid) in second.said()
    gate.touch()
    first.end()
    second.end()
    assert len(project.rows_seen()) == 20
    assert_right(project)


def test_runs_that_begin_at_once_evaluate_nothing_twice(project, start):
    project.task("example", PLAIN)
    runs = [start("run") for _ in range(3)]
    for run in runs:
        run.end()
    assert len(project.rows_seen()) == 20
    assert_right(project)
    assert project.count("run") == 0


def test_runs_of_different_tasks_do_not_wait_for_each_other(project, start, gate, wait_until):
    project.task("example", GATED)
    project.task("other", PLAIN)
    first = start("run", "example")
    wait_until(project.rows_seen)
    project.psy("run", "other", timeout=30)
    assert_right(project, task="other")
    assert first.process.poll() is None
    gate.touch()
    first.end()
    assert_right(project)


def test_merge_waits_for_another_that_merges(project, start, wait_until):
    """A job of a batch system merges by itself, maybe while a run that follows it does."""
    project.task("example", PLAIN)
    project.psy("run")
    result = project.root / "psy-work/example/result.pkl"
    result.unlink()
    with task_lock(project.root / "psy-work/example/lock", print):
        run = start("run")
        wait_until(lambda: "is at work on it; waiting" in run.said())
        assert not result.exists()
    run.end()
    assert_right(project)


def test_waiting_run_can_be_interrupted_and_the_other_goes_on(project, two, gate):
    first, second = two
    os.killpg(second.process.pid, signal.SIGINT)
    second.end(code=130)
    assert "Traceback" not in second.said()
    gate.touch()
    first.end()
    assert len(project.rows_seen()) == 20
    assert_right(project)


def test_run_takes_over_where_the_other_is_interrupted(project, two, gate):
    first, second = two
    os.killpg(first.process.pid, signal.SIGINT)
    first.end(code=130)
    gate.touch()
    second.end()
    assert_right(project)


def test_run_with_newer_code_does_not_disturb_the_one_under_way(project, start, gate, wait_until):
    project.task("example", GATED)
    first = start("run")
    wait_until(project.rows_seen)
    project.edit("psy-tasks/task_example.py", "2 * x", "3 * x")
    second = start("run", "--yes")
    wait_until(lambda: "waiting" in second.said())
    gate.touch()
    second.end()
    first.process.wait(timeout=60)
    assert "Traceback" not in first.said()
    assert_right(project, factor=3)
    assert project.count("run") == 0
    assert_right(project, factor=3)


def test_plans_made_at_once_mix_no_values(project, start, gate, wait_until):
    """The space is drawn anew by each of them: values have to stay with the assignments that they are of."""
    project.task(
        "example",
        """\
        import os
        import random
        import sys
        import time
        from counting import seen
        from psyrun import Param
        from psyrun.backend import DistributeBackend


        class Slow(DistributeBackend):
            def partition(self, rows, max_jobs, min_items):
                if "--no-retry" in sys.argv:
                    seen("planning")
                    while not os.path.exists("../gate"):
                        time.sleep(0.01)
                return super().partition(rows, max_jobs, min_items)


        backend = Slow()
        pspace = Param(x=[random.random() for _ in range(10)])
        pool_size = 2


        def execute(x):
            return {"y": 2 * x}
        """,
    )
    slow = start("run", "--no-retry")
    wait_until(project.rows_seen)
    second = start("run")
    wait_until(lambda: len(list((project.root / "psy-work/example").glob("lock|*"))) == 2)
    gate.touch()
    slow.end()
    second.end()
    for _ in range(2):
        result = project.result("example")
        assert len(result["x"]) == 10
        assert result["y"] == [2 * x for x in result["x"]]
        (project.root / "psy-work/example/result.pkl").unlink()
        project.psy("run")


def test_two_workers_of_one_batch_count_each_row_once(project, start, gate, wait_until):
    """An orphan that goes on, and its successor: both evaluate all rows, and values of their own."""
    project.task("example", GATED.replace('"y": 2 * x', '"y": 2 * x, "worker": os.getppid()'))
    run = start("run")
    wait_until(lambda: len(project.rows_seen()) == 2)
    [submission] = (project.root / "psy-work/example/jobs").glob("*.json")
    argv = [sys.executable, "-P", "-m", "psyrun.worker", str(submission)]
    rival = subprocess.Popen(argv, cwd=project.root, env=project.env(), stdout=subprocess.DEVNULL)
    wait_until(lambda: len(project.rows_seen()) == 4)
    gate.touch()
    assert rival.wait(timeout=60) == 0
    run.end()
    assert len(project.rows_seen()) == 40
    first = project.result("example")
    assert first.pop("worker")
    assert first == {"x": list(range(20)), "y": [2 * x for x in range(20)]}
    before = project.result("example")
    (project.root / "psy-work/example/result.pkl").unlink()
    assert project.count("run") == 0
    assert project.result("example") == before


# ---------------------------------------------------------------------- locks


@pytest.mark.slow
def test_worker_that_meets_a_journal_of_a_newer_psyrun_says_so_in_one_line(project, start, gate, wait_until):
    project.task("example", GATED)
    run = start("run")
    folder = project.root / "psy-work/example"
    wait_until(lambda: len(project.rows_seen()) == 2)
    [submission] = (folder / "jobs").glob("*.json")
    content = submission.read_bytes()
    gate.touch()
    run.end()
    submission.write_bytes(content)
    whole = files.add_journal(folder, 0, [0], {"y": [0]}, run="newer000")
    whole.write_bytes(files.make_newer(whole.read_bytes()))
    argv = [sys.executable, "-P", "-m", "psyrun.worker", str(submission)]
    worker = subprocess.run(
        argv, cwd=project.root, env=project.env(), capture_output=True, text=True, check=False
    )
    assert worker.returncode == 1
    [line] = worker.stderr.splitlines()
    assert line.startswith("psyrun: error: ")
    assert "written by a newer psyrun" in line


def test_lock_of_a_killed_psy_does_not_delay_one_that_waits(project, two, gate, wait_until):
    first, second = two
    assert (project.root / "psy-work/example/lock").exists()
    first.process.kill()
    first.process.wait()
    wait_until(lambda: len(project.rows_seen()) > 2, seconds=10)
    gate.touch()
    second.end()
    assert_right(project)


@needs_proc
def test_worker_that_outlives_its_psy_is_waited_for_and_what_it_leaves_is_evaluated(
    project, orphaned, start, gate, wait_until
):
    os.kill(orphaned, signal.SIGSTOP)  # Afterwards: what is stopped when it becomes an orphan is woken.
    second = start("run")
    try:
        lock = project.root / "psy-work/example/lock"
        wait_until(lambda: lock.exists() and f"|{second.process.pid}|" in lock.read_text())
        looked = time.monotonic() + 1.0
        wait_until(lambda: time.monotonic() > looked)
        gate.touch()
    finally:
        os.kill(orphaned, signal.SIGCONT)
    second.end()
    assert_right(project)


@needs_proc
def test_worker_on_a_host_that_is_lost_is_not_waited_for(project, orphaned, start, gate, wait_until):
    wait_until(lambda: not Path(f"/proc/{orphaned}").exists())
    [path] = (project.root / "psy-work/example/jobs").glob("*.json")
    submission = json.loads(path.read_text())
    path.write_text(json.dumps(submission | {"job": "a-host-that-is-lost/1/1"}))
    gate.touch()
    start("run").end()
    assert_right(project)


@needs_proc
def test_lock_of_a_killed_psy_does_not_delay_the_next_and_is_cleared_away(project, orphaned, start, gate):
    assert (project.root / "psy-work/example/lock").exists()
    second = start("run")
    gate.touch()
    second.end()
    assert_right(project)
    assert not list((project.root / "psy-work/example").glob("lock*"))


# ---------------------------------------------------------------------- two hosts


@needs_hosts
def test_second_run_on_another_host_waits_and_evaluates_nothing_twice(project, start, gate, wait_until):
    project.task("example", GATED)
    first = start("run", on=move(project, "mars"))
    wait_until(project.rows_seen)
    second = start("run", on=move(project, "venus"))
    wait_until(lambda: "waiting" in second.said())
    assert f"{first.process.pid} on mars" in second.said()
    gate.touch()
    first.end()
    second.end()
    assert len(project.rows_seen()) == 20
    assert_right(project)


@needs_hosts
@needs_proc
def test_run_on_another_host_takes_over_from_a_host_that_is_lost(project, start, gate, wait_until):
    shorten_leases(project, 2)
    project.task("example", GATED)
    start("run", on=move(project, "mars"))
    wait_until(lambda: len(project.rows_seen()) == 2)
    second = start("run", on=move(project, "venus"))
    wait_until(lambda: "on mars" in second.said())
    mars = set(Processes(project).find()) - {second.process.pid}
    for pid in mars:
        os.kill(pid, signal.SIGKILL)
    gate.touch()
    second.end()
    assert len(project.rows_seen()) == 22  # Two were in the making.
    assert_right(project)
    assert not list((project.root / "psy-work/example").glob("lock*"))


@needs_hosts
@needs_proc
@pytest.mark.slow
def test_run_that_slept_while_another_host_took_over_ends_well(project, start, gate, wait_until):
    """A closed lid: the lock is another's when it wakes, and the rows that it was at have come in."""
    shorten_leases(project, 2)
    project.task("example", GATED.replace('"y": 2 * x', '"y": 2 * x, "by": os.uname().nodename'))
    first = start("run", on=move(project, "mars"))
    wait_until(lambda: len(project.rows_seen()) == 2)
    asleep = Processes(project).find()
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    second = start("run", on=move(project, "venus"))
    wait_until(lambda: len(project.rows_seen()) > 2)
    gate.touch()
    second.end()
    before = project.result("example")
    assert before == {"x": list(range(20)), "y": [2 * x for x in range(20)], "by": ["venus"] * 20}
    for pid in asleep:
        with suppress(ProcessLookupError):  # One that woke before has ended it.
            os.kill(pid, signal.SIGCONT)
    first.end()
    assert project.result("example") == before
    (project.root / "psy-work/example/result.pkl").unlink()
    assert project.count("run") == 0
    assert project.result("example") == before


# ---------------------------------------------------------------------- looking at a run


@pytest.mark.slow
def test_looking_at_a_run_works_and_writes_nothing(project, start, gate, wait_until):
    project.task("example", GATED)
    run = start("run")
    wait_until(lambda: len(project.rows_seen()) == 2)
    before = snapshot(project.root / "psy-work")
    status = project.status("example")
    counts = [status[name] for name in ("done", "failed", "running", "queued", "missing")]
    assert sum(counts) == status["total"] == 20
    assert status["running"] + status["queued"] == 20
    assert not status["uptodate"]
    assert status["result"] is None
    said = project.psy("status", "-v").stdout
    assert "example" in said
    assert "missing: " not in said  # They are running.
    assert project.psy("list").stdout.split() == ["example"]
    project.psy("plan")
    project.psy("errors")
    assert snapshot(project.root / "psy-work") == before
    assert len(project.rows_seen()) == 2
    gate.touch()
    run.end()
    assert_right(project)
    status = project.status("example")
    assert (status["done"], status["running"], status["queued"]) == (20, 0, 0)


def test_counts_add_up_while_rows_come_in(project, start, wait_until):
    project.task("example", PLAIN.replace("range(20)", "range(400)").replace("seen(x)", "seen(x); work()"))
    project.edit(
        "psy-tasks/task_example.py",
        "def execute",
        "import time\n\n\ndef work():\n    time.sleep(0.01)\n\n\ndef execute",
    )
    run = start("run")
    wait_until(lambda: len(project.rows_seen()) > 10)
    done = []
    while run.process.poll() is None:
        status = project.status("example")
        counts = [status[name] for name in ("done", "failed", "running", "queued", "missing")]
        assert sum(counts) == status["total"] == 400, status
        assert min(counts) >= 0, status
        done.append(status["done"])
    assert done == sorted(done)
    run.end()
    assert_right(project, 400)
