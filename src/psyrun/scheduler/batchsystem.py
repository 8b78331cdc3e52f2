"""Batch systems that commands drive: what they share. A file each holds what differs."""

from __future__ import annotations

import re
import subprocess
from abc import ABC, abstractmethod
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from psyrun.errors import NoAnswerError, SchedulerError, SubmitLimitError

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Mapping, Sequence

    from psyrun.scheduler.protocol import JobSpec, JobState


_ASK_SECONDS = 60.0  # a controller that is down answers after some seconds
_SUBMIT_SECONDS = 300.0  # some sites make submitters wait on purpose
_MANY = 500  # ids in one command


@dataclass(frozen=True, slots=True)
class Option:
    """An entry of `scheduler_args`: the arguments that it becomes, `{}` being its value, and its meaning."""

    argv: tuple[str, ...]
    meaning: str

    def build(self, value: Any) -> list[str]:
        """Return the arguments for a value."""
        return [part.replace("{}", str(value)) for part in self.argv]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of the queue.

    Parameters
    ----------
    job, element
        The job's id and the element of the array; -1 stands for all of a job that is not an array.
    state
        None where it has ended, and the system still lists it.
    said
        What to tell jobs by: a name, or the command.
    why
        Why it ended, where that was not as it should.
    """

    job: str
    element: int
    state: JobState | None
    said: str = ""
    why: str | None = None


class BatchSystem(ABC):
    """A batch system that is driven by commands; subclasses are its dialects.

    Parameters
    ----------
    workdir
        Not used: where psyrun 0.8 kept job scripts.
    """

    detached: bool = True
    poll: tuple[float, float] = (10.0, 60.0)
    grace: float = 90.0
    required: Mapping[str, str] = MappingProxyType({})
    inherited: Collection[str] = ()
    table: Mapping[str, Option]
    index: str = ""  # variable that tells the element
    first: int = 0  # what the system counts elements from
    no_answer: re.Pattern[str] = re.compile(r"(?!)")
    limited: re.Pattern[str] = re.compile(r"(?!)")
    unknown_job: re.Pattern[str] = re.compile(r"(?!)")

    def __init__(self, workdir: str | os.PathLike[str] | None = None) -> None: ...  # noqa: B027 - psyrun 0.8 took it

    # ------------------------------------------------------------------ what differs

    @abstractmethod
    def array_limit(self) -> int:
        """Return the largest index plus one; 1 where there are no arrays."""

    @abstractmethod
    def submit_argv(self, spec: JobSpec) -> list[str]:
        """Return the command that submits."""

    @abstractmethod
    def read_id(self, spec: JobSpec, printed: str) -> str:
        """Return the id of the job just submitted."""

    @abstractmethod
    def list_queue(self) -> list[Entry] | None:
        """Return what is in the user's queue; None where there is no answer."""

    @abstractmethod
    def explain(self, job_ids: Collection[str]) -> Mapping[tuple[str, int], str]:
        """Return (job id, element) -> why it ended, where the system tells."""

    @abstractmethod
    def cancel_argv(self, job_ids: Sequence[str]) -> list[str]:
        """Return the command that cancels."""

    # ------------------------------------------------------------------ what they share

    @property
    def options(self) -> Mapping[str, str]:
        """Name -> what it means, for each option that `scheduler_args` may hold."""
        return {name: option.meaning for name, option in self.table.items()}

    def build_options(self, options: Mapping[str, Any]) -> list[str]:
        """Return the arguments for options; such that are None are left out."""
        return [
            part
            for name, option in self.table.items()
            if options.get(name) is not None
            for part in option.build(options[name])
        ]

    def submit(self, spec: JobSpec) -> str:
        """Submit and return the job's id.

        Raises
        ------
        SubmitLimitError
            If the site takes no more jobs at the moment.
        NoAnswerError
            If nobody knows whether it was accepted.
        SchedulerError
            If it was refused for another reason.
        """
        argv = self.submit_argv(spec)
        try:
            printed = self.run(argv, seconds=_SUBMIT_SECONDS, env=spec.env, folder=spec.folder)
        except NoAnswerError:
            raise
        except SchedulerError as error:
            if self.limited.search(error.output):
                raise SubmitLimitError(error.argv, error.returncode, error.output) from error
            raise
        return self.read_id(spec, printed)

    def find(self, tokens: Collection[str]) -> Mapping[str, str] | None:
        """Return token -> job id for those that are in the queue."""
        entries = self.list_queue() if tokens else []
        if entries is None:
            return None
        return {token: entry.job for entry in entries for token in tokens if token in entry.said}

    def query(self, job_ids: Collection[str]) -> Mapping[str, Mapping[int, JobState]] | None:
        """Return job id -> element -> state, asking once for all; None where there is no answer."""
        entries = self.list_queue() if job_ids else []
        if entries is None:
            return None
        wanted = set(job_ids)
        states: dict[str, dict[int, JobState]] = defaultdict(dict)
        for entry in entries:
            if entry.job in wanted and entry.state is not None:
                states[entry.job][entry.element] = entry.state
        return dict(states)

    def cancel(self, job_ids: Collection[str]) -> None:
        """Cancel these jobs and no others; ids that nobody knows any more are none of our business."""
        ids = sorted(job_ids)
        for start in range(0, len(ids), _MANY):
            try:
                self.run(self.cancel_argv(ids[start : start + _MANY]))
            except SchedulerError as error:
                if any(line and not self.unknown_job.search(line) for line in error.output.splitlines()):
                    raise

    def run(
        self,
        argv: Sequence[str],
        *,
        seconds: float = _ASK_SECONDS,
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> str:
        """Run a command and return what it printed.

        Raises
        ------
        NoAnswerError
            If it can't reach the system, or does not end in time.
        SchedulerError
            If it fails for another reason.
        """
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
                env=None if env is None else dict(env),
                cwd=folder,
            )
        except FileNotFoundError as error:
            hint = f"no such command on this machine; is {type(self).__name__} installed here?"
            raise SchedulerError(argv, 127, hint) from error
        except subprocess.TimeoutExpired as error:
            raise NoAnswerError(argv, 124, f"no answer within {seconds:g} s") from error
        output = done.stderr + done.stdout
        if done.returncode == 0:
            return done.stdout
        if self.no_answer.search(output):
            raise NoAnswerError(argv, done.returncode, output)
        raise SchedulerError(argv, done.returncode, output)


def job_script(spec: JobSpec, index: str, first: int) -> list[str]:
    """Return the script that a job runs, and its arguments."""
    script = Path(__file__).with_name("job.sh")
    prologue = "" if spec.prologue is None else str(spec.prologue)
    return [str(script), prologue, index, str(first), *spec.argv]
