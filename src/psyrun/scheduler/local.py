"""The machine at hand: worker processes that end with the psy that started them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from psyrun.errors import SchedulerError
from psyrun.scheduler.protocol import STOPPED, JobState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from psyrun.scheduler.protocol import JobSpec


class Local:
    """Runs a submission as one worker process on this machine; the worker has a child per core.

    A job's id is ``<host>/<process id>/<start time>``, so that a process id that was given anew is not
    taken for ours.
    """

    options: Mapping[str, str] = MappingProxyType({})
    required: Mapping[str, str] = MappingProxyType({})
    merge_options: Collection[str] = ()
    core_variables: Sequence[str] = ()  # the worker is told how many cores to use
    job_variables: re.Pattern[str] = re.compile(r"(?!)")
    kept_variables: re.Pattern[str] = re.compile(r"(?!)")
    detached: bool = False
    dependencies: bool = False
    throttles: bool = False
    warns: bool = False
    system_options: Collection[str] = ()
    poll: tuple[float, float] = (0.02, 0.5)
    grace: float = 0.0

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def configure(self, options: Mapping[str, Any], folder: Path) -> None:
        """Do nothing: there are no options."""

    def system(self) -> str:
        """Return '': the host is in a job's id."""
        return ""

    def shows_others(self) -> bool:
        """Return True: all processes are seen."""
        return True

    def array_limit(self) -> int:
        """Return a number that no plan reaches: one worker takes all batches."""
        return 2**31

    def submit(self, spec: JobSpec) -> str:
        """Start the worker and return its id at once."""
        argv = [*spec.argv, "--parent", str(os.getpid())]
        with spec.log.open("ab") as log:
            try:
                process = subprocess.Popen(
                    argv,
                    cwd=spec.folder,
                    env=dict(spec.env),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            except OSError as error:
                raise SchedulerError(argv, error.errno or 1, str(error)) from error
        job_id = f"{socket.gethostname()}/{process.pid}/{_start_time(process.pid)}"
        self._processes[job_id] = process
        return job_id

    def find(self, tokens: Collection[str]) -> Mapping[str, str]:
        """Return nothing: a worker whose id was not written down ended with the psy that started it."""
        return {}

    def query(self, job_ids: Collection[str]) -> Mapping[str, Mapping[int, JobState]]:
        """Return the states of workers that run; element -1 stands for all elements of a submission."""
        return {job_id: {-1: state} for job_id in job_ids if (state := self._state(job_id)) is not None}

    def _state(self, job_id: str) -> JobState | None:
        process = self._processes.get(job_id)
        if process is not None:
            return JobState.RUNNING if process.poll() is None else None
        host, pid, start = _parse(job_id)
        if host != socket.gethostname():
            return JobState.UNKNOWN
        return JobState.RUNNING if _start_time(pid) == start else None

    def wait(self, seconds: float) -> None:
        """Wait until a worker of this process ends, but no longer than so many seconds."""
        running = [process for process in self._processes.values() if process.returncode is None]
        if not running:
            time.sleep(seconds)
            return
        with suppress(subprocess.TimeoutExpired):
            running[-1].wait(seconds)

    def explain(self, job_ids: Collection[str]) -> Mapping[tuple[str, int], str]:
        """Return how workers of this process ended, where that was not with 0."""
        ended = {job_id: self._processes[job_id].poll() for job_id in job_ids if job_id in self._processes}
        return {(job_id, -1): _describe(code) for job_id, code in ended.items() if code}

    def cancel(self, job_ids: Collection[str], *, seconds: float = 5.0) -> None:
        """Ask the workers to close their journals and end; kill those that do not within `seconds`."""
        ours = [job_id for job_id in job_ids if self._state(job_id) is JobState.RUNNING]
        for job_id in ours:
            _send(job_id, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and any(self._state(job_id) for job_id in ours):
            time.sleep(0.01)
        for job_id in ours:
            if self._state(job_id) is not None:
                _send(job_id, signal.SIGKILL)


class ImmediateRun(Local):
    """Runs a submission when it is submitted, and returns when it has ended."""

    def submit(self, spec: JobSpec) -> str:
        """Run the worker to its end and return its id."""
        job_id = super().submit(spec)
        try:
            self._processes[job_id].wait()
        except BaseException:
            self.cancel([job_id])
            raise
        return job_id


def _parse(job_id: str) -> tuple[str, int, str]:
    host, _, rest = job_id.partition("/")
    pid, _, start = rest.partition("/")
    # No process has the id 0, which stands for whatever is not an id of ours.
    return (host, int(pid), start) if pid.isdecimal() else (socket.gethostname(), 0, "")


def _send(job_id: str, number: signal.Signals) -> None:
    _, pid, start = _parse(job_id)
    if _start_time(pid) == start:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _describe(code: int) -> str:
    if code == STOPPED:
        return "cancelled"
    if code >= 0:
        return f"the worker ended with exit {code}"
    return f"the worker was ended by signal {-code} ({signal.Signals(-code).name})"


def _start_time(pid: int) -> str | None:
    """Return when a process started, as the system writes it; None where there is no such process."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] == "Z" else fields[19]
    argv = ["ps", "-o", "lstart=", "-p", str(pid)]
    listing = subprocess.run(argv, capture_output=True, text=True, check=False)
    return listing.stdout.strip() or None
