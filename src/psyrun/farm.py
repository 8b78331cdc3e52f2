"""The process step of one task: what is missing, submit or adopt, wait, collect."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psyrun.disk import write_atomic
from psyrun.errors import FormatError, SchedulerError, StoreError, SubmitLimitError
from psyrun.journal import read_input_header, read_inputs
from psyrun.lock import hold
from psyrun.plan import read_plan
from psyrun.records import Tallies, list_journals, read_values
from psyrun.scheduler import JobSpec, JobState, scheduler_named
from psyrun.split import attend, furnish
from psyrun.submissions import Submission, list_submissions, new_token, write_submission
from psyrun.survey import inspect_plan, is_current, make_receipt, survey_plan
from psyrun.task import open_task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from psyrun.orders import Orders, Watcher
    from psyrun.plan import Layout, Plan
    from psyrun.survey import Survey
    from psyrun.task import Outline, Task

__all__ = ["Outcome", "cancel_jobs", "process"]

# What an enclosing job says of itself is not true of the jobs that it submits.
_FOREIGN = ("SLURM_", "SBATCH_", "SGE_", "PBS_", "NSLOTS", "NHOSTS", "NQUEUES", "JOB_ID", "TASK_ID")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a process step ended.

    Parameters
    ----------
    survey
        How far the task is.
    in_flight
        Array elements that are queued or running.
    messages
        What the user should know.
    """

    survey: Survey
    in_flight: int = 0
    messages: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether all rows have values."""
        return self.survey.complete


def process(outline: Outline, orders: Orders, watcher: Watcher) -> Outcome:
    """Have the missing rows of a task evaluated, and write process.json when none is missing.

    Parameters
    ----------
    outline
        The task.
    orders
        What the user asked for.
    watcher
        Told how it goes.

    Returns
    -------
    Outcome
        How far the task is then.

    Raises
    ------
    FormatError
        If there is no plan, or a file of the task is damaged.
    SchedulerError
        If the scheduler refuses a submission.
    """
    layout = outline.layout
    plan = _read_plan(layout)
    if survey_plan(plan, layout).complete or is_current(layout, plan):
        outcome = _collect(plan, layout)
        if outcome.finished or is_current(layout, plan):
            return outcome
    with hold(layout.lock, lambda owner: attend(outline, watcher, owner)):
        plan = _read_plan(layout)  # Whoever held the lock may have planned anew.
        with open_task(outline) as task:
            step = _Step(task, plan, orders, watcher)
            try:
                step.run()
            finally:
                watcher.end(outline.name)
        outcome = _collect(plan, layout)
        return replace(outcome, in_flight=step.in_flight, messages=tuple(step.messages))


def _read_plan(layout: Layout) -> Plan:
    plan = read_plan(layout.plan)
    if plan is None:
        raise FormatError(f"{layout.relative(layout.plan)}: missing; psy run plans anew")
    return plan


def _collect(plan: Plan, layout: Layout) -> Outcome:
    survey, records = inspect_plan(plan, layout)
    if survey.complete:
        receipt = make_receipt(plan, records)
        if not layout.process.exists() or layout.process.read_bytes() != receipt:
            write_atomic(layout.process, receipt)
    return Outcome(survey=survey)


class _Step:
    """One process step: the tasks' open submissions, and what is to be submitted."""

    def __init__(self, task: Task, plan: Plan, orders: Orders, watcher: Watcher) -> None:
        self.task, self.plan, self.orders, self.watcher = task, plan, orders, watcher
        self.layout = task.outline.layout
        self.scheduler = task.scheduler
        self.messages: list[str] = []
        self.in_flight = 0
        self._tallies = Tallies()
        self._checked = False
        self._cores: int | None = None

    def run(self) -> None:
        """Submit what is missing and in nobody's hands; wait where that is asked for."""
        open_ones, alive = self._adopt()
        if open_ones and self.scheduler.attended:
            # We hold the lock, so their psy is gone: they end, and what they leave is ours to do.
            self._follow(open_ones)
            open_ones, alive = [], set()
        survey = self._survey()
        if survey.complete:  # The headers count rows whose blocks are damaged.
            survey, _ = inspect_plan(self.plan, self.layout)
        self._check_store(survey)
        todo = self._todo(survey, alive)
        self.in_flight = len(alive)
        if todo:
            furnish(self.task.outline, self.plan)
            self._cores = self._count_cores()
            processes = self._processes()
            self.watcher.start(self.task.name, survey, processes)
            for submission in self._submit(todo, processes):
                open_ones.append(submission)
                self.in_flight += len(submission.batches)
        if open_ones and (self.scheduler.attended or self.orders.wait):
            self._follow(open_ones)

    def _adopt(self) -> tuple[list[Submission], set[int]]:
        """Return the submissions that are in flight with their batches, and close the others."""
        submissions = self._heal([s for s in list_submissions(self.layout.jobs) if not s.over])
        states = self._look(submissions)
        self._close(submissions, states, self._survey())
        flying = {submission.token: _alive(submission, states) for submission in submissions}
        adopted = [submission for submission in submissions if flying[submission.token]]
        return adopted, {batch for batches in flying.values() for batch in batches}

    # ------------------------------------------------------------------ what there is

    def _survey(self) -> Survey:
        return survey_plan(self.plan, self.layout, self._tallies)

    def _heal(self, submissions: Sequence[Submission]) -> list[Submission]:
        """Find the ids of jobs whose submitter did not come to write them down."""
        nameless = [submission.token for submission in submissions if submission.job is None]
        found = self.scheduler.find(nameless) if nameless else {}
        healed = []
        for submission in submissions:
            if submission.job is not None or found is None:
                healed.append(submission)
            elif submission.token in found:
                healed.append(submission.with_job(found[submission.token]))
                write_submission(self.layout.jobs, healed[-1])
            else:  # It was never submitted.
                self._path(submission).unlink(missing_ok=True)
        return healed

    def _look(self, submissions: Sequence[Submission]) -> _States:
        jobs = [submission.job for submission in submissions if submission.job is not None]
        states = self.scheduler.query(jobs) if jobs else {}
        if states is None:
            self.messages.append(
                f"{type(self.scheduler).__name__} does not answer: nothing is submitted again meanwhile"
            )
        elif self.scheduler.attended:
            # A worker on another host: whoever attended it has lost the lock, and may be lost altogether.
            return {job: elements for job, elements in states.items() if -1 in _running(elements)}
        return states

    def _todo(self, survey: Survey, alive: set[int]) -> list[int]:
        return [
            progress.batch.number
            for progress in survey.batches
            if progress.batch.number not in alive
            and (progress.missing > 0 or (progress.failed > 0 and self.orders.retry))
        ]

    def _processes(self) -> int | None:
        return self.orders.processes or self.task.pool_size or self._cores

    def _count_cores(self) -> int | None:
        """Return the cores that this machine grants, or None where jobs run elsewhere."""
        if not self.scheduler.attended:
            return None
        import joblib

        return int(joblib.cpu_count())

    # ------------------------------------------------------------------ submitting

    def _submit(self, todo: Sequence[int], processes: int | None) -> Iterator[Submission]:
        submitted = 0
        try:
            for code, numbers in self._by_code(todo):
                limit = self.scheduler.array_limit()
                for start in range(0, len(numbers), limit):
                    submission = self._submit_one(code, numbers[start : start + limit], processes)
                    submitted += len(submission.batches)
                    yield submission
        except SubmitLimitError as error:
            self.messages.append(
                f"the site takes no more jobs now: {submitted} of {len(todo)} batches are submitted,"
                f" the others go with the next psy run ({error.output.strip()})"
            )

    def _by_code(self, todo: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
        codes = {number: read_input_header(self.layout.input(number))["code"] for number in todo}
        ordered = sorted(todo, key=lambda number: (codes[number], number))
        for code, numbers in itertools.groupby(ordered, key=codes.__getitem__):
            yield code, list(numbers)

    def _submit_one(self, code: str, numbers: Sequence[int], processes: int | None) -> Submission:
        wanted = self.plan.wanted_rows()
        submission = Submission(
            token=new_token(),
            task=self.task.name,
            code=code,
            scheduler=type(self.scheduler).__name__,
            batches=tuple((number, _ranges(wanted.get(number))) for number in numbers),
            retry=self.orders.retry,
            processes=processes,
            cores=self._cores,
            timeout=self.task.timeout,
            exclude=self.task.outline.exclude,
        )
        path = write_submission(self.layout.jobs, submission)
        try:
            job = self.scheduler.submit(self._spec(submission, path))
        except SchedulerError:
            path.unlink()
            raise
        submission = submission.with_job(job)
        write_submission(self.layout.jobs, submission)
        return submission

    def _spec(self, submission: Submission, path: Path) -> JobSpec:
        root, name = self.layout.root, f"{self.task.name}:process"
        prologue = self.task.prologue
        return JobSpec(
            argv=[self.task.python, "-P", "-m", "psyrun.worker", self.layout.relative(path)],
            name=name,
            token=submission.token,
            indices=range(len(submission.batches)),
            throttle=self.task.backend.throttle(self.task.max_jobs),
            log=self._log(submission),
            folder=root,
            env={key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)},
            options={
                key: value(name) if callable(value) else value
                for key, value in self.task.scheduler_args.items()
            },
            prologue=None if prologue is None else (root / self.task.outline.path).parent / prologue,
        )

    def _path(self, submission: Submission) -> Path:
        return self.layout.jobs / f"{submission.token}.json"

    def _log(self, submission: Submission) -> Path:
        return self.layout.log / f"{submission.token}.log"

    # ------------------------------------------------------------------ waiting

    def _follow(self, submissions: Sequence[Submission]) -> None:
        """Wait until nothing is in the queue any more."""
        interval, most = self.scheduler.poll
        try:
            while True:
                states = self._look(submissions)
                began = time.monotonic()
                survey = self._survey()
                self.watcher.progress(self.task.name, survey)
                self._check_store(survey)
                self.in_flight = sum(len(_alive(submission, states)) for submission in submissions)
                if self.in_flight == 0:
                    break
                time.sleep(max(interval, 20 * (time.monotonic() - began)))
                interval = min(most, 1.2 * interval)
        except BaseException:
            if self.scheduler.attended:
                self.scheduler.cancel([submission.job for submission in submissions if submission.job])
            raise
        self._close(submissions, states, survey)

    def _check_store(self, survey: Survey) -> None:
        """Find with the first finished row, not with the last, that the store can't hold the values."""
        if self._checked or survey.done == 0:
            return
        self._checked = True
        number = next(progress.batch.number for progress in survey.batches if progress.done)
        _, assignments = read_inputs(self.layout.input(number))
        for rows, columns in read_values(list_journals(self.layout.out).get(number, ())):
            first = {name: [values[rows[0]]] for name, values in assignments.items()}
            first |= {name: [values[0]] for name, values in columns.items()}
            exclude = self.task.outline.exclude
            try:
                self.task.store.check({name: value for name, value in first.items() if name not in exclude})
            except StoreError as error:
                raise StoreError(f"{self.task.outline.path}: {error}") from error
            return

    def _close(self, submissions: Sequence[Submission], states: _States, survey: Survey) -> None:
        """Keep why jobs ended before their rows were there; forget those that did their work."""
        over = [submission for submission in submissions if not _alive(submission, states)]
        reasons = self.scheduler.explain([submission.job for submission in over if submission.job])
        unfinished = {progress.batch.number for progress in survey.batches if progress.missing}
        for submission in over:
            if not any(number in unfinished for number, _ in submission.batches):
                self._path(submission).unlink(missing_ok=True)
                continue
            ended = {str(element): why for (job, element), why in reasons.items() if job == submission.job}
            said = _last_error(self._log(submission))
            if said:  # The worker knows better than the system why it ended.
                ended |= dict.fromkeys(ended or ["-1"], said.splitlines()[-1])
            write_submission(self.layout.jobs, replace(submission, ended=ended, over=True))
            if ended:
                why = said or ", ".join(sorted(set(ended.values())))
                log = self.layout.relative(self._log(submission))
                self.messages.append(f"{why}\n  (log: {log})")


def cancel_jobs(outline: Outline) -> int:
    """Cancel the jobs in a task's own submission files, and no others; return how many were in flight.

    Finished rows are kept; the next run goes on there.
    """
    cancelled = 0
    for submission in list_submissions(outline.layout.jobs):
        if submission.over or submission.job is None:
            continue
        scheduler = scheduler_named(submission.scheduler)
        if submission.job in (scheduler.query([submission.job]) or {submission.job}):
            scheduler.cancel([submission.job])
            cancelled += 1
    return cancelled


_States = Mapping[str, Mapping[int, JobState]] | None


def _alive(submission: Submission, states: _States) -> list[int]:
    """Return the batches of a submission that are in the queue, or may be."""
    numbers = [number for number, _ in submission.batches]
    if states is None or submission.job is None:
        return numbers
    elements = states.get(submission.job, {})
    return numbers if -1 in elements else [number for k, number in enumerate(numbers) if k in elements]


def _running(elements: Mapping[int, JobState]) -> set[int]:
    return {element for element, state in elements.items() if state is JobState.RUNNING}


def _ranges(rows: frozenset[int] | None) -> tuple[tuple[int, int], ...] | None:
    """Return the rows as (first, end) pairs."""
    if rows is None:
        return None
    found: list[tuple[int, int]] = []
    for row in sorted(rows):
        if found and found[-1][1] == row:
            found[-1] = (found[-1][0], row + 1)
        else:
            found.append((row, row + 1))
    return tuple(found)


def _last_error(log: Path) -> str:
    try:
        text = log.read_bytes()[-20_000:].decode(errors="replace")
    except OSError:
        return ""
    _, found, said = text.rpartition("psyrun: error: ")
    return said.strip() if found else ""
