"""The contract of schedulers: it finds faults that were put into schedulers that keep to it."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import test_pbs
from psyrun import testing
from psyrun.errors import SchedulerError
from psyrun.scheduler import PBS, JobState, Local
from psyrun.testing import SchedulerContract, WarningContract

FINDINGS = (AssertionError, pytest.fail.Exception, SchedulerError)

setting = test_pbs.setting


def submitting(change):
    """Return a `submit` of another submission than was asked for."""
    return {"submit": lambda self, spec: PBS.submit(self, change(spec))}


def started_by(shell):
    """Return a `submit_argv` whose jobs are started by lines of shell."""

    def submit_argv(self, spec):
        argv = PBS.submit_argv(self, spec)
        start = argv.index("--") + 1
        return [*argv[:start], "/bin/bash", "-c", shell, "bash", *argv[start:]]

    return {"submit_argv": submit_argv}


def answering(change):
    """Return a `query` with another answer."""

    def query(self, job_ids):
        return change({job: dict(states) for job, states in (PBS.query(self, job_ids) or {}).items()})

    return {"query": query}


def query_what_it_submitted(self, job_ids):
    return PBS.query(self, [job for job in job_ids if job in self.__dict__.get("own", [])])


def remember_and_submit(self, spec):
    self.__dict__.setdefault("own", []).append(PBS.submit(self, spec))
    return self.own[-1]


def query_by_prefix(self, job_ids):
    entries = [each for each in self.list_queue(None) if each.state is not None]
    starts = tuple(job.partition(".")[0] for job in job_ids)
    return {each.job: {each.element: each.state} for each in entries if each.job.startswith(starts)}


def cancel_by_prefix(self, job_ids):
    PBS.cancel(self, query_by_prefix(self, job_ids)) if job_ids else None


def write_beside_the_log(self, spec):
    spec.log.with_name("script.sh").write_text("")
    return PBS.submit(self, spec)


def submit_to_a_parent_that_swallows_signals(self, spec):
    shell = 'trap : USR1; "$@" & while kill -0 $! 2>/dev/null; do wait $!; done'
    return Local.submit(self, replace(spec, argv=["/bin/bash", "-c", shell, "bash", *spec.argv]))


def kill_the_first_process(self, job_ids, **_):
    for job in job_ids:
        if self.query([job]):
            os.kill(int(job.split("/")[1]), signal.SIGKILL)


def refuse_digits(spec):
    if spec.name[0].isdigit():
        raise SchedulerError(["qsub"], 1, f"illegal name {spec.name}")
    return spec


def name_by(text):
    def submit_argv(self, spec):
        argv = PBS.submit_argv(self, spec)
        argv[argv.index("-N") + 1] = text(spec)
        return argv

    return {"submit_argv": submit_argv}


def empty_the_log(spec):
    spec.log.write_text("")
    return spec


def cut_environment(spec):
    return replace(spec, env={name: value.split("\n")[0] for name, value in spec.env.items()})


FAULTS = {
    "pattern of outages that never matches": (
        "test_system_that_can_not_be_reached_is_no_answer",
        {"unreachable": PBS.limit_reached},
    ),
    "outage taken for an empty queue": (
        "test_system_that_can_not_be_reached_is_no_answer",
        answering(lambda states: states),
    ),
    "options dropped": ("test_options_reach_the_job", submitting(lambda spec: replace(spec, options={}))),
    "signals ignored": (
        "test_job_neither_ignores_nor_blocks_signals",
        started_by("""trap '' USR1; exec "$@" """),
    ),
    "signals ignored in arrays": (
        "test_each_element_is_told_which_it_is",
        started_by("""[ -n "$PBS_ARRAY_INDEX" ] && trap '' USR1; exec "$@" """),
    ),
    "name cut": ("test_name_may_begin_with_a_digit_and_be_long", name_by(lambda spec: spec.title[:60])),
    "name refused": ("test_name_may_begin_with_a_digit_and_be_long", submitting(refuse_digits)),
    "name without token": ("test_job_is_found_by_its_token", name_by(lambda spec: "job")),
    "query by a part of ids": ("test_ids_that_contain_each_other_are_told_apart", {"query": query_by_prefix}),
    "cancel by a part of ids": (
        "test_ids_that_contain_each_other_are_told_apart",
        {"cancel": cancel_by_prefix},
    ),
    "cancel all": (
        "test_cancel_ends_the_job_and_no_other",
        {"cancel": lambda self, jobs: PBS.cancel(self, [each.job for each in self.list_queue(None)])},
    ),
    "held jobs taken for queued ones": (
        "test_job_that_is_held_is_stuck_for_a_reason",
        answering(
            lambda answer: {
                job: {k: JobState.QUEUED if s is JobState.STUCK else s for k, s in states.items()}
                for job, states in answer.items()
            }
        ),
    ),
    "held jobs for no reason": (
        "test_job_that_is_held_is_stuck_for_a_reason",
        {"explain": lambda self, jobs: self.explain_ends(jobs)},
    ),
    "pattern of limits that never matches": (
        "test_site_that_takes_no_more_jobs_takes_none",
        {"limit_reached": PBS.harmless},
    ),
    "elements beyond the hundredth unknown": (
        "test_thousand_elements_are_one_query_and_end_when_they_are_cancelled",
        answering(
            lambda answer: {j: {k: s for k, s in states.items() if k < 100} for j, states in answer.items()}
        ),
    ),
    "others said to be shown": (
        "test_jobs_of_other_users_may_be_asked_for",
        {"shows_others": lambda _: True},
    ),
    "jobs of other processes unknown": (
        "test_other_processes_see_and_cancel_the_job",
        {"submit": remember_and_submit, "query": query_what_it_submitted},
    ),
    "file beside the log": ("test_nothing_else_is_written", {"submit": write_beside_the_log}),
    "values cut at newlines": ("test_environment_arrives_as_it_is", submitting(cut_environment)),
    "environment of psy": (
        "test_environment_arrives_as_it_is",
        submitting(lambda spec: replace(spec, env=os.environ | dict(spec.env))),
    ),
    "arguments cut at newlines": (
        "test_arguments_arrive_as_they_are",
        submitting(
            lambda spec: replace(
                spec, argv=[*spec.argv[:5], *(each.split("\n")[0] for each in spec.argv[5:])]
            )
        ),
    ),
    "log replaced": ("test_log_is_appended_to", submitting(empty_the_log)),
    "throttle dropped": (
        "test_so_many_elements_run_at_a_time_and_no_more",
        {"most_running": lambda self, spec: None},
    ),
    "dependencies dropped": (
        "test_job_begins_after_others_have_ended_however",
        submitting(lambda spec: replace(spec, after=())),
    ),
    "dependencies denied": ("test_it_subclasses_the_contracts_of_what_it_can_do", {"dependencies": False}),
    "warnings claimed": ("test_it_subclasses_the_contracts_of_what_it_can_do", {"warns": True}),
    "arrays denied": (
        "test_it_subclasses_the_contracts_of_what_it_can_do",
        {"array_limit": lambda self: 1},
    ),
    "ended jobs in the queue": (
        "test_cancelling_a_job_that_ended_does_nothing",
        {"query": lambda self, jobs: {job: {-1: JobState.RUNNING} for job in jobs}},
    ),
    "running jobs explained": (
        "test_job_that_runs_is_not_explained",
        {"explain": lambda self, jobs: {(job, -1): "it ended" for job in jobs}},
    ),
    "good ending told as a failure": (
        "test_job_that_stopped_as_it_was_asked_to_is_not_said_to_fail",
        {"explain_ends": lambda self, jobs: {(job, -1): "exit 75" for job in jobs}},
    ),
    "ends not explained": ("test_job_that_ended_with_an_error_is_explained", {"explain": lambda *_: {}}),
    "index counted from 1": ("test_each_element_is_told_which_it_is", {"first_index": 1}),
    "prologue dropped": (
        "test_prologue_is_sourced_first",
        submitting(lambda spec: replace(spec, prologue=None)),
    ),
}
FAULTS_HERE = {
    "signals swallowed": (
        "test_warning_reaches_the_program",
        {"submit": submit_to_a_parent_that_swallows_signals},
    ),
    "processes left behind": (
        "test_cancel_ends_all_processes_of_the_job",
        {"cancel": kill_the_first_process},
    ),
}


class Faulty:
    """Runs a test of the contract that has to fail."""

    seconds = 4.0
    options = test_pbs.TestContract.options
    trial = SchedulerContract.trial

    def find(self, request, contract, test):
        """Call the test, with fixtures and values of its parameters."""
        function = getattr(contract, test)
        given = {"code": 3, "name": "2nd" + "a" * 80}
        names = [*inspect.signature(function).parameters][1:]
        arguments = {name: given.get(name) or request.getfixturevalue(name) for name in names}
        with pytest.raises(FINDINGS):
            function(contract(), **arguments)


class TestFaults(Faulty, test_pbs.System):
    @pytest.fixture
    def scheduler(self, pbs, fault):
        return type("Wrong", (PBS,), FAULTS[fault][1])()

    @pytest.fixture
    def foreign(self, trial, setting):
        with setting("QUEUE_USER", "another"):
            job = trial.submit("import time; time.sleep(60)")
        with setting("QUEUE_PRIVATE", "1"):
            yield job

    @pytest.mark.parametrize("fault", FAULTS)
    def test_contract_finds(self, request, trial, fault):
        self.find(request, test_pbs.TestContract, FAULTS[fault][0])


class TestFaultsOnThisMachine(Faulty):
    options = {}

    @pytest.fixture
    def scheduler(self, fault):
        return type("Wrong", (Local,), FAULTS_HERE[fault][1])()

    @pytest.fixture
    def warn(self):
        return lambda job: os.kill(int(job.split("/")[1]), signal.SIGUSR1)

    @pytest.mark.parametrize("fault", FAULTS_HERE)
    def test_contract_finds(self, request, trial, fault):
        self.find(request, WarningContract, FAULTS_HERE[fault][0])


SMALL = """\
import pytest
from psyrun.scheduler import Local
from psyrun.testing import SchedulerContract


class Wrong(Local):
    def explain(self, job_ids):
        return {("one that was not asked for", 0): "TIMEOUT"}


class TestWrong(SchedulerContract):
    @pytest.fixture
    def scheduler(self):
        return Wrong()
"""


def run_pytest(folder, text, *options):
    """Return what pytest prints of a module of tests, as authors of a plug-in run it."""
    (folder / "test_small.py").write_text(text)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "test_small.py"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_contract_that_fails_shows_values_without_a_setting_of_the_author(tmp_path):
    said = run_pytest(tmp_path, SMALL, "-W", "error", "-k", "nothing_is_known_of_no_jobs")
    assert "E         {('one that was not asked for', 0): 'TIMEOUT'}" in said


def test_assertions_of_all_contracts_are_rewritten():
    files = {path.stem for path in Path(testing.__file__).parent.glob("*.py")} - {"__init__"}
    loaders = {name: getattr(testing, name).__spec__.loader for name in files}
    assert {name for name, each in loaders.items() if "assertion" in type(each).__module__} == files


class Sluggish(Local):
    """Never begins the last of three jobs."""

    def submit(self, spec):
        if spec.argv[-1].endswith("three"):
            spec = replace(spec, argv=["sleep", "20"])
        return super().submit(spec)


class TestWaiting(Faulty):
    options = {}
    seconds = 2.0

    @pytest.fixture
    def scheduler(self):
        return Sluggish()

    def test_jobs_that_do_not_begin_are_counted(self, trial):
        with pytest.raises(AssertionError, match=r"after 2 s: 2 of 3 jobs have begun; .* run 4 at a time"):
            testing.QueueContract().test_cancel_ends_the_job_and_no_other(trial)

    def test_jobs_that_do_not_end_are_named(self, trial):
        job = trial.submit("import time; time.sleep(20)")
        with pytest.raises(AssertionError, match=r"did not leave the queue: .*RUNNING") as caught:
            trial.settle(job)
        assert job in str(caught.value)
