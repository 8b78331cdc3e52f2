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
    name, upstream
        The task, and the other.
    stuck
        Whether the first task that it waits for, directly or through others, failed.
    """

    name: str
    upstream: Outline
    stuck: bool


def find_waiting(chain: Sequence[Outline], outcomes: Mapping[str, NodeOutcome]) -> dict[str, Waiting]:
    """Return task -> the task that it waits for; the tasks come each behind those whose results it needs."""
    needs, there = find_dependencies(chain), {outline.name: outline for outline in chain}
    unfinished = {name for name, outcome in outcomes.items() if outcome.state is not NodeState.FINISHED}
    waiting: dict[str, Waiting] = {}
    for name in there:
        upstream = next((each for each in needs[name] if each in unfinished or each in waiting), None)
        if upstream is not None:
            before = waiting.get(upstream)
            stuck = before.stuck if before else outcomes[upstream].state is not NodeState.PENDING
            waiting[name] = Waiting(name, there[upstream], stuck)
    return waiting


def summarise(
    end: Status | Waiting,
    outcome: NodeOutcome | None,
    *,
    edited: bool = False,
    changed: str = "",
    interrupted: bool = False,
) -> tuple[list[str], int]:
    """Return lines and exit code for a task after a run.

    Parameters
    ----------
    end
        Status of the task, or the task that it waits for.
    outcome
        Outcome of its last node that left one.
    edited
        Whether its sources changed during the run.
    changed
        Words for inputs that changed during the run; '' for none.
    interrupted
        Whether the run was interrupted.
    """
    if isinstance(end, Waiting):
        return _summarise_waiting(end)
    state = None if outcome is None else outcome.state
    if end.uptodate and state is not NodeState.PENDING:
        word = "finished" if state is NodeState.FINISHED else "up to date"
        failed = f", {end.failed:,} of them failed" if end.failed else ""
        lines = [f"{end.name}: {word}, {count(end.total, 'row')} in {end.result}{failed}"]
        if end.failed and state is NodeState.FINISHED:
            lines.append(f"  why: psy errors {end.name}; to try them again: psy run --retry {end.name}")
        if edited:
            lines.append(f"  it was edited meanwhile: psy run {end.name} evaluates the new code")
        if changed:
            lines.append(f"  {changed}")
        return lines, UNFINISHED if changed else OK
    if not interrupted and (end.running or end.queued or state is NodeState.PENDING):
        return _summarise_in_flight(end, len(outcome.in_flight) if outcome is not None else 0), PENDING
    return _summarise_unfinished(end, state, interrupted=interrupted), UNFINISHED


def _summarise_waiting(waiting: Waiting) -> tuple[list[str], int]:
    name, upstream = waiting.name, waiting.upstream
    line = f"{name}: waits for {upstream.result}, the result of {upstream.name}"
    if waiting.stuck:
        return [line], UNFINISHED
    again = f"psy run {name}, or for the whole chain: psy run --wait {name}"
    return [f"{line}; once it is there: {again}"], PENDING


def _summarise_in_flight(status: Status, jobs: int) -> list[str]:
    name, rows = status.name, _count_done(status)
    if jobs == 0:
        return [f"{rows}, {status.running + status.queued:,} in flight: psy status {name}"]
    failed = f", {status.failed:,} failed" if status.failed else ""
    lines = [f"{rows}{failed}, {count(jobs, 'job')} in flight"]
    # That a batch system does not answer was said when it did not.
    lines += [f"  {line}" for line in status.jobs.only(silent=False).describe(name)]
    then = f"then psy run {name} {'goes on' if status.missing or status.failed else 'writes the result'}"
    then = "the result appears by itself" if status.appears else then
    return [*lines, f"  {then}; meanwhile: psy status {name}, psy run --wait {name}"]


def _summarise_unfinished(status: Status, state: NodeState | None, *, interrupted: bool) -> list[str]:
    name = status.name
    words = [_count_done(status)]
    words += [f"{status.failed:,} failed"] if status.failed else []
    words += [f"{status.missing:,} missing"] if status.missing else []
    advice = "" if status.failed or interrupted else f"; to go on: psy run {name}"
    lines = [", ".join(words) + advice]
    if status.failed or state is NodeState.FAILED:
        lines.append(f"  why: psy errors {name}; which: psy status -v {name}")
    if status.failed:
        retry = "" if status.allow_failed is False else "--retry "
        again = f"psy run {retry}{name}; after fixing the code: psy run --continue {name}"
        lines.append(f"  to try them again: {again}")
        if not (status.missing or interrupted):
            lines.append(f"  {_describe_allowance(status)}")
    if status.result is not None:
        lines.append(f"  {status.result} is still the result of before")
    return lines


def _describe_allowance(status: Status) -> str:
    """Return words for what a finished task may leave undone, where all its rows ended."""
    if status.failed == status.total:
        return "there is no new result, since no row has values"
    if status.allow_failed is False:
        return (
            "for a result with failed rows in it: allow_failed = True, a number, or a share, in the task file"
        )
    return f"these are more than allow_failed = {status.allow_failed} allows"


def _count_done(status: Status) -> str:
    return f"{status.name}: {status.done:,} of {count(status.total, 'row')} done"
