"""Output of rows: what a row printed, found in the log of its process by the row's receipt."""

from __future__ import annotations

import re
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from psyrun.cli.rows import find_rows, locate_rows, read_assignments
from psyrun.cli.text import count, show_assignment
from psyrun.workdir import (
    find_receipts,
    list_journals,
    read_journal_ends,
    read_receipt,
    read_receipts,
    up_to_receipt,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from psyrun.workdir import Batch, Layout, Plan, RowReceipt


_MOST_ROWS = 10  # whose output is printed
_MOST_LOGS, _LOG_LINES = 5, 20  # of the task as a whole
_TAIL_BYTES = 20_000
_CHUNK_BYTES = 1 << 20
_QUICK_SECONDS = 0.005  # rows that take less time are not told apart in the log
_OWN_FRAME = re.compile(r'  File "(.*/psyrun/(worker|source)/\w+\.py|<frozen runpy>)", line \d+ in .+')


@dataclass(frozen=True, slots=True)
class Output:
    """What a row printed.

    Parameters
    ----------
    log
        The log of its process, relative to the project root; empty where it is not known.
    path
        The same, absolute; None where there is nothing to read.
    begin, end
        Where its output begins and ends in it, in bytes.
    note
        Why there is nothing, or what else is in it.
    """

    log: str = ""
    path: Path | None = None
    begin: int = 0
    end: int = 0
    note: str = ""

    def chunks(self) -> Iterator[bytes]:
        """Yield all of it, ending with a newline."""
        data = b"\n"
        if self.path is not None:
            with self.path.open("rb") as file:
                file.seek(self.begin)
                while data and (left := self.end - file.tell()) > 0:
                    data = file.read(min(left, _CHUNK_BYTES))
                    yield data
        if not data.endswith(b"\n"):
            yield b"\n"

    def last_lines(self, most: int) -> list[str]:
        """Return its last lines, without what Python tells of psyrun's own functions when it crashes."""
        if self.path is None:
            return []
        lines = _read_lines(self.path, max(self.begin, self.end - _TAIL_BYTES), self.end)
        told = [line for line in lines if not _OWN_FRAME.fullmatch(line)]
        while told and (not told[-1].strip() or told[-1].startswith("Extension modules: ")):
            told.pop()
        return told[-most:]


def _read_lines(path: Path, begin: int, end: int) -> list[str]:
    with path.open("rb") as file:
        file.seek(begin)
        return file.read(max(0, end - begin)).decode(errors="replace").splitlines()


def find_output(
    layout: Layout, plan: Plan, places: Sequence[tuple[Batch, int]], numbers: Sequence[int] = ()
) -> list[Output]:
    """Find what rows printed, reading the journals of their batches.

    Parameters
    ----------
    layout, plan
        Where the files are, and which rows there are.
    places
        The rows: batch, and place in it.
    numbers
        Their numbers in the order of the space: then receipts.rows is read where journals are gone.
    """
    journals, ends = list_journals(layout.out), read_journal_ends(layout.process)
    rows: dict[Batch, list[int]] = defaultdict(list)
    for batch, row in places:
        rows[batch].append(row)
    found: dict[tuple[Batch, int], tuple[RowReceipt, Mapping[str, object]]] = {}
    for batch, wanted in rows.items():
        there = journals.get(batch.key, ())
        # The first record counts: those that process.json names, in its order.
        counting = [*up_to_receipt(there, ends.get(batch.key, ())), *there]
        if len(there) > 1:  # Of several failures, it is the last.
            counting += sorted(there, key=attrgetter("mtime"))
        for row, known in zip(wanted, find_receipts(counting, wanted, batch.size)):
            found[batch, row] = known
    lost = {number: place for place, number in zip(places, numbers) if not found[place][1]}
    process = (read_receipt(layout.receipt) or {}).get("process", "") if lost else ""
    if process:
        kept = read_receipts(layout.row_receipts, process).part(list(lost))
        found |= dict(zip(lost.values(), kept.rows()))
    return [_locate(layout, *found[place]) for place in places]


def _locate(layout: Layout, receipt: RowReceipt, place: Mapping[str, object]) -> Output:
    if not place.get("run"):
        return Output(note="not evaluated yet, or not known any more")
    path = layout.log / f"{place['run']}-{place['slot']}.log"
    log = layout.relative(path)
    if receipt.log_end <= receipt.log:
        return Output(log, note="nothing was printed")
    if not path.is_file() or path.stat().st_size < receipt.log_end:
        return Output(log, note=f"not known any more: {log} was removed or cut")
    quick = receipt.seconds < _QUICK_SECONDS
    note = "maybe with its neighbours, since rows of less than 5 ms are not told apart" if quick else ""
    return Output(log, path, receipt.log, receipt.log_end, note)


# ---------------------------------------------------------------------- psy log


def show_log(layout: Layout, plan: Plan | None, words: Sequence[str]) -> Iterator[bytes]:
    """Yield what rows printed; without words about rows, the ends of the newest logs of the task.

    Raises
    ------
    SelectionError
        If there are no such rows.
    """
    if plan is None:
        yield f"{layout.folder.name}: it was never run; psy run {layout.folder.name}\n".encode()
    elif not words:
        yield from _show_newest(layout)
    else:
        yield from _show_rows(layout, plan, find_rows(layout, plan, words))


def _show_rows(layout: Layout, plan: Plan, numbers: Sequence[int]) -> Iterator[bytes]:
    first = numbers[:_MOST_ROWS]
    places, shown = locate_rows(plan, first), dict[Output, int]()
    for number, place, output in zip(first, places, find_output(layout, plan, places, first)):
        begun = shown.setdefault(output, number)
        note = output.note if begun == number or output.path is None else f"in the lines of row {begun}"
        if len(numbers) > 1 or note:
            [assignment] = read_assignments(layout, plan, place[0], [place[1]])
            yield f"==> row {number}: {show_assignment(assignment)}{note and f' ({note})'} <==\n".encode()
        if begun == number and output.path is not None:
            yield from output.chunks()
    if len(numbers) > len(first):
        task, more = layout.folder.name, count(len(numbers) - len(first), "row")
        yield f"and {more} more; the next: psy log {task} {numbers[len(first)]}\n".encode()


def _show_newest(layout: Layout) -> Iterator[bytes]:
    logs: list[tuple[int, Path, int]] = []
    for path in layout.log.glob("*.log"):
        with suppress(OSError):
            status = path.stat()
            if status.st_size:
                logs.append((status.st_mtime_ns, path, status.st_size))
    logs.sort()
    for _, path, size in logs[-_MOST_LOGS:]:
        yield f"==> {layout.relative(path)} <==\n".encode()
        for line in _read_lines(path, max(0, size - _TAIL_BYTES), size)[-_LOG_LINES:]:
            yield f"{line}\n".encode()
    words = f"{count(len(logs), 'log')} in {layout.relative(layout.log)}" if logs else "nothing was printed"
    yield f"{layout.folder.name}: {words}; of a row: psy log {layout.folder.name} N, or x=4\n".encode()
