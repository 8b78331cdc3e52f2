"""What psyrun relies on of schedulers; what only some of them can do is in `psyrun.testing.abilities`."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from psyrun.errors import NoAnswerError, SubmitLimitError
from psyrun.scheduler import JobState, Scheduler
from psyrun.testing.trial import BEATING, GATED, Trial
from psyrun.workdir import new_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager


# Attribute of a scheduler -> the contract that its tests subclass where it is true, and only there.
ABILITIES = MappingProxyType(
    {
        "detached": "DetachedContract",
        "dependencies": "DependencyContract",
        "throttles": "ThrottleContract",
        "warns": "WarningContract",
    }
)
AWKWARD = (
    "two words",
    "",
    "a 'single' and a \"double\" quote",
    "$HOME ${HOME} $(id) `id`",
    "one line\nand another",
    "back\\slash",
    "one,two;three:four=five",
    "; echo no",
    "*",
    "--option=1",
    "ünicode",
)


class SchedulerContract:
    """What psyrun relies on of every scheduler.

    Attributes
    ----------
    options
        Options for each job.
    seconds
        How long a job may take from its submission to its end, also one of 1,000 elements that is cancelled.
    visible
        An option that makes a difference to a job, and a value for it, of which `read_option` tells.
    """

    options: Mapping[str, Any] = MappingProxyType({})
    seconds: float = 60.0
    visible: tuple[str, Any] = ("n_cpus", 2)

    @pytest.fixture
    def scheduler(self) -> Scheduler:
        """Return the scheduler to test."""
        raise NotImplementedError

    @pytest.fixture
    def trial(self, scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
        """Put the scheduler on trial; jobs that are still there in the end are cancelled."""
        folder = tmp_path / "trial"
        trial = Trial(scheduler=scheduler, folder=folder, options=self.options, seconds=self.seconds)
        trial.configure(scheduler)
        monkeypatch.chdir(folder)
        yield trial
        scheduler.cancel(trial.jobs)

    def read_option(self, trial: Trial, job: str) -> object:
        """Return the value of the option `visible` of a job that ended: here the cores granted to it."""
        env = trial.reported()["env"]
        return next((env[v] for v in trial.scheduler.core_variables if env.get(v, "").isdecimal()), None)

    def test_it_keeps_to_the_protocol(self, trial: Trial, scheduler: Scheduler) -> None:
        assert isinstance(scheduler, Scheduler)
        assert scheduler.array_limit() >= 1
        shortest, longest = scheduler.poll
        assert 0 < shortest <= longest
        assert scheduler.grace >= 0
        for names in (scheduler.required, scheduler.merge_options, scheduler.system_options):
            assert set(names) <= set(scheduler.options)
        assert all(scheduler.job_variables.match(name) for name in scheduler.core_variables)
        assert not any(scheduler.kept_variables.match(name) for name in scheduler.core_variables)
        assert not any(scheduler.job_variables.match(name) for name in ("HOME", "PATH", "PYTHONPATH"))
        assert isinstance(scheduler.system(), str)
        assert isinstance(scheduler.shows_others(), bool)

    def test_it_subclasses_the_contracts_of_what_it_can_do(self, trial: Trial) -> None:
        scheduler, bases = trial.scheduler, {base.__name__ for base in type(self).__mro__}
        can = {contract: getattr(scheduler, name) for name, contract in ABILITIES.items()}
        can["ArrayContract"] = scheduler.detached and scheduler.array_limit() > 1
        assert {contract: contract in bases for contract in can} == can

    def test_jobs_have_ids_of_their_own(self, trial: Trial) -> None:
        assert len({trial.submit("pass") for _ in range(3)}) == 3

    def test_job_runs_in_its_folder_with_its_log(self, trial: Trial) -> None:
        trial.settle(trial.report(indices=()))
        seen = trial.reported()
        assert Path(seen["folder"]).samefile(trial.job_folder)
        assert seen["stdin"] == ""
        log = trial.log.read_text()
        assert "to standard output" in log
        assert "to standard error" in log

    def test_arguments_arrive_as_they_are(self, trial: Trial) -> None:
        trial.settle(trial.report(*AWKWARD, indices=()))
        assert trial.reported()["argv"] == list(AWKWARD)

    def test_environment_arrives_as_it_is(self, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
        given = {f"OF_THIS_JOB_{number}": text for number, text in enumerate(AWKWARD)}
        env = os.environ | given
        monkeypatch.setenv("NOT_OF_THIS_JOB", "1")
        trial.settle(trial.report(env=env, indices=()))
        seen = trial.reported()["env"]
        assert {name: seen.get(name) for name in given} == given
        assert "NOT_OF_THIS_JOB" not in seen

    def test_options_reach_the_job(self, trial: Trial) -> None:
        name, value = self.visible
        if trial.scheduler.options.keys() <= set(trial.scheduler.system_options):
            pytest.skip("jobs have no options")
        job = trial.report(options={name: value}, indices=())
        trial.settle(job)
        assert str(self.read_option(trial, job)) == str(value)

    def test_job_neither_ignores_nor_blocks_signals(self, trial: Trial) -> None:
        trial.settle(trial.report(indices=()))
        assert trial.reported()["deaf"] == []

    def test_log_is_appended_to(self, trial: Trial) -> None:
        trial.log.write_text("what was there\n")
        trial.settle(trial.submit("print('what is new')"))
        assert trial.log.read_text() == "what was there\nwhat is new\n"

    def test_nothing_else_is_written(self, trial: Trial) -> None:
        token, before = new_token(), set(trial.folder.rglob("*"))
        trial.settle(trial.submit("pass", token=token, indices=()))
        scratch = trial.scratch(token)
        allowed = {trial.log, scratch, *scratch.rglob("*")}
        assert set(trial.folder.rglob("*")) - before - allowed == set()

    def test_job_that_ended_is_not_in_the_queue(self, trial: Trial) -> None:
        job = trial.submit("pass")
        trial.settle(job)
        assert trial.scheduler.query([job]) == {}

    def test_unknown_tokens_are_not_found(self, trial: Trial) -> None:
        assert trial.scheduler.find([new_token()]) == {}

    def test_nothing_is_known_of_no_jobs(self, trial: Trial) -> None:
        assert trial.scheduler.find([]) == {}
        assert trial.scheduler.query([]) == {}
        assert trial.scheduler.explain([]) == {}
        trial.scheduler.cancel([])

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
        trial.wait(
            lambda: [*trial.states(job).values()] == [JobState.RUNNING],
            lambda: f"the job has begun, and its states are {trial.states(job)}",
        )
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
        for name in ("one", "three"):
            trial.pass_gate(name)
        assert not trial.gate("two.passed").exists()

    def test_cancel_ends_all_processes_of_the_job(self, trial: Trial) -> None:
        job = trial.submit(BEATING, trial.gate("beat"))
        marks = [trial.gate("beat.parent"), trial.gate("beat.child")]
        trial.wait(lambda: all(mark.exists() for mark in marks), lambda: "the job has not begun")
        trial.scheduler.cancel([job])
        trial.settle(job)
        sizes: list[list[int]] = []

        def written_nothing_for_a_second() -> bool:
            sizes.append([mark.stat().st_size for mark in marks])
            return len(sizes) > 10 and sizes[-1] == sizes[-11]

        trial.wait(written_nothing_for_a_second, lambda: "processes of the cancelled job still write")

    def test_ids_that_contain_each_other_are_told_apart(self, trial: Trial) -> None:
        """As 1 and 10 do: nothing is known of them, and cancelling them does not end the job."""
        job, last = trial.begin("gate", "last")
        others = _similar_ids(job)
        known = trial.scheduler.query(others)
        assert known is not None
        assert set(known) <= others
        assert job not in {each for each, _ in trial.scheduler.explain(others)}
        trial.scheduler.cancel(others - {*known, last})
        trial.scheduler.cancel([last])
        trial.settle(last)  # By then, those before it are cancelled, too.
        trial.pass_gate("gate")

    def test_other_processes_see_and_cancel_the_job(self, trial: Trial) -> None:
        (job,) = trial.begin("gate")
        assert trial.elsewhere("query", [job]) == trial.scheduler.query([job])
        assert trial.elsewhere("explain", [job]) == {}
        trial.elsewhere("cancel", [job])
        trial.settle(job)
        assert trial.elsewhere("query", [job]) == {}


def _similar_ids(job: str) -> set[str]:
    """Return ids whose number begins or ends like that of a job, one digit longer or shorter."""
    found = re.search(r"\d+", job)
    text = found[0] if found else job
    others = {text[:-1], text[1:], f"1{text}", f"{text}0"} - {""}
    return {job.replace(text, other, 1) for other in others}


class DetachedContract(QueueContract):
    """What psyrun relies on of a batch system, whose jobs outlive the process that submitted them.

    The fixtures below bring about what happens on clusters; tests of those that a subclass does not have are
    skipped.
    """

    @pytest.fixture
    def unreachable(self) -> Callable[[], AbstractContextManager[object]]:
        """Return what makes contexts in which the system can't be reached, such as by a wrong address."""
        return pytest.skip("no fixture `unreachable` makes contexts in which the system can't be reached")

    @pytest.fixture
    def full(self) -> Callable[[], AbstractContextManager[object]]:
        """Return what makes contexts in which the site takes no more jobs."""
        return pytest.skip("no fixture `full` makes contexts in which the site takes no more jobs")

    @pytest.fixture
    def hold(self) -> Callable[[str], object]:
        """Return what holds a job, which waits for another one where there are dependencies."""
        return pytest.skip("no fixture `hold` holds a job")

    @pytest.fixture
    def foreign(self) -> str:
        """Return the id of a job of another user, which is in the queue."""
        return pytest.skip("no fixture `foreign` starts a job of another user")

    def test_job_is_found_by_its_token(self, trial: Trial) -> None:
        """Its token is in the arguments, as it is in psyrun's."""
        tokens = [new_token(), new_token()]
        jobs = [trial.submit(GATED, trial.gate(token), token=token) for token in tokens]
        found = trial.scheduler.find([tokens[1], new_token()])
        assert found == {tokens[1]: jobs[1]}
        assert trial.elsewhere("find", tokens) == dict(zip(tokens, jobs, strict=True))

    @pytest.mark.parametrize("name", ["2nd_of_all", "a" * 80, "fig1"], ids=["digit", "long", "plain"])
    def test_name_may_begin_with_a_digit_and_be_long(self, trial: Trial, name: str) -> None:
        token = new_token()
        job = trial.submit(GATED, trial.gate("gate"), name=f"{name}:process", token=token)
        assert trial.scheduler.find([token]) == {token: job}
        trial.pass_gate("gate")

    def test_prologue_is_sourced_first(self, trial: Trial) -> None:
        prologue = trial.folder / "my env.sh"
        prologue.write_text("export OF_PROLOGUE='a b' OF_JOB=no\nset -- other arguments\nfalse\n")
        env = os.environ | {"OF_JOB": "yes"}
        trial.settle(trial.report("one", prologue=prologue, env=env, indices=()))
        seen = trial.reported()
        assert {name: seen["env"].get(name) for name in ("OF_PROLOGUE", "OF_JOB")} == {
            "OF_PROLOGUE": "a b",
            "OF_JOB": "no",
        }
        assert seen["argv"] == ["one"]

    def test_command_that_does_not_exist_leaves_a_word_in_the_log(self, trial: Trial) -> None:
        trial.settle(trial.submit("pass", argv=[str(trial.folder / "no-such-python"), "-c", "pass"]))
        assert "no-such-python" in trial.log.read_text()

    def test_system_that_can_not_be_reached_is_no_answer(
        self, trial: Trial, unreachable: Callable[[], AbstractContextManager[object]]
    ) -> None:
        token = new_token()
        job = trial.submit(GATED, trial.gate("gate"), token=token)
        with unreachable():
            assert trial.scheduler.query([job]) is None
            assert trial.scheduler.find([token]) is None
            assert trial.scheduler.explain([job]) == {}
            with pytest.raises(NoAnswerError):
                trial.scheduler.cancel([job])
            with pytest.raises(NoAnswerError):
                trial.submit("pass")
            with suppress(NoAnswerError):
                trial.configure(type(trial.scheduler)()).system()
        assert trial.queued([job]) == {job}
        trial.pass_gate("gate")

    def test_site_that_takes_no_more_jobs_takes_none(
        self, trial: Trial, full: Callable[[], AbstractContextManager[object]]
    ) -> None:
        token = new_token()
        with full(), pytest.raises(SubmitLimitError):
            trial.submit("pass", token=token)
        assert trial.scheduler.find([token]) == {}
        trial.settle(trial.submit("pass"))

    def test_job_that_is_held_is_stuck_for_a_reason(
        self, trial: Trial, hold: Callable[[str], object]
    ) -> None:
        first, *_ = trial.begin("gate")
        after = [first] if trial.scheduler.dependencies else []
        job = trial.submit(GATED, trial.gate("held"), indices=(), after=after)
        assert JobState.STUCK not in trial.states(job).values()
        hold(job)
        trial.pass_gate("gate")
        trial.wait(
            lambda: set(trial.states(job).values()) == {JobState.STUCK},
            lambda: f"the job is held, and its states are {trial.states(job)}",
        )
        trial.settle(first)
        explained = trial.scheduler.explain([first, job])
        assert {each for each, _ in explained} == {job}
        assert all(explained.values())
        trial.scheduler.cancel([job])
        trial.settle(job)
        assert not trial.gate("held.started").exists()

    def test_jobs_of_other_users_may_be_asked_for(self, trial: Trial, foreign: str) -> None:
        (job,) = trial.begin("gate")
        expected = {job, foreign} if trial.scheduler.shows_others() else {job}
        assert trial.queued([job, foreign]) == expected
        trial.pass_gate("gate")
