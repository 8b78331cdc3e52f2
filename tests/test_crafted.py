"""Files of the work folder that are torn, crafted, or no files: one line names file and cure; no wait."""

from __future__ import annotations

import json
import os
import random
import shutil

import pytest

from conftest import Project
from crafted import craft
from psyrun.cli.commands import main
from test_bad_input import HALF, RIGHT, SUBMISSION

FILES = {
    "plan.json": "half",
    "process.json": "finished",
    "result.pkl.receipt": "finished",
    "jobs/p0aaaaaaaa.json": "half",
    "../.sources.json": "half",
}
LOOK = (["status", "-v"], ["plan"], ["errors"])
WRITE = (["run"], ["clean", "--stale", "-y"])


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Two projects, one finished, and one with a row that failed and a submission of before."""
    found = {}
    for state in ("finished", "half"):
        root = tmp_path_factory.mktemp(state)
        project = Project(root)
        project.task("bad", HALF)
        if state == "half":
            (root / "fail").touch()
        project.psy("run", code=None)
        if state == "half":
            ends = {"0": {"since": 0.5, "reason": "gone", "final": False}}
            batches = [[0, "0" * 16, [[0, 2]]], [1, "1" * 16, None]]
            submission = SUBMISSION | {"batches": batches, "ends": ends, "job": "a/1/1"}
            (root / "psy-work/bad/jobs/p0aaaaaaaa.json").write_text(json.dumps(submission))
        found[state] = root
    return found


@pytest.fixture
def take(project, bases):
    """Give the project the files of a base, anew."""

    def copy(state):
        shutil.rmtree(project.root)
        shutil.copytree(bases[state], project.root)
        return project.root / "psy-work/bad"

    return copy


@pytest.fixture
def psy(project, monkeypatch, capsys):
    """Run psy in this process; return its exit code and the lines that it printed."""

    def run(*arguments):
        monkeypatch.chdir(project.root)
        code = main([*arguments, "bad"])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, (said.out + said.err).splitlines()

    return run


def place(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    if name == "plan.json":
        path.with_name("plan.json.bak").write_bytes(data)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.slow
def test_values_of_other_kinds_at_any_place_end_in_one_line(psy, take, name):
    folder = take(FILES[name])
    data = (folder / name).read_bytes()
    if name == "../.sources.json":
        data = data.partition(b"\n")[2]
    cases = list(craft(data))
    chosen = random.Random(name).sample(cases, min(len(cases), 40))
    for number, (what, crafted) in enumerate(chosen):
        commands = [*LOOK, WRITE[number % 2]] if number % 5 == 0 else [LOOK[number % 3]]
        for command in commands:
            place(folder, name, crafted)
            code, lines = psy(*command)
            named = [line for line in lines if folder.joinpath(name).name in line]
            assert code in (0, 1, 2), what
            assert len(named) == 1 if code == 2 else len(named) <= 1, (what, lines)
            assert max(map(len, lines), default=0) < 500, what
        if len(commands) > 1:
            take(FILES[name])


# ---------------------------------------------------------------------- no files


THINGS = (
    "plan.json",
    "plan.json.bak",
    "process.json",
    "receipts.rows",
    "result.pkl",
    "result.pkl.receipt",
    "in",
    "in/*.pkl",
    "out",
    "out/*.rows",
    "code",
    "code/*.zip",
    "jobs",
    "jobs/p0*.json",
    "log",
    "lock",
    "../.sources.json",
)


def make_pipe(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.mark.parametrize("state", ["finished", "half"])
@pytest.mark.parametrize("thing", THINGS)
def test_pipe_in_the_place_of_a_file_is_not_waited_for(project, take, thing, state):
    for commands in (LOOK, WRITE):
        folder = take(state)
        make_pipe(min(folder.glob(thing), default=folder / thing.replace("*", "0")))
        for command in commands:
            done = project.psy(*command, "bad", code=None, timeout=20)
            said = done.stdout + done.stderr
            assert done.returncode in (0, 1, 2), said
            assert "Traceback" not in done.stderr, said
            assert len([line for line in said.splitlines() if "move it away" in line]) <= 1, said
    if thing == "../.sources.json" and state == "finished":
        assert project.result("bad") == RIGHT
