"""What psyrun relies on of schedulers."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from psyrun.scheduler import JobSpec, JobState, Scheduler
from psyrun.workdir import new_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


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


@dataclass(kw_only=True)
class Trial:
    """A scheduler that is given jobs, in a folder of its own, and what becomes of them.

    Parameters
    ----------
    scheduler
        The scheduler.
    folder
        Where logs, reports and gates are.
    options
        Options for each job.
    seconds
        How long to wait for a condition.
    """

    scheduler: Scheduler
    folder: Path
    options: Mapping[str, Any]
    seconds: float
    jobs: list[str] = field(default_factory=list)

    @property
    def job_folder(self) -> Path:
        """The folder in which jobs run."""
        return self.folder / "a folder, 100%"

    @property
    def log(self) -> Path:
        """What jobs print to."""
        return self.folder / "job.log"

    def configure(self, scheduler: Scheduler) -> Scheduler:
        """Configure a scheduler as psyrun does before it asks for anything, and return it."""
        folder = self.folder / "psy-work"
        (folder / "example" / "jobs").mkdir(parents=True, exist_ok=True)
        scheduler.configure(self.options, folder)
        return scheduler

    def submit(self, program: str, *arguments: object, **changes: Any) -> str:
        """Submit a Python program with arguments, and return the job's id."""
        self.job_folder.mkdir(exist_ok=True)
        token = changes.pop("token", None) or new_token()
        spec: dict[str, Any] = {
            "argv": [sys.executable, "-c", program, *map(str, arguments)],
            "name": "example:process",
            "token": token,
            "scratch": self.folder / "psy-work" / "example" / "jobs" / token,
            "indices": range(1),
            "log": self.log,
            "folder": self.job_folder,
            "env": dict(os.environ),
            "options": dict(self.options),
        }
        self.jobs.append(self.scheduler.submit(JobSpec(**spec | changes)))
        return self.jobs[-1]

    def report(self, *arguments: str, **changes: Any) -> str:
        """Submit REPORT with arguments."""
        return self.submit(REPORT, self.folder / "seen.json", len(arguments), *arguments, **changes)

    def reported(self, element: int | str = "") -> dict[str, Any]:
        """Return what a job, or an element of it, saw of itself."""
        seen: dict[str, Any] = json.loads((self.folder / f"seen.json{element}").read_text())
        return seen

    def gate(self, name: str) -> Path:
        """Return a path; a job that runs GATED with it ends when the file is there."""
        return self.folder / name

    def begin(self, *names: str, program: str = GATED) -> list[str]:
        """Submit a job for each gate, and wait until all have begun."""
        jobs = [self.submit(program, self.gate(name)) for name in names]
        self.wait_begun(*names)
        return jobs

    def wait_begun(self, *names: str) -> None:
        """Wait until the jobs behind gates have begun."""
        begun = [self.gate(f"{name}.started") for name in names]
        self.wait(lambda: all(path.exists() for path in begun))

    def states(self, job: str) -> Mapping[int, JobState]:
        """Return the states of the elements of a job that is in the queue."""
        return (self.scheduler.query([job]) or {})[job]

    def queued(self, jobs: Sequence[str]) -> set[str]:
        """Return those of the jobs that are in the queue."""
        return set(self.scheduler.query(jobs) or {})

    def settle(self, *jobs: str) -> None:
        """Wait until jobs left the queue."""
        self.wait(lambda: self.scheduler.query(jobs) == {})

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + self.seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true"
            time.sleep(0.1)


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
    def trial(self, scheduler: Scheduler, tmp_path: Path) -> Iterator[Trial]:
        """Put the scheduler on trial; jobs that are still there in the end are cancelled."""
        trial = Trial(scheduler=scheduler, folder=tmp_path, options=self.options, seconds=self.seconds)
        trial.configure(scheduler)
        yield trial
        scheduler.cancel(trial.jobs)

    def test_it_keeps_to_the_protocol(self, scheduler: Scheduler) -> None:
        assert isinstance(scheduler, Scheduler)
        assert scheduler.array_limit() >= 1
        shortest, longest = scheduler.poll
        assert 0 < shortest <= longest
        assert scheduler.grace >= 0
        assert set(scheduler.required) <= set(scheduler.options)
        assert set(scheduler.merge_options) <= set(scheduler.options)
        assert all(scheduler.job_variables.match(name) for name in scheduler.core_variables)
        assert not any(scheduler.kept_variables.match(name) for name in scheduler.core_variables)
        assert not any(scheduler.job_variables.match(name) for name in ("HOME", "PATH", "PYTHONPATH"))

    def test_jobs_have_ids_of_their_own(self, trial: Trial) -> None:
        assert len({trial.submit("pass") for _ in range(3)}) == 3

    def test_job_runs_in_its_folder_with_its_environment_and_log(self, trial: Trial) -> None:
        env = os.environ | {"OF_THIS_JOB": "two words, and ünicode"}
        trial.settle(trial.report(env=env, indices=()))
        seen = trial.reported()
        assert Path(seen["folder"]).samefile(trial.job_folder)
        assert seen["env"]["OF_THIS_JOB"] == "two words, and ünicode"
        assert seen["stdin"] == ""
        log = trial.log.read_text()
        assert "to standard output" in log
        assert "to standard error" in log

    def test_arguments_arrive_as_they_are(self, trial: Trial) -> None:
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
        trial.settle(trial.report(*arguments, indices=()))
        assert trial.reported()["argv"] == arguments

    def test_log_is_appended_to(self, trial: Trial) -> None:
        trial.log.write_text("what was there\n")
        trial.settle(trial.submit("print('what is new')"))
        assert trial.log.read_text() == "what was there\nwhat is new\n"

    def test_job_that_ended_is_not_in_the_queue(self, trial: Trial) -> None:
        job = trial.submit("pass")
        trial.settle(job)
        assert trial.scheduler.query([job]) == {}

    def test_unknown_tokens_are_not_found(self, scheduler: Scheduler) -> None:
        assert scheduler.find([new_token()]) == {}

    def test_nothing_is_known_of_no_jobs(self, scheduler: Scheduler) -> None:
        assert scheduler.query([]) == {}
        assert scheduler.explain([]) == {}
        scheduler.cancel([])

    def test_cancelling_a_job_that_ended_does_nothing(self, trial: Trial) -> None:
        job = trial.submit("pass")
        trial.settle(job)
        trial.scheduler.cancel([job])
        assert trial.scheduler.query([job]) == {}


class QueueContract(SchedulerContract):
    """What psyrun relies on of a scheduler whose `submit` does not wait for the job."""

    def test_job_is_in_the_queue_while_it_runs_and_gone_then(self, trial: Trial) -> None:
        job = trial.submit(GATED, trial.gate("gate"))
        assert trial.queued([job]) == {job}
        trial.wait_begun("gate")
        trial.wait(lambda: [*trial.states(job).values()] == [JobState.RUNNING])
        trial.gate("gate").touch()
        trial.settle(job)

    def test_one_query_tells_of_all_jobs_asked_for_and_no_others(self, trial: Trial) -> None:
        jobs = [trial.submit(GATED, trial.gate(name)) for name in ("one", "two", "three")]
        ended = trial.submit("pass")
        trial.settle(ended)
        assert trial.queued([*jobs[:2], ended]) == set(jobs[:2])

    def test_cancel_ends_the_job_and_no_other(self, trial: Trial) -> None:
        jobs = trial.begin("one", "two", "three")
        trial.scheduler.cancel([jobs[1]])
        trial.settle(jobs[1])
        assert trial.queued(jobs) == {jobs[0], jobs[2]}

    def test_other_processes_see_and_cancel_the_job(self, trial: Trial) -> None:
        (job,) = trial.begin("gate")
        elsewhere = trial.configure(type(trial.scheduler)())
        assert (elsewhere.query([job]) or {}).keys() == {job}
        elsewhere.cancel([job])
        trial.settle(job)
        assert elsewhere.query([job]) == {}


class DetachedContract(QueueContract):
    """What psyrun relies on of a batch system, whose jobs outlive the process that submitted them."""

    def test_job_is_found_by_its_token(self, trial: Trial) -> None:
        """Its token is in the arguments, as it is in psyrun's."""
        tokens = [new_token(), new_token()]
        jobs = [trial.submit(GATED, trial.gate(token), token=token) for token in tokens]
        found = trial.scheduler.find([tokens[1], new_token()])
        assert found == {tokens[1]: jobs[1]}

    @pytest.mark.parametrize("code", [0, 3])
    def test_job_begins_after_others_have_ended_however(self, trial: Trial, code: int) -> None:
        program = GATED + f"raise SystemExit({code})"
        firsts = [trial.submit(program, trial.gate(name)) for name in ("one", "two")]
        last = trial.report(after=firsts, indices=())
        trial.wait_begun("one", "two")
        trial.gate("one").touch()
        trial.settle(firsts[0])
        assert not (trial.folder / "seen.json").exists()
        trial.gate("two").touch()
        trial.settle(*firsts, last)
        assert trial.reported()

    def test_prologue_is_sourced_first(self, trial: Trial) -> None:
        prologue = trial.folder / "my env.sh"
        prologue.write_text("export OF_PROLOGUE='a b'\nset -- other arguments\nfalse\n")
        trial.settle(trial.report("one", prologue=prologue, indices=()))
        seen = trial.reported()
        assert seen["env"]["OF_PROLOGUE"] == "a b"
        assert seen["argv"] == ["one"]

    def test_command_that_does_not_exist_leaves_a_word_in_the_log(self, trial: Trial) -> None:
        trial.settle(trial.submit("pass", argv=[str(trial.folder / "no-such-python"), "-c", "pass"]))
        assert "no-such-python" in trial.log.read_text()


class ArrayContract(DetachedContract):
    """What psyrun relies on of a batch system that has job arrays."""

    def test_each_element_is_told_which_it_is(self, trial: Trial) -> None:
        trial.settle(trial.report("one", indices=range(5)))
        for element in range(5):
            seen = trial.reported(element)
            assert seen["argv"] == ["one"]
            assert seen["rest"] == ["--element", str(element)]

    def test_query_tells_of_each_element(self, trial: Trial) -> None:
        job = trial.submit(GATED, trial.gate("gate"), "each", indices=range(4), throttle=2)
        trial.wait_begun("gate0", "gate1")
        running, queued = JobState.RUNNING, JobState.QUEUED
        assert trial.states(job) == {0: running, 1: running, 2: queued, 3: queued}
        trial.gate("gate0").touch()
        trial.wait(lambda: 0 not in trial.states(job))
        for element in (1, 2, 3):
            trial.gate(f"gate{element}").touch()
        trial.settle(job)


class ExplainContract(QueueContract):
    """What psyrun relies on of a system that tells how jobs ended."""

    def test_job_that_ended_with_an_error_is_explained(self, trial: Trial) -> None:
        good, bad = trial.submit("pass"), trial.submit("raise SystemExit(3)")
        trial.settle(good, bad)
        explained = trial.scheduler.explain([good, bad])
        assert {job for job, _ in explained} == {bad}
        assert "3" in next(iter(explained.values()))

    def test_job_that_a_signal_ended_is_explained(self, trial: Trial) -> None:
        job = trial.submit("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        trial.settle(job)
        explained = trial.scheduler.explain([job])
        assert len(explained) == 1, explained
        assert all("9" in why for why in explained.values())

    def test_job_that_runs_is_not_explained(self, trial: Trial) -> None:
        (job,) = trial.begin("gate")
        assert trial.scheduler.explain([job]) == {}

    def test_job_that_was_cancelled_is_explained(self, trial: Trial) -> None:
        (job,) = trial.begin("gate")
        trial.scheduler.cancel([job])
        trial.settle(job)
        assert {each for each, _ in trial.scheduler.explain([job])} == {job}
