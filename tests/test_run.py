"""psy run: from task files to results, through failures, losses and settings."""

import os
import pickle
import re
import shutil
from itertools import chain, combinations

import joblib
import numpy as np
import pytest

from files import add_journal
from psyrun.options import RunOptions
from psyrun.split import adoption, unmanaged
from psyrun.split.staleness import NO_CHANGES
from psyrun.store import AutodetectStore
from psyrun.task.project import read_outlines
from psyrun.task.task import open_task
from psyrun.workdir.journal import Failure
from psyrun.workdir.plan import read_plan

TUTORIAL = """\
import os
import numpy as np
from counting import seen
from psyrun import Param

pspace = (Param(a=np.arange(1, 5))
          * Param(b=np.linspace(0, 1, 10))
          * Param(c=[1., 1.5, 10., 10.5]))

def execute(a, b, c):
    seen(a, b, c)
    return {'result': a * b + c}
"""
SIMPLE = """\
from counting import seen
from psyrun import Param
pspace = Param(x=range(3))
pool_size = 1
def execute(x):
    seen(x)
    return {"y": x * 10}
"""
FILES = {"psy-tasks/task_t.py": SIMPLE}
ROWS = {"x": [0, 1, 2], "y": [0, 10, 20]}


def task_of(head, body='return {"y": x}', signature="x"):
    """Return a task file: its settings, and what execute does."""
    lines = ["from counting import seen", "from psyrun import Param", head, f"def execute({signature}):"]
    return "\n".join([*lines, "    seen(x)", *(f"    {line}" for line in body.splitlines())]) + "\n"


def number_of_batches(project, task):
    return len(list((project.root / "psy-work" / task / "in").glob("*.pkl")))


# ---------------------------------------------------------------------- the tutorial


def test_tutorial_leaves_a_pickled_table_in_the_order_of_the_space(project):
    project.task("example", TUTORIAL)
    assert project.count("run", "example") == 160
    with (project.root / "psy-work/example/result.pkl").open("rb") as file:
        result = pickle.load(file)

    assert type(result) is dict
    assert {name: (type(values), len(values)) for name, values in result.items()} == dict.fromkeys(
        ("a", "b", "c", "result"), (list, 160)
    )
    space = [
        (a, b, c) for a in np.arange(1, 5) for b in np.linspace(0, 1, 10) for c in [1.0, 1.5, 10.0, 10.5]
    ]
    assert list(zip(result["a"], result["b"], result["c"])) == space
    assert result["result"] == [a * b + c for a, b, c in space]

    assert project.count("run", "example") == 0
    assert project.count("run") == 0


def test_rows_that_raise_cost_no_other_row(project):
    """160 rows of which 3 raise for a cause outside the code."""
    cause = project.write("psy-tasks/broken", "")
    condition = "os.path.exists('broken') and (a, c) == (2, 10.5) and b < 0.3"
    raising = f"if {condition}:\n        raise ValueError(f'no {{b:.2f}}')"
    text = TUTORIAL.replace("    return", f"    {raising}\n    return")
    project.task("example", text + "untracked = ['broken']\n")
    assert project.count("run", "example", code=1) == 160

    status = project.status("example")
    assert (status["done"], status["failed"], status["missing"]) == (157, 3, 0)
    assert (status["result"], status["uptodate"]) == (None, False)
    failed = [
        line for line in project.psy("status", "-v", "example").stdout.splitlines() if "failed:" in line
    ]
    assert len(failed) == 3
    for line, b in zip(failed, ("0.0", "0.1111111111111111", "0.2222222222222222")):
        assert f"a=2, b={b}, c=10.5" in line
        assert "ValueError: no 0." in line
    errors = project.psy("errors", "example").stdout
    assert "3 rows failed" in errors
    assert "raise ValueError" in errors
    assert "task_example.py" in errors

    said = project.psy("merge", "psy-work/example/out", "partial-result.pkl").stdout
    assert "157" in said
    with (project.root / "partial-result.pkl").open("rb") as file:
        partial = pickle.load(file)
    rows = list(zip(partial["a"], partial["b"], partial["c"], partial["result"]))
    assert len(rows) == 157
    assert all(a * b + c == result for a, b, c, result in rows)
    assert not any((a, c) == (2, 10.5) and b < 0.3 for a, b, c, _ in rows)
    assert rows == sorted(rows, key=lambda row: row[:3])
    project.psy("merge", "psy-work/example/out", "partial-result.pkl", code=2)

    assert project.count("run", "--no-retry", "example", code=1) == 0
    cause.unlink()
    assert project.count("run", "example") == 3
    assert len(project.result("example")["result"]) == 160
    assert project.count("run", "example") == 0
    assert "no row failed" in project.psy("errors", "example").stdout


def test_rows_that_raise_are_tried_once_more_by_each_run(project):
    project.task("t", task_of("pspace = Param(x=range(5))", "return {'y': 1 / (x - 3)}"))
    assert project.count("run", code=1) == 5
    assert project.count("run", code=1) == 1
    said = project.psy("run", code=1).stdout
    assert "4 of 5 rows done, 1 failed" in said
    assert "psy errors t" in said


def test_rows_that_raise_are_tried_once_more_whatever_journal_comes_first(project):
    """Journals have random names; one of a retry may hold nothing but a failure."""
    project.task("t", task_of("pspace = Param(x=[3, 5])\nmax_jobs = 1", "return {'y': 1 / (x - 3)}"))
    assert project.count("run", code=1) == 2
    add_journal(project.root / "psy-work/t", 0, [], {}, [Failure(0, "ZeroDivisionError")], run="00000000")
    assert project.count("run", code=1) == 1
    project.edit("psy-tasks/task_t.py", "[3, 5]", "[5]")
    assert project.count("run") == 0
    assert project.result("t") == {"x": [5], "y": [0.5]}


def test_rows_that_raise_are_mended_in_the_code_with_continue(project):
    project.task("t", task_of("pspace = Param(x=range(6))", "return {'y': 6 // (x % 3)}"))
    assert project.count("run", code=1) == 6
    project.edit("psy-tasks/task_t.py", "6 // (x % 3)", "6 // (x % 3 or 1) + 100")
    assert project.count("run", "--continue") == 2
    assert project.result("t") == {"x": [0, 1, 2, 3, 4, 5], "y": [106, 6, 3, 106, 6, 3]}
    assert project.count("run") == 0


def test_older_result_stays_while_new_rows_fail(project):
    project.task("t", SIMPLE.replace("x * 10", "x * 10 if x < 5 else 1 / 0"))
    project.psy("run")
    project.edit("psy-tasks/task_t.py", "range(3)", "[0, 1, 2, 7]")
    assert project.count("run", code=1) == 1
    assert project.result("t") == ROWS
    status = project.status("t")
    assert (status["uptodate"], status["result"], status["failed"]) == (False, "psy-work/t/result.pkl", 1)
    assert "not up to date" in project.psy("status").stdout
    project.edit("psy-tasks/task_t.py", "[0, 1, 2, 7]", "range(3)")
    assert project.count("run") == 0
    assert project.status("t")["uptodate"]


def test_execute_that_returns_no_dict_fails_with_a_cure(project):
    project.task("t", task_of("pspace = Param(x=range(2))", "return x"))
    project.psy("run", code=1)
    errors = project.psy("errors").stdout
    assert "2 rows failed" in errors
    assert "dict" in errors


def test_rows_may_return_different_names(project):
    project.task(
        "t", task_of("pspace = Param(x=range(3))", "return {'even': 1.5} if x % 2 == 0 else {'word': 'a'}")
    )
    project.psy("run")
    result = project.result("t")
    assert result["word"] == [None, "a", None]
    assert result["even"][0] == result["even"][2] == 1.5
    assert np.isnan(result["even"][1])


# ---------------------------------------------------------------------- several task files


def test_run_without_names_runs_all_and_reports_the_broken_ones(project):
    project.task("first", SIMPLE)
    project.task("last", SIMPLE)
    project.task("syntax", "def execute(:\n")
    project.task("imports", "import nosuchmodule\n" + SIMPLE)
    project.task("space", SIMPLE.replace("range(3)", "[1 / 0]"))
    done = project.psy("run", code=2)
    assert project.result("first") == project.result("last") == ROWS
    for place, word in (
        ("syntax.py:1", "syntax"),
        ("imports.py:1", "nosuchmodule"),
        ("space.py:3", "division"),
    ):
        lines = [line for line in done.stderr.splitlines() if f"psy-tasks/task_{place}" in line]
        assert len(lines) == 1, done.stderr
        assert word in lines[0]
    assert "Traceback" not in done.stderr
    assert not {"syntax", "imports", "space"} & {path.name for path in (project.root / "psy-work").iterdir()}

    project.psy("run", "first")
    project.psy("run", "first", "syntax", code=2)
    project.task("fails", task_of("pspace = Param(x=[1])", "raise ValueError"))
    project.psy("run", "first", "fails", code=1)
    project.psy("run", code=2)


def test_two_files_of_one_name_are_refused(project):
    project.task("one", SIMPLE)
    project.task("two", 'name = "one"\n' + SIMPLE)
    done = project.psy("run", code=2)
    assert "task_two.py" in done.stderr
    assert "'one' is taken by psy-tasks/task_one.py" in done.stderr
    assert project.result("one") == ROWS


def test_folder_without_task_files_says_how_to_begin(project):
    assert "psy new-task" in project.psy("run").stdout
    (project.root / "psy-tasks").rmdir()
    done = project.psy("run", code=2)
    assert "psy-tasks: no such folder" in done.stderr
    assert not (project.root / "psy-work").exists()


def test_taskdir_names_another_folder(project):
    project.write("more tasks/task_t.py", SIMPLE)
    assert project.count("--taskdir", "more tasks", "run") == 3
    assert project.result("t") == ROWS
    assert project.count("--taskdir", "more tasks", "run") == 0


# ---------------------------------------------------------------------- what is lost


def lose(project, *names):
    for name in names:
        path = project.root / "psy-work" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def fill(path):
    path.write_bytes(b"\0 nonsense" * 50)


def make_folder(path):
    path.unlink()
    path.mkdir()


KEPT = ("t/out/*", "t/in/*", "t/code/*", "t/plan.json", "t/plan.json.bak", "t/process.json")
IN_PLACE = (1, "something else is in its place: move it away")
# Where the next run stops: its exit code, and the cure that it names.
STOPS = {
    ("t/result.pkl", make_folder): (2, "move the folder away"),
    ("t/result.pkl.receipt", os.unlink): (2, "keep its rows: psy run --continue t"),
    **{(f"t/{name}", make_folder): IN_PLACE for name in ("plan.json", "process.json", "result.pkl.receipt")},
}


@pytest.mark.parametrize("damage", [os.unlink, cut, flip, fill, make_folder], ids=lambda each: each.__name__)
@pytest.mark.parametrize("name", [*KEPT, "t/result.pkl", "t/result.pkl.receipt", ".doit.db", ".sources.json"])
def test_loss_or_damage_of_a_file_evaluates_nothing(project, name, damage):
    project.finish(FILES)
    result = project.root / "psy-work/t/result.pkl"
    before = result.read_bytes()
    damage(min((project.root / "psy-work").glob(name)))
    code, words = STOPS.get((name, damage), (0, ""))
    done = project.psy("run", code=code)
    assert words in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert len(project.rows_seen()) == 3
    if code == 0:
        assert project.status("t")["uptodate"]
    if (name, code) != ("t/result.pkl", 2):
        assert result.read_bytes() == before


@pytest.mark.parametrize("lost", ["t/out", "t/in", "t/code", "t/log", "t/jobs"])
def test_loss_of_a_folder_evaluates_nothing(project, lost):
    project.finish(FILES)
    before = (project.root / "psy-work/t/result.pkl").read_bytes()
    lose(project, lost)
    assert project.count("run") == 0
    assert (project.root / "psy-work/t/result.pkl").read_bytes() == before
    assert project.status("t")["uptodate"]
    assert project.count("run") == 0


def test_loss_of_the_plan_keeps_what_continue_kept(project):
    project.finish(FILES)
    project.edit("psy-tasks/task_t.py", "range(3)", "[1, 7]")
    project.edit("psy-tasks/task_t.py", "x * 10", "x * 100")
    assert project.count("run", "--continue") == 1
    kept = {"x": [1, 7, 0, 2], "y": [10, 700, 0, 20]}
    assert project.result("t") == kept
    plan = project.root / "psy-work/t/plan.json"
    content = plan.read_bytes()
    lose(project, "t/plan.json")
    assert project.status("t")["uptodate"]
    assert project.count("run") == 0
    assert project.result("t") == kept
    assert plan.read_bytes() == content


def test_loss_of_the_plan_does_not_bring_back_what_force_gave_up(project):
    project.finish(FILES)
    project.edit("psy-tasks/task_t.py", "range(3)", "[1]")
    assert project.count("run", "--force") == 1
    lose(project, "t/plan.json")
    project.edit("psy-tasks/task_t.py", "[1]", "[0, 1]")
    assert project.count("run") == 1


def test_loss_of_the_plan_does_not_draw_a_random_space_again(project):
    project.task("t", task_of("import numpy as np\npspace = Param(x=np.random.default_rng().random(3))"))
    assert project.count("run") == 3
    before = project.result("t")
    lose(project, "t/plan.json")
    assert project.count("run") == 0
    assert project.result("t") == before


def test_loss_of_the_plan_does_not_hide_what_an_edit_of_the_code_costs(project):
    project.task("t", SIMPLE + "overwrite_dirty = False\n")
    project.psy("run")
    project.edit("psy-tasks/task_t.py", "x * 10", "x * 100")
    lose(project, "t/plan.json")
    assert "3 finished rows would be evaluated again" in project.psy("run", code=2).stderr


@pytest.fixture
def elsewhere(project):
    """A finished task whose result is not in its work folder, and how to read it."""
    project.finish({"psy-tasks/task_t.py": "resultfile = '../res/t.pkl'\n" + SIMPLE})
    return lambda: pickle.loads((project.root / "res/t.pkl").read_bytes())


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("lost", [[""], ["t/in", "t/plan.json", "t/plan.json.bak"]])
def test_result_of_which_the_work_folder_knows_nothing_is_neither_believed_nor_overwritten(
    project, elsewhere, edited, lost
):
    lose(project, *lost)
    if edited:
        project.edit("psy-tasks/task_t.py", "x * 10", "x * 100")
    before = len(project.rows_seen())
    said = project.psy("run", code=2).stderr
    assert len(project.rows_seen()) == before
    assert "res/t.pkl: psy-work/t does not know any more what it was made from" in said
    assert "psy run --continue t" in said
    assert "psy run --force t" in said
    assert elsewhere() == ROWS
    assert not project.status("t")["uptodate"]


def test_rows_of_a_result_whose_work_folder_is_lost_can_be_kept(project, elsewhere):
    lose(project, "")
    project.edit("psy-tasks/task_t.py", "range(3)", "[1, 7]")
    assert project.count("run", "--continue") == 1
    assert elsewhere() == {"x": [1, 7, 0, 2], "y": [10, 70, 0, 20]}
    assert project.count("run") == 0
    assert project.status("t")["uptodate"]


def test_result_whose_work_folder_is_lost_can_be_made_anew(project, elsewhere):
    lose(project, "")
    project.edit("psy-tasks/task_t.py", "x * 10", "x * 100")
    assert project.count("run", "--force") == 3
    assert elsewhere() == {"x": [0, 1, 2], "y": [0, 100, 200]}
    assert project.count("run") == 0


def test_batches_after_the_loss_of_a_work_folder_are_not_taken_for_those_before(project, elsewhere):
    lose(project, "")
    (project.root / "res/t.pkl").unlink()  # The receipt stays.
    project.edit("psy-tasks/task_t.py", "x * 10", "x * 100")
    assert project.count("run") == 3
    assert elsewhere() == {"x": [0, 1, 2], "y": [0, 100, 200]}


LOSABLE = ("in", "out", "process.json", "plan.json", "result.pkl.receipt", "result.pkl")


@pytest.mark.slow
@pytest.mark.parametrize("edited", [False, pytest.param(True, marks=pytest.mark.long)])
def test_whatever_is_lost_together_the_result_is_right_or_the_user_is_asked(project, edited):
    project.finish(FILES)
    work, taken = project.root / "psy-work/t", project.root.parent / "taken"
    shutil.copytree(work, taken)
    if edited:
        project.edit("psy-tasks/task_t.py", "x * 10", "x * 100")
    right = {"x": [0, 1, 2], "y": [0, 100, 200] if edited else [0, 10, 20]}
    for lost in chain.from_iterable(combinations(LOSABLE, size) for size in range(len(LOSABLE) + 1)):
        shutil.rmtree(work)
        shutil.copytree(taken, work)
        copy = ["plan.json.bak"] if "plan.json" in lost else []
        lose(project, *(f"t/{name}" for name in (*lost, *copy)))
        before = len(project.rows_seen())
        done = project.psy("run", code=None)
        evaluated = len(project.rows_seen()) - before
        if done.returncode == 0:
            assert project.result("t") == right, lost
            everything = edited or ("result.pkl" in lost and {"in", "out"} & {*lost})
            assert evaluated == (3 if everything else 0), lost
        else:
            assert done.returncode == 2, (lost, done.stderr)
            assert "psy run --continue t" in done.stderr
            assert "result.pkl" not in lost
            assert {"result.pkl.receipt", "in"} & {*lost}
            assert project.count("run", "--continue") == 0
            assert project.result("t") == ROWS, lost
        assert project.count("run") == 0, lost


@pytest.mark.parametrize("more", [[], ["t/log"], ["t/plan.json"], ["t/code"], [".doit.db"]])
def test_loss_of_journals_and_of_their_receipt_evaluates_nothing(project, more):
    project.finish(FILES)
    lose(project, "t/out", "t/process.json", *more)
    assert project.count("run") == 0
    assert project.result("t") == ROWS
    assert project.status("t")["uptodate"]
    project.edit("psy-tasks/task_t.py", "range(3)", "range(5)")
    assert project.count("run") == 2


@pytest.mark.parametrize("more", [[], ["t/out"], ["t/in"], ["t/plan.json"]])
def test_loss_of_the_receipt_of_a_result_costs_nothing_once_its_rows_are_kept(project, more):
    project.finish({"psy-tasks/task_t.py": SIMPLE.replace("range(3)", "[0, 1, 1, 2]")})
    before = project.result("t")
    lose(project, "t/result.pkl.receipt", *more)
    rows = len(project.rows_seen())
    assert "keep its rows: psy run --continue t" in project.psy("run", code=2).stderr
    assert len(project.rows_seen()) == rows
    assert project.count("run", "--continue") == 0
    assert project.result("t") == before
    assert project.count("run") == 0
    assert project.status("t")["uptodate"]


@pytest.mark.parametrize("lost", ["t/out", "t/in"])
def test_loss_of_a_file_evaluates_nothing_after_an_edit_that_does_not_count(project, lost):
    project.finish(FILES)
    lose(project, lost)
    assert project.count("run", "--continue") == 0
    project.task("t", SIMPLE + "# a comment\n")
    assert project.count("run") == 0
    assert project.result("t") == ROWS
    assert project.status("t")["uptodate"]


@pytest.mark.parametrize(
    ("lost", "evaluated"), [("out", 3), ("in", 3), ("plan.json", 1), ("code", 1), ("log", 1), ("jobs", 1)]
)
def test_unfinished_task_goes_on_after_the_loss_of_a_file(project, lost, evaluated):
    body = "import os\nreturn {'y': 10 * x / (x < 2 or not os.path.exists('broken'))}"
    text = task_of("pspace = Param(x=range(3))", body)
    project.finish({"psy-tasks/task_t.py": text, "psy-tasks/broken": ""}, code=1)
    assert len(project.rows_seen()) == 3
    (project.root / "psy-tasks/broken").unlink()
    lose(project, f"t/{lost}")
    assert project.count("run") == evaluated
    assert project.result("t") == ROWS


def test_damaged_result_is_written_again(project):
    project.finish(FILES)
    (project.root / "psy-work/t/result.pkl").write_bytes(b"")
    assert not project.status("t")["uptodate"]
    assert project.count("run") == 0
    assert project.result("t") == ROWS


def test_loss_of_one_journal_evaluates_its_rows_once_the_result_is_gone(project):
    project.finish(FILES)
    next((project.root / "psy-work/t/out").glob("*.rows")).unlink()
    assert project.count("run") == 0
    (project.root / "psy-work/t/result.pkl").unlink()
    assert project.count("run") == 1
    assert project.result("t") == ROWS


def test_rows_that_only_the_result_holds_are_not_evaluated_again_after_an_edit(project):
    project.finish(FILES)
    shutil.rmtree(project.root / "psy-work/t/out")
    project.edit("psy-tasks/task_t.py", "range(3)", "range(4)")
    assert project.count("run") == 1
    assert project.result("t") == {"x": [0, 1, 2, 3], "y": [0, 10, 20, 30]}


# ---------------------------------------------------------------------- overwriting


def test_force_evaluates_everything_again(project):
    project.finish(FILES)
    assert project.count("run", "--force") == 3
    assert project.result("t") == ROWS
    assert project.count("run") == 0
    assert "--continue" in project.psy("run", "--force", "--continue", code=2).stderr


def test_rows_that_force_gave_up_do_not_come_back(project):
    """What they depend on is not followed: rows outside of the space may be wrong as well."""
    project.write("psy-tasks/weather", "1")
    project.task("t", SIMPLE.replace("x * 10", "x * int(open('weather').read())"))
    project.psy("run")
    project.edit("psy-tasks/task_t.py", "range(3)", "[1]")
    project.psy("run")
    project.write("psy-tasks/weather", "5")
    assert project.count("run", "--force") == 1
    project.edit("psy-tasks/task_t.py", "[1]", "[1, 1, 2]")
    assert project.count("run") == 2
    assert project.result("t") == {"x": [1, 1, 2], "y": [5, 5, 10]}
    project.edit("psy-tasks/task_t.py", "[1, 1, 2]", "[0, 1]")
    assert project.count("run", "--continue") == 1
    assert project.result("t") == {"x": [0, 1, 1, 2], "y": [0, 5, 5, 10]}


@pytest.fixture
def foreign(project):
    """A project with a result file of two rows that psyrun did not write."""
    project.task("t", SIMPLE)
    (project.root / "psy-work/t").mkdir(parents=True)
    with (project.root / "psy-work/t/result.pkl").open("wb") as file:
        pickle.dump({"x": [2, 0], "y": [-2, -1]}, file)
    return project


def test_result_that_psyrun_did_not_write_is_not_overwritten(foreign):
    done = foreign.psy("run", code=2)
    assert "psy-work/t/result.pkl" in done.stderr
    assert "psy run --continue t" in done.stderr
    assert "psy run --force t" in done.stderr
    assert foreign.result("t") == {"x": [2, 0], "y": [-2, -1]}
    assert foreign.rows_seen() == []


def test_force_overwrites_a_result_that_psyrun_did_not_write(foreign):
    assert foreign.count("run", "--force", "t") == 3
    assert foreign.result("t") == ROWS
    assert foreign.count("run") == 0


def test_continue_adopts_the_rows_of_a_result_that_psyrun_did_not_write(foreign):
    assert foreign.count("run", "--continue", "t") == 1
    assert foreign.result("t") == {"x": [0, 1, 2], "y": [-1, 10, -2]}
    assert foreign.count("run") == 0
    foreign.edit("psy-tasks/task_t.py", "range(3)", "range(4)")
    assert foreign.count("run") == 1
    assert foreign.result("t") == {"x": [0, 1, 2, 3], "y": [-1, 10, -2, 30]}


def test_rows_of_a_result_that_psyrun_did_not_write_are_adopted_once(foreign):
    foreign.edit("psy-tasks/task_t.py", "    seen(x)\n", "    seen(x)\n    1 / (x - 1)\n")
    foreign.edit("psy-tasks/task_t.py", "range(3)", "range(1, 4)")
    assert foreign.count("run", "--continue", "t", code=1) == 2
    foreign.edit("psy-tasks/task_t.py", "    1 / (x - 1)\n", "")
    assert foreign.count("run", "--continue", "t") == 1
    assert foreign.result("t") == {"x": [1, 2, 3, 0], "y": [10, -2, 30, -1]}


def test_adopted_result_is_remembered_until_it_is_written_anew(foreign):
    foreign.edit("psy-tasks/task_t.py", "    seen(x)\n", "    seen(x)\n    open('../gate').close()\n")
    assert foreign.count("run", "--continue", "t", code=1) == 1
    assert foreign.result("t") == {"x": [2, 0], "y": [-2, -1]}
    (foreign.root / "gate").touch()
    assert foreign.count("run") == 1
    assert foreign.result("t") == {"x": [0, 1, 2], "y": [-1, 10, -2]}


def test_another_result_in_the_place_of_an_adopted_one_is_not_overwritten(foreign):
    foreign.edit("psy-tasks/task_t.py", "    seen(x)\n", "    seen(x)\n    open('../gate').close()\n")
    foreign.psy("run", "--continue", "t", code=1)
    (foreign.root / "gate").touch()
    other = pickle.dumps({"x": [2, 0], "y": [-3, -4]})
    (foreign.root / "psy-work/t/result.pkl").write_bytes(other)
    assert "psyrun did not write this file" in foreign.psy("run", code=2).stderr
    assert (foreign.root / "psy-work/t/result.pkl").read_bytes() == other


def test_nodes_of_doit_adopt_a_result_too(foreign):
    foreign.psy("doit", "run", "t:split", "--keep-rows")
    foreign.psy("doit", "run", "t")
    assert foreign.result("t") == {"x": [0, 1, 2], "y": [-1, 10, -2]}


def test_result_whose_columns_differ_in_length_is_not_adopted(foreign):
    (foreign.root / "psy-work/t/result.pkl").write_bytes(pickle.dumps({"x": [2, 0], "y": [-2]}))
    assert "its columns differ in length" in foreign.psy("run", "--continue", code=2).stderr


def test_no_batch_is_taken_for_a_result_whose_digest_cannot_be_read(project, monkeypatch):
    project.task("t", SIMPLE.replace("from counting import seen\n", "").replace("    seen(x)\n", ""))
    project.psy("run")
    outline = read_outlines(project.root, "psy-tasks")[0]["t"]
    outline.layout.receipt.unlink()
    outline.layout.result.write_bytes(pickle.dumps({"x": [5], "y": [7]}))
    # Permissions do not stop root.
    for module in (adoption, unmanaged):
        monkeypatch.setattr(module, "file_digest", lambda path: None)
    old = read_plan(outline.layout)
    with open_task(outline) as task:
        found = adoption.adopt(task, old.code, old, RunOptions(adopt=True), {"x": [0, 1, 2]}, NO_CHANGES)
    (rows,) = found.results
    assert (rows.batch.columns, rows.values) == ({"x": [5]}, {"y": [7]})


def test_overwrite_dirty_false_refuses_to_make_rows_stale(project):
    project.task("t", SIMPLE + "overwrite_dirty = False\n")
    assert project.count("run") == 3
    project.edit("psy-tasks/task_t.py", "range(3)", "range(4)")
    assert project.count("run") == 1
    before = project.result("t")

    project.edit("psy-tasks/task_t.py", "x * 10", "x * 11")
    done = project.psy("run", code=2)
    assert len(project.rows_seen()) == 4
    assert project.result("t") == before
    assert all(word in done.stderr for word in ("overwrite_dirty", "--continue", "--force"))

    assert project.count("run", "--continue") == 0
    assert project.result("t") == before
    project.edit("psy-tasks/task_t.py", "x * 11", "x * 12")
    assert project.count("run", code=2) == 0
    assert project.count("run", "--force") == 4
    assert project.result("t")["y"] == [0, 12, 24, 36]


# ---------------------------------------------------------------------- settings that are wrong

WRONG = [
    ("pspace", "pspace = [1, 2]"),
    ("execute", "execute = 3"),
    ("setup", "setup = 3"),
    ("name", "name = 3"),
    ("name", 'name = "a b"'),
    ("name", 'name = "run"'),
    ("file_dep", 'file_dep = "data.csv"'),
    ("file_dep", "file_dep = [3]"),
    ("workdir", "workdir = 3"),
    ("resultfile", "resultfile = 3"),
    ("store", 'store = "npz"'),
    ("exclude_from_result", 'exclude_from_result = "y"'),
    ("max_jobs", "max_jobs = 0"),
    ("max_jobs", 'max_jobs = "3"'),
    ("min_items", "min_items = 1.5"),
    ("pool_size", "pool_size = True"),
    ("timeout", 'timeout = "1 h"'),
    ("timeout", "timeout = -1"),
    ("backend", 'backend = "DistributeBackend"'),
    ("scheduler", 'scheduler = "slurm"'),
    ("scheduler_args", 'scheduler_args = ["-t", "1h"]'),
    ("merge_args", "merge_args = 3"),
    ("prologue", "prologue = 3"),
    ("python", "python = None"),
    ("overwrite_dirty", 'overwrite_dirty = "no"'),
    ("untracked", 'untracked = "scratch/*"'),
    ("stateless", "stateless = 1"),
    ("track_inputs", 'track_inputs = "no"'),
]


@pytest.mark.parametrize(("setting", "line"), [pytest.param(*each, id=each[1]) for each in WRONG])
def test_wrong_setting_is_refused_before_anything_is_written(project, setting, line):
    project.task("t", SIMPLE + line + "\n")
    done = project.psy("run", code=2)
    [message] = done.stderr.splitlines()
    assert "psy-tasks/task_t.py" in message
    assert setting in message
    assert re.search(r"has to be|use |rename|set ", message)
    assert not (project.root / "psy-work/t").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        pytest.param("pool_size", "pol_size", ["'pol_size'", "did you mean 'pool_size'"], id="pol_size"),
        pytest.param("pool_size", "max_job", ["'max_job'", "did you mean 'max_jobs'"], id="max_job"),
        pytest.param("pool_size", "timeouts", ["'timeouts'", "did you mean 'timeout'"], id="timeouts"),
        pytest.param("pspace =", "psapce =", ["'psapce'", "did you mean 'pspace'"], id="psapce"),
        pytest.param("def execute", "def exectue", ["'exectue'", "did you mean 'execute'"], id="exectue"),
        pytest.param("pspace =", "grid =", ["pspace", "define"], id="no pspace"),
        pytest.param("def execute", "def run_it", ["execute", "define"], id="no execute"),
        pytest.param("execute(x)", "execute(z=0)", ["execute(z)", "'x'", "add"], id="takes too little"),
        pytest.param("execute(x)", "execute(x, z)", ["execute", "'z'", "add"], id="needs more"),
        pytest.param("range(3)", "{1, 2}", ["'x'", "set", "list"], id="set without order"),
        pytest.param(
            "pool_size", "file_dep = ['no.csv']\npool_size", ["no.csv", "does not exist"], id="no data"
        ),
        pytest.param(
            "range(3)",
            "[lambda: 3]",
            ["'x'", "can't be pickled", "make the object in execute"],
            id="unpicklable",
        ),
    ],
)
def test_task_file_that_cannot_work_is_refused_before_anything_is_written(project, old, new, words):
    project.task("t", SIMPLE.replace(old, new, 1))
    done = project.psy("run", code=2)
    [message] = done.stderr.splitlines()
    assert "psy-tasks/task_t.py" in message
    assert [word for word in words if word not in message] == [], message
    assert not (project.root / "psy-work/t").exists()
    assert project.rows_seen() == []


def test_wrong_setting_of_a_finished_task_leaves_its_result(project):
    project.finish(FILES)
    project.edit("psy-tasks/task_t.py", "pool_size = 1", "max_job = 1")
    project.psy("run", code=2)
    assert project.result("t") == ROWS


# ---------------------------------------------------------------------- settings that work


def test_workdir_and_name_say_where_the_work_folder_is(project):
    project.task("t", 'workdir = "out/work dir"\nname = "other-name"\n' + SIMPLE)
    assert project.count("run", "other-name") == 3
    with (project.root / "out/work dir/other-name/result.pkl").open("rb") as file:
        assert pickle.load(file) == ROWS
    assert project.psy("list").stdout == "other-name\n"
    assert project.status("other-name")["result"] == "out/work dir/other-name/result.pkl"
    assert project.count("run") == 0
    project.psy("run", "t", code=2)


@pytest.mark.parametrize(
    ("head", "path"),
    [
        ('resultfile = "../results/mine.pkl"', "results/mine.pkl"),
        ('resultfile = "../results/mine.npz"', "results/mine.npz"),
        ('resultfile = "../results/mine.h5"', "results/mine.h5"),
        ("from psyrun.store.npz import NpzStore\nstore = NpzStore()", "psy-work/t/result.npz"),
        ("from psyrun.store.h5 import H5Store\nstore = H5Store()", "psy-work/t/result.h5"),
    ],
)
def test_result_is_stored_by_store_or_extension(project, head, path):
    project.task("t", head + "\n" + SIMPLE)
    project.psy("run")
    assert project.status("t")["result"] == path
    table = AutodetectStore.get_concrete_store(project.root / path).load(project.root / path)
    assert {name: list(values) for name, values in table.items()} == ROWS
    if path.endswith(".npz"):
        with np.load(project.root / path) as arrays:
            assert list(arrays["y"]) == ROWS["y"]
    before = (project.root / path).read_bytes()
    assert project.count("run") == 0
    (project.root / path).unlink()
    assert project.count("run") == 0
    assert len((project.root / path).read_bytes()) == len(before)


def test_values_that_the_store_cannot_hold_are_named_and_kept(project):
    project.task("t", 'resultfile = "mine.h5"\n' + SIMPLE.replace("x * 10", "{'a': {1: x}}"))
    done = project.psy("run", code=1)
    assert "'y'" in done.stderr
    kept = project.status("t")["done"]  # It is found with the first row, and may end the run before the last.
    assert kept > 0
    project.edit("psy-tasks/task_t.py", 'resultfile = "mine.h5"\n', "")
    assert project.count("run") == 3 - kept
    assert project.result("t")["y"][2] == {"a": {1: 2}}


def test_excluded_names_are_not_recorded(project):
    project.task("t", SIMPLE.replace('{"y": x * 10}', '{"y": x * 10, "trace": lambda: 3}'))
    project.edit("psy-tasks/task_t.py", "pool_size = 1", 'exclude_from_result = ["trace"]')
    project.psy("run")
    assert project.result("t") == ROWS


def test_setup_is_called_once_per_process_and_its_values_are_passed_and_recorded(project):
    project.task(
        "t",
        """\
        from counting import seen
        from psyrun import Param
        pspace = Param(x=range(8))
        pool_size = 2
        exclude_from_result = ["model"]
        def setup(number):
            seen("setup", number)
            return {"process": number, "model": [number]}
        def execute(x, process, model):
            seen("row", process)
            model.append(x)
            return {"y": model[0]}
        """,
    )
    project.psy("run")
    calls = [row for row in project.rows_seen() if "setup" in row]
    assert len(calls) == len(set(calls))
    assert set(calls) <= {"('setup', 0)", "('setup', 1)"}
    result = project.result("t")
    assert set(result) == {"x", "process", "y"}
    assert result["y"] == result["process"]
    rows = [row for row in project.rows_seen() if "row" in row]
    assert sorted(rows) == sorted(f"('row', {number})" for number in result["process"])

    project.edit("psy-tasks/task_t.py", "pool_size = 2", "pool_size = 1")
    project.edit("psy-tasks/task_t.py", "range(8)", "range(12)")
    assert project.count("run") == 1 + 4
    assert project.result("t")["process"][8:] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("head", "batches"),
    [
        ("", 10),
        ("max_jobs = 3", 3),
        ("min_items = 4", 2),
        ("max_jobs = 3\nmin_items = 2", 3),
        ("max_jobs = 3\nmin_items = 20", 1),
    ],
)
def test_max_jobs_and_min_items_say_how_many_batches(project, head, batches):
    project.task("t", task_of(f"pspace = Param(x=range(10))\npool_size = 1\n{head}"))
    assert project.count("run") == 10
    assert number_of_batches(project, "t") == batches
    assert project.result("t")["x"] == list(range(10))


def test_psy_conf_gives_defaults_that_a_task_file_overrides(project):
    project.write("psy-tasks/psy-conf.py", 'max_jobs = 2\nresultfile = None\nworkdir = "work"\n')
    project.task("plain", SIMPLE)
    project.task("own", "max_jobs = 1\n" + SIMPLE)
    project.psy("run")
    batches = {name: len(list((project.root / f"work/{name}/in").iterdir())) for name in ("plain", "own")}
    assert batches == {"plain": 2, "own": 1}
    assert not (project.root / "psy-work/plain").exists()


def test_wrong_setting_in_psy_conf_is_named(project):
    project.write("psy-tasks/psy-conf.py", "max_jobs = 0\n")
    project.task("t", SIMPLE)
    done = project.psy("run", code=2)
    assert "max_jobs has to be" in done.stderr
    assert "psy-conf.py" in done.stderr


MEETING = """\
import os, time
open(f"../met-{os.getpid()}", "w").close()
deadline = time.monotonic() + 60
while len([name for name in os.listdir("..") if name.startswith("met-")]) < 2:
    assert time.monotonic() < deadline
    time.sleep(0.01)
return {"pid": os.getpid()}
"""


@pytest.mark.parametrize(
    ("head", "arguments"),
    [pytest.param("pool_size = 2", [], id="pool_size"), pytest.param("pool_size = 1", ["-j", "2"], id="-j")],
)
def test_rows_are_evaluated_by_so_many_processes(project, head, arguments):
    """Each row waits until rows of two processes have begun."""
    project.task("t", task_of(f"pspace = Param(x=range(8))\n{head}", MEETING))
    said = project.psy("run", *arguments).stdout
    assert said.splitlines()[0] == "t: 8 rows to evaluate in 8 batches, 2 processes"
    assert len(set(project.result("t")["pid"])) == 2


def test_one_process_evaluates_all_rows(project):
    project.task("t", task_of("pspace = Param(x=range(4))", "import os\nreturn {'pid': os.getpid()}"))
    assert "1 process" in project.psy("run", "-j", "1").stdout.splitlines()[0]
    assert len(set(project.result("t")["pid"])) == 1
    project.psy("run", "-j", "0", code=2)


def test_timeout_fails_the_row_that_hangs(project):
    project.task(
        "t",
        task_of(
            "pspace = Param(x=range(3))\ntimeout = 1\npool_size = 1",
            "import time\nif x == 1:\n    time.sleep(600)\nreturn {'y': x}",
        ),
    )
    project.psy("run", code=1)
    status = project.status("t")
    assert (status["done"], status["failed"]) == (2, 1)
    [line] = [line for line in project.psy("status", "-v").stdout.splitlines() if "failed:" in line]
    assert "x=1" in line
    assert "timeout" in line


def test_task_file_sees_its_own_folder(project):
    project.write("psy-tasks/data.txt", "7")
    project.write("psy-tasks/beside.py", "def read():\n    return int(open('data.txt').read())\n")
    project.task(
        "t",
        "from beside import read\n"
        + task_of(
            "pspace = Param(x=[read()])",
            "import os\nreturn {'y': read(), 'file': os.path.basename(__file__)}",
        ),
    )
    project.psy("run")
    assert project.result("t") == {"x": [7], "y": [7], "file": ["task_t.py"]}


def test_empty_space_leaves_an_empty_result(project):
    project.task("t", task_of("pspace = Param(x=[])"))
    assert project.count("run") == 0
    assert project.result("t") == {"x": []}
    assert project.status("t")["uptodate"]


@pytest.mark.parametrize(
    ("arguments", "users", "expected"),
    [
        (["-j", "1"], {}, "cores"),
        (["-j", "500"], {}, "1"),
        (["-j", "1"], {"OMP_NUM_THREADS": "7"}, "7"),
    ],
)
def test_children_share_the_cores_among_their_threads(project, monkeypatch, arguments, users, expected):
    for name in [name for name in os.environ if name.endswith("_NUM_THREADS")]:
        monkeypatch.delenv(name)
    for name, value in users.items():
        monkeypatch.setenv(name, value)
    cores = joblib.cpu_count()
    body = "import os\nreturn {'threads': os.environ['OMP_NUM_THREADS']}"
    project.task("t", task_of(f"pspace = Param(x=range({cores}))", body))
    project.psy("run", *arguments)
    assert set(project.result("t")["threads"]) == {str(cores) if expected == "cores" else expected}


def test_task_run_alone_says_which_upstream_failed(project):
    text = """\
import os
from psyrun import Param
pspace = Param(x=range(3))
def execute(x):
    return {"y": 1 // (x - 1) if not os.path.exists("../mended") else 0}
"""
    project.task("a", text)
    for name, upstream in (("b", "a"), ("c", "b")):
        project.task(name, text + f'file_dep = ["../psy-work/{upstream}/result.pkl"]\n')
    done = project.psy("run", "c", code=1)
    assert "a: 2 of 3 rows done, 1 failed\n" in done.stdout
    assert "why: psy errors a" in done.stdout
    assert "b: waits for psy-work/a/result.pkl, the result of a\n" in done.stdout
    assert "c: waits for psy-work/b/result.pkl, the result of b\n" in done.stdout
    (project.root / "mended").touch()
    done = project.psy("run", "c")
    assert done.stdout.splitlines()[-1] == "c: finished, 3 rows in psy-work/c/result.pkl"


def test_warnings_of_others_are_shown_once_with_their_origin_and_not_as_ours(project):
    project.write("../elsewhere/old.py", "import warnings\ndef use():\n    warnings.warn('too old')\n")
    project.task(
        "a",
        """
        import old, warnings
        from psyrun import Param
        warnings.warn("invalid", RuntimeWarning)
        warnings.warn("to be removed", PendingDeprecationWarning)
        for _ in range(3):
            old.use()
        pspace = Param(x=[1])
        def execute(x):
            return {}
        """,
    )
    lines = project.psy("run", "a").stdout.splitlines()
    file, old = project.root / "psy-tasks/task_a.py", project.root.parent / "elsewhere/old.py"
    first = lines.index(f"{file}:4: RuntimeWarning: invalid")
    assert lines[first : first + 4] == [
        f"{file}:4: RuntimeWarning: invalid",
        '  warnings.warn("invalid", RuntimeWarning)',
        f"{old}:3: UserWarning: too old",
        "  warnings.warn('too old')",
    ]
    rest = "".join(lines[:first] + lines[first + 4 :])
    assert not any(word in rest for word in ("invalid", "too old", "to be removed", "psy:"))
