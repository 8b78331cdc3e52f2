"""Security: no shell, the user's umask, no predictable names in shared places; what a killed psy leaves."""

from __future__ import annotations

import ast
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import psyrun
from clusters import sqsub
from conftest import Project
from psyrun.cli.commands import main
from psyrun.disk import replacing

EVIL = "$(touch PWNED)`touch PWNED`;touch PWNED;'\"\n&& touch PWNED"
SOURCES = sorted(Path(psyrun.__file__).parent.rglob("*.py"))


# ---------------------------------------------------------------------- no shell


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_module_calls_a_shell(path):
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.keyword(arg="shell"):
                pytest.fail(f"{path.name}:{node.lineno}")
            case ast.Attribute(
                ast.Name("os" | "subprocess"), "system" | "popen" | "getoutput" | "getstatusoutput"
            ):
                pytest.fail(f"{path.name}:{node.lineno}")


def evil_task(more=""):
    return f"""\
        from psyrun import Param
        pspace = Param(x=[{EVIL!r}], **{{{EVIL!r}: [1]}})
        def execute(x, **others):
            return {{"y": x, "z": len(others)}}
        {more}
        """


def assert_not_owned(folder):
    assert not list(folder.rglob("PWNED*"))
    assert not Path("PWNED").exists()


def test_nothing_of_a_space_or_a_path_reaches_a_shell_here(tmp_path):
    project = Project(tmp_path / EVIL.replace("/", ""))
    project.task("a", evil_task())
    for command in ("test", "run", "status", "plan"):
        project.psy(command)
    assert project.result("a")["y"] == [EVIL]
    assert_not_owned(tmp_path)


def test_nothing_of_a_task_file_reaches_a_shell_in_a_job(tmp_path, monkeypatch, wait_until):
    commands = tmp_path / "bin"
    commands.mkdir()
    sqsub.install(commands)
    monkeypatch.setenv("SQ_FOLDER", str(tmp_path / "jobs"))
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    project = Project(tmp_path / EVIL.replace("/", ""))
    prologue = EVIL.replace("/", "") + ".sh"
    project.write(f"psy-tasks/{prologue}", "")
    settings = f"""
        from psyrun.scheduler import Sqsub
        scheduler = Sqsub()
        prologue = {prologue!r}
        scheduler_args = {{"timelimit": {EVIL!r}, "memory": {EVIL!r}, "n_cpus": {EVIL!r}}}
        """
    project.task("a", evil_task(settings))
    project.psy("run", code=None)
    result = project.root / "psy-work/a/result.pkl"
    wait_until(result.exists, seconds=60)
    assert project.result("a")["y"] == [EVIL]
    assert_not_owned(tmp_path)


@pytest.mark.parametrize("name", ["$(touch PWNED)", "a;touch PWNED", "`touch PWNED`"])
def test_name_of_a_task_file_reaches_no_shell(project, monkeypatch, capsys, name):
    project.task(name, evil_task())
    monkeypatch.chdir(project.root)
    assert main(["run"]) == 2
    assert repr(name) in capsys.readouterr().err
    assert_not_owned(project.root)


# ---------------------------------------------------------------------- permissions and places


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_files_get_the_permissions_that_the_umask_gives(project, tmp_path, umask):
    temporary = tmp_path / "shared"
    temporary.mkdir()
    stores = ["PickleStore", "NpzStore", "H5Store"]
    for store in stores:
        project.task(
            store,
            f"""\
            from psyrun import Param, {store}
            store = {store}
            pspace = Param(x=range(4))
            def execute(x):
                return {{"y": 1 / (x - 3)}}
            """,
        )
    argv = [sys.executable, "-P", "-m", "psyrun.cli", "run"]
    env = project.env(TMPDIR=str(temporary))

    def run():
        return subprocess.run(argv, cwd=project.root, env=env, umask=umask, capture_output=True, check=False)

    assert run().returncode == 1
    for store in stores:
        project.edit(f"psy-tasks/task_{store}.py", "x - 3", "x + 3")
    assert run().returncode == 0
    for path in (project.root / "psy-work").rglob("*"):
        whole = 0o777 if path.is_dir() else 0o666
        assert oct(stat.S_IMODE(path.stat().st_mode)) == oct(whole & ~umask), path
    assert list(temporary.iterdir()) == []


def test_temporary_names_are_random_and_taken_by_nobody(tmp_path):
    target = tmp_path / "result.pkl"
    with replacing(target) as one, replacing(target) as other:
        assert one != other
        assert one.parent == tmp_path
        one.write_text("1")
        other.write_text("2")
    assert [path.name for path in tmp_path.iterdir()] == ["result.pkl"]


# ---------------------------------------------------------------------- what a killed psy leaves

TASK = """\
import os
import time
from counting import seen
from psyrun import Param
pspace = Param(x=range(4))
pool_size = 1
untracked = ["../gate"]
def execute(x):
    seen(x)
    while x and not os.path.exists("../gate"):
        time.sleep(0.01)
    return {"y": x}
"""
LEFT = ("plan.json", "in/0.pkl", "code/0.zip", "jobs/p0aaaaaaaa.json", "process.json", "result.pkl.receipt")


def leave(folder, *names):
    """Leave temporary files as a psy that was killed between writing and renaming does."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f".{path.name}.0123456789abcdef.tmp").write_text("half")
    (folder / ".result.pkl.0123456789abcdef.pkl").write_text("half")


@pytest.mark.parametrize("arguments", [["a", "-y"], ["--all", "-y"]])
def test_clean_removes_what_a_killed_psy_left_behind(project, arguments):
    project.task("a", TASK)
    (project.root / "gate").touch()
    project.psy("run")
    folder = project.root / "psy-work/a"
    leave(folder, *LEFT)
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    host = subprocess.run(
        [sys.executable, "-c", "import socket; print(socket.getfqdn())"], capture_output=True, check=True
    )
    claim = f"lock|{host.stdout.decode().strip()}|{int(gone.stdout)}|12345"
    (folder / claim).write_text(str(folder / claim))
    mine = folder / ".mine.tmp"
    mine.write_text("mine")
    project.psy("clean", *arguments)
    assert list(folder.iterdir()) == [mine]


def test_clean_of_what_is_stale_removes_what_a_killed_psy_left_behind_and_nothing_else(project):
    project.task("a", TASK)
    (project.root / "gate").touch()
    project.psy("run")
    folder = project.root / "psy-work/a"
    before = {path for path in folder.rglob("*") if path.is_file()}
    leave(folder, *LEFT)
    project.psy("clean", "--stale", "-y")
    assert {path for path in folder.rglob("*") if path.is_file()} == before


def test_clean_removes_temporary_files_beside_a_result_elsewhere(project):
    project.task("a", TASK + "resultfile = '../results/a.pkl'\n")
    (project.root / "gate").touch()
    project.psy("run")
    results = project.root / "results"
    (results / ".a.pkl.0123456789abcdef.pkl").write_text("half")
    (results / ".b.pkl.0123456789abcdef.pkl").write_text("of somebody else")
    project.psy("clean", "a", "-y")
    assert [path.name for path in results.iterdir()] == [".b.pkl.0123456789abcdef.pkl"]


def test_clean_removes_forgotten_temporary_files_of_all_tasks_but_no_young_ones(project):
    project.task("a", TASK)
    work = project.root / "psy-work"
    work.mkdir()
    old, young = (work / f".sources.json.{mark * 16}.tmp" for mark in "ab")
    for path in (old, young):
        path.write_text("half")
    os.utime(old, (time.time() - 7200,) * 2)
    project.psy("clean", "a", "-y")
    assert list(work.iterdir()) == [young]


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")


@needs_proc
def test_clean_leaves_a_task_alone_at_which_another_psy_is_at_work(project, wait_until):
    project.task("a", TASK)
    run = project.start("run")
    wait_until(project.rows_seen)
    folder = project.root / "psy-work/a"
    said = project.psy("clean", "a", "-y", code=2).stderr
    assert f"process id {run.pid}" in said
    assert "psy kill a" in said
    assert (folder / "plan.json").exists()
    (project.root / "gate").touch()
    out, err = run.communicate(timeout=30)
    assert run.returncode == 0, out + err
    project.psy("clean", "a", "-y")
    assert not folder.exists()


@needs_proc
def test_clean_goes_on_where_psy_and_its_worker_were_killed(project, wait_until):
    project.task("a", TASK)
    run = project.start("run")
    wait_until(project.rows_seen)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate(timeout=30)
    folder = project.root / "psy-work/a"
    wait_until(lambda: project.psy("clean", "a", "-y", code=None).returncode == 0)
    assert not folder.exists()
