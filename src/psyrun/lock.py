"""One psy at work on a task at a time. A lock saves double work; no result depends on it."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["hold"]

_LIFETIME = timedelta(seconds=60)
_REFRESH = 15.0
_PATIENCE = timedelta(seconds=0.5)


@contextmanager
def hold(path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock, refreshed while it is held.

    Parameters
    ----------
    path
        The lock file; its folder has to exist.
    waiting
        Called every half second while somebody else holds it, with who that is.
    """
    from flufl.lock import Lock, LockState, TimeOutError

    logging.getLogger("flufl.lock").setLevel(logging.CRITICAL)
    lock = Lock(str(path), lifetime=_LIFETIME)
    while True:
        try:
            lock.lock(timeout=_PATIENCE)
            break
        except TimeOutError:
            if lock.state is LockState.stale:  # Its owner was on this host and is no more.
                _break(path)
            else:
                waiting(_owner(lock))
        except OSError as error:
            why = f"{error.strerror}; free space, or let yourself write there"
            raise OSError(error.errno, why, str(path.parent)) from error
    over = threading.Event()
    refresher = threading.Thread(target=_refresh, args=(lock, over), daemon=True)
    refresher.start()
    try:
        yield
    finally:
        over.set()
        refresher.join()
        with suppress(Exception):  # It expired or was broken: then it is not ours to release.
            lock.unlock()


def _break(path: Path) -> None:
    """Remove a lock and the claim of the process that held it."""
    with suppress(OSError, ValueError):
        claim = path.with_name(path.read_text().strip().rpartition("/")[2])
        path.unlink()
        claim.unlink()


def _refresh(lock: Any, over: threading.Event) -> None:
    while not over.wait(_REFRESH):
        with suppress(Exception):
            lock.refresh()


def _owner(lock: Any) -> str:
    try:
        host, pid, _ = lock.details
    except Exception:
        return "another psy"
    return f"psy with process id {pid} on {host}"
