"""Who reads: the code that called what an audit event or a wrapped function is about."""

from __future__ import annotations

import genericpath
import glob
import importlib
import inspect
import linecache
import os
import pathlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


# Files of frames between a reader and what it calls.
_PATHS = frozenset({genericpath.exists.__code__.co_filename, os.path.join.__code__.co_filename})
_OS = os.walk.__code__.co_filename
_PATHLIB = pathlib.Path.exists.__code__.co_filename.rpartition("pathlib")[0] + "pathlib"
_GLOB = glob.glob.__code__.co_filename
_SOURCES = frozenset({linecache.getline.__code__.co_filename, inspect.getsource.__code__.co_filename})
_HOME = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - strings
_OWN = {os.path.join(_HOME, name) for name in ("audit.py", "callers.py", "observe.py")}
_IMPORT = "<frozen importlib"
_METADATA = f"{importlib.__file__.removesuffix('__init__.py')}metadata"


def find_caller() -> tuple[str, str]:
    """Return who called, and the function of Python's path modules that it used, or ''.

    Returns
    -------
    str
        ``code``: the user's, or a package's; ``python``: an import, metadata, lines of sources;
        ``glob``: the search for what matches a pattern; ``path``: what resolves links in a path.
    str
        Such as ``exists``.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - what it is for
    function = ""
    while frame is not None:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if file == _GLOB or (
            file.startswith(_PATHLIB) and name.lstrip("_").startswith(("select", "iterate"))
        ):
            return "glob", ""
        if name in ("realpath", "_joinrealpath") and file in _PATHS:
            return "path", ""
        if file in _PATHS or file == _OS or file.startswith(_PATHLIB):
            function = name
        elif name == "get_data" and file.startswith((_IMPORT, _HOME)):
            pass  # of an import, or of who asks a loader for data of a package
        elif file not in _OWN:
            break
        frame = frame.f_back
    if frame is None:
        return "code", function
    return (
        "python" if file in _SOURCES or file.startswith((_IMPORT, _METADATA, _HOME)) else "code"
    ), function
