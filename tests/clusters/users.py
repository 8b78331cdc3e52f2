"""Two users of this machine, with a Python that they can read, and folders that their group shares."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from contextlib import contextmanager, suppress
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psyrun

if TYPE_CHECKING:
    from collections.abc import Iterator

USERS = ("psyalice", "psybob")
GROUP = "psylab"


def lacks() -> str | None:
    """Return what keeps users from being added here; None: nothing."""
    if os.geteuid() != 0:
        return "only root can add users"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [name for name in ("useradd", "groupadd", "setpriv") if shutil.which(name, path=path) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


@contextmanager
def added() -> Iterator[None]:
    """Let the users be there, each with a group of its own, and the group that they share.

    Other test processes may need them at the same time: the first adds them, the last removes them.
    """
    with Path("/var/lock/psyrun-users").open("w") as use:
        with _turn():
            if _is_alone(use):
                _remove()  # A test process that was killed may have left them.
                _add()
            fcntl.flock(use, fcntl.LOCK_SH)
        try:
            yield
        finally:
            with _turn():
                if _is_alone(use):
                    _remove()
                fcntl.flock(use, fcntl.LOCK_UN)  # A process that was forked meanwhile may have it open.


@contextmanager
def _turn() -> Iterator[None]:
    """Keep other test processes from adding and removing users."""
    with Path("/var/lock/psyrun-users-turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def _is_alone(use: IO[str]) -> bool:
    """Whether no other test process needs the users."""
    try:
        fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _add() -> None:
    """Add the users, each with a group of its own, and the group that they share."""
    subprocess.run(["groupadd", GROUP], check=True)
    for name in USERS:
        subprocess.run(["useradd", "-M", "-U", "-G", GROUP, "-s", "/bin/sh", name], check=True)


def _remove() -> None:
    """Remove them, where they are there."""
    for argv in (*(["userdel", name] for name in USERS), ["groupdel", GROUP]):
        subprocess.run(argv, check=False, capture_output=True)


def as_user(name: str, umask: int = 0o022) -> tuple[str, ...]:
    """Return the beginning of a command that a user runs, with the umask that most have."""
    who = ("setpriv", f"--reuid={name}", f"--regid={name}", "--init-groups", "--inh-caps=-all")
    return (*who, "sh", "-c", f'umask {umask:o}; exec "$@"', "sh")


def copy_python(folder: Path) -> Path:
    """Copy this Python and psyrun to a folder, as links where that is possible; return the interpreter."""
    base = Path(sys.base_prefix)
    library = Path(sysconfig.get_path("stdlib"))
    ours = folder / library.relative_to(base)
    ignore = shutil.ignore_patterns(
        "test", "site-packages", "dist-packages", "idlelib", "ensurepip", "tkinter"
    )
    shutil.copytree(library, ours, ignore=ignore, copy_function=_link)
    for path in (base / "lib").glob("libpython3*"):
        _link(path, folder / "lib" / path.name)
    python = folder / "bin" / f"python3.{sys.version_info.minor}"
    python.parent.mkdir()
    _link(Path(sys.executable).resolve(), python)
    packages = _packages_of(python)
    for package in _find_packages(["psyrun"]).values():
        for file in package.files or ():
            target = packages / file
            if ".." not in file.parts and file.suffix not in (".pth", ".pyc"):
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(package.locate_file(file), target)
    source = Path(psyrun.__file__).parent
    if not (packages / "psyrun").exists():
        shutil.copytree(source, packages / "psyrun", copy_function=_link)
    return python


def _packages_of(python: Path) -> Path:
    """Return the folder where a Python looks for packages: Debian's have another than those of python.org."""
    ask = "import site; print(site.getsitepackages()[0])"
    env = {**os.environ, "LD_LIBRARY_PATH": str(python.parent.parent / "lib")}
    done = subprocess.run([python, "-I", "-c", ask], env=env, check=True, capture_output=True, text=True)
    return Path(done.stdout.strip())


def _find_packages(names: list[str]) -> dict[str, Distribution]:
    """Return packages, and those that they need to run, as far as they are installed."""
    found: dict[str, Distribution] = {}
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        with suppress(PackageNotFoundError):
            if name not in found:
                found[name] = distribution(name)
                needed = [line for line in found[name].requires or () if "extra ==" not in line]
                names += [re.split(r"[^A-Za-z0-9_.-]", line)[0] for line in needed]
    return found


def _link(source: object, target: object) -> None:
    try:
        os.link(str(source), str(target))
    except OSError:
        shutil.copy(str(source), str(target))
