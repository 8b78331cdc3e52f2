"""What every scheduler does with a job, tried on those that run jobs on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from psyrun.errors import SchedulerError
from psyrun.scheduler import ImmediateRun, JobSpec, JobState, Local, Scheduler, scheduler_named
from psyrun.submissions import new_token

# Arguments of jobs: a scheduler may append some of its own.
REPORT = """\
import json, os, sys
path, count = sys.argv[1], int(sys.argv[2])
seen = {"argv": sys.argv[3:3 + count], "folder": os.getcwd(), "env": dict(os.environ)}
seen["stdin"] = sys.stdin.read()
print("to standard output")
print("to standard error", file=sys.stderr)
with open(path + ".new", "w") as file:
    json.dump(seen, file)
os.rename(path + ".new", path)
"""
GATED = """\
import sys
open(sys.argv[1] + ".started", "w").close()
open(sys.argv[1]).read()
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + GATED


class SchedulerContract:
    """What the farm relies on; subclasses have a fixture `scheduler`."""

    @pytest.fixture
    def scheduler(self):
        raise NotImplementedError

    @pytest.fixture
    def submit(self, scheduler, tmp_path):
        """Submit a Python program with arguments; jobs that are still there in the end are cancelled."""
        folder = tmp_path / "a folder"
        folder.mkdir()
        jobs = []

        def begin(program, *arguments, **changes):
            spec = {
                "argv": [sys.executable, "-c", program, *map(str, arguments)],
                "name": "example:process",
                "token": new_token(),
                "indices": range(1),
                "log": tmp_path / "job.log",
                "folder": folder,
                "env": dict(os.environ),
            }
            jobs.append(scheduler.submit(JobSpec(**spec | changes)))
            return jobs[-1]

        yield begin
        scheduler.cancel(jobs)

    @pytest.fixture
    def settle(self, scheduler, wait_until):
        """Wait until jobs left the queue."""

        def settle(*jobs):
            wait_until(lambda: scheduler.query(jobs) == {})

        return settle

    def test_it_keeps_to_the_protocol(self, scheduler):
        assert isinstance(scheduler, Scheduler)
        assert scheduler.array_limit() >= 1
        shortest, longest = scheduler.poll
        assert 0 < shortest <= longest
        assert scheduler.grace >= 0

    def test_jobs_have_ids_of_their_own(self, submit):
        assert len({submit("pass") for _ in range(3)}) == 3

    def test_job_runs_in_its_folder_with_its_environment_and_log(self, submit, settle, tmp_path):
        env = os.environ | {"OF_THIS_JOB": "two words, and ünicode"}
        job = submit(REPORT, tmp_path / "seen.json", 0, env=env)
        settle(job)
        seen = json.loads((tmp_path / "seen.json").read_text())
        assert Path(seen["folder"]).samefile(tmp_path / "a folder")
        assert seen["env"]["OF_THIS_JOB"] == "two words, and ünicode"
        assert seen["stdin"] == ""
        log = (tmp_path / "job.log").read_text()
        assert "to standard output" in log
        assert "to standard error" in log

    def test_arguments_arrive_as_they_are(self, submit, settle, tmp_path):
        arguments = [
            "two words",
            "",
            "a 'single' and a \"double\" quote",
            "$HOME ${HOME} $(id) `id`",
            "one line\nand another",
            "back\\slash",
            "; echo no",
            "*",
            "--option=1",
            "ünicode",
        ]
        job = submit(REPORT, tmp_path / "seen.json", len(arguments), *arguments)
        settle(job)
        assert json.loads((tmp_path / "seen.json").read_text())["argv"] == arguments

    def test_log_is_appended_to(self, submit, settle, tmp_path):
        (tmp_path / "job.log").write_text("what was there\n")
        settle(submit("print('what is new')"))
        assert (tmp_path / "job.log").read_text() == "what was there\nwhat is new\n"

    def test_job_that_ended_is_not_in_the_queue(self, scheduler, submit, settle):
        job = submit("pass")
        settle(job)
        assert scheduler.query([job]) == {}

    def test_job_that_ended_with_an_error_is_explained(self, scheduler, submit, settle):
        good, bad = submit("pass"), submit("raise SystemExit(3)")
        settle(good, bad)
        explained = scheduler.explain([good, bad])
        assert {job for job, _ in explained} == {bad}
        assert "3" in next(iter(explained.values()))

    def test_job_that_a_signal_ended_is_explained(self, scheduler, submit, settle):
        job = submit("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        settle(job)
        (why,) = scheduler.explain([job]).values()
        assert "9" in why

    def test_unknown_tokens_are_not_found(self, scheduler):
        assert scheduler.find([new_token()]) == {}

    def test_nothing_is_known_of_no_jobs(self, scheduler):
        assert scheduler.query([]) == {}
        assert scheduler.explain([]) == {}
        scheduler.cancel([])

    def test_cancelling_a_job_that_ended_does_nothing(self, scheduler, submit, settle):
        job = submit("pass")
        settle(job)
        scheduler.cancel([job])
        assert scheduler.query([job]) == {}

    def test_command_that_does_not_exist_is_an_error_that_shows_it(self, submit, tmp_path):
        with pytest.raises(SchedulerError, match="no-such-python"):
            submit("pass", argv=[str(tmp_path / "no-such-python"), "-c", "pass"])


class QueueContract(SchedulerContract):
    """What is expected of a scheduler whose `submit` does not wait for the job."""

    @pytest.fixture
    def gate(self, tmp_path):
        """Make paths of pipes; a job that runs GATED with one ends when the pipe is opened."""

        def make(name):
            path = tmp_path / name
            os.mkfifo(path)
            return path

        return make

    @pytest.fixture
    def started(self, wait_until):
        def wait(*gates):
            wait_until(lambda: all(gate.with_name(gate.name + ".started").exists() for gate in gates))

        return wait

    def test_job_is_in_the_queue_while_it_runs_and_gone_then(self, scheduler, submit, settle, gate, started):
        path = gate("gate")
        job = submit(GATED, path)
        started(path)
        states = scheduler.query([job])
        assert states.keys() == {job}
        assert set(states[job].values()) == {JobState.RUNNING}
        assert scheduler.explain([job]) == {}
        path.write_text("go on")
        settle(job)
        assert scheduler.explain([job]) == {}

    def test_one_query_tells_of_all_jobs_asked_for_and_no_others(
        self, scheduler, submit, settle, gate, started
    ):
        gates = [gate(name) for name in ("one", "two", "three")]
        jobs = [submit(GATED, path) for path in gates]
        ended = submit("pass")
        started(*gates)
        settle(ended)
        assert scheduler.query([*jobs[:2], ended]).keys() == set(jobs[:2])

    def test_cancel_ends_the_job_and_no_other(self, scheduler, submit, settle, gate, started):
        gates = [gate(name) for name in ("one", "two", "three")]
        jobs = [submit(GATED, path) for path in gates]
        started(*gates)
        scheduler.cancel([jobs[1]])
        settle(jobs[1])
        assert scheduler.query(jobs).keys() == {jobs[0], jobs[2]}

    def test_job_that_was_cancelled_is_explained(self, scheduler, submit, settle, gate, started):
        path = gate("gate")
        job = submit(GATED, path)
        started(path)
        scheduler.cancel([job])
        settle(job)
        assert {each for each, _ in scheduler.explain([job])} == {job}

    def test_other_processes_see_and_cancel_the_job(self, scheduler, submit, settle, gate, started):
        path = gate("gate")
        job = submit(GATED, path)
        started(path)
        elsewhere = type(scheduler)()
        assert elsewhere.query([job]).keys() == {job}
        elsewhere.cancel([job])
        settle(job)
        assert elsewhere.query([job]) == {}


class TestLocal(QueueContract):
    @pytest.fixture
    def scheduler(self):
        return Local()

    def test_job_that_does_not_heed_the_request_to_end_is_killed(
        self, scheduler, submit, settle, gate, started
    ):
        path = gate("gate")
        job = submit(STUBBORN, path)
        started(path)
        scheduler.cancel([job], seconds=0)
        settle(job)
        assert scheduler.explain([job]) == {(job, -1): "the worker was ended by signal 9 (SIGKILL)"}

    def test_job_is_told_who_started_it(self, submit, settle, tmp_path):
        settle(submit(REPORT, tmp_path / "seen.json", 2))
        assert json.loads((tmp_path / "seen.json").read_text())["argv"] == ["--parent", str(os.getpid())]

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

    def test_jobs_end_with_whoever_submits(self, scheduler):
        assert scheduler.attended


class TestImmediateRun(SchedulerContract):
    @pytest.fixture
    def scheduler(self):
        return ImmediateRun()

    def test_job_has_ended_when_it_was_submitted(self, scheduler, submit, tmp_path):
        job = submit(REPORT, tmp_path / "seen.json", 0)
        assert (tmp_path / "seen.json").exists()
        assert scheduler.query([job]) == {}

    def test_interrupt_ends_the_job(self, scheduler, submit, monkeypatch):
        started = []

        def wait(process, timeout=None):
            started.append(process)
            raise KeyboardInterrupt

        monkeypatch.setattr(subprocess.Popen, "wait", wait)
        with pytest.raises(KeyboardInterrupt):
            submit("import signal; signal.pause()")
        (process,) = started
        assert process.poll() == -signal.SIGTERM


@pytest.mark.parametrize("kind", [Local, ImmediateRun])
def test_schedulers_are_found_by_name(kind):
    assert type(scheduler_named(kind.__name__)) is kind


def test_unknown_scheduler_is_named():
    with pytest.raises(LookupError, match="no scheduler 'Unheard'"):
        scheduler_named("Unheard")
