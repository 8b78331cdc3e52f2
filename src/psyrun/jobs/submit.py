"""Submitting: batches as job arrays, and the job that merges."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from psyrun.errors import NoAnswerError, SchedulerError, SubmitLimitError, TaskFileError
from psyrun.scheduler import JobSpec, job_environment
from psyrun.workdir import (
    Submission,
    find_user,
    new_token,
    read_inputs,
    remove_submission,
    write_submission,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from psyrun.task import Task
    from psyrun.workdir import Plan


_GIT_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitter:
    """Submits batches of a task.

    Parameters
    ----------
    task, plan
        The task and its plan.
    retry
        Whether rows that failed before are tried once more.
    only
        Those alone that failed for this reason; None: all.
    processes
        Children of a worker; None: as many as cores.
    cores
        Cores for all children together; None: what a job is granted.
    """

    task: Task
    plan: Plan
    retry: bool
    only: str | None
    processes: int | None
    cores: int | None

    def submit(self, numbers: Collection[int]) -> Iterator[Submission]:
        """Submit batches, and yield submissions as they are accepted.

        Raises
        ------
        SubmitLimitError
            If the site takes no more jobs, be it for a single batch.
        """
        limit = self.task.scheduler.array_limit()
        for code, left in self._by_code(numbers):
            while left:
                part = left[:limit]
                try:
                    yield self._submit_array(code, part)
                except SubmitLimitError:
                    limit = len(part) // 2
                    if limit == 0:
                        raise
                else:
                    left = left[len(part) :]

    def _by_code(self, numbers: Collection[int]) -> Iterator[tuple[str, list[int]]]:
        """Yield the digests of codes, and the batches of each."""
        path, ties = self.task.outline.layout.input, self._ties()
        codes = {number: read_inputs(path(number), ties[number]).code for number in numbers}
        ordered = sorted(numbers, key=lambda number: (codes[number], number))
        for code, group in itertools.groupby(ordered, key=codes.__getitem__):
            yield code, list(group)

    def _submit_array(self, code: str, numbers: Sequence[int]) -> Submission:
        layout, scheduler = self.task.outline.layout, self.task.scheduler
        submission = self._describe(code, numbers)
        path = write_submission(layout.jobs, submission)
        spec = self._make_spec(
            "process",
            ["psyrun.worker", layout.relative(path)],
            submission.options,
            token=submission.token,
            indices=range(len(numbers)),
            throttle=self.task.backend.throttle(self.task.max_jobs),
        )
        try:
            submission = replace(submission, job=scheduler.submit(spec))
        except NoAnswerError:  # May have been accepted; the next run looks it up by name.
            raise
        except (SchedulerError, TaskFileError):  # It was refused.
            remove_submission(layout.jobs, submission.token)
            raise
        write_submission(layout.jobs, submission)
        return submission

    def _ties(self) -> dict[int, str]:
        return {batch.number: batch.tie for batch in self.plan.batches}

    def _describe(self, code: str, numbers: Sequence[int]) -> Submission:
        wanted, ties = self.plan.wanted_rows(), self._ties()
        commit, clean = find_commit(self.task.outline.root)
        return Submission(
            token=new_token(),
            task=self.task.name,
            code=code,
            scheduler=type(self.task.scheduler).__name__,
            options=resolve_options(self.task.scheduler_args, f"{self.task.name}:process"),
            submitter=find_user(),
            system=self.task.scheduler.system(),
            batches=tuple((number, ties[number], _find_ranges(wanted.get(number))) for number in numbers),
            retry=self.retry,
            only=self.only,
            processes=self.processes,
            cores=self.cores,
            core_variables=tuple(self.task.scheduler.core_variables),
            timeout=self.task.timeout,
            exclude=self.task.outline.exclude,
            declared=self.task.outline.file_dep,
            untracked=tuple(self.task.untracked),
            stateless=self.task.stateless,
            track_inputs=self.task.track_inputs,
            commit=commit,
            clean=clean,
        )

    def submit_merge(self, submissions: Sequence[Submission]) -> None:
        """Submit the job that merges when the others have ended, so that the result appears by itself."""
        task = self.task
        shared = {k: v for k, v in task.scheduler_args.items() if k in task.scheduler.merge_options}
        spec = self._make_spec(
            "merge",
            ["psyrun.jobs.finalize", task.outline.path],
            resolve_options(task.merge_args or shared, f"{task.name}:merge"),
            token=new_token(),
            indices=(),
            after=[each.job for each in submissions if each.job is not None],
        )
        # What a scheduler keeps about it is removed with the submission that names it.
        spec = replace(spec, scratch=task.outline.layout.jobs / submissions[-1].token / "merge")
        job = task.scheduler.submit(spec)
        for each in submissions:
            write_submission(task.outline.layout.jobs, replace(each, merge=job))

    def _make_spec(
        self, step: str, module: Sequence[str], options: Mapping[str, Any], *, token: str, **more: Any
    ) -> JobSpec:
        task, layout, name = self.task, self.task.outline.layout, f"{self.task.name}:{step}"
        folder = (layout.root / task.outline.path).parent
        return JobSpec(
            argv=[task.python, "-P", "-m", *module],
            name=name,
            token=token,
            log=layout.log / f"{token}.log",
            folder=layout.root,
            scratch=layout.jobs / token,
            env=job_environment(task.scheduler),
            options=options,
            prologue=None if task.prologue is None else folder / task.prologue,
            **more,
        )


def resolve_options(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return options for a job of this name as JSON keeps them; functions of the name are called."""
    return {key: _as_json(value(name) if callable(value) else value) for key, value in options.items()}


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_json(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(each) for each in value]
    return value if value is None or type(value) in (bool, int, float, str) else str(value)


def _find_ranges(rows: frozenset[int] | None) -> tuple[tuple[int, int], ...] | None:
    """Return the rows as (first, end) pairs."""
    if rows is None:
        return None
    runs = itertools.groupby(enumerate(sorted(rows)), key=lambda each: each[1] - each[0])
    spans = [[row for _, row in run] for _, run in runs]
    return tuple((span[0], span[-1] + 1) for span in spans)


def find_commit(root: Path) -> tuple[str | None, bool | None]:
    """Return the commit that is checked out, and whether no tracked file differs from it.

    Both are None outside of a work tree of git, and where git does not answer within two seconds.
    """
    if not any((folder / ".git").exists() for folder in (root, *root.parents)):
        return None, None
    argv = ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        answer = subprocess.run(
            argv,
            cwd=root,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            check=True,
            timeout=_GIT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None, None
    notes = dict(line[2:].partition(" ")[::2] for line in answer.stdout.splitlines() if line[:1] == "#")
    commit = notes.get("branch.oid", "(initial)")
    clean = all(line.startswith("#") for line in answer.stdout.splitlines())
    return (None, None) if commit == "(initial)" else (commit, clean)
