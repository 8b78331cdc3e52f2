"""``python -I -S hostrunner.py NAME SLOTS QUEUE LOG [--attached] COMMAND...``: runs elements on a host.

It imports nothing but what Python has. The folder QUEUE, which all hosts share, is the queue of a submission.
An element is one empty file, and its state is where the file is; who renames it first has it::

    held/<element>.<losses>           may not begin yet: the submission is throttled
    todo/<element>.<losses>           waits for a host
    run/<element>.<losses>.<runner>   is run by a runner
    end/<element>.<code>.<runner>     ended with this exit code, or by signal -code; `lost`: with its hosts
    hosts/<runner>                    is touched by a runner every few seconds
    job.json  env  cancel             what runners have to know; the environment of jobs; a mark that ends all

A runner takes elements as long as there are slots, which are locks on its host that all runners of a user
share. It puts elements of runners that gave no sign for some time back, and ends when all have ended.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


FOLDERS = ("held", "todo", "run", "end", "hosts")
LOST = "lost"
_MOST_LOSSES = 3  # An element whose hosts die may be the reason.
_KILL_SECONDS = 10.0
_LOOK_SECONDS = 1.0
_MOST_FAILURES = 3  # One after the other, and each at once.
_SOON_SECONDS = 10.0
_STOPPED = 75  # exit code of a job that stopped in good order
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class Queue:
    """The folder of a submission.

    Parameters
    ----------
    path
        The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            job = json.loads((path / "job.json").read_bytes())
        except FileNotFoundError:  # It was removed.
            job = {}
        self.elements: Sequence[int] = job.get("elements", ())
        self.cores: int = job.get("cores", 1)
        self.patience: float = job.get("patience", 60.0)
        self.after: Sequence[str] = job.get("after", ())

    def entries(self, folder: str) -> list[list[str]]:
        """Return the parts of the names in a folder of elements, in order."""
        return sorted((name.split(".", 2) for name in self._names(folder)), key=lambda parts: int(parts[0]))

    def _names(self, folder: str) -> list[str]:
        try:
            names = [path.name for path in (self.path / folder).iterdir()]
        except FileNotFoundError:
            return []
        return [name for name in names if name[0] != "."]  # of NFS, for files removed while they are open

    def move(self, source: str, target: str) -> bool:
        """Rename a file; return False if it is not there any more."""
        try:
            (self.path / source).rename(self.path / target)
        except FileNotFoundError:
            # On NFS, the answer to a repeated request.
            return (self.path / target).exists() and not target.startswith("todo")
        return True

    def is_alive(self, runner: str, now: float) -> bool:
        """Whether a runner gave a sign lately; `now` is a time of the file server."""
        try:
            with (self.path / "hosts" / runner).open("rb") as file:  # Opened: NFS asks the server then.
                return now - os.fstat(file.fileno()).st_mtime <= self.patience
        except OSError:
            return False

    def find_alive(self, now: float) -> set[str]:
        """Return the runners that gave a sign lately."""
        return {runner for runner in self._names("hosts") if self.is_alive(runner, now)}

    def find_left(self, now: float | None = None) -> dict[int, str]:
        """Return element -> its runner, or '' while it is queued; without those that ended or never begin."""
        left = set(self.elements) - {int(parts[0]) for parts in self.entries("end")}
        if not left:
            return {}
        now = self.read_time() if now is None else now
        alive = self.find_alive(now)
        running = {int(element): runner for element, _, runner in self.entries("run") if runner in alive}
        if self.is_cancelled() or not alive:
            left &= running.keys()
        return {element: running.get(element, "") for element in sorted(left)}

    def is_cancelled(self) -> bool:
        """Whether all is to end."""
        return (self.path / "cancel").exists()

    def read_time(self) -> float:
        """Return the time of the file server, or of this host where nothing can be written."""
        probe = self.path / f".time-{os.getpid()}"
        try:
            probe.touch()
            return probe.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            with suppress(OSError):
                probe.unlink()


def host_of(runner: str) -> str:
    """Return the host in the name of a runner."""
    return runner.partition("-")[2]


class _Job:
    """A job on this host, its slots, and the name of its element in the queue."""

    def __init__(self, parts: Sequence[str], process: subprocess.Popen[bytes], slots: Iterable[int]) -> None:
        self.element, self.losses = parts
        self.process, self.slots = process, slots
        self.began = time.monotonic()
        self.asked = 0.0  # when it was asked to end

    def failed_at_once(self) -> bool:
        """Whether it ended soon, and not well: what it would have needed may be missing here."""
        return self.process.returncode not in (0, _STOPPED) and time.monotonic() - self.began < _SOON_SECONDS

    def end(self, now: float) -> None:
        """Ask it to end, and kill it some time later."""
        if not self.asked:
            self.send(signal.SIGTERM)
            self.asked = now
        elif now - self.asked > _KILL_SECONDS:
            self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to its process group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


class Runner:
    """Runs elements of a queue on this host.

    Parameters
    ----------
    name
        ``<position>-<host>``: the host's position among the hosts, and its name.
    slots
        How many cores it may use; 0: all that this host grants.
    queue
        The queue.
    command
        What runs an element, which is in the environment.
    attached
        Whether to leave when the standard input ends: that of what started this.
    """

    def __init__(
        self, name: str, slots: int, queue: Queue, command: Sequence[str], *, attached: bool
    ) -> None:
        self.name, self.queue, self.command, self.attached = name, queue, command, attached
        self.slots = slots or _count_cores()
        self.env = _read_environment(queue.path / "env")
        self._sign = queue.path / "hosts" / name
        self._jobs: list[_Job] = []
        self._ready = self._leaving = self._closing = False
        self._failures = 0
        self._now = 0.0  # the file server's
        self._signed = self._looked = -1e9
        self._wakeup = -1

    def register(self) -> None:
        """Show that this host takes part."""
        if self.slots < self.queue.cores:
            sys.exit(f"it has {self.slots} slots, and a job takes {self.queue.cores}")
        _make_lock_folder()
        self._sign.write_text(f"{os.uname().nodename} {os.getpid()}\n")

    def run(self) -> None:
        """Run elements until all have ended."""
        self._install_signal_handlers()
        while True:
            now = time.monotonic()
            gone = not self._sign_of_life(now) or not self.queue.path.exists()
            # A job that waited for others may itself remove the queue, which belongs to their submission.
            ending = self._leaving or self.queue.is_cancelled() or (gone and not self.queue.after)
            self._reap()
            if ending:
                for job in self._jobs:
                    job.end(now)
            elif not (self._closing or gone):
                self._look_after_others(now)
                self._begin_elements()
            if not self._jobs and (ending or gone or self._closing or self._is_over()):
                break
            self._wait()
        with suppress(OSError):
            self._sign.unlink()

    def _install_signal_handlers(self) -> None:
        self._wakeup, writer = os.pipe()
        for fd in (self._wakeup, writer):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGUSR1, lambda *_: self._close())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._leave())

    def _leave(self) -> None:
        """Put the elements of this host back, and end: others may go on."""
        self._leaving = True

    def _close(self) -> None:
        """Take no more elements, and let jobs finish what they are at."""
        self._closing = True
        for job in self._jobs:
            job.send(signal.SIGUSR1)

    def _wait(self) -> None:
        """Wait for the end of a job, a signal, or the next look at the queue."""
        ready = select.select([self._wakeup, *([0] if self.attached else [])], [], [], _LOOK_SECONDS)[0]
        if self._wakeup in ready:
            os.read(self._wakeup, 1000)
        if 0 in ready:
            self.attached = bool(os.read(0, 1000))
            self._leaving = self._leaving or not self.attached

    def _sign_of_life(self, now: float) -> bool:
        """Touch the file of this runner; return False when the queue has been removed."""
        if now - self._signed < min(5.0, self.queue.patience / 8):
            return True
        self._signed = now
        try:
            os.utime(self._sign)
            self._now = self._sign.stat().st_mtime
        except OSError as error:
            return error.errno not in _GONE
        return True

    # ------------------------------------------------------------------ jobs

    def _begin_elements(self) -> None:
        self._ready = self._ready or not any(self._is_awaited(each) for each in self.queue.after)
        while self._ready and (slots := self._take_slots()) is not None:
            parts = self._claim()
            if parts is None:
                _close_all(slots)
                return
            try:
                process = self._start(parts[0], slots)
            except OSError as error:
                sys.stderr.write(f"psyrun: error: {host_of(self.name)}: {error}\n")
                _close_all(slots)
                self._end(parts, "127")
            else:
                self._jobs.append(_Job(parts, process, slots))

    def _is_awaited(self, job: str) -> bool:
        return bool(Queue(self.queue.path / job).find_left(self._now))

    def _claim(self) -> list[str] | None:
        """Return the next element; each host begins to look elsewhere, so that few take the same."""
        waiting = self.queue.entries("todo")
        first = int(self.name.partition("-")[0]) % max(1, len(waiting))
        for element, losses in waiting[first:] + waiting[:first]:
            if self.queue.move(f"todo/{element}.{losses}", f"run/{element}.{losses}.{self.name}"):
                return [element, losses]
        return None

    def _start(self, element: str, slots: Sequence[int]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command,
            env=self.env | {"PSYRUN_CORES": str(self.queue.cores), "PSYRUN_ELEMENT": element},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=slots,  # The job keeps them, also if this process is killed.
            preexec_fn=_DIE,
        )

    def _take_slots(self) -> list[int] | None:
        """Lock as many slots of this host as a job takes; None where too few are free."""
        taken: list[int] = []
        folder = _make_lock_folder()  # Again: /tmp may have been cleaned.
        for number in range(self.slots):
            if len(taken) == self.queue.cores:
                break
            fd = os.open(folder / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.utime(fd)  # What looks old is removed from /tmp.
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                taken.append(fd)
            except OSError:
                os.close(fd)
        if len(taken) == self.queue.cores:
            return taken
        _close_all(taken)
        return None

    def _reap(self) -> None:
        for job in [each for each in self._jobs if each.process.poll() is not None]:
            self._jobs.remove(job)
            _close_all(job.slots)
            if self._leaving and job.asked:
                source = f"run/{job.element}.{job.losses}.{self.name}"
                self.queue.move(source, f"todo/{job.element}.{job.losses}")
            else:
                self._end([job.element, job.losses], str(job.process.returncode))
                self._failures = self._failures + 1 if job.failed_at_once() else 0
        if self._failures >= _MOST_FAILURES and not self._closing:
            self._give_way()

    def _give_way(self) -> None:
        """Take no more elements if there are other hosts: here, jobs fail."""
        if self.queue.find_alive(self._now) - {self.name}:
            self._closing = True
            host, n = host_of(self.name), self._failures
            sys.stderr.write(
                f"psyrun: host {host} takes no more jobs: {n} failed at once, one after the other\n"
            )

    def _end(self, parts: Sequence[str], code: str) -> None:
        """Move an element to those that ended, unless it was taken away, and let the next one begin."""
        element, losses = parts
        if self.queue.move(f"run/{element}.{losses}.{self.name}", f"end/{element}.{code}.{self.name}"):
            self._let_next_begin()

    def _let_next_begin(self) -> None:
        for element, losses in self.queue.entries("held"):
            if self.queue.move(f"held/{element}.{losses}", f"todo/{element}.{losses}"):
                return

    # ------------------------------------------------------------------ others

    def _look_after_others(self, now: float) -> None:
        """Put elements of hosts that died back; end jobs whose elements were put back from here."""
        if now - self._looked < self.queue.patience / 8:
            return
        self._looked = now
        running = self.queue.entries("run")
        for element, losses, runner in running:
            if runner != self.name and not self.queue.is_alive(runner, self._now):
                self._put_back(element, losses, runner)
        if not running and not self.queue.entries("todo"):  # A host died in between.
            self._let_next_begin()
        ours = {(element, losses) for element, losses, runner in running if runner == self.name}
        for job in self._jobs:
            if (job.element, job.losses) not in ours and not self.queue.after:
                job.end(now)

    def _put_back(self, element: str, losses: str, runner: str) -> None:
        lost = int(losses) + 1
        given_up = lost >= _MOST_LOSSES
        target = f"end/{element}.{LOST}.{runner}" if given_up else f"todo/{element}.{lost}"
        if self.queue.move(f"run/{element}.{losses}.{runner}", target):
            what = "is given up, as so many hosts died of it" if given_up else "goes to the other hosts"
            sys.stderr.write(f"psyrun: host {host_of(runner)} died: element {element} {what}\n")
            if given_up:
                self._let_next_begin()

    def _is_over(self) -> bool:
        return len(self.queue.entries("end")) >= len(self.queue.elements)


# ---------------------------------------------------------------------- this host


def _count_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _read_environment(path: Path) -> dict[str, str]:
    """Return the environment for jobs, from a file that this user wrote."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_uid != os.geteuid():
            sys.exit(f"{path} belongs to another user")
        pairs = (os.fsdecode(each).partition("=") for each in file.read().split(b"\0") if each)
        return {name: value for name, _, value in pairs}


def _make_lock_folder() -> Path:
    """Return the folder of slots of this user on this host, which is on a disk of the host."""
    path = Path(os.environ.get("TMPDIR", "/tmp"), f"psyrun-{os.geteuid()}-{os.uname().nodename}")  # noqa: S108 - looked at below
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if found.st_uid != os.geteuid() or path.is_symlink():
        sys.exit(f"{path} belongs to another user")
    return path


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _make_die() -> Callable[[], None] | None:
    """Return what has the system end a job when its runner is killed."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_DIE_WITH_PARENT, int(signal.SIGTERM))


def _detach() -> None:
    """Go on without the session that started this process."""
    if os.fork():
        os._exit(0)
    os.setsid()


def _print_to(log: Path, *, stdin: bool) -> None:
    to_log, none = (log, os.O_WRONLY | os.O_APPEND, (1, 2)), (os.devnull, os.O_RDONLY, (0,))
    for path, flags, numbers in (to_log,) if stdin else (to_log, none):
        fd = os.open(path, flags | os.O_CREAT, 0o666)
        for number in numbers:
            os.dup2(fd, number)
        os.close(fd)


def main(argv: Sequence[str]) -> None:
    """Run the elements of a queue."""
    name, slots, path, log, *command = argv
    attached = command[0] == "--attached"
    if not Path(path).is_dir():
        sys.exit(f"{path} is not there: does this host share the file system of the project?")
    try:
        runner = Runner(name, int(slots), Queue(Path(path)), command[attached:], attached=attached)
        runner.register()
    except OSError as error:
        sys.exit(f"{error.filename or path}: {error.strerror}")
    if not attached:
        _detach()
        runner.register()
    os.chdir("/")
    _print_to(Path(log), stdin=attached)
    runner.run()


_DIE = _make_die()
if __name__ == "__main__":
    main(sys.argv[1:])
