"""The open submissions of a task: which of their batches are in flight, and why others ended."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psyrun.errors import DirtyError, NoAnswerError, PsyrunError
from psyrun.jobs.ends import Evidence, classify, element_log, read_last_error
from psyrun.jobs.queue import by_batch, find_scheduler, open_submissions
from psyrun.scheduler import JobState
from psyrun.workdir import End, list_submissions, write_submission

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from psyrun.jobs.queue import QueueCache
    from psyrun.scheduler import Scheduler
    from psyrun.task import Outline
    from psyrun.workdir import Plan, PlanProgress, Submission


Ends = dict[int, End]


@dataclass(slots=True)
class JobTracker:
    """The open submissions of a task and a scheduler; methods that write need the task's lock.

    Parameters
    ----------
    outline
        The task.
    scheduler
        The scheduler.
    queues
        Answers of batch systems.
    messages
        Messages for the user, to which methods append.
    """

    outline: Outline
    scheduler: Scheduler
    queues: QueueCache
    messages: list[str]

    @property
    def kind(self) -> str:
        """Class name of the scheduler."""
        return type(self.scheduler).__name__

    # ------------------------------------------------------------------ finding

    def list_open(self) -> list[Submission]:
        """Return the open submissions, as far as their files tell."""
        return [each for each in open_submissions(self.outline) if each.scheduler == self.kind]

    def recover(self) -> list[Submission]:
        """Return the open submissions; ids that were not written down are looked up by name.

        A submission that the scheduler does not know by name was never submitted: its file is removed.
        """
        submissions = self.list_open()
        nameless = [each.token for each in submissions if each.job is None]
        found = self.scheduler.find(nameless) if nameless else {}
        if found is None:
            return submissions
        recovered = []
        for each in submissions:
            if each.job is not None:
                recovered.append(each)
            elif each.token in found:
                recovered.append(replace(each, job=found[each.token]))
                write_submission(self.outline.layout.jobs, recovered[-1])
            else:
                self._remove(each)
        return recovered

    def drop_other_schedulers(self) -> None:
        """Remove the submissions of schedulers that the task file named before.

        Raises
        ------
        DirtyError
            If some of their jobs may be in flight.
        """
        for other in _trackers(self.outline, self.queues, but=self.kind):
            for each in other.recover():
                if other.find_active([each])[each.token]:
                    raise DirtyError(
                        f"{self.outline.path}: jobs of {other.kind} are in flight, and the scheduler is"
                        f" {self.kind} now; wait for them, or end them: psy kill {self.outline.name}"
                    )
                self._remove(each)

    def find_active(self, submissions: Sequence[Submission]) -> dict[str, dict[int, JobState]]:
        """Return token -> batch -> state of those in the queue."""
        return {each.token: self._find_active(each) for each in submissions}

    def _find_active(self, submission: Submission) -> dict[int, JobState]:
        if self.scheduler.detached:
            states = self.queues.element_states(submission, self.scheduler)
            if states is None:
                self._note(f"{self.kind} does not answer: nothing is submitted again meanwhile")
            return by_batch(submission, states)
        if submission.job is None:
            return {}
        states = (self.scheduler.query([submission.job]) or {}).get(submission.job, {})
        # A worker on another host may never end: its psy has lost the lock.
        return by_batch(submission, states) if states.get(-1) is JobState.RUNNING else {}

    # ------------------------------------------------------------------ ending

    def drop_ends(self, numbers: Collection[int]) -> None:
        """Drop end reasons of batches that are complete or will be retried."""
        for each in list_submissions(self.outline.layout.jobs):
            ends = {e: end for e, end in each.ends.items() if each.numbers[e] not in numbers}
            if each.closed and (not ends or set(each.numbers) <= set(numbers)):
                self._remove(each)
            elif each.closed and ends != each.ends:
                write_submission(self.outline.layout.jobs, replace(each, ends=ends))

    def cancel_outdated(self, submissions: Sequence[Submission], plan: Plan) -> list[Submission]:
        """Cancel submissions without any batch that the plan wants; return the others."""
        wanted = {batch.number for batch in plan.batches}
        outdated = [each for each in submissions if wanted.isdisjoint(each.numbers)]
        if not outdated or not self.scheduler.detached:
            return list(submissions)
        active = sum(map(len, self.find_active(outdated).values()))
        try:
            self.scheduler.cancel([job for each in outdated for job in each.jobs])
        except NoAnswerError:
            self._note(f"{active:,} jobs are outdated; they are cancelled once the batch system answers")
            return list(submissions)
        for each in outdated:
            self._remove(each)
        if active:
            self._note(f"{active:,} jobs in flight were outdated by an edit and are cancelled")
        return [each for each in submissions if each not in outdated]

    def update(
        self,
        submissions: Sequence[Submission],
        active: Mapping[str, Mapping[int, JobState]],
        progress: PlanProgress,
    ) -> set[int]:
        """Record why jobs ended before their rows were there, and remove submissions that did their work.

        Parameters
        ----------
        submissions
            Open submissions.
        active
            Answer of `find_active`, from before the rows were counted.
        progress
            How far the task is.

        Returns
        -------
        set
            The batches that are in flight, or whose files may still show up.
        """
        in_flight: set[int] = set()
        ends = self.find_ends(submissions, active, progress)
        for each in submissions:
            late = {each.numbers[e] for e, end in ends[each.token].items() if not end.final}
            self.record(each, ends[each.token], closed=not active[each.token] and not late)
            in_flight |= late | active[each.token].keys()
        self._report(submissions, ends)
        return in_flight

    def find_ends(
        self,
        submissions: Sequence[Submission],
        active: Mapping[str, Mapping[int, JobState]],
        progress: PlanProgress,
    ) -> dict[str, Ends]:
        """Return token -> element -> its end, for elements that ended early.

        The batch system is asked once for all, and nothing is written.
        """
        missing = {each.batch.number for each in progress.batches if each.missing}
        unfinished = missing | {each.batch.number for each in progress.batches if each.failed}
        early = {each.token: each.ended_early(active[each.token], unfinished) for each in submissions}
        jobs = [each.job for each in submissions if early[each.token] and each.job is not None]
        reasons = self.scheduler.explain(jobs) if jobs else {}
        found: dict[str, Ends] = {each.token: {} for each in submissions}
        for each in submissions:
            for element in early[each.token]:
                reason = reasons.get((each.job or "", element), reasons.get((each.job or "", -1)))
                lost = each.numbers[element] in missing
                found[each.token][element] = self._find_end(each, element, reason, lost=lost)
        return found

    def _find_end(self, submission: Submission, element: int, reason: str | None, *, lost: bool) -> End:
        now = time.time()
        before = submission.ends.get(element, End(since=now))
        error, printed = read_last_error(self.outline.layout, submission, element)
        evidence = Evidence(
            job=submission.job,
            lost=lost,
            since=before.since,
            reported=reason or before.reason,
            error=error,
            printed=printed,
        )
        return classify(evidence, self.scheduler, now)

    def record(self, submission: Submission, ends: Ends, *, closed: bool) -> None:
        """Write ends down, which batch systems soon forget; remove a closed submission without any."""
        known = {e: end for e, end in {**submission.ends, **ends}.items() if end.reason or not end.final}
        after = replace(submission, ends=known, closed=closed)
        if closed and not known:
            self._remove(submission)
        elif after != submission:
            write_submission(self.outline.layout.jobs, after)

    def _report(self, submissions: Sequence[Submission], ends: Mapping[str, Ends]) -> None:
        """Tell the user of final ends, those with the same reason together."""
        groups: dict[str, list[Path]] = defaultdict(list)
        for each in submissions:
            for element, end in ends[each.token].items():
                if end.final and end.reason:
                    groups[end.reason].append(self._log(each, element))
        for reason, logs in groups.items():
            head = f"{len(logs):,} of its jobs ended early: {reason}" if self.scheduler.detached else reason
            self._note(f"{head}\n  (log: {self.outline.layout.relative(logs[0])})")

    def _log(self, submission: Submission, element: int) -> Path:
        log = element_log(self.outline.layout, submission, element)
        return log if log.exists() else self.outline.layout.log / f"{submission.token}.log"

    def _note(self, message: str) -> None:
        if message not in self.messages:
            self.messages.append(message)

    def _remove(self, submission: Submission) -> None:
        (self.outline.layout.jobs / f"{submission.token}.json").unlink(missing_ok=True)


def _trackers(outline: Outline, queues: QueueCache, but: str = "") -> Iterator[JobTracker]:
    """Yield a tracker for each scheduler, but one, that has open submissions of a task."""
    for name in sorted({each.scheduler for each in open_submissions(outline)} - {but}):
        yield JobTracker(outline, find_scheduler(outline, name), queues, [])


def count_active(outline: Outline, queues: QueueCache) -> int:
    """Count the batches of a task that are, or may be, in flight; its lock is to be held.

    Raises
    ------
    FormatError
        If a submission can't be read.
    """
    found = [tracker.find_active(tracker.recover()) for tracker in _trackers(outline, queues)]
    return sum(len(states) for active in found for states in active.values())


def explain_ends(outline: Outline, queues: QueueCache, progress: PlanProgress) -> dict[int, str]:
    """Return batch -> reason of jobs that ended early, recorded or known to batch systems now.

    Nothing is written.
    """
    found: dict[int, str] = {}
    for submission in list_submissions(outline.layout.jobs):
        found |= submission.reasons()
    with suppress(PsyrunError):  # Without an answer, what is recorded has to do.
        for submission, ends, _ in _find_new_ends(outline, queues, progress):
            found |= replace(submission, ends=ends).reasons()
    return found


def note_ends(outline: Outline, queues: QueueCache, progress: PlanProgress) -> None:
    """Record why jobs of a task ended early, which batch systems soon forget; the next run reports it."""
    for submission, ends, tracker in _find_new_ends(outline, queues, progress):
        waiting = {element: replace(end, final=False) for element, end in ends.items()}
        tracker.record(submission, waiting, closed=False)


def _find_new_ends(
    outline: Outline, queues: QueueCache, progress: PlanProgress
) -> Iterator[tuple[Submission, Ends, JobTracker]]:
    """Yield the open submissions of batch systems, with the ends that are not final in their files."""
    for tracker in _trackers(outline, queues):
        ours = [each for each in tracker.list_open() if each.job and tracker.scheduler.detached]
        ends = tracker.find_ends(ours, tracker.find_active(ours), progress)
        yield from ((each, ends[each.token], tracker) for each in ours)


def cancel_jobs(outline: Outline, queues: QueueCache) -> int:
    """Cancel the jobs in a task's own submission files, and no others; return how many were in flight.

    Finished rows are kept; the next run goes on there.

    Raises
    ------
    NoAnswerError
        If the batch system can't be reached.
    """
    cancelled = 0
    end = End(since=time.time(), reason="cancelled", final=True)
    for tracker in _trackers(outline, queues):
        ours = [each for each in tracker.recover() if each.job]
        states = [queues.element_states(each, tracker.scheduler) for each in ours]
        tracker.scheduler.cancel([job for each in ours for job in each.jobs])
        cancelled += sum(len(found or ()) for found in states)
        for each in ours if tracker.scheduler.detached else ():
            tracker.record(each, dict.fromkeys(range(len(each.batches)), end), closed=True)
    return cancelled
