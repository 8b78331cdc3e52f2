"""The group of commands: how arguments are read, lines printed, and errors reported."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

import click

from psyrun import __version__, task
from psyrun.errors import PsyrunError, PsyrunWarning, exit_code, explain, worst

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from psyrun.task import Outline, Project, Selection


Item = TypeVar("Item")
Value = TypeVar("Value")


def echo_error(text: str) -> None:
    """Print an error."""
    click.echo(f"psy: {text}", err=True)


def report_errors(errors: Collection[Exception], task: str = "") -> int:
    """Print errors, those of the disk with the name of a task; return the worst of their exit codes."""
    for error in errors:
        echo_error(explain(error, task))
    return worst(map(exit_code, errors))


def try_each(
    items: Iterable[Item],
    act: Callable[[Item], Value],
    broken: Iterable[Exception] = (),
    *,
    name: Callable[[Item], str] = attrgetter("name"),
) -> tuple[list[Value], int]:
    """Call a function with each item, then print the errors; return its values and the exit code for errors.

    The errors are those of broken task files, and those that the function raised, with the item's name.
    """
    values: list[Value] = []
    errors = [("", error) for error in broken]
    for item in items:
        try:
            values.append(act(item))
        except (PsyrunError, OSError) as error:
            if isinstance(error, OSError) and error.filename is None:  # Standard output, most likely.
                raise
            errors.append((name(item), error))
    return values, worst(report_errors([error], task) for task, error in errors)


@contextmanager
def warnings_shown(show: Callable[[str], None]) -> Iterator[None]:
    """Show each warning once: ours in a line that begins with psy, others as Python does."""
    shown: set[str] = set()

    def show_text(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
    ) -> None:
        ours = isinstance(message, PsyrunWarning)
        text = f"psy: {message}" if ours else warnings.formatwarning(message, category, filename, lineno)
        if text not in shown:
            show(text.rstrip())
        shown.add(text)

    with warnings.catch_warnings():
        warnings.simplefilter("default", PsyrunWarning)
        warnings.simplefilter("ignore", ResourceWarning)  # After a second Ctrl-C, a worker may be left.
        warnings.showwarning = show_text
        yield


def print_lines(name: str, lines: Iterable[str]) -> int:
    """Print ``name: line`` for each line; return their number."""
    number = 0
    for line in lines:
        click.echo(f"{name}: {line}")
        number += 1
    return number


def run_each(selection: Selection, find_lines: Callable[[Outline], Iterable[str]]) -> int:
    """Print the lines about each task that is selected, then the errors; return the exit code."""
    broken = selection.broken.values()
    return try_each(selection.outlines, lambda each: print_lines(each.name, find_lines(each)), broken)[1]


# ---------------------------------------------------------------------- arguments


def complete_task(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of tasks that begin as what is typed."""
    from pathlib import Path

    try:
        names = task.find_names(Path.cwd(), context.find_root().params.get("taskdir") or "psy-tasks")
    except Exception:
        return []
    return [name for name in names if name.startswith(incomplete)]


task_names = click.argument("tasks", nargs=-1, metavar="[TASK]...", shell_complete=complete_task)


def _open_project(taskdir: str) -> Project:
    from pathlib import Path

    return task.Project(Path.cwd(), taskdir)


def _take_taskdir(context: click.Context, parameter: click.Parameter, taskdir: str | None) -> None:
    if taskdir is not None:
        context.find_root().params["taskdir"] = taskdir  # for completion
        context.obj = _open_project(taskdir)


class _Command(click.Command):
    """A command that takes --taskdir behind its name too, as psyrun 0.8 did."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.params.append(
            click.Option(["--taskdir"], callback=_take_taskdir, expose_value=False, hidden=True)
        )


class _Group(click.Group):
    """A group that lists commands in the order of their definition, and suggests."""

    command_class = _Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self.commands, n=1)
            if near:
                hint = f"there is no command {args[0]!r}; did you mean {near[0]!r}?"
                raise click.UsageError(hint, ctx) from error
            raise


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="psy", message="%(prog)s %(version)s")
@click.option("--taskdir", default="psy-tasks", show_default=True, help="Folder of the task files.")
@click.pass_context
def cli(context: click.Context, taskdir: str) -> None:
    """Run one function over many parameter assignments, and never lose a row.

    A task is a file psy-tasks/task_NAME.py with a parameter space `pspace` and a function `execute`; its
    result is written to psy-work/NAME/result.pkl.

    \b
    Examples:
      psy run               evaluate what is missing, in all tasks
      psy run fig1          in one task
      psy status -v         how far they are, and what is missing or failed
      psy errors            why rows failed
    """
    context.obj = _open_project(taskdir)
