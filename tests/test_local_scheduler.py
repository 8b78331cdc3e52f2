"""What every scheduler does with a job, tried on those that run jobs on this machine."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys

import pytest

import psyrun
from psyrun.errors import SchedulerError
from psyrun.scheduler import BUILT_IN, ImmediateRun, JobState, Local, Slurm, create_scheduler, job_environment
from psyrun.testing import GATED, ExplainContract, SchedulerContract

STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + GATED


class OnThisMachine(SchedulerContract):
    """What else is expected of schedulers that run jobs here."""

    def test_command_that_does_not_exist_is_an_error_that_shows_it(self, trial):
        with pytest.raises(SchedulerError, match="no-such-python"):
            trial.submit("pass", argv=[str(trial.folder / "no-such-python"), "-c", "pass"])


class TestLocal(OnThisMachine, ExplainContract):
    @pytest.fixture
    def scheduler(self):
        return Local()

    def test_job_that_does_not_heed_the_request_to_end_is_killed(self, scheduler, trial):
        [job] = trial.begin("gate", program=STUBBORN)
        scheduler.cancel([job], seconds=0)
        trial.settle(job)
        assert scheduler.explain([job]) == {(job, -1): "the worker was ended by signal 9 (SIGKILL)"}

    def test_job_is_told_who_started_it(self, trial):
        trial.settle(trial.report())
        assert trial.reported()["rest"] == ["--parent", str(os.getpid())]

    def test_process_that_got_the_id_of_an_ended_job_is_left_alone(self, scheduler):
        other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        try:
            job = f"{socket.gethostname()}/{other.pid}/0"
            assert scheduler.query([job]) == {}
            scheduler.cancel([job], seconds=0)
        finally:
            other.communicate(b"\n")
        assert other.returncode == 0

    def test_jobs_of_other_machines_are_unknown_and_left_alone(self, scheduler):
        job = f"not-{socket.gethostname()}/{os.getpid()}/1"
        assert scheduler.query([job]) == {job: {-1: JobState.UNKNOWN}}
        scheduler.cancel([job], seconds=0)

    def test_wait_ends_with_the_worker_or_when_time_is_up(self, scheduler, trial):
        [job] = trial.begin("gate")
        scheduler.wait(0.01)
        assert scheduler.query([job])
        os.kill(int(job.split("/")[1]), signal.SIGKILL)
        scheduler.wait(600)
        assert not scheduler.query([job])
        scheduler.wait(0)

    def test_jobs_end_with_whoever_submits(self, scheduler):
        assert not scheduler.detached

    def test_warning_reaches_the_program(self, trial):
        job = trial.submit("import signal; signal.pause()")
        os.kill(int(job.split("/")[1]), signal.SIGUSR1)
        trial.settle(job)
        assert trial.scheduler.explain([job]) == {
            (job, -1): f"the worker was ended by signal {signal.SIGUSR1} (SIGUSR1)"
        }


class TestImmediateRun(OnThisMachine):
    @pytest.fixture
    def scheduler(self):
        return ImmediateRun()

    def test_job_has_ended_when_it_was_submitted(self, scheduler, trial):
        job = trial.report()
        assert trial.reported()
        assert scheduler.query([job]) == {}

    def test_interrupt_ends_the_job(self, trial, monkeypatch):
        started = []

        def wait(process, timeout=None):
            started.append(process)
            raise KeyboardInterrupt

        monkeypatch.setattr(subprocess.Popen, "wait", wait)
        with pytest.raises(KeyboardInterrupt):
            trial.submit("import signal; signal.pause()")
        (process,) = started
        assert process.poll() == -signal.SIGTERM


@pytest.mark.parametrize("name", BUILT_IN)
def test_schedulers_are_found_by_name(name):
    assert type(create_scheduler(name)) is getattr(psyrun, name)


@pytest.mark.parametrize("kind", [Local, Slurm])
def test_job_does_not_inherit_what_describes_the_job_around_it(kind, monkeypatch):
    inherited = {
        "SLURM_CONF": "site",
        "SGE_ROOT": "site",
        "SLURMS": "1",
        "SBATCH_ACCOUNT": "me",
        "NSLOTS2": "1",
    }
    left = (
        "SLURM_JOB_ID",
        "SLURMD_NODENAME",
        "SBATCH_MEM_BIND",
        "PBS_JOBID",
        "SGE_TASK_ID",
        "NSLOTS",
        "JOB_ID",
    )
    for name, value in inherited.items() | dict.fromkeys(left, "1").items():
        monkeypatch.setenv(name, value)
    environment = job_environment(kind())
    assert inherited.items() <= environment.items()
    assert not environment.keys() & set(left)


def test_job_keeps_what_its_scheduler_needs_though_another_system_strips_it(monkeypatch):
    class MySystem(Slurm):
        job_variables = re.compile("MY_")
        kept_variables = re.compile("(PBS|MY)_CONF_FILE$")

    kept = {"PBS_CONF_FILE": "site", "MY_CONF_FILE": "site"}
    for name, value in kept.items() | dict.fromkeys(("PBS_JOBID", "MY_JOBID", "SLURM_JOB_ID"), "1").items():
        monkeypatch.setenv(name, value)
    environment = job_environment(MySystem())
    assert kept.items() <= environment.items()
    assert not environment.keys() & {"PBS_JOBID", "MY_JOBID", "SLURM_JOB_ID"}


def test_unknown_scheduler_is_named():
    with pytest.raises(LookupError, match="no scheduler 'Unheard'"):
        create_scheduler("Unheard")
