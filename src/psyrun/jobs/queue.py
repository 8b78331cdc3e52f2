"""States of the jobs of a project's tasks; each batch system is asked once for all of them."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psyrun.errors import FormatError, NoAnswerError, SchedulerError, TaskFileError
from psyrun.scheduler import JobState, create_scheduler
from psyrun.task import open_task
from psyrun.values import count
from psyrun.workdir import list_submissions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from psyrun.scheduler import Scheduler
    from psyrun.task import Outline
    from psyrun.workdir import Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """What is known of the jobs of a submission.

    Parameters
    ----------
    submission
        The submission.
    states
        Batch -> state of those that are in the queue, or may be.
    stuck
        Batch -> why it is stuck.
    abandoned
        Stuck elements in whose place others were submitted.
    unknown
        Why nothing is known of its jobs; '' where something is.
    silent
        Whether that is because the batch system does not answer at the moment.
    merges
        Whether a job that merges waits for them.
    plain
        Whether one job is at all batches, rather than an element of an array at each.
    """

    submission: Submission
    states: Mapping[int, JobState] = field(default_factory=dict)
    stuck: Mapping[int, str] = field(default_factory=dict)
    abandoned: Collection[int] = ()
    unknown: str = ""
    silent: bool = False
    merges: bool = False
    plain: bool = False

    @property
    def jobs(self) -> int:
        """How many jobs are in the queue, or may be."""
        return min(1, len(self.states)) if self.plain else len(self.states) + len(self.abandoned)

    @property
    def lost(self) -> bool:
        """Whether its jobs can't be asked for here, now or later."""
        return bool(self.unknown) and not self.silent


@dataclass(frozen=True, slots=True)
class TaskJobs:
    """What is known of the jobs of a task, a report for each open submission."""

    reports: Sequence[JobReport] = ()

    @property
    def states(self) -> dict[int, JobState]:
        """Batch -> state of those that are in the queue, or may be."""
        return {number: state for each in self.reports for number, state in each.states.items()}

    @property
    def running(self) -> set[int]:
        """The batches whose rows processes may be at, as far as batch systems tell."""
        told = [each for each in self.reports if not each.unknown]
        running = (JobState.RUNNING, JobState.UNKNOWN)
        return {number for each in told for number, state in each.states.items() if state in running}

    @property
    def retried(self) -> set[int]:
        """The batches whose failed rows are all tried again."""
        whole = [each for each in self.reports if each.submission.retry and each.submission.only is None]
        return {number for each in whole for number in each.states}

    @property
    def merges(self) -> bool:
        """Whether a job that merges waits for whatever is in the queue."""
        waited = [each.merges and not each.stuck for each in self.reports if each.states or each.merges]
        return bool(waited) and all(waited)

    def only(self, *, silent: bool) -> TaskJobs:
        """Return the reports of batch systems that do not answer at the moment, or those of the others."""
        return TaskJobs([each for each in self.reports if each.silent == silent])

    def describe(self, name: str) -> Iterator[str]:
        """Yield lines about jobs of which nothing is known, and stuck ones, with the cure."""
        unknown: Counter[tuple[str, bool]] = Counter()
        stuck: Counter[tuple[str, str | None]] = Counter()
        for each in self.reports:
            unknown[each.unknown, each.lost] += each.jobs if each.unknown else 0
            owner = None if each.submission.ours else each.submission.submitter
            stuck.update((why, owner) for why in each.stuck.values())
        for (why, lost), n in unknown.items():
            if n and lost:
                yield (
                    f"whether {count(n, 'job')} {_verb(n, 'runs', 'run')} is not known: {why};"
                    f" to replace {_verb(n, 'it', 'them')}: psy run --take-over {name}"
                )
            elif n:
                yield (
                    f"{why}: nothing is submitted again meanwhile, and whether {count(n, 'job')}"
                    f" {_verb(n, 'runs', 'run')} is not known"
                )
        for (why, owner), n in stuck.items():
            which, them = _verb(n, "is", "are"), _verb(n, "it", "them")
            who = f"psy kill {name} cancels {them}" if owner is None else f"{owner} can cancel {them}"
            jobs = count(n, "job") + (f" of {owner}" if owner else "")
            yield f"{jobs} {which} stuck: {why}; {who}, psy run --take-over {name} replaces {them}"


def _verb(n: int, one: str, several: str) -> str:
    return one if n == 1 else several


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    time: float
    scheduler: Scheduler
    asked: frozenset[str]
    states: Mapping[str, Mapping[int, JobState]] | None = None
    reasons: Mapping[tuple[str, int], str] = field(default_factory=dict)
    error: str = ""


class QueueCache:
    """Answers of batch systems about open submissions.

    Parameters
    ----------
    outlines
        The tasks whose jobs to ask for.
    """

    def __init__(self, outlines: Iterable[Outline] = ()) -> None:
        self._outlines = list(outlines)
        self._answers: dict[str, _Answer] = {}

    def report(self, submission: Submission, scheduler: Scheduler) -> JobReport:
        """Return what is known of a submission's jobs.

        The scheduler is asked once for the open submissions of all tasks; its answer holds for the shortest
        time between two queries.
        """
        if not scheduler.detached:
            jobs = frozenset(submission.jobs)  # Without an id, it ended with the psy that started it.
            found = scheduler.query(jobs) if jobs else {}
            return _make_report(
                submission, _Answer(time=0.0, scheduler=scheduler, asked=jobs | {""}, states=found)
            )
        key = identify(scheduler, submission.scheduler, submission.options)
        answer = self._answers.get(key)
        if answer is None or time.monotonic() - answer.time > scheduler.poll[0]:
            answer = self._answers[key] = self._ask(key, submission, scheduler)
        try:
            unknown, silent = _find_ignorance(submission, answer)
        except SchedulerError as error:
            unknown, silent = _describe_error(submission, error)
        if unknown:
            states = dict.fromkeys(submission.numbers, JobState.UNKNOWN)
            return JobReport(submission=submission, states=states, unknown=unknown, silent=silent)
        return _make_report(submission, answer)

    def refresh(self) -> None:
        """Drop the answers, so that batch systems are asked again."""
        self._answers.clear()

    def read_jobs(self, outline: Outline) -> TaskJobs:
        """Return what is known of the jobs of a task.

        Raises
        ------
        FormatError
            If a submission can't be read.
        TaskFileError
            If the scheduler of a submission can't be found.
        """
        submissions = open_submissions(outline)
        return TaskJobs([self.report(each, find_scheduler(outline, each)) for each in submissions])

    def _ask(self, key: str, submission: Submission, scheduler: Scheduler) -> _Answer:
        jobs = set(submission.jobs)
        for outline in self._outlines:
            try:
                submissions = open_submissions(outline)
            except FormatError:  # An error of that task.
                continue
            for each in submissions:
                if identify(scheduler, each.scheduler, each.options) == key:
                    jobs.update(each.jobs)
        asked = frozenset(jobs)
        states, reasons, error = None, {}, ""
        try:
            states = scheduler.query(asked)
            stuck = [job for job, found in (states or {}).items() if JobState.STUCK in found.values()]
            reasons = dict(scheduler.explain(stuck)) if stuck else {}
        except SchedulerError as raised:
            error, _ = _describe_error(submission, raised)
        return _Answer(
            time=time.monotonic(),  # after the answer: a system that is down takes seconds to say so
            scheduler=scheduler,
            asked=asked,
            states=states,
            reasons=reasons,
            error=error,
        )


def _find_ignorance(submission: Submission, answer: _Answer) -> tuple[str, bool]:
    """Return why an answer tells nothing of a submission, '' if it does; and whether none was given.

    Absence means the end of jobs of this user and this system only.
    """
    kind, scheduler = submission.scheduler, answer.scheduler
    if answer.error:
        return answer.error, False
    if answer.states is None:
        return f"{kind} does not answer", True
    system = scheduler.system() if submission.system else ""
    if submission.system != system:
        return f"they were submitted to {submission.system}, and this is {system or 'another'}", False
    there = submission.job in answer.states
    if submission.job is None and submission.ours:
        return f"{kind} was not asked for them by name yet", True
    if not (there or submission.ours) and (submission.job is None or not scheduler.shows_others()):
        return f"{kind} does not show the jobs of {submission.submitter} to others", False
    return "", False


def _describe_error(submission: Submission, error: SchedulerError) -> tuple[str, bool]:
    """Return why nothing is known after an error, and whether there was no answer."""
    if isinstance(error, NoAnswerError):
        return f"{submission.scheduler} does not answer", True
    return f"{submission.scheduler} can't be asked here ({error})", False


def _make_report(submission: Submission, answer: _Answer) -> JobReport:
    """Return a report from an answer that tells of a submission."""
    job, numbers = submission.job or "", submission.numbers
    found = _find_states(job, answer)
    all_of_it = dict.fromkeys(range(len(numbers)), found[-1]) if -1 in found else found
    given_up = {element for element, end in submission.ends.items() if end.final}
    stuck = {e for e, state in all_of_it.items() if state is JobState.STUCK}
    why = {e: answer.reasons.get((job, e), answer.reasons.get((job, -1), "held")) for e in stuck}
    merge = _find_states(submission.merge, answer) if submission.merge else {}
    return JobReport(
        submission=submission,
        states={
            numbers[e]: state
            for e, state in all_of_it.items()
            if e < len(numbers) and e not in stuck & given_up
        },
        stuck={numbers[e]: why[e] for e in sorted(stuck - given_up)},
        abandoned=stuck & given_up,
        plain=-1 in found,
        merges=bool(merge) and JobState.STUCK not in merge.values(),
    )


def _find_states(job: str, answer: _Answer) -> Mapping[int, JobState]:
    """Return the states of a job; one that was submitted after the question is in the queue."""
    if job not in answer.asked:
        return {-1: JobState.QUEUED}
    return (answer.states or {}).get(job, {})


def identify(scheduler: Scheduler, kind: str, options: Mapping[str, Any]) -> str:
    """Return a text that submissions share where one query tells of all."""
    return json.dumps([kind, {name: options.get(name) for name in sorted(scheduler.system_options)}])


def open_submissions(outline: Outline) -> list[Submission]:
    """Return the submissions of a task that are not closed."""
    return [each for each in list_submissions(outline.layout.jobs) if not each.closed]


def find_scheduler(outline: Outline, submission: Submission) -> Scheduler:
    """Return the scheduler of a submission of a task, configured as it was.

    Raises
    ------
    TaskFileError
        If neither an installed package nor the task file provides it.
    """
    scheduler = _create(outline, submission.scheduler)
    scheduler.configure(submission.options, outline.layout.folder.parent)
    return scheduler


def _create(outline: Outline, name: str) -> Scheduler:
    try:
        return create_scheduler(name)
    except LookupError as error:
        with open_task(outline) as task:
            if type(task.scheduler).__name__ == name:
                return task.scheduler
        raise TaskFileError(f"{outline.path}: there are jobs of the scheduler {name}, but {error}") from error
