"""Generators of random numbers for rows: the same row gets the same numbers, equal rows get others."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun import Param, PickleStore, map_pspace, map_pspace_hdd_backed, map_pspace_parallel
from psyrun.errors import ExecuteError
from psyrun.pspace import make_rng

TASK = """
from counting import seen
from psyrun import Param
pspace = {space}
{settings}
def execute(x, rng):
    seen(x)
    return {{"y": rng.random()}}
"""


def task_of(space, settings=""):
    return TASK.format(space=space, settings=settings)


def draw(x, rng):
    return {"y": rng.random()}


def drawn(space):
    """What a plain program draws: name -> values."""
    return map_pspace(draw, space)


def as_rows(table):
    return Counter(zip(map(repr, table["x"]), table["y"]))


def test_rows_that_differ_in_value_or_kind_or_number_have_streams_of_their_own():
    values = [0, 1, 1.0, True, "1", b"1", None, (1,), [1], float("nan"), -0.0, 0.0, np.arange(2), 1, 1]
    table = drawn(Param(x=values))
    assert len(set(table["y"])) == len(values)


def test_equal_rows_have_the_same_stream_in_another_program():
    code = (
        "from psyrun import Param, map_pspace\n"
        "space = Param(x=[{'b', 'a', 'c'}, 'ü', 2.5, 7, 7], z=[1, 2, 3, 4, 4])\n"
        "print(map_pspace(lambda x, z, rng: {'y': rng.random()}, space)['y'])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), max_size=12))
def test_space_that_is_extended_keeps_its_numbers(values, more):
    after = drawn(Param(x=[*values, *more]))
    assert after.get("y", [])[: len(values)] == drawn(Param(x=values)).get("y", [])


def test_generator_is_numpys_and_starts_anew_in_each_row():
    rng = make_rng({"x": 1}, 0)
    assert isinstance(rng, np.random.Generator)
    assert rng.random() == make_rng({"x": np.int64(1)}, 0).random()


def test_parameter_that_is_given_or_has_a_default_is_left_alone():
    assert map_pspace(lambda rng: {"y": rng}, Param(rng=[5]))["y"] == [5]
    assert map_pspace(lambda x, rng=3: {"y": rng}, Param(x=[5]))["y"] == [3]
    assert map_pspace(lambda **row: {"y": len(row)}, Param(x=[5]))["y"] == [1]


def test_processes_draw_what_one_process_draws():
    space = Param(x=[1, 2, 1] * 700)
    assert map_pspace_parallel(draw, space, n_jobs=2) == drawn(space)


def test_result_does_not_have_the_generator():
    assert set(drawn(Param(x=[1]))) == {"x", "y"}


def test_file_that_can_not_tell_equal_rows_apart_is_refused_where_rows_are_equal(tmp_path):
    path = tmp_path / "file.pkl"
    assert map_pspace_hdd_backed(draw, Param(x=[1, 2]), path, PickleStore()) == drawn(Param(x=[1, 2]))
    with pytest.raises(ExecuteError, match="equal rows"):
        map_pspace_hdd_backed(draw, Param(x=[1, 1]), path, PickleStore())


# ---------------------------------------------------------------------- tasks


@pytest.mark.parametrize("settings", ["pool_size = 1", "pool_size = 2; max_jobs = 3", "max_jobs = 1"])
def test_task_draws_what_a_plain_program_draws_whatever_its_batches_and_processes(project, settings):
    space = "Param(x=[3, 1, 1.0, 2, 1, 1, 1, 4])"
    project.task("t", task_of(space, settings))
    project.psy("run")
    assert project.result("t") == drawn(eval(space))


def test_rows_on_disk_keep_their_numbers_when_the_space_changes(project):
    begin = [1, 2, 1, 3]
    project.task("t", task_of(f"Param(x={begin})"))
    project.psy("run")
    for space in ([1, 1, 1, 2, 3], [1], [2, 1, 1, 5, 1, 1], [1, 1, 1, 2], [1, 1, 1, 1, 1, 1, 1]):
        project.task("t", task_of(f"Param(x={space})"))
        project.psy("run")
        assert project.result("t") == drawn(Param(x=space))


def test_equal_rows_stand_in_the_order_of_their_numbers_however_the_space_grew(project):
    for number in (1, 2, 4):
        project.task("t", task_of(f"Param(x=[7] * {number})"))
        assert project.count("run") == (number + 1) // 2
        assert project.result("t") == drawn(Param(x=[7] * number))


def test_rows_that_are_evaluated_again_draw_the_same(project):
    project.task("t", task_of("Param(x=[1, 1, 2])"))
    project.psy("run")
    assert project.count("run", "--force") == 3
    assert project.result("t") == drawn(Param(x=[1, 1, 2]))


def test_failed_row_draws_the_same_when_it_is_tried_again(project):
    code = """
import os
from psyrun import Param
pspace = Param(x=[1, 1, 1])
def execute(x, rng):
    y = rng.random()
    if y < 0.5 and not os.path.exists("../fixed"):
        raise ValueError("no")
    return {"y": y}
"""
    expected = drawn(Param(x=[1, 1, 1]))
    assert min(expected["y"]) < 0.5  # Else the seed of this test has to be another.
    project.task("t", code)
    project.psy("run", code=1)
    project.write("fixed", "")
    project.psy("run")
    assert project.result("t") == expected


def test_rows_that_left_the_space_keep_their_numbers_for_continue(project):
    project.task("t", task_of("Param(x=[1, 1, 1])"))
    project.psy("run")
    project.task("t", task_of("Param(x=[1, 2])"))
    project.psy("run", "--continue")
    assert as_rows(project.result("t")) == as_rows(drawn(Param(x=[1, 1, 1, 2])))
    project.task("t", task_of("Param(x=[1, 2, 1, 1, 1])"))
    project.psy("run")
    assert as_rows(project.result("t")) == as_rows(drawn(Param(x=[1, 1, 1, 1, 2])))


def test_rows_whose_input_file_is_lost_leave_their_numbers_to_those_that_replace_them(project):
    project.task("t", task_of("Param(x=[1, 1])"))
    project.psy("run")
    project.task("t", task_of("Param(x=[1, 1, 1, 1])"))
    project.psy("run")
    (project.root / "psy-work/t/in/0.pkl").write_bytes(b"")
    project.task("t", task_of("Param(x=[1, 1, 1, 1, 1, 1])"))
    project.psy("run")
    assert as_rows(project.result("t")) == as_rows(drawn(Param(x=[1] * 6)))


def test_rows_of_code_without_generators_are_adopted_whatever_their_number(project):
    project.task("t", task_of("Param(x=[1, 1])").replace("rng.random()", "0").replace(", rng", ""))
    project.psy("run")
    project.task("t", task_of("Param(x=[1, 1, 1])"))
    assert project.count("run", "--continue") == 1
    assert project.result("t")["y"] == [0, 0, drawn(Param(x=[1, 1, 1]))["y"][2]]


def test_trial_draws_what_the_first_row_draws(project):
    project.task("t", task_of("Param(x=[5, 6])"))
    (expected,) = drawn(Param(x=[5]))["y"]
    assert f"y={expected!r}" in project.psy("test").stdout


def test_setup_that_returns_rng_is_preferred(project):
    project.task(
        "u",
        """
        from psyrun import Param
        pspace = Param(x=[1])
        exclude_from_result = ["rng"]
        def setup(proc_id): return {"rng": 17}
        def execute(x, rng): return {"y": rng}
        """,
    )
    project.psy("run", "u")
    assert project.result("u") == {"x": [1], "y": [17]}


def test_result_of_a_task_does_not_have_the_generator(project):
    project.task("t", task_of("Param(x=[1, 1])"))
    project.psy("run")
    assert set(project.result("t")) == {"x", "y"}
