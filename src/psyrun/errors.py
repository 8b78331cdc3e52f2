"""Exceptions and exit codes.

Every message names the thing, the place and the cure::

    PsyrunWarning                something that psyrun says while it goes on (a UserWarning)
    PsyrunError
    |- AmbiguousOperationError   operands of a space operation do not fit (also ValueError, RuntimeError)
    |- IdentityError             a parameter value has no identity: it can't be pickled (also TypeError)
    |- TaskFileError             a task file, psy-conf.py or one of their settings (also ValueError)
    |- SelectionError            no row is as it was asked for (also ValueError)
    |- ExecuteError              `execute` or `setup` does not keep to its contract (also TypeError)
    |- FormatError               a file below the work folder is damaged
    |  `- NewerFormatError       a newer psyrun wrote it
    |- StoreError                a result file can't hold a value, or can't be read
    |  `- RowError               it has no row of that number (also IndexError)
    |- SchedulerError            a command of the batch system failed
    |  |- SubmitLimitError       the site takes no more jobs now; what was accepted runs
    |  `- NoAnswerError          the batch system can't be reached: the outcome is unknown
    `- DirtyError                finished rows or a result would be given up without --continue or --force
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


# Exit codes: finished; rows failed or missing; usage or a task file; jobs in flight; interrupted.
OK, UNFINISHED, USAGE, PENDING, INTERRUPTED = 0, 1, 2, 75, 130
_SEVERITY = (OK, PENDING, UNFINISHED, USAGE, INTERRUPTED)


class PsyrunWarning(UserWarning):
    """Something that psyrun says while it goes on."""


class PsyrunError(Exception):
    """Base of the errors that are reported to the user, not faults of psyrun itself."""


class AmbiguousOperationError(PsyrunError, ValueError, RuntimeError):
    """The operands of `*` or `-` do not determine a result."""


class IdentityError(PsyrunError, TypeError):
    """A parameter value can't be told from others, because it can't be pickled."""


class TaskFileError(PsyrunError, ValueError):
    """A task file can't be loaded, or holds something that psyrun does not understand."""


class SelectionError(PsyrunError, ValueError):
    """There is no row with such a number, or with such values."""


class ExecuteError(PsyrunError, TypeError):
    """`execute` or `setup` does not take what psyrun passes, or return what it expects."""


class FormatError(PsyrunError):
    """A file is damaged, or was written by a newer psyrun."""


class NewerFormatError(FormatError):
    """A newer psyrun wrote a file, in a format that this one does not know."""


class StoreError(PsyrunError, ValueError):
    """A result file can't hold a value, or can't be read."""


class RowError(StoreError, IndexError):
    """A result file does not have that row."""


class DirtyError(PsyrunError):
    """Finished rows or a result would be given up, and no option says so."""


class SchedulerError(PsyrunError):
    """A command of the batch system failed.

    Parameters
    ----------
    argv
        The command that was run.
    returncode
        Its exit code.
    output
        Its output, standard error first.
    """

    def __init__(self, argv: Sequence[str], returncode: int, output: str) -> None:
        super().__init__(argv, returncode, output)
        self.argv = tuple(argv)
        self.returncode = returncode
        self.output = output

    def __str__(self) -> str:
        import shlex
        import textwrap

        output = self.output.strip() or "it printed nothing"
        command = textwrap.shorten(shlex.join(self.argv), 120, placeholder=" ...")
        return f"{self.argv[0]} exited with {self.returncode} ({command}); output: {output}"


class SubmitLimitError(SchedulerError):
    """The batch system takes no more jobs at the moment."""


class NoAnswerError(SchedulerError):
    """The batch system can't be reached, or did not answer in time."""


_IN_THE_WAY = "something else is in its place: move it away"
_CURES = {
    errno.EEXIST: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.ELOOP: _IN_THE_WAY,
    errno.ENXIO: _IN_THE_WAY,
    errno.ENOSPC: "free space",
    errno.EDQUOT: "free space",
    errno.EFBIG: "raise the limit of file sizes: ulimit -f",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.EROFS: "mount it for writing",
    errno.EIO: "check the disk, then run psy again",
    errno.ESTALE: "check that its file server answers, then run psy again",
    errno.EILSEQ: "rename the folder",
}


def explain(error: Exception, task: str = "") -> str:
    """Return the message of an error; one of the system gets task, place and cure."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    place = error.filename if error.filename2 is None else error.filename2
    cure = _CURES.get(error.errno, "let psy read and write there")
    named = ": ".join(str(part) for part in (task, place) if part)
    return f"{named}: {error.strerror}; {cure}" if named else str(error)


def exit_code(error: Exception) -> int:
    """Return the exit code for an error."""
    return (
        USAGE if isinstance(error, (TaskFileError, SelectionError, DirtyError, FormatError)) else UNFINISHED
    )


def worst(codes: Iterable[int]) -> int:
    """Return the worst of some exit codes."""
    return max(codes, key=_SEVERITY.index, default=OK)
