"""Submissions: which batches were handed to a scheduler, and as which job."""

from __future__ import annotations

import json
import secrets
import string
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from psyrun.disk import write_atomic
from psyrun.errors import FormatError, NewerFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Submission", "list_submissions", "new_token", "read_submission", "write_submission"]

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
    ended
        Element -> why it ended, for elements that left the queue without their rows; "-1" for all.
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
    ended: Mapping[str, str] = field(default_factory=dict)
    over: bool = False

    def reason(self, batch: int) -> str | None:
        """Return why the element of a batch ended early, where that is known."""
        for element, (number, _) in enumerate(self.batches):
            if number == batch:
                return self.ended.get(str(element), self.ended.get("-1"))
        return None

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
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        version = content.pop("format")
        if version == FORMAT:
            batches = tuple(
                (number, rows and tuple((first, end) for first, end in rows))
                for number, rows in content.pop("batches")
            )
            return Submission(batches=batches, exclude=tuple(content.pop("exclude")), **content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FormatError(f"{path}: damaged ({error}); delete it once its jobs have ended") from error
    raise NewerFormatError(f"{path}: format {version} is not known to this psyrun; upgrade psyrun to read it")


def list_submissions(folder: Path) -> list[Submission]:
    """Read all submissions of a task, in the order of their tokens."""
    return [read_submission(path) for path in sorted(folder.glob("*.json"))]
