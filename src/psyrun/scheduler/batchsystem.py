"""Shared code of batch systems that commands drive; each has a file with what differs."""

from __future__ import annotations

import base64
import os
import re
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from psyrun.errors import NoAnswerError, SchedulerError, SubmitLimitError, TaskFileError
from psyrun.scheduler.protocol import STOPPED, JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from psyrun.scheduler.protocol import JobSpec


_QUERY_SECONDS = 60.0  # a controller that is down answers after some seconds
_SUBMIT_SECONDS = 300.0  # some sites make submitters wait on purpose
_IDS_PER_COMMAND = 500
_NEVER = re.compile(r"(?!)")  # matches nothing


@dataclass(frozen=True, slots=True)
class Option:
    """An entry of `scheduler_args`: its arguments of the command, `{}` being its value, and its meaning.

    One without arguments does nothing by itself: `BatchSystem.submit_argv` reads it from the submission.
    Where values have to be written in a way of the system, `convert` does that; a ValueError says that the
    value is not valid.
    """

    argv: tuple[str, ...]
    meaning: str
    convert: Callable[[Any], object] = str

    def build(self, value: Any) -> list[str]:
        """Return the arguments for a value."""
        return [part.replace("{}", str(self.convert(value))) for part in self.argv]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """A line of the queue.

    Parameters
    ----------
    job, element
        The job's id, as `BatchSystem.read_id` returned it, and the element of the array, counted from 0;
        -1 for a plain job, which an array of one may be.
    state
        None where it has ended and is still listed.
    label
        Name or command of the job, which contains the whole token: `BatchSystem.find` looks there.
    reason
        Why it is stuck; not read of others.
    """

    job: str
    element: int
    state: JobState | None
    label: str = ""
    reason: str = ""


class BatchSystem(ABC):
    """A batch system that is driven by commands; subclasses are its dialects.

    `psyrun.scheduler.Scheduler` says what is asked of the attributes and methods that have the same names.

    Parameters
    ----------
    workdir
        Not used: where psyrun 0.8 kept job scripts.

    Attributes
    ----------
    option_table
        Option of `scheduler_args` -> its arguments and meaning.
    index_variable, first_index
        Environment variable that holds the element of an array, and its value for the first element; a
        dialect gives them to `job_script`.
    unreachable, limit_reached, harmless
        Patterns searched in what a failed command prints: the system can't be reached; the site takes no
        more jobs; a line of the cancelling command that is no error, be it about a job that has ended.
    """

    option_table: Mapping[str, Option]
    required: Mapping[str, str] = MappingProxyType({})
    merge_options: Collection[str] = ()
    core_variables: Sequence[str] = ()
    job_variables: re.Pattern[str] = _NEVER
    kept_variables: re.Pattern[str] = _NEVER
    index_variable: str = ""
    first_index: int = 0
    detached: bool = True
    dependencies: bool = True
    throttles: bool = True
    warns: bool = True
    system_options: Collection[str] = ()
    poll: tuple[float, float] = (10.0, 60.0)
    grace: float = 90.0
    unreachable: re.Pattern[str] = _NEVER
    limit_reached: re.Pattern[str] = _NEVER
    harmless: re.Pattern[str] = _NEVER

    def __init__(self, workdir: str | os.PathLike[str] | None = None) -> None: ...  # noqa: B027 - psyrun 0.8 took it

    # ------------------------------------------------------------------ dialects

    @abstractmethod
    def array_limit(self) -> int:
        """Return the largest index plus one; 1 where there are no arrays."""

    @abstractmethod
    def submit_argv(self, spec: JobSpec) -> list[str]:
        """Return the command that submits, which is run in the folder and the environment of the job.

        It has the job run `job_script`, begin after the jobs `spec.after` have ended, however they ended,
        and be listed with `spec.token` in its name or command. Where the system can send SIGUSR1 before a
        time limit, it asks for that.
        """

    @abstractmethod
    def read_id(self, spec: JobSpec, printed: str) -> str:
        """Return the id of the job just submitted."""

    @abstractmethod
    def list_queue(self, job_ids: Collection[str] | None) -> Iterable[QueueEntry]:
        """Return the entries of the queue, each element of an array being one.

        Parameters
        ----------
        job_ids
            The jobs that are asked for, whoever submitted them; None: those of the user. There may be
            others among the entries.

        Raises
        ------
        NoAnswerError
            If the system can't be reached.
        """

    @abstractmethod
    def cancel_argv(self, job_ids: Sequence[str]) -> list[str]:
        """Return the command that cancels."""

    def explain_ends(self, job_ids: Collection[str]) -> Mapping[tuple[str, int], str | int | None]:
        """Return (job id, element) -> why it ended, None if well, where the system tells.

        Where an exit code is all that it tells, that is returned as a number; a negative one is a signal.

        Raises
        ------
        SchedulerError
            If the system does not answer, or has nothing on these jobs.
        """
        return {}

    def system(self) -> str:
        """Return the name of the system at hand; '' where there is one only."""
        return ""

    def shows_others(self) -> bool:
        """Whether `list_queue` tells of jobs of other users."""
        return False

    # ------------------------------------------------------------------ shared

    def configure(self, options: Mapping[str, Any], folder: Path) -> None:  # noqa: B027 - few systems need it
        """Do nothing: commands find their system by themselves."""

    @property
    def options(self) -> Mapping[str, str]:
        """Option of `scheduler_args` -> its meaning."""
        return {name: option.meaning for name, option in self.option_table.items()}

    def build_options(self, options: Mapping[str, Any]) -> list[str]:
        """Return the arguments for options; None leaves one out."""
        return [
            part
            for name, option in self.option_table.items()
            if options.get(name) is not None
            for part in option.build(options[name])
        ]

    def build_extra(self, extra: str | Sequence[object]) -> list[str]:
        """Return the arguments for the value of an option `extra`: a list, or a text as in a shell."""
        import shlex

        return shlex.split(extra) if isinstance(extra, str) else [str(each) for each in extra]

    def most_running(self, spec: JobSpec) -> int | None:
        """Return how many elements may run at a time, by throttle and option `max_running`; None: all."""
        most = [int(n) for n in (spec.throttle, spec.options.get("max_running")) if n is not None]
        return min(most, default=None)

    def submit(self, spec: JobSpec) -> str:
        """Submit and return the job's id.

        Raises
        ------
        SubmitLimitError
            If the site takes no more jobs at the moment.
        NoAnswerError
            If it is unknown whether it was accepted.
        SchedulerError
            If it was refused for another reason.
        TaskFileError
            If an option is not valid.
        """
        try:
            argv = self.submit_argv(spec)
        except ValueError as error:  # of an option
            raise TaskFileError(f"scheduler_args of {spec.name}: {error}") from error
        try:
            printed = self.run(argv, seconds=_SUBMIT_SECONDS, env=spec.env, folder=spec.folder)
        except NoAnswerError:
            raise
        except SchedulerError as error:
            if self.limit_reached.search(error.output):
                raise SubmitLimitError(error.argv, error.returncode, error.output) from error
            raise
        return self.read_id(spec, printed)

    def find(self, tokens: Collection[str]) -> Mapping[str, str] | None:
        """Return token -> job id for those that are in the queue."""
        try:
            entries = list(self.list_queue(None)) if tokens else []
        except NoAnswerError:
            return None
        return {token: entry.job for entry in entries for token in tokens if token in entry.label}

    def query(self, job_ids: Collection[str]) -> Mapping[str, Mapping[int, JobState]] | None:
        """Return job id -> element -> state, asking once for all; None where there is no answer."""
        try:
            entries = list(self.list_queue(job_ids)) if job_ids else []
        except NoAnswerError:
            return None
        states: dict[str, dict[int, JobState]] = {}
        for entry in entries:
            if entry.job in job_ids and entry.state is not None:
                states.setdefault(entry.job, {})[entry.element] = entry.state
        return states

    def explain(self, job_ids: Collection[str]) -> Mapping[tuple[str, int], str]:
        """Return (job id, element) -> why it ended or is stuck, where the system tells."""
        if not job_ids:
            return {}
        found: dict[tuple[str, int], str | None] = {}
        with suppress(SchedulerError):
            found |= {
                key: _describe(why, warned=self.warns) for key, why in self.explain_ends(job_ids).items()
            }
        with suppress(SchedulerError):
            for each in self.list_queue(job_ids):
                if each.state is not None:
                    why = each.reason if each.state is JobState.STUCK else ""
                    found[each.job, each.element] = why or None
        return {key: why for key, why in found.items() if why is not None and key[0] in job_ids}

    def cancel(self, job_ids: Collection[str]) -> None:
        """Cancel these jobs and no others; ids that the system no longer knows are no error."""
        ids = sorted(job_ids)
        for start in range(0, len(ids), _IDS_PER_COMMAND):
            try:
                self.run(self.cancel_argv(ids[start : start + _IDS_PER_COMMAND]))
            except SchedulerError as error:
                if any(line and not self.harmless.search(line) for line in error.output.splitlines()):
                    raise

    def run(
        self,
        argv: Sequence[str],
        *,
        seconds: float = _QUERY_SECONDS,
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> str:
        """Run a command and return its standard output.

        Raises
        ------
        NoAnswerError
            If it can't reach the system, or does not end in time.
        SchedulerError
            If it ends with another exit code than 0 for another reason; `output` of the error has all that
            it printed, which may be an answer.
        """
        import subprocess  # Jobs load this module, too.

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
        if self.unreachable.search(output):
            raise NoAnswerError(argv, done.returncode, output)
        raise SchedulerError(argv, done.returncode, output)


def _describe(end: str | int | None, *, warned: bool) -> str | None:
    """Return how an element ended in words; None if well."""
    if not isinstance(end, int):
        return end
    if end == STOPPED:
        return "stopped near its time limit" if warned else "stopped"
    return f"exit {end}" if end > 0 else f"signal {-end}" if end else None


def job_script(spec: JobSpec, index: str, first: int) -> list[str]:
    """Return the path of ``job.sh``, which is the script of all jobs, and its arguments.

    It goes to the folder, prints to the log, sources the prologue and becomes the command of the submission,
    with the process id of the script. All that users named is in one word of letters, digits, ``+/=``, since
    systems cut and split arguments each in their own way.

    Parameters
    ----------
    spec
        The submission.
    index
        Variable that holds the element of an array; empty for a plain job.
    first
        Value of the variable for the first element.
    """
    script = Path(__file__).with_name("job.sh")
    prologue = "" if spec.prologue is None else str(spec.prologue)
    words = [str(spec.log), str(spec.folder), prologue, *spec.argv]
    word = base64.b64encode(b"".join(os.fsencode(each) + b"\0" for each in words))
    return [str(script), spec.token, word.decode(), index, str(first)]
