"""Locks: one psy at a time works on a task. They save double work; no result depends on them."""

from __future__ import annotations

import errno
import locale
import logging
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


_LIFETIME = timedelta(seconds=60)
_REFRESH = 15.0
_PATIENCE = timedelta(seconds=0.5)
_CUT_OFF = 5.0


@contextmanager
def task_lock(path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock, refreshed while it is held.

    Parameters
    ----------
    path
        The lock file; its folder has to exist.
    waiting
        Called every half second while another process holds it, with the name of that process.
    """
    from flufl.lock import Lock, LockState

    _check_path(path)
    logging.getLogger("flufl.lock").setLevel(logging.CRITICAL)
    lock = Lock(str(path), lifetime=_LIFETIME)
    while not _try(lock, path):
        # The owner, a process of this host, has ended; or the file was cut short, or is no lock of psy.
        if _names_no_owner(path) or lock.state is LockState.stale:
            _break(path)
        else:
            waiting(_owner(lock))
    over = threading.Event()
    refresher = threading.Thread(target=_refresh, args=(lock, over), daemon=True)
    refresher.start()
    try:
        yield
    finally:
        over.set()
        refresher.join()
        with suppress(Exception):  # It expired or was broken: then another process may hold it.
            lock.unlock()


def _check_path(path: Path) -> None:
    """Refuse a path that can't be written into a lock file, where flufl.lock writes it."""
    try:
        str(path).encode(locale.getpreferredencoding(False))
    except UnicodeEncodeError as error:
        why = "the name of a folder is not text in the encoding of this system"
        raise OSError(errno.EILSEQ, why, str(path.parent)) from error


def find_stale_claims(path: Path) -> list[Path]:
    """List the claims to a lock that processes left behind which have ended."""
    return [claim for claim in path.parent.glob(f"{path.name}|*|*|*") if _is_stale(claim)]


def _is_stale(claim: Path) -> bool:
    _, host, pid, _ = claim.name.split("|", 3)
    if host == socket.getfqdn() and pid.isdecimal():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
    with suppress(OSError):
        return claim.stat().st_mtime + _LIFETIME.seconds < time.time()  # A claim is dated to its end.
    return False


def _try(lock: Any, path: Path) -> bool:
    """Try for half a second to get a lock; return whether that worked."""
    from flufl.lock import TimeOutError

    try:
        lock.lock(timeout=_PATIENCE)
    except (TimeOutError, UnicodeDecodeError):  # The latter: the lock file may hold anything.
        return False
    except OSError as error:
        with suppress(OSError):
            os.unlink(lock.claimfile)  # noqa: PTH108 - flufl.lock knows it by a string
        place = path if path.is_dir() else path.parent
        raise OSError(error.errno, error.strerror, str(place)) from error
    return True


def _names_no_owner(path: Path) -> bool:
    """Whether a lock file names no owner and is not new; one that is held is dated to its end."""
    try:
        return path.read_bytes().count(b"|") != 3 and path.stat().st_mtime + _CUT_OFF < time.time()
    except OSError:
        return False


def _break(path: Path) -> None:
    """Remove a lock and the claim of the process that held it."""
    with suppress(OSError):
        claim = os.fsdecode(path.read_bytes()).strip().rpartition("/")[2]
        path.unlink()
        if claim.startswith(f"{path.name}|"):
            path.with_name(claim).unlink()


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
