"""The ``psy`` command: arguments in, lines and exit codes out."""

from __future__ import annotations

import os
import sys
from collections import Counter
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import click

from psyrun import jobs, split, task, workdir
from psyrun.cli.group import (
    cli,
    complete_task,
    echo_error,
    print_lines,
    report_errors,
    run_each,
    task_names,
    try_each,
    warnings_shown,
)
from psyrun.cli.text import (
    count,
    show_details,
    show_kept,
    show_provenance,
    show_statuses,
    show_times,
)
from psyrun.errors import INTERRUPTED, OK, UNFINISHED, USAGE, PsyrunError, worst

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from psyrun.options import RunOptions
    from psyrun.task import Outline, Project, Selection


class _File(click.Path):
    """The name of a file as a path; the module of paths takes a sixth of the start of psy."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from pathlib import Path

        return Path(os.fsdecode(super().convert(value, param, ctx)))


_adopt = click.option(
    "-c", "--continue", "adopt", is_flag=True, help="Keep rows of older code, and rows that left the space."
)
_force = click.option(
    "-f",
    "--force",
    is_flag=True,
    help="Evaluate everything again, overwrite results that psyrun did not write.",
)
_retry = click.option(
    "--retry/--no-retry",
    default=None,
    help="Try failed rows once more, or do not. Default: do, but not where allow_failed is set.",
)
_only = click.option("--only", metavar="REASON", help="With --retry: those that failed for this reason.")


def _read_options(
    tasks: Sequence[str],
    *,
    adopt: bool,
    force: bool,
    retry: bool | None,
    only: str | None,
    processes: int | None = None,
    take_over: bool = False,
) -> RunOptions:
    from psyrun.options import RunOptions

    if only is not None and not retry:
        raise click.UsageError("--only names the failed rows to try again: use it with --retry")
    if only is not None and (adopt or force):
        raise click.UsageError(
            "--only is about rows that failed with this code: use it without --continue, --force"
        )
    if adopt and force:
        raise click.UsageError("--continue keeps rows, --force evaluates all of them again: choose one")
    named = frozenset(tasks) or None
    return RunOptions(
        adopt=adopt,
        force=force,
        retry=retry,
        only=only,
        take_over=take_over,
        processes=processes,
        named=named,
    )


def _check_reason(selection: Selection, options: RunOptions) -> None:
    """Raise UsageError where no row failed for the reason that is given."""
    from psyrun.cli.status import count_reasons

    if options.only is None:
        return
    reasons = sum(map(count_reasons, selection.outlines), Counter[tuple[str, ...]]())
    if not any(options.only in names for names in reasons):
        there = ", ".join(f"{names[0]} ({count(rows, 'row')})" for names, rows in reasons.most_common())
        raise click.UsageError(
            f"no row failed with {options.only!r}; {f'there is {there}' if there else 'none failed'}"
        )


@cli.command()
@task_names
@_adopt
@_force
@click.option(
    "-j", "--jobs", "processes", type=click.IntRange(min=1), metavar="N", help="Processes on this machine."
)
@_retry
@_only
@click.option(
    "--take-over", is_flag=True, help="Replace jobs that are stuck, or that can not be asked for from here."
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask before rows of 10 minutes or more are repeated.")
@click.option("-w", "--wait", is_flag=True, help="Wait for the jobs of a batch system.")
@click.pass_obj
def run(project: Project, /, tasks: Sequence[str], yes: bool, wait: bool, **given: Any) -> int:
    """Evaluate what is missing, and write results.

    Rows whose values are on disk are not evaluated again, unless the code that they depend on was edited.
    Failed rows are tried once more, but not where the task sets allow_failed. Interrupt it as you like:
    finished rows are kept.

    \b
    Examples:
      psy run                   all tasks
      psy run fig1 -j 4         one task, on four processes
      psy run --continue fig1   keep the rows of older code, add new ones
      psy run --force fig1      evaluate every row again
      psy run --retry --only timeout fig1    try again what timed out; or --only ValueError
      psy run --take-over fig1  submit again what stuck jobs, or jobs of another cluster, should do
      psy run --wait            stay until the jobs of a batch system have ended, chains of tasks too

    Exit codes: 0 finished, 1 rows failed or missing, 2 usage or task file, 75 jobs in flight,
    130 interrupted.
    """
    from psyrun.cli.run import confirm_rerun, run_passes

    options = _read_options(tasks, **given)
    selection = project.select(tasks)
    _check_reason(selection, options)
    code = report_errors(selection.broken.values())
    if not selection.outlines:
        if not selection.broken:
            click.echo(f"there are no task files in {project.taskdir}; begin with psy new-task NAME")
        return code
    if not confirm_rerun(selection.chain, options, selection.cache, yes=yes):
        return worst([code, UNFINISHED])
    return worst([code, run_passes(project, selection, options, wait=wait)])


@cli.command()
@task_names
@_adopt
@_force
@_retry
@_only
@click.option("-v", "--verbose", is_flag=True, help="List what tasks depend on, and why.")
@click.option("--all", "everything", is_flag=True, help="With -v: all of it, not just the beginning.")
@click.pass_obj
def plan(project: Project, /, tasks: Sequence[str], verbose: bool, everything: bool, **given: Any) -> int:
    """Say what psy run would do, and do nothing.

    \b
    Examples:
      psy plan fig1
      psy plan --continue fig1   what psy run --continue fig1 would do
      psy plan -v fig1           what the values and the space depend on, too
    """
    from psyrun.cli.dependencies import describe_dependencies
    from psyrun.cli.forecast import Forecast, describe, forecast

    options, selection = _read_options(tasks, **given), project.select(tasks)
    _check_reason(selection, options)
    report_errors(selection.broken.values())
    forecasts = forecast(selection.chain, options, selection.cache)

    def print_plan(found: Forecast) -> None:
        print_lines(found.outline.name, describe(found))
        for line in describe_dependencies(found.outline, everything=everything) if verbose else ():
            click.echo(f"  {line}")

    try_each(forecasts, print_plan, name=attrgetter("outline.name"))
    return OK


@cli.command("list")
@click.pass_obj
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
        click.echo(f"{outline.name.ljust(width)}  {outline.path}" if sys.stdout.isatty() else outline.name)
    report_errors(selection.broken.values())
    return OK


@cli.command()
@task_names
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="List assignments that failed, are missing, running, or took longest.",
)
@click.option("--all", "everything", is_flag=True, help="With -v: all of them, not just the first 100.")
@click.option(
    "--receipt", is_flag=True, help="Tell where the rows come from: code, commits, packages, hosts, inputs."
)
@click.option(
    "--json", "for_programs", is_flag=True, help="For programs; the format is documented and stable."
)
@click.pass_obj
def status(
    project: Project,
    tasks: Sequence[str],
    verbose: bool,
    everything: bool,
    receipt: bool,
    for_programs: bool,
) -> int:
    """Tell how far the tasks are.

    Reads files, and writes nothing.

    \b
    Examples:
      psy status
      psy status -v fig1     with missing and failed assignments
      psy status --receipt fig1    what a reviewer asks for
      psy status --json
    """
    from psyrun.cli.status import as_json, read_status

    selection = project.select(tasks)
    if receipt:
        return _print_receipts(selection, for_programs=for_programs)
    queues = jobs.QueueCache(selection.outlines)

    broken = selection.broken.values()
    found, _ = try_each(selection.outlines, lambda each: read_status(each, selection.cache, queues), broken)
    if for_programs:
        click.echo(as_json(found))
        return OK
    if found:
        click.echo(show_statuses(found))
    for each in found:
        if each.generators:
            click.echo(f"{each.name}: {jobs.describe_generators(each.generators)}")
        if each.unmanaged:
            click.echo(f"{each.name}: {each.unmanaged}")
        print_lines(each.name, each.jobs.describe(each.name))
    if verbose:
        names = {each.name for each in found}
        chosen = [each for each in selection.outlines if each.name in names]
        try_each(chosen, lambda each: _print_details(each, queues, None if everything else 100))
    return OK


def _print_details(outline: Outline, queues: jobs.QueueCache, most: int | None) -> None:
    """Print which rows of a task failed, are missing, run, took longest, or were kept; `most` of a kind."""
    from psyrun.cli.status import list_details
    from psyrun.cli.times import list_running, list_slowest

    lines = show_details(list_details(outline, queues), most)
    lines += show_times(list_running(outline, queues), list_slowest(outline), most)
    plan = workdir.read_plan(outline.layout)
    if plan is not None:
        inputs = sorted({split.name_input(key) for key in plan.accepted})
        lines += show_kept(*split.count_adopted(outline.layout, plan), inputs)
    if lines:
        click.echo("\n".join([f"\n{outline.name}:", *lines]))


def _print_receipts(selection: Selection, *, for_programs: bool) -> int:
    """Print where the rows of tasks come from, in words or as one line of JSON."""
    import json

    from psyrun.results import describe_provenance, find_receipts

    def describe(outline: Outline) -> dict[str, Any]:
        plan = workdir.require_plan(outline.layout)
        return describe_provenance(outline.layout, plan, find_receipts(outline.layout, plan))

    found, code = try_each(selection.outlines, describe, selection.broken.values())
    if for_programs:
        click.echo(json.dumps({"tasks": found}))
    for each in () if for_programs else found:
        print_lines(each["task"], show_provenance(each))
    return code


@cli.command()
@task_names
@click.pass_obj
def errors(project: Project, tasks: Sequence[str]) -> int:
    """Show why rows failed, grouped by cause.

    For each cause: how often, a traceback, the end of what the first row printed, assignments; for the most
    frequent one, which values of parameters these rows have and others have not, where that is no chance.

    \b
    Example:
      psy errors fig1
    """
    from psyrun.cli.failures import describe_failures

    selection = project.select(tasks)
    report_errors(selection.broken.values())
    queues = jobs.QueueCache(selection.outlines)

    def print_failures(outline: Outline) -> int:
        return print_lines(outline.name, describe_failures(outline, queues))

    printed, code = try_each(selection.outlines, print_failures)
    if not (any(printed) or code or selection.broken):
        click.echo("no row failed")
    return OK


@cli.command(context_settings={"ignore_unknown_options": True})  # -1 is a row
@click.argument("name", metavar="TASK", shell_complete=complete_task)
@click.argument("rows", nargs=-1, metavar="[N | NAME=VALUE...]")
@click.pass_obj
def log(project: Project, name: str, rows: Sequence[str]) -> int:
    """Print what a row printed.

    N is the number of the row in the order of the space, from 0, or from its end where it is negative. x=4
    selects the rows whose x is 4, 4.0 or '4'; of several, each has a heading, and the first ten are printed.
    Without either: the ends of the newest logs. The task file may be broken or gone.

    \b
    Examples:
      psy log fig1 17
      psy log fig1 -1              the last row
      psy log fig1 x=4 seed=1
      psy log fig1
    """
    from psyrun.cli.output import show_log

    def print_log(outline: Outline) -> None:
        for part in show_log(outline.layout, workdir.read_plan(outline.layout), rows):
            click.echo(part, nl=False)

    selection = project.select([name], folders=True)
    return try_each(selection.outlines, print_log, selection.broken.values())[1]


@cli.command()
@click.argument("source", metavar="TASK|DIR", shell_complete=complete_task)
@click.argument("filename", metavar="FILE", type=_File(dir_okay=False))
@click.option("-f", "--force", is_flag=True, help="Overwrite FILE.")
@click.pass_obj
def merge(project: Project, source: str, filename: Path, force: bool) -> int:
    """Merge the rows that are finished into a file.

    Of a task, or of its folder `out`, those that its plan asks for. DIR may also be a folder of tables (.pkl,
    .npz, .h5), such as psyrun 0.8 left: these in the order of their names. The extension of FILE says how it
    is stored.

    \b
    Examples:
      psy merge fig1 partial-result.pkl
      psy merge psy-work/fig1/out partial-result.pkl
    """
    from pathlib import Path

    from psyrun.merge import merge_partial

    if filename.exists() and not force:
        raise click.UsageError(f"{filename} exists; --force overwrites it")
    folder = Path(source)
    if not folder.is_dir():
        selection = project.select([source], folders=True)
        if selection.broken:
            return report_errors(selection.broken.values())
        folder = selection.outlines[0].layout.out
    rows = merge_partial(project.root, folder, filename)
    click.echo(f"{filename}: {count(rows, 'row')}")
    return OK


@cli.command()
@click.argument("name", metavar="TASK", shell_complete=complete_task)
@click.argument("filename", metavar="FILE", type=_File(dir_okay=False))
@click.option("--partial", is_flag=True, help="All rows, evaluated or not, with a column `status`.")
@click.option("--receipts", is_flag=True, help="Add seconds, peak memory and host of each row.")
@click.option("-f", "--force", is_flag=True, help="Overwrite FILE.")
@click.pass_obj
def export(project: Project, /, name: str, filename: Path, force: bool, **given: bool) -> int:
    """Write the rows of a task to a file of another format.

    The extension of FILE says which: .csv, .parquet (needs pyarrow), .nc (NetCDF, a dimension for each
    parameter; needs xarray), .npz, .h5 or .pkl.

    \b
    Examples:
      psy export fig1 fig1.parquet
      psy export --partial fig1 so-far.csv
    """
    from psyrun import results

    if filename.exists() and not force:
        raise click.UsageError(f"{filename} exists; --force overwrites it")
    results.find_writer(filename)
    selection = project.select([name])
    if selection.broken:
        return report_errors(selection.broken.values())
    (outline,) = selection.outlines
    table = results.load_task(outline.layout, name, **given)
    results.export(table, filename)
    click.echo(f"{filename}: {count(max(map(len, table.values()), default=0), 'row')}")
    return OK


@cli.command()
@task_names
@click.pass_obj
def test(project: Project, tasks: Sequence[str]) -> int:
    """Evaluate one assignment in a fresh process.

    Puts its values through the store, and leaves nothing behind. Where it is quick, the first, the middle and
    the last row follow, for an estimate of time and size of the whole space. On a terminal, `breakpoint()`
    stops.

    \b
    Examples:
      psy test fig1
      psy test fig1 x=4 seed=1    that row alone
    """
    from psyrun.cli.trial import try_rows

    names = [word for word in tasks if "=" not in word]
    words = [word for word in tasks if "=" in word]
    if words and len(names) != 1:
        raise click.UsageError("name the task whose row to evaluate: psy test TASK x=4")
    return run_each(project.select(names), lambda outline: try_rows(outline, words))


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", metavar="TASK", shell_complete=complete_task)
@click.argument("row", nargs=-1, required=True, metavar="ROW")
@click.pass_obj
def debug(project: Project, name: str, row: Sequence[str]) -> int:
    """Evaluate one row here, and stop in the debugger where it raises.

    ROW is its number in the order of the space, from 0, or values of parameters. The task file runs as it is
    now, in its folder, with its setup; `breakpoint()` stops, too. Nothing is kept.

    \b
    Examples:
      psy debug fig1 12
      psy debug fig1 x=4 seed=1
    """
    from psyrun.cli.debugging import debug

    return run_each(project.select([name]), lambda outline: debug(outline, row))


@cli.command()
@task_names
@click.option("--all", "everything", is_flag=True, help="All tasks.")
@click.option("--stale", is_flag=True, help="Only rows that no plan wants any more.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def clean(project: Project, tasks: Sequence[str], everything: bool, stale: bool, yes: bool) -> int:
    """Remove results and work folders of tasks.

    On a terminal, asks first. Takes the names of tasks whose files are gone, too.

    \b
    Examples:
      psy clean fig1           everything that psy run made for fig1
      psy clean --stale        only rows of older code, or that left the space
    """
    from psyrun.cli.clean import find_files, remove_files, remove_old_temporaries

    if not (tasks or everything or stale):
        raise click.UsageError("name the tasks to clean, or use --all")
    selection = project.select(tasks, folders=True)
    queues = jobs.QueueCache(selection.outlines)
    ask = not yes and sys.stdin.isatty() and sys.stdout.isatty()

    def remove(outline: Outline) -> Iterator[str]:
        found = find_files(outline, stale=stale)
        files = count(len(found), "file")
        if not found:
            yield "nothing to remove"
        elif not ask or click.confirm(f"{outline.name}: remove {files}?", default=False):
            remove_files(outline, found, queues)
            yield f"{files} removed"

    code = run_each(selection, remove)
    for folder in {outline.root / outline.workdir for outline in selection.outlines}:
        remove_old_temporaries(folder)
    return code


@cli.command()
@task_names
@click.option("--all", "everything", is_flag=True, help="All tasks.")
@click.pass_obj
def kill(project: Project, tasks: Sequence[str], everything: bool) -> int:
    """Cancel your jobs of tasks, and no others.

    Ends local runs too, and jobs of tasks whose files are broken or gone. Finished rows are kept; psy run
    goes on there.

    \b
    Example:
      psy kill fig1
    """
    if not tasks and not everything:
        raise click.UsageError("name the tasks whose jobs to cancel, or use --all")
    selection = project.select(tasks, folders=True)
    queues = jobs.QueueCache(selection.outlines)

    def cancel(outline: Outline) -> Iterator[str]:
        ended, left, unknown = jobs.cancel_jobs(outline, queues)
        if ended:
            yield f"{count(ended, 'job')} cancelled; what is finished is kept"
        elif not left and not unknown:
            yield "nothing is in flight"
        yield from left
        if unknown:
            raise PsyrunError(f"{outline.name}: {'; '.join(unknown)}")

    return run_each(selection, cancel)


@cli.command("new-task")
@click.argument("name")
@click.option("-s", "--scheduler", default="Local", show_default=True, metavar="S", help="Who runs the jobs.")
@click.pass_obj
def new_task(project: Project, name: str, scheduler: str) -> int:
    """Write a task file to begin with.

    It runs as it is, and explains each setting.

    \b
    Example:
      psy new-task fig1
    """
    from pathlib import Path

    path = Path(project.taskdir) / f"task_{name}.py"
    task.check_name(str(path), name)
    if path.exists():
        raise click.UsageError(f"{path} exists; choose another name, or remove it first")
    try:
        text = task.write_template(name, scheduler)
    except LookupError as error:
        raise click.UsageError(str(error)) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    click.echo(f"{path} is written; edit it, then: psy test {name}, psy run {name}")
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
        click.echo(found(cli, {}, "psy", "_PSY_COMPLETE").source())
    return OK


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def doit(project: Project, arguments: Sequence[str]) -> int:
    """Run plain doit on the same graph.

    Takes doit's commands and options; psy doit help lists them.

    \b
    Examples:
      psy doit list --all
      psy doit info fig1:process
    """
    from psyrun.graph import run_doit, waiting_run

    if "" in arguments:
        raise click.UsageError("doit takes no empty argument; name a task, or leave it out")
    return run_doit(waiting_run(project), arguments)


# ---------------------------------------------------------------------- the entry point


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``psy`` and return its exit code."""
    try:
        with warnings_shown(partial(click.echo, err=True)):
            return cli.main(args=arguments, prog_name="psy", standalone_mode=False) or OK
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return USAGE
    except KeyboardInterrupt:
        echo_error("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # The reader of our output ended, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (PsyrunError, OSError) as error:
        if isinstance(error, OSError) and error.filename is None:
            raise
        return report_errors([error])
