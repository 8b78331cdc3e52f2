"""psy kill, new-task, test and completion, and the help of all commands."""

import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import terminals
from psyrun.cli.commands import cli
from psyrun.scheduler import BUILT_IN
from psyrun.task.settings import SETTINGS

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")


def read_files(folder):
    """Return the bytes of all files below a folder, but for the count of evaluations."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "evaluations.txt")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# ---------------------------------------------------------------------- kill

GATED = """\
import os, time
from counting import seen
from psyrun import Param
pspace = Param(x=range(8))
pool_size = 2
untracked = ["../gate"]
def execute(x):
    seen("NAME", x)
    deadline = time.monotonic() + 120
    while x > 1 and not os.path.exists("../gate"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return {"y": x}
"""


class Runs:
    """Runs of psy in the background, and the processes that they started."""

    def __init__(self, project, wait_until, monkeypatch):
        self._project, self._wait_until, self._monkeypatch = project, wait_until, monkeypatch
        self._begun = {}

    def begin(self, task):
        """Start `psy run TASK` and return it when its first row is on disk and others have begun."""
        self._project.task(task, GATED.replace("NAME", task))
        with self._monkeypatch.context() as patch:
            patch.setenv("RUN", task)
            run = self._begun[task] = self._project.start("run", task)
        self._wait_until(lambda: self._is_under_way(task) or run.poll() is not None)
        assert run.poll() is None
        return run

    def end(self):
        """Kill what is left of them."""
        for task, run in self._begun.items():
            for pid in self.processes(task):
                os.kill(pid, signal.SIGKILL)
            run.communicate()

    def _is_under_way(self, task):
        if sum(task in row for row in self._project.rows_seen()) < 3:
            return False
        return self._project.status(task)["done"] >= 1

    def processes(self, task):
        """Return the ids of all processes of a run."""
        mark = f"EVALUATIONS={self._project.evaluations}".encode(), f"RUN={task}".encode()
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
        return [pid for pid in pids if {*mark} <= self._environment(pid)]

    def _environment(self, pid):
        try:
            return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
        except OSError:
            return set()


@pytest.fixture
def runs(project, wait_until, monkeypatch):
    """Runs in the background; what a test leaves of them ends with it."""
    started = Runs(project, wait_until, monkeypatch)
    yield started
    started.end()


@needs_proc
@pytest.mark.slow
def test_kill_ends_the_run_of_the_named_task_alone(project, runs, wait_until):
    one, two = runs.begin("one"), runs.begin("two")
    assert "one: 1 job cancelled" in project.psy("kill", "one").stdout

    out, err = one.communicate(timeout=60)
    assert one.returncode == 1, out + err
    assert "Traceback" not in out + err
    assert "missing; to go on: psy run one" in out
    assert "failed" not in (out + err).replace(", 0 failed", "")  # A line of progress, after ten seconds.
    wait_until(lambda: not runs.processes("one"))

    status = project.status("one")
    kept = status["done"]
    assert kept >= 1
    assert [status[state] for state in ("failed", "running", "queued")] == [0, 0, 0]
    assert "exit" not in project.psy("errors").stdout  # The worker was asked to end: no fault of its own.

    assert two.poll() is None
    assert project.status("two")["running"] > 0
    (project.root / "gate").touch()
    out, err = two.communicate(timeout=60)
    assert two.returncode == 0, out + err
    assert sum("two" in row for row in project.rows_seen()) == 8

    assert project.count("run", "one") == 8 - kept
    assert project.result("one")["y"] == list(range(8))


@needs_proc
def test_kill_all_ends_the_runs_of_all_tasks(project, runs):
    one, two = runs.begin("one"), runs.begin("two")
    said = project.psy("kill", "--all").stdout
    assert said.count("1 job cancelled") == 2
    for run in (one, two):
        out, err = run.communicate(timeout=60)
        assert run.returncode == 1, out + err


@pytest.mark.parametrize("mishap", ["broken", "gone"])
def test_kill_ends_the_run_of_a_task_whose_file_is_broken_or_gone(project, runs, mishap):
    one = runs.begin("one")
    path = project.root / "psy-tasks/task_one.py"
    path.write_text("def execute(:") if mishap == "broken" else path.unlink()
    assert "one: 1 job cancelled" in project.psy("kill", "one").stdout
    _, err = one.communicate(timeout=60)
    assert "Traceback" not in err
    assert not runs.processes("one")


def test_kill_finds_nothing_where_nothing_runs(project):
    project.task("one", GATED.replace("NAME", "one"))
    assert project.psy("kill", "one").stdout == "one: nothing is in flight\n"
    assert not (project.root / "psy-work/one").exists()
    (project.root / "gate").touch()
    project.psy("run")
    before = read_files(project.root / "psy-work/one")
    assert project.psy("kill", "one").stdout == "one: nothing is in flight\n"
    assert read_files(project.root / "psy-work/one") == before


@pytest.mark.parametrize(
    ("arguments", "words"), [([], "--all"), (["on"], "did you mean 'one'?")], ids=["no name", "unknown name"]
)
def test_kill_needs_the_names_of_tasks(project, arguments, words):
    project.task("one", GATED)
    assert words in project.psy("kill", *arguments, code=2).stderr


# ---------------------------------------------------------------------- new-task


@pytest.mark.parametrize("scheduler", [None, "Local", "ImmediateRun"])
def test_new_task_runs_as_it_is(project, scheduler):
    options = [] if scheduler is None else ["--scheduler", scheduler]
    said = project.psy("new-task", "fig-1.b", *options).stdout
    assert "psy-tasks/task_fig-1.b.py" in said
    assert "psy test fig-1.b" in said
    assert (
        scheduler in (None, "Local")
        or f"scheduler = {scheduler}" in (project.root / "psy-tasks/task_fig-1.b.py").read_text()
    )
    project.psy("test", "fig-1.b")
    assert "finished" in project.psy("run", "fig-1.b").stdout
    table = project.result("fig-1.b")
    assert len(table["x"]) > 1
    assert set(map(len, table.values())) == {len(table["x"])}


def test_new_task_explains_each_setting(project):
    project.psy("new-task", "t")
    text = (project.root / "psy-tasks/task_t.py").read_text()
    words = text.replace("(", " ").replace("=", " ").split()
    assert [setting for setting in SETTINGS if setting not in words] == []


def test_settings_of_a_new_task_are_valid_once_their_mark_is_removed(project):
    project.psy("new-task", "t")
    path = project.root / "psy-tasks/task_t.py"
    head, settings = path.read_text().split("# Settings.")
    imports, lines = [], []
    for line in settings.splitlines()[1:]:
        if line.startswith("# ") and " = " in line and not line.startswith("#  "):
            setting, _, comment = line.removeprefix("# ").partition("  # ")
            imports += [comment] if comment.startswith("from") else []
            lines.append(setting)
    assert len(lines) > 10
    path.write_text("\n".join([*imports, head, *lines]))
    project.write("psy-tasks/data.csv", "1")
    project.write("psy-tasks/env.sh", "")
    done = project.psy("plan", "t")
    assert done.stderr == ""
    assert "30 rows" in done.stdout


def test_new_task_makes_the_folder_of_task_files(project):
    (project.root / "psy-tasks").rmdir()
    project.psy("new-task", "first")
    assert project.psy("list").stdout == "first\n"
    project.psy("--taskdir", "others", "new-task", "second")
    assert project.psy("--taskdir", "others", "list").stdout == "second\n"


@pytest.mark.parametrize("scheduler", BUILT_IN)
def test_template_for_each_scheduler_loads(project, scheduler):
    project.psy("new-task", "t", "--scheduler", scheduler)
    done = project.psy("plan", "t")
    assert done.stderr == ""
    assert "30 rows" in done.stdout


@pytest.mark.parametrize(
    ("scheduler", "line"),
    [
        ("psyrun.scheduler.Slurm", "from psyrun import Param, Slurm\n"),
        ("psyrun.Local", "from psyrun import Param\n"),
        ("my_site.queues.Mine", "from psyrun import Param\nfrom my_site.queues import Mine\n"),
    ],
)
def test_scheduler_of_a_new_task_may_have_a_dotted_name(project, scheduler, line):
    """psyrun 0.8 took module and class."""
    mine = "from psyrun import ImmediateRun\nclass Mine(ImmediateRun):\n    pass\n"
    project.write("../elsewhere/my_site/queues.py", mine)
    project.psy("new-task", "t", "-s", scheduler)
    assert line in (project.root / "psy-tasks/task_t.py").read_text()
    assert "30 rows" in project.psy("plan", "t").stdout


@pytest.mark.parametrize(
    "scheduler", ["no_such.Slurm", "psyrun.scheduler.Slurn", "psyrun.Param", "os.getcwd", "."]
)
def test_scheduler_of_a_new_task_that_is_none_is_named(project, scheduler):
    done = project.psy("new-task", "t", "-s", scheduler, code=2)
    assert repr(scheduler) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project.root / "psy-tasks/task_t.py").exists()


def test_folder_of_task_files_may_be_named_behind_the_command(project):
    """psyrun 0.8 took it there."""
    project.psy("new-task", "--taskdir", "others", "second")
    assert project.psy("list", "--taskdir", "others").stdout == "second\n"
    project.psy("run", "--taskdir", "others", "second")
    assert len(project.result("second")["x"]) == 30


def test_new_task_does_not_overwrite(project):
    path = project.task("t", "# mine\n")
    assert "psy-tasks/task_t.py exists" in project.psy("new-task", "t", code=2).stderr
    assert path.read_text() == "# mine\n"


@pytest.mark.parametrize(
    "name", ["a b", "../x", "a/b", "run", "doit", "a=b", "a*", "", "-x", ".x", "ä", "a\n"]
)
def test_new_task_refuses_names_that_could_not_be_addressed(project, name):
    done = project.psy("new-task", name, code=2)
    assert done.stderr
    assert "Traceback" not in done.stderr
    assert list(project.root.rglob("*.py")) == []


@pytest.mark.parametrize("scheduler", ["Nobody", "slurm.Slurm", ""])
def test_new_task_refuses_unknown_schedulers(project, scheduler):
    done = project.psy("new-task", "t", "--scheduler", scheduler, code=2)
    assert repr(scheduler) in done.stderr
    assert "Local" in done.stderr  # The cure: those that there are.
    assert list(project.root.rglob("*.py")) == []


# ---------------------------------------------------------------------- test

TRIED = """\
import os, threading
from counting import seen
from psyrun import Param
pspace = Param(x=range(1000)) * Param(word=["a"])
pool_size = 4
exclude_from_result = ["scratch"]
def setup(proc_id):
    seen("setup", proc_id, os.getpid(), os.getppid())
    return {"tool": "hammer"}
def execute(x, word, tool):
    seen(x, word, tool)
    return {"y": [0.5] * 1000, "scratch": threading.Lock()}
"""


@pytest.fixture
def folder_of_temporary_files(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_test_evaluates_in_a_fresh_process_and_leaves_nothing(project, folder_of_temporary_files):
    project.task("t", TRIED)
    before = read_files(project.root)
    process = project.start("test", "t")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    setup, row, *others = project.rows_seen()
    assert len(others) == 3
    assert row == "(0, 'a', 'hammer')"
    assert eval(setup)[:2] == ("setup", 0)
    assert eval(setup)[2] != process.pid

    for words in ("execute(x=0, word='a')", "y=[0.5, ", "1,000 rows", " s, ", "of computing"):
        assert words in out, out
    assert read_files(project.root) == before
    assert list(folder_of_temporary_files.iterdir()) == []


@pytest.mark.parametrize(
    ("store", "size", "least"),
    [("PickleStore", "MB in .pkl", 7), ("NpzStore", "MB in .npz", 7), ("H5Store", "MB in .h5", 5)],
)
def test_test_estimates_the_size_of_the_result(project, store, size, least):
    """A row of 1,000 different numbers takes 8 kB, and 1,000 of them 8 MB; HDF5 grows by whole chunks."""
    text = TRIED.replace("[0.5] * 1000", "np.arange(1000.0)").replace(
        "import Param", f"import Param, {store}"
    )
    project.task("t", f"import numpy as np\n{text}store = {store}()\n")
    [line] = [line for line in project.psy("test").stdout.splitlines() if "computing" in line]
    assert line.endswith(size)
    megabytes = float(line.removesuffix(size).split()[-1])
    assert least < megabytes < 10


def test_test_leaves_a_finished_task_as_it_is(project):
    project.task("t", TRIED.replace("range(1000)", "range(3)"))
    project.psy("run")
    before = read_files(project.root / "psy-work")
    assert project.count("test") == 5  # A setup, a row, then the first, the middle and the last.
    assert read_files(project.root / "psy-work") == before
    assert project.count("run") == 0


H5 = "store = H5Store()"


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        pytest.param("(x, word,", "(x, wrd,", 2, ["execute", "'word'"], id="name that execute lacks"),
        pytest.param(
            '{"tool": "hammer"}',
            '{"tol": "hammer"}',
            1,
            ["execute", "tol"],
            id="name from setup that execute lacks",
        ),
        pytest.param('{"y": [0.5]', '{"z": {1}, "y": [0.5]', 1, ["column 'z'", "set"], id="store"),
        pytest.param(
            '["scratch"]', "[]", 1, ["scratch", "pickled", "exclude_from_result"], id="not to be pickled"
        ),
        pytest.param(
            '    return {"y"', '    os._exit(3)\n    return {"y"', 1, ["died", "exit 3"], id="death"
        ),
        pytest.param(
            '    return {"tool"',
            '    1 / 0\n    return {"tool"',
            1,
            ["ZeroDivisionError", "setup"],
            id="setup",
        ),
        pytest.param('    return {"y"', '    return x\n    return {"y"', 1, ["dict"], id="no dict"),
        pytest.param(
            '    return {"y"', '    while True: pass\n    return {"y"', 1, ["timeout"], id="time-out"
        ),
        pytest.param("range(1000)", "iter_of_nothing", 2, ["iter_of_nothing"], id="space"),
    ],
)
def test_test_finds_what_is_wrong_and_leaves_nothing(
    project, folder_of_temporary_files, old, new, code, words
):
    assert old in TRIED
    text = TRIED.replace(old, new).replace("import Param", "import H5Store, Param")
    project.task("t", f"{text}{H5}\ntimeout = 2\n")
    before = read_files(project.root)
    done = project.psy("test", "t", code=code)
    assert "psy-tasks/task_t.py" in done.stderr
    assert [word for word in words if word not in done.stderr] == [], done.stderr
    assert "psyrun/cli.py" not in done.stderr
    assert read_files(project.root) == before
    assert list(folder_of_temporary_files.iterdir()) == []


def test_test_leaves_out_parameters_that_are_excluded(project):
    """What psy run would not write needs no place in the store."""
    project.task(
        "t",
        """\
        from psyrun import H5Store, Param
        store = H5Store()
        pspace = Param(options=[{"a": 1}])
        exclude_from_result = ["options"]
        def execute(options):
            return {"y": options["a"]}
        """,
    )
    project.psy("run")
    project.psy("test")


def test_test_of_a_space_of_no_assignments(project):
    project.task("t", TRIED.replace("range(1000)", "[]"))
    assert "no assignments" in project.psy("test").stdout
    assert project.rows_seen() == []


def test_test_tells_of_one_broken_task_file_and_tries_the_others(project):
    project.task("good", TRIED)
    project.task("broken", "pspace = (\n")
    done = project.psy("test", code=2)
    assert "task_broken.py" in done.stderr
    assert "good: execute(x=0" in done.stdout


# ---------------------------------------------------------------------- completion


def complete(project, line):
    """Return what the shell would offer at the end of a line."""
    env = project.env(_PSY_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(line.count(" ")))
    argv = [sys.executable, "-P", "-m", "psyrun.cli"]
    done = subprocess.run(argv, cwd=project.root, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return [offer.partition(",")[2] for offer in done.stdout.split()]


def test_commands_are_completed(project):
    assert complete(project, "psy r") == ["run"]
    assert set(complete(project, "psy ")) >= set(cli.commands)


def test_options_are_completed(project):
    assert complete(project, "psy run --cont") == ["--continue"]


TAKE_TASKS = ["run", "plan", "status", "errors", "log", "test", "clean", "kill"]


@pytest.fixture
def named(project):
    """A project with three task files, one of which has another name than its file, and one is broken."""
    project.task("fig1", TRIED)
    project.task("fig2", 'name = "figure-two"\n' + TRIED)
    project.task("fig3", "pspace = (\n")
    return project


@pytest.mark.parametrize("command", TAKE_TASKS)
def test_names_of_tasks_are_completed(named, command):
    assert "fig1" in complete(named, f"psy {command} fi")
    assert complete(named, f"psy {command} x") == []
    assert named.rows_seen() == []


def test_names_that_task_files_give_themselves_are_completed(named):
    offers = complete(named, "psy run fig")
    assert "figure-two" in offers
    assert "fig2" not in offers


def test_names_of_tasks_in_another_folder_are_completed(project):
    project.psy("--taskdir", "others", "new-task", "second")
    assert complete(project, "psy --taskdir others run s") == ["second"]


def test_nothing_is_completed_where_there_are_no_task_files(project):
    (project.root / "psy-tasks").rmdir()
    assert complete(project, "psy run x") == []
    assert list(project.root.iterdir()) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(project, shell):
    assert "_PSY_COMPLETE" in project.psy("completion", shell).stdout


# ---------------------------------------------------------------------- help

COMMANDS = [[], *([name] for name in cli.commands)]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(["psy", *command]))
def test_help_has_an_example(project, command):
    said = project.psy(*command, "--help").stdout
    _, _, examples = said.partition("Example")
    assert " ".join(["psy", *command]) in examples


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(["psy", *command]))
def test_examples_in_the_help_are_valid(command, tmp_path, monkeypatch):
    (tmp_path / "psy-work/fig1/out").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for each in cli.commands.values():
        monkeypatch.setattr(each, "callback", lambda **arguments: 7)
    documented = cli.commands[command[0]] if command else cli
    lines = [line.strip() for line in documented.help.splitlines()]
    examples = [line.partition("   ")[0] for line in lines if line.startswith("psy ")]
    assert examples or command == ["completion"]
    for example in examples:
        assert cli.main(shlex.split(example)[1:], prog_name="psy", standalone_mode=False) == 7, example


def test_help_is_short_of_nothing_that_psy_has(project):
    said = project.psy("-h").stdout
    assert [name for name in cli.commands if f"  {name}" not in said] == []


# ---------------------------------------------------------------------- merge without a plan


def test_merge_without_a_plan_says_that_psy_run_makes_it_anew(project):
    project.task(
        "t",
        """\
        from psyrun import Param
        pspace = Param(x=[1, 1, 2])
        def execute(x):
            return {"y": x}
        """,
    )
    project.psy("run")
    for name in ("plan.json", "plan.json.bak"):
        (project.root / "psy-work/t" / name).unlink()
    said = project.psy("merge", "psy-work/t/out", "all.pkl", code=2).stderr
    assert "psy-work/t/plan.json: missing" in said
    assert "psy run makes it anew" in said
    assert not (project.root / "all.pkl").exists()


# ---------------------------------------------------------------------- on a terminal


@pytest.mark.parametrize("failing", [False, True])
def test_run_on_a_terminal_shows_a_bar_and_ends(project, failing):
    project.task(
        "t",
        f"""\
        import time
        from psyrun import Param
        pspace = Param(x=range(30))
        def execute(x):
            print("noise from a row")
            time.sleep(0.03)
            return {{"y": 1 / (x - {7 if failing else -1})}}
        """,
    )
    code, said = terminals.talk(partial(project.start, "run"))
    assert code == (1 if failing else 0)
    assert "t: 30 rows to evaluate" in said
    assert "\x1b[" in said  # It moved the cursor: there was a bar.
    assert ("29 of 30 rows done, 1 failed" if failing else "t: finished, 30 rows") in said
    assert "noise" not in said


def test_run_in_a_folder_below_the_project_says_where_to_go(project):
    project.task("t", "from psyrun import Param\npspace = Param(x=[1])\ndef execute(x):\n    return {}\n")
    below = project.root / "figures/old"
    below.mkdir(parents=True)
    said = replace(project, root=below).psy("run", code=2).stderr
    assert f"no such folder in {below}; run psy in {project.root}, where it is, name another" in said


def test_run_without_a_task_file_says_how_to_begin(project):
    assert project.psy("run").stdout == "there are no task files in psy-tasks; begin with psy new-task NAME\n"
