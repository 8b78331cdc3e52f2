"""States of the jobs of a project's tasks; each batch system is asked once for all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psyrun.errors import FormatError, TaskFileError
from psyrun.scheduler import JobState, create_scheduler
from psyrun.task import open_task
from psyrun.workdir import list_submissions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psyrun.scheduler import Scheduler
    from psyrun.task import Outline
    from psyrun.workdir import Submission


States = Mapping[int, JobState] | None


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

    def element_states(self, submission: Submission, scheduler: Scheduler) -> States:
        """Return element -> state of a submission's job; None where it is unknown.

        The scheduler is asked once for the open submissions of all tasks; its answer holds for the shortest
        time between two queries.
        """
        if submission.job is None:
            return None
        answer = self._answers.get(submission.scheduler)
        if answer is None or time.monotonic() - answer.time > scheduler.poll[0]:
            answer = self._ask(submission, scheduler)
        if answer.states is None:
            return None
        if submission.job not in answer.asked:  # It was submitted a moment ago.
            return dict.fromkeys(range(len(submission.batches)), JobState.QUEUED)
        return answer.states.get(submission.job, {})

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
            scheduler = find_scheduler(outline, submission.scheduler)
            found |= by_batch(submission, self.element_states(submission, scheduler))
        return found

    def _ask(self, submission: Submission, scheduler: Scheduler) -> _Answer:
        jobs = {submission.job} if submission.job is not None else set()
        for outline in self._outlines:
            try:
                submissions = open_submissions(outline)
            except FormatError:  # An error of that task.
                continue
            jobs |= {each.job for each in submissions if each.job and each.scheduler == submission.scheduler}
        answer = _Answer(time.monotonic(), frozenset(jobs), scheduler.query(jobs))
        self._answers[submission.scheduler] = answer
        return answer


def open_submissions(outline: Outline) -> list[Submission]:
    """Return the submissions of a task that are not closed."""
    return [each for each in list_submissions(outline.layout.jobs) if not each.closed]


def by_batch(submission: Submission, states: States) -> dict[int, JobState]:
    """Return batch -> state of those that are in the queue, or may be.

    Parameters
    ----------
    submission
        The submission.
    states
        Element -> state, -1 standing for all of them; None where it is unknown.
    """
    numbers = submission.numbers
    if states is None:
        return dict.fromkeys(numbers, JobState.UNKNOWN)
    if -1 in states:
        return dict.fromkeys(numbers, states[-1])
    return {number: states[element] for element, number in enumerate(numbers) if element in states}


def find_scheduler(outline: Outline, name: str) -> Scheduler:
    """Return a scheduler by the class name that a submission of a task names.

    Raises
    ------
    TaskFileError
        If neither an installed package nor the task file provides it.
    """
    try:
        return create_scheduler(name)
    except LookupError as error:
        with open_task(outline) as task:
            if type(task.scheduler).__name__ == name:
                return task.scheduler
        raise TaskFileError(f"{outline.path}: there are jobs of the scheduler {name}, but {error}") from error
