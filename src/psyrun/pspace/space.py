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
from collections.abc import Iterable, Mapping, MappingView, Set
from functools import cache, cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, overload

from psyrun.errors import AmbiguousOperationError
from psyrun.pspace.keys import unbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import SupportsIndex, TypeGuard

    from psyrun.pspace.table import Table

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
        refuse(unknown, f"come from {type(self).__name__}.iterate(), but its keys() lacks them")
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
        return chain.from_iterable(map(iterate_rows, self.blocks(_BLOCK)))

    def blocks(self, size: int) -> Iterator[Table]:
        """Yield the assignments, as tables of at most so many rows."""
        rows = range(self.size)
        return (self.take(rows[start : start + size]) for start in rows[:: max(size, 1)])

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
            from psyrun.pspace.algebra import select

            return select(self, index)
        try:
            row = range(self.size)[index]
        except IndexError:
            raise IndexError(f"there is no assignment {index}; the space has {self.size}") from None
        except TypeError:
            raise TypeError(
                f"assignments are told by number, not by {index!r}; all values of a parameter: build()[name]"
            ) from None
        return {name: column[0] for name, column in self.take([row]).items()}

    def __mul__(self, other: ParameterSpace) -> ParameterSpace:
        from psyrun.pspace.algebra import multiply

        return multiply(self, other) if isinstance(other, ParameterSpace) else NotImplemented

    def __add__(self, other: ParameterSpace) -> ParameterSpace:
        from psyrun.pspace.algebra import add

        return add(self, other) if isinstance(other, ParameterSpace) else NotImplemented

    def __sub__(self, other: ParameterSpace) -> ParameterSpace:
        from psyrun.pspace.algebra import subtract

        return subtract(self, other) if isinstance(other, ParameterSpace) else NotImplemented

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
        if is_run(rows):
            return {name: list(column[rows.start : rows.stop]) for name, column in self._columns.items()}
        return {name: list(map(column.__getitem__, rows)) for name, column in self._columns.items()}


def check_space(value: Any) -> None:
    """Raise TypeError unless a value is a parameter space."""
    if not isinstance(value, ParameterSpace):
        raise TypeError(
            f"expected a parameter space, not a {type(value).__name__}; Param(a=[...], b=[...]) makes one,"
            " and so does Param(**table) of a result"
        )


def is_run(rows: Sequence[int]) -> TypeGuard[range]:
    """Whether rows are neighbours in ascending order, and said to be; there is one at least."""
    return isinstance(rows, range) and rows.step == 1 and len(rows) > 0


def iterate_rows(table: Table) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table as dicts; there is one column at least."""
    return _row_maker(len(table))(*table, *table.values())


@cache
def _row_maker(columns: int) -> Callable[..., Iterator[dict[str, Any]]]:
    """Return a function of names and columns that yields rows; twice as fast as `dict` of `zip`."""
    names, lists, values = (", ".join(f"{letter}{i}" for i in range(columns)) for letter in "ncv")
    row = ", ".join(f"n{i}: v{i}" for i in range(columns))
    made: Callable[..., Iterator[dict[str, Any]]] = eval(  # noqa: S307 - made of numbers alone
        f"lambda {names}, {lists}: ({{{row}}} for {values}, in zip({lists}))"
    )
    return made


def refuse(names: set[str], reason: str) -> None:
    """Raise an error if there are such names."""
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
