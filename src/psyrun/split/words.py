"""Words about inputs: what changed, what is gone, and what rows were seen to read."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from psyrun.errors import PsyrunError
from psyrun.split.staleness import count_sources, count_stale_rows, find_changes, find_space_only
from psyrun.split.states import KINDS, name_input
from psyrun.workdir import list_reads, read_plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psyrun.source import SourceCache
    from psyrun.split.staleness import Changes
    from psyrun.task import Outline
    from psyrun.workdir import Input, Plan, Source


def describe_stale(stale: Mapping[str, int]) -> str:
    """Return words for inputs that changed, and how many rows read them.

    Examples
    --------
    >>> describe_stale({"data/rates.csv": 200})
    'data/rates.csv changed; 200 rows read it'
    """
    named = [_describe(path, rows) for path, rows in list(stale.items())[:3]]
    more = [f"{len(stale) - 3:,} other inputs changed"] if len(stale) > 3 else []
    return "; ".join([*named, *more])


def _describe(path: str, rows: int) -> str:
    named = f"{rows:,} row{'s' * (rows != 1)}"
    if path.endswith("/"):
        return f"what {named} read is not known, since files in {path} are gone or damaged"
    return f"{path} changed; {named} read it"


def describe_meanwhile(outline: Outline, plan: Plan, cache: SourceCache) -> str:
    """Return words for inputs that changed since rows of a plan, or its space, read them; '' for none."""
    changes = find_changes(outline, plan, cache)
    of_space = [name_input(key) for key in changes.states if key in plan.inputs] if changes.space else []
    names = list(dict.fromkeys([*count_stale_rows(outline, plan, changes), *of_space]))
    if not names:
        return ""
    varying = next((name for name in names if name in changes.varying), "")
    hint = ""
    if varying:
        hint = f"; {varying} changes from row to row: name it in untracked if rows make it"
        if changes.varying[varying] in ("folder", "glob"):
            hint = f"; rows write there, too ({varying}): name in untracked what they make"
    return f"{_join(names)} changed meanwhile: psy run {outline.name} evaluates what was made of it{hint}"


def describe_gone(changes: Changes) -> str:
    """Return words for files outside of the project that are gone, so that nothing is known of them."""
    return f"{_join(changes.gone)}: read by rows, and not on this machine; they count as unchanged"


def _join(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def list_read_files(outline: Outline) -> set[str]:
    """Return the files that rows of a task and its space were seen to read, but for those that rows wrote.

    Where the files that say so can't be read there are none: the split step reports that.
    """
    try:
        plan = read_plan(outline.layout)
        found = [each for inputs in list_reads(outline.layout.reads).values() for each in inputs]
    except (PsyrunError, OSError):
        return set()
    read = {f"{each.kind} {each.path}" for each in found}.union(() if plan is None else plan.inputs)
    paths = {path for kind, _, path in (key.partition(" ") for key in read) if kind == "file"}
    return paths - {each.path for each in found if each.kind == "product"}


def count_readers(outline: Outline, plan: Plan) -> dict[str, int]:
    """Return what rows were seen to read, in words -> rows of a plan that it counts for."""
    counts: Counter[str] = Counter()
    reads = list_reads(outline.layout.reads)
    loading = {each.place for inputs in reads.values() for each in inputs if each.loading}
    left_out = find_space_only(outline.source, loading)
    sources: dict[tuple[str, int], dict[Source, int]] = {}
    for source, rows in (count_sources(outline.layout, plan) if reads else {}).items():
        sources.setdefault((source.run, source.child), {})[source] = rows
    for (run, child), ours in sources.items():
        first: dict[str, Input] = {}
        for each in reads.get(run, ()):
            kept = each.kind in KINDS and each.kind != "declared" and each.place not in left_out
            if each.child == child and kept:
                first.setdefault(name_input(f"{each.kind} {each.path}"), each)
        for name, each in first.items():
            whole = each.loading or not outline.stateless
            counts[name] += sum(
                rows
                for source, rows in ours.items()
                if each.number <= source.inputs and (whole or each.number >= source.reads)
            )
    return {name: rows for name, rows in counts.items() if rows}
