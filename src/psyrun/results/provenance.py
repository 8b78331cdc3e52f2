"""Where the rows of a result come from: code, commits, packages, hosts, dates, inputs."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from psyrun.workdir import (
    ReceiptReader,
    is_current,
    list_journals,
    read_first_records,
    read_inputs,
    read_reads,
    read_receipt,
    read_receipts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psyrun.workdir import Layout, Plan, Receipts


_KINDS = ("file", "folder", "glob", "declared")


def find_receipts(layout: Layout, plan: Plan) -> Receipts:
    """Return the receipts of the rows of a plan: of its result, or from the journals as they are now."""
    if is_current(layout, plan):
        return read_receipts(layout.row_receipts, (read_receipt(layout.receipt) or {}).get("process", ""))
    journals, reader = list_journals(layout.out), ReceiptReader()
    for batch in plan.batches:
        for each in read_first_records(journals.get(batch.key, ()), rows=batch.size):
            reader.add(batch.number, *each)
    return reader.in_order(plan.segments())


def describe_provenance(layout: Layout, plan: Plan, receipts: Receipts) -> dict[str, Any]:
    """Describe where the rows of a plan come from.

    Returns
    -------
    dict
        ``task``; ``result`` and ``written`` (ISO 8601), where the result is there; ``evaluated``: when the
        first and the last worker of the rows began; ``rows``; ``unknown``: how many of them have no receipt;
        ``code``: digest of captured sources -> rows, whose files are in ``code/<digest>.zip`` of the work
        folder; ``commits``: a list of ``commit``, ``clean`` (whether no tracked file differed from it) and
        ``rows``; ``hosts``, ``machines`` and ``pythons``: name -> rows; ``packages``: name -> versions;
        ``inputs``: paths that processes were seen to read; ``accepted``: those that changed after rows had
        read them, which ``--continue`` kept.
    """
    hosts, machines, pythons, commits = (Counter[Any]() for _ in range(4))
    packages: dict[str, set[str]] = {}
    times = [place["began"] for place in receipts.origins if "began" in place]
    for n, receipt in receipts.runs:
        place: Mapping[str, Any] = receipts.origins[receipt.origin - 1] if receipt.origin else {}
        if place:
            hosts[place.get("host")] += n
            machines[place.get("machine")] += n
            pythons[place.get("python")] += n
            commits[place.get("commit"), place.get("clean")] += n
            for package, version in place.get("packages", {}).items():
                packages.setdefault(package, set()).add(version)
    written = {}
    with suppress(OSError):
        seconds = layout.result.stat().st_mtime
        written = {
            "result": layout.relative(layout.result),
            "written": _show_time(seconds),
        }
    return {
        "task": layout.folder.name,
        **written,
        "evaluated": sorted({_show_time(began) for began in (min(times), max(times))}) if times else [],
        "rows": plan.total,
        "unknown": plan.total - hosts.total(),
        "code": _count_codes(layout, plan),
        "commits": [
            {"commit": commit, "clean": clean, "rows": n} for (commit, clean), n in commits.most_common()
        ],
        "hosts": dict(hosts),
        "machines": dict(machines),
        "pythons": dict(pythons),
        "packages": {name: sorted(packages[name]) for name in sorted(packages)},
        "inputs": _list_inputs(layout, plan, receipts),
        "accepted": sorted({key.partition(" ")[2] for key in plan.accepted}),
    }


def _show_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _count_codes(layout: Layout, plan: Plan) -> dict[str, int]:
    """Count the rows of each digest of code."""
    found = Counter[str]()
    for batch in plan.batches:
        code = plan.code
        if plan.adopted:
            with suppress(OSError):
                code = read_inputs(layout.input(batch.number), batch.tie).code
        found[code] += batch.wanted
    return dict(found)


def _list_inputs(layout: Layout, plan: Plan, receipts: Receipts) -> list[str]:
    """Return the paths that the workers of the rows were seen to read, and those that the space read."""
    runs = {place.get("run") for place in receipts.origins} - {None, ""}
    reads = (read_reads(layout.reads / f"{run}.reads") or [] for run in runs)
    seen = {each.path for inputs in reads for each in inputs if each.kind in _KINDS}
    return sorted(seen | set(plan.data) | {key.partition(" ")[2] for key in plan.inputs})
