import fractions
import functools
import math
import os
import pickle
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psyrun.errors import IdentityError
from psyrun.pspace.keys import identity, row_keys, unbox, value_key
from psyrun.pspace.labels import label_rows

NAN = float("nan")

integers = st.integers(-3, 3) | st.sampled_from([2**53, 2**53 + 1, 2**64])
floats = st.floats(width=32) | st.sampled_from([0.0, -0.0, NAN, 1.0, 2.0, float(2**53), 0.1])
scalars = st.one_of(
    integers,
    floats,
    st.booleans(),
    st.none(),
    st.sampled_from(["", "a", "nan", "real", "list"]),
    st.sampled_from([b"a", b"nan", np.str_("a"), np.bytes_(b"a")]),
    st.integers(-3, 3).map(np.int64),
    st.integers(0, 3).map(np.uint8),
    floats.map(np.float64),
    st.sampled_from([0.0, 0.1, 1.0, NAN]).map(np.float32),
    st.booleans().map(np.bool_),
    st.sampled_from([0j, 1 + 0j, 1 + 1j, np.complex64(1), np.complex128(1 + 1j)]),
)
arrays = st.builds(
    lambda values, shape, dtype: np.array(values).astype(dtype).reshape(shape),
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
    st.sampled_from([(4,), (2, 2), (4, 1)]),
    st.sampled_from([int, float, bool, np.float32, complex, object, str]),
)
values = st.recursive(
    scalars | arrays,
    lambda inner: (
        st.lists(inner, max_size=2) | st.tuples(inner) | st.dictionaries(st.sampled_from("ab"), inner)
    ),
    max_leaves=3,
)


def same(x, y):
    """Compare by value, as naively as can be."""
    numbers = (int, float, complex, np.number, np.bool_)
    if isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
        alike = isinstance(x, np.ndarray) and isinstance(y, np.ndarray) and x.shape == y.shape
        return alike and all(map(same, x.ravel().tolist(), y.ravel().tolist()))
    if isinstance(x, numbers) and isinstance(y, numbers):
        x, y = (value.item() if isinstance(value, np.generic) else value for value in (x, y))
        return x == y or (x != x and y != y)
    for kind in (str, bytes):
        if isinstance(x, kind) and isinstance(y, kind):
            return x == y
    if type(x) is not type(y):
        return False
    if isinstance(x, list | tuple):
        return len(x) == len(y) and all(map(same, x, y))
    if isinstance(x, dict):
        return x.keys() == y.keys() and all(same(x[name], y[name]) for name in x)
    return x == y


def kind_of(value):
    """Name the kind within which results are reused; containers carry the kinds of what is in them."""
    if isinstance(value, np.ndarray):
        elements = list(value.ravel()) if value.dtype.kind == "O" else []
        return ("array", value.dtype.kind, list(map(kind_of, elements)))
    if isinstance(value, list | tuple):
        return (type(value), list(map(kind_of, value)))
    if isinstance(value, dict):
        return {name: kind_of(inner) for name, inner in value.items()}
    kinds = {
        "b": "bool",
        "i": "integer",
        "u": "integer",
        "f": "real",
        "c": "complex",
        "U": "str",
        "S": "bytes",
    }
    return kinds.get(np.asarray(value).dtype.kind) or ("integer" if isinstance(value, int) else "other")


class Opaque:
    def __init__(self, state):
        self.state = state


class Point(NamedTuple):
    x: float


# Properties


@settings(deadline=None)
@given(values, values)
def test_value_keys_are_equal_exactly_where_values_are(x, y):
    assert (value_key(x) == value_key(y)) == bool(same(x, y))


@settings(deadline=None)
@given(values, values)
def test_identities_are_equal_only_within_a_kind(x, y):
    if identity(x) == identity(y):
        assert same(x, y)
        assert kind_of(x) == kind_of(y)


@settings(deadline=None)
@given(values)
def test_keys_survive_a_round_trip_through_pickle(value):
    copy = pickle.loads(pickle.dumps(value))
    assert identity(copy) == identity(value)
    assert repr(identity(copy)) == repr(identity(value))
    assert hash(value_key(copy)) == hash(value_key(value))


columns = st.one_of(
    st.lists(integers, min_size=5, max_size=5),
    st.lists(floats, min_size=5, max_size=5),
    st.lists(st.booleans(), min_size=5, max_size=5),
    st.lists(st.text(max_size=2), min_size=5, max_size=5),
    st.lists(floats, min_size=5, max_size=5).map(np.array),
    st.lists(floats, min_size=5, max_size=5).map(lambda column: list(np.array(column))),
    st.lists(st.integers(-3, 3), min_size=5, max_size=5).map(lambda column: np.array(column, np.int16)),
    st.lists(st.integers(-3, 3), min_size=5, max_size=5).map(lambda column: list(np.array(column))),
    st.lists(st.booleans(), min_size=5, max_size=5).map(np.array),
    st.lists(st.sampled_from(["a", "bc"]), min_size=5, max_size=5).map(np.array),
    st.lists(st.sampled_from(["a", "bc"]), min_size=5, max_size=5).map(lambda column: list(np.array(column))),
    st.lists(values, min_size=5, max_size=5),
    st.just(np.array([0.5, 1, NAN, -0.0, 0]).astype(np.longdouble)),
    st.just(np.array([1, 1j, NAN, -0.0, 0])),
    st.just(np.arange(10.0).reshape(5, 2)),
    st.just(np.array(["2020", "2021-01-01", "NaT", "2020", "NaT"], "M8[D]")),
)


@settings(deadline=None)
@given(columns, columns, st.sampled_from([identity, value_key]))
def test_keys_made_in_bulk_are_the_keys_of_single_values(first, second, key):
    bulk = row_keys({"b": second, "a": first}, key)
    assert bulk == [(("a", "b"), key(x), key(y)) for x, y in zip(first, second)]
    assert list(map(hash, bulk)) == [hash((("a", "b"), key(x), key(y))) for x, y in zip(first, second)]


# Values


def test_numbers_of_any_type_have_the_key_of_their_exact_value():
    assert (
        len({value_key(one) for one in (1, 1.0, True, np.int64(1), np.float32(1), 1 + 0j, np.bool_(True))})
        == 1
    )
    assert value_key(np.float32(0.1)) != value_key(0.1)
    assert value_key(np.float32(0.1)) == value_key(float(np.float32(0.1)))
    assert value_key(2**53 + 1) != value_key(float(2**53))


def test_every_nan_equals_every_nan():
    for nan in (-NAN, np.float32("nan"), np.float64("nan"), np.longdouble("nan"), complex(0, NAN)):
        assert value_key(nan) == value_key(NAN)
    assert identity(np.float32("nan")) == identity(-NAN)
    assert identity(np.array([NAN, 1])) == identity(np.array([-NAN, 1]))


def test_zeros_of_either_sign_are_one_value_and_two_identities():
    assert value_key(0.0) == value_key(-0.0) == value_key(0)
    assert identity(0.0) != identity(-0.0)
    assert identity(complex(0.0, 1)) != identity(complex(-0.0, 1))
    assert identity(np.array([0.0])) != identity(np.array([-0.0]))


def test_identity_tells_kinds_apart_but_not_the_widths_of_a_kind():
    assert len({identity(one) for one in (1, 1.0, True, 1 + 0j, "1", b"1", np.array(1))}) == 7
    assert identity(1) == identity(np.int8(1)) == identity(np.uint64(1))
    assert identity(0.5) == identity(np.float32(0.5)) == identity(np.longdouble(0.5))
    assert identity(True) == identity(np.bool_(True))
    assert identity("a") == identity(np.str_("a"))
    assert identity(np.array([1, 2], np.int8)) == identity(np.array([1, 2], np.int64))
    assert identity(np.array([1, 2])) != identity(np.array([1.0, 2.0]))


def test_arrays_are_equal_by_shape_and_values():
    assert value_key(np.array([1, 2])) == value_key(np.array([1.0, 2.0]))
    assert value_key(np.array([1, NAN])) == value_key(np.array([1, NAN], np.float32))
    assert value_key(np.zeros((2, 1))) != value_key(np.zeros((1, 2)))
    assert value_key(np.array([1, 2])) != value_key([1, 2])
    assert value_key(np.array(1)) != value_key(1)
    assert value_key(np.array([2**53 + 1])) != value_key(np.array([2.0**53]))
    for key in (identity, value_key):
        assert key(np.ones((2, 3), order="F")) == key(np.ones((4, 3))[::2])


def test_masks_of_arrays_count():
    data = np.array([1, 2])
    for key in (identity, value_key):
        assert key(np.ma.array(data, mask=[0, 1])) != key(np.ma.array(data, mask=[1, 0]))
        assert key(np.ma.array(data, mask=[0, 1])) == key(np.ma.array(data, mask=[0, 1]))
        assert key(np.ma.array(data)) != key(data)


def test_strings_never_collide_with_the_tags_of_other_keys():
    for key in (identity, value_key):
        others = [NAN, None, 0.0, [], (), {}, set(), b"nan", ("nan",), ("real", "nan"), ["nan"]]
        assert (
            len({key(other) for other in [*others, "nan", "real", "list", "bytes", "None"]})
            == len(others) + 5
        )


def test_containers_count_element_by_element():
    assert value_key([1, (NAN, "a")]) == value_key([True, (np.float32("nan"), np.str_("a"))])
    assert value_key([1]) != value_key((1,))
    assert value_key({"a": 1, "b": 2}) == value_key({"b": 2.0, "a": 1.0})
    assert identity({"a": 1, "b": 2}) == identity({"b": 2, "a": 1}) != identity({"b": 2.0, "a": 1})
    assert value_key({1, "a", NAN}) == value_key(frozenset({NAN, 1.0, "a"}))
    assert identity({1, "a"}) == identity({"a", 1}) != identity(frozenset({1, "a"}))


def test_subclasses_of_containers_are_not_their_bases():
    for key in (identity, value_key):
        assert key(Point(1.0)) == key(Point(1.0)) != key((1.0,))


def test_times_are_equal_in_whatever_unit():
    for key in (identity, value_key):
        assert key(np.datetime64("2020")) == key(np.datetime64("2020-01-01T00:00:00.000"))
        assert key(np.datetime64("2020-01-02")) != key(np.datetime64("2020-01-01"))
        assert key(np.timedelta64(2, "h")) == key(np.timedelta64(7200, "s"))
        assert key(np.timedelta64(1, "Y")) == key(np.timedelta64(12, "M"))
        assert (
            key(np.datetime64("NaT", "D"))
            == key(np.datetime64("NaT", "s"))
            != key(np.timedelta64("NaT", "s"))
        )


def test_extended_precision_is_compared_exactly():
    third = np.longdouble(1) / 3
    if float(third) == third:
        pytest.skip("extended precision is that of a float here")
    for key in (identity, value_key):
        assert key(third) == key(np.longdouble(1) / 3) != key(1 / 3)
        assert key(np.array([third])) == key(np.array([third])) != key(np.array([1 / 3]))


def test_other_objects_are_equal_by_type_and_pickled_state():
    for key in (identity, value_key):
        assert key(Opaque([1, 2])) == key(Opaque([1, 2])) != key(Opaque([1, 3]))
        assert key(math.sin) == key(math.sin) != key(math.cos)
        assert (
            key(functools.partial(pow, 2)) == key(functools.partial(pow, 2)) != key(functools.partial(pow, 3))
        )
    assert identity(fractions.Fraction(1, 2)) != identity(0.5)


def test_classes_can_be_values():
    for key in (identity, value_key):
        assert key(np.ndarray) == key(np.ndarray) != key(np.ma.MaskedArray)
        assert key(Opaque) != key(Point)


def test_records_are_equal_by_their_fields():
    records = np.array([(1, 0.5), (1, 0.5), (2, 0.5)], dtype=[("n", int), ("x", float)])
    for key in (identity, value_key):
        first, second, third = row_keys({"a": records}, key)
        assert first == second != third
        assert key(records[:1]) == key(records[1:2]) != key(records[2:])


def test_identities_are_the_same_in_every_process():
    value = "[{'a', 'b', 1}, {'x': None, 'y': frozenset('ab')}, math.sin, 0.5]"
    code = f"import math; from psyrun.pspace.keys import identity; print(identity({value}))"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        for seed in "12"
    ]
    assert runs[0].stdout == runs[1].stdout


# Rows


def test_names_take_part_in_any_order():
    assert row_keys({"a": [1], "b": [2]}) == row_keys({"b": [2], "a": [1]})
    assert row_keys({"a": [1], "b": [2]}) != row_keys({"a": [2], "b": [1]})
    assert row_keys({"a": [1]}) != row_keys({"b": [1]})
    assert row_keys({"a": [1]}) != row_keys({"a": [1], "b": [1]})


def test_tables_without_rows_or_columns_have_no_keys():
    assert row_keys({}) == row_keys({"a": []}) == row_keys({"a": np.array([])}) == []


@pytest.mark.parametrize("key", [identity, value_key])
def test_values_that_cannot_be_pickled_are_refused_by_the_name_of_their_parameter(key):
    with pytest.raises(IdentityError, match=r"^parameter 'f': .*function.*in execute$"):
        row_keys({"a": [1], "f": [lambda: None]}, key)
    with pytest.raises(TypeError, match="generator"):
        key([(i for i in "a")])


def test_columns_of_unlike_length_are_refused():
    with pytest.raises(ValueError, match=r"\['a', 'b'\].*\[1, 2\]"):
        row_keys({"a": [1], "b": [1, 2]})


def test_other_notions_of_sameness_are_refused():
    with pytest.raises(ValueError, match="pass one of these"):
        row_keys({"a": [1]}, hash)


def test_equal_objects_in_many_rows_have_equal_keys():
    array = np.arange(3)
    assert len(set(row_keys({"a": [array, np.arange(3), array, np.arange(3.0)]}))) == 2


def test_rows_of_seventy_parameters_have_labels_of_their_own():
    n = 70
    table = {f"x{i}": [int(i == row) for row in range(n)] for i in range(n)}
    first, second = label_rows([table, {name: column[::-1] for name, column in table.items()}], value_key)
    assert first.tolist() == second.tolist()[::-1]
    assert len(set(first.tolist())) == n


def test_numpy_scalars_are_unboxed_exactly():
    cases = [
        np.float32(0.1),
        np.int8(-1),
        np.uint64(2**64 - 1),
        np.bool_(True),
        np.str_("a\0"),
        np.bytes_(b"a\0"),
    ]
    for value in cases:
        assert type(unbox(value)) in (float, int, bool, str, bytes)
        assert unbox(value) == value
    array = np.arange(2)
    assert unbox(array) is array
