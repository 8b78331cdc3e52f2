"""The process step of one task: adopt jobs, submit what no job is at, wait, collect."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from psyrun.disk import read_file, write_atomic
from psyrun.errors import ExecuteError, SchedulerError, SubmitLimitError
from psyrun.jobs.cores import count_cores
from psyrun.jobs.queue import open_submissions
from psyrun.jobs.submit import Submitter
from psyrun.jobs.tracker import track_jobs
from psyrun.jobs.wait import wait_for_jobs
from psyrun.options import RunSize
from psyrun.pspace import stack
from psyrun.split import ensure_work_folder, hold_task, restore_journals
from psyrun.task import open_task, prefix_store_errors
from psyrun.workdir import (
    FAILURE,
    RowCounter,
    forget_submissions,
    holds_rows,
    is_current,
    list_journals,
    list_reads,
    make_receipt,
    read_inputs,
    read_progress,
    read_receipt,
    read_records,
    read_values,
    require_plan,
    verify_progress,
)

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from psyrun.jobs.queue import QueueCache
    from psyrun.jobs.tracker import JobTracker
    from psyrun.options import RunOptions, Watcher
    from psyrun.task import Outline, Task
    from psyrun.workdir import BatchProgress, Layout, Plan, PlanProgress, Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a process step ended.

    Parameters
    ----------
    progress
        How far the task is.
    in_flight
        Batches that jobs are at, one each.
    messages
        Messages for the user.
    """

    progress: PlanProgress
    in_flight: frozenset[int] = frozenset()
    messages: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether all rows have values or failed as is allowed, and no job tries failed ones again."""
        return self.progress.complete and not (self.progress.failed and self.in_flight)


def process(outline: Outline, options: RunOptions, watcher: Watcher, queues: QueueCache) -> Outcome:
    """Have the missing rows of a task evaluated, and write process.json when none is missing.

    Parameters
    ----------
    outline
        The task.
    options
        What the user asked for.
    watcher
        Progress listener.
    queues
        Answers of batch systems.

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
    plan = require_plan(layout)
    done = read_progress(plan, layout).complete or is_current(layout, plan)
    if done and not (open_submissions(outline) or has_failed_to_retry(layout, options)):
        outcome = collect(plan, layout)
        if outcome.finished or (is_current(layout, plan) and layout.process.exists()):
            return outcome
    with hold_task(outline, watcher):
        plan = require_plan(layout)  # The owner of the lock may have made another.
        with open_task(outline) as task:
            if holds_rows(layout, plan):
                restore_journals(task, plan)
            step = _Step(task, plan, options, watcher, track_jobs(task, queues))
            try:
                step.run()
                outcome = collect(plan, layout, step.active)
                if step.was_misled(outcome.progress):
                    step.run(verified=outcome.progress)
                    outcome = collect(plan, layout, step.active)
            finally:
                watcher.end(outline.name)
        programs = _find_programs(outline) if step.submitted else ()
        messages = (*step.tracker.messages, *outcome.messages, *programs)
        return replace(outcome, messages=messages)


def finish(outline: Outline, options: RunOptions, watcher: Watcher, queues: QueueCache) -> Outcome:
    """Do what `process` does, and wait for the jobs of a batch system until none is in flight."""
    outcome = process(outline, options, watcher, queues)
    tried: frozenset[int] = frozenset()
    while outcome.in_flight:
        for message in outcome.messages:
            watcher.note(outline.name, message)
        wait_for_jobs([outline], watcher, queues)
        tried |= outcome.in_flight
        outcome = process(outline, options.for_next_pass({outline.name: tried}), watcher, queues)
    return outcome


def has_failed_to_retry(layout: Layout, options: RunOptions) -> bool:
    """Whether rows failed as their task allows, and the user asks to try them again."""
    return options.retry is True and bool((read_receipt(layout.process) or {}).get("failed"))


def collect(plan: Plan, layout: Layout, active: Iterable[int] = ()) -> Outcome:
    """Write process.json where all rows have values, or failed as is allowed.

    Parameters
    ----------
    plan, layout
        The plan, and where its files are.
    active
        Batches that jobs are at.
    """
    progress, records = verify_progress(plan, layout)
    outcome = Outcome(progress=progress, in_flight=frozenset(active))
    if outcome.finished:
        receipt = make_receipt(plan, records)
        if not layout.process.exists() or read_file(layout.process) != receipt:
            write_atomic(layout.process, receipt)
        forget_submissions(layout.jobs, {batch.number for batch in plan.batches})
    elif not (progress.missing or progress.complete):  # Fewer rows may fail than before.
        layout.process.unlink(missing_ok=True)
    generators = sorted({name for each in records.values() for name in each.generators})
    return replace(outcome, messages=(describe_generators(generators),) if generators else ())


def describe_generators(names: Sequence[str]) -> str:
    """Return a warning of random generators that outlive a row."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    outlive = "which outlives a row" if len(names) == 1 else "which outlive a row"
    return (
        f"execute draws from {', '.join(names[:3])}{more}, {outlive}: values depend on which rows a process"
        " evaluated before; let execute take a parameter rng, a generator seeded by the row, or seed in it"
    )


def _find_programs(outline: Outline) -> Iterator[str]:
    """Yield a message where rows started processes, whose inputs are not observed."""
    reads = list_reads(outline.layout.reads).values()
    if any(each.kind == "program" for inputs in reads for each in inputs):
        yield "execute starts processes: what they read is not seen; name it in file_dep"


@dataclass(slots=True)
class _Step:
    """One process step under the task's lock.

    Parameters
    ----------
    task, plan
        The task and its plan.
    options
        What the user asked for.
    watcher
        Progress listener.
    tracker
        The task's open submissions.
    active
        Batches that jobs are at.
    complete
        Batches without rows to evaluate, by the headers of blocks.
    submitted
        Whether rows were submitted.
    """

    task: Task
    plan: Plan
    options: RunOptions
    watcher: Watcher
    tracker: JobTracker
    active: set[int] = field(default_factory=set)
    complete: frozenset[int] = frozenset()
    submitted: bool = False
    _counter: RowCounter = field(default_factory=RowCounter)
    _checked: int = 0

    def run(self, verified: PlanProgress | None = None) -> None:
        """Adopt the jobs that are there, and submit the batches that no job is at.

        Parameters
        ----------
        verified
            Progress by whole blocks; None: count by headers, which also count rows of damaged blocks.
        """
        self._track_jobs()
        progress = verified or self._count_rows()
        self._check_store(progress)
        todo = self._select_batches(progress)
        complete = {each.batch.number for each in progress.batches if each.done == each.batch.wanted}
        self.complete = frozenset(complete)
        self.tracker.drop_ends(complete | {each.batch.number for each in todo})
        if todo:
            ensure_work_folder(self.task.outline, self.plan)
            self.submitted = True
            self._submit(todo, progress)

    def was_misled(self, verified: PlanProgress) -> bool:
        """Whether a batch lacks rows that its headers counted: a block is damaged."""
        return any(each.missing and each.batch.number in self.complete for each in verified.batches)

    def _track_jobs(self) -> None:
        self.tracker.drop_other_schedulers(take_over=self.options.take_over)
        if self.options.take_over:
            self.tracker.take_over()
        submissions = self.tracker.cancel_outdated(self.tracker.recover(), self.plan)
        reports = self.tracker.find_active(submissions)
        if not self.task.scheduler.detached and any(each.states for each in reports):
            # We hold the lock, so the psy that started these workers has exited; wait for them.
            self._follow(submissions)
        else:
            self.active = self.tracker.update(reports, self._count_rows())

    def _count_rows(self) -> PlanProgress:
        return read_progress(self.plan, self.task.outline.layout, self._counter)

    def _select_batches(self, progress: PlanProgress) -> list[BatchProgress]:
        """Return the batches with rows to evaluate that no job is at, or was at in this run."""
        busy = self.active | self.options.tried.get(self.task.name, frozenset())
        return [each for each in progress.batches if each.batch.number not in busy and self._count_todo(each)]

    def _count_todo(self, batch: BatchProgress) -> int:
        return batch.missing + (self._count_retried(batch) if self.retry else 0)

    def _count_retried(self, progress: BatchProgress) -> int:
        """Count the failed rows of a batch to try again."""
        batch, only = progress.batch, self.options.only
        if only is None or not progress.failed:
            return progress.failed
        journals = list_journals(self.task.outline.layout.out).get(batch.key, ())
        failed = read_records(journals, rows=batch.size).failed_for(only)
        return len(failed & self.plan.wanted_rows().get(batch.number, failed))

    @property
    def retry(self) -> bool:
        """Whether failed rows are tried again."""
        return self.options.retries(allowed=bool(self.plan.allowance))

    def _submit(self, todo: Sequence[BatchProgress], progress: PlanProgress) -> None:
        """Submit batches, as many as the site takes; then the job that merges, or wait for workers here."""
        submitter = self._make_submitter()
        rows = sum(map(self._count_todo, todo))
        size = RunSize(rows=rows, batches=len(todo), processes=submitter.processes)
        self.watcher.start(self.task.name, progress, size)
        submissions: list[Submission] = []
        try:
            for submission in submitter.submit([each.batch.number for each in todo]):
                submissions.append(submission)
                self.active.update(submission.numbers)
        except SubmitLimitError as error:
            self.tracker.messages.append(
                f"the site takes no more jobs now: {sum(len(each.batches) for each in submissions):,} of"
                f" {len(todo):,} are submitted, the others go with the next psy run"
                f" ({error.output.strip().splitlines()[0]})"
            )
        if not self.task.scheduler.detached:
            self._follow(submissions)
        elif submissions and self.task.scheduler.dependencies:
            self._submit_merge(submitter, submissions)

    def _make_submitter(self) -> Submitter:
        processes, cores = self.task.pool_size, None
        if not self.task.scheduler.detached:  # A job gets a process for each core that it is granted.
            cores = count_cores()
            processes = self.options.processes or processes or cores
        return Submitter(
            task=self.task,
            plan=self.plan,
            retry=self.retry,
            only=self.options.only,
            processes=processes,
            cores=cores,
        )

    def _submit_merge(self, submitter: Submitter, submissions: Sequence[Submission]) -> None:
        try:
            submitter.submit_merge(submissions)
        except SchedulerError as error:
            self.tracker.messages.append(
                f"the job that merges was not accepted: psy run {self.task.name} merges later ({error})"
            )

    def _follow(self, submissions: Sequence[Submission]) -> None:
        """Wait for jobs that end with psy; cancel them where that is interrupted."""
        interval, most = self.task.scheduler.poll
        wait = getattr(self.task.scheduler, "wait", time.sleep)  # Ours end it when the worker ends.
        try:
            while True:
                reports = self.tracker.find_active(submissions)
                began = time.monotonic()
                progress = self._count_rows()
                pause = max(interval, 20 * (time.monotonic() - began))
                self.watcher.progress(self.task.name, progress)
                self._check_store(progress)
                if not any(each.states for each in reports):
                    break
                wait(pause)
                interval = min(most, 1.2 * interval)
        except BaseException:
            self.task.scheduler.cancel([each.job for each in submissions if each.job and each.ours])
            raise
        self.active = self.tracker.update(reports, progress)

    def _check_store(self, progress: PlanProgress) -> None:
        """Raise as soon as a row shows that the store can't hold the values, rather than at the end."""
        filled = bool(progress.failed and self.plan.allowance)
        if progress.done == 0 or self._checked > filled:
            return
        self._checked = 1 + filled
        outline, batch = self.task.outline, next(each.batch for each in progress.batches if each.done)
        assignments = read_inputs(outline.layout.input(batch.number), batch.tie).columns()
        journals = list_journals(outline.layout.out).get(batch.key, ())
        for rows, columns in read_values(journals, rows=batch.size):
            parameters = {name: [values[rows[0]]] for name, values in assignments.items()}
            table = parameters | {name: [values[0]] for name, values in columns.items()}
            if self.plan.allowance:
                _refuse_name(outline, columns)
                table |= {FAILURE: [""]}
            if filled:
                table = stack([table, parameters | {FAILURE: ["a reason"]}], names=())
            with prefix_store_errors(outline):
                self.task.store.check({n: value for n, value in table.items() if n not in outline.exclude})
            return


def _refuse_name(outline: Outline, names: Container[str]) -> None:
    if FAILURE in names:
        raise ExecuteError(
            f"{outline.path}: with allow_failed, the result has a column {FAILURE!r}; let execute return that"
            " value under another name"
        )
