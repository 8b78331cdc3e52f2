"""What psyrun relies on of schedulers that can do more than run a job."""

from __future__ import annotations

import re
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from psyrun.scheduler import STOPPED, JobState
from psyrun.testing.scheduler import AWKWARD, DetachedContract, QueueContract
from psyrun.testing.trial import GATED, WARNED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from psyrun.testing.trial import Trial


class ArrayContract(DetachedContract):
    """What psyrun relies on of a batch system that has job arrays: its `array_limit` is above 1."""

    def test_each_element_is_told_which_it_is(self, trial: Trial) -> None:
        trial.settle(trial.report(*AWKWARD, indices=range(5)))
        for element in range(5):
            seen = trial.reported(element)
            assert seen["argv"] == list(AWKWARD)
            assert seen["rest"] == ["--element", str(element)]
            assert seen["deaf"] == []

    def test_query_tells_of_each_element(self, trial: Trial) -> None:
        names = [f"gate{element}" for element in range(4)]
        job = trial.submit(GATED, trial.gate("gate"), "each", indices=range(4))
        assert trial.states(job).keys() == {0, 1, 2, 3}
        trial.wait_begun(*names, count=1)
        ended = names.index(min(trial.begun(names)))
        trial.gate(names[ended]).touch()
        trial.wait(lambda: ended not in trial.states(job))
        assert trial.states(job).keys() == {0, 1, 2, 3} - {ended}
        for name in names:
            trial.gate(name).touch()
        trial.settle(job)

    def test_thousand_elements_are_one_query_and_end_when_they_are_cancelled(self, trial: Trial) -> None:
        elements = range(min(1000, trial.scheduler.array_limit()))
        job = trial.submit(GATED, trial.gate("gate"), indices=elements)
        assert trial.states(job).keys() == set(elements)
        trial.scheduler.cancel([job])
        trial.settle(job)


class ThrottleContract(ArrayContract):
    """What psyrun relies on of a scheduler that `throttles`."""

    def test_so_many_elements_run_at_a_time_and_no_more(self, trial: Trial) -> None:
        names = {f"gate{element}" for element in range(4)}
        job = trial.submit(GATED, trial.gate("gate"), "each", indices=range(4), throttle=2)
        trial.wait_begun(*names, count=2)
        time.sleep(1)  # for those that should not begin
        running = trial.begun(names)
        assert len(running) == 2
        states = [JobState.QUEUED, JobState.QUEUED, JobState.RUNNING, JobState.RUNNING]
        assert sorted(trial.states(job).values(), key=lambda state: state.name) == states
        trial.gate(min(running)).touch()
        trial.wait_begun(*names, count=3)
        assert len(trial.begun(names)) == 3
        for name in names:
            trial.gate(name).touch()
        trial.settle(job)


class DependencyContract(DetachedContract):
    """What psyrun relies on of a scheduler with `dependencies`."""

    @pytest.mark.parametrize("code", [0, 3])
    def test_job_begins_after_others_have_ended_however(self, trial: Trial, code: int) -> None:
        program = GATED + f"raise SystemExit({code})"
        firsts = [trial.submit(program, trial.gate(name)) for name in ("one", "two")]
        last = trial.report(after=firsts, indices=())
        trial.wait_begun("one", "two")
        assert trial.queued([last]) == {last}
        trial.gate("one").touch()
        trial.settle(firsts[0])
        assert not (trial.folder / "seen.json").exists()
        trial.gate("two").touch()
        trial.settle(*firsts, last)
        assert trial.reported()

    def test_job_begins_after_one_that_was_cancelled(self, trial: Trial) -> None:
        (first,) = trial.begin("gate")
        last = trial.report(after=[first], indices=())
        trial.scheduler.cancel([first])
        trial.settle(first, last)
        assert trial.reported()

    def test_job_may_be_submitted_after_those_that_it_waits_for_ended(self, trial: Trial) -> None:
        first = trial.submit("pass")
        trial.settle(first)
        trial.settle(trial.report(after=[first], indices=()))
        assert trial.reported()


class WarningContract(QueueContract):
    """What psyrun relies on of a scheduler that `warns` jobs before their time limit.

    Attributes
    ----------
    limit
        Options of a job that is warned within `seconds`: a short time limit, where the system takes one.
        Those of all jobs, `options`, hold beside it.
    """

    limit: Mapping[str, Any] = MappingProxyType({})

    @pytest.fixture
    def warn(self) -> Callable[[str], object]:
        """Return what has the system warn a job where `limit` does not, such as a command for signals."""
        return lambda job: None

    def test_warning_reaches_the_program(self, trial: Trial, warn: Callable[[str], object]) -> None:
        (job,) = trial.begin("gate", program=WARNED, options=self.limit)
        warn(job)
        trial.wait(trial.gate("gate.warned").exists, lambda: "the job got no SIGUSR1")
        trial.settle(job)


class ExplainContract(QueueContract):
    """What psyrun relies on of a system that tells how jobs ended."""

    def test_job_that_ended_with_an_error_is_explained(self, trial: Trial) -> None:
        good, bad = trial.submit("pass"), trial.submit("raise SystemExit(3)")
        trial.settle(good, bad)
        explained = trial.scheduler.explain([good, bad])
        assert {job for job, _ in explained} == {bad}
        assert "3" in next(iter(explained.values()))
        if trial.scheduler.detached:
            assert trial.elsewhere("explain", [good, bad]) == explained

    def test_job_that_a_signal_ended_is_explained(self, trial: Trial) -> None:
        job = trial.submit("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        trial.settle(job)
        explained = trial.scheduler.explain([job])
        assert len(explained) == 1, explained
        assert all("9" in why for why in explained.values())

    def test_job_that_stopped_as_it_was_asked_to_is_not_said_to_fail(self, trial: Trial) -> None:
        """Its exit code 75 is a good ending, with rows left to do: a user is not told a code."""
        job = trial.submit(f"raise SystemExit({STOPPED})")
        trial.settle(job)
        explained = trial.scheduler.explain([job])
        assert {each for each, _ in explained} == {job}
        assert not any(re.search(rf"\b{STOPPED}\b", why) for why in explained.values())

    def test_job_that_runs_is_not_explained(self, trial: Trial) -> None:
        (job,) = trial.begin("gate")
        assert trial.scheduler.explain([job]) == {}

    def test_job_that_was_cancelled_is_explained(self, trial: Trial) -> None:
        (job,) = trial.begin("gate")
        trial.scheduler.cancel([job])
        trial.settle(job)
        assert {each for each, _ in trial.scheduler.explain([job])} == {job}
