"""Result files that grow: rows of a space that a file holds, and finished rows to add."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass, field
from itertools import chain, count, islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.disk import replacing
from psyrun.errors import ExecuteError, StoreError
from psyrun.pspace import ABSENT, Table, fill, identity, row_keys, stack, unbox, value_key
from psyrun.store import count_rows
from psyrun.workdir import FAILURE

if TYPE_CHECKING:
    from collections.abc import Container, Hashable, Iterable, Mapping, Sequence

    from psyrun.pspace import ParameterSpace
    from psyrun.store import Store


_CHUNK = 1000  # Rows whose values are kept as dicts.
_PAUSE = 2.0  # Least seconds between two writes of a result file.
_SHARE = 10  # A write is waited for this many times as long as it takes: linear, also where all is rewritten.


def tabulate(table: Table, results: Iterable[Mapping[str, Any]], excluded: set[str]) -> Table:
    """Put returned values beside the parameters, or in the place of those of equal name."""
    returned: Table = {}
    results, rows = iter(results), 0
    while chunk := list(islice(results, _CHUNK)):
        for name in dict.fromkeys(chain(returned, chain.from_iterable(chunk))):
            if name not in returned:
                returned[name] = [ABSENT] * rows
            try:
                returned[name] += list(map(itemgetter(name), chunk))
            except KeyError:  # Some rows lack it.
                returned[name] += [values.get(name, ABSENT) for values in chunk]
        rows += len(chunk)
    for name, column in returned.items():
        if name in table:
            column[:] = [old if value is ABSENT else value for value, old in zip(column, table[name])]
        fill(column)
    return {name: list(column) for name, column in (table | returned).items() if name not in excluded}


def read_names(names: Iterable[str] | None) -> set[str]:
    """Return names to leave out as a set; a string is one name."""
    return {names} if isinstance(names, str) else set(names or ())


@dataclass(slots=True)
class ResultFile:
    """A result file that grows by finished rows.

    Parameters
    ----------
    path, store
        The file, and how it is written and read.
    pspace
        The space whose rows it gets.
    excluded
        Names that it does not get.
    retry
        Whether its rows that failed are tried again, and new ones may have failed.
    rows
        For each row of the file its position in the space, or a number from `pspace.size` on.
    names
        Columns of the file, in its order.
    firsts
        For each name the first row that has it, and which name of that row it is.
    finished
        Positions and values of rows that are not written yet.
    due
        When to write them, on the monotonic clock.
    continued
        Whether there were rows in the file.
    checked
        Whether the store was asked to hold a row that has values.
    writing
        Whether a write has begun, and not ended.
    """

    path: Path
    store: Store
    pspace: ParameterSpace
    excluded: set[str]
    retry: bool = False
    rows: list[int] = field(default_factory=list)
    names: dict[str, None] = field(default_factory=dict)
    firsts: dict[str, tuple[int, int]] = field(default_factory=dict)
    finished: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    due: float = field(default_factory=lambda: time.monotonic() + _PAUSE)
    continued: bool = False
    checked: bool = False
    writing: bool = False

    def add(self, row: int, values: dict[str, Any]) -> None:
        """Take a finished row, and write all if it is time."""
        if self.continued:
            self._refuse_other_parameters(row, values)
        if not self.checked:
            self.store.check(self._tabulate([(row, values)]))
            self.checked = not (self.retry and values[FAILURE])
        for place, name in enumerate(values):
            if name not in self.firsts or row < self.firsts[name][0]:
                self.firsts[name] = row, place
        self.finished.append((row, values))
        if time.monotonic() >= self.due:
            self.flush()

    def flush(self) -> None:
        """Write the finished rows."""
        if self.writing and self.path.exists() and count_rows(self.store.load(self.path)) > len(self.rows):
            self._commit()  # The last write was interrupted at its end.
        if not self.finished:
            return
        started = time.monotonic()
        self.writing = True
        self._append(self._tabulate(self.finished))
        self._commit()
        self.writing = False
        ended = time.monotonic()
        self.due = ended + max(_PAUSE, _SHARE * (ended - started))

    def sort(self) -> None:
        """Bring rows into the order of the space, and names that came with them into that of the rows.

        The file is created where there were no rows.
        """
        if not self.path.exists():
            self._replace(self._tabulate([]))
        order = sorted(range(len(self.rows)), key=self.rows.__getitem__)
        names = sorted(self.names, key=self.firsts.__getitem__)
        if order != list(range(len(order))) or names != list(self.names):
            table = _take(self._load(), order)
            self._replace({name: table[name] for name in names})
            self.rows.sort()

    def read(self) -> Table:
        """Read the rows of the space, which are the first of the file."""
        table = self._load()
        first = [name for name in self.pspace.keys() if name in table]  # noqa: SIM118 - a space is a sequence
        names = [name for name in dict.fromkeys([*first, *table]) if name not in self.excluded]
        read = {name: _list(table[name], self.pspace.size) for name in names}
        return {**read, FAILURE: read.get(FAILURE, [""] * self.pspace.size)} if self.retry else read

    def locate(self, stored: Mapping[str, Sequence[Any]]) -> None:
        """Find the places of rows that the file has; those that are tried again are removed from it."""
        reasons = stored.get(FAILURE, ()) if self.retry else ()
        failed = {place for place, reason in enumerate(reasons) if reason}
        rows = _locate(stored, self.pspace, failed)
        kept = [place for place, row in enumerate(rows) if row is not None]
        self.rows = [row for row in rows if row is not None]
        if len(kept) < len(rows):
            self._replace(_take(stored, kept))

    def _tabulate(self, finished: Sequence[tuple[int, dict[str, Any]]]) -> Table:
        table = self.pspace.take([row for row, _ in finished])
        return tabulate(table, [values for _, values in finished], self.excluded - self.names.keys())

    def _append(self, table: Table) -> None:
        if not self.names or self.names.keys() == table.keys():
            self.store.append(self.path, table)
        else:
            old = self._load()
            if self.retry:
                old.setdefault(FAILURE, [""] * len(self.rows))
            self._replace(stack([old, table], names=()))
        self.names.update(dict.fromkeys(table))

    def _replace(self, table: Mapping[str, Sequence[Any]]) -> None:
        with replacing(self.path, self.path.suffix) as temporary:
            if self.path.exists():
                shutil.copyfile(self.path, temporary)  # HDF5 files may hold more than the table.
            self.store.save(temporary, table)

    def _commit(self) -> None:
        self.rows, self.finished = [*self.rows, *(row for row, _ in self.finished)], []

    def _load(self) -> dict[str, Any]:
        table = self.store.load(self.path)
        if count_rows(table) != len(self.rows):
            raise StoreError(
                f"{self.path} was changed by another program; one call may write to a file at a time"
            )
        return table

    def _refuse_other_parameters(self, row: int, values: Mapping[str, Any]) -> None:
        for name in values.keys() & set(self.pspace.keys()):
            if identity(values[name]) != identity(self.pspace[row][name]):
                raise ExecuteError(
                    f"{self.path} can't be continued: another value for the parameter {name!r} is returned, "
                    "so that its rows can't be found again; return it under another name, or write a new file"
                )


def open_file(
    path: Path, store: Store, pspace: ParameterSpace, excluded: set[str], *, retry: bool
) -> ResultFile:
    """Find out which rows of the space a file holds."""
    file = ResultFile(path=path, store=store, pspace=pspace, excluded=excluded, retry=retry)
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = store.load(path) if path.exists() else {}
    given = stored or pspace.keys()
    file.names, file.firsts = dict.fromkeys(stored), {name: (-1, place) for place, name in enumerate(given)}
    if count_rows(stored) == 0:
        return file
    names = pspace.keys()
    lacking = [name for name in names if name not in stored]
    if lacking:
        raise StoreError(
            f"{path} can't be continued: without the parameters {lacking} its rows can't be told apart; "
            "write a new file, and exclude no parameters from one that is to be continued"
        )
    _check_store(path, store, pspace)
    file.locate(stored)
    file.continued = True
    return file


def _locate(
    stored: Mapping[str, Sequence[Any]], pspace: ParameterSpace, failed: Container[int]
) -> list[int | None]:
    """Give each row of a file its position in the space, the first free one of those that are equal.

    Rows that failed have none (None) where the space has them.
    """
    wanted, found = _make_keys(pspace.build(), stored)
    free: dict[Hashable, list[int]] = {}
    for row in reversed(range(pspace.size)):
        free.setdefault(wanted[row], []).append(row)
    others = count(pspace.size)
    found = found or [None] * count_rows(stored)  # A space without names has no keys.
    return [
        None if place in failed and key in free else free[key].pop() if free.get(key) else next(others)
        for place, key in enumerate(found)
    ]


def _check_store(path: Path, store: Store, pspace: ParameterSpace) -> None:
    """Make sure that the parameters come back from a store as they were given."""
    table = pspace.build()
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder, path.name)
        store.save(sample, table)
        stored = store.load(sample)
    for name, column in table.items():
        given, returned = _make_keys({name: column}, stored)
        if given != returned:
            raise StoreError(
                f"{path} can't be continued: {type(store).__name__} does not give back the values of "
                f"parameter {name!r} as they are, so that its rows can't be found again; use PickleStore"
            )


def _make_keys(table: Table, stored: Mapping[str, Sequence[Any]]) -> list[list[Hashable]]:
    """Make keys of the rows of a table, and of one that went through a store, to be compared."""
    pairs = [_make_column_keys(name, column, stored[name]) for name, column in table.items()]
    return [list(zip(*columns)) for columns in zip(*pairs)] or [[], []]


def _make_column_keys(name: str, column: Sequence[Any], stored: Sequence[Any]) -> list[list[Hashable]]:
    mixed = hasattr(stored, "ndim") and len({type(unbox(value)) for value in column}) > 1
    if getattr(stored, "ndim", 1) > 1:  # The store made arrays of lists.
        import numpy as np

        column = [np.asarray(value) if isinstance(value, list | tuple) else value for value in column]
    return [row_keys({name: values}, value_key if mixed else identity) for values in (column, stored)]


def _take(table: Mapping[str, Any], rows: list[int]) -> dict[str, Sequence[Any]]:
    return {
        name: column[rows] if hasattr(column, "ndim") else [column[row] for row in rows]
        for name, column in table.items()
    }


def _list(column: Any, size: int) -> list[Any]:
    """List the first values of a column; numbers and strings as Python's."""
    plain = getattr(column, "ndim", 0) == 1 and column.dtype.kind in "biufcUS"
    values: list[Any] = column[:size].tolist() if plain else list(column[:size])
    return values
