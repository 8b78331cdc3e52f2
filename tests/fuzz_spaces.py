"""Random parameter spaces of values of all kinds, with lists of dicts as the oracle.

    fuzz_spaces.py [--cases 20000] [--seed 0]

Spaces are made of columns by `*`, `+`, `-`, slices and `missing`; beside each stands the list of its rows.
Rows are compared pair by pair, so that the oracle has no keys, no order and no arithmetic on columns.
"""

from __future__ import annotations

import argparse
import random
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from psyrun.pspace import Param, algebra, identity, label_rows, missing, value_key
from reference import subtract

if TYPE_CHECKING:
    from collections.abc import Callable

NAN = float("nan")
HUGE = [2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 2**64, 10**30]
INTEGERS = [
    np.int8,
    np.int16,
    np.int32,
    np.int64,
    np.longlong,
    np.uint8,
    np.uint16,
    np.uint32,
    np.uint64,
    np.ulonglong,
]
SMALL = [-3, -1, 0, 1, 2, 3]
POOLS: dict[str, list[Any]] = {
    "bools": [True, False],
    "small": SMALL,
    "huge": [*HUGE, 1, -1],
    "numpy integers": [kind(n) for kind in INTEGERS for n in (0, 1, 3)],
    "wide": [
        np.uint64(2**63),
        np.uint64(2**64 - 1),
        np.int64(-(2**63)),
        np.int64(2**53 + 1),
        np.uint32(2**32 - 1),
    ],
    "floats": [
        0.0,
        -0.0,
        1.0,
        0.1,
        NAN,
        -NAN,
        float("inf"),
        -float("inf"),
        5e-324,
        1e308,
        2.0**53,
        2.0**63,
        2.0**64,
    ],
    "numpy floats": [
        kind(x) for kind in (np.float16, np.float32, np.float64) for x in (0, -0.0, 1, 0.1, "nan", "inf")
    ],
    "near 2**53": [2**53, 2**53 + 1, 2.0**53, np.float64(2**53), np.int64(2**53 + 1), np.uint8(1)],
    "nans and zeros": [NAN, -NAN, np.float32("nan"), np.float16("-inf"), 0.0, -0.0, np.float32(-0.0)],
    "long doubles": [np.longdouble(x) for x in (0, 1, "0.1", "nan")] + [np.longdouble(2) ** 64 + 1],
    "complex": [0j, -0j, 1 + 0j, 1j, complex(0, NAN), np.complex64(1), np.complex128(1j), complex(2**53)],
    "strings": ["", "a", "b", "nan", "1", "a\0", "\xe9", np.str_("a"), np.str_("1")],
    "bytes": [b"", b"a", b"1", np.bytes_(b"a")],
    "none": [None],
    "times": [
        np.datetime64("2020"),
        np.datetime64("2020-01-01"),
        np.datetime64("2020-01-01T00", "ns"),
        np.datetime64("NaT"),
        np.timedelta64(1, "h"),
        np.timedelta64(60, "m"),
        np.timedelta64("NaT"),
    ],
    "tuples": [(), (1,), (1.0,), [1], [], (1, (NAN,)), (np.int64(1),), {"a": 1}, {"a": True}],
    "arrays": [
        np.array(x) for x in ([1, 2], [1.0, 2.0], [1, NAN], 1, 1.0, [], [[1, 2]], [True, False], ["a"])
    ],
    "exact": [Fraction(1, 2), Fraction(1), Decimal("0.5"), Decimal(1), Decimal("1.0")],
}
TRICKY = [POOLS[name] for name in ("bools", "small", "numpy integers", "near 2**53", "nans and zeros")]
NUMBERS = (bool, int, float, complex, Fraction)

Rows = list[dict[str, Any]]
Case = tuple[Any, list[str], Rows]


# ---------------------------------------------------------------------- equality, as naive as can be


def plain(value: Any) -> Any:
    """Return a NumPy scalar as Python's."""
    if isinstance(value, np.longdouble):
        return (
            float(value)
            if not np.isfinite(value) or float(value) == value
            else Fraction(*value.as_integer_ratio())
        )
    if isinstance(value, np.datetime64 | np.timedelta64) or not isinstance(value, np.generic):
        return value
    return value.item()


def equal(x: Any, y: Any) -> bool:
    """Whether two values are equal in the algebra."""
    x, y = plain(x), plain(y)
    if isinstance(x, NUMBERS) and isinstance(y, NUMBERS):
        return bool(x == y) or bool(x != x and y != y)
    if type(x) is not type(y):
        return False
    if isinstance(x, list | tuple):
        return len(x) == len(y) and all(map(equal, x, y))
    if isinstance(x, dict):
        return x.keys() == y.keys() and all(equal(x[name], y[name]) for name in x)
    if isinstance(x, np.ndarray):
        return x.shape == y.shape and all(map(equal, x.ravel(), y.ravel()))
    if isinstance(x, Decimal):
        return x.as_tuple() == y.as_tuple()
    return bool(x == y) or (
        x is not None and not isinstance(x, str | bytes) and bool(np.isnat(x) and np.isnat(y))
    )


def spell(value: Any) -> Any:
    """Name the kind of a value, and the sign of its zero."""
    if isinstance(value, list | tuple):
        return [*map(spell, value)]
    if isinstance(value, dict):
        return {name: spell(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray):
        return value.dtype.kind.replace("u", "U" * (value.dtype.kind == "u")), [*map(sign, value.ravel())]
    value = plain(value)
    return (type(value), *sign(value)) if isinstance(value, NUMBERS) else type(value)


def sign(value: Any) -> tuple[str, ...]:
    """Spell zeros, and complex numbers, whose parts may be zero or NaN of either sign."""
    value = plain(value)
    if isinstance(value, complex):
        return (repr(value),)
    return (repr(value),) if isinstance(value, float) and value == 0 else ()


def identical(x: Any, y: Any) -> bool:
    """Whether a row on disk may be taken for another: equal values, within a kind."""
    if isinstance(x, complex | np.complexfloating) and isinstance(y, complex | np.complexfloating):
        return repr(plain(x)) == repr(plain(y))
    return equal(x, y) and spell(x) == spell(y)


# ---------------------------------------------------------------------- cases


def respell(rng: random.Random, value: Any) -> Any:
    """Return a value that is equal to another, or nearly, mostly of another type."""
    found = rng.choice([other for pool in rng.sample(list(POOLS.values()), 5) for other in pool])
    if rng.random() < 0.1:
        return found
    number = plain(value)
    if isinstance(number, NUMBERS):
        for kind in rng.sample([int, float, bool, complex, *INTEGERS, np.float32, np.float64], 3):
            try:
                with np.errstate(over="ignore"):
                    other = kind(number)
            except (TypeError, ValueError, OverflowError):
                continue
            if rng.random() < 0.2 or equal(other, value):
                return other
    if isinstance(value, np.ndarray) and value.dtype.kind in "if":
        return value.astype(rng.choice([float, int, np.float32]) if not np.isnan(value).any() else float)
    return value


def draw_column(rng: random.Random, rows: int) -> Any:
    """Draw a column of few distinct values, of one kind or of several; sometimes an array."""
    pools = TRICKY if rng.random() < 0.5 else list(POOLS.values())
    pools = rng.sample(pools, 1 if rng.random() < 0.6 else rng.randint(2, 3))
    pool = [rng.choice(rng.choice(pools)) for _ in range(rng.randint(1, 4))]
    column = [rng.choice(pool) for _ in range(rows)]
    if rows and rng.random() < 0.15:
        kind = rng.choice([np.int8, np.uint64, np.float32, float, bool, complex, "U2", "S2", "M8[D]"])
        return np.array([rng.randint(0, 2) for _ in range(rows)]).astype(kind)
    return range(rows) if rng.random() < 0.05 else column


def draw_leaf(rng: random.Random, names: list[str], size: int | None = None) -> Case:
    chosen = rng.sample(names, rng.randint(1, min(2, len(names))))
    rows = rng.choice([0, 1, 2, 3, 4]) if size is None else size
    columns = {name: draw_column(rng, rows) for name in chosen}
    return Param(**columns), chosen, [dict(zip(chosen, row)) for row in zip(*columns.values())]


def draw_other(rng: random.Random, names: list[str], rows: Rows) -> tuple[Any, Rows]:
    """Draw a space of some of these names, mostly of rows like these, in any order."""
    names = rng.sample(names, len(names))
    done = [rng.choice(rows) for _ in range(rng.randint(0, 2 * len(rows)))] if rows else []
    share = rng.choice([0, 0.3, 1])
    found = [{n: respell(rng, row[n]) if rng.random() < share else row[n] for n in names} for row in done]
    return Param(**{name: [row[name] for row in found] for name in names}), found


def draw_space(rng: random.Random, names: list[str], depth: int) -> Case:
    """Draw a space, its names and the list of its rows."""
    kind = (
        rng.choice(["leaf", "product", "product", "sum", "slice", "difference", "missing"])
        if depth
        else "leaf"
    )
    if kind == "leaf" or (kind == "product" and len(names) < 2):
        return draw_leaf(rng, names)
    if kind == "product":
        cut = rng.randint(1, len(names) - 1)
        (left, some, rows), (right, more, others) = (
            draw_space(rng, part, depth - 1) for part in (names[:cut], names[cut:])
        )
        if len(rows) * len(others) > 60:
            return left, some, rows
        return left * right, some + more, [{**row, **other} for row in rows for other in others]
    space, known, rows = draw_space(rng, names, depth - 1)
    if kind == "sum":
        other, more, others = draw_space(rng, names, depth - 1)
        union = [*dict.fromkeys(known + more)]
        return space + other, union, [{name: row.get(name, NAN) for name in union} for row in rows + others]
    if kind == "slice":
        index = slice(
            *(rng.choice([None, *range(-9, 9)]) for _ in range(2)), rng.choice([None, 1, 2, 3, -1, -2])
        )
        return space[index], known, rows[index]
    shared = known if kind == "missing" else rng.sample(known, rng.randint(1, len(known)))
    other, others = draw_other(rng, shared, rows)
    if kind == "missing":
        return missing(space, other * Param(y=[0])), known, subtract(rows, others, agreeing(shared))
    return space - other, known, [row for row in rows if not any(agree(row, one, shared) for one in others)]


def agreeing(names: list[str]) -> Callable[[dict[str, Any], dict[str, Any]], bool]:
    return lambda row, other: agree(row, other, names)


def agree(row: dict[str, Any], other: dict[str, Any], names: list[str]) -> bool:
    return all(equal(row[name], other[name]) for name in names)


# ---------------------------------------------------------------------- comparing


def same_object(x: Any, y: Any) -> bool:
    """Whether a value came out as it went in: columns that are arrays have no objects to begin with."""
    return x is y or (type(x) is type(y) and identical(x, y)) or (x != x and y != y and type(x) is type(y))


def compare(found: Any, rows: Rows, names: list[str]) -> None:
    found = list(found)
    assert len(found) == len(rows), (found, rows)
    for one, other in zip(found, rows):
        assert list(one) == names
        assert all(same_object(one[name], other[name]) for name in names), (one, other)


def as_rows(table: dict[str, list[Any]], names: list[str]) -> Rows:
    assert list(table) == names
    assert all(type(column) is list for column in table.values())
    return [dict(zip(names, row)) for row in zip(*table.values())]


def check_rows(rng: random.Random, case: Case) -> None:
    """Compare all ways to the rows of a space with the list of them."""
    space, names, rows = case
    assert (space.keys(), space.size) == (names, len(rows))
    compare(space.iterate(), rows, names)
    compare(as_rows(space.build(), names), rows, names)
    picked: Any = [rng.randrange(len(rows)) for _ in range(rng.randint(0, 5))] if rows else []
    every = range(len(rows))
    for chosen in (
        picked,
        every[rng.randint(0, 5) :][: rng.randint(0, 9)],
        every[::-1],
        every[:: rng.randint(1, 4)],
    ):
        compare(as_rows(space.take(chosen), names), [rows[row] for row in chosen], names)
        compare(map(space.__getitem__, chosen), [rows[row] for row in chosen], names)


def check_differences(rng: random.Random, case: Case) -> None:
    space, names, rows = case
    other, others = draw_other(rng, names, rows)
    compare(missing(space, other), subtract(rows, others, agreeing(names)), names)
    compare(space - other, [row for row in rows if not any(agree(row, one, names) for one in others)], names)


def check_numbers(rng: random.Random, case: Case) -> None:
    """Compare the numbers of equal rows of two tables, by value and by identity."""
    space, names, rows = case
    other, others = draw_other(rng, names, rows)
    if not rows or not others:
        return
    for key, same in ((value_key, equal), (identity, identical)):
        first, second = label_rows([space.build(), other.build()], key)
        pairs = [*zip(rows, first), *zip(others, second)]
        for one, number in pairs:
            for another, its in pairs:
                alike = all(same(one[name], another[name]) for name in names)
                assert alike == (number == its), (key.__name__, one, another)


def check_case(seed: int) -> None:
    """Draw a case and work it out, row by row or by columns."""
    rng = random.Random(seed)
    with patch.object(algebra, "MANY", 0 if seed % 4 else 10**9):
        case = draw_space(rng, list("abcd")[: rng.randint(1, 4)], depth=rng.randint(0, 4))
        check_rows(rng, case)
        check_differences(rng, case)
        check_numbers(rng, case)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for seed in range(options.seed, options.seed + options.cases):
        try:
            check_case(seed)
        except BaseException:
            print(f"failed: --seed {seed} --cases 1")
            raise
    print(f"{options.cases:,} cases, no difference")


if __name__ == "__main__":
    main()
