"""``psy run``: what is at stake, the passes, and what came of them in words and an exit code."""

from __future__ import annotations

import signal
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from psyrun.cli.forecast import StaleRowsFinder
from psyrun.cli.progress import make_watcher
from psyrun.cli.status import read_status
from psyrun.cli.text import count, duration
from psyrun.errors import (
    INTERRUPTED,
    OK,
    PENDING,
    UNFINISHED,
    USAGE,
    DirtyError,
    FormatError,
    PsyrunError,
    TaskFileError,
    explain,
)
from psyrun.graph import Run, run_pass
from psyrun.jobs import QueueCache, wait_for_jobs
from psyrun.source import read_source
from psyrun.task import find_dependencies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import FrameType

    from psyrun.cli.progress import LogWatcher
    from psyrun.cli.status import Status
    from psyrun.options import RunOptions
    from psyrun.source import SourceCache
    from psyrun.task import Outline, Selection


_SEVERITY = (OK, PENDING, UNFINISHED, USAGE, INTERRUPTED)
ASK_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """How to talk to the user: on standard output, on standard error, and with a question."""

    say: Callable[[str], None]
    complain: Callable[[str], None]
    confirm: Callable[[str], bool]


def worst(codes: Iterable[int]) -> int:
    """Return the worst of some exit codes."""
    return max(codes, key=_SEVERITY.index, default=OK)


def code_of(error: Exception) -> int:
    """Return the exit code for an error."""
    return USAGE if isinstance(error, (TaskFileError, DirtyError, FormatError)) else UNFINISHED


def confirm_rerun(
    chain: Sequence[Outline], options: RunOptions, cache: SourceCache, talk: Talk, *, yes: bool
) -> bool:
    """Say which finished rows an edit makes stale; ask where they are costly. Return whether to go on.

    Parameters
    ----------
    chain
        The tasks, each behind those whose results it needs.
    options
        What the user asked for: `--continue` and `--force` need no question.
    cache
        What is remembered of unchanged sources.
    talk
        How to say it.
    yes
        Whether the answer is known.
    """
    costly = False
    stakes = StaleRowsFinder(cache)
    for outline in chain:
        try:
            stake = stakes.find(outline, options.for_task(outline.name))
        except (PsyrunError, OSError):
            continue  # The run finds the same fault, and says so.
        if stake is None or not outline.overwrite_dirty:  # That is refused, in words of its own.
            continue
        changed = ", ".join(stake.changed)
        cause, condition = (f"{changed} changed. ", "") if stake.sure else ("", f" if {changed} changes")
        talk.say(
            f"{stake.task}: {cause}{count(stake.rows, 'row')} ({duration(stake.seconds)} of computing)"
            f" will be evaluated again{condition}; to keep them: psy run --continue {stake.task}"
        )
        costly = costly or stake.seconds > ASK_SECONDS
    if costly and not yes and sys.stdin.isatty() and sys.stdout.isatty():
        return talk.confirm("Evaluate them again?")
    return True


def run_passes(
    taskdir: str, selection: Selection, options: RunOptions, talk: Talk, *, wait: bool = False
) -> int:
    """Let doit make passes over the graph, say what came of it, and return the exit code.

    Parameters
    ----------
    taskdir
        Folder of the task files, relative to the project root.
    selection
        The tasks to run.
    options
        What the user asked for.
    talk
        How to say it.
    wait
        Whether to wait for the jobs of a batch system and make another pass, until nothing is in flight.
    """
    outlines, chain = selection.outlines, selection.chain
    queues = QueueCache(chain)
    interrupted = False
    with make_watcher() as watcher, _warnings_to(watcher), _signals_interrupt():
        first = run = Run(
            root=outlines[0].root, taskdir=taskdir, options=options, watcher=watcher, queues=queues
        )
        try:
            for run in _make_passes(first, [outline.name for outline in outlines]):
                if not (wait and run.pending):
                    break
                flying = [outline for outline in chain if outline.name in run.pending]
                jobs = count(_count_jobs(run), "job")
                watcher.note("psy", f"waiting for {jobs}; Ctrl-C leaves them running")
                wait_for_jobs(flying, watcher, queues)
        except KeyboardInterrupt:
            interrupted = True
    waiting = {} if interrupted else _find_waiting(chain, run)
    unfinished = run.pending.keys() | run.failures.keys() | run.errors.keys() | waiting.keys()
    told = [*(outline for outline in selection.upstream if outline.name in unfinished), *outlines]
    code = _summarise(told, waiting, run, talk, interrupted=interrupted)
    if not interrupted:
        return code
    names = " ".join(outline.name for outline in outlines)
    jobs = f" {count(_count_jobs(run), 'job')} in flight go on." if run.pending else ""
    talk.say(f"interrupted; what is finished is kept.{jobs} To go on: psy run {names}")
    return INTERRUPTED


def _count_jobs(run: Run) -> int:
    return sum(map(len, run.pending.values()))


def _make_passes(run: Run, names: Sequence[str]) -> Iterator[Run]:
    """Yield a run after each pass; the next one does not try again what it submitted."""
    while True:
        run_pass(run, names)
        yield run
        tried = dict(run.options.tried)
        for name, batches in run.pending.items():
            tried[name] = tried.get(name, frozenset()) | batches
        run = replace(
            run,
            options=run.options.for_next_pass(tried),
            errors={},
            failures={},
            pending={},
        )


@contextmanager
def _warnings_to(watcher: LogWatcher) -> Iterator[None]:
    def show(message: Warning | str, *details: Any, **more: Any) -> None:
        watcher.note("psy", str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)  # After a second Ctrl-C, a worker may be left.
        warnings.showwarning = show
        yield


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let TERM and HUP do what Ctrl-C does: what is finished is kept."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # What was ignored stays ignored: under nohup, a closed terminal is no reason to stop.
    heeded = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _summarise(
    outlines: Sequence[Outline], waiting: Mapping[str, Outline], run: Run, talk: Talk, *, interrupted: bool
) -> int:
    queues = run.queues or QueueCache(outlines)
    codes = []
    for outline in outlines:
        error = run.errors.get(outline.name)
        if error is not None:
            talk.complain(explain(error))
            codes.append(code_of(error))
            continue
        if outline.name in waiting:
            codes.append(_say_waiting(outline, waiting, run, talk))
            continue
        if interrupted and not outline.layout.plan.exists():
            continue  # It would have to be run to know how many rows there are.
        try:
            status = read_status(outline, run.cache, queues)
        except (PsyrunError, OSError) as trouble:
            talk.complain(explain(trouble))
            codes.append(code_of(trouble))
            continue
        codes.append(_summarise_one(status, run, talk, interrupted=interrupted))
        if status.uptodate and _was_edited(outline):
            talk.say(f"  it was edited meanwhile: psy run {outline.name} evaluates the new code")
    return worst(codes)


def _find_waiting(chain: Sequence[Outline], run: Run) -> dict[str, Outline]:
    """Return task -> the task before it in the chain for whose result it waits."""
    unfinished = {*run.pending, *run.failures, *run.errors}
    needs, there = find_dependencies(chain), {outline.name: outline for outline in chain}
    waiting: dict[str, Outline] = {}
    for name in there:
        upstream = next((each for each in needs[name] if each in unfinished or each in waiting), None)
        if upstream is not None:
            waiting[name] = there[upstream]
    return waiting


def _say_waiting(outline: Outline, waiting: Mapping[str, Outline], run: Run, talk: Talk) -> int:
    upstream = first = waiting[outline.name]
    while first.name in waiting:
        first = waiting[first.name]
    waits = f"{outline.name}: waits for {upstream.result}, the result of {upstream.name}"
    if first.name in run.failures or first.name in run.errors:
        talk.say(waits)
        return UNFINISHED
    name = outline.name
    talk.say(f"{waits}; once it is there: psy run {name}, or for the whole chain: psy run --wait {name}")
    return PENDING


def _summarise_one(status: Status, run: Run, talk: Talk, *, interrupted: bool) -> int:
    name = status.name
    if status.uptodate:
        state = "finished" if name in run.written else "up to date"
        talk.say(f"{name}: {state}, {count(status.total, 'row')} in {status.result}")
        return OK
    rows = f"{name}: {status.done:,} of {count(status.total, 'row')} done"
    flying = status.running + status.queued
    if name in run.pending and not interrupted:
        failed = f", {status.failed:,} failed" if status.failed else ""
        talk.say(f"{rows}{failed}, {count(len(run.pending[name]), 'job')} in flight")
        talk.say(f"  the result appears by itself; meanwhile: psy status {name}, psy run --wait {name}")
        return PENDING
    if flying and not interrupted:
        talk.say(f"{rows}, {flying:,} in flight: psy status {name}")
        return PENDING
    words = [f"{status.failed:,} failed"] if status.failed else []
    words += [f"{status.missing:,} missing"] if status.missing else []
    talk.say(
        ", ".join([rows, *words]) + ("" if status.failed or interrupted else f"; to go on: psy run {name}")
    )
    if status.failed:
        talk.say(f"  why: psy errors {name}; which: psy status -v {name}")
        talk.say(f"  to try them again: psy run {name}; after mending the code: psy run --continue {name}")
    elif name in run.failures:
        talk.say(f"  {run.failures[name]}")
    if status.result is not None:
        talk.say(f"  {status.result} is still the result of before")
    return UNFINISHED


def _was_edited(outline: Outline) -> bool:
    """Whether the sources are not those any more that the run began with."""
    try:
        now = read_source(outline.root, outline.root / outline.path)
    except PsyrunError:
        return True
    return (now.code, now.space) != (outline.source.code, outline.source.space)
