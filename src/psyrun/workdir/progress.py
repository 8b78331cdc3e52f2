"""Progress: how many rows of a plan are done, failed and missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psyrun.disk import read_file
from psyrun.errors import FormatError
from psyrun.workdir.inputs import read_inputs
from psyrun.workdir.receipts import make_receipt, read_journal_ends
from psyrun.workdir.records import RowCounter, list_journals, read_records, up_to_receipt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from psyrun.workdir.layout import Layout
    from psyrun.workdir.plan import Allowance, Batch, Plan
    from psyrun.workdir.records import JournalFile, Records, RowCounts


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """Progress of one batch: how many of its wanted rows are done and failed."""

    batch: Batch
    done: int
    failed: int

    @property
    def missing(self) -> int:
        """Wanted rows that have neither values nor a failure."""
        return self.batch.wanted - self.done - self.failed


@dataclass(frozen=True, slots=True)
class PlanProgress:
    """Progress of a plan.

    Parameters
    ----------
    batches
        Progress per batch, in the order of the plan.
    seconds
        Time spent in `execute` for all of them.
    allowance
        How many rows may have failed.
    """

    batches: Sequence[BatchProgress]
    seconds: float
    allowance: Allowance

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
        """Whether every wanted row has values, or failed as is allowed."""
        return self.missing == 0 and self.allowance.covers(self.failed, self.total)


def read_progress(plan: Plan, layout: Layout, counter: RowCounter | None = None) -> PlanProgress:
    """Count the rows on disk with one listing of the journals, from the headers of their blocks.

    Parameters
    ----------
    plan, layout
        The plan, and where its files are.
    counter
        Cache of earlier counts.
    """
    journals = list_journals(layout.out)
    wanted = plan.wanted_rows()
    counter = counter or RowCounter()
    counts = {
        batch.number: counter.count(journals.get(batch.key, ()), wanted.get(batch.number), rows=batch.size)
        for batch in plan.batches
    }
    return _sum_up(plan, counts)


def verify_progress(plan: Plan, layout: Layout) -> tuple[PlanProgress, dict[int, Records]]:
    """Read which rows are on disk, verifying the checksum of every block.

    The journals that process.json names count first, in its order and up to its sizes: of several records of
    one row, the same one counts always, whatever journals are added.

    Returns
    -------
    progress : PlanProgress
    records : dict
        Batch number -> what its journals hold.
    """
    ends = read_journal_ends(layout.process)
    journals = list_journals(layout.out)
    wanted = plan.wanted_rows()
    records = {
        batch.number: read_records(
            _rank(journals.get(batch.key, ()), ends.get(batch.key, ())), rows=batch.size
        )
        for batch in plan.batches
    }
    counts = {number: each.count(wanted.get(number)) for number, each in records.items()}
    return _sum_up(plan, counts), records


def _rank(journals: Sequence[JournalFile], ends: Sequence[tuple[str, int]]) -> list[JournalFile]:
    sizes = dict(ends)
    return [
        *up_to_receipt(journals, ends),
        *(journal for journal in journals if journal.size != sizes.get(journal.path.stem)),
    ]


def _sum_up(plan: Plan, counts: Mapping[int, RowCounts]) -> PlanProgress:
    return PlanProgress(
        [BatchProgress(b, counts[b.number].done, counts[b.number].failed) for b in plan.batches],
        sum(each.seconds for each in counts.values()),
        plan.allowance,
    )


def find_damaged_inputs(plan: Plan, layout: Layout) -> list[Batch]:
    """Return the batches of a plan whose input file is missing, or is not the one that was planned."""
    return [batch for batch in plan.batches if not _is_whole(layout.input(batch.number), batch.tie)]


def _is_whole(path: Path, tie: str) -> bool:
    try:
        read_inputs(path, tie)
    except (OSError, FormatError):
        return False
    return True


def find_needed_journals(plan: Plan, layout: Layout) -> Iterator[Path]:
    """Yield the journals that a plan needs: with rows, still open, or with the last failure of a row."""
    journals = list_journals(layout.out)
    for batch in plan.batches:
        ours = journals.get(batch.key, ())
        records = {journal.path: read_records([journal], rows=batch.size) for journal in ours}
        failed = set(read_records(ours, rows=batch.size).failures)
        kept = {journal.path for journal in ours if records[journal.path].done or not journal.closed}
        yield from kept
        for path in sorted(records.keys() - kept, key=lambda path: path.stat().st_mtime, reverse=True):
            if not failed.isdisjoint(records[path].failures):
                yield path
                failed -= records[path].failures.keys()


def is_receipt_true(plan: Plan, layout: Layout) -> bool:
    """Whether process.json says what the journals hold, their checksums verified."""
    progress, records = verify_progress(plan, layout)
    return progress.complete and read_file(layout.process) == make_receipt(plan, records)
