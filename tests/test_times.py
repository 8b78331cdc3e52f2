"""Which rows run, since when and where, and which took longest: `psy status -v`."""

import os

import pytest

from conftest import GATED

SLEEPY = """\
import time
from psyrun import Param
pspace = Param(x=range(6)) * Param(seed=[7])
pool_size = 2


def execute(x, seed):
    time.sleep(1.2 if x == 4 else 0.001)
    return {"y": x}
"""


@pytest.mark.slow
def test_rows_in_hand_are_named_and_counted(project, start, gate, wait_until):
    project.task("example", GATED)
    run = start("run", "-j", "2")
    wait_until(lambda: project.psy("status", "-v").stdout.count("running: ") >= 2)
    status = project.status("example")
    assert (status["running"], status["running"] + status["queued"], status["missing"]) == (2, 20, 0)
    lines = [line for line in project.psy("status", "-v").stdout.splitlines() if "running: " in line]
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("  running: x=")
        assert line.endswith(f" s on {os.uname().nodename}")
        assert "for about" in line
    gate.touch()
    run.end()
    assert "running: " not in project.psy("status", "-v").stdout
    assert not list((project.root / "psy-work/example/out").glob("*.now"))


@pytest.mark.slow
def test_killed_worker_leaves_nothing_running(project, start, gate, wait_until):
    project.task("example", GATED)
    run = start("run", "-j", "2")
    out = project.root / "psy-work/example/out"
    wait_until(lambda: any(out.glob("*.now")))
    os.killpg(run.process.pid, 9)
    wait_until(lambda: project.status("example")["running"] == 0)
    assert project.status("example")["missing"] == 20
    gate.touch()
    project.psy("run")
    assert not list(out.glob("*.now"))


@pytest.mark.slow
def test_slowest_rows_are_named_of_finished_and_unfinished_tasks(project):
    project.task("t", SLEEPY)
    project.psy("run")
    host = os.uname().nodename
    line = f"  slowest: x=4, seed=7  about 1 s on {host}"
    for _ in range(2):
        lines = [each for each in project.psy("status", "-v").stdout.splitlines() if "slowest" in each]
        assert lines == [line]
        (project.root / "psy-work/t/result.pkl").unlink(missing_ok=True)


def test_file_of_rows_in_hand_that_is_damaged_does_not_matter(project):
    project.task("t", "from psyrun import Param\npspace = Param(x=[1])\ndef execute(x):\n    return {}\n")
    out = project.root / "psy-work/t/out"
    out.mkdir(parents=True)
    for content in (b"", b"\xff", b"[]", b'{"format": 99}', b'{"format": 1, "host": 3}'):
        (out / "ab.now").write_bytes(content)
        project.psy("run")
        assert project.status("t")["running"] == 0
