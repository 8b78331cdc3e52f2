"""Contrasts: the parameters that set failed rows apart from the others.

A claim is one condition, or a pair of them: ``name=value`` where values repeat, ``name >= value`` and
``name <= value`` where all values are numbers. Its p-value is the probability that so many of the failed rows
have it if they were drawn at random from all rows (the tail of the hypergeometric distribution), times the
number of conditions that could have been claimed (Bonferroni's correction).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

from psyrun.values import show_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray


_LEVEL = 0.005  # for single conditions, and again for pairs
_PREFERENCE = 0.01  # a pair has to be so much less probable than a single condition
_MOST_CUTS = 48  # values of a parameter that are tried in pairs at first
_ROUNDS = 10  # of refining a pair whose parameters have more values


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on a parameter: its value is, is at least (``>=``) or is at most (``<=``) another."""

    name: str
    sign: str
    value: Any

    def __str__(self) -> str:
        blank = " " if self.sign != "=" else ""
        return f"{self.name}{blank}{self.sign}{blank}{show_value(self.value).strip(chr(39))}"


@dataclass(frozen=True, slots=True)
class Contrast:
    """Conditions that failed rows have more often than others.

    Parameters
    ----------
    conditions
        One or two; a row has to have both.
    failed, rows
        How many failed rows have them, and how many rows.
    total
        How many rows failed.
    """

    conditions: tuple[Condition, ...]
    failed: int
    rows: int
    total: int

    def describe(self, reason: str = "") -> str:
        """Return a sentence; `reason` is appended to what is said of rows that failed."""
        both = " and ".join(map(str, self.conditions))
        these = "these" if len(self.conditions) > 1 else "this"
        if self.failed == self.rows:
            rate = f"all {self.rows:,} rows with {these} fail{reason}"
        else:
            rate = f"{self.failed:,} of the {self.rows:,} rows with {these} failed{reason}"
        return f"{self.failed:,} of {self.total:,} have {both}; {rate}"


def find_contrast(columns: Mapping[str, Sequence[Any]], failed: Sequence[bool]) -> Contrast | None:
    """Find the condition or the pair of conditions that sets failed rows apart.

    Parameters
    ----------
    columns
        Parameter -> values (n,) of the rows that ended.
    failed
        Whether each of them (n,) failed.

    Returns
    -------
    Contrast or None
        The least probable claim; a pair only where a single condition is far more probable. None where the
        failed rows may well be a random choice.

    Examples
    --------
    >>> claim = find_contrast({"n": [*range(100)]}, [n >= 80 for n in range(100)])
    >>> claim.describe()
    '20 of 20 have n >= 80; all 20 rows with this fail'
    """
    import numpy as np

    wrong = np.asarray(failed, dtype=bool)
    total = int(wrong.sum())
    if total in (0, len(wrong)):
        return None
    axes = [axis for name, values in columns.items() if (axis := _make_axis(name, values, wrong)) is not None]
    tails = _Tails(len(wrong), total)
    singles = [_scan(axis, axis.conditions(axis.cuts()), tails) for axis in axes]
    pairs = [_scan_pair(one, two, tails) for one, two in itertools.combinations(map(_divide, axes), 2)]
    pairs += [_scan(axis, axis.ranges(axis.cuts(_MOST_CUTS)), tails) for axis in axes]
    numbers = [axis.number for axis in axes]
    tried = sum(numbers), (sum(numbers) ** 2 - sum(n * n for n in numbers)) // 2
    single = _best(singles).corrected(tried[0])
    pair = _refine(_best(pairs), tails).corrected(tried[1] + sum(axis.number_of_ranges for axis in axes))
    least = math.log(_LEVEL)
    chosen = single if single.log_p <= least else None
    if pair.log_p <= least and (chosen is None or pair.log_p <= single.log_p + math.log(_PREFERENCE)):
        chosen = pair
    return None if chosen is None else chosen.describe(total)


@dataclass(frozen=True, slots=True)
class _Axis:
    """A parameter: the codes (n,) of its values, and which of them can stand in conditions.

    Codes of numbers ascend with the values. A condition is a range of codes.
    """

    name: str
    values: Sequence[Any]
    codes: NDArray[np.intp]
    wrong: NDArray[np.bool_]
    ordered: bool
    repeated: bool

    @property
    def number(self) -> int:
        """How many conditions there are."""
        known = len(self.values)
        return known * self.repeated + 2 * (known - 1) * self.ordered

    @property
    def number_of_ranges(self) -> int:
        """How many pairs of ``>=`` and ``<=`` there are."""
        return len(self.values) * (len(self.values) - 1) // 2

    def cuts(self, most: int | None = None, mask: Any = None) -> NDArray[np.intp]:
        """Return codes of failed rows, `most` of them at equal shares of the rows."""
        import numpy as np

        codes = self.codes[self.wrong if mask is None else self.wrong & mask]
        found = np.flatnonzero(np.bincount(codes))
        if most is not None and len(found) > most:
            shares = np.linspace(0, len(codes) - 1, most).astype(np.intp)
            found = np.unique(np.sort(codes)[shares])
        return found[found < len(self.values)]

    def conditions(self, cuts: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the first code and the end of each single condition (c, 2)."""
        import numpy as np

        last = len(self.values)
        found = [np.stack([cuts, cuts + 1], 1)] if self.repeated else []
        if self.ordered:
            low, high = cuts[cuts > 0], cuts[cuts < last - 1]
            found += [np.stack([low, low * 0 + last], 1), np.stack([high * 0, high + 1], 1)]
        return np.concatenate(found) if found else np.empty((0, 2), np.intp)

    def ranges(self, low: NDArray[np.intp], high: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
        """Return the first code and the end of each range (c, 2) from one of some codes to one of others."""
        import numpy as np

        spans = np.stack(np.meshgrid(low, (low if high is None else high) + 1, indexing="ij"), -1)
        spans = spans.reshape(-1, 2)
        first, end = spans[:, 0], spans[:, 1]
        inner = (first > 0) & (end < len(self.values)) & (end > first + 1)
        return spans[inner] if self.ordered else spans[:0]

    def describe(self, first: int, end: int) -> list[Condition]:
        """Return a range of codes as conditions."""
        if self.repeated and end == first + 1:
            return [Condition(self.name, "=", self.values[first])]
        low = [Condition(self.name, ">=", self.values[first])] if first else []
        return low + ([Condition(self.name, "<=", self.values[end - 1])] if end < len(self.values) else [])


def _make_axis(name: str, values: Sequence[Any], wrong: NDArray[np.bool_]) -> _Axis | None:
    """Code the values of a parameter; None where they are all the same, or can't be compared."""
    import numpy as np

    try:
        distinct = list(dict.fromkeys(values))
        kinds = set(map(type, distinct))
        ordered = all(issubclass(kind, Real) and not issubclass(kind, bool) for kind in kinds)
        known = sorted(value for value in distinct if value == value) if ordered else distinct
        # What is not a number stands behind all numbers, in no condition.
        places = dict.fromkeys(distinct, len(known)) | {value: i for i, value in enumerate(known)}
        codes = np.fromiter(map(places.__getitem__, values), np.intp, len(values))
    except Exception:  # Some can't be hashed, or methods of the user's raise.
        return None
    return _Axis(name, known, codes, wrong, ordered, 2 * len(known) <= len(values)) if known[1:] else None


class _Tails:
    """Tails of the hypergeometric distribution: `total` of `rows` rows failed."""

    def __init__(self, rows: int, total: int) -> None:
        import numpy as np

        self.rows, self.total = rows, total
        self._factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, rows + 1)))])

    def log_p(self, n: Any, k: Any) -> Any:
        """Return log P(at least k of n rows failed), an upper bound that is close where it is small.

        Each further term is smaller than the one before by at least the first ratio: a geometric series.
        """
        import numpy as np

        def choose(above: Any, below: Any) -> Any:
            return self._factorials[above] - self._factorials[below] - self._factorials[above - below]

        good = self.rows - self.total
        first = choose(self.total, k) + choose(good, n - k) - choose(self.rows, n)
        ratio = (self.total - k) * (n - k) / ((k + 1.0) * (good - n + k + 1.0))
        many = k * float(self.rows) > n * float(self.total)
        return np.where(many, np.minimum(0, first - np.log1p(-np.where(many, ratio, 0.0))), 0.0)


@dataclass(frozen=True, slots=True)
class _Claim:
    """Ranges of codes of one or two parameters, how many rows have them, and how many of these failed."""

    log_p: float = math.inf
    parts: tuple[tuple[_Axis, int, int], ...] = ()
    rows: int = 0
    failed: int = 0

    def corrected(self, number: int) -> _Claim:
        """Return it with a p-value that counts how many claims could have been made."""
        return replace(self, log_p=self.log_p + math.log(max(1, number)))

    def describe(self, total: int) -> Contrast:
        conditions = itertools.chain.from_iterable(axis.describe(*span) for axis, *span in self.parts)
        return Contrast(tuple(conditions), self.failed, self.rows, total)


def _best(claims: Iterable[_Claim]) -> _Claim:
    return min(claims, key=lambda claim: claim.log_p, default=_Claim())


def _scan(axis: _Axis, spans: NDArray[np.intp], tails: _Tails, mask: Any = None) -> _Claim:
    """Return the least probable of some ranges of codes, among all rows or some."""
    import numpy as np

    inside = slice(None) if mask is None else mask
    codes, wrong = axis.codes[inside], axis.wrong[inside]
    first, end = spans[:, 0], spans[:, 1]
    n, k = (
        np.concatenate([[0], np.cumsum(np.bincount(each, minlength=len(axis.values)))])
        for each in (codes, codes[wrong])
    )
    return _choose(
        tails, n[end] - n[first], k[end] - k[first], lambda i: ((axis, int(first[i]), int(end[i])),)
    )


def _choose(tails: _Tails, rows: Any, failed: Any, parts: Callable[[int], Any]) -> _Claim:
    """Return the least probable claim, the first of equal ones."""
    if not len(rows):
        return _Claim()
    log_p = tails.log_p(rows, failed)
    best = int(log_p.argmin())
    return _Claim(float(log_p[best]), parts(best), int(rows[best]), int(failed[best]))


@dataclass(frozen=True, slots=True)
class _Cells:
    """The rows of a parameter in cells between the ends of conditions.

    Parameters
    ----------
    axis, spans
        The parameter, and its conditions (c, 2).
    cells, number
        Cell of each row (n,), and how many cells there are.
    ends
        The last cell before each condition, and the last one of it (c, 2).
    """

    axis: _Axis
    spans: NDArray[np.intp]
    cells: NDArray[np.intp]
    number: int
    ends: NDArray[np.intp]


def _divide(axis: _Axis) -> _Cells:
    import numpy as np

    spans = axis.conditions(axis.cuts(_MOST_CUTS))
    edges = np.unique(spans)
    cells = np.searchsorted(edges, np.arange(len(axis.values) + 1), "right")[axis.codes]
    return _Cells(axis, spans, cells, len(edges) + 1, np.searchsorted(edges, spans))


def _scan_pair(one: _Cells, two: _Cells, tails: _Tails) -> _Claim:
    """Return the least probable pair of conditions on two parameters."""
    import numpy as np

    shape = one.number, two.number
    cells = one.cells * two.number + two.cells

    def count_rows(cells: Any) -> Any:
        table = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape).cumsum(0).cumsum(1)
        rows = table[one.ends[:, 1]] - table[one.ends[:, 0]]
        return (rows[:, two.ends[:, 1]] - rows[:, two.ends[:, 0]]).ravel()

    def parts(best: int) -> Any:
        i, j = divmod(best, len(two.spans))
        return (one.axis, *map(int, one.spans[i])), (two.axis, *map(int, two.spans[j]))

    return _choose(tails, count_rows(cells), count_rows(cells[one.axis.wrong]), parts)


def _refine(claim: _Claim, tails: _Tails) -> _Claim:
    """Try all values in one place of a pair while the other stays, in turn, until nothing improves."""
    for _ in range(_ROUNDS):
        better = _best([claim, *_vary(claim, tails)])
        if better is claim:
            break
        claim = better
    return claim


def _vary(claim: _Claim, tails: _Tails) -> Iterator[_Claim]:
    import numpy as np

    if len(claim.parts) == 1:
        [(axis, first, end)] = claim.parts
        cuts = axis.cuts()
        yield _scan(axis, axis.ranges(cuts, np.array([end - 1])), tails)
        yield _scan(axis, axis.ranges(np.array([first]), cuts), tails)
    elif claim.parts:
        for part, other in (claim.parts, claim.parts[::-1]):
            axis, (fixed, first, end) = part[0], other
            mask = (fixed.codes >= first) & (fixed.codes < end)
            found = _scan(axis, axis.conditions(axis.cuts(mask=mask)), tails, mask)
            order = (*found.parts, other) if part is claim.parts[0] else (other, *found.parts)
            yield replace(found, parts=order)
