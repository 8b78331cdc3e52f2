"""Graph of doit nodes, split -> process -> merge for each task file, and passes over it."""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain
from doit.exceptions import BaseFail, InvalidTask, TaskFailed, UnmetDependency

from psyrun.disk import naming
from psyrun.errors import PsyrunError, PsyrunWarning, TaskFileError, explain
from psyrun.jobs import QueueCache, finish, open_submissions, process
from psyrun.logwatcher import LogWatcher
from psyrun.merge import merge
from psyrun.options import RunOptions, Watcher
from psyrun.source import CACHE_PATH, SourceCache
from psyrun.split import (
    compute_digests,
    describe_meanwhile,
    find_changes,
    hold_task,
    is_planned,
    is_stale,
    list_read_files,
    split,
)
from psyrun.task import Project, read_outlines
from psyrun.values import count
from psyrun.workdir import (
    create_root,
    is_current,
    is_plan_damaged,
    is_receipt_true,
    read_plan,
    read_receipt,
    refresh_receipt,
)

if TYPE_CHECKING:
    from psyrun.task import Outline


WORK = "psy-work"


class NodeState(Enum):
    """State of a node of the graph after a pass."""

    FINISHED = "finished"
    PENDING = "pending"
    FAILED = "failed"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOutcome:
    """How a node of the graph ended.

    Parameters
    ----------
    step
        The node: split, process or merge; empty for a broken task file.
    state
        Its state; `FINISHED` where a result was written.
    message
        Text for plain doit.
    in_flight
        Batches that jobs evaluate, one each, of a node that is `PENDING`.
    error
        Reason of `ERROR`.
    """

    step: str
    state: NodeState
    message: str = ""
    in_flight: frozenset[int] = frozenset()
    error: Exception | None = None

    def for_doit(self) -> TaskFailed | None:
        """Return the outcome as an action returns it: jobs in flight are a failure that is not reported."""
        if self.state is NodeState.FINISHED:
            return None
        return TaskFailed(self.message, report=self.state is not NodeState.PENDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Passes over the graph.

    Parameters
    ----------
    project
        The project.
    options
        Options of the user.
    cache
        Cache of source facts.
    watcher
        Progress listener.
    queues
        Answers of batch systems; made for all tasks that are found, unless it is given.
    ended
        Called with the name of a task and the outcome of a node that left one.
    """

    project: Project
    options: RunOptions
    cache: SourceCache
    watcher: Watcher = field(default_factory=Watcher)
    queues: QueueCache | None = None
    ended: Callable[[str, NodeOutcome], None] = lambda name, outcome: None


class _DoitWatcher(LogWatcher):
    """Messages and progress on standard output, where doit has its own and which it replaces meanwhile."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def write(self, line: str) -> None:
        """Write a line."""
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def stale(self, task: str, message: str) -> None:
        """Write what makes rows stale."""
        self.note(task, message)


def _print_end(name: str, outcome: NodeOutcome) -> None:
    """Print that a task is finished; doit prints other outcomes."""
    if outcome.state is NodeState.FINISHED:
        sys.stdout.write(f"{name}: {outcome.message}\n")


def waiting_run(project: Project) -> Run:
    """Return a run that waits for the jobs of batch systems, and writes messages on standard output."""
    cache = SourceCache.load(project.root / CACHE_PATH)
    options, watcher = RunOptions(wait=True), _DoitWatcher()
    return Run(project=project, options=options, cache=cache, watcher=watcher, ended=_print_end)


def doit_tasks(taskdir: str = "psy-tasks") -> Iterator[dict[str, Any]]:
    """Yield the doit tasks of a folder of task files, which wait for jobs of a batch system.

    For use in a dodo file; each task file becomes a group named after the task, of three nodes.

    Parameters
    ----------
    taskdir
        Folder of the task files, relative to the folder of the dodo file.

    Yields
    ------
    dict
        A doit task.

    Examples
    --------
    In ``dodo.py``::

        import psyrun

        def task_psy():
            yield from psyrun.doit_tasks("psy-tasks")

        def task_plot():
            return {"file_dep": ["psy-work/example/result.pkl"], "actions": ["python plot.py"]}
    """
    yield from _make_nodes(waiting_run(Project(Path.cwd(), taskdir)), {}, order_by_reads=True)


def _make_nodes(
    run: Run, outcomes: dict[str, NodeOutcome], *, order_by_reads: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the doit tasks of a run; those of broken task files fail. Outcomes are added by task.

    Parameters
    ----------
    run
        The run.
    outcomes
        Task -> outcome, added to.
    order_by_reads
        Whether split comes behind tasks of others that make what rows were seen to read.
    """
    try:
        outlines, broken = read_outlines(run.project.root, run.project.taskdir, run.cache)
    except TaskFileError as missing:  # The folder; doit shows no traceback of this one.
        raise InvalidTask(str(missing)) from missing
    taken = set(outlines)
    for name, error in broken.items():
        outcomes[name] = NodeOutcome(step="", state=NodeState.ERROR, message=str(error), error=error)
        yield _broken_node(name, outcomes[name], taken)
    queues = run.queues or QueueCache(outlines.values())
    results = {outline.result for outline in outlines.values()}  # Only file_dep orders these: no cycles.
    for outline in outlines.values():
        known = results.union(outline.source.paths, outline.file_dep)
        read = list_read_files(outline) - known if order_by_reads else ()
        yield from _Nodes(outline, run, queues, outcomes, frozenset(read)).nodes()


def _broken_node(name: str, outcome: NodeOutcome, taken: set[str]) -> dict[str, Any]:
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name) or "_"
    while plain in taken:
        plain += "_"
    taken.add(plain)
    return {"basename": plain, "actions": [(outcome.for_doit,)], "doc": "broken task file"}


@dataclass(frozen=True, slots=True)
class _Nodes:
    """The nodes of one task; `read`: files whose makers come before split."""

    outline: Outline
    run: Run
    queues: QueueCache
    outcomes: dict[str, NodeOutcome]
    read: frozenset[str]

    def nodes(self) -> Iterator[dict[str, Any]]:
        outline, layout = self.outline, self.outline.layout
        plan, receipt = layout.relative(layout.plan), layout.relative(layout.process)
        sources = [*outline.source.paths, *outline.file_dep, *sorted(self.read)]
        yield {"basename": outline.name, "name": None, "doc": f"everything for {outline.path}"}
        for step, action, is_done, file_dep, target in (
            ("split", self._split, self._is_split, sources, plan),
            ("process", self._process, self._is_processed, [plan], receipt),
            ("merge", self._merge, self._is_merged, [receipt], outline.result),
        ):
            yield {
                "basename": outline.name,
                "name": step,
                "file_dep": file_dep,
                "targets": [target],
                "actions": [(self._record(step, action),)],
                "uptodate": [_veto(is_done)],
                "verbosity": 2,
                "doc": _DOCS[step],
                "params": _PARAMS if step == "split" else [],
            }

    def _record(self, step: str, action: Callable[[RunOptions], NodeOutcome | None]) -> Callable[..., Any]:
        """Make an action for doit that adds its outcome to the others, errors included."""
        name = self.outline.name

        def act(keep_rows: bool = False, again: bool = False) -> TaskFailed | None:
            options = self.run.options.for_task(name)
            if keep_rows or again:
                options = replace(options, adopt=keep_rows, force=again)
            try:
                with naming(self.outline.layout.folder):
                    outcome = action(options)
            except (PsyrunError, OSError) as error:
                outcome = NodeOutcome(
                    step=step, state=NodeState.ERROR, message=explain(error, name), error=error
                )
            if outcome is None:
                return None
            self.outcomes[name] = outcome
            self.run.ended(name, outcome)
            return outcome.for_doit()

        return act

    # ------------------------------------------------------------------ split

    def _split(self, options: RunOptions) -> None:
        split(self.outline, options, self.run.cache, self.run.watcher)

    def _is_split(self, task: Any) -> bool:
        # They have ordered the graph. doit would read large ones, and refuse to run where one is gone.
        task.file_dep -= self.read
        layout = self.outline.layout
        given = task.options or {}
        options = self.run.options.for_task(self.outline.name)
        if options.force or options.adopt or given.get("again") or given.get("keep_rows"):
            return False
        plan = read_plan(layout)
        if plan is None or is_plan_damaged(layout):
            return False
        if not is_planned(layout, plan, compute_digests(self.outline, self.run.cache)):
            return False
        return not is_stale(self.outline, plan, find_changes(self.outline, plan, self.run.cache))

    # ------------------------------------------------------------------ process

    def _process(self, options: RunOptions) -> NodeOutcome | None:
        name, layout = self.outline.name, self.outline.layout
        act = finish if options.wait else process
        ended = act(self.outline, options, self.run.watcher, self.queues)
        for message in ended.messages:
            self.run.watcher.note(name, message)
        if ended.finished or (is_current(layout, read_plan(layout)) and not ended.in_flight):
            return None
        if ended.in_flight:
            text = f"{name}: {len(ended.in_flight)} jobs in flight"
            return NodeOutcome(
                step="process", state=NodeState.PENDING, message=text, in_flight=ended.in_flight
            )
        progress = ended.progress
        text = f"{name}: {progress.failed} rows failed, {progress.missing} missing of {progress.total}"
        text = "\n".join([text, *ended.messages, f"which, and why: psy errors {name}"])
        return NodeOutcome(step="process", state=NodeState.FAILED, message=text)

    def _is_processed(self, task: Any) -> bool:
        layout = self.outline.layout
        plan = read_plan(layout)
        receipt = read_receipt(layout.process)
        if plan is None or receipt is None or receipt.get("table") != plan.table_digest:
            return False
        options = self.run.options.for_task(self.outline.name)
        if (receipt.get("failed") and options.retry) or open_submissions(self.outline):
            return False
        # Without a current result, the journals are read: merge is about to rely on them.
        return is_current(layout, plan) or is_receipt_true(plan, layout)

    # ------------------------------------------------------------------ merge

    def _merge(self, options: RunOptions) -> NodeOutcome | None:
        name = self.outline.name
        # The job that merges may be at it, too.
        with hold_task(self.outline, self.run.watcher):
            merged = merge(self.outline, options)
        if merged.filled:
            names = ", ".join(map(repr, merged.filled))
            self.run.watcher.note(name, f"some rows lack {names}: filled with NaN beside numbers, else None")
        plan = read_plan(self.outline.layout) if merged.written else None
        changed = describe_meanwhile(self.outline, plan, self.run.cache) if plan is not None else ""
        if changed:
            self.run.watcher.stale(name, changed)
        if plan is None:
            return None
        failed = (read_receipt(self.outline.layout.receipt) or {}).get("failed")
        more = f", {failed:,} of them failed" if failed else ""
        text = f"finished, {count(plan.total, 'row')} in {self.outline.result}{more}"
        return NodeOutcome(step="merge", state=NodeState.FINISHED, message=text)

    def _is_merged(self, task: Any) -> bool:
        layout = self.outline.layout
        current = is_current(layout, read_plan(layout))
        with contextlib.suppress(OSError):  # Where nothing can be written, its content is read each time.
            if current:
                refresh_receipt(layout)
        return current


_DOCS = {"split": "plan the batches", "process": "evaluate them", "merge": "write the result"}
_KEEP = "count rows of older code as current, keep rows that the space no longer names"
_PARAMS = [
    {"name": name, "long": name.replace("_", "-"), "type": bool, "default": False, "help": meaning}
    for name, meaning in (("keep_rows", _KEEP), ("again", "evaluate every row again"))
]


def _veto(is_done: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Make a predicate that never raises: doit would end the whole run."""

    def check(task: Any) -> bool:
        try:
            return is_done(task)
        except Exception:
            return False  # The action meets the same fault, and can report it.

    return check


# ---------------------------------------------------------------------- running doit


class _Reporter:
    """Reporter for doit that adds errors of its own to the outcomes."""

    def __init__(self, outcomes: dict[str, NodeOutcome]) -> None:
        self._outcomes = outcomes

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        """Add the error of a node that has no outcome, unless it follows from one before."""
        name, _, step = task.name.partition(":")
        known = self._outcomes.get(name)
        if isinstance(fail, UnmetDependency) or not (known is None or known.state is NodeState.FINISHED):
            return
        text = f"{name}: {fail.get_msg().strip()}"
        self._outcomes[name] = NodeOutcome(
            step=step, state=NodeState.ERROR, message=text, error=RuntimeError(text)
        )

    def runtime_error(self, message: str) -> None:
        """Warn of an error of the graph as a whole."""
        warnings.warn(message, PsyrunWarning, stacklevel=2)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


def run_pass(run: Run, names: Sequence[str], outcomes: dict[str, NodeOutcome]) -> None:
    """Let doit make one pass over the graph.

    Parameters
    ----------
    run
        The run.
    names
        The tasks; all where there is none.
    outcomes
        Task -> outcome of the node where it ended; added to, so that an interrupted pass leaves its outcomes.
    """
    _run_doit(run, ["run", *names], outcomes, {"reporter": _Reporter(outcomes), "continue": True})


def run_doit(run: Run, arguments: Sequence[str]) -> int:
    """Run plain doit on the graph and return its exit code."""
    return _run_doit(run, arguments, {}, {})


def _run_doit(
    run: Run, arguments: Sequence[str], outcomes: dict[str, NodeOutcome], config: Mapping[str, Any]
) -> int:
    create_root(run.project.root / WORK)
    settings = {"dep_file": f"{WORK}/.doit.db", "backend": "psyrun", "check_file_uptodate": "md5", **config}
    loader = ModuleTaskLoader({"DOIT_CONFIG": settings, "task_psyrun": lambda: _make_nodes(run, outcomes)})
    plugins = {"BACKEND": {"psyrun": "psyrun.database:CacheDatabase"}}
    try:
        main = DoitMain(loader, config_filenames=(), extra_config=plugins)
        return int(main.run(list(arguments)) or 0)
    finally:
        run.cache.save(run.project.root / CACHE_PATH)
