"""Children forked from the worker, which has imported what they need: no start of Python for each.

A forked child is in the state of one that its command starts: log, environment, descriptors, signals, process
group, arguments, and modules but those of Python and psyrun. It does not know random numbers of the worker:
`random` is seeded anew, and NumPy is not imported. The seed of hashes alone is the same in all of them.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from psyrun.worker.process import ForkedChild, start_child

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psyrun.worker.process import ChildProcess, PoolConfig


def fork_children(config: PoolConfig) -> list[ChildProcess]:
    """Fork the children of a pool, none where that is not safe: a pool starts those that it lacks.

    It is safe while this process has one thread, and not NumPy, which reads the environment on its import.

    Raises
    ------
    ForkedChild
        In each child.
    """
    children: list[ChildProcess] = []
    streams = (sys.stdin, sys.stdout, sys.stderr)
    if sys.platform != "linux" or None in streams or threading.active_count() > 1 or "numpy" in sys.modules:
        return children
    gc.freeze()  # Collections in children write to no page of what they share with this process.
    try:
        while len(children) < config.size:
            children.append(start_child(config, len(children), len(children) + 1, _fork))
    except ForkedChild:
        for sibling in children:
            sibling.close()
        _close_inherited()
        raise
    return children


def _fork(config: PoolConfig, log: int | None, fds: Sequence[int], argv: Sequence[str]) -> ForkedProcess:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    with suppress(OSError):  # Both do it, so that it is done when either goes on.
        os.setpgid(pid, 0)
    if pid:
        return ForkedProcess(pid)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    os.environ.update(config.env or {})
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    if log is not None:
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)
    raise ForkedChild(argv)


def _close_inherited() -> None:
    """Close what this process was given when it was started, as it is closed for a child that is started.

    What was opened in this process stays: a module that Python loads at its start may use it.
    """
    for fd in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - names only
        with suppress(OSError):  # the descriptor of the listing
            if fd > 2 and os.get_inheritable(fd):
                os.close(fd)


class ForkedProcess:
    """A process that was forked, with what `subprocess.Popen` has of one that was started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, or None while the process runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def kill(self) -> None:
        """Kill the process, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
