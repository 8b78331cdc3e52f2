import collections
import copy
import enum
import functools
import itertools
import math
import operator
import pickle
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fuzz_spaces
from psyrun import errors
from psyrun.errors import AmbiguousOperationError
from psyrun.pspace.algebra import Param, ParameterSpace, missing
from reference import subtract

NAN = float("nan")
NAMES = ("a", "b", "c", "d")

# Values of which some are equal though they are not the same; equal() says which.
values = st.sampled_from([0, 1, 1.0, True, np.int64(1), 2, NAN, np.float32("nan"), "x", None])


def equal(x, y):
    return x == y or (x != x and y != y)


def agree(row, other, names):
    return all(equal(row[name], other[name]) for name in names)


# The model of a space is its names and a plain list of dicts.


@st.composite
def leaves(draw, names):
    names = draw(st.lists(st.sampled_from(names), unique=True, min_size=1, max_size=2))
    rows = draw(st.lists(st.tuples(*[values for _ in names]), max_size=4))
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    return Param(**columns), names, [dict(zip(names, row)) for row in rows]


@st.composite
def spaces(draw, names=NAMES, depth=3):
    """Draw a space together with its model."""
    kind = (
        draw(st.sampled_from(["leaf", "sum", "product", "difference", "slice", "missing"]))
        if depth
        else "leaf"
    )
    if kind == "leaf" or (kind == "product" and len(names) < 2):
        return draw(leaves(names))
    if kind == "product":
        cut = draw(st.integers(1, len(names) - 1))
        left, right = draw(spaces(names[:cut], depth - 1)), draw(spaces(names[cut:], depth - 1))
        rows = [{**one, **other} for one in left[2] for other in right[2]]
        return left[0] * right[0], left[1] + right[1], rows
    space, known, rows = draw(spaces(names, depth - 1))
    if kind == "slice":
        index = slice(
            *draw(st.tuples(*[st.none() | st.integers(-5, 5)] * 2)), draw(st.sampled_from([None, 1, 2, -1]))
        )
        return space[index], known, rows[index]
    if kind == "sum":
        other, names_of_other, rows_of_other = draw(spaces(names, depth - 1))
        union = known + [name for name in names_of_other if name not in known]
        return (
            space + other,
            union,
            [{name: row.get(name, NAN) for name in union} for row in rows + rows_of_other],
        )
    if kind == "difference":
        other, shared, unwanted = draw(leaves(known))
        return space - other, known, [row for row in rows if not any(agree(row, o, shared) for o in unwanted)]
    picked = draw(st.lists(st.sampled_from(range(len(rows))), max_size=4)) if rows else []
    done = [rows[i] for i in picked]
    other = Param(**{name: [row[name] for row in done] for name in known}, extra=[0] * len(done))
    return missing(space, other), known, subtract(rows, done, lambda row, other: agree(row, other, known))


def are_alike(rows, others):
    """Compare by type and value."""
    pairs = list(itertools.zip_longest(rows, others))
    return all(
        list(x) == list(y) and all(type(x[n]) is type(y[n]) and equal(x[n], y[n]) for n in x)
        for x, y in pairs
    )


# Properties


@settings(deadline=None)
@given(spaces())
def test_every_space_is_the_list_of_its_rows(drawn):
    space, names, rows = drawn
    assert space.keys() == names
    assert len(space) == space.size == len(rows)
    assert bool(space) == bool(rows)
    assert are_alike(list(space), rows)
    assert are_alike(list(space.iterate()), rows)
    table = space.build()
    assert list(table) == names
    assert all(type(column) is list and len(column) == len(rows) for column in table.values())
    assert are_alike([dict(zip(table, row)) for row in zip(*table.values())], rows)


@settings(deadline=None)
@given(spaces(), st.data())
def test_every_row_and_every_slice_is_reached(drawn, data):
    space, _, rows = drawn
    for i in range(-len(rows), len(rows)):
        assert are_alike([space[i]], [rows[i]])
    for i in (len(rows), -len(rows) - 1):
        with pytest.raises(IndexError, match=f"no assignment {i}; the space has {len(rows)}"):
            space[i]
    index = data.draw(st.slices(len(rows)))
    assert isinstance(space[index], ParameterSpace)
    assert are_alike(list(space[index]), rows[index])
    picks = data.draw(st.lists(st.sampled_from(range(len(rows))))) if rows else []
    table = space.take(picks)
    assert are_alike([dict(zip(table, row)) for row in zip(*table.values())], [rows[i] for i in picks])


@settings(deadline=None)
@given(spaces())
def test_the_empty_space_is_neutral(drawn):
    space, names, rows = drawn
    for same in (space * Param(), Param() * space, space + Param(), Param() + space, space - Param()):
        assert same.keys() == names
        assert are_alike(list(same), rows)
    assert are_alike(list(missing(space, Param())), rows)


@settings(deadline=None)
@given(spaces())
def test_nothing_is_missing_from_a_space_itself(drawn):
    space, _, rows = drawn
    assert len(missing(space, space)) == len(space - space) == 0
    assert len(missing(space + space, space)) == len(rows)


@settings(deadline=None)
@given(spaces())
def test_spaces_can_be_pickled_and_copied(drawn):
    space, names, rows = drawn
    for clone in (pickle.loads(pickle.dumps(space)), copy.deepcopy(space)):
        assert clone.keys() == names
        assert are_alike(list(clone), rows)


# Columns


def test_scalars_and_strings_are_broadcast():
    table = Param(a=[1, 2], b="xy", c=None, d=b"xy", e={"k": 1}, f=np.float64(2), g=np.array(3)).build()
    assert table == {"a": [1, 2], "b": ["xy"] * 2, "c": [None] * 2, "d": [b"xy"] * 2, "e": [{"k": 1}] * 2} | {
        "f": [2.0] * 2,
        "g": [np.array(3)] * 2,
    }


def test_scalars_alone_are_one_assignment():
    assert list(Param(a=1, b="x")) == [{"a": 1, "b": "x"}]


def test_param_without_columns_is_empty():
    assert len(Param()) == 0
    assert not Param()
    assert Param().keys() == []
    assert Param().build() == {}
    assert list(Param()) == []


def test_a_column_without_values_keeps_its_name():
    space = Param(x=[], y=1)
    assert (space.keys(), len(space), space.build()) == (["x", "y"], 0, {"x": [], "y": []})
    assert len(space * Param(a=[1, 2])) == 0
    assert (space + Param(a=[1]))[0].keys() == {"x", "y", "a"}


def test_generator_is_read_into_many_assignments():
    assert Param(a=(i * i for i in range(3))).build() == {"a": [0, 1, 4]}
    assert Param(a=iter("xy"), b=map(str, [1, 2])).build() == {"a": ["x", "y"], "b": ["1", "2"]}


@pytest.mark.parametrize("values", [{1, 2}, frozenset("a"), set()])
def test_sets_are_refused(values):
    with pytest.raises(TypeError, match=r"parameter 'a' is a set.*sorted\(\.\.\.\)"):
        Param(a=values)


def test_whatever_has_an_order_is_a_column():
    class Mode(enum.Enum):
        FAST = 1
        SLOW = 2

    letters = {"x": 1, "y": 2}
    assert Param(a=letters.keys(), b=letters.items()).build() == {"a": ["x", "y"], "b": [("x", 1), ("y", 2)]}
    assert Param(a=range(2), b=collections.deque("xy"), c=collections.UserList("xy")).build()["c"] == [
        "x",
        "y",
    ]
    assert Param(a=Mode).build() == {"a": [Mode.FAST, Mode.SLOW]}
    assert len(Param(a=list)) == 1


def test_columns_of_unlike_length_are_refused():
    with pytest.raises(ValueError, match=r"'a': 2, 'b': 3.*use \*"):
        Param(a=[1, 2], b=[1, 2, 3])


def test_any_name_can_be_a_parameter():
    assert Param(self=[1], columns=[2], **{"b.b": [3]}).build() == {"self": [1], "columns": [2], "b.b": [3]}


def test_values_come_out_as_the_objects_given():
    values = [object(), [1], {"k": 1}]
    space = (Param(a=values) * Param(b=[0, 1])) + Param(a=values)
    assert all(x is y for x, y in zip(space[::2].build()["a"], values))
    column = Param(a=np.arange(2, dtype=np.int16)).build()["a"]
    assert [type(value) for value in column] == [np.int16, np.int16]


def test_the_rows_of_an_array_of_two_dimensions_are_values():
    matrix = np.arange(6).reshape(3, 2)
    space = Param(a=matrix)
    assert len(space) == 3
    np.testing.assert_array_equal(space[1]["a"], [2, 3])
    with pytest.raises(ValueError, match="differ in length"):
        Param(a=matrix, b=[1, 2])


def test_changing_a_column_later_does_not_change_the_space():
    numbers, vector, matrix = [1, 2], np.array([1, 2]), np.array([[1], [2]])
    space = Param(a=numbers, b=vector, c=matrix)
    numbers.append(3)
    vector[:] = matrix[:] = 9
    space.build()["a"].append(3)
    assert space.build() == {"a": [1, 2], "b": [1, 2], "c": [np.array([1]), np.array([2])]}


# Products and sums


def test_the_left_factor_of_a_product_varies_slowest():
    space = Param(a=[1, 2]) * Param(b=[3, 4], c=[5, 6])
    assert space.build() == {"a": [1, 1, 2, 2], "b": [3, 4, 3, 4], "c": [5, 6, 5, 6]}


def test_products_of_spaces_that_share_names_are_refused():
    with pytest.raises(AmbiguousOperationError, match=r"\['a'\] appear on both sides of \*; a product needs"):
        Param(a=[1], b=[2]) * Param(c=[1], a=[1])
    assert AmbiguousOperationError is errors.AmbiguousOperationError


def test_a_name_that_one_side_of_a_sum_lacks_is_nan():
    rows = list(Param(a=[1], b=[2]) + Param(a=[3], c=[4]))
    assert [list(row) for row in rows] == [["a", "b", "c"]] * 2
    assert math.isnan(rows[0]["c"])
    assert math.isnan(rows[1]["b"])
    assert (rows[0]["b"], rows[1]["c"]) == (2, 4)


@pytest.mark.parametrize("other", [1, None, {"a": [1]}, "a"])
@pytest.mark.parametrize("operation", [operator.mul, operator.add, operator.sub])
def test_spaces_are_combined_with_spaces_only(operation, other):
    for space in (Param(a=[1]), Param(a=[1]) - Param(a=[2])):
        with pytest.raises(TypeError, match=r"unsupported operand|multiply"):
            operation(space, other)


def test_a_space_of_a_billion_assignments_costs_nothing():
    space = Param(a=range(1000)) * Param(b=range(1000)) * Param(c=range(1000))
    assert len(space) == 10**9
    assert space[123_456_789] == {"a": 123, "b": 456, "c": 789}
    assert space[-3:].build() == {"a": [999] * 3, "b": [999] * 3, "c": [997, 998, 999]}
    assert len(space[::-1][10:-10:7]) == len(range(10, 10**9 - 10, 7))
    assert next(iter((space + space)[10**9 :])) == {"a": 0, "b": 0, "c": 0}
    assert str(space * Param(d=range(1000))).startswith("Param(a=[0, 0")


def test_a_space_may_be_larger_than_len_can_say():
    space = functools.reduce(operator.mul, [Param(**{f"x{i}": range(100)}) for i in range(11)])
    assert space.size == 10**22
    assert space
    assert space[10**22 - 1] == {f"x{i}": 99 for i in range(11)}
    assert len(space[10**21 : 10**21 + 5].build()["x0"]) == 5
    with pytest.raises(OverflowError):
        len(space)


def add_all(parts):
    return sum(parts, Param())


def add_in_place(parts):
    total = Param()
    for part in parts:
        total += part
    return total


def add_in_front(parts):
    return functools.reduce(lambda total, part: part + total, reversed(parts))


@pytest.mark.parametrize("add", [add_all, add_in_place, add_in_front])
def test_sums_of_ten_thousand_spaces(add):
    space = add([Param(a=[i], b=-i) for i in range(10_000)])
    assert len(space) == 10_000
    assert space[7_777] == {"a": 7_777, "b": -7_777}
    assert space.build()["a"] == list(range(10_000))
    assert len(space - space[::2]) == len(missing(space, space[::2])) == 5_000
    assert len(pickle.loads(pickle.dumps(space))) == 10_000


def test_products_of_two_thousand_spaces():
    factors = [Param(**{f"x{i}": [i]}) for i in range(2_000)]
    space = functools.reduce(operator.mul, factors)
    assert space[0] == {f"x{i}": i for i in range(2_000)}
    assert functools.reduce(lambda product, factor: factor * product, factors)[0] == space[0]


def test_differences_of_two_thousand_spaces():
    space = Param(a=range(3_000)) * Param(b=[0, 1])
    for i in range(2_000):
        space -= Param(a=[i])
    assert len(space) == 2_000
    assert space[0] == {"a": 2_000, "b": 0}


# Differences


def test_difference_keeps_rows_that_share_only_single_columns():
    grid = Param(a=[1, 2]) * Param(b=[1, 2])
    done = Param(a=[1, 2], b=[1, 2])
    left = {"a": [1, 2], "b": [2, 1]}
    assert (grid - done).build() == missing(grid, done).build() == left


def test_difference_compares_on_the_names_of_the_right_side():
    grid = Param(a=[1, 2]) * Param(b=[1, 2])
    assert (grid - Param(b=[2])).build() == {"a": [1, 2], "b": [1, 1]}
    assert (grid - Param(b=[2]) - Param(a=[1])).build() == {"a": [2], "b": [1]}


def test_nan_rows_of_a_sum_count_as_equal():
    space = Param(a=[1]) + Param(b=[2])
    done = Param(b=[2.0, np.float32("nan")], a=[np.nan, 1])
    assert len(space - done) == len(missing(space, done)) == 0


def test_difference_of_array_values():
    space = Param(a=[np.array([1, 2]), np.array([3, 4]), np.array([1, NAN])])
    done = Param(a=[np.array([3.0, 4.0]), np.array([1, NAN])])
    for left in (space - done, missing(space, done)):
        assert [list(row["a"]) for row in left] == [[1, 2]]


def test_numbers_are_equal_by_value_in_differences():
    assert len(Param(a=[0, 1, 2]) - Param(a=[np.float32(0), True, np.int64(2)])) == 0
    assert len(Param(a=[0.1, 1]) - Param(a=[np.float32(0.1), "1"])) == 2


def test_missing_counts_replicates_and_difference_does_not():
    thrice, once = Param(a=[1, 1, 1]), Param(a=[1])
    assert missing(thrice, once).build() == {"a": [1, 1]}
    assert (thrice - once).build() == {"a": []}
    assert missing(once, thrice).build() == {"a": []}


def test_missing_allows_more_names_on_the_right():
    grid = Param(a=[1, 2])
    assert missing(grid, Param(a=[2, 2], result=[0.1, 0.2])).build() == {"a": [1]}


def test_a_difference_from_unknown_names_is_refused():
    with pytest.raises(AmbiguousOperationError, match=r"\['b', 'c'\] are on the right of -"):
        Param(a=[1]) - Param(a=[1], c=1, b=1)
    with pytest.raises(AmbiguousOperationError, match=r"\['b'\] are unknown to the subtrahend"):
        missing(Param(a=[1], b=[1]), Param(a=[1]))
    with pytest.raises(ValueError, match="on its left"):
        (Param(a=[1]) - Param(a=[1])) - Param(b=[1])


def test_values_that_cannot_be_compared_are_refused_by_the_name_of_their_parameter():
    with pytest.raises(errors.IdentityError, match="parameter 'f'"):
        len(Param(f=[lambda: None]) - Param(f=[1]))


def test_random_spaces_are_the_lists_of_rows_that_plain_python_makes():
    for seed in range(600):
        fuzz_spaces.check_case(seed)


@pytest.mark.parametrize("wanted", [2**53 + 1, -0.0, NAN, 1, True, "1", None])
def test_many_rows_are_compared_as_exactly_as_few(wanted):
    n = 60_000
    others = [float(2**53), np.int64(2**53 + 1), 0, np.float32("nan"), 1.0, b"1", "1", None]
    for other in others:
        few = Param(a=[wanted]), Param(a=[other])
        many = Param(a=[*range(-n, 0), wanted]), Param(a=[*range(-n, 0), other])
        for difference in (missing, operator.sub):
            assert len(difference(*many)) == len(difference(*few)) == (not equal(wanted, other))


def test_many_equal_rows_are_counted():
    wanted, done = Param(a=[1, 2, 3] * 50_000), Param(a=[2.0] * 49_998 + [3] * 60_000)
    assert missing(wanted, done).build() == {"a": [1] * 49_998 + [1, 2, 1, 2]}
    assert (wanted - done).build() == {"a": [1] * 50_000}


def test_differences_are_worked_out_when_rows_are_asked_for():
    huge = Param(a=range(10**5)) * Param(b=range(10**5))
    assert (huge - Param(a=[1])).keys() == missing(huge, huge).keys() == ["a", "b"]


# Words


def test_str_shows_columns():
    assert str(Param(a=[1, 2], **{"b.b": [3, 4]})) == "Param(a=[1, 2], b.b=[3, 4])"
    assert (
        str(Param(a=np.arange(1, 3), b=np.array([0.5, 1]), c="x"))
        == "Param(a=[1, 2], b=[0.5, 1.0], c=['x', 'x'])"
    )
    assert str(Param(a=[1]) * Param(b=[2, 3])) == "Param(a=[1, 1], b=[2, 3])"
    assert str(Param()) == "Param()"
    assert str(Param(a=[])) == "Param(a=[])"


def test_str_is_shortened_beyond_ten_values():
    assert str(Param(a=range(10))) == "Param(a=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9])"
    assert str(Param(a=range(11))) == "Param(a=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...])"


def read_html(space):
    """Return the rows of cells of the only table, as a browser has them, and the text after it."""

    class Reader(HTMLParser):
        rows, after, cell = [], "", False

        def handle_starttag(self, tag, attributes):
            assert tag in ("table", "tr", "th", "td")
            self.cell = tag in ("th", "td")
            if tag == "tr":
                self.rows.append([])
            elif self.cell:
                self.rows[-1].append("")

        def handle_endtag(self, tag):
            self.cell = False

        def handle_data(self, data):
            if self.cell:
                self.rows[-1][-1] += data
            else:
                self.after += data

    reader = Reader()
    reader.rows = []
    reader.feed(space._repr_html_())
    reader.close()
    return reader.rows, reader.after


@pytest.mark.parametrize("size", [0, 1, 2, 10, 11, 12_345])
def test_notebooks_show_the_first_and_last_rows_and_their_number(size):
    rows, after = read_html(Param(a=range(size), b="x"))
    every = [[f"{row:,}", repr(row), "'x'"] for row in range(size)]
    shown = every if size <= 10 else [*every[:5], ["..."] * 3, *every[-5:]]
    assert rows == [["", "a", "b"], *shown]
    assert after == f"{size:,} row{'' if size == 1 else 's'}"


def test_notebooks_show_names_and_values_as_text_and_never_as_markup():
    evil = "<script>alert('&amp;')</script>"
    rows, _ = read_html(Param(**{evil: [evil, np.int64(1), np.eye(2), None]}))
    assert rows == [
        ["", evil],
        ["0", repr(evil)],
        ["1", "1"],
        ["2", repr(np.eye(2)).replace("\n", " ")],
        ["3", "None"],
    ]


def test_notebooks_make_no_rows_but_those_that_they_show():
    space = Param(a=range(10_000)) * Param(b=range(10_000)) * Param(c=range(10_000))
    made = []
    taken = space.take
    space.take = lambda rows: made.extend(rows) or taken(rows)
    assert read_html(space)[1] == "1,000,000,000,000 rows"
    assert len(made) == 10


def test_repr_says_how_many_of_what():
    assert repr(Param(a=range(1000)) * Param(b=[1, 2])) == "<2,000 assignments of a, b>"
    assert repr(Param()) == "<0 assignments of no parameters>"


def test_spaces_are_equal_only_to_themselves():
    space = Param(a=[1])
    assert space == space
    assert space != Param(a=[1])
    assert len({space, Param(a=[1])}) == 2


def test_the_algebra_of_plain_values_imports_nothing_heavy():
    code = (
        "import sys; from psyrun.pspace import Param, missing; p = Param(a=[1, 2.5]) + Param(b=['x']); "
        "assert len(p - p) == len(missing(p, p)) == 0; assert not {'numpy', 'joblib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("value", [{"a": [1]}, [1], None, 3])
def test_what_is_no_space_is_refused_with_a_word_on_how_to_make_one(value):
    for wrong in (lambda: missing(Param(a=[1]), value), lambda: missing(value, Param(a=[1]))):
        with pytest.raises(TypeError, match=r"expected a parameter space, not a .*Param\(\*\*table\)"):
            wrong()


def test_assignment_is_not_told_by_the_name_of_a_parameter():
    with pytest.raises(TypeError, match=r"told by number, not by 'a'.*build\(\)\[name\]"):
        Param(a=[1])["a"]


# ---------------------------------------------------------------------- deep and foreign spaces


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        pytest.param(lambda s, n: s - Param(a=[n]), [1500, 1501, 1502, 1503], id="differences"),
        pytest.param(lambda s, n: missing(s, Param(a=[n], y=[0.5])), [1500, 1501, 1502, 1503], id="missing"),
        pytest.param(lambda s, n: s + Param(a=[n]), [*range(1504), *range(1500)], id="sums"),
        pytest.param(
            lambda s, n: missing(s + Param(a=[-n]), Param(a=[n])) - Param(a=[-n]),
            [1500, 1501, 1502, 1503],
            id="of all kinds",
        ),
        pytest.param(
            lambda s, n: (s + Param(a=[-n]))[1:], [*range(1500, 1504), *range(0, -1500, -1)], id="slices"
        ),
        pytest.param(lambda s, n: Param(a=range(1504)) - s, [*range(1504)], id="on the right"),
    ],
)
def test_spaces_may_be_made_in_a_thousand_steps(step, expected):
    space = Param(a=range(1504))
    for n in range(1500):
        space = step(space, n)
    for each in (space, pickle.loads(pickle.dumps(space)), copy.deepcopy(space), space[:]):
        assert len(each) == len(expected)
        assert each.build() == {"a": expected}
        assert [row["a"] for row in each.iterate()] == expected
        assert each[-1] == {"a": expected[-1]}
        assert each.take([0, 1]) == {"a": expected[:2]}
        assert repr(each) == f"<{len(expected):,} assignments of a>"
        assert str(each).startswith(f"Param(a=[{expected[0]}, ")


def test_pickled_spaces_stay_lazy():
    space = (Param(a=range(10**6)) * Param(b=range(10**6)))[::2] + Param(a=[1])
    again = pickle.loads(pickle.dumps(space))
    assert again.size == space.size == 10**12 // 2 + 1
    assert again[-2] == space[-2] == {"a": 999_999, "b": 999_998}


class Diagonal(ParameterSpace):
    """A space as authors wrote them for psyrun 0.8."""

    def __init__(self, n):
        super().__init__(["b", "a"])
        self.n = n

    def iterate(self):
        return ({"a": i, "b": -i} for i in range(self.n))

    def __len__(self):
        return self.n


class Bare(Diagonal):
    """One that has names without the constructor."""

    def __init__(self, n):
        self.n = n

    def keys(self):
        return ["b", "a"]


@pytest.mark.parametrize("kind", [Diagonal, Bare])
def test_space_may_be_a_class_with_iterate_and_len(kind):
    space = kind(3)
    assert len(space) == space.size == 3
    assert space.build() == {"b": [0, -1, -2], "a": [0, 1, 2]}
    assert list(space) == list(space.iterate())
    assert space[-1] == {"a": 2, "b": -2}
    assert repr(space) == "<3 assignments of b, a>"
    assert (space * Param(c=[5])).build() == {"b": [0, -1, -2], "a": [0, 1, 2], "c": [5] * 3}
    assert (space + Param(a=[7], b=[8])).build() == {"b": [0, -1, -2, 8], "a": [0, 1, 2, 7]}
    assert (Param(a=[1, 2], b=[-1, 0]) - space).build() == {"a": [2], "b": [0]}
    assert missing(space, Param(a=[1], b=[-1], y=[3]))[:].build() == {"b": [0, -2], "a": [0, 2]}
    assert pickle.loads(pickle.dumps(space - Param(a=[0]))).build() == {"b": [-1, -2], "a": [1, 2]}
    assert not kind(0)


def test_space_whose_class_says_too_little_is_refused():
    with pytest.raises(TypeError, match="ParameterSpace is no parameter space: it needs iterate and __len__"):
        len(ParameterSpace(["a"]))

    class Unknown(Diagonal):
        def keys(self):
            return ["a"]

    with pytest.raises(ValueError, match=r"\['b'\] come from Unknown.iterate\(\), but its keys\(\) lacks"):
        Unknown(2).build()
