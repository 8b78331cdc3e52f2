"""Programs on a terminal: what is typed, and what is shown."""

from __future__ import annotations

import os
import pty
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable


def talk(start: Callable[..., subprocess.Popen[str]], typed: str = "") -> tuple[int, str]:
    """Start a program on a terminal where something is typed; return its exit code and what it showed.

    Parameters
    ----------
    start
        Starts it, with the keywords `stdin`, `stdout` and `stderr` of `subprocess.Popen`.
    typed
        Lines, before it asks for them.
    """
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    process = start(stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    with suppress(OSError):  # Linux: no process has the other end open any more.
        while data := os.read(ours, 65536):
            said += data
    os.close(ours)
    return process.wait(60), said.decode()
