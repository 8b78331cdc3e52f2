"""Jobs that contract tests submit, and what becomes of them."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cloudpickle

from psyrun.scheduler import JobSpec, JobState, Scheduler
from psyrun.workdir import new_token

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path


AT_A_TIME = 4  # so many jobs wait for each other in a test
# Programs of jobs. A scheduler may append arguments of its own, so their number comes first.
REPORT = """\
import json, os, signal, sys
path, count = sys.argv[1], int(sys.argv[2])
seen = {"argv": sys.argv[3:3 + count], "rest": sys.argv[3 + count:], "folder": os.getcwd()}
seen |= {"env": dict(os.environ), "stdin": sys.stdin.read()}
numbers = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
seen["deaf"] = [n.name for n in numbers if n in blocked or signal.getsignal(n) is signal.SIG_IGN]
print("to standard output")
print("to standard error", file=sys.stderr)
if "--element" in sys.argv:
    path += sys.argv[-1]
with open(path + ".new", "w") as file:
    json.dump(seen, file)
os.rename(path + ".new", path)
"""
GATED = """\
import os, sys, time
path = sys.argv[1] + (sys.argv[-1] if "--element" in sys.argv[2:] and "each" in sys.argv else "")
open(path + ".started", "w").close()
while not os.path.exists(path):
    time.sleep(0.02)
open(path + ".passed", "w").close()
"""
# It ends in good order on SIGTERM; until then, it and its child write, to show that they live.
BEATING = """\
import signal, subprocess, sys, time
beat = "import sys, time\\nfor _ in range(2000):\\n open(sys.argv[1], 'a').write('.')\\n time.sleep(0.05)\\n"
child = subprocess.Popen([sys.executable, "-c", beat, sys.argv[1] + ".child"])
def end(number, frame):
    child.kill()
    child.wait()
    raise SystemExit(75)
signal.signal(signal.SIGTERM, end)
while True:
    open(sys.argv[1] + ".parent", "a").write(".")
    time.sleep(0.05)
"""
WARNED = """\
import os, signal, sys, time
warned = []
signal.signal(signal.SIGUSR1, lambda *_: warned.append(1))
open(sys.argv[1] + ".started", "w").close()
end = time.monotonic() + 100
while not warned and time.monotonic() < end:
    time.sleep(0.02)
if warned:
    open(sys.argv[1] + ".warned", "w").close()
raise SystemExit(75)
"""
_ELSEWHERE = """\
import pickle, sys
create, options, folder, method, asked = pickle.load(sys.stdin.buffer)
scheduler = create()
scheduler.configure(options, folder)
answer = getattr(scheduler, method)(asked)
sys.stdout.buffer.write(pickle.dumps(None if answer is None else dict(answer)))
"""


@dataclass(kw_only=True)
class Trial:
    """A scheduler that is given jobs, in a folder of its own, and what becomes of them.

    Parameters
    ----------
    scheduler
        The scheduler.
    folder
        Where logs, reports and gates are.
    options
        Options for each job.
    seconds
        How long to wait for a condition.
    """

    scheduler: Scheduler
    folder: Path
    options: Mapping[str, Any]
    seconds: float
    jobs: list[str] = field(default_factory=list)

    @property
    def job_folder(self) -> Path:
        """The folder in which jobs run."""
        return self.folder / "a folder, 100%"

    @property
    def log(self) -> Path:
        """What jobs print to."""
        return self.folder / "job.log"

    @property
    def work_folder(self) -> Path:
        """The folder that schedulers are configured with."""
        return self.folder / "psy-work"

    def configure(self, scheduler: Scheduler) -> Scheduler:
        """Configure a scheduler as psyrun does before it asks for anything, and return it."""
        for folder in (self.job_folder, self.work_folder / "example" / "jobs"):
            folder.mkdir(parents=True, exist_ok=True)
        scheduler.configure(self.options, self.work_folder)
        return scheduler

    def scratch(self, token: str) -> Path:
        """Return the folder for files of the scheduler about a submission."""
        return self.work_folder / "example" / "jobs" / token

    def submit(self, program: str, *arguments: object, **changes: Any) -> str:
        """Submit a Python program with arguments, and return the job's id."""
        token = changes.pop("token", None) or new_token()
        spec: dict[str, Any] = {
            "argv": [sys.executable, "-c", program, *map(str, arguments)],
            "name": "example:process",
            "token": token,
            "scratch": self.scratch(token),
            "indices": range(1),
            "log": self.log,
            "folder": self.job_folder,
            "env": dict(os.environ),
        }
        options = dict(self.options) | changes.pop("options", {})
        self.jobs.append(self.scheduler.submit(JobSpec(**spec | changes, options=options)))
        return self.jobs[-1]

    def report(self, *arguments: str, **changes: Any) -> str:
        """Submit REPORT with arguments."""
        return self.submit(REPORT, self.folder / "seen.json", len(arguments), *arguments, **changes)

    def reported(self, element: int | str = "") -> dict[str, Any]:
        """Return what a job, or an element of it, saw of itself."""
        path = self.folder / f"seen.json{element}"
        assert path.exists(), f"the job reported nothing. {self._describe_log()}"
        seen: dict[str, Any] = json.loads(path.read_text())
        return seen

    def gate(self, name: str) -> Path:
        """Return a path; a job that runs GATED with it ends when the file is there."""
        return self.folder / name

    def begin(self, *names: str, program: str = GATED, **changes: Any) -> list[str]:
        """Submit a job for each gate, and wait until all have begun."""
        jobs = [self.submit(program, self.gate(name), **changes) for name in names]
        self.wait_begun(*names)
        return jobs

    def begun(self, names: Collection[str]) -> set[str]:
        """Return the gates behind which a job has begun."""
        return {name for name in names if self.gate(f"{name}.started").exists()}

    def wait_begun(self, *names: str, count: int | None = None) -> None:
        """Wait until jobs behind gates have begun: `count` of them, or all."""
        expected = len(names) if count is None else count

        def describe() -> str:
            began = f"{len(self.begun(names))} of {expected} jobs have begun"
            return f"{began}; the system has to run {AT_A_TIME} at a time. {self._describe_log()}"

        self.wait(lambda: len(self.begun(names)) >= expected, describe)

    def pass_gate(self, name: str) -> None:
        """Open a gate, and wait until the job behind it has passed it."""
        self.gate(name).touch()
        self.wait(
            self.gate(f"{name}.passed").exists, lambda: f"job {name} did not end. {self._describe_log()}"
        )

    def states(self, job: str) -> Mapping[int, JobState]:
        """Return the states of the elements of a job; none if it has left the queue."""
        return (self.scheduler.query([job]) or {}).get(job, {})

    def queued(self, jobs: Collection[str]) -> set[str]:
        """Return those of the jobs that are in the queue."""
        return set(self.scheduler.query(jobs) or {})

    def settle(self, *jobs: str) -> None:
        """Wait until jobs left the queue."""

        def describe() -> str:
            left = self.scheduler.query(jobs) or {}
            queued = any(JobState.QUEUED in states.values() for states in left.values())
            hint = f"; the system has to run {AT_A_TIME} at a time" if queued else ""
            return f"these jobs did not leave the queue: {_shorten(left)}{hint}"

        self.wait(lambda: self.scheduler.query(jobs) == {}, describe)

    def elsewhere(self, method: str, asked: Sequence[str]) -> Any:
        """Return what another process gets from a scheduler that is configured as this one was."""
        options = json.loads(json.dumps(dict(self.options), default=str))
        question = (type(self.scheduler), options, self.work_folder, method, asked)
        done = subprocess.run(
            [sys.executable, "-c", _ELSEWHERE],
            input=cloudpickle.dumps(question),
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=subprocess.PIPE,
            check=True,
        )
        return pickle.loads(done.stdout)

    def wait(
        self,
        condition: Callable[[], object],
        describe: Callable[[], str] = lambda: "the condition did not come true",
    ) -> None:
        """Wait for a condition; where it does not come true, fail with a description of what is the case."""
        deadline = time.monotonic() + self.seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"after {self.seconds:g} s: {describe()}")
            time.sleep(0.1)

    def _describe_log(self) -> str:
        return f"The log of jobs: {self.log.read_text()!r}" if self.log.exists() else "Jobs have no log."


def _shorten(value: object) -> str:
    import textwrap

    return textwrap.shorten(str(value), 500, placeholder=" ...")
