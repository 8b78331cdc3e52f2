"""What a child sends: values as they were when rows returned them, in blocks, with the receipts of rows."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from psyrun.errors import ExecuteError
from psyrun.values import check_returned, dumps, reference_to

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from psyrun.workdir import Counts, Failure, RowReceipt
    from psyrun.worker.meter import Run

    RunOfRows = tuple[int, RowReceipt]  # number of rows, their receipt


class _PickledValue:
    """A value as it was when its row returned it; unpickling gives the value itself."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (self._data,)


class Snapshots:
    """Copies values, since user code may use its buffers again.

    Parameters
    ----------
    local
        Names of modules that another process may be unable to import: their classes are pickled by value.
    """

    def __init__(self, local: Iterable[str]) -> None:
        self._local = {name: reference_to(name) for name in local}
        self.bytes = 0

    def take(self, name: str, value: Any) -> Any:
        """Return a value as it is now."""
        kind = type(value)
        if kind is str or kind is bytes:
            self.bytes += len(value)
            return value
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            if isinstance(value, (numpy.number, numpy.bool_)):
                return value
            if kind is numpy.ndarray and not value.dtype.hasobject:
                self.bytes += value.nbytes
                return value.copy()
        try:
            data = dumps(value, self._local)
        except Exception as error:
            raise ExecuteError(
                f"the value {name!r} of type {kind.__module__}.{kind.__qualname__} can't be pickled"
                f" ({error}); return something else, or name it in exclude_from_result"
            ) from error
        self.bytes += len(data)
        return _PickledValue(data)


class BlockBuilder:
    """Collects the results of the rows of a request."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, ...], dict[int, dict[str, Any]]] = {}
        self._failures: list[Failure] = []

    def add(self, row: int, values: dict[str, Any]) -> None:
        """Add the values of a row."""
        names = tuple(values)
        group = self._groups.get(names)
        if group is None:
            check_returned("execute", values, exact=True)
            group = self._groups[names] = {}
        group[row] = values

    def add_failure(self, failure: Failure) -> None:
        """Add the failure of a row."""
        self._failures.append(failure)

    def encode(
        self, rows: Sequence[int], runs: Sequence[RunOfRows], counts: Counts, sections: Mapping[int, bytes]
    ) -> bytes:
        """Return a block for each set of names; the failures are in the first.

        Parameters
        ----------
        rows
            The rows, in the order of evaluation.
        runs
            Their receipts.
        counts
            Numbers for the header; seconds of all of them.
        sections
            Further sections of the first block.
        """
        from psyrun.workdir import RECEIPTS, encode_block, pack_receipts

        groups = [_columns(group) for group in self._groups.values()] or [([], {})]
        blocks, failures = [], self._failures
        for numbers, columns in groups:
            order = [*numbers, *(failure.row for failure in failures)]
            receipts = pack_receipts(runs if order == list(rows) else _reorder(rows, runs, order))
            more = {**sections, RECEIPTS: receipts}
            blocks.append(encode_block(numbers, columns, failures, counts=counts, sections=more))
            failures, sections, counts = [], {}, replace(counts, seconds=0.0)
        return b"".join(blocks)


def make_receipts(runs: Iterable[Run], marks: Sequence[tuple[int, int, int]]) -> Iterator[RunOfRows]:
    """Yield the receipts of rows, some rows at a time.

    Parameters
    ----------
    runs
        The measures of rows.
    marks
        Place of a row, how many inputs count for it and those up to the next mark, and the first that they
        read themselves. The first mark is at 0.
    """
    from psyrun.workdir import RowReceipt

    place = index = 0
    ends = [*(mark[0] for mark in marks[1:]), sys.maxsize]
    for n, *measures in runs:
        end = place + n
        while place < end:
            while ends[index] <= place:
                index += 1
            stop = min(end, ends[index])
            yield stop - place, RowReceipt._make((*measures, *marks[index][1:], 0))
            place = stop


def _reorder(rows: Sequence[int], runs: Iterable[RunOfRows], order: Iterable[int]) -> list[RunOfRows]:
    """Return the receipts of rows in another order."""
    each = dict(zip(rows, ((1, receipt) for n, receipt in runs for _ in range(n))))
    return [each[row] for row in order]


def _columns(group: Mapping[int, Mapping[str, Any]]) -> tuple[list[int], dict[str, list[Any]]]:
    rows, records = list(group), list(group.values())
    return rows, {name: [record[name] for record in records] for name in records[0]}
