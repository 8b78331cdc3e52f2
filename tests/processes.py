"""The processes of a project: those that inherited its environment."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Project

__all__ = ["Processes"]


class Processes:
    """The processes of a project: those that inherited its environment."""

    def __init__(self, project: Project) -> None:
        self._mark = f"EVALUATIONS={project.evaluations}".encode()

    def find(self, module: str = "") -> list[int]:
        """Return the ids of processes that run a module, or of all.

        The worker forks its children, which then run `psyrun.worker.child`.
        """
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
        if not module.startswith("psyrun.worker"):
            return [pid for pid in pids if self._is(pid, module)]
        workers = {pid for pid in pids if self._is(pid, "psyrun.worker")}
        forked = {pid for pid in workers if _parent(pid) in workers}
        if module == "psyrun.worker":
            return sorted(workers - forked)
        return sorted(forked.union(pid for pid in pids if self._is(pid, module)))

    def _is(self, pid: int, module: str) -> bool:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return self._mark in environment and (not module or module.encode() in argv)

    def states(self) -> set[str]:
        """Return the states (R, S, T, ...) of all of them."""
        stats = [Path(f"/proc/{pid}/stat").read_text() for pid in self.find()]
        return {stat.rpartition(")")[2].split()[0] for stat in stats}

    def send(self, number: int) -> None:
        """Send a signal to all of them."""
        for pid in self.find():
            with suppress(ProcessLookupError):  # It ended meanwhile.
                os.kill(pid, number)


def _parent(pid: int) -> int:
    with suppress(OSError):  # It ended meanwhile.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0
