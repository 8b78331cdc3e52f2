"""A child of the pool: ``python -P -m psyrun.worker.child`` loads a captured task and evaluates rows of it.

It starts for every slot, and again after every death: nothing is imported here that can wait.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.errors import ExecuteError, PsyrunError
from psyrun.worker.protocol import ERROR, connect, flush, serve

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType

    from psyrun.workdir import Failure
    from psyrun.worker.protocol import Line, Order


_SHOWN = 500  # characters of a reason
_TRACEBACK = 20_000  # characters of a traceback
_MUCH = 1 << 24  # bytes of values after which a child sends what it has
_NUMBERS = frozenset({bool, int, float, complex, type(None)})


def command(*, root: Path, code: Path, inputs: Path, exclude: Iterable[str] = ()) -> list[str]:
    """Return the command that becomes a child, for `pool.PoolConfig`.

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
    """
    paths = {"root": root, "code": code, "inputs": inputs}
    spec = {name: str(path.absolute()) for name, path in paths.items()} | {"exclude": sorted(exclude)}
    return [sys.executable, "-P", "-m", "psyrun.worker.child", json.dumps(spec)]


class _Pickled:
    """A value as it was when its row returned it; what unpickles it again is the value itself."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (self._data,)


def _mark(module: bytes) -> bytes:
    """Return the bytes that stand in a pickle which refers to a module (and in few others)."""
    return b"\x8c" + bytes([len(module)]) + module if len(module) < 256 else module


class _Freezer:
    """Keeps values as they are now: user code may go on using its buffers.

    Parameters
    ----------
    local
        Names of modules that another process may be unable to import: their classes travel by value.
    """

    def __init__(self, local: Iterable[str]) -> None:
        self._modules = tuple(local)
        self._marks = tuple(_mark(name.encode()) for name in self._modules)
        self.bytes = 0

    def freeze(self, name: str, value: Any) -> Any:
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
        data = self._dump(name, value)
        self.bytes += len(data)
        return _Pickled(data)

    def _dump(self, name: str, value: Any) -> bytes:
        try:
            data = pickle.dumps(value, 5)
            if not any(mark in data for mark in self._marks):
                return data
        except Exception:  # noqa: S110 - the next attempt has the say
            pass
        return self._dump_by_value(name, value)

    def _dump_by_value(self, name: str, value: Any) -> bytes:
        import cloudpickle

        for module in self._modules:
            if module in sys.modules:
                cloudpickle.register_pickle_by_value(sys.modules[module])
        try:
            return bytes(cloudpickle.dumps(value, 5))
        except Exception as error:
            kind = type(value)
            raise ExecuteError(
                f"the value {name!r} of type {kind.__module__}.{kind.__qualname__} can't be pickled"
                f" ({error}); return something else, or name it in exclude_from_result"
            ) from error


class _Block:
    """What became of the rows of a mini-batch."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, ...], dict[int, dict[str, Any]]] = {}
        self._failures: list[Failure] = []

    def add(self, row: int, values: dict[str, Any]) -> None:
        names = tuple(values)
        group = self._groups.get(names)
        if group is None:
            _check_names(names)
            group = self._groups[names] = {}
        group[row] = values

    def add_failure(self, row: int, error: BaseException, seconds: float) -> None:
        from psyrun.workdir import Failure

        trace = sys.intern(_trace(error))  # equal texts are one object, which the block holds once
        self._failures.append(Failure(row, _reason(error), trace, seconds, os.uname().nodename))

    def encode(self, seconds: float) -> bytes:
        """Return a block for each set of names; the failures are in the first."""
        from psyrun.workdir import encode_block

        first, *others = [_columns(group) for group in self._groups.values()] or [([], {})]
        blocks = [encode_block(*first, self._failures, seconds)]
        blocks += [encode_block(*group) for group in others]
        return b"".join(blocks)


def _columns(group: Mapping[int, Mapping[str, Any]]) -> tuple[list[int], dict[str, list[Any]]]:
    rows, records = list(group), list(group.values())
    return rows, {name: [record[name] for record in records] for name in records[0]}


class _Task:
    """Evaluates rows of a captured task."""

    def __init__(
        self, spec: Mapping[str, Any], execute: Any, setup: dict[str, Any], freezer: _Freezer, line: Line
    ) -> None:
        self._inputs, self._exclude = Path(spec["inputs"]), frozenset(spec["exclude"])
        self._execute, self._setup, self._freezer, self._line = execute, setup, freezer, line
        self._batches: dict[int, tuple[dict[str, list[Any]], list[str]]] = {}

    def evaluate(self, order: Order) -> tuple[int, bytes]:
        """Evaluate rows of an order; return how many, and their blocks."""
        columns, mutable = self._batch(order.tag)
        started = time.monotonic()
        block = _Block()
        done = self._freezer.bytes = 0
        for row in self._line.walk(order):
            done += 1
            try:
                assignment = {name: column[row] for name, column in columns.items()}
                for name in mutable:
                    assignment[name] = copy.deepcopy(assignment[name])
                block.add(row, self._evaluate(assignment))
            except BaseException as error:
                block.add_failure(row, error, self._line.elapsed())
            if self._freezer.bytes > _MUCH:
                break
        return done, _encode(block, time.monotonic() - started)

    def _evaluate(self, assignment: dict[str, Any]) -> dict[str, Any]:
        result = self._execute(**assignment, **self._setup)
        try:
            values = {**self._setup, **result}
        except TypeError:
            raise _not_a_mapping(result) from None
        freeze, exclude = self._freezer.freeze, self._exclude
        return {
            name: value if type(value) in _NUMBERS else freeze(name, value)
            for name, value in values.items()
            if name not in exclude
        }

    def _batch(self, tag: int) -> tuple[dict[str, list[Any]], list[str]]:
        """Return the columns of a batch, and the names of those that `execute` might change."""
        if tag not in self._batches:
            while len(self._batches) > 1:
                del self._batches[next(iter(self._batches))]
            self._batches[tag] = self._load(tag)
        return self._batches[tag]

    def _load(self, tag: int) -> tuple[dict[str, list[Any]], list[str]]:
        from psyrun.workdir import read_inputs

        _, columns = read_inputs(self._inputs / f"{tag}.pkl")
        if clash := sorted(columns.keys() & self._setup.keys()):
            raise ExecuteError(
                f"setup returns {', '.join(map(repr, clash))}, which is a parameter too; rename one of them"
            )
        return columns, [name for name, column in columns.items() if _is_mutable(column)]


def _encode(block: _Block, seconds: float) -> bytes:
    try:
        return block.encode(seconds)
    except Exception:
        sys.excepthook(*sys.exc_info())
        flush()
        os._exit(1)  # memory, most likely: the pool finds the row by evaluating one at a time


def _is_mutable(column: Sequence[Any]) -> bool:
    numpy = sys.modules.get("numpy")
    scalars = () if numpy is None else (numpy.number, numpy.bool_)
    kinds = set(map(type, column)) - _NUMBERS - {str, bytes}
    return not all(issubclass(kind, scalars) for kind in kinds)


def _call_setup(module: ModuleType, slot: int) -> dict[str, Any]:
    setup = getattr(module, "setup", None)
    values = setup(slot) if setup is not None else None
    if values is None:
        return {}
    if not isinstance(values, Mapping) or not all(type(name) is str for name in values):
        raise ExecuteError(f"setup returned {_show(values)}; return a dict of names and values, or None")
    return dict(values)


def _not_a_mapping(result: Any) -> ExecuteError:
    return ExecuteError(f"execute returned {_show(result)}; return a dict of names and values")


def _check_names(names: Iterable[Any]) -> None:
    for name in names:
        if type(name) is not str:
            raise ExecuteError(f"execute returned a dict with the name {_show(name)}; names are strings")


# ---------------------------------------------------------------------- telling what went wrong


def _show(value: Any) -> str:
    try:
        text = repr(value)
    except BaseException:
        text = "an object"
    return f"{_shorten(text, 200)} ({type(value).__name__})"


def _reason(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:
        text = "(its text can't be shown)"
    name = type(error).__name__
    return _shorten(f"{name}: {text}".replace("\n", " ") if text else name, _SHOWN)


def _shorten(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    mark = " [...] "
    head = most // 4
    return text[:head] + mark + text[len(text) - (most - head - len(mark)) :]


def _trace(error: BaseException) -> str:
    """Format the traceback from the user's code on; empty if the error is not from there."""
    import traceback

    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    if frames is None:
        return ""
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except BaseException:
        text = f"{_reason(error)} (its traceback can't be shown)"
    return _shorten(text, _TRACEBACK)


# ---------------------------------------------------------------------- the process


def main(arguments: Sequence[str]) -> None:
    """Evaluate rows of the captured task that the first argument names, as long as the pool sends options."""
    spec, *numbers = arguments
    line = connect(numbers)
    _prepare_log()
    try:
        _run(json.loads(spec), line)
    except BaseException as error:
        what = str(error) if isinstance(error, PsyrunError) else _trace(error) or _reason(error)
        line.send(ERROR, what.encode(errors="backslashreplace"))
        flush()
        sys.exit(1)


def _prepare_log() -> None:
    """Let the log have all that was printed before a child dies, and where it died."""
    with contextlib.suppress(Exception):  # there may be no such files
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        faulthandler.enable()


def _run(spec: Mapping[str, Any], line: Line) -> None:
    from psyrun.source import loaded, read_zip

    source = read_zip(Path(spec["code"]))
    with loaded(source, Path(spec["root"]), part="code") as module:
        setup = _call_setup(module, line.slot)
        freezer = _Freezer([module.__name__, *source.modules])
        serve(line, _Task(spec, module.execute, setup, freezer, line).evaluate)


if __name__ == "__main__":
    main(sys.argv[1:])
