"""The open submissions of a task: which of their batches are in flight, and why others ended."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psyrun.errors import DirtyError, NoAnswerError, PsyrunError
from psyrun.jobs.ends import Evidence, classify, element_log, read_last_error
from psyrun.jobs.queue import JobReport, TaskJobs, find_scheduler, identify, open_submissions
from psyrun.jobs.submit import resolve_options
from psyrun.scheduler import JobState
from psyrun.values import count
from psyrun.workdir import End, list_submissions, remove_submission, write_submission

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from psyrun.jobs.queue import QueueCache
    from psyrun.scheduler import Scheduler
    from psyrun.task import Outline, Task
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
        The scheduler, configured.
    system
        What its submissions have in common, from `identify`.
    queues
        Answers of batch systems.
    messages
        Messages for the user, to which methods append.
    """

    outline: Outline
    scheduler: Scheduler
    system: str
    queues: QueueCache
    messages: list[str]

    @property
    def kind(self) -> str:
        """Class name of the scheduler."""
        return type(self.scheduler).__name__

    # ------------------------------------------------------------------ finding

    def list_open(self) -> list[Submission]:
        """Return the open submissions, as far as their files tell."""
        ours = [each for each in open_submissions(self.outline) if each.scheduler == self.kind]
        return [
            each for each in ours if identify(self.scheduler, each.scheduler, each.options) == self.system
        ]

    def recover(self) -> list[Submission]:
        """Return the open submissions; ids that were not written down are looked up by name.

        A submission that the scheduler does not know by name was never submitted: its file is removed.
        """
        submissions = self.list_open()
        try:
            nameless = [each.token for each in submissions if self._may_find(each)]
            found = self.scheduler.find(nameless) if nameless else {}
        except NoAnswerError:
            found = None
        if found is None:
            return submissions
        recovered = []
        for each in submissions:
            if each.token not in nameless:
                recovered.append(each)
            elif each.token in found:
                recovered.append(replace(each, job=found[each.token]))
                write_submission(self.outline.layout.jobs, recovered[-1])
            else:
                self._remove(each)
        return recovered

    def _may_find(self, submission: Submission) -> bool:
        """Whether the id of a submission was not written down, and its name is looked up here."""
        if submission.job is not None or not submission.ours:
            return False
        return not submission.system or submission.system == self.scheduler.system()

    def drop_other_schedulers(self, *, take_over: bool = False) -> None:
        """Remove the submissions of schedulers that the task file named before.

        Parameters
        ----------
        take_over
            Whether to take over jobs as `take_over` does.

        Raises
        ------
        DirtyError
            If some of their jobs may be in flight.
        """
        for other in _trackers(self.outline, self.queues, but=self.system):
            if take_over:
                other.take_over()
                self.messages += other.messages
            for each in other.find_active(other.recover()):
                if each.states:
                    raise DirtyError(
                        f"{self.outline.path}: jobs of {other.kind} are in flight, and the scheduler is"
                        f" {self.kind} now; wait for them, or end them: psy kill {self.outline.name}"
                        f"{''.join(f'; {line}' for line in TaskJobs([each]).describe(self.outline.name))}"
                    )
                self._remove(each.submission)

    def find_active(self, submissions: Sequence[Submission]) -> list[JobReport]:
        """Return what is known of submissions' jobs."""
        reports = [self.queues.report(each, self.scheduler) for each in submissions]
        if self.scheduler.detached:
            return reports
        running = {JobState.RUNNING}  # A worker on another host may never end: its psy has lost the lock.
        return [
            each if running.issuperset(each.states.values()) else JobReport(submission=each.submission)
            for each in reports
        ]

    def take_over(self) -> None:
        """Give up jobs that can't be asked for here, and stuck ones, so that others can be submitted.

        Stuck jobs of this user are cancelled, unless others of the same array are not stuck: those stay, and
        the stuck ones are cancelled when these have ended.
        """
        told: Counter[str] = Counter()
        for report in self.find_active(self.recover()):
            each, n = report.submission, len(report.states)
            if report.lost:
                self._remove(each)
                told[f"given up: {report.unknown}"] += n
            elif report.stuck and each.ours and len(report.stuck) == n:
                self.scheduler.cancel(each.jobs)
                self._remove(each)
                told["cancelled (stuck)"] += n
            elif report.stuck:
                now, elements = time.time(), {number: e for e, number in enumerate(each.numbers)}
                ends = {
                    elements[number]: End(since=now, reason=f"stuck: {why}", final=True)
                    for number, why in report.stuck.items()
                }
                self.record(each, ends, closed=False)
                told["replaced (stuck, and left in the queue)"] += len(ends)
        for what, n in told.items():
            self._note(f"{count(n, 'job')} {what}")

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
        """Cancel submissions of this user without any batch that the plan wants; return the others."""
        wanted = {batch.number for batch in plan.batches}
        outdated = [each for each in submissions if wanted.isdisjoint(each.numbers)]
        if not outdated or not self.scheduler.detached:
            return list(submissions)
        found = self.find_active(outdated)
        ours = [each for each in found if each.submission.ours and not each.lost]
        active = sum(len(each.states) for each in ours)
        kept = [each for each in submissions if each not in [found.submission for found in ours]]
        merges = {each.merge for each in kept}  # A job that merges may wait for several submissions.
        try:
            self.scheduler.cancel({job for each in ours for job in each.submission.jobs} - merges)
        except NoAnswerError:
            self._note(f"{active:,} jobs are outdated; they are cancelled once the batch system answers")
            return list(submissions)
        for each in ours:
            self._remove(each.submission)
        if active:
            self._note(f"{active:,} jobs in flight were outdated by an edit and are cancelled")
        for line in describe_left(self.outline.name, [each for each in found if each not in ours]):
            self._note(f"outdated by an edit: {line}")
        return kept

    def update(self, reports: Sequence[JobReport], progress: PlanProgress) -> set[int]:
        """Record why jobs ended before their rows were there, and remove submissions that did their work.

        Parameters
        ----------
        reports
            Open submissions, from `find_active` before the rows were counted.
        progress
            How far the task is.

        Returns
        -------
        set
            The batches of the plan that are in flight, or whose files may still show up.
        """
        in_flight: set[int] = set()
        unfinished = {each.batch.number for each in progress.batches if each.missing or each.failed}
        found = self.find_ends(reports, progress)
        for report, (each, ends) in zip(reports, found):
            late = {each.numbers[element] for element, end in ends.items() if not end.final}
            if report.abandoned and each.ours and unfinished.isdisjoint(report.states.keys() | late):
                self.scheduler.cancel(each.jobs)
                report = replace(report, states={}, abandoned=())
            self.record(each, ends, closed=not (report.states or report.abandoned or late))
            in_flight |= report.states.keys() | late
        for line in TaskJobs(reports).only(silent=True).describe(self.outline.name):
            self._note(line)
        self._report(found)
        return in_flight & {each.batch.number for each in progress.batches}

    def find_ends(
        self, reports: Sequence[JobReport], progress: PlanProgress
    ) -> list[tuple[Submission, Ends]]:
        """Return the submissions, each with the ends of its elements that ended early.

        The batch system is asked once for all, and nothing is written.
        """
        missing = {each.batch.number for each in progress.batches if each.missing}
        unfinished = missing | {each.batch.number for each in progress.batches if each.failed}
        early = [
            (each.submission, each.submission.ended_early(each.states.keys(), unfinished)) for each in reports
        ]
        jobs = [each.job for each, elements in early if elements and each.job is not None]
        reasons = self.scheduler.explain(jobs) if jobs else {}
        return [
            (each, {element: self._find_end(each, element, reasons, missing) for element in elements})
            for each, elements in early
        ]

    def _find_end(
        self,
        submission: Submission,
        element: int,
        reasons: Mapping[tuple[str, int], str],
        missing: Collection[int],
    ) -> End:
        now, job = time.time(), submission.job or ""
        before = submission.ends.get(element, End(since=now))
        error, printed = read_last_error(self.outline.layout, submission, element)
        evidence = Evidence(
            lost=submission.numbers[element] in missing,
            since=before.since,
            reported=reasons.get((job, element), reasons.get((job, -1), before.reason)),
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

    def _report(self, found: Sequence[tuple[Submission, Ends]]) -> None:
        """Tell the user of final ends, those with the same reason together."""
        logs: dict[str, list[Path]] = defaultdict(list)
        for each, ends in found:
            for element, end in ends.items():
                if end.final and end.reason:
                    logs[end.reason].append(self._log(each, element))
        late = sum(not end.final for _, ends in found for end in ends.values())
        if late:
            self._note(f"{late:,} of its jobs left the queue, and their files may still show up")
        for reason, paths in logs.items():
            head = f"{len(paths):,} of its jobs ended early: {reason}" if self.scheduler.detached else reason
            self._note(f"{head}\n  (log: {self.outline.layout.relative(paths[0])})")

    def _log(self, submission: Submission, element: int) -> Path:
        log = element_log(self.outline.layout, submission, element)
        return log if log.exists() else self.outline.layout.log / f"{submission.token}.log"

    def _note(self, message: str) -> None:
        if message not in self.messages:
            self.messages.append(message)

    def _remove(self, submission: Submission) -> None:
        remove_submission(self.outline.layout.jobs, submission.token)


def track_jobs(task: Task, queues: QueueCache) -> JobTracker:
    """Configure the scheduler of a task, and return a tracker of the jobs at its system."""
    outline, kind = task.outline, type(task.scheduler).__name__
    options = resolve_options(task.scheduler_args, f"{task.name}:process")
    task.scheduler.configure(options, outline.layout.folder.parent)
    return JobTracker(outline, task.scheduler, identify(task.scheduler, kind, options), queues, [])


def _trackers(outline: Outline, queues: QueueCache, but: str = "") -> Iterator[JobTracker]:
    """Yield a tracker for each system, but one, that has open submissions of a task."""
    systems: dict[str, Scheduler] = {}
    for each in open_submissions(outline):
        scheduler = find_scheduler(outline, each)
        systems.setdefault(identify(scheduler, each.scheduler, each.options), scheduler)
    for key in sorted(systems.keys() - {but}):
        yield JobTracker(outline, systems[key], key, queues, [])


def find_active(outline: Outline, queues: QueueCache) -> TaskJobs:
    """Return what is known of the jobs of a task that are, or may be, in flight; its lock is to be held.

    Raises
    ------
    FormatError
        If a submission can't be read.
    """
    trackers = _trackers(outline, queues)
    return TaskJobs(
        [found for each in trackers for found in each.find_active(each.recover()) if found.states]
    )


def explain_ends(outline: Outline, queues: QueueCache, progress: PlanProgress) -> dict[int, str]:
    """Return batch -> reason of jobs that ended early, recorded or known to batch systems now.

    Nothing is written.
    """
    found: dict[int, str] = {}
    for submission in list_submissions(outline.layout.jobs):
        found |= submission.reasons()
    with suppress(PsyrunError):  # Without an answer, what is recorded has to do.
        for _, submission, ends in _find_new_ends(outline, queues, progress):
            found |= replace(submission, ends=ends).reasons()
    return found


def note_ends(outline: Outline, queues: QueueCache, progress: PlanProgress) -> None:
    """Record why jobs of a task ended early, which batch systems soon forget; the next run reports it."""
    for tracker, submission, ends in _find_new_ends(outline, queues, progress):
        waiting = {element: replace(end, final=False) for element, end in ends.items()}
        tracker.record(submission, waiting, closed=False)


def _find_new_ends(
    outline: Outline, queues: QueueCache, progress: PlanProgress
) -> Iterator[tuple[JobTracker, Submission, Ends]]:
    """Yield the open submissions of batch systems, with the ends that are not final in their files."""
    for tracker in _trackers(outline, queues):
        if tracker.scheduler.detached:
            ours = tracker.find_active([each for each in tracker.list_open() if each.job])
            yield from ((tracker, *found) for found in tracker.find_ends(ours, progress))


def cancel_jobs(outline: Outline, queues: QueueCache) -> tuple[int, list[str], list[str]]:
    """Cancel the jobs of this user in a task's own submission files, and no others.

    Finished rows are kept; the next run goes on there.

    Returns
    -------
    tuple
        How many were in flight, lines about those that others can cancel, and lines about those of this user
        that can't be asked for here.

    Raises
    ------
    NoAnswerError
        If the batch system can't be reached.
    """
    cancelled, left = 0, []
    end = End(since=time.time(), reason="cancelled", final=True)
    for tracker in _trackers(outline, queues):
        reports = [queues.report(each, tracker.scheduler) for each in tracker.recover()]
        ours = [each for each in reports if each.submission.ours and each.submission.job and not each.lost]
        left += [each for each in reports if each not in ours]
        tracker.scheduler.cancel({job for each in ours for job in each.submission.jobs})
        for each in ours:
            cancelled += each.jobs
            ends = dict.fromkeys(range(len(each.submission.batches)), end)
            if tracker.scheduler.detached:
                tracker.record(each.submission, ends, closed=True)
    lost = TaskJobs([each for each in left if each.submission.ours])
    others = [each for each in left if not each.submission.ours]
    return cancelled, list(describe_left(outline.name, others)), list(lost.describe(outline.name))


def describe_left(name: str, reports: Sequence[JobReport]) -> Iterator[str]:
    """Yield lines about jobs that this user can't cancel here, with who can."""
    yield from TaskJobs([each for each in reports if each.submission.ours]).describe(name)
    others: Counter[tuple[str, bool]] = Counter()
    for each in reports:
        if not each.submission.ours:
            others[str(each.submission.submitter), bool(each.unknown)] += each.jobs
    for (user, unknown), n in others.items():
        if n:
            left = "may be left" if unknown else "is left" if n == 1 else "are left"
            it = "it" if n == 1 else "them"
            yield f"{count(n, 'job')} of {user} {left}; {user} can cancel {it}: psy kill {name}"
