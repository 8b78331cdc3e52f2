"""Hosts without a batch system, or those of one allocation: ssh or srun, and a folder that is the queue."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any

from psyrun.errors import PsyrunWarning, SchedulerError, TaskFileError, explain
from psyrun.scheduler import hostrunner
from psyrun.scheduler.allocation import Host, find_allocation
from psyrun.scheduler.batchsystem import job_script
from psyrun.scheduler.hostrunner import LOST, Queue, host_of
from psyrun.scheduler.protocol import STOPPED, JobState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from psyrun.scheduler.protocol import JobSpec


_SSH = ("ssh", "-oBatchMode=yes", "-oConnectTimeout=10")
_UNREACHABLE = 255  # exit code of ssh
_START_SECONDS = 60.0
_DETACH_SECONDS = 5.0
_CANCEL_SECONDS = 20.0
_LEAST_PATIENCE = 2.0  # A sign of life takes up to a second.
_NEVER_ENDED = "all hosts died, or left before its end"
_HOST = re.compile(r"(?P<name>[\w.@%+][\w.@%+-]*)(:(?P<slots>\d+))?")
_OF_A_HOST = re.compile(
    r"(SSH|DBUS)_|XDG_(?!(CONFIG|CACHE|DATA|STATE)_)|(DISPLAY|WAYLAND_DISPLAY|XAUTHORITY|HOST|HOSTNAME|TMPDIR)$"
)


class Hosts:
    """Runs jobs on hosts that share a file system, as many at a time as these have slots.

    A program on each host, which psy starts by ssh, takes the next element as soon as slots are free, and
    ends when all elements have ended; see ``hostrunner.py``. A job's id is the path of its queue.

    Parameters
    ----------
    hosts
        Names of hosts, each as ssh knows it, or with a number of slots: ``"b:8"``. Without a number, there is
        a slot for each core. Option `hosts` of `scheduler_args` replaces them.
    """

    options: Mapping[str, str] = MappingProxyType(
        {
            "hosts": "hosts, each a name or NAME:SLOTS, such as ['a', 'b:8']",
            "n_cpus": "cores per job, one if it is not set; a job employs a process on each",
            "remote": "the command before the name of a host, such as 'ssh -oBatchMode=yes -p 2222'",
            "patience": "a host without a sign of life for so many seconds is dead, 60 if it is not set",
            "max_running": "so many jobs run at a time at most",
        }
    )
    required: Mapping[str, str] = MappingProxyType({})
    merge_options: Collection[str] = ("hosts", "remote", "patience")
    core_variables: Sequence[str] = ("PSYRUN_CORES",)
    job_variables: re.Pattern[str] = re.compile(r"PSYRUN_(CORES|ELEMENT)$")
    kept_variables: re.Pattern[str] = re.compile(r"(?!)")
    detached: bool = True
    dependencies: bool = True
    throttles: bool = True
    warns: bool = False
    system_options: Collection[str] = ()
    poll: tuple[float, float] = (1.0, 10.0)
    grace: float = 10.0

    def __init__(self, hosts: Iterable[str] = ()) -> None:
        self._hosts = (hosts,) if isinstance(hosts, str) else tuple(hosts)
        self._allocated = False
        self._folder = Path()

    @classmethod
    def from_allocation(cls) -> Hosts:
        """Return a scheduler for the hosts of the job of Slurm, Grid Engine, or PBS that psy runs in.

        Jobs end with it at the latest.
        """
        scheduler = cls()
        scheduler._allocated = True
        return scheduler

    def configure(self, options: Mapping[str, Any], folder: Path) -> None:
        """Set the folder that ids of jobs start from."""
        self._folder = folder.absolute()

    def system(self) -> str:
        """Return '': the folder is shared by all hosts."""
        return ""

    def shows_others(self) -> bool:
        """Return True: queues are files."""
        return True

    def array_limit(self) -> int:
        """Return how many files a folder may have without harm."""
        return 100_000

    # ------------------------------------------------------------------ submitting

    def submit(self, spec: JobSpec) -> str:
        """Write the queue, have all hosts begin to take from it, and return the job's id.

        Raises
        ------
        SchedulerError
            If the queue can't be written, or no host can be reached or can run jobs.
        TaskFileError
            If an option is not valid.
        """
        try:
            hosts, remote = self._find_hosts(spec), _read_remote(spec.options)
            cores = int(_read_number(spec.options, "n_cpus", default=1, least=1))
            patience = _read_number(spec.options, "patience", default=60, least=_LEAST_PATIENCE)
            most = _find_most(spec)
        except ValueError as error:
            raise TaskFileError(f"scheduler_args of {spec.name}: {error}") from error
        runners = [f"{position}-{host.name}" for position, host in enumerate(hosts)]
        try:
            _write_queue(spec, self._folder, runners, cores, patience, most)
        except OSError as error:
            shutil.rmtree(spec.scratch, ignore_errors=True)
            raise SchedulerError(["mkdir", str(spec.scratch)], 1, explain(error)) from error
        starts = [_Start(spec, host, runner, remote) for host, runner in zip(hosts, runners)]
        deadline = time.monotonic() + _START_SECONDS
        errors = [each for each in [start.wait(deadline) for start in starts] if each is not None]
        if len(errors) == len(starts):
            shutil.rmtree(spec.scratch, ignore_errors=True)
            others = [f"{each.argv[-1]}: {each.output.strip()}" for each in errors[1:]]
            first = errors[0]
            output = "\n".join([first.output.strip(), *others])
            raise SchedulerError(first.argv, first.returncode, output)
        for each in errors:
            message = f"{each.argv[-1]} takes no part: {each.output.strip()}"
            warnings.warn(message, PsyrunWarning, stacklevel=2)
            with spec.log.open("a") as log:
                log.write(f"psyrun: warning: {message}\n")
        return self._identify(spec.scratch)

    def _find_hosts(self, spec: JobSpec) -> list[Host]:
        if self._allocated:
            return find_allocation(os.environ)
        names = spec.options.get("hosts") or self._hosts
        if not names:
            raise ValueError("no hosts: write Hosts(['a', 'b:8'])")
        _check_type("hosts", names, "['a', 'b:8']")
        return [_parse_host(name) for name in ([names] if isinstance(names, str) else names)]

    # ------------------------------------------------------------------ asking

    def find(self, tokens: Collection[str]) -> Mapping[str, str]:
        """Return token -> job id of those that were submitted."""
        paths = [path for token in tokens for path in self._folder.glob(f"*/jobs/{token}/job.json")]
        return {path.parent.name: self._identify(path.parent) for path in paths}

    def _identify(self, queue: Path) -> str:
        return queue.absolute().relative_to(self._folder).as_posix()

    def _open(self, job_ids: Collection[str]) -> dict[str, Queue]:
        """Return the queues of jobs, without those that another user keeps closed."""
        paths = {job: self._folder / job for job in job_ids}
        return {job: Queue(path) for job, path in paths.items() if not _is_closed(path)}

    def query(self, job_ids: Collection[str]) -> Mapping[str, Mapping[int, JobState]]:
        """Return job id -> element -> state, from files; elements that no host can begin have ended."""
        queues = self._open(job_ids)
        found = {job: {-1: JobState.UNKNOWN} for job in job_ids if job not in queues}
        for job, queue in queues.items():
            left = queue.find_left()
            if left:
                found[job] = {e: JobState.RUNNING if left[e] else JobState.QUEUED for e in left}
        return found

    def explain(self, job_ids: Collection[str]) -> Mapping[tuple[str, int], str]:
        """Return (job id, element) -> how it ended, where that was not with 0."""
        found: dict[tuple[str, int], str] = {}
        for job, queue in self._open(job_ids).items():
            ended = {int(element): (code, runner) for element, code, runner in queue.entries("end")}
            gone = set(queue.elements) - ended.keys() - queue.find_left().keys()
            bad = dict.fromkeys(gone, _NEVER_ENDED)
            bad |= {e: _describe(code, runner) for e, (code, runner) in ended.items() if code != "0"}
            found |= {(job, e): "cancelled" if queue.is_cancelled() else why for e, why in bad.items()}
        return found

    def cancel(self, job_ids: Collection[str]) -> None:
        """Have all hosts end these jobs, and wait some seconds until they have.

        Raises
        ------
        SchedulerError
            If a job is another user's.
        """
        queues = []
        for path in [self._folder / job for job in self.query(job_ids)]:
            try:
                (path / "cancel").touch()
            except PermissionError as error:
                raise SchedulerError(["psy", "kill"], 1, f"it is a job of {path.owner()}") from error
            except FileNotFoundError:  # It ended.
                continue
            queues.append(Queue(path))
        deadline = time.monotonic() + _CANCEL_SECONDS
        while time.monotonic() < deadline and any(queue.find_left() for queue in queues):
            time.sleep(0.1)


class _Start:
    """The command that starts a runner on a host."""

    def __init__(self, spec: JobSpec, host: Host, runner: str, remote: Sequence[str]) -> None:
        start = host.start or [*remote, host.name]
        self.name, self.argv, self.attached = host.name, start, host.attached
        self.sign = spec.scratch.absolute() / "hosts" / runner
        words = [sys.executable, "-I", "-S", hostrunner.__file__]
        words += [runner, str(host.slots), str(spec.scratch.absolute()), str(spec.log.absolute())]
        words += ["--attached"] if self.attached else []
        words += ["bash", *job_script(spec, "PSYRUN_ELEMENT" if spec.indices else "", 0)]
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - no pipe: ssh may leave a process
        self._process: subprocess.Popen[bytes] | None = None
        stdin = _open_endless_pipe() if self.attached else os.open(os.devnull, os.O_RDONLY)
        try:
            self._process = subprocess.Popen(
                [*start, *(words if host.start else [_quote(words)])],
                stdin=stdin,
                stdout=self._output,
                stderr=self._output,
                start_new_session=bool(host.start) or not self.attached,
                preexec_fn=_ignore_signals if self.attached else None,
            )
        except OSError as error:
            self._output.write(str(error).encode())
        finally:
            os.close(stdin)

    def wait(self, deadline: float) -> SchedulerError | None:
        """Wait until the runner has begun, and return what was wrong otherwise."""
        with self._output:
            code = self._wait(deadline)
            if code == 0:
                return None
            with suppress(OSError):
                self.sign.unlink()
            self._output.seek(0)
            output = self._output.read().decode(errors="replace") or "no answer"
            return SchedulerError(self.argv, code, output)

    def _wait(self, deadline: float) -> int:
        if self._process is None:
            return 127
        began: float | None = None
        while (code := self._process.poll()) is None:
            now = time.monotonic()
            if began is None and self._has_begun():
                began = now
            if self.attached and began is not None:
                return 0
            # What a login shell started in the background may keep ssh from ending.
            lasts = began is not None and now - began > _DETACH_SECONDS
            if lasts or now > deadline:
                self._process.kill()
                self._process.wait()
                return 0 if lasts else _UNREACHABLE
            time.sleep(0.02)
        return code

    def _has_begun(self) -> bool:
        try:
            return self.sign.stat().st_size > 0
        except FileNotFoundError:  # It has ended.
            return True


def _write_queue(
    spec: JobSpec, folder: Path, runners: Iterable[str], cores: int, patience: float, most: int | None
) -> None:
    """Make the folder, which the user alone may write; what shows that it is complete comes last."""
    elements = list(spec.indices) or [-1]
    most = len(elements) if most is None else most
    for path in (spec.scratch, *(spec.scratch / name for name in hostrunner.FOLDERS)):
        path.mkdir(mode=0o755)
    for runner in runners:  # so that it is seen at once, also on NFS
        (spec.scratch / "hosts" / runner).touch()
    for number, element in enumerate(elements):
        (spec.scratch / ("todo" if number < most else "held") / f"{element}.0").touch()
    env = [f"{name}={value}" for name, value in spec.env.items() if not _OF_A_HOST.match(name)]
    path = spec.scratch / "env"
    path.touch(mode=0o600)
    path.write_bytes(b"\0".join(map(os.fsencode, env)))
    after = [os.path.relpath(folder / job, spec.scratch) for job in spec.after]
    job = {"elements": elements, "cores": cores, "patience": patience, "after": after}
    path = spec.scratch / "job.json"
    path.with_suffix(".new").write_text(json.dumps(job))
    path.with_suffix(".new").rename(path)


def _open_endless_pipe() -> int:
    """Return a pipe that is open at both ends as long as a process has it: a runner sees the end of ssh."""
    with tempfile.TemporaryDirectory() as folder:
        os.mkfifo(path := Path(folder, "pipe"))
        return os.open(path, os.O_RDWR)


def _ignore_signals() -> None:
    """Let neither Ctrl-C nor the warning of a batch system end what jobs need."""
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _is_closed(path: Path) -> bool:
    return path.is_dir() and not os.access(path, os.R_OK | os.X_OK)


def _quote(words: Sequence[str]) -> str:
    """Return a command for a login shell; csh and fish do not read all quotes as sh does."""
    command = shlex.join(words)
    if not re.search(r"[!\n\\]", command):
        return command
    encoded = base64.b64encode(os.fsencode(command)).decode()
    return f"sh -c 'eval \"$(printf %s {encoded} | base64 -d)\"'"


def _read_number(options: Mapping[str, Any], name: str, *, default: float, least: float) -> float:
    """Return an option that is a number; a ValueError says what is wrong."""
    value = options.get(name)
    if value is None:
        return default
    with suppress(TypeError, ValueError):
        number = float(value)
        if least <= number < float("inf"):
            return number
    raise ValueError(f"{name} is {value!r}: write a number from {least:g} on")


def _check_type(name: str, value: object, model: str) -> None:
    if not isinstance(value, (str, list, tuple)):
        raise ValueError(f"{name} is {value!r}: write {model}")  # noqa: TRY004 - of an option


def _find_most(spec: JobSpec) -> int | None:
    """Return how many elements may run at a time; None: all."""
    wanted = _read_number(spec.options, "max_running", default=0, least=1)
    limits = [limit for limit in (spec.throttle, int(wanted)) if limit]
    return min(limits, default=None)


def _read_remote(options: Mapping[str, Any]) -> Sequence[str]:
    remote = options.get("remote") or _SSH
    if isinstance(remote, str):
        return shlex.split(remote)
    _check_type("remote", remote, "a command, such as 'ssh -p 2222'")
    return [str(word) for word in remote]


def _parse_host(text: str) -> Host:
    found = _HOST.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{text!r} is no host: write NAME or NAME:SLOTS")
    if found["slots"] and not int(found["slots"]):
        raise ValueError(f"{text!r} has no slots: leave it out, or write {found['name']!r} for all its cores")
    return Host(found["name"], int(found["slots"] or 0))


def _describe(code: str, runner: str) -> str:
    if code == LOST:
        return "hosts that ran it died, again and again"
    number, host = int(code), host_of(runner)
    if number == STOPPED:
        return f"stopped on {host}"
    if number >= 0:
        return f"exit {number} on {host}"
    with suppress(ValueError):  # Real-time signals have no names.
        return f"signal {-number} ({signal.Signals(-number).name}) on {host}"
    return f"signal {-number} on {host}"
