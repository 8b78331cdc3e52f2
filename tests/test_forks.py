"""A forked psy behaves like one that is started: what tests conclude from it holds for users."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from dataclasses import replace

import pytest

TASK = """\
import atexit, json, os, random, resource, signal, sys, threading, time, warnings
import numpy as np
from psyrun import Param

{code}
pspace = Param(x=[1])


def execute(x):
    return {{"y": x}}
"""
STATE = """\
def nice(handler):
    return handler.name if isinstance(handler, signal.Handlers) else getattr(handler, "__name__", None)


state = {
    "arguments": sys.argv,
    "main": (sys.modules["__main__"].__file__, sys.modules["__main__"].__package__),
    "folder": os.getcwd(),
    "environment": dict(os.environ),
    "path": sys.path,
    "leader": os.getpgrp() == os.getpid(),
    "session": os.getsid(0),
    "signals": [nice(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "warnings": [repr(each) for each in warnings.filters if "numpy" not in repr(each)],
    "umask": (os.umask(0o22), os.umask(0o22)),
    "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
    "threads": [thread.name for thread in threading.enumerate()],
    "streams": [
        (file.name, file.mode, file.encoding, file.errors, file.line_buffering, file.isatty())
        for file in (sys.stdin, sys.stdout, sys.stderr)
    ],
    "flags": repr(sys.flags),
    "open": sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else [],
    "recursion": sys.getrecursionlimit(),
}
print(json.dumps(state), file=open("state.json", "w"))
"""
ENDS = {
    "exit code": "raise SystemExit(3)",
    "exit text": "raise SystemExit('out of order')",
    "exit at once": "print('lost'); print('said', file=sys.stderr); os._exit(4)",
    "error": "raise MemoryError('all gone')",
    "interrupt": "raise KeyboardInterrupt",
    "signal": "signal.signal(signal.SIGTERM, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGTERM)",
    "kill": "print('said', flush=True); os.kill(os.getpid(), signal.SIGKILL)",
    "thread": "threading.Thread(target=lambda: (time.sleep(0.3), print('late'))).start()",
    "at exit": "atexit.register(print, 'goodbye')",
    "output full": "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)",
    "warning": "warnings.warn('beware', UserWarning)",
    "deprecation": "warnings.warn('old', DeprecationWarning)",
    "not ASCII": "print('\\u2028')",
    "much": "print('o' * 300_000); print('e' * 300_000, file=sys.stderr)",
    "input": "print(repr(sys.stdin.read()))",
}


@pytest.fixture
def begun(project):
    """The same project twice: with forked and with started commands."""
    assert project.forks is not None
    return project, replace(project, forks=None)


def look(done):
    """Return how psy ended and what it printed, less the way that Python took to its `main`."""
    begin = re.escape("Traceback (most recent call last):\n")
    return done.returncode, done.stdout, re.sub(f"(?s)({begin}).*?( *sys.exit)", r"\1\2", done.stderr)


@pytest.mark.parametrize("code", ENDS.values(), ids=ENDS)
def test_forked_psy_ends_and_prints_as_a_started_one(begun, code):
    begun[0].task("t", TASK.format(code=code))
    forked, started = (look(each.psy("plan", "t", code=None)) for each in begun)
    assert forked == started


@pytest.mark.parametrize(
    "arguments", [["--version"], ["run", "-h"], ["rnu"], ["run", "none"], ["status", "--json"]]
)
def test_forked_psy_answers_as_a_started_one(begun, arguments):
    assert look(begun[0].psy(*arguments, code=None)) == look(begun[1].psy(*arguments, code=None))


def test_forked_psy_begins_as_a_started_one(begun, monkeypatch):
    monkeypatch.setenv("MADE_LATER", "yes \udcff")
    begun[0].task("t", TASK.format(code=STATE))
    states = []
    for each in begun:
        each.psy("plan", "t")
        states.append(json.loads((each.root / "psy-tasks" / "state.json").read_text()))
    forked, started = states
    assert forked == started
    assert forked["environment"]["MADE_LATER"] == "yes \udcff"
    assert forked["leader"]


def test_random_numbers_of_forked_commands_differ(begun):
    begun[0].task("t", TASK.format(code="print(random.random(), np.random.random(), file=sys.stderr)"))
    numbers = [begun[0].psy("plan", "t").stderr.split() for _ in range(2)]
    assert numbers[0][0] != numbers[1][0]
    assert numbers[0][1] != numbers[1][1]


def test_forked_psy_that_does_not_end_is_killed(begun, tmp_path):
    begun[0].task("t", TASK.format(code="open('pid', 'w').write(str(os.getpid())); time.sleep(1000)"))
    with pytest.raises(subprocess.TimeoutExpired):
        begun[0].psy("plan", "t", timeout=3)
    pid = int((begun[0].root / "psy-tasks" / "pid").read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise AssertionError


def test_what_python_reads_at_its_start_is_not_forked(begun, monkeypatch):
    assert begun[0].forks.accepts(begun[0].env())
    assert not begun[0].forks.accepts(begun[0].env(PYTHONWARNINGS="error"))
    monkeypatch.setenv("LC_ALL", "POSIX")
    assert not begun[0].forks.accepts(begun[0].env())


def test_sitecustomize_is_not_skipped(begun):
    (begun[0].root.parent / "elsewhere" / "sitecustomize.py").write_text("print('customized')\n")
    assert "customized" in begun[0].psy("--version").stdout


@pytest.mark.started
def test_commands_are_started_where_that_is_asked_for(project):
    assert project.forks is None
