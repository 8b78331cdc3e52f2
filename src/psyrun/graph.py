"""The graph: doit nodes split -> process -> merge per task file; the loader; running a pass of doit."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doit.cmd_base import TaskLoader2
from doit.dependency import DatabaseException, SqliteDB
from doit.doit_cmd import DoitMain
from doit.exceptions import BaseFail, InvalidTask, TaskFailed
from doit.loader import generate_tasks

from psyrun.errors import PsyrunError, TaskFileError, explain
from psyrun.jobs import QueueCache, finish, process
from psyrun.merge import merge
from psyrun.options import RunOptions, Watcher
from psyrun.source import CACHE_PATH, SourceCache
from psyrun.split import compute_digests, is_unmanaged_result, split
from psyrun.task import read_outlines
from psyrun.workdir import has_inputs, is_current, is_receipt_true, read_plan, read_receipt, refresh_receipt

if TYPE_CHECKING:
    from psyrun.task import Outline


WORK = "psy-work"


class Pending(TaskFailed):  # type: ignore[misc]
    """The outcome of a node whose jobs are in flight: not done, and nothing to report.

    doit never records it as a success.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, report=False)


@dataclass(slots=True, kw_only=True)
class Run:
    """One pass over the graph: what was ordered, and what came of it.

    Parameters
    ----------
    root
        The project root.
    taskdir
        Folder of the task files, relative to the root.
    options
        What the user asked for.
    watcher
        Told how it goes.
    queues
        What batch systems say; made for all tasks that are found, unless it is given.
    errors, failures, pending, written
        What came of it: task -> what is wrong, task -> which rows could not be evaluated, task -> batches
        in the hands of jobs, and tasks whose result was written.
    cache
        What is remembered of unchanged sources.
    """

    root: Path
    taskdir: str = "psy-tasks"
    options: RunOptions = field(default_factory=RunOptions)
    watcher: Watcher = field(default_factory=Watcher)
    queues: QueueCache | None = None
    errors: dict[str, Exception] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    pending: dict[str, frozenset[int]] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    cache: SourceCache = field(default_factory=SourceCache)

    @property
    def cache_path(self) -> Path:
        """Where digests of unchanged sources are remembered."""
        return self.root / CACHE_PATH


def doit_tasks(taskdir: str = "psy-tasks", *, run: Run | None = None) -> Iterator[dict[str, Any]]:
    """Yield the doit tasks of a folder of task files.

    For use in a dodo file; each task file becomes a group named after the task, of three nodes.

    Parameters
    ----------
    taskdir
        Folder of the task files, relative to the folder of the dodo file.
    run
        What to do with them; without it, jobs of a batch system are waited for.

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
    if run is None:
        run = Run(root=Path.cwd(), taskdir=taskdir, options=RunOptions(wait=True))
    run.cache = SourceCache.load(run.cache_path)
    try:
        outlines, broken = read_outlines(run.root, run.taskdir, run.cache)
    except TaskFileError as missing:  # The folder; doit shows no traceback of this one.
        raise InvalidTask(str(missing)) from missing
    taken = set(outlines)
    for name, error in broken.items():
        run.errors[name] = error
        yield _broken_node(name, error, taken)
    queues = run.queues or QueueCache(outlines.values())
    for outline in outlines.values():
        yield from _Nodes(outline, run, queues).nodes()


def _broken_node(name: str, error: PsyrunError, taken: set[str]) -> dict[str, Any]:
    def fail() -> TaskFailed:
        return TaskFailed(str(error))

    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name) or "_"
    while plain in taken:
        plain += "_"
    taken.add(plain)
    return {"basename": plain, "actions": [(fail,)], "doc": "broken task file"}


@dataclass(frozen=True, slots=True)
class _Nodes:
    """The nodes of one task."""

    outline: Outline
    run: Run
    queues: QueueCache

    def nodes(self) -> Iterator[dict[str, Any]]:
        outline, layout = self.outline, self.outline.layout
        name = outline.name
        plan, receipt = layout.relative(layout.plan), layout.relative(layout.process)
        yield {"basename": name, "name": None, "doc": f"everything for {outline.path}"}
        sources = [*outline.source.files, *outline.file_dep]
        yield self._node("split", self._split, self._is_split, sources, plan)
        yield self._node("process", self._process, self._is_processed, [plan], receipt)
        yield self._node("merge", self._merge, self._is_merged, [receipt], outline.result)

    def _node(
        self,
        step: str,
        action: Callable[..., Any],
        settled: Callable[..., bool],
        file_dep: Sequence[str],
        target: str,
    ) -> dict[str, Any]:
        node = {
            "basename": self.outline.name,
            "name": step,
            "file_dep": list(file_dep),
            "targets": [target],
            "actions": [(self._guard(action),)],
            "uptodate": [_veto(settled)],
            "verbosity": 2,
            "doc": _DOCS[step],
        }
        if step == "split":
            node["params"] = _PARAMS
        return node

    def _guard(self, action: Callable[[RunOptions], Any]) -> Callable[..., Any]:
        """Turn our errors into outcomes of a node."""

        def act(keep_rows: bool = False, again: bool = False) -> Any:
            options = self.run.options.for_task(self.outline.name)
            if keep_rows or again:
                options = replace(options, adopt=keep_rows, force=again)
            try:
                return action(options)
            except PsyrunError as error:
                self.run.errors[self.outline.name] = error
                return TaskFailed(str(error))
            except OSError as error:
                self.run.errors[self.outline.name] = error
                return TaskFailed(f"{self.outline.name}: {explain(error)}")

        return act

    # ------------------------------------------------------------------ split

    def _split(self, options: RunOptions) -> None:
        split(self.outline, options, self.run.cache, self.run.watcher)

    def _is_split(self, task: Any) -> bool:
        layout = self.outline.layout
        given = task.options or {}
        options = self.run.options.for_task(self.outline.name)
        if options.force or options.adopt or given.get("again") or given.get("keep_rows"):
            return False
        plan = read_plan(layout)
        if plan is None or is_unmanaged_result(layout, plan):
            return False
        if not compute_digests(self.outline, self.run.cache).match(plan):
            return False
        return has_inputs(plan, layout) or is_current(layout, plan)

    # ------------------------------------------------------------------ process

    def _process(self, options: RunOptions) -> TaskFailed | None:
        name = self.outline.name
        act = finish if options.wait else process
        outcome = act(self.outline, options, self.run.watcher, self.queues)
        for message in outcome.messages:
            self.run.watcher.note(name, message)
        if outcome.finished or is_current(self.outline.layout, read_plan(self.outline.layout)):
            return None
        survey = outcome.progress
        if outcome.in_flight:
            self.run.pending[name] = outcome.in_flight
            return Pending(f"{name}: {len(outcome.in_flight)} jobs in flight")
        text = f"{name}: {survey.failed} rows failed, {survey.missing} missing of {survey.total}"
        self.run.failures[name] = f"why: psy errors {name}; which: psy status -v {name}"
        return TaskFailed("\n".join([text, *outcome.messages, f"which, and why: psy errors {name}"]))

    def _is_processed(self, task: Any) -> bool:
        layout = self.outline.layout
        plan = read_plan(layout)
        receipt = read_receipt(layout.process)
        if plan is None or receipt is None or receipt.get("table") != plan.table_digest:
            return False
        # Without a result to vouch for them, the journals are read: merge is about to rely on them.
        return is_current(layout, plan) or is_receipt_true(plan, layout)

    # ------------------------------------------------------------------ merge

    def _merge(self, options: RunOptions) -> None:
        merged = merge(self.outline, options)
        name = self.outline.name
        if merged.filled:
            names = ", ".join(map(repr, merged.filled))
            self.run.watcher.note(name, f"some rows lack {names}: filled with NaN beside numbers, else None")
        if merged.written:
            self.run.written.add(name)

    def _is_merged(self, task: Any) -> bool:
        layout = self.outline.layout
        current = is_current(layout, read_plan(layout))
        with contextlib.suppress(OSError):  # Where nothing can be written, its content is read each time.
            if current:
                refresh_receipt(layout)
        return current


_DOCS = {"split": "plan the batches", "process": "evaluate them", "merge": "write the result"}
_PARAMS = [
    {
        "name": "keep_rows",
        "long": "keep-rows",
        "type": bool,
        "default": False,
        "help": "count rows of older code as current, keep rows that the space no longer names",
    },
    {"name": "again", "long": "again", "type": bool, "default": False, "help": "evaluate every row again"},
]


def _veto(settled: Callable[[Any], bool]) -> Callable[..., bool]:
    """Make a predicate that never raises: doit would end the whole run."""

    def check(task: Any) -> bool:
        try:
            return settled(task)
        except Exception:
            return False  # The action finds the same fault, and can say so.

    return check


# ---------------------------------------------------------------------- running doit


class ForgivingDatabase(SqliteDB):  # type: ignore[misc]
    """doit's database, which is a cache: locked for 2 s, or damaged, it is replaced by memory."""

    def __init__(self, name: str, codec: Any, **options: Any) -> None:
        self._removed: set[str] = set()
        self._warned = False
        with contextlib.suppress(OSError):
            Path(name).touch()  # SQLite itself would withhold it from a group that may write.
        try:
            with contextlib.closing(sqlite3.connect(name, timeout=2.0)) as probe:
                probe.execute("begin immediate")
                probe.rollback()
            super().__init__(name, codec, **options)
        except (sqlite3.Error, DatabaseException) as error:
            self._warn(name, error)
            super().__init__(":memory:", codec, **options)

    def remove(self, task_id: str) -> None:
        """Forget a node; the file learns of it at the end, so that nobody is locked out meanwhile."""
        self._cache[task_id] = {}
        self._dirty.discard(task_id)
        self._removed.add(task_id)

    def dump(self) -> None:
        """Write what changed; when that is not possible, the next run has a little more to do."""
        try:
            for task_id in self._removed - self._dirty:
                self._conn.execute("delete from doit where task_id=?", (task_id,))
            super().dump()
        except sqlite3.Error as error:
            self._warn(self.name, error)

    def _warn(self, name: str, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"{name}: {error}; going on without it, nothing is evaluated twice", stacklevel=3)


class _Loader(TaskLoader2):  # type: ignore[misc]
    """Gives doit the tasks of a run."""

    def __init__(self, run: Run, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._run = run
        self._config = config

    def load_doit_config(self) -> dict[str, Any]:
        """Return the settings that psyrun relies on."""
        return {
            "dep_file": f"{WORK}/.doit.db",
            "backend": "psyrun",
            "check_file_uptodate": "md5",
            **self._config,
        }

    def load_tasks(self, cmd: Any, pos_args: Sequence[str]) -> list[Any]:
        """Return the nodes of all task files."""
        tasks = generate_tasks("psyrun", doit_tasks(self._run.taskdir, run=self._run))
        return list(tasks)


class _Reporter:
    """Keeps what doit reports of nodes that could not run; our own outcomes are noted where they occur."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        """Note the failure of a node, unless it follows from one before."""
        name = task.name.partition(":")[0]
        known = self._run.errors.keys() | self._run.failures.keys() | self._run.pending.keys()
        if name not in known and fail.get_name() != "UnmetDependency":
            self._run.errors[name] = RuntimeError(f"{name}: {fail.get_msg().strip()}")

    def runtime_error(self, message: str) -> None:
        """Note an error of the graph as a whole."""
        self._run.failures[""] = message

    def __getattr__(self, name: str) -> Callable[..., None]:
        def ignore(*arguments: Any) -> None: ...

        return ignore


def run_pass(run: Run, names: Sequence[str]) -> None:
    """Let doit make one pass over the graph; what came of it stands in `run` and on the disk.

    Parameters
    ----------
    run
        What to do.
    names
        The tasks; all where there is none.
    """
    (run.root / WORK).mkdir(exist_ok=True)
    config = {"reporter": _Reporter(run), "continue": True}
    try:
        _doit(run, config).run(["run", *names])
    finally:
        run.cache.save(run.cache_path)


def run_doit(run: Run, arguments: Sequence[str]) -> int:
    """Run plain doit on the graph and return its exit code."""
    (run.root / WORK).mkdir(exist_ok=True)
    try:
        return int(_doit(run, {}).run(list(arguments)) or 0)
    finally:
        run.cache.save(run.cache_path)


def _doit(run: Run, config: Mapping[str, Any]) -> DoitMain:
    plugins = {"BACKEND": {"psyrun": f"{__name__}:{ForgivingDatabase.__name__}"}}
    return DoitMain(_Loader(run, config), config_filenames=(), extra_config=plugins)
