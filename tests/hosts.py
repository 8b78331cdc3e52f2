"""Two hosts that share a folder, as far as psy can tell: processes with host names of their own."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Project

__all__ = ["can_move", "move", "needs_hosts", "shorten_leases"]

_UNSHARE = ["unshare", *(["--user", "--map-root-user"] if os.geteuid() else []), "--uts"]
_LEASES = """\
from datetime import timedelta

import psyrun.workdir.lock

psyrun.workdir.lock._LIFETIME = timedelta(seconds={seconds})
psyrun.workdir.lock._REFRESH = {seconds} / 4
"""


def can_move() -> bool:
    """Whether this system lets us give processes a host name."""
    try:
        return not subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode
    except OSError:
        return False


needs_hosts = pytest.mark.skipif(not can_move(), reason="needs namespaces of host names")


def move(project: Project, host: str) -> Project:
    """Return the same project as it is seen from a host."""
    script = 'hostname "$0" && exec "$@"'
    return replace(project, prefix=(*_UNSHARE, "sh", "-c", script, host))


def shorten_leases(project: Project, seconds: float) -> None:
    """Let the lock of a host that is gone last so long."""
    path = Path(project.env()["PYTHONPATH"]) / "sitecustomize.py"
    path.write_text(_LEASES.format(seconds=seconds))
