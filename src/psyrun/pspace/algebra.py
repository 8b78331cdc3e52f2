"""Parameter spaces: what to try.

A parameter space is an ordered, finite sequence of assignments of values to parameter names. Small spaces are
written down as `Param`, large ones are made from small ones::

    a * b    every assignment of a with every assignment of b; a varies slowest
    a + b    the assignments of a, then those of b; a name that one of them lacks is NaN
    a - b    the assignments of a that agree with none of b on the names of b
    a[i:j]   some of the assignments of a

Spaces never change, and rows are made when they are asked for.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, MappingView, Set
from functools import cached_property, reduce
from itertools import accumulate, groupby, repeat
from typing import TYPE_CHECKING, Any, overload

from psyrun.errors import AmbiguousOperationError
from psyrun.pspace.keys import row_keys, unbox, value_key

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
    from typing import SupportsIndex

    from psyrun.pspace.table import Table

    _Steps = Generator[tuple["ParameterSpace", Sequence[int]], Any, Any]

_BLOCK = 10_000  # Rows made at a time by loops over all rows.
_SHOWN = 10


class ParameterSpace:
    """An ordered, finite sequence of assignments; see `Param` for how to make one.

    A subclass has `iterate` and ``__len__``, and passes its parameter names to the constructor, or has
    `keys`. It is read once; where it is too large for that, it has `size` and `take` instead.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)

    @cached_property
    def _listed(self) -> Param:
        """The assignments that the `iterate` of a subclass yields."""
        if type(self).iterate is ParameterSpace.iterate:
            raise TypeError(f"{type(self).__name__} is no parameter space: it needs iterate and __len__")
        rows, names = list(self.iterate()), self.keys()
        unknown = set().union(*rows).difference(names)
        _refuse(unknown, f"come from {type(self).__name__}.iterate(), but its keys() lacks them")
        return Param(**{name: [row.get(name, math.nan) for row in rows] for name in names})

    @property
    def size(self) -> int:
        """The number of assignments, also where it is too large for `len`."""
        return self._listed.size

    def take(self, rows: Sequence[int]) -> Table:
        """Return the assignments at some positions, as columns.

        Parameters
        ----------
        rows
            Positions from 0 to `size` - 1, in any order, as often as wanted.

        Returns
        -------
        dict of lists
            Name -> as many values as there are rows.

        Examples
        --------
        >>> (Param(a=[1, 2]) * Param(b=[3, 4])).take([3, 0])
        {'a': [2, 1], 'b': [4, 3]}
        """
        return self._listed.take(rows)

    def keys(self) -> list[str]:
        """Return the parameter names, in the order in which they first appeared.

        Examples
        --------
        >>> (Param(b=0) * Param(a=0)).keys()
        ['b', 'a']
        """
        return list(self._names)

    def build(self) -> Table:
        """Return all assignments as columns: name -> list of length n.

        Examples
        --------
        >>> (Param(a=[1, 2]) + Param(a=[3])).build()
        {'a': [1, 2, 3]}
        """
        return self.take(range(self.size))

    def iterate(self) -> Iterator[dict[str, Any]]:
        """Yield the assignments, each a dict.

        Examples
        --------
        >>> for assignment in Param(a=[1, 2], b=3).iterate():
        ...     print(assignment)
        {'a': 1, 'b': 3}
        {'a': 2, 'b': 3}
        """
        for table in self.blocks():
            for row in zip(*table.values()):
                yield dict(zip(table, row))

    def blocks(self) -> Iterator[Table]:
        """Yield the assignments, as tables of a few thousand rows."""
        rows = range(self.size)
        return (self.take(rows[start : start + _BLOCK]) for start in rows[::_BLOCK])

    __iter__ = iterate

    def __len__(self) -> int:
        return self.size

    def __bool__(self) -> bool:
        return self.size > 0

    @overload
    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> ParameterSpace: ...

    def __getitem__(self, index: SupportsIndex | slice) -> dict[str, Any] | ParameterSpace:
        if isinstance(index, slice):
            return self._select(index)
        try:
            row = range(self.size)[index]
        except IndexError:
            raise IndexError(f"there is no assignment {index}; the space has {self.size}") from None
        except TypeError:
            raise TypeError(
                f"assignments are told by number, not by {index!r}; all values of a parameter: build()[name]"
            ) from None
        return {name: column[0] for name, column in self.take([row]).items()}

    def _select(self, index: slice) -> ParameterSpace:
        return _Slice(self, range(self.size)[index])

    def __mul__(self, other: ParameterSpace) -> ParameterSpace:
        return self._join(other, _Product)

    def __add__(self, other: ParameterSpace) -> ParameterSpace:
        return self._join(other, _Sum)

    def _join(self, other: ParameterSpace, chain: type[_Chain]) -> ParameterSpace:
        if not isinstance(other, ParameterSpace):
            return NotImplemented
        if not self.keys() or not other.keys():
            return self if self.keys() else other
        return chain(self, other)

    def __sub__(self, other: ParameterSpace) -> ParameterSpace:
        if not isinstance(other, ParameterSpace):
            return NotImplemented
        if not self.keys() or not other.keys():
            return self
        return _Difference(self, other)

    def __str__(self) -> str:
        more = ["..."] if self.size > _SHOWN else []
        columns = [
            f"{name}=[{', '.join([*(repr(unbox(value)) for value in column), *more])}]"
            for name, column in self.take(range(min(self.size, _SHOWN))).items()
        ]
        return f"Param({', '.join(columns)})"

    def __repr__(self) -> str:
        return f"<{self.size:,} assignments of {', '.join(self.keys()) or 'no parameters'}>"

    def _repr_html_(self) -> str:
        """Return a table for notebooks; only rows that it shows are made."""
        from psyrun.pspace.html import show_table

        return show_table(self.size, self.take)


class Param(ParameterSpace):
    """Make a parameter space from columns: row i assigns the i-th value of each.

    Sequences, arrays and pandas columns give their items, iterators are read to their end. Anything else,
    also a string, a mapping and an array of no dimension, is one value and the same in all rows; if there is
    nothing else, the space has one assignment. `Param()` has none, and leaves what it is combined with as it
    is.

    Parameters
    ----------
    **columns
        Name -> n values, the same n for all, or one value. Names that are no identifiers are passed as
        ``Param(**{"net.rate": [1, 2]})``. Columns are copied, their values are not.

    Raises
    ------
    TypeError
        If a column is a set, which has no order.
    ValueError
        If columns differ in length.

    Examples
    --------
    >>> print(Param(a=[1, 2], b="x"))
    Param(a=[1, 2], b=['x', 'x'])
    >>> grid = Param(a=range(1000)) * Param(b=range(1000)) * Param(c=range(1000))
    >>> len(grid), grid[-1]
    (1000000000, {'a': 999, 'b': 999, 'c': 999})
    """

    def __init__(self, /, **columns: Any) -> None:
        super().__init__(columns)
        read = {name: _read(name, value) for name, value in columns.items() if not _is_scalar(value)}
        self._size = _common_length(read) if read else min(1, len(columns))
        self._columns = {name: read.get(name, (value,) * self._size) for name, value in columns.items()}

    @property
    def size(self) -> int:
        """The number of assignments."""
        return self._size

    def take(self, rows: Sequence[int]) -> Table:
        """Return the assignments at some positions, as columns."""
        return {name: list(map(column.__getitem__, rows)) for name, column in self._columns.items()}


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
    _refuse(lacking, "are unknown to the subtrahend, whose rows can't be told apart; add them to it")
    return _Missing(minuend, subtrahend)


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
        _refuse(shared, "appear on both sides of *; a product needs distinct names")
        super().__init__(left, right)

    def measure(self) -> int:
        return math.prod(factor.size for factor in self.parts)

    def steps(self, rows: Sequence[int]) -> _Steps:
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


class _Sum(_Chain):
    """The rows of one operand after the other; NaN where an operand lacks a name."""

    @cached_property
    def starts(self) -> list[int]:
        return list(accumulate((part.size for part in self.parts), initial=0))

    def measure(self) -> int:
        return self.starts[-1]

    def steps(self, rows: Sequence[int]) -> _Steps:
        table: Table = {name: [] for name in self._names}
        for part, group in groupby(rows, lambda row: bisect_right(self.starts, row) - 1):
            start = self.starts[part]
            inner = [row - start for row in group]
            columns = yield self.parts[part], inner
            for name, column in table.items():
                column.extend(columns[name] if name in columns else repeat(math.nan, len(inner)))
        return table


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
        return (yield self.parts[0], list(map(self.rows.__getitem__, rows)))

    def _select(self, index: slice) -> ParameterSpace:
        return _Slice(self.parts[0], self.rows[index])


class _Selection(_Tree):
    """The rows of a space that another leaves; found when they are asked for, and kept."""

    def __init__(self, space: ParameterSpace, other: ParameterSpace) -> None:
        super().__init__(space.keys())
        self.parts = (space, other)

    def _compared(self) -> Sequence[str]:
        """Return the names by which rows are compared."""
        raise NotImplementedError

    def _leaves(self, other: Counter[Hashable], key: Hashable) -> bool:
        """Whether a row is left, given the keys of the other space."""
        raise NotImplementedError

    def measure(self) -> int:
        space, other = self.parts
        names = self._compared()
        keys = Counter(key for table in other.blocks() for key in _keys(table, names))
        kept: Table = {name: [] for name in self._names}
        for table in space.blocks():
            rows = [row for row, key in enumerate(_keys(table, names)) if self._leaves(keys, key)]
            for name, column in kept.items():
                column += map(table[name].__getitem__, rows)
        self._kept = Param(**kept)
        return self._kept.size

    def steps(self, rows: Sequence[int]) -> _Steps:
        return (yield self._kept, rows)


class _Missing(_Selection):
    """The rows of a space that do not occur in another, or not as often."""

    def _compared(self) -> Sequence[str]:
        return self.keys()

    def _leaves(self, other: Counter[Hashable], key: Hashable) -> bool:
        if other[key] <= 0:
            return True
        other[key] -= 1
        return False


class _Difference(_Selection):
    """The rows of a space that agree with no row of another on the names of the other."""

    def __init__(self, space: ParameterSpace, other: ParameterSpace) -> None:
        unknown = set(other.keys()) - set(space.keys())
        _refuse(unknown, "are on the right of -, but not on its left; leave them out")
        super().__init__(space, other)

    def __sub__(self, other: ParameterSpace) -> ParameterSpace:
        space, before = self.parts
        if isinstance(other, ParameterSpace) and set(other.keys()) == set(before.keys()):
            return _Difference(space, before + other)  # One pass over the rows.
        return super().__sub__(other)

    def _compared(self) -> Sequence[str]:
        return self.parts[1].keys()

    def _leaves(self, other: Counter[Hashable], key: Hashable) -> bool:
        return key not in other


def _keys(table: Table, names: Sequence[str]) -> Sequence[Hashable]:
    """Return the keys of rows, by value."""
    return row_keys({name: table[name] for name in names}, value_key)


def check_space(value: Any) -> None:
    """Raise TypeError unless a value is a parameter space."""
    if not isinstance(value, ParameterSpace):
        raise TypeError(
            f"expected a parameter space, not a {type(value).__name__}; Param(a=[...], b=[...]) makes one,"
            " and so does Param(**table) of a result"
        )


def _refuse(names: set[str], reason: str) -> None:
    if names:
        raise AmbiguousOperationError(f"parameters {sorted(names)} {reason}")


def _is_scalar(value: Any) -> bool:
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | bytearray | Mapping):
        return True
    return getattr(value, "ndim", None) == 0  # NumPy's scalars, and arrays that hold one value.


def _read(name: str, column: Iterable[Any]) -> tuple[Any, ...]:
    if isinstance(column, Set) and not isinstance(column, MappingView):
        raise TypeError(f"parameter {name!r} is a set, which has no order; pass a list or sorted(...)")
    # The rows of a 2-d array are views: of a copy, so that they stay as they are.
    return tuple(copy.copy(column) if hasattr(column, "ndim") else column)


def _common_length(columns: Mapping[str, tuple[Any, ...]]) -> int:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"parameters differ in length: {lengths}; give equally many values, or use *")
    return max(lengths.values())
