"""Surveys: how far the batches of a plan are, and the receipt of process."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psyrun.records import Tallies, list_journals, read_records, vouched

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from psyrun.layout import Layout
    from psyrun.plan import Batch, Plan
    from psyrun.records import JournalFile, Records, Tally

__all__ = [
    "Progress",
    "Survey",
    "file_digest",
    "has_inputs",
    "inspect_plan",
    "is_current",
    "is_receipt_true",
    "make_receipt",
    "read_ends",
    "read_receipt",
    "survey_plan",
]

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one batch is: of its wanted rows, how many are done and failed."""

    batch: Batch
    done: int
    failed: int

    @property
    def missing(self) -> int:
        """Wanted rows that have neither values nor a failure."""
        return self.batch.wanted - self.done - self.failed


@dataclass(frozen=True, slots=True)
class Survey:
    """How far a plan is.

    Parameters
    ----------
    batches
        Progress per batch, in the order of the plan.
    seconds
        Time spent in `execute` for all of them.
    """

    batches: Sequence[Progress]
    seconds: float

    @property
    def total(self) -> int:
        """Wanted rows."""
        return sum(progress.batch.wanted for progress in self.batches)

    @property
    def done(self) -> int:
        """Rows that have values."""
        return sum(progress.done for progress in self.batches)

    @property
    def failed(self) -> int:
        """Rows that failed."""
        return sum(progress.failed for progress in self.batches)

    @property
    def missing(self) -> int:
        """Rows that were not evaluated yet."""
        return sum(progress.missing for progress in self.batches)

    @property
    def complete(self) -> bool:
        """Whether every wanted row has values."""
        return all(progress.done == progress.batch.wanted for progress in self.batches)


def survey_plan(plan: Plan, layout: Layout, tallies: Tallies | None = None) -> Survey:
    """Count the rows on disk with one listing of the journals, from the headers of their blocks.

    Parameters
    ----------
    plan, layout
        The plan, and where its files are.
    tallies
        Remembers what was counted before.
    """
    journals = list_journals(layout.out)
    wanted = plan.wanted_rows()
    tallies = tallies or Tallies()
    found = [
        (batch, tallies.count(journals.get(batch.number, ()), wanted.get(batch.number), rows=batch.size))
        for batch in plan.batches
    ]
    return _make_survey(found)


def inspect_plan(plan: Plan, layout: Layout) -> tuple[Survey, dict[int, Records]]:
    """Read which rows are on disk, verifying the checksum of every block.

    What the receipt on disk vouches for comes first, in its order: of several records of one row the same one
    counts for good, whatever orphans bring in.

    Returns
    -------
    survey : Survey
    records : dict
        Batch number -> what its journals hold.
    """
    known = read_ends(layout.process)
    journals = list_journals(layout.out)
    wanted = plan.wanted_rows()
    records = {
        batch.number: read_records(
            _rank(journals.get(batch.number, ()), known.get(batch.number, ())), rows=batch.size
        )
        for batch in plan.batches
    }
    found = [(batch, records[batch.number].tally(wanted.get(batch.number))) for batch in plan.batches]
    return _make_survey(found), records


def _rank(journals: Sequence[JournalFile], ends: Sequence[tuple[str, int]]) -> list[JournalFile]:
    sizes = dict(ends)
    return [
        *vouched(journals, ends),
        *(journal for journal in journals if journal.size != sizes.get(journal.path.stem)),
    ]


def _make_survey(found: Sequence[tuple[Batch, Tally]]) -> Survey:
    return Survey(
        [Progress(batch, tally.done, tally.failed) for batch, tally in found],
        sum(tally.seconds for _, tally in found),
    )


def has_inputs(plan: Plan, layout: Layout) -> bool:
    """Whether all input files that a plan names are there, by one listing."""
    there = {path.name for path in layout.inputs.glob("*.pkl")} if plan.batches else set()
    return all(f"{batch.number}.pkl" in there for batch in plan.batches)


# ---------------------------------------------------------------------- receipts


def make_receipt(plan: Plan, records: Mapping[int, Records]) -> bytes:
    """Name the journals that hold the rows of a plan: a function of their content alone."""
    journals = [list(end) for batch in plan.batches for end in records[batch.number].ends]
    content = {"format": FORMAT, "table": plan.table_digest, "journals": journals}
    return json.dumps(content, indent=0, sort_keys=True).encode() + b"\n"


def is_receipt_true(plan: Plan, layout: Layout) -> bool:
    """Whether process.json says what the journals hold, their checksums verified."""
    survey, records = inspect_plan(plan, layout)
    return survey.complete and layout.process.read_bytes() == make_receipt(plan, records)


def read_receipt(path: Path) -> dict[str, Any] | None:
    """Read a receipt; None where there is none that can be used."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    known = isinstance(content, dict) and content.get("format") == FORMAT
    return content if known and _are_ends(content.get("journals", [])) else None


def _are_ends(value: Any) -> bool:
    """Whether a value is what a receipt says of journals."""
    return isinstance(value, list) and all(
        isinstance(end, list)
        and [type(part) for part in end] == [str, int, int]
        and end[0].partition("-")[0].isdecimal()
        for end in value
    )


def read_ends(path: Path) -> dict[int, list[tuple[str, int]]]:
    """Read what process.json vouches for: batch number -> (journal without its suffix, bytes that count)."""
    ends: dict[int, list[tuple[str, int]]] = {}
    for name, end, _ in (read_receipt(path) or {}).get("journals", ()):
        ends.setdefault(int(name.partition("-")[0]), []).append((name, end))
    return ends


def file_digest(path: Path) -> str | None:
    """Return the digest of a file's content; None where there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def is_current(layout: Layout, plan: Plan | None) -> bool:
    """Whether the result file is there, whole, and made from what process.json says now."""
    receipt = read_receipt(layout.receipt)
    if receipt is None or plan is None or receipt.get("table") != plan.table_digest:
        return False
    process = file_digest(layout.process)
    return process in (None, receipt.get("process")) and _is_whole(layout.result, receipt)


def _is_whole(result: Path, receipt: Mapping[str, Any]) -> bool:
    """Whether a result is what its receipt says; it is read only where it was touched or copied since."""
    try:
        status = result.stat()
    except OSError:
        return False
    if status.st_size != receipt.get("size"):
        return False
    return status.st_mtime_ns == receipt.get("mtime") or file_digest(result) == receipt.get("sha256")
