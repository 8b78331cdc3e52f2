"""The open submissions of a task: which of their batches are in flight, and why others ended."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psyrun.errors import DirtyError, NoAnswerError, PsyrunError
from psyrun.jobs.queue import by_batch, find_scheduler, open_submissions
from psyrun.scheduler import JobState
from psyrun.workdir import list_submissions, write_submission

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from psyrun.jobs.queue import QueueCache
    from psyrun.scheduler import Scheduler
    from psyrun.task import Outline
    from psyrun.workdir import Plan, PlanProgress, Submission


_ERROR = "psyrun: error: "
_TAIL = 20_000  # bytes of a log that may hold the last error


@dataclass(slots=True)
class JobTracker:
    """The open submissions of a task, looked after by whoever holds its lock.

    Parameters
    ----------
    outline
        The task.
    scheduler
        Its scheduler.
    queues
        What batch systems say.
    messages
        What the user should know.
    """

    outline: Outline
    scheduler: Scheduler
    queues: QueueCache
    messages: list[str]

    # ------------------------------------------------------------------ looking

    def find(self) -> list[Submission]:
        """Return the open submissions, having found the ids that their submitter did not come to write."""
        kind = type(self.scheduler).__name__
        there = [each for each in open_submissions(self.outline) if each.scheduler == kind]
        nameless = [each.token for each in there if each.job is None]
        found = self.scheduler.find(nameless) if nameless else {}
        return [healed for each in there if (healed := self._heal(each, found)) is not None]

    def forget_others(self) -> None:
        """Forget the submissions of a scheduler that the task file named before.

        Raises
        ------
        DirtyError
            If they may be in flight.
        """
        kind = type(self.scheduler).__name__
        for name in {each.scheduler for each in open_submissions(self.outline)} - {kind}:
            other = replace(self, scheduler=find_scheduler(self.outline, name))
            for each in other.find():
                if other.look([each])[each.token]:
                    raise DirtyError(
                        f"{self.outline.path}: jobs of {name} are in flight, and the scheduler is {kind} now;"
                        f" wait for them, or end them: psy kill {self.outline.name}"
                    )
                self._path(each).unlink(missing_ok=True)

    def _heal(self, submission: Submission, found: Mapping[str, str] | None) -> Submission | None:
        if submission.job is not None or found is None:
            return submission
        if submission.token not in found:  # It was never submitted.
            self._path(submission).unlink(missing_ok=True)
            return None
        healed = submission.with_job(found[submission.token])
        write_submission(self.outline.layout.jobs, healed)
        return healed

    def look(self, submissions: Sequence[Submission]) -> dict[str, dict[int, JobState]]:
        """Return token -> batch -> state of those in flight."""
        return {each.token: self._look(each) for each in submissions}

    def _look(self, submission: Submission) -> dict[int, JobState]:
        if self.scheduler.detached:
            states = self.queues.element_states(submission, self.scheduler)
            if states is None:
                kind = type(self.scheduler).__name__
                self._say(f"{kind} does not answer: nothing is submitted again meanwhile")
            return by_batch(submission, states)
        jobs = [submission.job] if submission.job else []
        states = (self.scheduler.query(jobs) or {}).get(submission.job or "", {})
        # A worker on another host: whoever attended it has lost the lock, and may be lost altogether.
        return by_batch(submission, states) if states.get(-1) is JobState.RUNNING else {}

    def _say(self, message: str) -> None:
        if message not in self.messages:
            self.messages.append(message)

    # ------------------------------------------------------------------ ending

    def forget(self, numbers: Collection[int]) -> None:
        """Forget why jobs of these batches ended: their rows are there, or are tried once more."""
        for each in list_submissions(self.outline.layout.jobs):
            if not each.over:
                continue
            of = {str(element): number for element, number in enumerate(each.numbers)}
            ended = {element: why for element, why in each.ended.items() if of.get(element) not in numbers}
            if not ended or set(each.numbers) <= set(numbers):
                self._path(each).unlink(missing_ok=True)
            elif ended != each.ended:
                write_submission(self.outline.layout.jobs, replace(each, ended=ended))

    def cancel_outdated(self, submissions: Sequence[Submission], plan: Plan) -> list[Submission]:
        """Cancel submissions none of whose batches the plan wants; return the others."""
        wanted = {batch.number for batch in plan.batches}
        outdated = [each for each in submissions if wanted.isdisjoint(each.numbers)]
        if not outdated or not self.scheduler.detached:
            return list(submissions)
        flying = sum(map(len, self.look(outdated).values()))
        try:
            self.scheduler.cancel([job for each in outdated for job in (each.job, each.merge) if job])
        except NoAnswerError:
            self._say(f"{flying:,} jobs are outdated; they are cancelled once the batch system answers")
            return list(submissions)
        for each in outdated:
            self._path(each).unlink(missing_ok=True)
        if flying:
            self._say(f"{flying:,} jobs in flight were outdated by an edit and are cancelled")
        return [each for each in submissions if each not in outdated]

    def settle(
        self,
        submissions: Sequence[Submission],
        flying: Mapping[str, Mapping[int, JobState]],
        survey: PlanProgress,
    ) -> dict[int, JobState]:
        """Keep why jobs ended before their rows were there, and forget those that did their work.

        Parameters
        ----------
        submissions
            Open submissions.
        flying
            What `look` said of them, before the survey.
        survey
            How far the task is.

        Returns
        -------
        dict
            Batch -> state of what is in flight, or left the queue so lately that its files may show up yet.
        """
        missing = {progress.batch.number for progress in survey.batches if progress.missing}
        failed = {progress.batch.number for progress in survey.batches if progress.failed}
        unfinished = missing | failed
        found: dict[int, JobState] = {}
        ended: dict[str, list[int]] = {}
        submissions = self.note_ends(submissions, flying, unfinished)
        for each in submissions:
            there, late = flying[each.token], self._note_gone(each, flying[each.token], missing)
            found |= dict.fromkeys((each.numbers[element] for element in late), JobState.UNKNOWN) | dict(
                there
            )
            ended[each.token] = [e for e in _find_gone(each, there, unfinished) if e not in late]
        self._close(submissions, found, ended, missing)
        return found

    def note_ends(
        self,
        submissions: Sequence[Submission],
        flying: Mapping[str, Mapping[int, JobState]],
        unfinished: Collection[int],
    ) -> list[Submission]:
        """Write down why elements ended, which systems soon forget; return the submissions with that.

        Parameters
        ----------
        submissions
            Open submissions.
        flying
            What `look` said of them.
        unfinished
            Batches that have rows without values.
        """
        noted = self.ask_ends(submissions, flying, unfinished)
        for before, after in zip(submissions, noted):
            if before.told != after.told:
                write_submission(self.outline.layout.jobs, after)
        return noted

    def ask_ends(
        self,
        submissions: Sequence[Submission],
        flying: Mapping[str, Mapping[int, JobState]],
        unfinished: Collection[int],
    ) -> list[Submission]:
        """Return the submissions with what the batch system, asked once, tells of elements that ended."""
        gone = {each.token: _find_gone(each, flying[each.token], unfinished) for each in submissions}
        asked = [each.job for each in submissions if gone[each.token] and each.job is not None]
        reasons = self.scheduler.explain(asked) if asked else {}
        found = []
        for each in submissions:
            job = each.job or ""
            why = {str(e): reasons.get((job, e), reasons.get((job, -1))) for e in gone[each.token]}
            fresh = {element: text for element, text in why.items() if text is not None}
            found.append(replace(each, told={**each.told, **fresh}))
        return found

    def _note_gone(
        self, submission: Submission, there: Mapping[int, JobState], missing: set[int]
    ) -> set[int]:
        """Return the elements that left the queue without their rows within the last moments."""
        now = time.time()
        gone = {e: submission.gone.get(str(e), now) for e in _find_gone(submission, there, missing)}
        late = {element for element, since in gone.items() if 0 <= now - since < self.scheduler.grace}
        if any(str(element) not in submission.gone for element in late):
            noted = {str(element): since for element, since in gone.items()}
            write_submission(self.outline.layout.jobs, replace(submission, gone={**submission.gone, **noted}))
        return late

    def _close(
        self,
        submissions: Sequence[Submission],
        flying: Mapping[int, JobState],
        ended: Mapping[str, Sequence[int]],
        missing: set[int],
    ) -> None:
        said: dict[str, list[tuple[Submission, int]]] = defaultdict(list)
        for each in submissions:
            known = dict(each.ended)
            for element in ended[each.token]:
                why = self.explain(each, element, lost=each.numbers[element] in missing)
                if why:
                    known[str(element)] = why.splitlines()[-1]
                    said[why].append((each, element))
            over = not any(number in flying for number in each.numbers)
            if over and not known:
                self._path(each).unlink(missing_ok=True)
            elif over or known != each.ended:
                gone = {element: since for element, since in each.gone.items() if element not in known}
                closed = replace(each, ended=known, gone=gone, over=over)
                write_submission(self.outline.layout.jobs, closed)
        for why, elements in said.items():
            self._tell(why, elements)

    def explain(self, submission: Submission, element: int, *, lost: bool) -> str | None:
        """Return why an element ended: the worker knows better than the system, where it could say so."""
        why = submission.told.get(str(element))
        said = self._last_words(submission, element) if lost or why is None else None
        if said is not None and said.startswith(_ERROR):
            return said.removeprefix(_ERROR)
        if why is None and lost and self.scheduler.detached:
            why = f"job {submission.job} left the queue without its rows"
        return f"{why} ({said})" if why and said and self.scheduler.detached else why

    def _last_words(self, submission: Submission, element: int) -> str | None:
        """Return the last error in the log; where the worker did not even begin, the last line."""
        own = _read_tail(self.outline.layout.log / f"{submission.numbers[element]}.log")
        _, begun, text = own.rpartition(submission.mark)
        if not begun:
            text = _read_tail(self._log(submission))
        _, found, said = text.rpartition(_ERROR)
        if found:
            return found + said.strip()
        lines = text.strip().splitlines()
        return lines[-1].strip()[:200] if lines and not begun and self.scheduler.detached else None

    def _tell(self, why: str, elements: Sequence[tuple[Submission, int]]) -> None:
        submission, element = elements[0]
        own = self.outline.layout.log / f"{submission.numbers[element]}.log"
        log = own if own.exists() else self._log(submission)
        head = why if not self.scheduler.detached else f"{len(elements):,} of its jobs ended early: {why}"
        self._say(f"{head}\n  (log: {self.outline.layout.relative(log)})")

    def _path(self, submission: Submission) -> Path:
        return self.outline.layout.jobs / f"{submission.token}.json"

    def _log(self, submission: Submission) -> Path:
        return self.outline.layout.log / f"{submission.token}.log"


def _read_tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def count_active(outline: Outline, queues: QueueCache) -> int:
    """Count the batches of a task that are, or may be, in flight; its lock is to be held.

    Raises
    ------
    FormatError
        If a submission can't be read.
    """
    flying = 0
    for name in {each.scheduler for each in open_submissions(outline)}:
        flights = JobTracker(outline, find_scheduler(outline, name), queues, [])
        flying += sum(map(len, flights.look(flights.find()).values()))
    return flying


def _find_gone(
    submission: Submission, there: Mapping[int, JobState], unfinished: Collection[int]
) -> list[int]:
    """Return the elements that ended before their rows were there, and are not given up yet."""
    return [
        element
        for element, number in enumerate(submission.numbers)
        if number in unfinished and number not in there and str(element) not in submission.ended
    ]


def _open_flights(outline: Outline, queues: QueueCache) -> Iterator[tuple[JobTracker, list[Submission]]]:
    """Yield the open submissions of a task whose ids are known, by scheduler."""
    there = open_submissions(outline)
    for name in sorted({each.scheduler for each in there}):
        flights = JobTracker(outline, find_scheduler(outline, name), queues, [])
        yield flights, [each for each in there if each.scheduler == name and each.job]


def explain_ends(outline: Outline, queues: QueueCache, survey: PlanProgress) -> dict[int, str]:
    """Return batch -> why its job ended early: what is noted, and what batch systems tell now.

    Nothing is written.
    """
    found: dict[int, str] = {}
    for submission in list_submissions(outline.layout.jobs):
        found |= submission.reasons()
    missing = {progress.batch.number for progress in survey.batches if progress.missing}
    unfinished = missing | {progress.batch.number for progress in survey.batches if progress.failed}
    with suppress(PsyrunError):  # Then nobody tells.
        for flights, ours in _open_flights(outline, queues):
            if not flights.scheduler.detached:
                continue
            flying = flights.look(ours)
            for each in flights.ask_ends(ours, flying, unfinished):
                for element in _find_gone(each, flying[each.token], unfinished):
                    number = each.numbers[element]
                    why = flights.explain(each, element, lost=number in missing)
                    found |= {number: why} if why else {}
    return found


def note_ends(outline: Outline, queues: QueueCache, survey: PlanProgress) -> None:
    """Write down why jobs of a task ended early, which batch systems soon forget."""
    unfinished = {progress.batch.number for progress in survey.batches if progress.missing or progress.failed}
    for flights, ours in _open_flights(outline, queues):
        if flights.scheduler.detached:
            flights.note_ends(ours, flights.look(ours), unfinished)


def cancel_jobs(outline: Outline, queues: QueueCache) -> int:
    """Cancel the jobs in a task's own submission files, and no others; return how many were in flight.

    Finished rows are kept; the next run goes on there.

    Raises
    ------
    NoAnswerError
        If the batch system can't be reached.
    """
    cancelled = 0
    for name in {each.scheduler for each in open_submissions(outline)}:
        scheduler = find_scheduler(outline, name)
        flights = JobTracker(outline, scheduler, queues, [])
        ours = [each for each in flights.find() if each.job]
        states = {each.token: queues.element_states(each, scheduler) for each in ours}
        scheduler.cancel([job for each in ours for job in (each.job, each.merge) if job])
        cancelled += sum(len(found or ()) for found in states.values())
        for each in ours if scheduler.detached else ():
            write_submission(outline.layout.jobs, replace(each, ended={"-1": "cancelled"}, over=True))
    return cancelled
