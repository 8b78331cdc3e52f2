"""Plans: each row of a space is found or made once, and nothing is made that is there."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psyrun.backend import DistributeBackend, LoadBalancingBackend
from psyrun.errors import FormatError, NewerFormatError
from psyrun.split.adoption import Adoption, Existing
from psyrun.split.matching import Space, make_plan
from psyrun.workdir.journal import BatchKey
from psyrun.workdir.layout import Layout
from psyrun.workdir.plan import Batch, Plan, is_plan_damaged, read_plan, write_plan
from reference import find_rest

MANY = settings(deadline=None, max_examples=150)

BLANK = Plan(
    scheme=1,
    code="new",
    space="s",
    definitions={"task_a.py: execute": "d1", "task_a.py: step": "d2"},
    settings={"exclude": ["images"], "file_dep": [], "result": "psy-work/a/result.pkl", "store": ".pkl"},
    names=("a", "b"),
    batches=(),
    order="",
    rows=0,
    next_batch=0,
)

# ---------------------------------------------------------------------- a naive model

# What may stand for what: two values are the same row where their names here are the same.
NAMED = [
    ("integer 1", 1),
    ("integer 1", np.int64(1)),
    ("real 1", 1.0),
    ("real 1", np.float32(1)),
    ("bool True", True),
    ("bool True", np.True_),
    ("nan", math.nan),
    ("nan", np.float64("nan")),
    ("str 1", "1"),
    ("bytes 1", b"1"),
    ("None", None),
    ("integers [1 2]", np.array([1, 2])),
    ("integers [1 2]", np.array([1, 2], dtype="int16")),
    ("reals [1 2]", np.array([1.0, 2.0])),
    ("tuple", (1, "a")),
]
# Mostly few values, so that rows are found and replicates are common.
VALUE = st.sampled_from(NAMED[:4]) | st.sampled_from(NAMED)
ROW = st.tuples(VALUE, VALUE)
PARTITIONS = st.builds(
    lambda backend, max_jobs, min_items: lambda rows: backend.partition(rows, max_jobs, min_items),
    st.sampled_from((DistributeBackend(), LoadBalancingBackend())),
    st.integers(1, 5),
    st.integers(1, 3),
)


def name_of(row):
    return tuple(name for name, _ in row)


def columns_of(rows, names=("a", "b")):
    return {name: [row[i][1] for row in rows] for i, name in enumerate(names)}


@st.composite
def situations(draw):
    """A space, and batches on disk: of the code at hand and of older code, partly done."""
    pool = draw(st.lists(ROW, min_size=1, max_size=6))
    some = st.lists(st.sampled_from(pool) | ROW, max_size=8)
    wanted = draw(some)
    numbers = sorted(draw(st.sets(st.integers(0, 9), max_size=4)))
    held, existing = {}, []
    for number in draw(st.permutations(numbers)):
        rows = draw(some.filter(bool))
        done = draw(st.frozensets(st.sampled_from(range(len(rows)))))
        code = draw(st.sampled_from(("new", "new", "old", "older")))
        # Names may come in another order.
        columns = dict(draw(st.permutations(list(columns_of(rows).items()))))
        existing.append(
            Existing(
                number=number, size=len(rows), tie=f"{number:016}", code=code, columns=columns, done=done
            )
        )
        held |= {(number, row): name_of(rows[row]) for row in range(len(rows))}
    blank = replace(BLANK, next_batch=draw(st.integers(max(numbers, default=-1) + 1, 12)))
    return wanted, existing, held, blank


@st.composite
def tables(draw, existing):
    """Runs of rows that do not overlap, as an older plan has them."""
    runs = []
    for batch in existing:
        cut = draw(st.integers(0, batch.size))
        runs += [
            run for run in ((batch.number, range(cut)), (batch.number, range(cut, batch.size))) if run[1]
        ]
    runs = draw(st.permutations(runs))
    return runs[: draw(st.integers(0, len(runs)))]


def cells_of(plan):
    return [(number, row) for number, rows in plan.segments() for row in rows]


def plan_for(situation, partition, table=()):
    wanted, existing, held, blank = situation
    space = Space(columns=columns_of(wanted), rows=len(wanted))
    adoption = Adoption(batches=existing, tables=[table])
    plan, new = make_plan(space, adoption, blank, partition=partition)
    there = held | {
        (number, row): name_of(wanted[i]) for number, rows in new.items() for row, i in enumerate(rows)
    }
    return plan, new, there


@MANY
@given(situation=situations(), partition=PARTITIONS)
def test_each_row_of_the_space_is_covered_once_by_a_row_of_equal_identity(situation, partition):
    wanted = situation[0]
    plan, _, there = plan_for(situation, partition)
    cells = cells_of(plan)
    assert plan.rows == plan.total == len(wanted)
    assert [there[cell] for cell in cells] == [name_of(row) for row in wanted]
    assert len(set(cells)) == len(cells)


@MANY
@given(situation=situations(), partition=PARTITIONS)
def test_evaluations_are_as_few_as_can_be(situation, partition):
    wanted, existing, held, _ = situation
    plan, new, _ = plan_for(situation, partition)
    done = {(batch.number, row) for batch in existing for row in batch.done}
    pending = {
        (batch.number, row) for batch in existing if batch.code == "new" for row in range(batch.size)
    } - done
    asked = Counter(map(name_of, wanted))
    values, places = Counter(held[cell] for cell in done), Counter(held[cell] for cell in pending)
    assert sum(cell not in done for cell in cells_of(plan)) == (asked - values).total()
    assert sum(map(len, new.values())) == (asked - values - places).total()


@MANY
@given(situation=situations(), partition=PARTITIONS)
def test_rows_of_other_code_are_used_only_where_they_have_values(situation, partition):
    _, existing, _, _ = situation
    plan, _, _ = plan_for(situation, partition)
    others = {batch.number: batch for batch in existing if batch.code != "new"}
    used = [cell for cell in cells_of(plan) if cell[0] in others]
    assert all(row in others[number].done for number, row in used)
    assert plan.adopted == tuple(sorted({others[number].code for number, _ in used}))


@MANY
@given(situation=situations(), partition=PARTITIONS)
def test_new_batches_hold_each_new_row_once_under_numbers_never_used(situation, partition):
    wanted, existing, _, blank = situation
    plan, new, _ = plan_for(situation, partition)
    rows = [i for batch in new.values() for i in batch]
    assert rows == sorted(set(rows))
    assert set(rows) <= set(range(len(wanted)))
    assert list(new) == list(range(blank.next_batch, plan.next_batch))
    assert plan.next_batch > max([batch.number for batch in existing], default=-1)
    assert all(new.values())


@MANY
@given(situation=situations(), partition=PARTITIONS, data=st.data())
def test_rows_of_an_adopted_table_follow_those_of_the_space_where_it_names_fewer(situation, partition, data):
    wanted, existing, _, _ = situation
    table = data.draw(tables(existing))
    without, _, _ = plan_for(situation, partition)
    plan, _, there = plan_for(situation, partition, table)
    cells = cells_of(plan)
    done = {(batch.number, row) for batch in existing for row in batch.done}
    candidates = [cell for number, rows in table for row in rows if (cell := (number, row)) in done]
    assert plan.rows == len(wanted)
    assert cells[: plan.rows] == cells_of(without)
    used = set(cells_of(without))
    assert cells[plan.rows :] == find_rest(candidates, used, map(name_of, wanted), there.get)
    assert plan.total == len(cells)


@MANY
@given(situation=situations(), partition=PARTITIONS, data=st.data())
def test_batches_count_the_wanted_rows_of_the_segments(situation, partition, data):
    _, existing, _, _ = situation
    plan, new, _ = plan_for(situation, partition, data.draw(tables(existing)))
    sizes = {batch.number: batch.size for batch in existing} | {b: len(rows) for b, rows in new.items()}
    wanted = {}
    for number, row in cells_of(plan):
        wanted.setdefault(number, set()).add(row)
    ties = {batch.number: batch.tie for batch in existing}
    expected = [
        Batch(number, sizes[number], len(rows), ties.get(number, ""))
        for number, rows in sorted(wanted.items())
    ]
    assert list(plan.batches) == expected
    assert plan.wanted_rows() == {
        number: rows for number, rows in wanted.items() if len(rows) < sizes[number]
    }


def lay_out(folder):
    return Layout(root=folder, folder=folder, result=folder / "result.pkl")


@MANY
@given(situation=situations(), partition=PARTITIONS)
def test_equal_plans_are_equal_bytes_that_come_back(tmp_path_factory, situation, partition):
    plan, _, _ = plan_for(situation, partition)
    again, _, _ = plan_for(situation, partition)
    shuffled = replace(plan, definitions=dict(reversed(plan.definitions.items())))
    assert plan.to_json() == again.to_json() == shuffled.to_json()
    layout = lay_out(tmp_path_factory.mktemp("plan"))
    write_plan(layout, plan)
    assert read_plan(layout) == plan
    assert read_plan(layout).segments() == plan.segments()
    assert {path.name for path in layout.folder.iterdir()} == {"plan.json", "plan.json.bak"}
    layout.plan.unlink()
    assert read_plan(layout) == plan


@MANY
@given(situation=situations(), partition=PARTITIONS)
def test_planning_again_when_all_is_done_keeps_every_row(situation, partition):
    wanted, existing, _, blank = situation
    plan, new, _ = plan_for(situation, partition)
    made = [
        Existing(
            number=number,
            size=len(rows),
            code="new",
            columns=columns_of([wanted[i] for i in rows]),
            done=range(len(rows)),
        )
        for number, rows in new.items()
    ]
    there = [replace(batch, done=range(batch.size)) if batch.code == "new" else batch for batch in existing]
    space = Space(columns=columns_of(wanted), rows=len(wanted))
    adoption = Adoption(batches=[*there, *made])
    later, nothing = make_plan(
        space, adoption, replace(blank, next_batch=plan.next_batch), partition=partition
    )
    assert nothing == {}
    assert later.next_batch == plan.next_batch


# ---------------------------------------------------------------------- cases


def plan_columns(columns, existing=(), **changes):
    size = len(next(iter(columns.values())))
    blank = replace(BLANK, names=tuple(columns), **changes)
    share = DistributeBackend()
    space = Space(columns=columns, rows=size)
    adoption = Adoption(batches=existing)
    return make_plan(space, adoption, blank, partition=lambda rows: share.partition(rows, 4, 1))


def test_finished_row_of_older_code_is_preferred_to_an_unfinished_one_of_the_code_at_hand():
    old = Existing(number=0, size=1, code="old", columns={"a": [1]}, done={0})
    new = Existing(number=1, size=1, code="new", columns={"a": [1]}, done=())
    plan, made = plan_columns({"a": [1]}, [old, new], next_batch=2)
    assert (plan.segments(), plan.adopted, made) == ([(0, range(1))], ("old",), {})


def test_row_of_the_code_at_hand_is_preferred_to_one_of_older_code():
    new = Existing(number=0, size=1, code="new", columns={"a": [1]}, done={0})
    old = Existing(number=1, size=1, code="old", columns={"a": [1]}, done={0})
    plan, _ = plan_columns({"a": [1]}, [old, new], next_batch=2)
    assert (plan.segments(), plan.adopted) == ([(0, range(1))], ())


def test_later_batch_is_preferred_to_an_earlier_one():
    batches = [Existing(number=n, size=1, code="new", columns={"a": [1]}, done={0}) for n in (3, 7, 5)]
    plan, _ = plan_columns({"a": [1]}, batches, next_batch=8)
    assert plan.segments() == [(7, range(1))]


def test_rows_with_other_parameters_are_other_rows():
    existing = [Existing(number=0, size=1, code="new", columns={"a": [1], "b": [2]}, done={0})]
    assert plan_columns({"a": [1]}, existing, next_batch=1)[1].keys() == {1}
    assert plan_columns({"b": [2], "a": [1]}, existing, next_batch=1)[1] == {}


def test_k_equal_rows_are_k_evaluations():
    existing = [Existing(number=0, size=2, code="new", columns={"a": [1, 1]}, done={1})]
    plan, made = plan_columns({"a": [1] * 5}, existing, next_batch=1)
    assert sum(map(len, made.values())) == 3
    assert sorted(cells_of(plan))[:2] == [(0, 0), (0, 1)]


def test_plan_of_a_fresh_space_has_one_segment_per_batch():
    rows = 10**6
    plan, made = plan_columns({"a": range(rows)})
    assert len(plan.segments()) == len(plan.batches) == len(made) == 4
    assert len(plan.to_json()) < 2000
    assert all(isinstance(batch, range) for batch in made.values())


def test_plan_of_a_space_that_grew_at_its_end_has_one_segment_per_batch():
    existing = [
        Existing(number=n, size=9, code="new", columns={"a": range(9 * n, 9 * n + 9)}, done=range(9))
        for n in range(3)
    ]
    plan, made = plan_columns({"a": range(36)}, existing, next_batch=3)
    assert list(made) == [3, 4, 5, 6]
    assert len(plan.segments()) == 7


def test_empty_space_has_no_batches():
    existing = [Existing(number=0, size=1, code="new", columns={"a": [1]}, done={0})]
    for there in ((), existing):
        plan, made = plan_columns({"a": []}, there, next_batch=1)
        assert (plan.segments(), plan.batches, made, plan.total, plan.next_batch) == ([], (), {}, 0, 1)


def test_table_digest_tells_what_the_result_depends_on():
    plan, _ = plan_columns({"a": [1, 2, 3]})
    same = replace(plan, code="newer", definitions={}, settings=dict(plan.settings, store=".npz"))
    assert same.table_digest == plan.table_digest
    others = [
        replace(plan, names=("b",)),
        replace(plan, settings=dict(plan.settings, exclude=[])),
        plan_columns({"a": [1, 2, 3]}, next_batch=4)[0],
        plan_columns({"a": [1, 2]})[0],
    ]
    assert len({plan.table_digest, *(other.table_digest for other in others)}) == 5


# ---------------------------------------------------------------------- files


def test_missing_plan_is_none(tmp_path):
    assert read_plan(lay_out(tmp_path)) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"format": 2}',
        b'{"format": 2, "batches": 3, "names": [], "adopted": []}',
        b'{"format": 2, "batches": [[1, 2]], "names": [], "adopted": []}',
    ],
    ids=repr,
)
def test_damaged_plan_is_named(tmp_path, content):
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"plan\.json: damaged"):
        read_plan(lay_out(tmp_path))


def test_plan_that_was_cut_short_is_named(tmp_path):
    path = tmp_path / "plan.json"
    plan, _ = plan_columns({"a": [1, 2, 3]})
    data = plan.to_json()
    for cut in range(len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(FormatError, match=r"plan\.json: damaged"):
            read_plan(lay_out(tmp_path))


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_plan_whose_copy_is_damaged_or_lost_is_read_without_it(tmp_path, damage):
    path, copy = tmp_path / "plan.json", tmp_path / "plan.json.bak"
    plan, _ = plan_columns({"a": [1, 2, 3]})
    write_plan(lay_out(tmp_path), plan)
    copy.unlink() if damage is None else copy.write_bytes(damage)
    assert read_plan(lay_out(tmp_path)) == plan
    path.unlink()
    assert read_plan(lay_out(tmp_path)) is None  # Then psy run plans anew.


def test_damaged_plan_is_read_from_its_copy(tmp_path):
    layout, (plan, _) = lay_out(tmp_path), plan_columns({"a": [1, 2, 3]})
    write_plan(layout, plan)
    assert not is_plan_damaged(layout)
    data = layout.plan.read_bytes()
    version = data.index(b'"format": 2') + len(b'"format": ')
    for position in range(len(data)):
        flip = 0x80 if position == version else 1  # Another digit would be the format of another psyrun.
        layout.plan.write_bytes(data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :])
        assert read_plan(layout) == plan, position
    layout.plan.write_bytes(b"garbage")
    assert is_plan_damaged(layout)
    layout.plan_copy.write_bytes(b"garbage")
    with pytest.raises(FormatError, match=r"plan\.json: damaged.*delete it"):
        read_plan(layout)


def test_plan_of_format_1_is_refused_with_the_cure(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({"format": 1, "batches": []}))
    with pytest.raises(
        FormatError, match=r"plan\.json: format 1 is of an older psyrun; finish it with .*--continue"
    ):
        read_plan(lay_out(tmp_path))


def test_what_another_psyrun_wrote_beside_is_kept(tmp_path):
    layout, (plan, _) = lay_out(tmp_path), plan_columns({"a": [1, 2, 3]})
    write_plan(layout, replace(plan, extra={"later": [1, {"a": None}]}))
    read = read_plan(layout)
    assert read.extra == {"later": [1, {"a": None}]}
    write_plan(layout, replace(read, settings={}))
    assert json.loads(layout.plan.read_bytes())["later"] == [1, {"a": None}]


def test_new_batches_get_the_numbers_and_ties_of_their_files():
    there = Existing(number=2, size=1, tie="t" * 16, code="new", columns={"a": [1]}, done={0})
    plan, new = plan_columns({"a": [1, 2, 3]}, [there], next_batch=3)
    assert list(new) == [3, 4]
    keys = {3: BatchKey(7, "x" * 16), 4: BatchKey(9, "y" * 16)}
    written = plan.with_keys(keys)
    assert written.batches == (Batch(2, 1, 1, "t" * 16), Batch(7, 1, 1, "x" * 16), Batch(9, 1, 1, "y" * 16))
    assert written.segments() == [(2, range(1)), (7, range(1)), (9, range(1))]
    assert written.next_batch == 10


def test_copy_of_a_plan_by_a_newer_psyrun_is_not_overlooked(tmp_path):
    (tmp_path / "plan.json.bak").write_text(json.dumps({"format": 3, "rows": "elsewhere"}))
    with pytest.raises(NewerFormatError, match=r"plan\.json\.bak: format 3 is not known"):
        read_plan(lay_out(tmp_path))


def test_plan_with_a_damaged_order_is_named(tmp_path):
    path = tmp_path / "plan.json"
    plan, _ = plan_columns({"a": [1, 2, 3]})
    content = json.loads(plan.to_json())
    longer, _ = plan_columns({"a": range(10)})
    middle = len(plan.order) // 2
    flipped = plan.order[:middle] + ("x" if plan.order[middle] != "x" else "y") + plan.order[middle + 1 :]
    for order in ("", "#", plan.order[:-4], flipped, plan.order[:1], longer.order, None):
        path.write_text(json.dumps(content | {"order": order}))
        with pytest.raises(FormatError, match=r"plan\.json: damaged"):
            read_plan(lay_out(tmp_path)).segments()


def test_plan_of_a_newer_format_is_not_read(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"format": 3, "rows": "elsewhere"}))
    with pytest.raises(NewerFormatError, match=r"plan\.json: format 3 is not known"):
        read_plan(lay_out(tmp_path))


def test_paths_of_a_task_lie_in_its_folder(tmp_path):
    layout = Layout(root=tmp_path, folder=tmp_path / "psy-work" / "a", result=tmp_path / "a.pkl")
    owned = [layout.plan, layout.process, layout.input(3), layout.code("abc"), layout.out, layout.log]
    assert [layout.relative(path) for path in owned] == [
        "psy-work/a/plan.json",
        "psy-work/a/process.json",
        "psy-work/a/in/3.pkl",
        "psy-work/a/code/abc.zip",
        "psy-work/a/out",
        "psy-work/a/log",
    ]
    assert layout.relative(layout.receipt) == "a.pkl.receipt"
    assert list(tmp_path.iterdir()) == []
