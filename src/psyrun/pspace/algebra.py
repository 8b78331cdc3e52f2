"""Spaces made of others: products, sums, slices, differences; their rows are made when they are asked for."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from functools import cached_property, reduce
from itertools import accumulate, compress, groupby, repeat
from typing import TYPE_CHECKING, Any

from psyrun.pspace.keys import MANY, row_keys, value_key
from psyrun.pspace.space import Param, ParameterSpace, check_space, is_run, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from psyrun.pspace.table import Table

    _Steps = Generator[tuple[ParameterSpace, Sequence[int]], Any, Any]

_BLOCK = 1_000_000  # Rows compared at a time, at least.


def missing(minuend: ParameterSpace, subtrahend: ParameterSpace) -> ParameterSpace:
    """Return the assignments of one space that do not occur in another, or not as often.

    Unlike `-`, this counts: of three equal assignments less one, two are left. Values are equal as
    `psyrun.pspace.value_key` says; names that only the subtrahend has do not count.

    Parameters
    ----------
    minuend
        What is wanted.
    subtrahend
        What there is, for example the rows of a result.

    Returns
    -------
    ParameterSpace
        Assignments of the minuend in their order; of equal ones, the last.

    Raises
    ------
    AmbiguousOperationError
        If the subtrahend lacks a name of the minuend.
    IdentityError
        If a value can't be pickled.

    Examples
    --------
    >>> wanted = Param(a=[1, 2]) * Param(b=[3, 4])
    >>> print(missing(wanted, Param(a=[1, 2], b=[3, 4], result=[0.1, 0.2])))
    Param(a=[1, 2], b=[4, 3])
    """
    check_space(minuend)
    check_space(subtrahend)
    if not minuend.keys() or not subtrahend.keys():
        return minuend
    lacking = set(minuend.keys()) - set(subtrahend.keys())
    refuse(lacking, "are unknown to the subtrahend, whose rows can't be told apart; add them to it")
    return _Missing(minuend, subtrahend)


def multiply(left: ParameterSpace, right: ParameterSpace) -> ParameterSpace:
    """Return every assignment of one space with every assignment of another."""
    return _Product(left, right) if left.keys() and right.keys() else left if left.keys() else right


def add(left: ParameterSpace, right: ParameterSpace) -> ParameterSpace:
    """Return the assignments of one space, then those of another."""
    return _Sum(left, right) if left.keys() and right.keys() else left if left.keys() else right


def subtract(space: ParameterSpace, other: ParameterSpace) -> ParameterSpace:
    """Return the assignments of a space that agree with none of another on the names of the other."""
    if not space.keys() or not other.keys():
        return space
    if isinstance(space, _Difference) and set(other.keys()) == set(space.parts[1].keys()):
        return _Difference(space.parts[0], space.parts[1] + other)  # One pass over the rows.
    return _Difference(space, other)


def select(space: ParameterSpace, index: slice) -> ParameterSpace:
    """Return some of the assignments of a space, at regular distances."""
    if isinstance(space, _Slice):
        return _Slice(space.parts[0], space.rows[index])
    return _Slice(space, range(space.size)[index])


class _Tree(ParameterSpace):
    """A space made of others; such trees may be deep, and are walked without recursion.

    Attributes
    ----------
    parts
        What it is made of.
    how
        Other arguments that make it.
    measured
        The number of assignments; -1 where it is not known yet.
    """

    parts: Sequence[ParameterSpace]
    how: tuple[Any, ...] = ()
    measured = -1

    @property
    def size(self) -> int:
        """The number of assignments."""
        self._settle()
        return self.measured

    def _settle(self) -> None:
        """Measure what it is made of, where that was not done, then itself."""
        for space in _bottom_up(self, lambda space: space.measured < 0):
            if isinstance(space, _Tree):
                space.measured = space.measure()

    def take(self, rows: Sequence[int]) -> Table:
        """Return the assignments at some positions, as columns."""
        self._settle()
        calls: list[_Steps] = [self.steps(rows)]
        table: Table | None = None
        while calls:
            try:
                space, inner = calls[-1].send(table)
            except StopIteration as end:
                calls.pop()
                table = end.value
                continue
            if isinstance(space, _Tree):
                calls.append(space.steps(inner))
                table = None
            else:
                table = space.take(inner)
        return table  # type: ignore[return-value]

    def __reduce__(self) -> tuple[Any, ...]:
        places: dict[int, int] = {}
        steps: list[Any] = []
        for space in _bottom_up(self, lambda _: True):
            places[id(space)] = len(steps)
            if isinstance(space, _Tree):
                steps.append((type(space), [places[id(part)] for part in space.parts], space.how))
            else:
                steps.append(space)
        return _build_tree, (steps,)

    def measure(self) -> int:
        """Return the number of assignments; those of its parts are known."""
        raise NotImplementedError

    def steps(self, rows: Sequence[int]) -> _Steps:
        """Return assignments as columns; yields a part and its rows, and is sent their table."""
        raise NotImplementedError


def _bottom_up(space: ParameterSpace, enters: Callable[[_Tree], bool]) -> list[ParameterSpace]:
    """Return a space and what it is made of, each once and behind its parts; trees if `enters` says so."""
    found: dict[int, ParameterSpace] = {}
    todo = [(space, False)]
    while todo:
        each, ready = todo.pop()
        if ready or not isinstance(each, _Tree):
            found.setdefault(id(each), each)
        elif id(each) not in found and enters(each):
            todo += [(each, True), *((part, False) for part in each.parts)]
    return list(found.values())


def _build_tree(steps: Iterable[Any]) -> ParameterSpace:
    made: list[ParameterSpace] = []
    for step in steps:
        if isinstance(step, ParameterSpace):
            made.append(step)
        else:
            kind, places, how = step
            parts = [made[place] for place in places]
            made.append(kind(*parts, *how) if how else reduce(kind, parts))
    return made[-1]


class _Chain(_Tree):
    """Operands of an associative operation: a tree, flattened when it is used."""

    def __init__(self, left: ParameterSpace, right: ParameterSpace) -> None:
        super().__init__(dict.fromkeys([*left.keys(), *right.keys()]))
        self.left = left
        self.right = right

    @cached_property
    def parts(self) -> list[ParameterSpace]:  # type: ignore[override]
        """Leaves of the tree from left to right."""
        flat: list[ParameterSpace] = []
        todo: list[ParameterSpace] = [self]
        while todo:
            space = todo.pop()
            if isinstance(space, _Chain) and type(space) is type(self):
                todo += [space.right, space.left]
            else:
                flat.append(space)
        return flat


class _Product(_Chain):
    """Every row of every operand with every row of the others; the leftmost varies slowest."""

    def __init__(self, left: ParameterSpace, right: ParameterSpace) -> None:
        shared = set(left.keys()) & set(right.keys())
        refuse(shared, "appear on both sides of *; a product needs distinct names")
        super().__init__(left, right)

    def measure(self) -> int:
        return math.prod(factor.size for factor in self.parts)

    def steps(self, rows: Sequence[int]) -> _Steps:
        if is_run(rows):
            return (yield from self._run(rows))
        tables = []
        for factor in reversed(self.parts):
            size = factor.size
            inner = [row % size for row in rows]
            if size > len(rows):
                table = yield factor, inner
            else:  # Each row of a small space is made once.
                every = yield factor, range(size)
                table = {name: list(map(column.__getitem__, inner)) for name, column in every.items()}
            tables.append(table)
            rows = [row // size for row in rows]
        return {name: column for table in reversed(tables) for name, column in table.items()}

    def _run(self, rows: range) -> _Steps:
        """Return neighbouring assignments as columns: values of a factor repeat, and so does all of it."""
        tables = []
        times = 1  # Each value of the factor stands in so many neighbouring rows.
        for factor in reversed(self.parts):
            size, first = factor.size, rows.start // times
            needed = (rows.stop - 1) // times + 1 - first
            if needed > size:
                table = yield factor, range(size)
                skip = rows.start % (size * times)
                for name, column in table.items():
                    table[name] = _cycle(_spread(column, times, 0, size * times), skip, len(rows))
            else:
                inner = range(size)[first % size :][:needed]
                table = yield factor, [*inner, *range(needed - len(inner))] if len(inner) < needed else inner
                for name, column in table.items():
                    table[name] = _spread(column, times, rows.start % times, len(rows))
            tables.append(table)
            times *= size
        return {name: column for table in reversed(tables) for name, column in table.items()}


def _spread(values: list[Any], times: int, skip: int, rows: int) -> list[Any]:
    """Repeat each value so many times; return so many rows, without the first few."""
    if times < len(values):
        spread = values * times
        for offset in range(times):
            spread[offset::times] = values
        return spread[skip : skip + rows] if skip or rows < len(spread) else spread
    spread = values[:1] * min(times - skip, rows)
    for value in values[1:]:
        spread += [value] * min(times, rows - len(spread))
    return spread


def _cycle(values: list[Any], skip: int, rows: int) -> list[Any]:
    """Repeat a list; return so many rows, without the first few."""
    repeated = values * -(-(skip + rows) // len(values))
    return repeated[skip : skip + rows] if len(repeated) > rows else repeated


class _Sum(_Chain):
    """The rows of one operand after the other; NaN where an operand lacks a name."""

    @cached_property
    def starts(self) -> list[int]:
        return list(accumulate((part.size for part in self.parts), initial=0))

    def measure(self) -> int:
        return self.starts[-1]

    def steps(self, rows: Sequence[int]) -> _Steps:
        table: Table = {name: [] for name in self._names}
        for part, inner in self._split(rows):
            columns = yield self.parts[part], inner
            for name, column in table.items():
                column.extend(columns[name] if name in columns else repeat(math.nan, len(inner)))
        return table

    def _split(self, rows: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
        """Yield numbers of parts, and rows of each."""
        if is_run(rows):
            first, last = (bisect_right(self.starts, row) - 1 for row in (rows[0], rows[-1]))
            for part in range(first, last + 1):
                start = self.starts[part]
                yield part, range(self.parts[part].size)[max(rows.start - start, 0) : rows.stop - start]
            return
        for part, group in groupby(rows, lambda row: bisect_right(self.starts, row) - 1):
            yield part, [row - self.starts[part] for row in group]


class _Slice(_Tree):
    """Rows of a space at regular distances."""

    def __init__(self, space: ParameterSpace, rows: range) -> None:
        super().__init__(space.keys())
        self.parts = (space,)
        self.how = (rows,)
        self.rows = rows

    def measure(self) -> int:
        return len(self.rows)

    def steps(self, rows: Sequence[int]) -> _Steps:
        if is_run(rows):
            return (yield self.parts[0], self.rows[rows.start : rows.stop])
        return (yield self.parts[0], list(map(self.rows.__getitem__, rows)))


class _Selection(_Tree):
    """The rows of a space that another leaves; found when they are asked for, and kept."""

    counted = False
    """Whether an assignment goes but as often as the other has it."""

    def __init__(self, space: ParameterSpace, other: ParameterSpace) -> None:
        super().__init__(space.keys())
        self.parts = (space, other)

    def measure(self) -> int:
        space, other = self.parts
        names = (self if self.counted else other).keys()
        taken = other.build()
        kept: Table = {name: [] for name in self._names}
        # What is taken is labelled anew for each block, hence large ones; what is counted can't be cut.
        size = space.size if self.counted else max(_BLOCK, 2 * other.size)
        for table in space.blocks(size):
            left = _find_left(*({n: rows[n] for n in names} for rows in (table, taken)), counted=self.counted)
            for name, column in kept.items():
                column += compress(table[name], left)
        self._kept = Param(**kept)
        return self._kept.size

    def steps(self, rows: Sequence[int]) -> _Steps:
        return (yield self._kept, rows)


class _Missing(_Selection):
    """The rows of a space that do not occur in another, or not as often."""

    counted = True


class _Difference(_Selection):
    """The rows of a space that agree with no row of another on the names of the other."""

    def __init__(self, space: ParameterSpace, other: ParameterSpace) -> None:
        unknown = set(other.keys()) - set(space.keys())
        refuse(unknown, "are on the right of -, but not on its left; leave them out")
        super().__init__(space, other)


def _find_left(table: Table, taken: Table, *, counted: bool) -> list[bool]:
    """Say for each row of a table whether it is left; where rows are counted, the last of equal ones."""
    if sum(len(next(iter(rows.values()))) for rows in (table, taken)) >= MANY:
        return _find_left_of_many(table, taken, counted=counted)
    keys, others = (row_keys(rows, value_key) for rows in (table, taken))
    have = Counter(others)
    return list(_count_off(keys, have)) if counted else [key not in have for key in keys]


def _find_left_of_many(table: Table, taken: Table, *, counted: bool) -> list[bool]:
    import numpy as np

    from psyrun.pspace.labels import label_rows

    labels, gone = label_rows([table, taken], value_key)
    have = np.bincount(gone, minlength=int(labels.max()) + 1)
    left = have[labels] == 0
    if counted:
        some = np.flatnonzero((have < np.bincount(labels, minlength=len(have)))[labels] & ~left)
        left[some] = list(_count_off(labels[some].tolist(), have.tolist()))
    found: list[bool] = left.tolist()
    return found


def _count_off(keys: Iterable[Any], have: Any) -> Iterator[bool]:
    """Say for each key whether it is left, and take one of its number."""
    for key in keys:
        have[key] -= 1
        yield have[key] < 0
