"""What sets failed rows apart: planted structures are found, random failures lead to no claim."""

from __future__ import annotations

import itertools
import math
import random
import time
from fractions import Fraction

import numpy as np
import pytest

from psyrun.cli.contrast import find_contrast


def make_sweep(rng, rows):
    """Columns of a sweep with few and many values, numbers and names."""
    return {
        "solver": [rng.choice(["lu", "qr", "svd"]) for _ in range(rows)],
        "n": [2 ** rng.randrange(6, 14) for _ in range(rows)],
        "x": [round(rng.random(), 2) for _ in range(rows)],
        "flag": [rng.random() < 0.5 for _ in range(rows)],
    }


def holds(condition, value):
    """Whether a value is as (name, sign, other) says."""
    _, sign, other = condition
    return value == other if sign == "=" else value >= other if sign == ">=" else value <= other


def list_conditions(columns):
    """All conditions that can be claimed, alone and in pairs."""
    single = []
    for name, values in columns.items():
        known = set(values)
        if 2 * len(known) <= len(values):
            single += [(name, "=", value) for value in known]
        if not any(isinstance(value, (str, bool)) for value in known):
            single += [(name, sign, value) for value in known for sign in (">=", "<=")]
    pairs = [
        (one, two)
        for one, two in itertools.combinations(single, 2)
        if one[0] != two[0] or {one[1], two[1]} == {">=", "<="}
    ]
    return [*((each,) for each in single), *pairs]


def probability(rows, total, n, k):
    """P(at least k of n rows failed), exactly, where `total` of all rows did."""
    ways = sum(math.comb(total, i) * math.comb(rows - total, n - i) for i in range(k, min(n, total) + 1))
    return Fraction(ways, math.comb(rows, n))


def count_having(columns, failed, conditions):
    """How many rows have some conditions, and how many of these failed."""
    having = [
        bad
        for i, bad in enumerate(failed)
        if all(holds(condition, columns[condition[0]][i]) for condition in conditions)
    ]
    return len(having), sum(having)


def as_tuples(claim):
    return tuple((each.name, each.sign, each.value) for each in claim.conditions)


PLANTED = {
    "one name": lambda solver, n, x, flag: solver == "lu",
    "one number": lambda solver, n, x, flag: n >= 4096,
    "one of many numbers": lambda solver, n, x, flag: x <= 0.13,
    "name and number": lambda solver, n, x, flag: solver == "lu" and n >= 2048,
    "two numbers": lambda solver, n, x, flag: n <= 256 and x >= 0.6,
    "range": lambda solver, n, x, flag: 0.4 <= x <= 0.55,
    "two names": lambda solver, n, x, flag: solver == "svd" and flag,
    "equal number": lambda solver, n, x, flag: n == 512 and solver == "qr",
}


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("seed", range(5))
def test_planted_structures_are_found_exactly(kind, seed):
    columns = make_sweep(random.Random(seed), 400)
    failed = [PLANTED[kind](*row) for row in zip(*columns.values())]
    claim = find_contrast(columns, failed)
    assert (claim.failed, claim.rows, claim.total) == (sum(failed),) * 3
    having = count_having(columns, failed, as_tuples(claim))
    assert having == (sum(failed), sum(failed))
    assert len(claim.conditions) == (
        2 if " and " in kind or kind in ("two numbers", "range", "two names", "equal number") else 1
    )


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize(("rows", "seed"), [(60, 1), (100, 2), (150, 3)])
def test_claims_among_noise_are_the_least_probable_of_all(kind, rows, seed):
    rng = random.Random(f"{kind} {seed}")
    columns = make_sweep(rng, rows)
    failed = [rng.random() < (0.8 if PLANTED[kind](*row) else 0.05) for row in zip(*columns.values())]
    claim, best, number = find_contrast(columns, failed), {1: 1, 2: 1}, {1: 0, 2: 0}
    for conditions in list_conditions(columns):
        having = count_having(columns, failed, conditions)
        best[len(conditions)] = min(best[len(conditions)], probability(rows, sum(failed), *having))
        number[len(conditions)] += 1
    if claim is None:  # It counts no more conditions than there are, and its bound is close.
        assert best[1] * number[1] > 0.004
        assert best[2] * number[2] > 0.004
        return
    conditions = as_tuples(claim)
    having = count_having(columns, failed, conditions)
    assert (claim.rows, claim.failed, claim.total) == (*having, sum(failed))
    assert probability(rows, sum(failed), *having) <= best[len(conditions)] * Fraction(3, 2)
    if len(conditions) == 2:
        assert best[2] * number[2] < best[1] * number[1]


def test_random_failures_lead_to_a_claim_in_at_most_one_of_a_hundred_sweeps():
    claims = 0
    for seed in range(300):
        rng = random.Random(seed)
        rows = rng.choice([20, 100, 300, 1000])
        columns = make_sweep(rng, rows)
        if seed % 3 == 0:  # a grid
            grid = list(itertools.product(range(10), ["a", "b"], np.linspace(0, 1, 10)))
            columns, rows = dict(zip("abc", zip(*grid))), len(grid)
        bad = set(rng.sample(range(rows), rng.randrange(1, max(2, rows // 2))))
        claims += find_contrast(columns, [row in bad for row in range(rows)]) is not None
    assert claims <= 3


@pytest.mark.parametrize("failing", [[], [3], range(10)])
def test_no_claim_without_a_difference(failing):
    assert find_contrast({"x": range(10)}, [row in failing for row in range(10)]) is None
    assert find_contrast({}, [row in failing for row in range(10)]) is None


def test_sentences_are_honest():
    table = [(solver, n) for solver in ("lu", "qr") for n in range(20) for _ in range(5)]
    columns = dict(zip(("solver", "n"), zip(*table)))
    failed = [solver == "lu" and n >= 10 for solver, n in table]
    said = find_contrast(columns, failed).describe()
    assert said == "50 of 50 have solver=lu and n >= 10; all 50 rows with these fail"
    failed[-1] = True
    failed[table.index(("lu", 12))] = False
    said = find_contrast(columns, failed).describe(" for this reason")
    assert said == "49 of 50 have solver=lu and n >= 10; 49 of the 50 rows with these failed for this reason"
    said = find_contrast(columns, [solver == "qr" for solver, _ in table]).describe()
    assert said == "100 of 100 have solver=qr; all 100 rows with this fail"


def test_values_that_are_no_numbers_or_have_no_hash_are_no_reason_to_stop():
    rng = random.Random(1)
    columns = {
        "array": [np.zeros(2)] * 200,
        "list": [[i] for i in range(200)],
        "some": [rng.choice([math.nan, np.float64("nan"), 1, 2.5, np.int64(7)]) for _ in range(200)],
        "mixed": [rng.choice([None, 1, "a", (1, 2)]) for _ in range(200)],
        "same": [1] * 200,
    }
    claim = find_contrast(columns, [value == 7 for value in columns["some"]])
    assert claim.describe().endswith(f"have some=7; all {claim.rows} rows with this fail")
    claim = find_contrast(columns, [value is None for value in columns["mixed"]])
    assert [str(each) for each in claim.conditions] == ["mixed=None"]


def test_parameters_with_thousands_of_values_are_searched_exactly_and_at_once():
    rng = random.Random(7)
    rows = 100_000
    columns = {name: [rng.random() for _ in range(rows)] for name in "abc"}
    columns["seed"] = [rng.randrange(1000) for _ in range(rows)]
    columns["solver"] = [rng.choice(["lu", "qr"]) for _ in range(rows)]
    failed = [b >= 0.61234 and c <= 0.4321 for b, c in zip(columns["b"], columns["c"])]
    began = time.process_time()
    claim = find_contrast(columns, failed)
    assert time.process_time() - began < 3  # 0.3 s on an idle machine
    assert (claim.failed, claim.rows) == (sum(failed), sum(failed))
    failed = [seed == 13 for seed in columns["seed"]]
    assert [str(each) for each in find_contrast(columns, failed).conditions] == ["seed=13"]
