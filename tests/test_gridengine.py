"""Grid Engine for real: a cell on this machine, `psy` in front of it."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest

from clusters import sweep
from clusters.sweep import assert_right, gated, submissions, xs_seen
from psyrun.errors import NoAnswerError
from psyrun.scheduler import GridEngine, JobState
from psyrun.scheduler.gridengine import parse_accounting, parse_errors, parse_queue
from psyrun.testing import DependencyContract, ExplainContract, ThrottleContract, WarningContract

pytestmark = pytest.mark.xdist_group("gridengine")


def task(rows, jobs, **settings):
    return sweep.task(rows, jobs, kind="GridEngine", **settings)


@pytest.fixture
def cell(gridengine, enter):
    return enter(gridengine)


@pytest.fixture
def settings(cell):
    """Change settings of the cell for a test."""
    before = {}

    def change(**changed):
        before.update(cell.configure(**changed) | before)

    yield change
    cell.configure(**before)


class TestContract(ThrottleContract, DependencyContract, WarningContract, ExplainContract):
    options = {"timelimit": 5}
    limit = {"timelimit": "0:13"}  # warned after 3 s

    @pytest.fixture
    def scheduler(self, gridengine, monkeypatch):
        """Without waiting for the end of what others left."""
        for name, value in gridengine.env.items():
            monkeypatch.setenv(name, value)
        return GridEngine()

    def test_environment_survives_login_shells_and_the_list_of_what_is_dropped(self, trial, monkeypatch):
        """Grid Engine drops LD_LIBRARY_PATH, and the profile of a login shell sets PATH."""
        sent = {
            "PATH": f"/of this test:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": "/some lib:/it's another",
            "OF_LINES": "a\nb=c,d\n",
            "OF_COMMAS": "a,b=c",
            "OF_NOTHING": "",
            "BASH_FUNC_module%%": '() {  echo "$1"\n}',
        }
        trial.settle(trial.report(env=os.environ | sent, indices=()))
        seen = trial.reported()["env"]
        assert seen["PATH"].endswith(sent["PATH"])  # behind a folder of the job
        assert {name: seen[name] for name in sent if name != "PATH"} == {
            name: value for name, value in sent.items() if name != "PATH"
        }

    @pytest.fixture
    def unreachable(self, gridengine, monkeypatch):
        @contextmanager
        def enter():
            with monkeypatch.context() as context:
                context.setenv("SGE_QMASTER_PORT", "1")
                yield

        return enter

    @pytest.fixture
    def full(self, trial, settings):
        @contextmanager
        def enter():
            held = trial.submit("pass", options={"extra": ["-h"]})
            settings(max_u_jobs="1")
            yield
            trial.scheduler.cancel([held])
            trial.settle(held)

        return enter

    @pytest.fixture
    def hold(self, gridengine):
        return lambda job: gridengine.run("qhold", job)

    @pytest.fixture
    def foreign(self, gridengine):
        nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
        job = gridengine.run(*nobody, "qsub", "-terse", "-h", "-b", "y", "sleep", "600")
        yield job
        gridengine.run("qdel", job)

    def test_job_on_hold_is_stuck_but_not_one_that_waits_for_it(self, trial, gridengine):
        held = trial.submit("pass", options={"extra": "-h"}, indices=range(2))
        waits = trial.submit("pass", after=[held], indices=())
        assert trial.states(held) == {0: JobState.STUCK, 1: JobState.STUCK}
        assert trial.states(waits) == {-1: JobState.QUEUED}
        assert trial.scheduler.explain([held, waits]) == {(held, 0): "hqw: held", (held, 1): "hqw: held"}
        gridengine.run("qrls", held)
        trial.settle(held, waits)

    def test_queued_jobs_are_seen_where_the_site_has_qstat_list_running_ones(self, trial, gridengine):
        held = trial.submit("pass", options={"extra": "-h"})
        options = gridengine.folder / "root" / "default" / "common" / "sge_qstat"
        options.write_text("-s r\n")
        try:
            assert not gridengine.run("qstat", "-u", "*")
            assert trial.states(held) == {0: JobState.STUCK}
        finally:
            options.unlink()
        trial.scheduler.cancel([held])
        trial.settle(held)


# ---------------------------------------------------------------------- the life of a task


def test_two_hundred_rows_over_twenty_elements_equal_the_local_result(cell, project, wait_until):
    project.task("a", task(200, 20))
    done = project.psy("run", code=75)
    assert "20 jobs in flight" in done.stdout
    assert "the result appears by itself" in done.stdout
    wait_until((project.root / "psy-work" / "a" / "result.pkl").exists, 60)
    assert_right(project, 200)
    assert xs_seen(project) == list(range(200))
    assert project.count("run") == 0
    assert submissions(project) == []


def test_failing_row_is_reported_and_only_it_is_tried_again(cell, project, wait_until):
    fails = (
        "    import os\n    if x == 7 and not os.path.exists('../ok'):\n        raise ValueError('seven')\n"
    )
    project.task("a", task(20, 5, untracked=["../ok"]).replace("    seen(x)\n", f"    seen(x)\n{fails}"))
    run_and_let_jobs_end(cell, project, wait_until)
    assert (project.status("a")["failed"], project.status("a")["done"]) == (1, 19)
    assert "seven" in project.psy("errors").stdout
    (project.root / "ok").touch()
    assert project.count("run", "--wait") == 1
    assert_right(project, 20)


def test_edit_and_extension_while_jobs_are_queued(cell, project):
    """An extension adds jobs; an edit of the code replaces the task's own, and no others."""
    foreign = cell.run("qsub", "-terse", "-h", "-b", "y", "sleep", "600")
    for name in ("a", "b"):
        project.task(name, gated(task(6, 3)))
    project.psy("run", code=75)
    first = {each["job"] for each in submissions(project)}
    project.edit("psy-tasks/task_a.py", "range(6)", "range(10)")
    assert "cancelled" not in project.psy("run", "a", code=75).stdout
    assert first < {each["job"] for each in submissions(project)}
    project.edit("psy-tasks/task_b.py", "2 * x", "3 * x")
    done = project.psy("run", "b", code=75).stdout
    assert "3 jobs in flight were outdated by an edit and are cancelled" in done
    (project.root / "gate").touch()
    project.psy("run", "--wait")
    assert_right(project, 10)
    assert_right(project, 6, factor=3, name="b")
    assert sorted(xs_seen(project)) == sorted([*range(10), *range(6)])
    assert foreign in jobs_of(cell)


def test_kill_ends_the_jobs_of_the_task_and_no_others(cell, project, wait_until):
    foreign = cell.run("qsub", "-terse", "-h", "-b", "y", "sleep", "600")
    for name in ("a", "b"):
        project.task(name, gated(task(6, 3)))
    project.psy("run", code=75)
    assert "3 jobs cancelled" in project.psy("kill", "a").stdout
    assert project.status("a")["missing"] == 6
    (b,) = submissions(project, "b")
    wait_until(lambda: jobs_of(cell) == {foreign, b["job"], b["merge"]})
    assert "nothing is in flight" in project.psy("kill", "a").stdout


def jobs_of(cell):
    return {line.split()[0] for line in cell.run("qstat", "-u", "*").splitlines()[2:]}


def run_and_let_jobs_end(cell, project, wait_until, seconds=60):
    project.psy("run", code=75)
    wait_until(lambda: not jobs_of(cell), seconds)


# ---------------------------------------------------------------------- what goes wrong


def test_job_near_its_time_limit_stops_taking_rows_and_the_next_run_goes_on(cell, project, wait_until):
    text = task(100, 1, scheduler_args={"timelimit": "0:13"})  # warned after 3 s
    project.task("a", text.replace("    seen(x)\n", "    seen(x)\n    time.sleep(0.3)\n"))
    run_and_let_jobs_end(cell, project, wait_until)
    assert "stopped near its time limit" in project.psy("status", "-v").stdout
    status = project.status("a")
    assert 0 < status["done"] < 40
    assert (status["failed"], status["done"] + status["missing"]) == (0, 100)
    assert len(project.rows_seen()) == status["done"]
    project.edit("psy-tasks/task_a.py", "time.sleep(0.3)", "pass")
    assert project.count("run", "--continue", "--wait") == 100 - status["done"]
    assert_right(project, 100)


@pytest.mark.parametrize(
    "options",
    [
        {"extra": "-l h_rt=3"},
        # After a warning, Grid Engine looks at the time of a job again 90 s later.
        pytest.param({"timelimit": "12s"}, marks=pytest.mark.long),
    ],
)
def test_job_over_its_time_limit_is_reported_and_only_its_rows_are_repeated(
    cell, project, wait_until, options
):
    slow = "    import os\n    if x == 1 and not os.path.exists('../ok'):\n        time.sleep(600)\n"
    text = task(4, 2, scheduler_args=options, untracked=["../ok"])
    project.task("a", text.replace("    return", f"{slow}    return"))
    run_and_let_jobs_end(cell, project, wait_until, 150)
    before = project.status("a")
    assert (before["done"], before["failed"]) == (4 - before["missing"], 0)
    assert "over a limit (h_rt" in project.psy("status", "-v").stdout
    (project.root / "ok").touch()
    done = project.psy("run", code=75)
    assert "of its jobs ended early: over a limit (h_rt" in done.stdout
    project.psy("run", "--wait")
    assert_right(project, 4)


def test_job_that_cannot_start_is_stuck_with_the_reason_and_not_missing_or_running(cell, project, wait_until):
    """Exit code 100 puts an element into the state Eqw, in which it stays."""
    project.write("psy-tasks/env.sh", '[ "$SGE_TASK_ID" != 2 ] || exit 100\n')
    project.task("a", task(6, 3, prologue="env.sh"))
    project.psy("run", code=75)
    wait_until(lambda: project.status("a")["done"] == 4)
    (job,) = [each["job"] for each in submissions(project)]
    scheduler = GridEngine()
    wait_until(lambda: scheduler.query([job]) == {job: {1: JobState.STUCK}})
    assert scheduler.explain([job]) == {(job, 1): "Eqw: exit_status of job start = 100"}
    status = project.status("a")
    assert (status["missing"], status["running"]) == (0, 0)
    project.psy("kill", "a")
    project.write("psy-tasks/env.sh", "")
    assert project.count("run", "--wait") == 2
    assert_right(project, 6)


def test_jobs_that_another_command_deleted_are_said_and_submitted_again(cell, project, wait_until):
    project.task(
        "a", gated(task(12, 3)).replace("x == 0", "x < 0").replace("while not", "while x > 3 and not")
    )
    project.psy("run", code=75)
    wait_until(lambda: project.status("a")["done"] > 0)
    cell.cancel_all()
    before = project.status("a")
    assert before["done"] > 0
    done = project.psy("run", code=75).stdout
    assert "of its jobs ended early: signal 9 (qdel" in done
    (project.root / "gate").touch()
    project.psy("run", "--wait")
    assert_right(project, 12)
    assert set(xs_seen(project)) == set(range(12))


@pytest.mark.long
def test_row_that_needs_more_address_space_than_granted_fails_by_name(cell, project, wait_until):
    text = task(3, 1, scheduler_args={"memory": "3G"})
    project.task("a", text.replace("    return", "    if x == 1:\n        hog = bytes(4 << 30)\n    return"))
    run_and_let_jobs_end(cell, project, wait_until)
    assert (project.status("a")["failed"], project.status("a")["done"]) == (1, 2)
    assert "MemoryError" in project.psy("errors").stdout


@pytest.mark.long
def test_site_with_tiny_arrays_that_refuses_more_jobs(cell, project, settings):
    settings(max_aj_tasks="4")
    project.task("a", gated(task(10, 10)))
    project.psy("run", code=75)
    assert sorted(len(each["batches"]) for each in submissions(project)) == [2, 4, 4]
    project.psy("kill", "a")
    cell.cancel_all()
    settings(max_u_jobs="2")
    done = project.psy("run", code=75).stdout
    assert sum(len(each["batches"]) for each in submissions(project)) == 8, done
    cell.configure(max_u_jobs="0")
    (project.root / "gate").touch()
    project.psy("run", "--wait")
    assert_right(project, 10)


@pytest.mark.long
def test_master_that_is_down_is_said_and_nothing_is_submitted_again(cell, project, wait_until):
    """Jobs go on without it, and their files tell when the task is finished."""
    project.task("a", gated(task(6, 3)))
    project.psy("run", code=75)
    wait_until(lambda: project.status("a")["running"] == 3)
    (job,) = [each["job"] for each in submissions(project)]
    cell.stop_master()
    try:
        with pytest.raises(NoAnswerError):
            GridEngine().array_limit()
        assert GridEngine().query([job]) is None
        assert GridEngine().find(["anything"]) is None
        done = project.psy("run", code=75)
        assert "GridEngine does not answer: nothing is submitted again meanwhile" in done.stdout
        assert project.status("a")["missing"] == 0
        assert "unable to send message to qmaster" in project.psy("kill", "a", code=1).stderr
        (project.root / "gate").touch()
        project.psy("run", "--wait")
        assert_right(project, 6)
    finally:
        cell.start_master()
    assert xs_seen(project) == list(range(6))


def test_master_that_does_not_listen_when_the_first_job_is_submitted(cell, project, monkeypatch):
    project.task("a", task(6, 3))
    with monkeypatch.context() as context:
        context.setenv("SGE_QMASTER_PORT", "9")
        done = project.psy("run", code=1)
    assert "unable to send message to qmaster" in done.stderr
    assert "Traceback" not in done.stderr
    project.psy("run", "--wait")
    assert_right(project, 6)


# ---------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("code", "state"),
    [
        *((code, JobState.QUEUED) for code in ("qw", "Rq")),
        *((code, JobState.RUNNING) for code in ("r", "t", "Rr", "hr", "dr", "s", "S", "T")),
        *((code, JobState.STUCK) for code in ("Eqw", "hqw", "hRwq", "EhRqw")),
        *((code, JobState.UNKNOWN) for code in ("", "N")),
        ("z", None),
    ],
)
def test_states(code, state):
    (entry,) = parse_queue(
        f"<a><job_list><JB_job_number>7</JB_job_number><state>{code}</state></job_list></a>"
    )
    assert (entry.state, entry.element) == (state, -1)
    assert entry.reason == (code if state is JobState.STUCK else "")


@pytest.mark.parametrize(
    ("tasks", "elements"), [("1-3:1", [0, 1, 2]), ("2,5", [1, 4]), ("4", [3]), ("1-5:2,8,9", [0, 2, 4, 7, 8])]
)
def test_elements_of_arrays(tasks, elements):
    text = f"<a><job_list><state>qw</state><tasks>{tasks}</tasks></job_list></a>"
    assert [entry.element for entry in parse_queue(text)] == elements


def test_reasons_of_errors_belong_to_their_elements():
    head = "=" * 62 + "\njob_number:                 {}\nenv_list:   A=a\nerror reason of mine\n"
    tail = "error reason          {}:      11/30/2026 04:53:43 [0:8125]: {}\nscheduling info:  none\n"
    text = head.format(7) + tail.format(2, "exit_status of job start = 100") + head.format(12)
    text += tail.format(1, "can't chdir to /no: such")
    assert parse_errors(text) == {
        ("7", 1): "exit_status of job start = 100",
        ("12", 0): "can't chdir to /no: such",
    }


@pytest.mark.parametrize(
    ("failed", "code", "why"),
    [
        ("0", "0", None),
        ("0", "3", "exit 3"),
        ("0", "75", "stopped near its time limit"),
        (
            "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit",
            "137  (Killed)",
            "over a limit (h_rt, h_cpu or h_vmem)",
        ),
        ("100 : assumedly after job", "137  (Killed)", "signal 9 (qdel, a limit, or lack of memory)"),
        ("100 : assumedly after job", "139  (Segmentation fault)", "signal 11"),
        ("27  : searching requested shell", "0", "failed 27 : searching requested shell"),
    ],
)
def test_ends_in_accounting(failed, code, why):
    record = (
        "=" * 62 + "\nqname  all.q\njobnumber  7\ntaskid  {}\nfailed  {}\nexit_status  {}\nru_wallclock 1s\n"
    )
    text = record.format("undefined", failed, code) + record.format("10", "0", "0")
    assert parse_accounting(text) == {("7", -1): why, ("7", 9): None}


def test_two_cells_have_two_names_and_a_shadow_master_changes_none(tmp_path, monkeypatch):
    names = []
    for root, cell, host in (
        ("a", "default", "m1"),
        ("a", "default", "m2"),
        ("a", "big", "m1"),
        ("b", "big", "m1"),
    ):
        common = tmp_path / root / cell / "common"
        common.mkdir(parents=True, exist_ok=True)
        (common / "act_qmaster").write_text(f"{host}\n")
        monkeypatch.setenv("SGE_ROOT", str(tmp_path / root))
        monkeypatch.setenv("SGE_CELL", cell)
        names.append(GridEngine().system())
    assert len(set(names)) == 4
    (common / "shadow_masters").write_text("m1\nm2\n")
    (common / "act_qmaster").write_text("m2\n")
    assert GridEngine().system() == names[-1]
