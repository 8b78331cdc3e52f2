"""States of the jobs of a project's tasks; each batch system is asked once for all of them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psyrun.errors import FormatError, SchedulerError, TaskFileError
from psyrun.scheduler import JobState, create_scheduler
from psyrun.task import open_task
from psyrun.workdir import list_submissions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from psyrun.scheduler import Scheduler
    from psyrun.task import Outline
    from psyrun.workdir import Submission


@dataclass(frozen=True, slots=True)
class JobReport:
    """What is known of a submission's job.

    Parameters
    ----------
    states
        Element -> state, -1 standing for all of them; without those that left the queue.
    unknown
        Why nothing is known of it; '' where something is.
    """

    states: Mapping[int, JobState] = field(default_factory=dict)
    unknown: str = ""

    def by_batch(self, submission: Submission) -> dict[int, JobState]:
        """Return batch -> state of those that are in the queue, or may be."""
        numbers = submission.numbers
        if self.unknown:
            return dict.fromkeys(numbers, JobState.UNKNOWN)
        if -1 in self.states:
            return dict.fromkeys(numbers, self.states[-1])
        return {number: self.states[k] for k, number in enumerate(numbers) if k in self.states}


@dataclass(frozen=True, slots=True)
class _Answer:
    time: float
    asked: frozenset[str]
    states: Mapping[str, Mapping[int, JobState]] | None


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
        """Return what is known of a submission's job.

        The scheduler is asked once for the open submissions of all tasks; its answer holds for the shortest
        time between two queries.
        """
        kind = submission.scheduler
        if submission.job is None:
            return JobReport(unknown=f"{kind} was not asked for them by name yet")
        key = identify(scheduler, submission.scheduler, submission.options)
        answer = self._answers.get(key)
        if answer is None or time.monotonic() - answer.time > scheduler.poll[0]:
            answer = self._ask(key, submission.job, scheduler)
        if answer.states is None:
            return JobReport(unknown=f"{kind} does not answer")
        if submission.job not in answer.asked:  # It was submitted a moment ago.
            return JobReport(dict.fromkeys(range(len(submission.batches)), JobState.QUEUED))
        try:
            return self._judge(submission, scheduler, answer.states.get(submission.job, {}))
        except SchedulerError:
            return JobReport(unknown=f"{kind} does not answer")

    def _judge(
        self, submission: Submission, scheduler: Scheduler, states: Mapping[int, JobState]
    ) -> JobReport:
        """Return what an answer says: absence means the end of jobs of this user and this system only."""
        system = scheduler.system() if submission.system else ""
        if submission.system != system:
            return JobReport(unknown=f"they are jobs of {submission.system}, and this is {system}")
        if not (states or submission.ours or scheduler.shows_others()):
            kind = submission.scheduler
            return JobReport(unknown=f"{kind} does not show whether the jobs of {submission.submitter} run")
        return JobReport(states)

    def refresh(self) -> None:
        """Drop the answers, so that batch systems are asked again."""
        self._answers.clear()

    def batch_states(self, outline: Outline) -> dict[int, JobState]:
        """Return batch -> state of the batches of a task that are in flight.

        Raises
        ------
        FormatError
            If a submission can't be read.
        TaskFileError
            If the scheduler of a submission can't be found.
        """
        found: dict[int, JobState] = {}
        for submission in open_submissions(outline):
            scheduler = find_scheduler(outline, submission)
            found |= self.report(submission, scheduler).by_batch(submission)
        return found

    def _ask(self, key: str, job: str, scheduler: Scheduler) -> _Answer:
        jobs = {job}
        for outline in self._outlines:
            try:
                submissions = open_submissions(outline)
            except FormatError:  # An error of that task.
                continue
            jobs |= {
                each.job
                for each in submissions
                if each.job and identify(scheduler, each.scheduler, each.options) == key
            }
        answer = _Answer(time.monotonic(), frozenset(jobs), scheduler.query(jobs))
        self._answers[key] = answer
        return answer


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
