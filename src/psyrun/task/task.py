"""Tasks: task files that were run, their settings checked."""

from __future__ import annotations

import difflib
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from psyrun.errors import TaskFileError
from psyrun.source import loaded
from psyrun.task.outline import store_for
from psyrun.task.settings import check_settings
from psyrun.task.signatures import check_execute, check_setup
from psyrun.workdir import FAILURE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from psyrun.backend import Backend
    from psyrun.pspace import ParameterSpace
    from psyrun.scheduler import Scheduler
    from psyrun.source import Source
    from psyrun.store import Store
    from psyrun.task.outline import Outline


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task file that was run, its settings checked.

    Parameters
    ----------
    outline
        Part of the file that the graph needs.
    pspace, execute, setup
        The parameter space, the function to evaluate, and the one that is called once per process (or None).
    backend, scheduler, store
        Instances.
    max_jobs, min_items, pool_size, timeout
        Limits; None if the file does not set them. `timeout` is in seconds.
    scheduler_args, merge_args
        Options for the scheduler.
    prologue
        Shell script for jobs to source, relative to the task folder, or None.
    python
        The Python that jobs run.
    untracked, stateless, track_inputs
        Patterns of paths that are no inputs; whether rows keep nothing of what they read; whether inputs are
        observed at all.
    """

    outline: Outline
    pspace: ParameterSpace
    execute: Callable[..., Any]
    setup: Callable[[int], Any] | None
    backend: Backend
    scheduler: Scheduler
    store: Store
    max_jobs: int
    min_items: int
    pool_size: int | None
    timeout: float | None
    scheduler_args: Mapping[str, Any]
    merge_args: Mapping[str, Any]
    prologue: str | None
    python: str
    untracked: Sequence[str]
    stateless: bool
    track_inputs: bool

    @property
    def name(self) -> str:
        """The task's name."""
        return self.outline.name

    @property
    def total(self) -> int:
        """Number of assignments in the space; TaskFileError if it can't be counted."""
        try:
            return len(self.pspace)
        except Exception as error:
            raise TaskFileError(f"{self.outline.path}: pspace can't be evaluated: {error}") from error


@contextmanager
def open_task(outline: Outline) -> Iterator[Task]:
    """Run a task file, and keep its modules importable while the context lasts.

    Raises
    ------
    TaskFileError
        If the file can't be run, lacks `pspace` or `execute`, or has a wrong setting.
    """
    source = outline.source
    with loaded(source, outline.root) as module:
        values = check_settings(source, vars(module))
        for name in ("pspace", "execute"):
            if values[name] is None:
                raise TaskFileError(f"{source.task}: there is no `{name}`; a task file has to define it")
        names, setup = _list_names(source, values["pspace"]), values["setup"]
        if outline.allow_failed is not False and FAILURE in names:
            raise TaskFileError(
                f"{source.task}: with allow_failed, the result has a column {FAILURE!r}; rename the parameter"
            )
        check_execute(source.task, values["execute"], names, more=setup is not None)
        if setup is not None:
            check_setup(source.task, setup)
        _check_options(source, outline.root, values)
        checked = {each.name: values[each.name] for each in fields(Task) if each.name != "outline"}
        checked["store"] = values["store"] or store_for(outline.result)
        yield Task(outline=outline, **checked)


def _list_names(source: Source, pspace: ParameterSpace) -> list[str]:
    try:
        return list(pspace.keys())
    except Exception as error:  # The space may be a user's own class.
        raise TaskFileError(f"{source.task}: pspace does not tell its parameters: {error!r}") from error


def _check_options(source: Source, root: Path, values: Mapping[str, Any]) -> None:
    scheduler = values["scheduler"]
    known = scheduler.options
    for setting in ("scheduler_args", "merge_args"):
        for option in values[setting]:
            if option not in known and known:
                near = difflib.get_close_matches(option, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
                raise TaskFileError(f"{source.task}: {setting}: {option!r} is not an option; {hint}")
    lacking = [name for name in scheduler.required if values["scheduler_args"].get(name) is None]
    if lacking:
        kind = type(scheduler).__name__
        raise TaskFileError(f"{source.task}: {kind} requires scheduler_args that are not there: {lacking}")
    prologue = values["prologue"]
    if prologue is not None and not (root / source.task).parent.joinpath(prologue).is_file():
        raise TaskFileError(
            f"{source.task}: there is no prologue {prologue!r}, taken relative to the task file"
        )
