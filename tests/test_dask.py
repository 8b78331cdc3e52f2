"""The example of a scheduler of one's own, with psy in front, and processes of Dask that can be killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest

from psyrun.scheduler import create_scheduler

TASK = """\
import os
import time
from counting import seen
from psyrun import Param
from psyrun_dask import Dask

pspace = Param(x=range(12))
scheduler = Dask()
scheduler.poll = (0.2, 0.5)
scheduler.grace = 0
scheduler_args = {"address": ADDRESS}
max_jobs = 4
untracked = ["../gate"]


def execute(x):
    seen(x)
    while not os.path.exists("../gate"):
        time.sleep(0.02)
    return {"y": 2 * x}
"""
RIGHT = {"x": list(range(12)), "y": [2 * x for x in range(12)]}


class Processes:
    """A scheduler of Dask, and workers, each a process."""

    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = found.getsockname()[1]
        self.address, self.folder, self.running = f"tcp://127.0.0.1:{self.port}", folder, {}

    def start(self, name, *arguments):
        argv = [
            sys.executable,
            "-m",
            "distributed.cli.dask_" + name.rstrip("12"),
            *arguments,
            "--no-dashboard",
        ]
        log = (self.folder / f"{name}.log").open("ab")
        self.running[name] = subprocess.Popen(argv, cwd=self.folder, stdout=log, stderr=log)
        log.close()

    def start_scheduler(self):
        self.start("scheduler", "--host", "127.0.0.1", "--port", str(self.port))

    def start_worker(self, name):
        self.start(name, self.address, "--nthreads", "4", "--no-nanny", "--local-directory", str(self.folder))

    def end(self, name, number=signal.SIGKILL):
        process = self.running.pop(name)
        process.send_signal(number)
        process.wait(30)


@pytest.fixture
def dask(tmp_path):
    folder = tmp_path / "dask"
    folder.mkdir()
    processes = Processes(folder)
    processes.start_scheduler()
    processes.start_worker("worker1")
    yield processes
    for name in reversed([*processes.running]):  # A worker says goodbye to its scheduler.
        processes.end(name, signal.SIGTERM)


@pytest.fixture
def sweep(dask, project, wait_until):
    project.task("a", TASK.replace("ADDRESS", repr(dask.address)))
    project.psy("run", code=75)
    wait_until(lambda: len(project.rows_seen()) >= 4)
    yield project
    (project.root / "gate").touch()


def test_result_appears_by_itself(sweep, wait_until):
    assert "4 jobs in flight" in sweep.psy("run", code=75).stdout
    (sweep.root / "gate").touch()
    wait_until((sweep.root / "psy-work" / "a" / "result.pkl").exists)
    assert sweep.result("a") == RIGHT
    assert len(sweep.rows_seen()) == 12


def test_kill_ends_the_jobs_and_the_next_run_goes_on(sweep):
    assert "4 jobs cancelled" in sweep.psy("kill", "a").stdout
    assert sweep.status("a")["missing"] == 12
    (sweep.root / "gate").touch()
    sweep.psy("run", "--wait")
    assert sweep.result("a") == RIGHT


def test_elements_of_a_worker_that_dies_run_on_another(dask, sweep, wait_until):
    dask.start_worker("worker2")
    before = len(sweep.rows_seen())
    dask.end("worker1")
    wait_until(lambda: len(sweep.rows_seen()) >= before + 4)
    (sweep.root / "gate").touch()
    sweep.psy("run", "--wait")
    assert sweep.result("a") == RIGHT


def test_jobs_that_a_restarted_scheduler_forgot_are_submitted_again(dask, sweep):
    dask.end("scheduler")
    assert "Dask does not answer" in sweep.psy("run", code=75, timeout=60).stdout
    dask.end("worker1")
    dask.start_scheduler()
    dask.start_worker("worker1")
    (sweep.root / "gate").touch()
    sweep.psy("run", "--wait")
    assert sweep.result("a") == RIGHT


def test_address_in_a_variable_tells_which_system_it_is(monkeypatch, tmp_path):
    """Otherwise jobs would be taken for gone, and submitted again, where it has another value tomorrow."""
    systems = []
    for address in ("tcp://one:8786", "tcp://two:8786"):
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
        scheduler = create_scheduler("Dask")
        scheduler.configure({}, tmp_path)
        systems.append(scheduler.system())
    assert systems == ["tcp://one:8786", "tcp://two:8786"]
