"""The process step of one task: what is missing, submit or adopt, wait, collect."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from psyrun.disk import write_atomic
from psyrun.errors import FormatError, NoAnswerError, SchedulerError, SubmitLimitError
from psyrun.jobs.queue import find_scheduler, open_submissions
from psyrun.jobs.tracker import JobTracker
from psyrun.options import RunSize
from psyrun.scheduler import JobSpec, JobState, job_environment
from psyrun.split import ensure_work_folder, report_lock_owner, restore_journals
from psyrun.task import open_task, prefix_store_errors
from psyrun.workdir import (
    RowCounter,
    Submission,
    forget_submissions,
    is_current,
    list_journals,
    make_receipt,
    new_token,
    read_input_header,
    read_inputs,
    read_plan,
    read_progress,
    read_values,
    task_lock,
    verify_progress,
    write_submission,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from psyrun.jobs.queue import QueueCache
    from psyrun.options import RunOptions, Watcher
    from psyrun.task import Outline, Task
    from psyrun.workdir import Layout, Plan, PlanProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a process step ended.

    Parameters
    ----------
    progress
        How far the task is.
    in_flight
        Batches in the hands of jobs: one each.
    messages
        What the user should know.
    """

    progress: PlanProgress
    in_flight: frozenset[int] = frozenset()
    messages: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether all rows have values."""
        return self.progress.complete


def process(outline: Outline, options: RunOptions, watcher: Watcher, queues: QueueCache) -> Outcome:
    """Have the missing rows of a task evaluated, and write process.json when none is missing.

    Parameters
    ----------
    outline
        The task.
    options
        What the user asked for.
    watcher
        Told how it goes.
    queues
        What batch systems say.

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
    done = read_progress(plan, layout).complete or is_current(layout, plan)
    if done and not open_submissions(outline):
        outcome = collect(plan, layout)
        if outcome.finished or (is_current(layout, plan) and layout.process.exists()):
            return outcome
    with task_lock(layout.lock, lambda owner: report_lock_owner(outline, watcher, owner)):
        plan = _read_plan(layout)  # Whoever held the lock may have planned anew.
        with open_task(outline) as task:
            if is_current(layout, plan) and not layout.process.exists():
                restore_journals(task, plan)
            step = _Step(task, plan, options, watcher, queues)
            try:
                step.run()
            finally:
                watcher.end(outline.name)
        outcome = collect(plan, layout)
        return replace(
            outcome,
            in_flight=frozenset(step.active),
            messages=tuple(step.messages),
        )


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


def _read_plan(layout: Layout) -> Plan:
    plan = read_plan(layout)
    if plan is None:
        raise FormatError(f"{layout.relative(layout.plan)}: missing; psy run plans anew")
    return plan


def collect(plan: Plan, layout: Layout) -> Outcome:
    """Write process.json where all rows have values."""
    survey, records = verify_progress(plan, layout)
    if survey.complete:
        receipt = make_receipt(plan, records)
        if not layout.process.exists() or layout.process.read_bytes() != receipt:
            write_atomic(layout.process, receipt)
        forget_submissions(layout.jobs, {batch.number for batch in plan.batches})
    return Outcome(progress=survey)


class _Step:
    """One process step: the task's open submissions, and what is to be submitted."""

    def __init__(
        self, task: Task, plan: Plan, options: RunOptions, watcher: Watcher, queues: QueueCache
    ) -> None:
        self.task, self.plan, self.options, self.watcher = task, plan, options, watcher
        self.layout = task.outline.layout
        self.scheduler = task.scheduler
        self.messages: list[str] = []
        self.tracker = JobTracker(task.outline, self.scheduler, queues, self.messages)
        self.active: dict[int, JobState] = {}
        self._tallies = RowCounter()
        self._checked = False
        self._cores: int | None = None

    def run(self) -> None:
        """Submit what is missing and in nobody's hands; wait for jobs that end with us."""
        self.tracker.drop_other_schedulers()
        adopted = self.tracker.cancel_outdated(self.tracker.recover(), self.plan)
        states = self.tracker.find_active(adopted)
        if not self.scheduler.detached and any(states.values()):
            # We hold the lock, so their psy is gone: they end, and what they leave is ours to do.
            self._follow(adopted)
        else:
            self.active = self.tracker.update(adopted, states, self._survey())
        survey = self._survey()
        if survey.complete:  # The headers count rows whose blocks are damaged.
            survey, _ = verify_progress(self.plan, self.layout)
        self._check_store(survey)
        todo = self._todo(survey)
        complete = [each.batch.number for each in survey.batches if each.done == each.batch.wanted]
        self.tracker.drop_ends({*complete, *todo})
        if todo:
            ensure_work_folder(self.task.outline, self.plan)
            self._submit_all(todo, survey)

    def _submit_all(self, todo: Sequence[int], survey: PlanProgress) -> None:
        self._cores = self._count_cores()
        processes = self._processes()
        self.watcher.start(self.task.name, survey, self._weigh(todo, survey, processes))
        submissions = []
        for submission in self._submit(todo, processes):
            submissions.append(submission)
            self.active |= dict.fromkeys(submission.numbers, JobState.QUEUED)
        if not self.scheduler.detached:
            self._follow(submissions)
        elif submissions:
            self._submit_merge(submissions)

    # ------------------------------------------------------------------ what there is

    def _survey(self) -> PlanProgress:
        return read_progress(self.plan, self.layout, self._tallies)

    def _todo(self, survey: PlanProgress) -> list[int]:
        tried = self.options.tried.get(self.task.name, frozenset())
        return [
            progress.batch.number
            for progress in survey.batches
            if progress.batch.number not in self.active
            and progress.batch.number not in tried
            and (progress.missing > 0 or (progress.failed > 0 and self.options.retry))
        ]

    def _weigh(self, todo: Sequence[int], survey: PlanProgress, processes: int | None) -> RunSize:
        numbers = set(todo)
        rows = sum(
            progress.missing + (progress.failed if self.options.retry else 0)
            for progress in survey.batches
            if progress.batch.number in numbers
        )
        return RunSize(rows=rows, batches=len(numbers), processes=processes)

    def _processes(self) -> int | None:
        if self.scheduler.detached:  # A job employs as many as it was granted cores.
            return self.task.pool_size
        return self.options.processes or self.task.pool_size or self._cores

    def _count_cores(self) -> int | None:
        """Return the cores that this machine grants, or None where jobs run elsewhere."""
        if self.scheduler.detached:
            return None
        import joblib

        return int(joblib.cpu_count())

    # ------------------------------------------------------------------ submitting

    def _submit(self, todo: Sequence[int], processes: int | None) -> Iterator[Submission]:
        """Yield submissions as they are accepted; where the site takes no more, the rest has to wait."""
        limit = self.scheduler.array_limit()
        left = len(todo)
        for code, numbers in self._by_code(todo):
            while numbers:
                part = numbers[:limit]
                try:
                    yield self._submit_one(code, part, processes)
                except SubmitLimitError as error:
                    limit = len(part) // 2
                    if limit == 0:
                        self.messages.append(
                            f"the site takes no more jobs now: {len(todo) - left:,} of {len(todo):,} are"
                            f" submitted, the others go with the next psy run"
                            f" ({error.output.strip().splitlines()[0]})"
                        )
                        return
                    continue
                numbers = numbers[len(part) :]
                left -= len(part)

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
            retry=self.options.retry,
            processes=processes,
            cores=self._cores,
            core_variables=tuple(self.scheduler.core_variables),
            timeout=self.task.timeout,
            exclude=self.task.outline.exclude,
        )
        path = write_submission(self.layout.jobs, submission)
        spec = self._spec(
            "process",
            ["psyrun.worker", self.layout.relative(path)],
            self.task.scheduler_args,
            token=submission.token,
            indices=range(len(numbers)),
            throttle=self.task.backend.throttle(self.task.max_jobs),
        )
        try:
            job = self.scheduler.submit(spec)
        except NoAnswerError:  # It may have been accepted: whoever comes next looks its name up.
            raise
        except SchedulerError:
            path.unlink()
            raise
        submission = replace(submission, job=job)
        write_submission(self.layout.jobs, submission)
        return submission

    def _submit_merge(self, submissions: Sequence[Submission]) -> None:
        """Submit the job that merges when the others have ended, so that the result appears by itself."""
        task = self.task
        inherited = {k: v for k, v in task.scheduler_args.items() if k in self.scheduler.inherited}
        spec = self._spec(
            "merge",
            ["psyrun.jobs.finalize", task.outline.path],
            task.merge_args or inherited,
            token=new_token(),
            indices=(),
            after=[each.job for each in submissions if each.job is not None],
        )
        try:
            job = self.scheduler.submit(spec)
        except SchedulerError as error:
            self.messages.append(
                f"the job that merges was not accepted: psy run {task.name} merges later ({error})"
            )
            return
        write_submission(self.layout.jobs, replace(submissions[-1], merge=job))

    def _spec(
        self, step: str, module: Sequence[str], options: Mapping[str, Any], *, token: str, **more: Any
    ) -> JobSpec:
        root, name = self.layout.root, f"{self.task.name}:{step}"
        prologue = self.task.prologue
        return JobSpec(
            argv=[self.task.python, "-P", "-m", *module],
            name=name,
            token=token,
            log=self.layout.log / f"{token}.log",
            folder=root,
            env=job_environment(self.scheduler),
            options={key: value(name) if callable(value) else value for key, value in options.items()},
            prologue=None if prologue is None else (root / self.task.outline.path).parent / prologue,
            **more,
        )

    # ------------------------------------------------------------------ waiting

    def _follow(self, submissions: Sequence[Submission]) -> None:
        """Attend jobs that end with us, until they have ended."""
        interval, most = self.scheduler.poll
        try:
            while True:
                states = self.tracker.find_active(submissions)
                began = time.monotonic()
                survey = self._survey()
                self.watcher.progress(self.task.name, survey)
                self._check_store(survey)
                if not any(states.values()):
                    break
                time.sleep(max(interval, 20 * (time.monotonic() - began)))
                interval = min(most, 1.2 * interval)
        except BaseException:
            self.scheduler.cancel([submission.job for submission in submissions if submission.job])
            raise
        self.active = self.tracker.update(submissions, states, survey)

    def _check_store(self, survey: PlanProgress) -> None:
        """Find with the first finished row, not with the last, that the store can't hold the values."""
        if self._checked or survey.done == 0:
            return
        self._checked = True
        number = next(progress.batch.number for progress in survey.batches if progress.done)
        header, assignments = read_inputs(self.layout.input(number))
        journals = list_journals(self.layout.out).get(number, ())
        for rows, columns in read_values(journals, rows=header["size"]):
            first = {name: [values[rows[0]]] for name, values in assignments.items()}
            first |= {name: [values[0]] for name, values in columns.items()}
            exclude = self.task.outline.exclude
            with prefix_store_errors(self.task.outline):
                self.task.store.check({name: value for name, value in first.items() if name not in exclude})
            return


def wait_for_jobs(outlines: Sequence[Outline], watcher: Watcher, queues: QueueCache) -> None:
    """Wait until rows of some task are all there, or fewer of its jobs are in flight, if only by one.

    Looks at files first, and asks each batch system once for all tasks, ever more rarely.

    Parameters
    ----------
    outlines
        Tasks with jobs in flight.
    watcher
        Told how it goes.
    queues
        What batch systems say.
    """
    counter = {outline.name: RowCounter() for outline in outlines}
    before = {outline.name: len(queues.batch_states(outline)) for outline in outlines}
    polls = [find_scheduler(o, each.scheduler).poll for o in outlines for each in open_submissions(o)]
    interval, most = min(polls, default=(1.0, 1.0))
    due = time.monotonic() + interval
    while True:
        for outline in outlines:
            survey = read_progress(_read_plan(outline.layout), outline.layout, counter[outline.name])
            watcher.progress(outline.name, survey)
            if survey.complete:
                return
        if time.monotonic() >= due:
            queues.refresh()
            now = {outline.name: queues.batch_states(outline) for outline in outlines}
            if any(len(now[name]) < count or not count for name, count in before.items()):
                return
            for name, states in now.items():
                if JobState.UNKNOWN in states.values():
                    watcher.note(name, "the batch system does not answer; waiting")
            interval = min(most, 1.5 * interval)
            due = time.monotonic() + interval
        time.sleep(min(1.0, interval / 10))


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
