"""Submissions: which batches were handed to a scheduler, and as which job."""

from __future__ import annotations

import json
import secrets
import string
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from psyrun.disk import write_atomic
from psyrun.workdir.jsonfile import read_json

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path
    from types import UnionType


FORMAT = 1
_ALPHABET = string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One call of a scheduler's `submit`; array element k evaluates entry k of `batches`.

    Parameters
    ----------
    token
        Its name, which no other has.
    task, code
        The task, and the digest of the code to run.
    scheduler
        Class name of the scheduler.
    batches
        (batch number, wanted rows as (first, end) ranges, or None for all of them).
    retry
        Whether rows that failed before are tried once more.
    processes
        Children of a worker; None: as many as cores.
    cores
        Cores for all children together; None: what the job is granted.
    timeout
        Seconds per assignment, or None.
    exclude
        Names that are not recorded.
    job
        The scheduler's id; None until it is known.
    merge
        The id of the job that merges when its jobs have ended, or None.
    gone
        Element -> when it was first found to have left the queue without its rows, seconds since 1970.
    told
        Element -> why it ended, as the batch system told while it still knew.
    ended
        Element -> why it ended, for elements that are given up; "-1" for all.
    over
        Whether nothing of it is in the queue any more.
    """

    token: str
    task: str
    code: str
    scheduler: str
    batches: tuple[tuple[int, tuple[tuple[int, int], ...] | None], ...]
    retry: bool
    processes: int | None = None
    cores: int | None = None
    timeout: float | None = None
    exclude: tuple[str, ...] = ()
    job: str | None = None
    merge: str | None = None
    gone: Mapping[str, float] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    over: bool = False

    @property
    def mark(self) -> str:
        """What a worker of it writes to its log first."""
        return f"submission {self.token}"

    @property
    def numbers(self) -> list[int]:
        """The batches, in the order of the elements."""
        return [number for number, _ in self.batches]

    def reasons(self) -> dict[int, str]:
        """Return batch -> why its element ended early, where that is known."""
        whole = self.ended.get("-1")
        known = self.told | self.ended if whole is None else self.ended
        found = {n: known.get(str(element), whole) for element, n in enumerate(self.numbers)}
        return {number: why for number, why in found.items() if why}

    def with_job(self, job: str) -> Submission:
        """Return it with the id that the scheduler gave it."""
        return replace(self, job=job)


def new_token() -> str:
    """Return a name that no other submission has: a letter, then letters and digits."""
    return "p" + "".join(secrets.choice(_ALPHABET) for _ in range(9))


def write_submission(folder: Path, submission: Submission) -> Path:
    """Write a submission as ``<token>.json`` and return the path."""
    content = {name.name: getattr(submission, name.name) for name in fields(submission)}
    path = folder / f"{submission.token}.json"
    write_atomic(path, json.dumps({"format": FORMAT, **content}, indent=0).encode())
    return path


def read_submission(path: Path) -> Submission:
    """Read a submission.

    Raises
    ------
    FormatError
        If the file is damaged, or a newer psyrun wrote it.
    """
    return read_json(
        path,
        FORMAT,
        partial(_decode, path.stem),
        cure="delete it once its jobs have ended",
        upgrade="upgrade psyrun to read it",
    )


def _decode(token: str, content: dict[str, Any]) -> Submission:
    batches = tuple(
        (number, rows and tuple((first, end) for first, end in rows))
        for number, rows in content.pop("batches")
    )
    submission = Submission(batches=batches, exclude=tuple(content.pop("exclude")), **content)
    _check(submission, token)
    return submission


def _check(submission: Submission, token: str) -> None:
    """Raise ValueError where a value is none that psyrun writes."""
    kinds: list[tuple[Any, type | UnionType]] = [
        (submission.scheduler, str),
        (submission.job, str | None),
        (submission.merge, str | None),
        (submission.gone, dict),
        (submission.ended, dict),
        *((number, int) for number in submission.numbers),
    ]
    if submission.token != token or not all(isinstance(value, kind) for value, kind in kinds):
        raise ValueError("a value is of another kind than psyrun writes")


def list_submissions(folder: Path) -> list[Submission]:
    """Read all submissions of a task, in the order of their tokens."""
    return [read_submission(path) for path in sorted(folder.glob("*.json"))]


def forget_submissions(folder: Path, complete: Collection[int]) -> None:
    """Remove the submissions of which every batch is complete: whatever became of their jobs."""
    for submission in list_submissions(folder):
        if set(submission.numbers) <= set(complete):
            (folder / f"{submission.token}.json").unlink(missing_ok=True)
