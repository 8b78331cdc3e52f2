"""Words and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psyrun.progressbar import duration as duration
from psyrun.values import count as count
from psyrun.values import show_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from psyrun.cli.status import Detail, Status
    from psyrun.cli.times import TimedRow


def show_assignment(assignment: Mapping[str, Any] | None) -> str:
    """Return ``a=1, b=0.5``."""
    if assignment is None:
        return "(an assignment whose input file can't be read)"
    return ", ".join(f"{name}={show_value(value)}" for name, value in assignment.items())


# ---------------------------------------------------------------------- tables


def show_statuses(statuses: Sequence[Status]) -> str:
    """Return statuses as a table of aligned columns."""
    lines: list[Sequence[str]] = [
        ("task", "rows", "done", "failed", "running", "queued", "missing", "result")
    ]
    for each in statuses:
        numbers = (each.total, each.done, each.failed, each.running, each.queued, each.missing)
        lines.append((each.name, *(f"{number:,}" for number in numbers), _show_result(each)))
    first, *others, _ = (max(map(len, column)) for column in zip(*lines))
    return "\n".join(
        "  ".join([name.ljust(first), *map(str.rjust, numbers, others), result])
        for name, *numbers, result in lines
    )


def _show_result(status: Status) -> str:
    if status.result is None:
        return "-"
    return status.result if status.uptodate else f"{status.result} (not up to date)"


def show_details(details: Iterable[Detail], most: int | None) -> list[str]:
    """Return a line for each row without values, `most` of either kind."""
    failed: list[str] = []
    missing: list[str] = []
    for detail in details:
        words = show_assignment(detail.assignment)
        if detail.failure is not None:
            failed.append(f"  failed:  {words}  {detail.words}")
        else:
            missing.append(f"  missing: {words}" + (f"  {detail.reason}" if detail.reason else ""))
    return [*_cut(failed, most, "failed"), *_cut(missing, most, "missing")]


def show_times(running: Sequence[TimedRow], slowest: Sequence[TimedRow], most: int | None) -> list[str]:
    """Return lines about the rows that take long, and about those that took longest."""
    lines = [
        f"  running: {show_assignment(each.assignment)}  for {duration(each.seconds)} on {each.host}"
        for each in running
    ]
    lines = _cut(lines, most, "running")
    for each in slowest:
        where = f" on {each.host}" if each.host else ""
        lines.append(f"  slowest: {show_assignment(each.assignment)}  {duration(each.seconds)}{where}")
    return lines


def show_kept(older: int, outside: int, inputs: Sequence[str] = ()) -> list[str]:
    """Return a line about rows that were kept with --continue, if there are any.

    Parameters
    ----------
    older, outside
        How many are of older code, and how many the space does not name.
    inputs
        Files that changed after rows had read them.
    """
    words = [f"{count(older, 'row')} of older code"] if older else []
    words += [f"{count(outside, 'row')} that the space does not name"] if outside else []
    words += [f"rows that read {name} before it changed" for name in inputs[:3]]
    words += [f"and {len(inputs) - 3:,} more such files"] if len(inputs) > 3 else []
    return [f"  kept with --continue: {', '.join(words)}"] if words else []


def _cut(lines: list[str], most: int | None, kind: str) -> list[str]:
    if most is None or len(lines) <= most:
        return lines
    return [*lines[:most], f"  and {len(lines) - most:,} more are {kind} (all of them: psy status -v --all)"]


def show_provenance(found: Mapping[str, Any]) -> list[str]:
    """Return lines about where the rows of a task come from."""
    rows, place = (
        found["rows"],
        f" in {found['result']}, written {found['written']}" if "result" in found else "",
    )
    unknown = (
        f"; of {found['unknown']:,} it is not known where they were evaluated" if found["unknown"] else ""
    )
    lines = [f"{count(rows, 'row')}{place}{unknown}"]
    lines += (
        [f"evaluated {' to '.join(found['evaluated'])} (when workers began)"] if found["evaluated"] else []
    )
    lines += [f"code      {code} ({count(n, 'row')}): code/{code}.zip" for code, n in found["code"].items()]
    for each in found["commits"]:
        state = {True: "clean", False: "with changes in tracked files", None: ""}[each["clean"]]
        words = f"{each['commit']} {state}" if each["commit"] else "none: not a work tree of git"
        lines.append(f"commit    {words.strip()} ({count(each['rows'], 'row')})")
    for name in ("hosts", "machines", "pythons"):
        words = ", ".join(f"{value} ({count(n, 'row')})" for value, n in found[name].items())
        lines += [f"{name.ljust(9)} {words}"] if words else []
    packages = ", ".join(f"{name} {' and '.join(versions)}" for name, versions in found["packages"].items())
    lines += [f"packages  {packages}"] if packages else []
    changed = set(found["accepted"])
    more = " (changed after rows had read it, which --continue kept)"
    return [*lines, *(f"input     {path}{more if path in changed else ''}" for path in found["inputs"])]
