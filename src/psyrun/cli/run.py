"""``psy run``: the question before costly rows are repeated, the passes, and their summary."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from psyrun.cli.forecast import describe_orphans, describe_stale_rows, forecast, has_detached_jobs
from psyrun.cli.group import report_errors, warnings_shown
from psyrun.cli.progress import watching
from psyrun.cli.status import Status, read_status
from psyrun.cli.summary import find_waiting, summarise
from psyrun.cli.text import count
from psyrun.errors import INTERRUPTED, PsyrunError, worst
from psyrun.graph import NodeState, Run, run_pass
from psyrun.jobs import QueueCache, wait_for_jobs
from psyrun.source import read_source
from psyrun.split import describe_gone, describe_meanwhile, describe_stale
from psyrun.workdir import read_plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

    from psyrun.cli.summary import Waiting
    from psyrun.graph import NodeOutcome
    from psyrun.logwatcher import LogWatcher
    from psyrun.options import RunOptions
    from psyrun.source import SourceCache
    from psyrun.task import Outline, Project, Selection

ASK_SECONDS = 600.0


def confirm_rerun(chain: Sequence[Outline], options: RunOptions, cache: SourceCache, *, yes: bool) -> bool:
    """Print which finished rows the run evaluates again or leaves out; ask where they are costly.

    Returns whether to go on.

    Parameters
    ----------
    chain
        The tasks, each behind those whose results it needs.
    options
        Options of the run; `--continue` and `--force` need no question.
    cache
        Cache of source facts.
    yes
        Whether the answer is known.
    """
    cost, question = 0.0, "Go on without them?"
    blocked: set[str] = set()  # Tasks that end with an error, or wait for one that does.
    for each in forecast(chain, options, cache):
        outline = each.outline
        if each.changes is not None and each.changes.gone:
            click.echo(f"{outline.name}: {describe_gone(each.changes)}")
        if each.kept:
            click.echo(f"{outline.name}: {describe_stale(each.kept)}; kept")
        fails = any(before.outline.name in blocked for before in each.upstream)
        try:
            stale = None if fails else describe_stale_rows(each)
            orphaned = None if fails else describe_orphans(each)
        except (PsyrunError, OSError):  # The run meets the same fault, and reports it.
            fails, stale, orphaned = True, None, None
        if fails or (stale and each.edited and not outline.overwrite_dirty):
            blocked.add(outline.name)
        elif stale and outline.overwrite_dirty:
            line, seconds = stale
            click.echo(line)
            question, cost = "Evaluate them again?", cost + seconds
        if orphaned and not fails:
            click.echo(orphaned[0])
            cost += orphaned[1]
    if cost > ASK_SECONDS and not yes and sys.stdin.isatty() and sys.stdout.isatty():
        return click.confirm(question)
    return True


def run_passes(project: Project, selection: Selection, options: RunOptions, *, wait: bool = False) -> int:
    """Let doit make passes over the graph, print their summary, and return the exit code.

    Parameters
    ----------
    project
        The project.
    selection
        The tasks to run.
    options
        Options of the run.
    wait
        Whether to wait for the jobs of a batch system and make another pass, until none is in flight.
    """
    outcomes: dict[str, NodeOutcome] = {}
    interrupted = False
    with watching() as watcher, warnings_shown(watcher.write), _signals_interrupt():
        summary = _Summary(selection, QueueCache(selection.chain), watcher)
        run = Run(
            project=project,
            options=options,
            cache=selection.cache,
            watcher=watcher,
            queues=summary.queues,
            ended=summary.take,
        )
        try:
            _make_passes(run, selection, summary.queues, outcomes, wait=wait)
        except KeyboardInterrupt:
            interrupted = True
    code = summary.finish(outcomes, interrupted=interrupted)
    if interrupted:
        _print_interruption(selection, summary.queues)
        return INTERRUPTED
    return code


def _make_passes(
    run: Run, selection: Selection, queues: QueueCache, outcomes: dict[str, NodeOutcome], *, wait: bool
) -> None:
    """Make a pass, and as long as there are jobs to wait for, another; outcomes are those of the last."""
    while True:
        run_pass(run, [outline.name for outline in selection.outlines], outcomes)
        in_flight = _find_in_flight(outcomes)
        if not (wait and in_flight):
            return
        jobs = count(sum(map(len, in_flight.values())), "job")
        run.watcher.note("psy", f"waiting for {jobs}; Ctrl-C leaves them running")
        pending = [outline for outline in selection.chain if outline.name in in_flight]
        wait_for_jobs(pending, run.watcher, queues)
        run = replace(run, options=run.options.for_next_pass(in_flight))
        for name in _find_unfinished(outcomes):
            del outcomes[name]


def _find_in_flight(outcomes: Mapping[str, NodeOutcome]) -> dict[str, frozenset[int]]:
    """Return task -> batches that jobs evaluate."""
    return {name: each.in_flight for name, each in outcomes.items() if each.state is NodeState.PENDING}


def _find_unfinished(outcomes: Mapping[str, NodeOutcome]) -> set[str]:
    return {name for name, each in outcomes.items() if each.state is not NodeState.FINISHED}


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let TERM and HUP do what Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # Ignored signals stay ignored: under nohup, a closed terminal is no reason to stop.
    caught = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Summary:
    """Prints how tasks ended: those that finish when they do, the others at the end of the run.

    Parameters
    ----------
    selection
        The tasks to run.
    queues
        Answers of batch systems.
    watcher
        Writes lines, above a bar.
    """

    def __init__(self, selection: Selection, queues: QueueCache, watcher: LogWatcher) -> None:
        self.queues = queues
        self._selection, self._watcher = selection, watcher
        self._codes: dict[str, int] = {}

    def take(self, name: str, outcome: NodeOutcome) -> None:
        """Take the outcome of a node, and print that of its task if it is finished."""
        outlines = {outline.name: outline for outline in self._selection.outlines}
        if outcome.state is not NodeState.FINISHED or name not in outlines:
            return
        end = _try_status(outlines[name], self._selection.cache, self.queues)
        if isinstance(end, Status) and end.uptodate:
            lines, self._codes[name] = self._summarise(outlines[name], end, outcome)
            for line in lines:
                self._watcher.write(line)

    def finish(self, outcomes: Mapping[str, NodeOutcome], *, interrupted: bool) -> int:
        """Print the outcomes of the other tasks, and of unfinished ones before them; return the exit code."""
        selection = self._selection
        waiting = {} if interrupted else find_waiting(selection.chain, outcomes)
        unfinished = _find_unfinished(outcomes) | waiting.keys()
        before = (each for each in selection.upstream if each.name in unfinished)
        for outline in [*before, *(each for each in selection.outlines if each.name not in self._codes)]:
            outcome = outcomes.get(outline.name)
            error = outcome.error if outcome is not None else None
            end: Exception | Waiting | Status | None = error or waiting.get(outline.name)
            if end is None and interrupted and not outline.layout.plan.exists():
                continue  # The number of rows is known only after running the task file.
            end = end or _try_status(outline, selection.cache, self.queues)
            if isinstance(end, Exception):
                self._codes[outline.name] = report_errors([end], outline.name)
                continue
            lines, self._codes[outline.name] = self._summarise(outline, end, outcome, interrupted=interrupted)
            click.echo("\n".join(lines))
        return worst(self._codes.values())

    def _summarise(
        self,
        outline: Outline,
        end: Status | Waiting,
        outcome: NodeOutcome | None,
        *,
        interrupted: bool = False,
    ) -> tuple[list[str], int]:
        cache = self._selection.cache
        done = isinstance(end, Status) and end.uptodate
        plan = read_plan(outline.layout) if done and outcome is not None else None
        return summarise(
            end,
            outcome,
            edited=done and _was_edited(outline, cache),
            changed=describe_meanwhile(outline, plan, cache) if plan is not None else "",
            interrupted=interrupted,
        )


def _print_interruption(selection: Selection, queues: QueueCache) -> None:
    """Print how to go on; jobs are counted from files, since a node that was interrupted left no outcome."""
    jobs = sum(_count_jobs(outline, queues) for outline in selection.chain)
    go_on = f" {count(jobs, 'job')} in flight go on." if jobs else ""
    names = " ".join(outline.name for outline in selection.outlines)
    click.echo(f"interrupted; what is finished is kept.{go_on} To go on: psy run {names}")


def _count_jobs(outline: Outline, queues: QueueCache) -> int:
    try:
        return len(queues.read_jobs(outline).states) if has_detached_jobs(outline) else 0
    except (PsyrunError, OSError):
        return 0


def _try_status(outline: Outline, cache: SourceCache, queues: QueueCache) -> Status | Exception:
    try:
        return read_status(outline, cache, queues)
    except (PsyrunError, OSError) as error:
        return error


def _was_edited(outline: Outline, cache: SourceCache) -> bool:
    """Whether the sources changed since the outline was read."""
    try:
        now = read_source(outline.root, outline.root / outline.path, cache)
    except PsyrunError:
        return True
    return (now.code, now.space) != (outline.source.code, outline.source.space)
