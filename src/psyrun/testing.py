"""Contract tests for authors of plug-ins: what psyrun relies on, as classes of tests for pytest to collect.

A subclass provides the fixture `scheduler`, and takes what its system can do::

    from psyrun.testing import ArrayContract, ExplainContract, QueueContract

    class TestMySystem(QueueContract, ArrayContract, ExplainContract):
        options = {"timelimit": 1}

        @pytest.fixture
        def scheduler(self):
            return MySystem()
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from psyrun.scheduler import JobSpec, JobState, Scheduler
from psyrun.submissions import new_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeAlias

    Submit: TypeAlias = Callable[..., str]  # a program and its arguments -> the job's id
    Settle: TypeAlias = Callable[..., None]  # jobs -> they have left the queue
    Gate: TypeAlias = Callable[[str], Path]
    Started: TypeAlias = Callable[..., None]
    Wait: TypeAlias = Callable[[Callable[[], object]], None]

__all__ = ["ArrayContract", "DetachedContract", "ExplainContract", "QueueContract", "SchedulerContract"]

# Programs of jobs. A scheduler may append arguments of its own, so their number comes first.
REPORT = """\
import json, os, sys
path, count = sys.argv[1], int(sys.argv[2])
seen = {"argv": sys.argv[3:3 + count], "rest": sys.argv[3 + count:], "folder": os.getcwd()}
seen |= {"env": dict(os.environ), "stdin": sys.stdin.read()}
print("to standard output")
print("to standard error", file=sys.stderr)
if "--element" in sys.argv:
    path += sys.argv[-1]
with open(path + ".new", "w") as file:
    json.dump(seen, file)
os.rename(path + ".new", path)
"""
GATED = """\
import os, sys, time
path = sys.argv[1] + (sys.argv[-1] if "--element" in sys.argv[2:] and "each" in sys.argv else "")
open(path + ".started", "w").close()
while not os.path.exists(path):
    time.sleep(0.02)
"""


class SchedulerContract:
    """What psyrun relies on of every scheduler.

    Attributes
    ----------
    options
        Options for each job.
    seconds
        How long a job may take from its submission to its end.
    """

    options: Mapping[str, Any] = MappingProxyType({})
    seconds: float = 60.0

    @pytest.fixture
    def scheduler(self) -> Scheduler:
        """Return the scheduler to test."""
        raise NotImplementedError

    @pytest.fixture
    def submit(self, scheduler: Scheduler, tmp_path: Path) -> Iterator[Submit]:
        """Submit a Python program with arguments; jobs that are still there in the end are cancelled."""
        folder = tmp_path / "a folder, 100%"
        folder.mkdir()
        jobs = []

        def begin(program: str, *arguments: object, **changes: Any) -> str:
            spec: dict[str, Any] = {
                "argv": [sys.executable, "-c", program, *map(str, arguments)],
                "name": "example:process",
                "token": new_token(),
                "indices": range(1),
                "log": tmp_path / "job.log",
                "folder": folder,
                "env": dict(os.environ),
                "options": dict(self.options),
            }
            jobs.append(scheduler.submit(JobSpec(**spec | changes)))
            return jobs[-1]

        yield begin
        scheduler.cancel(jobs)

    @pytest.fixture
    def wait(self) -> Wait:
        """Wait for a condition."""

        def wait(condition: Callable[[], object]) -> None:
            deadline = time.monotonic() + self.seconds
            while not condition():
                assert time.monotonic() < deadline, "the condition did not come true"
                time.sleep(0.1)

        return wait

    @pytest.fixture
    def settle(self, scheduler: Scheduler, wait: Wait) -> Settle:
        """Wait until jobs left the queue."""

        def settle(*jobs: str) -> None:
            wait(lambda: scheduler.query(jobs) == {})

        return settle

    def test_it_keeps_to_the_protocol(self, scheduler: Scheduler) -> None:
        assert isinstance(scheduler, Scheduler)
        assert scheduler.array_limit() >= 1
        shortest, longest = scheduler.poll
        assert 0 < shortest <= longest
        assert scheduler.grace >= 0
        assert set(scheduler.required) <= set(scheduler.options)
        assert set(scheduler.inherited) <= set(scheduler.options)

    def test_jobs_have_ids_of_their_own(self, submit: Submit) -> None:
        assert len({submit("pass") for _ in range(3)}) == 3

    def test_job_runs_in_its_folder_with_its_environment_and_log(
        self, submit: Submit, settle: Settle, tmp_path: Path
    ) -> None:
        env = os.environ | {"OF_THIS_JOB": "two words, and ünicode"}
        settle(submit(REPORT, tmp_path / "seen.json", 0, env=env, indices=()))
        seen = json.loads((tmp_path / "seen.json").read_text())
        assert Path(seen["folder"]).samefile(tmp_path / "a folder, 100%")
        assert seen["env"]["OF_THIS_JOB"] == "two words, and ünicode"
        assert seen["stdin"] == ""
        log = (tmp_path / "job.log").read_text()
        assert "to standard output" in log
        assert "to standard error" in log

    def test_arguments_arrive_as_they_are(self, submit: Submit, settle: Settle, tmp_path: Path) -> None:
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
        settle(submit(REPORT, tmp_path / "seen.json", len(arguments), *arguments, indices=()))
        assert json.loads((tmp_path / "seen.json").read_text())["argv"] == arguments

    def test_log_is_appended_to(self, submit: Submit, settle: Settle, tmp_path: Path) -> None:
        (tmp_path / "job.log").write_text("what was there\n")
        settle(submit("print('what is new')"))
        assert (tmp_path / "job.log").read_text() == "what was there\nwhat is new\n"

    def test_job_that_ended_is_not_in_the_queue(
        self, scheduler: Scheduler, submit: Submit, settle: Settle
    ) -> None:
        job = submit("pass")
        settle(job)
        assert scheduler.query([job]) == {}

    def test_unknown_tokens_are_not_found(self, scheduler: Scheduler) -> None:
        assert scheduler.find([new_token()]) == {}

    def test_nothing_is_known_of_no_jobs(self, scheduler: Scheduler) -> None:
        assert scheduler.query([]) == {}
        assert scheduler.explain([]) == {}
        scheduler.cancel([])

    def test_cancelling_a_job_that_ended_does_nothing(
        self, scheduler: Scheduler, submit: Submit, settle: Settle
    ) -> None:
        job = submit("pass")
        settle(job)
        scheduler.cancel([job])
        assert scheduler.query([job]) == {}


class QueueContract(SchedulerContract):
    """What psyrun relies on of a scheduler whose `submit` does not wait for the job."""

    @pytest.fixture
    def gate(self, tmp_path: Path) -> Gate:
        """Return paths; a job that runs GATED with one ends when the file is there."""
        return lambda name: tmp_path / name

    @pytest.fixture
    def started(self, wait: Wait) -> Started:
        """Wait until jobs have begun that run GATED."""

        def begun(*gates: Path) -> None:
            wait(lambda: all(gate.with_name(gate.name + ".started").exists() for gate in gates))

        return begun

    def test_job_is_in_the_queue_while_it_runs_and_gone_then(
        self,
        scheduler: Scheduler,
        submit: Submit,
        settle: Settle,
        gate: Gate,
        started: Started,
        wait: Wait,
    ) -> None:
        path = gate("gate")
        job = submit(GATED, path)
        assert (scheduler.query([job]) or {}).keys() == {job}
        started(path)
        wait(lambda: [*(scheduler.query([job]) or {})[job].values()] == [JobState.RUNNING])
        path.touch()
        settle(job)

    def test_one_query_tells_of_all_jobs_asked_for_and_no_others(
        self,
        scheduler: Scheduler,
        submit: Submit,
        settle: Settle,
        gate: Gate,
    ) -> None:
        jobs = [submit(GATED, gate(name)) for name in ("one", "two", "three")]
        ended = submit("pass")
        settle(ended)
        assert (scheduler.query([*jobs[:2], ended]) or {}).keys() == set(jobs[:2])

    def test_cancel_ends_the_job_and_no_other(
        self,
        scheduler: Scheduler,
        submit: Submit,
        settle: Settle,
        gate: Gate,
        started: Started,
    ) -> None:
        gates = [gate(name) for name in ("one", "two", "three")]
        jobs = [submit(GATED, path) for path in gates]
        started(*gates)
        scheduler.cancel([jobs[1]])
        settle(jobs[1])
        assert (scheduler.query(jobs) or {}).keys() == {jobs[0], jobs[2]}

    def test_other_processes_see_and_cancel_the_job(
        self,
        scheduler: Scheduler,
        submit: Submit,
        settle: Settle,
        gate: Gate,
        started: Started,
    ) -> None:
        path = gate("gate")
        job = submit(GATED, path)
        started(path)
        elsewhere = type(scheduler)()
        assert (elsewhere.query([job]) or {}).keys() == {job}
        elsewhere.cancel([job])
        settle(job)
        assert elsewhere.query([job]) == {}


class DetachedContract(QueueContract):
    """What psyrun relies on of a batch system, whose jobs outlive the process that submitted them."""

    def test_job_is_found_by_its_token(self, scheduler: Scheduler, submit: Submit, gate: Gate) -> None:
        """Its token is in the arguments, as it is in psyrun's."""
        tokens = [new_token(), new_token()]
        jobs = [submit(GATED, gate(token), token=token) for token in tokens]
        found = scheduler.find([tokens[1], new_token()])
        assert found == {tokens[1]: jobs[1]}

    @pytest.mark.parametrize("code", [0, 3])
    def test_job_begins_after_others_have_ended_however(
        self,
        submit: Submit,
        settle: Settle,
        gate: Gate,
        started: Started,
        tmp_path: Path,
        code: int,
    ) -> None:
        gates = [gate("one"), gate("two")]
        firsts = [submit(GATED + f"raise SystemExit({code})", path) for path in gates]
        last = submit(REPORT, tmp_path / "seen.json", 0, after=firsts, indices=())
        started(*gates)
        gates[0].touch()
        settle(firsts[0])
        assert not (tmp_path / "seen.json").exists()
        gates[1].touch()
        settle(*firsts, last)
        assert (tmp_path / "seen.json").exists()

    def test_prologue_is_sourced_first(self, submit: Submit, settle: Settle, tmp_path: Path) -> None:
        prologue = tmp_path / "my env.sh"
        prologue.write_text("export OF_PROLOGUE='a b'\nset -- other arguments\nfalse\n")
        settle(submit(REPORT, tmp_path / "seen.json", 1, "one", prologue=prologue, indices=()))
        seen = json.loads((tmp_path / "seen.json").read_text())
        assert seen["env"]["OF_PROLOGUE"] == "a b"
        assert seen["argv"] == ["one"]

    def test_command_that_does_not_exist_leaves_a_word_in_the_log(
        self, submit: Submit, settle: Settle, tmp_path: Path
    ) -> None:
        settle(submit("pass", argv=[str(tmp_path / "no-such-python"), "-c", "pass"]))
        assert "no-such-python" in (tmp_path / "job.log").read_text()


class ArrayContract(DetachedContract):
    """What psyrun relies on of a batch system that has job arrays."""

    def test_each_element_is_told_which_it_is(self, submit: Submit, settle: Settle, tmp_path: Path) -> None:
        settle(submit(REPORT, tmp_path / "seen", 1, "one", indices=range(5)))
        for element in range(5):
            seen = json.loads((tmp_path / f"seen{element}").read_text())
            assert seen["argv"] == ["one"]
            assert seen["rest"] == ["--element", str(element)]

    def test_query_tells_of_each_element(
        self,
        scheduler: Scheduler,
        submit: Submit,
        settle: Settle,
        gate: Gate,
        started: Started,
        wait: Wait,
    ) -> None:
        path = gate("gate")
        job = submit(GATED, path, "each", indices=range(4), throttle=2)
        started(gate("gate0"), gate("gate1"))
        states = (scheduler.query([job]) or {})[job]
        running, queued = JobState.RUNNING, JobState.QUEUED
        assert states == {0: running, 1: running, 2: queued, 3: queued}
        gate("gate0").touch()
        wait(lambda: 0 not in (scheduler.query([job]) or {})[job])
        for element in (1, 2, 3):
            gate(f"gate{element}").touch()
        settle(job)


class ExplainContract(QueueContract):
    """What psyrun relies on of a system that tells how jobs ended."""

    def test_job_that_ended_with_an_error_is_explained(
        self, scheduler: Scheduler, submit: Submit, settle: Settle
    ) -> None:
        good, bad = submit("pass"), submit("raise SystemExit(3)")
        settle(good, bad)
        explained = scheduler.explain([good, bad])
        assert {job for job, _ in explained} == {bad}
        assert "3" in next(iter(explained.values()))

    def test_job_that_a_signal_ended_is_explained(
        self, scheduler: Scheduler, submit: Submit, settle: Settle
    ) -> None:
        job = submit("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        settle(job)
        (why,) = scheduler.explain([job]).values()
        assert "9" in why

    def test_job_that_runs_is_not_explained(
        self,
        scheduler: Scheduler,
        submit: Submit,
        gate: Gate,
        started: Started,
    ) -> None:
        path = gate("gate")
        job = submit(GATED, path)
        started(path)
        assert scheduler.explain([job]) == {}

    def test_job_that_was_cancelled_is_explained(
        self,
        scheduler: Scheduler,
        submit: Submit,
        settle: Settle,
        gate: Gate,
        started: Started,
    ) -> None:
        path = gate("gate")
        job = submit(GATED, path)
        started(path)
        scheduler.cancel([job])
        settle(job)
        assert {each for each, _ in scheduler.explain([job])} == {job}
