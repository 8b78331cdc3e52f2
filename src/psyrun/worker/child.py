"""A child of the pool: ``python -P -m psyrun.worker.child`` loads a captured task and evaluates rows of it.

It is forked by the worker for every slot, and started so after every death: what is not always needed is
imported late.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.errors import ExecuteError, PsyrunError
from psyrun.pspace import takes_rng
from psyrun.values import check_returned, describe_error, describe_value, shorten
from psyrun.worker.arguments import PLAIN, Arguments
from psyrun.worker.blocks import BlockBuilder, Snapshots, make_receipts
from psyrun.worker.generators import GeneratorWatch
from psyrun.worker.place import Place
from psyrun.worker.protocol import ERROR, connect, flush_output, serve

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psyrun.source import Observer, Source
    from psyrun.workdir import BatchKey
    from psyrun.worker.protocol import ParentConnection, Request


_TRACEBACK_LENGTH = 20_000  # characters
_FLUSH_BYTES = 1 << 24  # of values after which a child sends its finished rows
_OWN_FILES = {
    each.__code__.co_filename
    for each in (check_returned, Arguments.name, Snapshots.take, GeneratorWatch.__call__)
} | {__file__}


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


class _Evaluator:
    """Evaluates rows of a captured task."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        execute: Any,
        setup: dict[str, Any],
        snapshots: Snapshots,
        connection: ParentConnection,
        observer: Observer,
        source: Source,
    ) -> None:
        self._inputs, self._exclude = Path(spec["inputs"]), frozenset(spec["exclude"])
        self._setup, self._snapshots, self._connection = setup, snapshots, connection
        self._observer, self._watch = observer, GeneratorWatch(execute, setup, source)
        self._batches: dict[BatchKey, Arguments] = {}
        self._draws = takes_rng(execute, setup)
        self._code, self._place = Path(spec["code"]).stem, Place(spec["known"])

    def evaluate(self, request: Request) -> tuple[int, bytes]:
        """Evaluate rows of a request; return their number, and their blocks."""
        from psyrun.workdir import Counts, Failure

        batch = self._batch(request.batch)
        execute = self._watch.execute if batch.positional and self._watch.is_over else None
        observer, keep, snapshots = self._observer, self._keep, self._snapshots
        inputs, reads = observer.count, observer.count + 1
        marks = [(0, inputs, reads)]  # from a row on, how many inputs count, and the first of its own
        started = time.monotonic()
        block = BlockBuilder()
        done = snapshots.bytes = 0
        for row, values in zip(self._connection.iter_rows(request), batch.select(request.rows)):
            done += 1
            try:
                result = execute(*values) if execute is not None else self._call(batch.name(row, values))
                block.add(row, keep(result))
            except BaseException as error:
                seconds = self._connection.elapsed()
                block.add_failure(
                    Failure(row, describe_error(error), _trace(error), seconds, os.uname().nodename)
                )
                self._connection.failed = True
            if observer.lowest or reads <= inputs:
                now = observer.end_row()
                if now != (inputs, reads):
                    inputs, reads = now
                    marks.append((done - 1, *now))
            if snapshots.bytes > _FLUSH_BYTES:
                break
        connection = self._connection
        counts = Counts(
            seconds=time.monotonic() - started,
            child=connection.number,
            slot=connection.slot,
            inputs=inputs,
        )
        receipts = list(make_receipts(connection.meter.runs, marks))
        return done, _encode(block, request.rows[:done], receipts, counts, self._sections())

    def _sections(self) -> dict[int, bytes]:
        """Return the sections for what is new since the last block: the place, inputs."""
        from psyrun.workdir import INPUTS, WHERE, Input, pack_reads

        where, readings = self._place.look(self._watch.describe()), self._observer.take()
        found = {} if where is None else {WHERE: where}
        if readings:
            number = self._connection.number
            found[INPUTS] = pack_reads([Input(number, *each.fields()) for each in readings])
        return found

    def _call(self, assignment: dict[str, Any]) -> Any:
        return self._watch(**assignment | self._setup)

    def _keep(self, result: Any) -> dict[str, Any]:
        """Return the values that are recorded, as they are now."""
        try:
            values = {**self._setup, **result}
        except TypeError:
            check_returned("execute", result)
            raise
        for name in self._exclude:
            values.pop(name, None)
        for name, value in values.items():
            if type(value) not in PLAIN:
                values[name] = self._snapshots.take(name, value)
        return values

    def _batch(self, batch: BatchKey) -> Arguments:
        if batch not in self._batches:
            while len(self._batches) > 1:
                del self._batches[next(iter(self._batches))]
            self._batches[batch] = self._load(batch)
        return self._batches[batch]

    def _load(self, batch: BatchKey) -> Arguments:
        from psyrun.workdir import read_inputs

        inputs = read_inputs(self._inputs / f"{batch.number}.pkl", batch.tie)
        if inputs.code != self._code:
            raise ExecuteError(f"batch {batch.number} was planned for other code than this process runs")
        columns = inputs.columns()
        if clash := sorted(columns.keys() & self._setup.keys()):
            raise ExecuteError(
                f"setup returns {', '.join(map(repr, clash))}, which is a parameter too; rename one of them"
            )
        replicates = (inputs.replicates() or [0] * inputs.size) if self._draws else None
        return Arguments.of(self._watch.execute, columns, self._setup, replicates)


def _encode(block: BlockBuilder, *measures: Any) -> bytes:
    try:
        return block.encode(*measures)
    except Exception:
        sys.excepthook(*sys.exc_info())
        flush_output()
        os._exit(1)  # memory, most likely: the pool finds the row by evaluating one at a time


# ---------------------------------------------------------------------- words for errors


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
        text = f"{describe_error(error)} (its traceback can't be shown)"
    # Equal texts are one object, which a block holds once.
    return sys.intern(shorten(text, _TRACEBACK_LENGTH))


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
        message = str(error) if isinstance(error, PsyrunError) else _trace(error) or describe_error(error)
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
        snapshots = Snapshots([module.__name__, *source.modules])
        evaluator = _Evaluator(spec, module.execute, setup, snapshots, connection, observer, source)
        serve(connection, evaluator.evaluate)
        modules = dict(sys.modules)
    # Python ends modules one by one, which writes what is left in their open files; garbage in any order.
    sys.modules.update(modules)


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
