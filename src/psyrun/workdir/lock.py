"""Locks: one psy at a time works on a task. They save double work; no result depends on them."""

from __future__ import annotations

import errno
import locale
import logging
import os
import re
import socket
import stat
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from psyrun.disk import read_file, share_file
from psyrun.errors import PsyrunWarning
from psyrun.workdir.submissions import find_user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


_LIFETIME = timedelta(seconds=60)
_REFRESH = 15.0
_PATIENCE = timedelta(seconds=0.5)
_CUT_OFF = 5.0
_CLAIM = re.compile(r"lock\|(?P<host>[^|\0]+)\|(?P<pid>[0-9]{1,20})\|[0-9]+")
_WITHOUT_LINKS = {
    errno.EACCES,
    errno.EINVAL,
    errno.EMLINK,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EXDEV,
}


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
    from flufl.lock import Lock

    _check_path(path)
    logging.getLogger("flufl.lock").setLevel(logging.CRITICAL)
    lock = Lock(str(path), lifetime=_LIFETIME)
    try:
        while not _try(lock, path):
            if path.exists():
                waiting(_owner(lock, path))
        share_file(path)
    except _NoHardLinksError as error:
        where = path.parent.parent  # The same words for each task: they are shown once.
        why = f"{where}: {error}; going on without a lock: two psy at once may do work twice"
        warnings.warn(why, PsyrunWarning, stacklevel=1)
    over = threading.Event()
    refresher = threading.Thread(target=_refresh, args=(lock, over), daemon=True)
    refresher.start()
    try:
        yield
    finally:
        over.set()
        refresher.join()
        _release(lock, path)


class _NoHardLinksError(Exception):
    """The file system can't make hard links."""


def _check_path(path: Path) -> None:
    """Refuse a path that can't be written into a lock file, where flufl.lock writes it."""
    try:
        str(path).encode(locale.getpreferredencoding(False))
    except UnicodeEncodeError as error:
        why = "the name of a folder is not text in the encoding of this system"
        raise OSError(errno.EILSEQ, why, str(path.parent)) from error


def find_stale_claims(path: Path) -> list[Path]:
    """List the claims to a lock that processes left behind which have ended."""
    return [claim for claim in path.parent.glob(f"{path.name}|*|*|*") if _is_stale(claim.name, claim)]


def _is_stale(claim: str, path: Path) -> bool:
    """Whether the process that made a claim has ended, or a file of this claim is long past its end."""
    found = _CLAIM.fullmatch(claim)
    if found and found["host"] == socket.getfqdn():
        try:
            os.kill(int(found["pid"]), 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
    late = _LIFETIME.total_seconds() if found else _CUT_OFF  # A file is dated to its end.
    with suppress(OSError):
        return path.stat().st_mtime + late < time.time()
    return False


def _try(lock: Any, path: Path) -> bool:
    """Try for half a second to get a lock; return whether that worked."""
    from flufl.lock import AlreadyLockedError, TimeOutError

    _refuse_strange(path)
    _break_stale(path)
    try:
        lock.lock(timeout=_PATIENCE)
    except AlreadyLockedError:  # A server of files made the link, and its answer was lost.
        return True
    except (TimeOutError, ValueError):  # The latter: the lock file may hold anything.
        return False
    except OSError as error:
        with suppress(OSError):
            os.unlink(lock.claimfile)  # noqa: PTH108 - flufl.lock knows it by a string
        if error.filename2 is not None and error.errno in _WITHOUT_LINKS:
            raise _NoHardLinksError(f"no hard links can be made there ({error.strerror})") from error
        if error.filename not in (None, lock.claimfile, str(path)):  # The claim that a damaged lock names.
            return False
        raise OSError(error.errno, error.strerror, str(path.parent)) from error
    return True


def _refuse_strange(path: Path) -> None:
    """Refuse what is no file: flufl.lock would wait for a pipe, or for a link that leads nowhere."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "not a regular file", str(path))


def _break_stale(path: Path) -> None:
    """Remove a lock whose owner has ended, or that names none: it was cut short or damaged."""
    with suppress(OSError):
        claim = os.fsdecode(read_file(path)).rpartition("/")[2]
        if _is_stale(claim, path):
            path.unlink()
            if _CLAIM.fullmatch(claim):
                path.with_name(claim).unlink()


def _release(lock: Any, path: Path) -> None:
    """Release a lock, unless it expired or was broken: then another process may hold it."""
    with suppress(Exception):
        lock.unlock()
    claim = path.with_name(lock.claimfile.rpartition("/")[2])
    with suppress(OSError):  # Still there where the content of the lock was damaged meanwhile.
        if claim.samefile(path):
            path.unlink()
        claim.unlink()


def _refresh(lock: Any, over: threading.Event) -> None:
    while not over.wait(_REFRESH):
        with suppress(Exception):
            lock.refresh()


def _owner(lock: Any, path: Path) -> str:
    try:
        host, pid, _ = lock.details
        user = path.stat().st_uid
    except Exception:
        return "another psy"
    of = "" if user == os.getuid() else f" of {find_user(user)}"
    return f"psy{of} with process id {pid} on {host}"
