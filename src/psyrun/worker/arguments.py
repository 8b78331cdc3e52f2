"""Arguments of `execute` for the rows of a batch: columns become rows."""

from __future__ import annotations

import copy
import itertools
import sys
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

from psyrun.pspace import RNG, make_rng

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


PLAIN = frozenset({bool, int, float, complex, type(None)})
"""Types of numbers that can't be changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The arguments of `execute` for the rows of a batch.

    Parameters
    ----------
    columns
        Name -> values (n,) that rows pass on.
    positional
        Whether `execute` takes them in this order, rather than by name.
    mutable
        Names of those that it might change.
    replicates
        Which of equal rows the rows are; None: not asked for.
    """

    columns: Mapping[str, Sequence[Any]]
    positional: bool
    mutable: Sequence[str]
    replicates: Sequence[int] | None

    @classmethod
    def of(
        cls,
        function: Any,
        columns: Mapping[str, Sequence[Any]],
        constants: Mapping[str, Any],
        replicates: Sequence[int] | None,
    ) -> Arguments:
        """Return the arguments of a function: columns (n,), and what is the same for all rows."""
        draws = replicates is not None and RNG not in columns
        mutable = [name for name, column in columns.items() if _is_mutable(column)]
        by_name = draws or mutable or not columns
        order = None if by_name else _find_order(function, {*columns, *constants})
        if order is not None:
            rows = len(next(iter(columns.values())))
            columns = {name: columns.get(name) or [constants[name]] * rows for name in order}
        return cls(
            columns=columns,
            positional=order is not None,
            mutable=mutable,
            replicates=replicates if draws else None,
        )

    def select(self, rows: Sequence[int]) -> Iterator[tuple[Any, ...]]:
        """Return the arguments of some rows; without end where there are none."""
        span = slice(rows[0], rows[-1] + 1) if isinstance(rows, range) else None
        parts = [[c[row] for row in rows] if span is None else c[span] for c in self.columns.values()]
        return zip(*parts) if parts else itertools.repeat(())

    def name(self, row: int, values: tuple[Any, ...]) -> dict[str, Any]:
        """Return the arguments of a row by name, those that it might change copied."""
        named = dict(zip(self.columns, values))
        rng = {} if self.replicates is None else {RNG: make_rng(named, self.replicates[row])}
        for name in self.mutable:
            named[name] = copy.deepcopy(named[name])
        return named | rng


def _find_order(function: Any, names: set[str]) -> Sequence[str] | None:
    """Return the order in which a function may get its arguments without names; None: by name only."""
    code = function.__code__ if type(function) is FunctionType else None
    if code is None or code.co_posonlyargcount or code.co_argcount < len(names):
        return None
    order = code.co_varnames[: len(names)]
    return order if names == set(order) else None


def _is_mutable(column: Sequence[Any]) -> bool:
    numpy = sys.modules.get("numpy")
    scalars = () if numpy is None else (numpy.number, numpy.bool_)
    kinds = set(map(type, column)) - PLAIN - {str, bytes}
    return not all(issubclass(kind, scalars) for kind in kinds)
