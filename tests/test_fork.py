"""A child that the worker forked is in the state of one that is started in place of a dead one."""

from __future__ import annotations

import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children are forked on Linux alone")

STATE = """\
import os, signal, sys, threading
from psyrun import Param

pspace = Param(x=range(3))
max_jobs = 1
loaded = sorted({name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names)

def execute(x):
    if x == 1:
        os._exit(7)
    fds = {int(fd): os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
           if os.path.exists(f"/proc/self/fd/{fd}")}
    state = {
        "standard streams": [fds[fd] for fd in range(3)],
        "encodings": [(s.encoding, s.errors, s.line_buffering) for s in (sys.stdin, sys.stdout, sys.stderr)],
        "other descriptors": sorted(
            target.replace(str(os.getpid()), "PID").partition(":")[0] for fd, target in fds.items() if fd > 2
        ),
        "inherited by programs": [fd for fd in fds if fd > 2 and os.get_inheritable(fd)],
        "signals": {n: str(signal.getsignal(n)).partition(" at ")[0] for n in signal.valid_signals()},
        "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "environment": sorted(os.environ.items()),
        "threads": [thread.name for thread in threading.enumerate()],
        "group": os.getpgid(0) == os.getpid(),
        "session": os.getsid(0),
        "parent": os.getppid(),
        "folder": os.getcwd(),
        "path": sys.path,
        "arguments": [*sys.argv[:2], len(sys.argv)],
        "loaded": loaded,
        "limits": os.umask(0o77),
    }
    return {"pid": os.getpid()} | {name: repr(value) for name, value in state.items()}
"""


def test_forked_child_is_like_one_that_is_started(project):
    project.task("t", STATE)
    project.psy("run", "-j", "1", code=1)
    project.task("t", STATE.replace("os._exit(7)", "return {'pid': 0}"))
    project.psy("run", "--continue", "-j", "1")
    result = project.result("t")
    forked, started = ({name: column[row] for name, column in result.items()} for row in (0, 2))
    assert forked.pop("pid") != started.pop("pid")
    assert forked.pop("x") != started.pop("x")
    assert forked == started


def test_forked_children_draw_different_random_numbers(project):
    text = (
        "import os, random, time\nfrom psyrun import Param\npspace = Param(x=range(2))\n"
        "draw = random.random()\n"
        "def execute(x):\n    time.sleep(0.3)\n    return {'draw': draw, 'pid': os.getpid()}\n"
    )
    project.task("t", text)
    project.psy("run", "-j", "2")
    result = project.result("t")
    assert len(set(result["pid"])) == len(set(result["draw"])) == 2


def test_what_a_forked_child_leaves_open_is_written_when_it_ends(project):
    text = (
        "import atexit\nfrom psyrun import Param\npspace = Param(x=range(2))\n"
        "file = open('open.txt', 'a')\natexit.register(lambda: open('end.txt', 'w').close())\n"
        "def execute(x):\n    file.write('x')\n    return {}\n"
    )
    project.task("t", text)
    project.psy("run", "-j", "1")
    assert (project.root / "psy-tasks" / "open.txt").read_text() == "xx"
    assert (project.root / "end.txt").exists()
