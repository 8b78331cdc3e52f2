"""Submissions: which batches were handed to a scheduler, as which job, and how that ended."""

from __future__ import annotations

import os
import pwd
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from psyrun.disk import random_name, write_atomic
from psyrun.workdir.jsonfile import COUNT, check_shape, encode_json, read_json

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path


FORMAT = 3
_SHAPE = {
    **dict.fromkeys(("token", "task", "code", "scheduler"), str),
    **dict.fromkeys(("job", "merge", "commit", "only", "submitter"), (str, None)),
    "system": str,
    "options": dict,
    **dict.fromkeys(("processes", "cores"), (COUNT, None)),
    **dict.fromkeys(("retry", "closed", "stateless", "track_inputs"), bool),
    "core_variables": [str],
    "exclude": [str],
    "declared": [str],
    "untracked": [str],
    "clean": (bool, None),
    "timeout": (float, int, None),
    "batches": [[COUNT, str, ([[COUNT, COUNT]], None)]],
    "ends": {str: {"since": (float, int), "reason": (str, None), "final": bool}},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of an element before the rows of its batch were there.

    Parameters
    ----------
    since
        When it was first found, seconds since 1970.
    reason
        Why it ended; None where that is unknown.
    final
        Whether its rows are no longer waited for.
    """

    since: float
    reason: str | None = None
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One call of a scheduler's `submit`; array element k evaluates entry k of `batches`.

    Parameters
    ----------
    token
        Its name, which no other submission has.
    task, code
        The task, and the digest of the code to run.
    scheduler
        Class name of the scheduler.
    batches
        (batch number, tie of its inputs, wanted rows as (first, end) ranges, or None for all of them).
    retry
        Whether rows that failed before are tried once more.
    options
        Options of the jobs.
    submitter
        The user who submitted them; None where an older psyrun wrote this.
    system
        Name of the batch system; '' where there is one only.
    only
        Those alone that failed for this reason; None: all.
    processes
        Children of a worker; None: as many as cores.
    cores
        Cores for all children together; None: what the job is granted.
    core_variables
        Environment variables that hold what the job is granted; the first that is a number counts.
    timeout
        Seconds per assignment, or None.
    exclude
        Names that are not recorded.
    declared
        Data files that the task file names, relative to the project root.
    untracked, stateless, track_inputs
        Settings of the task: what is no input, whether rows keep nothing, whether inputs are observed.
    commit, clean
        Commit of the work tree, and whether it was clean; None where that is not known.
    job
        The scheduler's id; None until it is known.
    merge
        The id of the job that merges when its jobs have ended, or None.
    ends
        Element -> its end, for elements that ended early.
    closed
        Whether all of its elements have left the queue for good.
    extra
        What another psyrun wrote beside, kept as it is.
    """

    token: str
    task: str
    code: str
    scheduler: str
    batches: tuple[tuple[int, str, tuple[tuple[int, int], ...] | None], ...]
    retry: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    submitter: str | None = None
    system: str = ""
    only: str | None = None
    processes: int | None = None
    cores: int | None = None
    core_variables: tuple[str, ...] = ()
    timeout: float | None = None
    exclude: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()
    untracked: tuple[str, ...] = ()
    stateless: bool = False
    track_inputs: bool = True
    commit: str | None = None
    clean: bool | None = None
    job: str | None = None
    merge: str | None = None
    ends: Mapping[int, End] = field(default_factory=dict)
    closed: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """The first line of its workers in a log."""
        return f"submission {self.token}"

    @property
    def numbers(self) -> list[int]:
        """The batches, in the order of the elements."""
        return [number for number, _, _ in self.batches]

    @property
    def jobs(self) -> list[str]:
        """The ids of its jobs that are known."""
        return [job for job in (self.job, self.merge) if job]

    @property
    def ours(self) -> bool:
        """Whether this user submitted it."""
        return self.submitter in (None, find_user())

    def ended_early(self, active: Collection[int], unfinished: Collection[int]) -> list[int]:
        """Return the elements that left the queue with rows unfinished, and are still waited for.

        Parameters
        ----------
        active
            Batches that are in the queue.
        unfinished
            Batches with rows that have no values.
        """
        given_up = {element for element, end in self.ends.items() if end.final}
        return [
            element
            for element, number in enumerate(self.numbers)
            if number in unfinished and number not in active and element not in given_up
        ]

    def reasons(self) -> dict[int, str]:
        """Return batch -> reason, in a line, for elements that ended early."""
        numbers = self.numbers
        return {numbers[e]: end.reason.splitlines()[-1] for e, end in self.ends.items() if end.reason}


def find_user(number: int | None = None) -> str:
    """Return the name of a user; without a number, of the one whose process this is, by no variable."""
    number = os.getuid() if number is None else number
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def new_token() -> str:
    """Return a name that no other submission has: a letter, then letters and digits."""
    return "p" + random_name(9)


def write_submission(folder: Path, submission: Submission) -> Path:
    """Write a submission as ``<token>.json`` and return the path."""
    path = folder / f"{submission.token}.json"
    fields = asdict(submission)
    write_atomic(path, encode_json(FORMAT, {**fields.pop("extra"), **fields}))
    return path


def read_submission(path: Path) -> Submission:
    """Read a submission.

    Raises
    ------
    FormatError
        If the file is damaged, or another psyrun wrote it in a format of its own.
    """
    return read_json(
        path,
        FORMAT,
        partial(_decode, path.stem),
        cure="delete it once its jobs have ended",
        upgrade="upgrade psyrun to read it",
    )


def _decode(token: str, content: dict[str, Any]) -> Submission:
    """Return the submission; ValueError and others say that psyrun did not write it."""
    check_shape(content, _SHAPE)
    content["batches"] = tuple(
        (number, tie, rows and tuple((first, end) for first, end in rows))
        for number, tie, rows in content["batches"]
    )
    content["ends"] = {int(element): End(**end) for element, end in content["ends"].items()}
    content = {"declared": [], "untracked": [], **content}
    lists = ("exclude", "core_variables", "declared", "untracked")
    content |= {name: tuple(content[name]) for name in lists}
    extra = {name: content.pop(name) for name in content.keys() - set(Submission.__slots__)}
    found = Submission(**content, extra=extra)
    known = found.ends.keys() <= set(range(len(found.batches)))
    if found.token != token or not known:
        raise ValueError("a value is of another kind than psyrun writes")
    return found


def list_submissions(folder: Path) -> list[Submission]:
    """Read all submissions of a task, in the order of their tokens."""
    return [read_submission(path) for path in sorted(folder.glob("*.json"))]


def remove_submission(folder: Path, token: str) -> None:
    """Remove a submission, and what its scheduler kept about it."""
    (folder / f"{token}.json").unlink(missing_ok=True)
    if (folder / token).exists():
        import shutil

        shutil.rmtree(folder / token, ignore_errors=True)


def forget_submissions(folder: Path, complete: Collection[int]) -> None:
    """Remove the submissions whose batches are all complete, however their jobs ended.

    One with stuck elements that others replaced stays open: they are still in the queue.
    """
    for submission in list_submissions(folder):
        replaced = not submission.closed and any(end.final for end in submission.ends.values())
        if set(submission.numbers) <= set(complete) and not replaced:
            remove_submission(folder, submission.token)
