"""Hosts: jobs by ssh, or by srun inside an allocation, with a folder as their queue."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from clusters.machines import Machines
from clusters.sweep import assert_right, gated, submissions, xs_seen
from conftest import start_cluster
from psyrun.errors import NoAnswerError, PsyrunWarning, SchedulerError, TaskFileError
from psyrun.scheduler import Hosts, JobState, hostrunner
from psyrun.scheduler.allocation import find_allocation
from psyrun.testing import GATED, DependencyContract, ExplainContract, ThrottleContract, Trial

HERE = ["sh", "-c", 'eval "$1"']  # in place of ssh: the name of the host is $0
TASK = """\
import time
from counting import seen
from psyrun import Hosts, Param

pspace = Param(x=range(ROWS))
scheduler = Hosts(["a:2", "b:2"])
scheduler.poll = (0.2, 0.5)
scheduler.grace = 0
scheduler_args = {"remote": REMOTE, "patience": 3}
max_jobs = JOBS


def execute(x):
    seen(x)
    return {"y": 2 * x}
"""


@pytest.fixture(scope="session")
def machines(tmp_path_factory):
    """Two hosts, a and b, with a network and an sshd each."""
    with start_cluster(Machines(tmp_path_factory.mktemp("machines"))) as machines:
        yield machines


@pytest.fixture
def again(machines):
    """Start hosts again that a test ends."""
    yield machines
    for name in machines.names:
        machines.power_off(name)
        machines.boot(name)


@pytest.fixture
def task(machines):
    def write(rows, jobs):
        text = TASK.replace("ROWS", str(rows)).replace("JOBS", str(jobs))
        return text.replace("REMOTE", repr(machines.remote))

    return write


@pytest.mark.xdist_group("machines")
class TestContract(ThrottleContract, DependencyContract, ExplainContract):
    @pytest.fixture
    def scheduler(self):
        return Hosts()

    @pytest.fixture(autouse=True)
    def _options(self, machines):
        self.options = {"hosts": ["a:2", "b:2"], "remote": machines.remote, "patience": 3}

    def test_hosts_that_can_not_be_reached_are_said_and_the_others_go_on(self, trial):
        with pytest.warns(PsyrunWarning, match="nowhere takes no part: ssh: connect to host 127"):
            job = trial.submit("pass", options=trial.options | {"hosts": ["nowhere", "b"]})
        assert "nowhere takes no part: ssh: connect" in trial.log.read_text()
        trial.settle(job)
        assert trial.scheduler.explain([job]) == {}

    def test_nothing_is_left_where_no_host_can_be_reached(self, trial):
        with pytest.raises(SchedulerError, match="Connection refused") as raised:
            trial.submit("pass", options=trial.options | {"hosts": ["nowhere"]}, token="ax7")
        assert not isinstance(raised.value, NoAnswerError)  # It is known that no job was submitted.
        assert trial.scheduler.find(["ax7"]) == {}
        assert list((trial.folder / "psy-work" / "example" / "jobs").iterdir()) == []

    @pytest.mark.parametrize("hosts", [["-oProxyCommand=x"], ["a b"], []])
    def test_name_that_is_no_host_is_an_error(self, trial, hosts):
        with pytest.raises(TaskFileError, match="no host"):
            trial.submit("pass", options=trial.options | {"hosts": hosts})

    def test_jobs_of_all_submissions_share_the_slots_of_a_host(self, trial):
        options = trial.options | {"hosts": ["a:1"]}
        jobs = [trial.submit(GATED, trial.gate(name), options=options) for name in ("one", "two")]
        trial.wait(lambda: any(trial.gate(f"{name}.started").exists() for name in ("one", "two")))
        states = [trial.states(job)[0] for job in jobs]
        assert sorted(state.value for state in states) == ["queued", "running"]
        trial.gate("one").touch()
        trial.gate("two").touch()
        trial.settle(*jobs)

    def test_host_on_which_all_jobs_fail_leaves_them_to_the_others(self, trial):
        code = "import os, sys, time; bad = os.uname()[1] == 'b'; time.sleep(0.3 - 0.3 * bad); sys.exit(bad)"
        job = trial.submit(code, options=trial.options | {"hosts": ["a:1", "b:1"]}, indices=range(12))
        trial.settle(job)
        assert sorted(trial.scheduler.explain([job]).values()) == 3 * ["exit 1 on b"]
        assert "host b takes no more jobs: 3 failed at once" in trial.log.read_text()

    def test_environment_is_for_the_user_alone(self, trial):
        trial.begin("gate")
        (env,) = (trial.folder / "psy-work").glob("*/jobs/*/env")
        assert env.stat().st_mode & 0o777 == 0o600

    def test_login_shell_that_starts_something_does_not_keep_psy(self, trial, machines):
        shell = ["sh", "-c", f'exec {shlex.join(machines.remote)} "$0" "sleep 40 & $1"']
        began = time.monotonic()
        job = trial.submit("pass", options=trial.options | {"hosts": ["a:2"], "remote": shell})
        trial.settle(job)
        assert time.monotonic() - began < 30

    def test_cores_of_a_job_are_slots(self, trial):
        job = trial.report(options=trial.options | {"n_cpus": 2, "hosts": ["a:2"]}, indices=())
        trial.settle(job)
        assert trial.reported()["env"]["PSYRUN_CORES"] == "2"


@pytest.fixture
def here(tmp_path):
    """Submissions to hosts that are this machine, with slots of their own below tmp_path/slots."""
    (tmp_path / "slots").mkdir()
    remote = ["sh", "-c", f'TMPDIR={tmp_path}/slots; export TMPDIR; eval "$1"']
    options = {"hosts": ["a:3"], "remote": remote}
    trial = Trial(scheduler=Hosts(), folder=tmp_path, options=options, seconds=30)
    trial.configure(trial.scheduler)
    yield trial
    trial.scheduler.cancel(trial.jobs)


def test_at_most_so_many_jobs_run_at_a_time(here):
    (job,) = here.begin("gate", options=here.options | {"max_running": 1}, indices=range(3))
    time.sleep(1.5)  # a look at the queue
    assert sorted(state.value for state in here.states(job).values()) == ["queued", "queued", "running"]
    here.pass_gate("gate")
    here.settle(job)


def test_jobs_may_end_before_what_started_them(here):
    began = time.monotonic()
    remote = [*here.options["remote"][:2], here.options["remote"][2] + "; exec sleep 30"]
    job = here.submit("pass", options=here.options | {"remote": remote})
    here.settle(job)
    assert time.monotonic() - began < 20


def test_one_name_is_one_host(here):
    here.scheduler = here.configure(Hosts("ab"))
    with pytest.raises(SchedulerError, match=r"\(false ab\)"):
        here.submit("pass", options={"remote": ["false"], "hosts": None})


def test_all_hosts_say_why_they_run_no_jobs(here):
    with pytest.raises(SchedulerError) as raised:
        here.submit("pass", options=here.options | {"hosts": ["a:2", "b:3"], "n_cpus": 4})
    assert raised.value.output.splitlines() == [
        "it has 2 slots, and a job takes 4",
        "b: it has 3 slots, and a job takes 4",
    ]


def test_signal_without_a_name_explains_an_end(here):
    job = here.submit("import os; os.kill(os.getpid(), 40)")
    here.settle(job)
    assert set(here.scheduler.explain([job]).values()) == {"signal 40 on a"}


def test_host_that_ended_a_job_is_named(here):
    job = here.submit("raise SystemExit(3)")
    here.settle(job)
    assert set(here.scheduler.explain([job]).values()) == {"exit 3 on a"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_cpus": "two"}, "n_cpus is 'two': write a number from 1 on"),
        ({"n_cpus": -1}, "n_cpus is -1: write a number from 1 on"),
        ({"patience": float("nan")}, "patience is nan: write a number from 2 on"),
        ({"max_running": 0}, "max_running is 0: write a number from 1 on"),
        ({"hosts": 5}, "hosts is 5: write ['a', 'b:8']"),
        ({"hosts": {"a": 4}}, "hosts is {'a': 4}: write ['a', 'b:8']"),
        ({"hosts": [("a", 4)]}, "['a', 4] is no host: write NAME or NAME:SLOTS"),
        ({"hosts": ["a:0"]}, "'a:0' has no slots"),
        ({"remote": 7}, "remote is 7: write a command"),
    ],
)
def test_option_that_is_not_valid_is_said_and_no_job_is_in_flight(project, options, words):
    values = repr(options).replace("nan", "float('nan')")
    project.task(
        "a",
        "from psyrun import Hosts, Param\npspace = Param(x=range(2))\nscheduler = Hosts(['a'])\n"
        f"scheduler_args = {values}\ndef execute(x):\n    return {{'y': x}}\n",
    )
    assert words in project.psy("run", code=2).stderr
    assert project.status("a")["missing"] == 2
    assert "nothing is in flight" in project.psy("kill", "a").stdout


def test_no_job_is_in_flight_where_no_host_could_be_reached(project):
    project.task(
        "a",
        "from psyrun import Hosts, Param\npspace = Param(x=range(2))\nscheduler = Hosts(['a'])\n"
        "scheduler_args = {'remote': ['sh', '-c', 'exit 255']}\ndef execute(x):\n    return {'y': x}\n",
    )
    project.psy("run", code=1)
    assert project.status("a")["missing"] == 2


def test_host_without_the_folder_is_said_in_plain_words(tmp_path):
    argv = [sys.executable, "-I", "-S", hostrunner.__file__, "0-a", "1", str(tmp_path / "no"), "log", "true"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr == f"{tmp_path}/no is not there: does this host share the file system of the project?\n"
    )


def test_host_without_a_disk_for_slots_is_said_in_plain_words(here, tmp_path):
    remote = ["sh", "-c", f'TMPDIR={tmp_path}/no; export TMPDIR; eval "$1"']
    with pytest.raises(SchedulerError) as raised:
        here.submit("pass", options=here.options | {"remote": remote})
    name = f"psyrun-{os.geteuid()}-{os.uname().nodename}"
    assert raised.value.output == f"{tmp_path}/no/{name}: No such file or directory"


def test_host_that_takes_a_row_again_ends_the_older_job(here, tmp_path):
    program = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()} '); time.sleep(60)"
    pids = tmp_path / "pids"
    here.submit(program, pids, options=here.options | {"patience": 3})
    here.wait(pids.exists)
    (queue,) = here.scratch("x").parent.glob("*/run")
    (queue / "0.0.0-a").rename(queue.parent / "todo" / "0.1")  # as a host does to which this one looked dead
    here.wait(lambda: len(pids.read_text().split()) == 2)
    older, younger = (Path("/proc", pid) for pid in pids.read_text().split())
    here.wait(lambda: not older.exists())
    assert younger.exists()


@pytest.mark.parametrize("shell", ["sh", "csh", "fish"])
def test_login_shell_may_be_any_and_folders_have_any_name(here, tmp_path, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    folder = tmp_path / "a!b \\\\ c\n\"d' $HOME"
    folder.mkdir()
    remote = ["sh", "-c", f'exec {shell} -c "$1"']
    trial = dataclasses.replace(here, folder=folder, options={"hosts": ["a"], "remote": remote})
    trial.configure(trial.scheduler)
    job = trial.submit("pass")
    trial.settle(job)
    assert trial.scheduler.explain([job]) == {}


def test_slots_that_were_removed_are_made_again(here, tmp_path):
    jobs = here.begin("gate", options=here.options | {"hosts": ["a:1"]}, indices=range(2))
    (locks,) = (tmp_path / "slots").iterdir()
    (locks / "0").unlink()
    locks.rmdir()
    here.pass_gate("gate")
    here.settle(*jobs)
    assert here.scheduler.explain(jobs) == {}


def test_slots_do_not_look_old(here, tmp_path):
    jobs = here.begin("gate", options=here.options | {"hosts": ["a:1"]}, indices=range(2))
    (lock,) = (tmp_path / "slots").glob("*/0")
    os.utime(lock, (0, 0))
    here.wait(lambda: lock.stat().st_mtime > 0)
    here.pass_gate("gate")
    here.settle(*jobs)


def test_folders_of_settings_are_in_the_environment_and_sessions_are_not(here):
    env = os.environ | {"XDG_CACHE_HOME": "/cache", "XDG_RUNTIME_DIR": "/run/user/1", "XDG_SESSION_ID": "1"}
    here.settle(here.report(env=env, indices=()))
    seen = {name: value for name, value in here.reported()["env"].items() if name.startswith("XDG_")}
    assert seen == {"XDG_CACHE_HOME": "/cache"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize(("mode", "state"), [(0o755, JobState.RUNNING), (0o700, JobState.UNKNOWN)])
def test_other_users_see_jobs_where_they_may_and_end_none(mode, state):
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        trial = Trial(
            scheduler=Hosts(), folder=Path(name), options={"hosts": ["a"], "remote": HERE}, seconds=30
        )
        trial.configure(trial.scheduler)
        (job,) = trial.begin("gate")
        trial.scratch(Path(job).name).chmod(mode)
        child = os.fork()
        if child == 0:
            os.setgid(65534)
            os.setuid(65534)
            try:
                seen = set((trial.scheduler.query([job]) or {})[job].values())
                trial.scheduler.cancel([job])
            except SchedulerError:
                os._exit(seen != {state})
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert trial.queued([job]) == {job}
        trial.scheduler.cancel([job])
        trial.settle(job)


@pytest.mark.xdist_group("machines")
def test_result_appears_by_itself_and_equals_plain_python(project, task, wait_until):
    project.task("a", gated(task(200, 10)))
    done = project.psy("run", code=75)
    assert "the result appears by itself" in done.stdout
    (project.root / "gate").touch()
    wait_until((project.root / "psy-work" / "a" / "result.pkl").exists, 60)
    assert_right(project, 200)
    assert xs_seen(project) == list(range(200))
    wait_until(lambda: not any((project.root / "psy-work" / "a" / "jobs").iterdir()))
    assert project.count("run") == 0


@pytest.mark.xdist_group("machines")
def test_job_that_merges_waits_for_the_others_and_ends_well(project, task, wait_until):
    """There are slots for it all the time."""
    project.task("a", gated(task(8, 3)))
    project.psy("run", code=75)
    wait_until(lambda: project.status("a")["running"] == 3)
    (submission,) = submissions(project)
    hosts = Hosts()
    hosts.configure({}, project.root / "psy-work")
    assert hosts.query([submission["merge"]]) == {submission["merge"]: {-1: JobState.QUEUED}}
    (project.root / "gate").touch()
    wait_until((project.root / "psy-work" / "a" / "result.pkl").exists)
    assert_right(project, 8)
    wait_until(lambda: not any((project.root / "psy-work" / "a" / "jobs").iterdir()))


@pytest.mark.xdist_group("machines")
def test_kill_ends_the_jobs(project, task, wait_until):
    project.task("a", gated(task(8, 8)))
    project.psy("run", code=75)
    wait_until(lambda: project.status("a")["running"] == 4)
    assert project.status("a")["queued"] == 4
    assert "8 jobs cancelled" in project.psy("kill", "a").stdout
    assert project.status("a")["missing"] == 8
    (project.root / "gate").touch()
    project.psy("run", "--wait")
    assert_right(project, 8)


@pytest.mark.xdist_group("machines")
def test_host_that_dies_loses_its_rows_to_the_other(project, task, wait_until, again):
    project.task("a", gated(task(8, 4)))
    project.psy("run", code=75)
    wait_until(lambda: project.status("a")["running"] == 4)
    again.power_off("a")
    (project.root / "gate").touch()
    project.psy("run", "--wait")
    assert_right(project, 8)
    assert "host a died: element" in _log(project)


@pytest.mark.xdist_group("machines")
def test_host_that_only_seemed_dead_ends_its_jobs_when_it_is_back(project, task, wait_until, machines):
    project.task("a", gated(task(8, 4)))
    project.psy("run", code=75)
    wait_until(lambda: project.status("a")["running"] == 4)
    for pid in (frozen := machines.processes_of("a")):
        os.kill(pid, signal.SIGSTOP)
    (project.root / "gate").touch()
    project.psy("run", "--wait")
    assert_right(project, 8)
    assert "host a died: element" in _log(project)
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: set(machines.processes_of("a")) <= {machines.sshd_of("a")})
    assert project.count("run") == 0
    assert_right(project, 8)


@pytest.mark.xdist_group("machines")
def test_host_without_network_whose_disk_is_there_goes_on(project, task, wait_until, again):
    project.task("a", gated(task(8, 4)))
    project.psy("run", code=75)
    wait_until(lambda: project.status("a")["running"] == 4)
    again.cut_off("b")
    (project.root / "gate").touch()
    project.psy("run", "--wait")
    assert_right(project, 8)
    assert xs_seen(project) == list(range(8))


@pytest.mark.xdist_group("machines")
def test_all_hosts_dead_leaves_the_rows_to_the_next_run(project, task, wait_until, again):
    project.task("a", gated(task(8, 4)))
    project.psy("run", code=75)
    wait_until(lambda: project.status("a")["running"] == 4)
    for name in again.names:
        again.power_off(name)
    wait_until(lambda: project.status("a")["running"] == 0)
    (project.root / "gate").touch()
    again.boot("a")
    assert "b takes no part: " in project.psy("run", "--wait").stdout
    assert_right(project, 8)


@pytest.mark.xdist_group("machines")
def test_jobs_end_with_an_allocation_whose_hosts_ssh_reaches(project, task, wait_until, machines):
    """As in a job of Grid Engine: they end with the commands that psy started; rows go on in the next."""
    text = gated(task(8, 4)).replace('Hosts(["a:2", "b:2"])', "Hosts.from_allocation()")
    project.task("a", text)
    granted = project.write("granted.txt", "a 2 all.q@a UNDEFINED\nb 2 all.q@b UNDEFINED\n")
    psy = project.start("run", "--wait", env=project.env(PE_HOSTFILE=str(granted)))
    wait_until(lambda: (project.root / "psy-work").exists() and project.status("a")["running"] == 4)
    os.killpg(psy.pid, signal.SIGINT)  # Ctrl-C leaves the jobs running.
    psy.communicate()
    time.sleep(1)
    assert project.status("a")["running"] == 4
    os.killpg(psy.pid, signal.SIGTERM)  # As the batch system ends what it started.
    wait_until(lambda: project.status("a")["running"] == 0)
    for name in machines.names:
        wait_until(lambda name=name: set(machines.processes_of(name)) <= {machines.sshd_of(name)})
    (project.root / "gate").touch()
    last = project.start("run", "--wait", env=project.env(PE_HOSTFILE=str(granted)))
    last.communicate()
    assert_right(project, 8)


@pytest.mark.xdist_group("slurm")
def test_hosts_of_an_allocation_run_the_jobs_by_srun(slurm, enter, project, wait_until):
    """Those outside see what runs, and may end it."""
    cluster = enter(slurm)
    text = (
        TASK.replace("ROWS", "8")
        .replace("JOBS", "4")
        .replace('Hosts(["a:2", "b:2"])', "Hosts.from_allocation()")
    )
    project.task("a", gated(text.replace("REMOTE", "None")))
    psy = f"{sys.executable} -P -m psyrun.cli run --wait"
    request = ["sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2", "--time=5"]
    submit = [*request, f"--chdir={project.root}", f"--export=ALL,EVALUATIONS={project.evaluations},"]
    submit[-1] += f"PYTHONPATH={project.env()['PYTHONPATH']}"
    cluster.run(*submit, f"--output={project.root}/first.txt", "--wrap", psy)
    wait_until(lambda: (project.root / "psy-work").exists() and project.status("a")["running"] >= 2)
    hosts = project.root / "psy-work" / "a" / "jobs" / submissions(project)[0]["token"] / "hosts"
    wait_until(lambda: sum(sign.stat().st_size > 0 for sign in hosts.iterdir()) == 2)
    assert "4 jobs cancelled" in project.psy("kill", "a").stdout
    wait_until(lambda: cluster.run("squeue", "-h") == "")
    first = (project.root / "first.txt").read_text()
    assert "0 of 8 rows done, 8 missing" in first
    assert "warning" not in first
    (project.root / "gate").touch()
    cluster.run(*submit, f"--output={project.root}/second.txt", "--wrap", psy)
    wait_until((project.root / "psy-work" / "a" / "result.pkl").exists)
    assert_right(project, 8)


def test_change_of_hosts_makes_no_row_stale(project):
    text = "from psyrun import Hosts, Local, Param\npspace = Param(x=range(2))\nscheduler = Local()\n"
    project.task("a", text + "def execute(x):\n    return {'y': x}\n")
    project.psy("run")
    for old, new in (("Local()", "Hosts(['a', 'b:8'])"), ("Hosts(['a', 'b:8'])", "Hosts.from_allocation()")):
        project.edit("psy-tasks/task_a.py", old, new)
        assert "a: up to date" in project.psy("plan").stdout


def test_outside_of_an_allocation_there_are_no_hosts(project):
    project.task(
        "a",
        "from psyrun import Hosts, Param\npspace = Param(x=range(2))\n"
        "scheduler = Hosts.from_allocation()\ndef execute(x):\n    return {'y': x}\n",
    )
    assert project.status("a")["missing"] == 2
    said = project.psy("run", code=2).stderr
    assert "Hosts.from_allocation(): there is no allocation; start psy inside a job of Slurm, Grid" in said
    assert "exited with" not in said


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("PE_HOSTFILE", "a 2 all.q@a UNDEFINED\nb 8 all.q@b UNDEFINED\n"),
        ("PBS_NODEFILE", "a\na\n" + 8 * "b\n"),
    ],
)
def test_hosts_of_allocations_stand_in_files(tmp_path, variable, text):
    (tmp_path / "hosts").write_text(text)
    found = find_allocation({variable: str(tmp_path / "hosts")})
    assert [(host.name, host.slots) for host in found] == [("a", 2), ("b", 8)]


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("PBS_NODEFILE", None, "PBS_NODEFILE names no hosts: [Errno 2] No such file or directory"),
        ("PBS_NODEFILE", "\n", "PBS_NODEFILE names no hosts: "),
        ("PE_HOSTFILE", "a\n", "PE_HOSTFILE names no hosts: "),
    ],
)
def test_allocation_without_hosts_is_said_and_no_job_is_in_flight(
    project, tmp_path, monkeypatch, variable, text, words
):
    project.task(
        "a",
        "from psyrun import Hosts, Param\npspace = Param(x=range(2))\n"
        "scheduler = Hosts.from_allocation()\ndef execute(x):\n    return {'y': x}\n",
    )
    if text is not None:
        (tmp_path / "hosts").write_text(text)
    monkeypatch.setenv(variable, str(tmp_path / "hosts"))
    said = project.psy("run", code=2).stderr
    assert words in said
    assert "Traceback" not in said
    assert project.status("a")["missing"] == 2


def test_no_job_is_in_flight_where_its_queue_could_not_be_written(project):
    project.task(
        "a",
        "import psyrun\nimport psyrun.scheduler.hosts\npspace = psyrun.Param(x=range(2))\n"
        "scheduler = psyrun.Hosts(['a'])\ndef execute(x):\n    return {'y': x}\n"
        "def fail(*arguments):\n    raise OSError(28, 'No space left on device', 'env')\n"
        "psyrun.scheduler.hosts._write_queue = fail\n",
    )
    assert "env: No space left on device; free space" in project.psy("run", code=1).stderr
    assert project.status("a")["missing"] == 2


LOSING = """\
import os


class Losing(Hosts):
    def submit(self, spec):
        job = super().submit(spec)
        if not os.path.exists("gate"):
            raise TimeoutError("no reply")
        return job


scheduler = Losing"""


def test_answer_that_is_lost_leaves_the_job_to_the_next_run(project):
    """Whatever error a scheduler raises that may come after the system took the job."""
    text = TASK.replace("ROWS", "4").replace("JOBS", "2").replace("REMOTE", repr(HERE))
    project.task("a", gated(text).replace("scheduler = Hosts", LOSING))
    assert "no reply" in project.psy("run", code=1).stderr
    assert len(submissions(project)) == 1
    (project.root / "gate").touch()
    project.psy("run", "--wait")
    assert_right(project, 4)
    assert xs_seen(project) == list(range(4))


def _log(project):
    logs = (project.root / "psy-work" / "a" / "log").glob("*.log")
    return "".join(log.read_text(errors="replace") for log in logs)
