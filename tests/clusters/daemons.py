"""What the batch systems on this machine have in common: packages, ports, daemons."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from socket import create_server
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def install(packages: tuple[str, ...], answers: str = "") -> None:
    """Install Debian packages whose services are not to be started; answers are those to debconf."""
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=600", "-qq"]
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    policy = Path("/usr/sbin/policy-rc.d")
    with Path("/var/lock/psyrun-tests").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Not every lock of apt is waited for.
        ours = not policy.exists()
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            if answers:
                subprocess.run(["debconf-set-selections"], input=answers, text=True, check=True)
            get = [*apt, "-y", "install", "--no-install-recommends", *packages]
            if subprocess.run(get, env=env, capture_output=True, check=False).returncode:
                subprocess.run([*apt, "update"], env=env, check=True, capture_output=True)
                subprocess.run(get, env=env, check=True, capture_output=True)
        finally:
            if ours:
                policy.unlink()


class Cluster:
    """A batch system whose daemons run on this machine, with all its files in a folder."""

    folder: Path
    packages: tuple[str, ...]
    answers = ""
    commands: tuple[str, ...]
    mark: str
    """The variable of `env` that its daemons and jobs have, and nothing else has with this value."""

    @property
    def env(self) -> dict[str, str]:
        """What clients need."""
        raise NotImplementedError

    def lacks(self) -> str | None:
        """Return what keeps it from being started here; None: nothing."""
        if os.geteuid() != 0:
            return "a test cluster needs root"
        path = f"{self.env.get('PATH', os.environ['PATH'])}:/usr/sbin:/sbin"
        absent = [name for name in self.commands if shutil.which(name, path=path) is None]
        return f"not installed: {', '.join(absent)}" if absent else None

    def install(self) -> None:
        """Install the programs that it takes."""
        install(self.packages, self.answers)

    def run(self, *argv: str, check: bool = True, text: str | None = None) -> str:
        """Run a command of the system, with text as its input, and return what it prints."""
        done = subprocess.run(
            argv, env=os.environ | self.env, input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or not check, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def _runs(self, *argv: str) -> bool:
        env = os.environ | self.env
        return subprocess.run(argv, env=env, capture_output=True, check=False).returncode == 0

    def _processes(self) -> Iterator[tuple[int, set[str]]]:
        """Yield the processes that belong to this cluster or know of it, with their environment."""
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                variables = set((path / "environ").read_bytes().decode(errors="replace").split("\0"))
                if f"{self.mark}={self.env[self.mark]}" in variables:
                    yield int(path.name), variables

    def _pid(self, name: str, path: Path | None = None) -> int | None:
        """Return the id in a pid file if a process of that name has it."""
        try:
            pid = int((path or self.folder / "run" / f"{name}.pid").read_text())
            return pid if name_of(pid) == name else None
        except (OSError, ValueError):
            return None

    def _stop(self, name: str, path: Path | None = None, number: int = signal.SIGTERM) -> None:
        pid = self._pid(name, path)
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + 15
        while self._pid(name, path) and time.monotonic() < deadline:
            time.sleep(0.05)
        if self._pid(name, path):
            os.kill(pid, signal.SIGKILL)

    def _wait(self, what: str, condition, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (
                f"{what}: not ready after {seconds:g} s; see {self.folder}/log"
            )
            time.sleep(0.1)


def name_of(pid: int) -> str:
    """Return the name of a process."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def find_ports(count: int) -> int:
    """Return the first of so many ports that nobody listens at, as a cluster that was left behind may."""
    for first in random.sample(range(27800, 32000, 100), 42):  # At random: others look for some, too.
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(create_server(("", port)))
            except OSError:
                continue
            if not Path("/sys/class/net", f"c{first}").exists():  # There, ports are in other networks.
                return first
    raise OSError("no ports are free")
