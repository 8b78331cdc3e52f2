"""A child of the pool: ``python -P -m psyrun.worker.child`` loads a captured task and evaluates rows of it.

It starts for every slot, and again after every death, so what is not always needed is imported late.
"""

from __future__ import annotations

import contextlib
import copy
import faulthandler
import json
import os
import pickle
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.errors import ExecuteError, PsyrunError
from psyrun.pspace import RNG, make_rng, takes_rng
from psyrun.values import check_returned, describe_value, dumps, reference_to
from psyrun.worker.generators import GeneratorWatch
from psyrun.worker.place import Place
from psyrun.worker.protocol import ERROR, connect, flush_output, serve

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from psyrun.source import Observer, Source
    from psyrun.workdir import BatchKey, Counts, Failure, RowReceipt
    from psyrun.worker.meter import Run
    from psyrun.worker.protocol import ParentConnection, Request

    RunOfRows = tuple[int, RowReceipt]  # number of rows, their receipt


_REASON_LENGTH = 500  # characters
_TRACEBACK_LENGTH = 20_000  # characters
_FLUSH_BYTES = 1 << 24  # of values after which a child sends its finished rows
_NUMBERS = frozenset({bool, int, float, complex, type(None)})
_OWN_FILES = frozenset(
    {__file__, GeneratorWatch.__call__.__code__.co_filename, check_returned.__code__.co_filename}
)


def command(
    *,
    root: Path,
    code: Path,
    inputs: Path,
    exclude: Iterable[str] = (),
    known: Mapping[str, Any] | None = None,
    untracked: Iterable[str] | None = (),
    stateless: bool = False,
    declared: Iterable[str] = (),
) -> list[str]:
    """Return the command of a child, for `PoolConfig`.

    Parameters
    ----------
    root
        The project root.
    code
        The captured sources.
    inputs
        Folder of the batches' assignments.
    exclude
        Names that are not recorded.
    known
        What is known of the place where rows are evaluated: commit, whether the work tree was clean, and when
        the worker began.
    untracked
        Patterns of paths that are no inputs; None: what rows read is not observed.
    stateless
        Whether what a row read counts for that row alone.
    declared
        Data files that the task file names, relative to the root.
    """
    paths = {"root": root, "code": code, "inputs": inputs}
    spec: dict[str, Any] = {name: str(path.absolute()) for name, path in paths.items()}
    spec |= {"exclude": sorted(exclude), "known": known or {}, "stateless": stateless}
    spec["declared"] = list(declared)
    spec["untracked"] = None if untracked is None else list(untracked)
    return [sys.executable, "-P", "-m", "psyrun.worker.child", json.dumps(spec)]


# Columns, names of those that `execute` might change, which of equal rows the rows are (None: not asked for).
_Batch = tuple[dict[str, list[Any]], list[str], "Sequence[int] | None"]


class _PickledValue:
    """A value as it was when its row returned it; unpickling gives the value itself."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (self._data,)


class _Snapshots:
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


class _BlockBuilder:
    """Collects the results of the rows of a request."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, ...], dict[int, dict[str, Any]]] = {}
        self._failures: list[Failure] = []

    def add(self, row: int, values: dict[str, Any]) -> None:
        names = tuple(values)
        group = self._groups.get(names)
        if group is None:
            check_returned("execute", values, exact=True)
            group = self._groups[names] = {}
        group[row] = values

    def add_failure(self, row: int, error: BaseException, seconds: float) -> None:
        from psyrun.workdir import Failure

        trace = sys.intern(_trace(error))  # equal texts are one object, which the block holds once
        self._failures.append(Failure(row, _reason(error), trace, seconds, os.uname().nodename))

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


def _make_receipts(
    runs: Iterable[Run], marks: Iterable[tuple[int, int, int]], inputs: int
) -> Iterator[RunOfRows]:
    """Yield the receipts of rows, some rows at a time.

    Parameters
    ----------
    runs
        The measures of rows.
    marks
        Of each row that read something: its place, how many inputs count for it, the first of its own.
    inputs
        How many counted before.
    """
    from psyrun.workdir import RowReceipt

    end, left = 0, iter(marks)
    mark = next(left, None)
    for n, *measures in runs:
        place, end = end, end + n
        while place < end:
            at = end if mark is None else min(mark[0], end)
            if at > place:
                yield at - place, RowReceipt._make((*measures, inputs, inputs + 1, 0))
            if mark is not None and at < end:
                inputs = mark[1]
                yield 1, RowReceipt._make((*measures, *mark[1:], 0))
                at, mark = at + 1, next(left, None)
            place = at


def _reorder(rows: Sequence[int], runs: Iterable[RunOfRows], order: Iterable[int]) -> list[RunOfRows]:
    """Return the receipts of rows in another order."""
    each = dict(zip(rows, ((1, receipt) for n, receipt in runs for _ in range(n))))
    return [each[row] for row in order]


def _columns(group: Mapping[int, Mapping[str, Any]]) -> tuple[list[int], dict[str, list[Any]]]:
    rows, records = list(group), list(group.values())
    return rows, {name: [record[name] for record in records] for name in records[0]}


class _Evaluator:
    """Evaluates rows of a captured task."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        execute: Any,
        setup: dict[str, Any],
        snapshots: _Snapshots,
        connection: ParentConnection,
        observer: Observer,
        source: Source,
    ) -> None:
        self._inputs, self._exclude = Path(spec["inputs"]), frozenset(spec["exclude"])
        self._setup, self._snapshots, self._connection = setup, snapshots, connection
        self._observer, self._watch = observer, GeneratorWatch(execute, setup, source)
        self._execute: Any = self._watch
        self._batches: dict[BatchKey, _Batch] = {}
        self._draws = takes_rng(execute, setup)
        self._code, self._place = Path(spec["code"]).stem, Place(spec["known"])

    def evaluate(self, request: Request) -> tuple[int, bytes]:
        """Evaluate rows of a request; return their number, and their blocks."""
        from psyrun.workdir import Counts

        columns, mutable, replicates = self._batch(request.batch)
        observer, marks = self._observer, list[tuple[int, int, int]]()
        inputs = observer.count
        started = time.monotonic()
        block = _BlockBuilder()
        done = self._snapshots.bytes = 0
        for row in self._connection.iter_rows(request):
            done += 1
            try:
                assignment = {name: column[row] for name, column in columns.items()}
                rng = {} if replicates is None else {RNG: make_rng(assignment, replicates[row])}
                for name in mutable:
                    assignment[name] = copy.deepcopy(assignment[name])
                block.add(row, self._evaluate(assignment | rng))
            except BaseException as error:
                block.add_failure(row, error, self._connection.elapsed())
            if observer.lowest:
                marks.append((done - 1, *observer.end_row()))
            if self._snapshots.bytes > _FLUSH_BYTES:
                break
        connection = self._connection
        counts = Counts(
            seconds=time.monotonic() - started,
            child=connection.number,
            slot=connection.slot,
            inputs=marks[-1][1] if marks else inputs,
        )
        receipts = list(_make_receipts(connection.meter.runs, marks, inputs))
        return done, _encode(block, request.rows[:done], receipts, counts, self._sections())

    def _sections(self) -> dict[int, bytes]:
        """Return the sections for what is new since the last block: the place, inputs."""
        from psyrun.workdir import INPUTS, WHERE, Input, pack_reads

        where, readings = self._place.look(self._watch.describe()), self._observer.take()
        if self._watch.is_over:
            self._execute = self._watch.execute
        found = {} if where is None else {WHERE: where}
        if readings:
            number = self._connection.number
            found[INPUTS] = pack_reads([Input(number, *each.fields()) for each in readings])
        return found

    def _evaluate(self, assignment: dict[str, Any]) -> dict[str, Any]:
        result = self._execute(**assignment, **self._setup)
        try:
            values = {**self._setup, **result}
        except TypeError:
            check_returned("execute", result)
            raise
        take, exclude = self._snapshots.take, self._exclude
        return {
            name: value if type(value) in _NUMBERS else take(name, value)
            for name, value in values.items()
            if name not in exclude
        }

    def _batch(self, batch: BatchKey) -> _Batch:
        if batch not in self._batches:
            while len(self._batches) > 1:
                del self._batches[next(iter(self._batches))]
            self._batches[batch] = self._load(batch)
        return self._batches[batch]

    def _load(self, batch: BatchKey) -> _Batch:
        from psyrun.workdir import read_inputs

        inputs = read_inputs(self._inputs / f"{batch.number}.pkl", batch.tie)
        if inputs.code != self._code:
            raise ExecuteError(f"batch {batch.number} was planned for other code than this process runs")
        columns = inputs.columns()
        if clash := sorted(columns.keys() & self._setup.keys()):
            raise ExecuteError(
                f"setup returns {', '.join(map(repr, clash))}, which is a parameter too; rename one of them"
            )
        mutable = [name for name, column in columns.items() if _is_mutable(column)]
        draws = self._draws and RNG not in columns
        return columns, mutable, (inputs.replicates() or [0] * inputs.size) if draws else None


def _encode(block: _BlockBuilder, *measures: Any) -> bytes:
    try:
        return block.encode(*measures)
    except Exception:
        sys.excepthook(*sys.exc_info())
        flush_output()
        os._exit(1)  # memory, most likely: the pool finds the row by evaluating one at a time


def _is_mutable(column: Sequence[Any]) -> bool:
    numpy = sys.modules.get("numpy")
    scalars = () if numpy is None else (numpy.number, numpy.bool_)
    kinds = set(map(type, column)) - _NUMBERS - {str, bytes}
    return not all(issubclass(kind, scalars) for kind in kinds)


# ---------------------------------------------------------------------- words for errors


def _reason(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:
        text = "(its text can't be shown)"
    name = type(error).__name__
    return _shorten(f"{name}: {text}".replace("\n", " ") if text else name, _REASON_LENGTH)


def _shorten(text: str, limit: int) -> str:
    """Cut out the middle of a long text."""
    if len(text) <= limit:
        return text
    mark, head = " [...] ", limit // 4
    return text[:head] + mark + text[len(text) - (limit - head - len(mark)) :]


def _trace(error: BaseException) -> str:
    """Format the traceback from the user's code on; empty if the error is not from there."""
    import traceback

    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in _OWN_FILES:
        frames = frames.tb_next
    if frames is None:
        return ""
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except BaseException:
        text = f"{_reason(error)} (its traceback can't be shown)"
    return _shorten(text, _TRACEBACK_LENGTH)


# ---------------------------------------------------------------------- the process


def main(arguments: Sequence[str]) -> None:
    """Evaluate rows of the captured task that the first argument names, until there are no more requests."""
    spec, *rest = arguments
    connection = connect(rest)
    # The log gets all that was printed before a child dies, and the line at which it died.
    with contextlib.suppress(Exception):  # standard output may be closed
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        faulthandler.enable()
    try:
        _run(json.loads(spec), connection)
    except BaseException as error:
        message = str(error) if isinstance(error, PsyrunError) else _trace(error) or _reason(error)
        connection.send(ERROR, message.encode(errors="backslashreplace"))
        flush_output()
        sys.exit(1)


def _run(spec: Mapping[str, Any], connection: ParentConnection) -> None:
    from psyrun.source import loaded, read_zip

    root, source = Path(spec["root"]), read_zip(Path(spec["code"]))
    observer = _make_observer(spec, source)
    observer.declare(spec["declared"])
    with (
        observer if spec["untracked"] is not None else contextlib.nullcontext(),
        loaded(source, root) as module,
    ):
        observer.end_loading()
        setup = call_setup(getattr(module, "setup", None), connection.slot)
        observer.begin_rows()
        snapshots = _Snapshots([module.__name__, *source.modules])
        evaluator = _Evaluator(spec, module.execute, setup, snapshots, connection, observer, source)
        serve(connection, evaluator.evaluate)


def _make_observer(spec: Mapping[str, Any], source: Source) -> Observer:
    from psyrun.source import Observer, TrackedPaths

    paths = TrackedPaths(
        root=spec["root"],
        folder=os.path.dirname(os.path.join(spec["root"], source.task)),  # noqa: PTH120 - a string
        work=os.path.dirname(spec["inputs"]),  # noqa: PTH120 - a string
        untracked=spec["untracked"] or (),
    )
    sources = {os.path.join(spec["root"], name): name for name in source.paths}
    return Observer(paths, sources, by_row=spec["stateless"])


def call_setup(setup: Any, slot: int) -> dict[str, Any]:
    """Call the function `setup` of a task, or None, with the number of a process; return its dict.

    Raises
    ------
    ExecuteError
        If it returns something else.
    """
    values = None if setup is None else setup(slot)
    if values is None:
        return {}
    if not isinstance(values, Mapping) or not all(type(name) is str for name in values):
        raise ExecuteError(
            f"setup returned {describe_value(values)}; return a dict of names and values, or None"
        )
    return dict(values)


if __name__ == "__main__":
    main(sys.argv[1:])
