"""OpenPBS and PBS Professional, run with stand-ins for their commands."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from dataclasses import replace

import pytest

from psyrun.errors import NoAnswerError
from psyrun.scheduler import PBS, JobSpec, JobState
from psyrun.scheduler.pbs import parse_ended, parse_jobs
from psyrun.testing import DependencyContract, ExplainContract, ThrottleContract

TASK = """\
from counting import seen
from psyrun import PBS, Param
pspace = Param(x=range(12))
scheduler = PBS()
scheduler.poll = (0.3, 1.0)
scheduler.grace = 0
scheduler_args = {"timelimit": "1h", "n_cpus": 1}
max_jobs = 4


def execute(x):
    seen(x)
    return {"y": 2 * x}
"""


@pytest.fixture
def setting(monkeypatch):
    """Make contexts in which a variable of the environment is set."""

    @contextmanager
    def enter(name, value):
        with monkeypatch.context() as context:
            context.setenv(name, value)
            yield

    return enter


class System:
    """Fixtures that bring about what happens on clusters."""

    @pytest.fixture
    def unreachable(self, setting):
        return lambda: setting("PBS_DEFAULT", "nowhere")

    @pytest.fixture
    def full(self, setting):
        return lambda: setting("QUEUE_LIMIT", "0")

    @pytest.fixture
    def hold(self):
        return lambda job: subprocess.run(["qhold", job], check=True)

    @pytest.fixture(params=["", "1"], ids=["shown", "hidden"])
    def foreign(self, request, trial, setting):
        with setting("QUEUE_USER", "another"):
            job = trial.submit("import time; time.sleep(60)")
        with setting("QUEUE_PRIVATE", request.param):
            yield job


class TestContract(System, ThrottleContract, DependencyContract, ExplainContract):
    options = {"timelimit": 5}
    seconds = 30

    @pytest.fixture
    def scheduler(self, pbs):
        return PBS()


def test_sweep_with_a_failing_row_over_arrays_appears_by_itself(pbs, project, wait_until):
    project.task("a", TASK.replace("2 * x", "2 * x, 'z': 1 / (x - 5)") + "allow_failed = True\n")
    assert "4 jobs in flight" in project.psy("run", code=75).stdout
    wait_until((project.root / "psy-work" / "a" / "result.pkl").exists, 60)
    values = project.result("a")["y"]
    assert values[:5] + values[6:] == [2 * x for x in range(12) if x != 5]
    assert len(project.rows_seen()) == 12
    wait_until(lambda: all((job / "ended").exists() for job in pbs.iterdir()))
    assert project.status("a")["failed"] == 1


def test_environments_of_jobs_are_not_left_behind(pbs, project):
    project.task("a", TASK)
    project.psy("run", "--wait")
    assert [*(project.root / "psy-work" / "a" / "jobs").iterdir()] == []


@pytest.fixture
def spec(tmp_path):
    names = ("log", "folder", "scratch")
    return JobSpec(
        argv=["true"], name="a:process", token="p1", indices=(), **{n: tmp_path / n for n in names}
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"n_cpus": 2}, "-l select=1:ncpus=2"),
        ({"n_cpus": 2, "select": "2:ncpus=8"}, "-l select=2:ncpus=8"),
        ({"n_cpus": 2, "select": "", "extra": "-l ncpus=2"}, "-l ncpus=2"),
        ({"timelimit": "2h", "max_running": 3}, "-l walltime=2:00:00 -J 0-4 -W max_run_subjobs=3"),
    ],
)
def test_sites_may_replace_the_request(spec, options, expected):
    argv = PBS().submit_argv(
        replace(spec, options=options, indices=range(5 if "timelimit" in options else 1))
    )
    assert " ".join(argv[7 : argv.index("--")]) == expected


def test_array_of_one_is_a_plain_job(spec):
    assert "-J" not in PBS().submit_argv(replace(spec, indices=range(1)))


@pytest.mark.parametrize(
    "text",
    [
        '{"Jobs": {"1.s": {"job_state": "R"}}}',  # as versions do that print the first job alone
        '{"Jobs": {"1.s": {"job_state": "R", "Variable_List": {"A": "\\\'"}}, "2.s": {"job_state": "R"}}}',
    ],
    ids=["one of two jobs", "not JSON"],
)
def test_broken_listing_is_no_answer(tmp_path, monkeypatch, text):
    (tmp_path / "qstat").write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    (tmp_path / "qstat").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert PBS().query(["1.s", "2.s"]) is None
    with pytest.raises(NoAnswerError):
        PBS().list_queue(["1.s", "2.s"])


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"job_state": "B"}, JobState.RUNNING),
        ({"job_state": "S"}, JobState.RUNNING),
        ({"job_state": "W"}, JobState.QUEUED),
        ({"job_state": "H", "Hold_Types": "s", "depend": "afterany:1.s@s"}, JobState.QUEUED),
        ({"job_state": "H", "Hold_Types": "us", "depend": "afterany:1.s@s"}, JobState.STUCK),
        ({"job_state": "H", "Hold_Types": "s"}, JobState.STUCK),
        ({"job_state": "?"}, JobState.UNKNOWN),
        ({"job_state": "X"}, None),
    ],
)
def test_states(fields, state):
    (entry,) = parse_jobs({"2.s": fields}, ["2.s"])
    assert entry.state is state


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"Exit_status": 0}, None),
        ({"Exit_status": 3}, "FAILED (exit 3)"),
        ({"Exit_status": 265}, "FAILED (signal 9)"),
        ({"Exit_status": -29}, "TIMEOUT"),
        ({"Exit_status": -27}, "OUT_OF_MEMORY"),
        ({"Exit_status": 271, "substate": 91}, "CANCELLED"),
        ({"substate": 91}, "CANCELLED"),
    ],
)
def test_reasons_of_those_that_ended(fields, why):
    jobs = {"7[].s": {"job_state": "B"}, "7[2].s": {"job_state": "X"} | fields, "7[3].s": {"job_state": "R"}}
    assert parse_ended(jobs, ["7[].server.of.site"]) == {("7[].server.of.site", 2): why}
