"""Summary of a run: lines and an exit code for each task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psyrun.cli.text import count
from psyrun.errors import OK, PENDING, UNFINISHED
from psyrun.graph import NodeState
from psyrun.task import find_dependencies

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psyrun.cli.status import Status
    from psyrun.graph import NodeOutcome
    from psyrun.task import Outline


@dataclass(frozen=True, slots=True)
class Waiting:
    """Wait of a task for the result of another.

    Parameters
    ----------
    upstream
        The other task.
    stuck
        Whether the first task that it waits for, through others, failed.
    """

    upstream: Outline
    stuck: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEnd:
    """State of a task after a run.

    Parameters
    ----------
    name
        The task.
    error
        The error that it ended with, or that keeps its status from being read.
    waiting
        The task that it waits for.
    status
        Its status; None where there is an error, or it waits, or it was interrupted before there was a plan.
    outcome
        Outcome of the last node that left one.
    edited
        Whether its sources changed during the run.
    interrupted
        Whether the run was interrupted.
    """

    name: str
    error: Exception | None = None
    waiting: Waiting | None = None
    status: Status | None = None
    outcome: NodeOutcome | None = None
    edited: bool = False
    interrupted: bool = False

    def has(self, state: NodeState) -> bool:
        """Whether the last node that left an outcome ended in a state."""
        return self.outcome is not None and self.outcome.state is state


def find_waiting(chain: Sequence[Outline], outcomes: Mapping[str, NodeOutcome]) -> dict[str, Waiting]:
    """Return task -> the task that it waits for; the tasks come each behind those whose results it needs."""
    needs, there = find_dependencies(chain), {outline.name: outline for outline in chain}
    unfinished = {name for name, outcome in outcomes.items() if outcome.state is not NodeState.FINISHED}
    waiting: dict[str, Waiting] = {}
    for name in there:
        upstream = next((each for each in needs[name] if each in unfinished or each in waiting), None)
        if upstream in waiting:
            waiting[name] = Waiting(there[upstream], waiting[upstream].stuck)
        elif upstream is not None:
            waiting[name] = Waiting(there[upstream], outcomes[upstream].state is not NodeState.PENDING)
    return waiting


def summarise(end: TaskEnd) -> tuple[Sequence[str], int]:
    """Return lines and exit code for the end of a task without an error."""
    status = end.status
    if end.waiting is not None:
        return _summarise_waiting(end.name, end.waiting)
    if status is None:
        return [], OK
    if status.uptodate:
        return _summarise_finished(end, status)
    if end.interrupted or not (status.running or status.queued or end.has(NodeState.PENDING)):
        return _summarise_unfinished(end, status)
    return _summarise_in_flight(end, status)


def _summarise_waiting(name: str, waiting: Waiting) -> tuple[Sequence[str], int]:
    upstream = waiting.upstream
    line = f"{name}: waits for {upstream.result}, the result of {upstream.name}"
    if waiting.stuck:
        return [line], UNFINISHED
    return [
        f"{line}; once it is there: psy run {name}, or for the whole chain: psy run --wait {name}"
    ], PENDING


def _summarise_finished(end: TaskEnd, status: Status) -> tuple[Sequence[str], int]:
    state = "finished" if end.has(NodeState.FINISHED) else "up to date"
    lines = [f"{end.name}: {state}, {count(status.total, 'row')} in {status.result}"]
    if end.edited:
        lines.append(f"  it was edited meanwhile: psy run {end.name} evaluates the new code")
    return lines, OK


def _summarise_in_flight(end: TaskEnd, status: Status) -> tuple[Sequence[str], int]:
    name, rows = end.name, _count_done(status)
    if end.outcome is None or not end.outcome.in_flight:
        return [f"{rows}, {status.running + status.queued:,} in flight: psy status {name}"], PENDING
    failed = f", {status.failed:,} failed" if status.failed else ""
    return [
        f"{rows}{failed}, {count(len(end.outcome.in_flight), 'job')} in flight",
        f"  the result appears by itself; meanwhile: psy status {name}, psy run --wait {name}",
    ], PENDING


def _summarise_unfinished(end: TaskEnd, status: Status) -> tuple[Sequence[str], int]:
    name = end.name
    words = [_count_done(status)]
    words += [f"{status.failed:,} failed"] if status.failed else []
    words += [f"{status.missing:,} missing"] if status.missing else []
    advice = "" if status.failed or end.interrupted else f"; to go on: psy run {name}"
    lines = [", ".join(words) + advice]
    if status.failed or end.has(NodeState.FAILED):
        lines.append(f"  why: psy errors {name}; which: psy status -v {name}")
    if status.failed:
        again = f"psy run {name}; after fixing the code: psy run --continue {name}"
        lines.append(f"  to try them again: {again}")
    if status.result is not None:
        lines.append(f"  {status.result} is still the result of before")
    return lines, UNFINISHED


def _count_done(status: Status) -> str:
    return f"{status.name}: {status.done:,} of {count(status.total, 'row')} done"
