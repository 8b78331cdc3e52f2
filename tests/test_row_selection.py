"""Rows that users name by a number or by values: which they are, and what messages say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from psyrun.cli.rows import find_rows, locate_rows, match_rows, parse_selectors, read_assignments
from psyrun.errors import SelectionError
from psyrun.workdir import Layout, read_plan

SWEEP = """\
from psyrun import Param
pspace = Param(x=range(10)) * Param(solver=["lu", "qr"])
max_jobs = 3
def execute(x, solver):
    return {"y": x}
"""


def match(selector, *values):
    """Which of some values of a parameter are selected."""
    try:
        return match_rows("t", ["x"], {"x": values}, parse_selectors([f"x={selector}"]))
    except SelectionError:
        return []


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("4", [4, 4.0, np.int64(4), np.float32(4), "4"]),
        ("0.1", [0.1, np.float32(0.1), np.float64(0.1), "0.1"]),
        ("1e3", [1000, 1000.0, "1e3"]),
        ("-0", [0, -0.0]),
        ("nan", [math.nan, np.float64("nan"), np.float32("nan"), "nan"]),
        ("True", [True, np.True_, "True"]),
        ("None", [None, "None"]),
        ("lu", ["lu", np.str_("lu")]),
        ("'lu'", ["lu", "'lu'"]),
        ("", [""]),
        ("a=b", ["a=b"]),
        ("(1, 'a')", [(1, "a")]),
        ("(1,'a')", [(1, "a")]),
        ("[1, 2]", [[1, 2]]),
        ("[1 2]", [np.array([1, 2])]),
        ("1" + 30 * "0", [10**30]),
    ],
)
def test_values_are_what_their_text_says(text, values):
    others = [5, 0.2, True, None, "qr", "x y", (2,), {}, [], math.inf, np.array([0, 1, 2]), object(), -7.0]
    others = [each for each in others if text not in (str(each), repr(each))]
    mixed = [*values, *others]
    assert match(text, *mixed) == list(range(len(values)))
    for value in values:
        assert match(text, value, value) == [0, 1]
    for value in others:
        assert match(text, value) == []


def test_one_is_not_true_and_true_is_not_one():
    assert match("1", True, 1, 1.0) == [1, 2]
    assert match("True", True, 1, 1.0) == [0]


def test_values_that_can_not_be_shown_are_no_reason_to_stop():
    class Shy:
        def __str__(self):
            raise RuntimeError("no")

        __repr__ = __str__

    assert match("4", Shy(), 4) == [1]


@pytest.fixture
def sweep(project):
    """Layout and plan of a task of 20 rows in three batches, of which the space names the last ones first."""
    project.finish({"psy-tasks/task_t.py": SWEEP})
    project.edit("psy-tasks/task_t.py", "range(10)", "[10, *range(9, -1, -1)]")
    project.psy("run")
    layout = Layout(root=project.root, folder=project.root / "psy-work/t", result=project.root / "r")
    return layout, read_plan(layout), project.result("t")


def test_numbers_and_values_select_rows_in_the_order_of_the_space(sweep):
    layout, plan, table = sweep
    rows = list(zip(table["x"], table["solver"]))
    assert rows[:3] == [(10, "lu"), (10, "qr"), (9, "lu")]
    for number in range(22):
        assert find_rows(layout, plan, [str(number)]) == [number]
        assert find_rows(layout, plan, [str(number - 22)]) == [number]
        [(batch, place)] = locate_rows(plan, [number])
        x, solver = rows[number]
        assert read_assignments(layout, plan, batch, [place]) == [{"x": x, "solver": solver}]
        assert find_rows(layout, plan, [f"solver={solver}", f"x={x}.0"]) == [number]
    assert find_rows(layout, plan, ["solver=qr"]) == list(range(1, 22, 2))
    assert find_rows(layout, plan, ["3", "-1"]) == [3, 21]
    assert find_rows(layout, plan, []) == list(range(22))
    assert locate_rows(plan, [5, 2, 5])[::2] == locate_rows(plan, [5, 5])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["22"], "t: there is no row 22 among 22 rows; they are numbered from 0 to 21"),
        (["-23"], "no row -23"),
        (["x"], "'x' selects no row; give the number of a row, or values such as x=4"),
        (["=4"], "'=4' selects no row"),
        (["--all"], "'--all' selects no row"),
        (["3", "x=4"], "'3' selects no row"),
        (["y=4"], "there is no parameter 'y'; there are x, solver"),
        (["solvr=lu"], "did you mean 'solver'?"),
        (["x=4.4"], "no row has x=4.4; there are rows with x=4, x=5, x=3, x=6"),
        (["x=100"], "there are rows with x=10, x=9, x=8"),
        (["solver=ul"], "no row has solver=ul; there are rows with solver='lu', solver='qr'"),
        (["solver=lu", "x=11"], "no row has x=11; those with solver=lu have x=10, x=9"),
    ],
)
def test_errors_name_what_there_is(sweep, words, said):
    with pytest.raises(SelectionError) as caught:
        find_rows(*sweep[:2], words)
    assert said in str(caught.value)


def test_number_of_a_row_is_found_without_reading_inputs(sweep, monkeypatch):
    layout, plan, _ = sweep

    def refuse(*arguments):
        raise AssertionError("was read")

    monkeypatch.setattr("psyrun.cli.rows.read_inputs", refuse)
    assert find_rows(layout, plan, ["-2"]) == [20]


def test_rows_whose_input_file_is_lost_are_not_selected_by_values(sweep):
    layout, plan, _ = sweep
    lost, _ = locate_rows(plan, [0])[0]
    layout.input(lost.number).unlink()
    for words in (["x=10", "solver=lu"], ["x=None"]):
        with pytest.raises(SelectionError, match="no row has"):
            find_rows(layout, plan, words)
    assert find_rows(layout, plan, ["x=0", "solver=qr"]) == [21]
    assert read_assignments(layout, plan, lost, [0]) == [None]
