"""The ``psy`` command: arguments in, words and exit codes out."""

from __future__ import annotations

import difflib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psyrun import __version__
from psyrun.errors import INTERRUPTED, OK, UNFINISHED, USAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from psyrun.cli.status import Status
    from psyrun.options import RunOptions
    from psyrun.task import Outline, Project


def _complete_task(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from psyrun.task import find_names

    try:
        names = find_names(Path.cwd(), context.find_root().params.get("taskdir") or "psy-tasks")
    except Exception:
        return []
    return [name for name in names if name.startswith(incomplete)]


# ---------------------------------------------------------------------- words


def _say(text: str) -> None:
    click.echo(text)


def _complain(text: str) -> None:
    click.echo(f"psy: {text}", err=True)


def _complain_of(broken: Mapping[str, Exception]) -> int:
    from psyrun.errors import explain

    for error in broken.values():
        _complain(explain(error))
    return USAGE if broken else OK


def _for_each(outlines: Iterable[Outline], act: Callable[[Outline], None]) -> dict[str, Exception]:
    """Do something for each task; return what went wrong, which does not stop the others."""
    from psyrun.errors import PsyrunError

    wrong: dict[str, Exception] = {}
    for outline in outlines:
        try:
            act(outline)
        except PsyrunError as error:
            wrong[outline.name] = error
        except OSError as error:
            if error.filename is None:  # Of our own output, most likely.
                raise
            wrong[outline.name] = error
    return wrong


def _say_each(
    outlines: Iterable[Outline], find_lines: Callable[[Outline], Iterable[str]]
) -> dict[str, Exception]:
    """Say lines about each task; return what could not be found out, and why."""

    def say(outline: Outline) -> None:
        for line in find_lines(outline):
            _say(f"{outline.name}: {line}")

    return _for_each(outlines, say)


# ---------------------------------------------------------------------- commands

_TASKS = click.argument("tasks", nargs=-1, metavar="[TASK]...", shell_complete=_complete_task)
_pass_project = click.pass_obj


_ADOPT = click.option(
    "-c", "--continue", "adopt", is_flag=True, help="Keep rows of older code, and rows that left the space."
)
_FORCE = click.option(
    "-f", "--force", is_flag=True, help="Evaluate everything again, overwrite foreign results."
)
_NO_RETRY = click.option("--no-retry", is_flag=True, help="Do not try failed rows once more.")


def _read_options(tasks: Sequence[str], *, adopt: bool, force: bool, **more: Any) -> RunOptions:
    from psyrun.options import RunOptions

    if adopt and force:
        raise click.UsageError("--continue keeps rows, --force evaluates all of them again: choose one")
    return RunOptions(adopt=adopt, force=force, named=frozenset(tasks) if tasks else None, **more)


def _open_project(taskdir: str) -> Project:
    from psyrun.task import Project

    return Project(Path.cwd(), taskdir)


def _take_taskdir(context: click.Context, parameter: click.Parameter, taskdir: str | None) -> None:
    if taskdir is not None:
        context.find_root().params["taskdir"] = taskdir  # for completion
        context.obj = _open_project(taskdir)


class _Command(click.Command):
    """Takes --taskdir behind its name too, as psyrun 0.8 did."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.params.append(
            click.Option(["--taskdir"], callback=_take_taskdir, expose_value=False, hidden=True)
        )


class _Group(click.Group):
    """Lists commands in the order in which they are defined, and suggests."""

    command_class = _Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
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


@cli.command()
@_TASKS
@_ADOPT
@_FORCE
@click.option("-j", "--jobs", type=click.IntRange(min=1), metavar="N", help="Processes on this machine.")
@_NO_RETRY
@click.option("-y", "--yes", is_flag=True, help="Do not ask before rows of 10 minutes or more are repeated.")
@click.option("-w", "--wait", is_flag=True, help="Wait for the jobs of a batch system.")
@_pass_project
def run(
    project: Project,
    tasks: tuple[str, ...],
    adopt: bool,
    force: bool,
    jobs: int | None,
    no_retry: bool,
    yes: bool,
    wait: bool,
) -> int:
    """Evaluate what is missing, and write results.

    Rows whose values are on disk are not evaluated again, unless the code that they depend on was edited.
    Failed rows are tried once more. Interrupt it as you like: finished rows are kept.

    \b
    Examples:
      psy run                   all tasks
      psy run fig1 -j 4         one task, on four processes
      psy run --continue fig1   keep the rows of older code, add new ones
      psy run --force fig1      evaluate every row again
      psy run --wait            stay until the jobs of a batch system have ended, chains of tasks too

    Exit codes: 0 finished, 1 rows failed or missing, 2 usage or task file, 75 jobs in flight,
    130 interrupted.
    """
    from psyrun.cli.run import Talk, confirm_rerun, run_passes, worst

    options = _read_options(tasks, adopt=adopt, force=force, retry=not no_retry, processes=jobs)
    selection = project.select(tasks)
    code = _complain_of(selection.broken)
    if not selection.outlines:
        if not selection.broken:
            _say(f"there are no task files in {project.taskdir}; begin with psy new-task NAME")
        return code
    talk = Talk(say=_say, complain=_complain, confirm=click.confirm)
    if not confirm_rerun(selection.chain, options, selection.cache, talk, yes=yes):
        return worst([code, UNFINISHED])
    return worst([code, run_passes(project.taskdir, selection, options, talk, wait=wait)])


@cli.command()
@_TASKS
@_ADOPT
@_FORCE
@_NO_RETRY
@_pass_project
def plan(project: Project, tasks: tuple[str, ...], adopt: bool, force: bool, no_retry: bool) -> int:
    """Say what psy run would do, and do nothing.

    \b
    Examples:
      psy plan fig1
      psy plan --continue fig1   what psy run --continue fig1 would do
    """
    from psyrun.cli.forecast import Preview

    options = _read_options(tasks, adopt=adopt, force=force, retry=not no_retry)
    selection = project.select(tasks)
    _complain_of(selection.broken)
    preview = Preview(selection.cache, options)
    _complain_of(_say_each(selection.chain, preview.tell))
    return OK


@cli.command("list")
@_pass_project
def list_(project: Project) -> int:
    """List the tasks.

    Where standard output is no terminal, these are bare names.

    \b
    Example:
      psy list
    """
    selection = project.select()
    width = max((len(outline.name) for outline in selection.outlines), default=0)
    for outline in sorted(selection.outlines, key=lambda outline: outline.name):
        _say(f"{outline.name.ljust(width)}  {outline.path}" if sys.stdout.isatty() else outline.name)
    _complain_of(selection.broken)
    return OK


@cli.command()
@_TASKS
@click.option("-v", "--verbose", is_flag=True, help="List missing and failed assignments.")
@click.option("--all", "everything", is_flag=True, help="With -v: all of them, not just the first 100.")
@click.option("--json", "as_json", is_flag=True, help="For programs; the format is documented and stable.")
@_pass_project
def status(project: Project, tasks: tuple[str, ...], verbose: bool, everything: bool, as_json: bool) -> int:
    """Tell how far the tasks are.

    Reads files, and writes nothing.

    \b
    Examples:
      psy status
      psy status -v fig1     with missing and failed assignments
      psy status --json
    """
    from psyrun.cli.status import list_details, read_status
    from psyrun.cli.text import show_details, show_kept, show_statuses
    from psyrun.jobs import QueueCache
    from psyrun.split import count_kept
    from psyrun.workdir import read_plan

    selection = project.select(tasks)
    queues = QueueCache(selection.outlines)
    found: dict[str, Status] = {}

    def look(outline: Outline) -> None:
        found[outline.name] = read_status(outline, selection.cache, queues)

    def tell(outline: Outline) -> None:
        lines = show_details(list_details(outline, queues), None if everything else 100)
        plan = read_plan(outline.layout)
        lines += [] if plan is None else show_kept(*count_kept(outline.layout, plan))
        if lines:
            _say("\n".join([f"\n{outline.name}:", *lines]))

    _complain_of({**selection.broken, **_for_each(selection.outlines, look)})
    if as_json:
        return _say_json(list(found.values()))
    if found:
        _say(show_statuses(list(found.values())))
    _complain_of(_for_each([each for each in selection.outlines if verbose and each.name in found], tell))
    return OK


def _say_json(statuses: Sequence[Status]) -> int:
    import json
    from dataclasses import asdict

    _say(json.dumps({"tasks": [asdict(each) for each in statuses]}))
    return OK


@cli.command()
@_TASKS
@_pass_project
def errors(project: Project, tasks: tuple[str, ...]) -> int:
    """Show why rows failed, grouped by cause.

    One traceback for each cause, how often, and for which assignments.

    \b
    Example:
      psy errors fig1
    """
    from psyrun.cli.status import group_failures, list_details
    from psyrun.cli.text import show_group
    from psyrun.jobs import QueueCache

    selection = project.select(tasks)
    _complain_of(selection.broken)
    queues = QueueCache(selection.outlines)
    failed: list[str] = []

    def tell(outline: Outline) -> None:
        groups = group_failures(list_details(outline, queues))
        for group in groups:
            failed.append(outline.name)
            _say(f"{outline.name}: {show_group(group)}")
        if any(group.failed and not group.traceback for group in groups):
            _say(f"{outline.name}: what they printed is in {outline.layout.relative(outline.layout.log)}")

    wrong = _for_each(selection.outlines, tell)
    _complain_of(wrong)
    if not (failed or wrong or selection.broken):
        _say("no row failed")
    return OK


@cli.command()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("filename", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@click.option("-f", "--force", is_flag=True, help="Overwrite FILE.")
@_pass_project
def merge(project: Project, folder: Path, filename: Path, force: bool) -> int:
    """Merge the rows that are finished into a file.

    DIR is a task's folder `out`. Takes the rows that the plan beside DIR asks for; without a plan, the newest
    record of each row. The extension of FILE says how it is stored.

    \b
    Example:
      psy merge psy-work/fig1/out partial-result.pkl
    """
    from psyrun.cli.text import count
    from psyrun.merge import merge_partial

    if filename.exists() and not force:
        raise click.UsageError(f"{filename} exists; --force overwrites it")
    rows = merge_partial(project.root, folder, filename)
    _say(f"{filename}: {count(rows, 'row')}")
    return OK


@cli.command()
@_TASKS
@_pass_project
def test(project: Project, tasks: tuple[str, ...]) -> int:
    """Evaluate one assignment in a fresh process.

    Puts its values through the store, foretells time and size of the whole, and leaves nothing behind.

    \b
    Example:
      psy test fig1
    """
    from psyrun.cli.run import code_of, worst
    from psyrun.cli.trial import try_one

    selection = project.select(tasks)
    wrong = _say_each(selection.outlines, try_one)
    _complain_of({**selection.broken, **wrong})
    return worst([USAGE if selection.broken else OK, *map(code_of, wrong.values())])


@cli.command()
@_TASKS
@click.option("--all", "everything", is_flag=True, help="All tasks.")
@click.option("--stale", is_flag=True, help="Only rows that no plan wants any more.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_pass_project
def clean(project: Project, tasks: tuple[str, ...], everything: bool, stale: bool, yes: bool) -> int:
    """Remove results and work folders of tasks.

    On a terminal, asks first. Takes the names of tasks whose files are gone, too.

    \b
    Examples:
      psy clean fig1           everything that psy run made for fig1
      psy clean --stale        only rows of older code, or that left the space
    """
    from psyrun.cli.clean import find_files, remove_files, remove_forgotten
    from psyrun.cli.run import code_of, worst
    from psyrun.cli.text import count
    from psyrun.jobs import QueueCache

    if not (tasks or everything or stale):
        raise click.UsageError("name the tasks to clean, or use --all")
    selection = project.select_folders(tasks)
    queues = QueueCache(selection.outlines)
    ask = not yes and sys.stdin.isatty() and sys.stdout.isatty()

    def remove(outline: Outline) -> None:
        doomed = find_files(outline, stale=stale)
        files = count(len(doomed), "file")
        if not doomed:
            _say(f"{outline.name}: nothing to remove")
        elif not ask or click.confirm(f"{outline.name}: remove {files}?", default=False):
            remove_files(outline, doomed, queues)
            _say(f"{outline.name}: {files} removed")

    wrong = _for_each(selection.outlines, remove)
    for folder in {outline.root / outline.workdir for outline in selection.outlines}:
        remove_forgotten(folder)
    _complain_of({**selection.broken, **wrong})
    return worst([USAGE if selection.broken else OK, *map(code_of, wrong.values())])


@cli.command()
@_TASKS
@click.option("--all", "everything", is_flag=True, help="All tasks.")
@_pass_project
def kill(project: Project, tasks: tuple[str, ...], everything: bool) -> int:
    """Cancel the jobs of tasks, and no others.

    Ends local runs too, and jobs of tasks whose files are broken or gone. Finished rows are kept; psy run
    goes on there.

    \b
    Example:
      psy kill fig1
    """
    from psyrun.cli.run import code_of, worst
    from psyrun.cli.text import count
    from psyrun.jobs import QueueCache, cancel_jobs

    if not tasks and not everything:
        raise click.UsageError("name the tasks whose jobs to cancel, or use --all")
    selection = project.select_folders(tasks)
    queues = QueueCache(selection.outlines)

    def cancel(outline: Outline) -> None:
        jobs = cancel_jobs(outline, queues)
        said = f"{count(jobs, 'job')} cancelled; what is finished is kept" if jobs else "nothing is in flight"
        _say(f"{outline.name}: {said}")

    wrong = _for_each(selection.outlines, cancel)
    _complain_of({**selection.broken, **wrong})
    return worst([USAGE if selection.broken else OK, *map(code_of, wrong.values())])


@cli.command("new-task")
@click.argument("name")
@click.option("-s", "--scheduler", default="Local", show_default=True, metavar="S", help="Who runs the jobs.")
@_pass_project
def new_task(project: Project, name: str, scheduler: str) -> int:
    """Write a task file to begin with.

    It runs as it is, and explains each setting.

    \b
    Example:
      psy new-task fig1
    """
    from psyrun.task import check_name, write_template

    path = Path(project.taskdir) / f"task_{name}.py"
    check_name(str(path), name)
    if path.exists():
        raise click.UsageError(f"{path} exists; choose another name, or remove it first")
    try:
        text = write_template(name, scheduler)
    except LookupError as error:
        raise click.UsageError(str(error)) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    _say(f"{path} is written; edit it, then: psy test {name}, psy run {name}")
    return OK


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print a script for completion in a shell.

    \b
    Example, for ~/.bashrc:
      eval "$(psy completion bash)"
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is not None:
        _say(found(cli, {}, "psy", "_PSY_COMPLETE").source())
    return OK


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@_pass_project
def doit(project: Project, arguments: tuple[str, ...]) -> int:
    """Run plain doit on the same graph.

    Takes doit's commands and options; psy doit help lists them.

    \b
    Examples:
      psy doit list --all
      psy doit info fig1:process
    """
    from psyrun.graph import Run, run_doit
    from psyrun.options import RunOptions

    return run_doit(
        Run(root=project.root, taskdir=project.taskdir, options=RunOptions(wait=True)), list(arguments)
    )


# ---------------------------------------------------------------------- the entry point


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``psy`` and return its exit code."""
    from psyrun.errors import PsyrunError, explain

    try:
        return cli.main(args=arguments, prog_name="psy", standalone_mode=False) or OK
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return USAGE
    except PsyrunError as error:
        from psyrun.cli.run import code_of

        _complain(str(error))
        return code_of(error)
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # The reader of our output went away, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        if error.filename is None:
            raise
        _complain(explain(error))
        return UNFINISHED


if __name__ == "__main__":
    sys.exit(main())
