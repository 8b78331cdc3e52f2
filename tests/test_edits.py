"""What an edit evaluates again: the new rows, all rows, or none."""

import ast
import os
import shutil
from collections import Counter

import pytest

from psyrun import cli
from psyrun.source import archive, capture, digests
from psyrun.split import adoption, draft

TASK = """\
from counting import seen
from helper import scale
from psyrun import Param

N = 3
OFFSET = 1
pspace = Param(x=range(N))
pool_size = 1
timeout = 50


def execute(x):
    seen(x)
    return {"y": scale(x) + OFFSET}
"""
HELPER = """\
import deeper


def scale(x):
    return deeper.factor(x) * x
"""
DEEPER = """\
def factor(x):
    return 10
"""
TASK_FILE, HELPER_FILE, DEEPER_FILE = "psy-tasks/task_t.py", "psy-tasks/helper.py", "psy-tasks/deeper.py"
FILES = {TASK_FILE: TASK, HELPER_FILE: HELPER, DEEPER_FILE: DEEPER}


@pytest.fixture
def finished(project):
    """A project whose only task, with a helper of a helper, was run: 3 evaluations."""
    project.finish(FILES)
    assert len(project.rows_seen()) == 3
    return project


def write_all(project):
    for path, text in FILES.items():
        project.write(path, text)


def small(project, pspace, execute='return {"y": x}', above="", signature="x"):
    """Write task t of a few lines."""
    project.task(
        "t",
        f"from counting import seen\nfrom psyrun import Param\nimport numpy as np\n{above}\n"
        f"pspace = {pspace}\npool_size = 1\n\n"
        f"def execute({signature}):\n    seen(x)\n    {execute}\n",
    )


def swap(project, path, old, new):
    """Write the original files with one of them edited."""
    write_all(project)
    project.edit(path, old, new)


def count_by_task(project, names):
    """Run psy and return how many rows each task evaluated, where they say `seen("<task>", ...)`."""
    before = len(project.rows_seen())
    project.psy("run")
    said = Counter(ast.literal_eval(row.partition(",")[0] + ",)")[0] for row in project.rows_seen()[before:])
    return {name: said[name] for name in names}


# ---------------------------------------------------------------------- nothing

NOTHING = {
    "comment": (TASK_FILE, "    seen(x)\n", "    seen(x)  # counts\n    # and goes on\n"),
    "docstring of execute": (TASK_FILE, "    seen(x)\n", '    """Scale x."""\n    seen(x)\n'),
    "docstring of the file": (TASK_FILE, "from counting", '"""A task."""\n\nfrom counting'),
    "formatting": (
        TASK_FILE,
        'return {"y": scale(x) + OFFSET}',
        "return {\n        'y': (scale(x)+OFFSET),\n    }",
    ),
    "timeout": (TASK_FILE, "timeout = 50", "timeout = 60"),
    "timeout removed": (TASK_FILE, "timeout = 50\n", ""),
    "max_jobs": (TASK_FILE, "timeout = 50", "max_jobs = 2"),
    "min_items": (TASK_FILE, "timeout = 50", "min_items = 2"),
    "pool_size": (TASK_FILE, "pool_size = 1", "pool_size = 2"),
    "another way to write the space": (TASK_FILE, "Param(x=range(N))", "Param(x=[0, 1, 2])"),
    "constant that nothing reads": (TASK_FILE, "OFFSET = 1\n", "OFFSET = 1\nCOLOUR = 'red'\n"),
    "function that nothing calls": (
        TASK_FILE,
        "OFFSET = 1\n",
        "OFFSET = 1\ndef plot():\n    OFFSET\n",
    ),
    "comment in a helper": (HELPER_FILE, "import deeper\n", "import deeper  # has the factor\n"),
    "docstring in a helper's helper": (DEEPER_FILE, "def", '"""Factors."""\n\ndef'),
    "settings in psy-conf.py": (TASK_FILE, "pool_size = 1\n", ""),
}


def test_edits_that_change_no_value_evaluate_nothing(finished):
    before = finished.result("t")
    counts = {}
    for what, (path, old, new) in NOTHING.items():
        swap(finished, path, old, new)
        if what == "settings in psy-conf.py":
            finished.write("psy-tasks/psy-conf.py", "pool_size = 1\n")
        counts[what] = finished.count("run")
    assert counts == dict.fromkeys(NOTHING, 0)
    assert finished.result("t") == before


def test_touched_sources_evaluate_nothing(finished):
    for path in FILES:
        (finished.root / path).touch()
    assert finished.count("run") == 0


def test_names_that_are_excluded_later_leave_the_result_without_evaluation(finished):
    finished.edit(TASK_FILE, "timeout = 50", 'exclude_from_result = ["y"]')
    assert finished.count("run") == 0
    assert finished.result("t") == {"x": [0, 1, 2]}
    finished.edit(TASK_FILE, 'exclude_from_result = ["y"]', "")
    assert finished.count("run") == 0
    assert finished.result("t") == {"x": [0, 1, 2], "y": [1, 11, 21]}


def test_another_store_takes_the_rows_without_evaluation(finished):
    finished.edit(TASK_FILE, "timeout = 50", 'resultfile = "../psy-work/t/other.npz"')
    assert finished.count("run") == 0
    assert (finished.root / "psy-work/t/other.npz").exists()
    assert finished.status("t")["uptodate"]


# ---------------------------------------------------------------------- the space


SPACES = {  # name of a task: (before, after, evaluated, values of x in the result)
    "value_appended": ("range(N)", "range(N + 1)", 1, [0, 1, 2, 3]),
    "values_in_between": ("range(N)", "[0, 7, 1, 8, 2]", 2, [0, 7, 1, 8, 2]),
    "constant_above": ("N = 3", "N = 5", 2, [0, 1, 2, 3, 4]),
    "space_appended": ("pool_size", "pspace += Param(x=[10, 11])\npool_size", 2, [0, 1, 2, 10, 11]),
    "loop_appended": (
        "pool_size",
        "for k in (5, 6):\n    pspace += Param(x=[k])\npool_size",
        2,
        [0, 1, 2, 5, 6],
    ),
    "made_by_a_function": (
        "pspace = Param(x=range(N))",
        (
            "def values(n):\n    return [2 * i for i in range(n)]\n\n\n"
            "def make_grid():\n    return Param(x=values(N))\n\n\npspace = make_grid()"
        ),
        1,
        [0, 2, 4],
    ),
    "removed": ("range(N)", "[0, 2]", 0, [0, 2]),
    "reordered": ("range(N)", "[2, 0, 1]", 0, [2, 0, 1]),
    "one_kept_one_new": ("range(N)", "[1, 9]", 1, [1, 9]),
    "float_for_int": ("range(N)", "[0, 1.0, 2]", 1, [0, 1.0, 2]),
    "bool_for_int": ("range(N)", "[0, True, 2]", 1, [0, True, 2]),
    "two_more_of_one": ("range(N)", "[0, 1, 1, 1, 2]", 2, [0, 1, 1, 1, 2]),
    "emptied": ("range(N)", "[]", 0, []),
}


def test_edits_of_the_space_evaluate_only_new_rows(project):
    write_all(project)
    (project.root / TASK_FILE).unlink()
    for name in SPACES:
        project.task(name, TASK.replace("seen(x)", f"seen({name!r}, x)"))
    assert project.count("run") == 3 * len(SPACES)
    for name, (old, new, *_) in SPACES.items():
        project.edit(f"psy-tasks/task_{name}.py", old, new)
    assert count_by_task(project, SPACES) == {name: evaluated for name, (*_, evaluated, _) in SPACES.items()}
    results = {name: project.result(name) for name in SPACES}
    typed = {name: [(type(x), x) for x in result["x"]] for name, result in results.items()}
    assert typed == {name: [(type(x), x) for x in rows] for name, (*_, rows) in SPACES.items()}
    for name, result in results.items():
        assert list(result.get("y", [])) == [10 * x + 1 for x in result["x"]], name
    assert project.count("run") == 0


def test_rows_that_leave_the_space_and_come_back_are_not_evaluated_again(finished):
    finished.edit(TASK_FILE, "N = 3", "N = 1")
    assert finished.count("run") == 0
    assert finished.result("t") == {"x": [0], "y": [1]}
    finished.edit(TASK_FILE, "N = 1", "N = 3")
    assert finished.count("run") == 0
    assert finished.result("t") == {"x": [0, 1, 2], "y": [1, 11, 21]}


def test_another_factor_evaluates_all_rows(project):
    small(project, "Param(x=[0, 1])", signature="x, z=0", execute='return {"y": x + z}')
    assert project.count("run") == 2
    project.edit(TASK_FILE, "Param(x=[0, 1])", "Param(x=[0, 1]) * Param(z=[0, 5])")
    assert project.count("run") == 4
    assert project.result("t") == {"x": [0, 0, 1, 1], "z": [0, 5, 0, 5], "y": [0, 5, 1, 6]}


def test_equal_rows_are_as_many_evaluations(project):
    small(project, "Param(x=[1, 1, 1, 2])", execute='import os; return {"y": len(os.urandom(x))}')
    assert project.count("run") == 4
    assert project.result("t") == {"x": [1, 1, 1, 2], "y": [1, 1, 1, 2]}
    project.edit(TASK_FILE, "[1, 1, 1, 2]", "[1, 1, 2]")
    assert project.count("run") == 0
    assert project.result("t")["x"] == [1, 1, 2]
    project.edit(TASK_FILE, "[1, 1, 2]", "[1, 1, 1, 1, 2]")
    assert project.count("run") == 1


KINDS = {  # name of a task: (three values, one more)
    "nan": ("[float('nan'), 1.5, np.inf]", "-0.5"),
    "strings": ("['a', 'ä b', '']", "b'a'"),
    "arrays": ("[np.arange(2), np.arange(3), np.ones((1, 2))]", "np.arange(2.0)"),
    "containers": ("[None, (1, 'a'), {'k': [1, 2]}]", "(1, 'b')"),
    "numpy_scalars": ("list(np.linspace(0, 1, 3))", "np.float64(7)"),
    "complex": ("[1j, 1 + 1j, complex('nan')]", "1.0"),
}


def test_values_of_any_kind_are_recognised(project):
    for name, (values, _) in KINDS.items():
        project.task(
            name,
            f"""\
            import numpy as np
            from counting import seen
            from psyrun import Param
            pspace = Param(x={values})
            pool_size = 1
            def execute(x):
                seen({name!r}, x)
                return {{"kind": type(x).__name__, "text": repr(x)}}
            """,
        )
    assert count_by_task(project, KINDS) == dict.fromkeys(KINDS, 3)
    first = {name: project.result(name) for name in KINDS}
    assert project.count("run") == 0
    for name, (values, more) in KINDS.items():
        project.edit(f"psy-tasks/task_{name}.py", f"(x={values})", f"(x=[*{values}, {more}])")
    assert count_by_task(project, KINDS) == dict.fromkeys(KINDS, 1)
    for name in KINDS:
        result = project.result(name)
        assert [repr(x) for x in result["x"]] == result["text"], name
        assert [type(x).__name__ for x in result["x"]] == result["kind"], name
        assert result["text"][:3] == first[name]["text"], name


def test_unlike_spaces_side_by_side_are_recognised(project):
    small(project, "Param(x=[1, 2]) + Param(z=[3])", signature="x, z")
    assert project.count("run") == 3
    assert project.count("run") == 0
    project.edit(TASK_FILE, "Param(z=[3])", "Param(z=[3, 4])")
    assert project.count("run") == 1


def test_random_space_is_drawn_once_per_edit(project):
    small(project, "Param(x=np.random.rand(3))")
    assert project.count("run") == 3
    drawn = project.result("t")["x"]
    assert project.count("run") == 0
    assert project.result("t")["x"] == drawn

    project.edit(TASK_FILE, '{"y": x}', '{"y": -x}')
    assert project.count("run") == 3
    assert project.result("t") == {"x": drawn, "y": [-x for x in drawn]}

    project.edit(TASK_FILE, "rand(3)", "rand(4)")
    assert project.count("run") == 4
    assert not set(project.result("t")["x"]) & set(drawn)


# ---------------------------------------------------------------------- the code

EVERYTHING = {
    "execute": (TASK_FILE, "+ OFFSET", "- OFFSET", [-1, 9, 19]),
    "constant that it reads": (TASK_FILE, "OFFSET = 1", "OFFSET = 2", [2, 12, 22]),
    "constant of a constant": (
        TASK_FILE,
        "OFFSET = 1",
        "BASE = 3\nOFFSET = BASE",
        [3, 13, 23],
    ),
    "constant changed by a bare call": (
        TASK_FILE,
        "OFFSET = 1\n",
        "LIST = []\nLIST.append(4)\nOFFSET = LIST[0]\n",
        [4, 14, 24],
    ),
    "helper": (HELPER_FILE, "* x", "* x + 1", [2, 12, 22]),
    "helper of the helper": (DEEPER_FILE, "return 10", "return 20", [1, 21, 41]),
    "default of an argument": (TASK_FILE, "def execute(x)", "def execute(x, OFFSET=5)", [5, 15, 25]),
    "constant moved to psy-conf.py": (TASK_FILE, "OFFSET = 1\n", "", [7, 17, 27]),
    "decorator": (
        TASK_FILE,
        "def execute",
        "def double(f):\n    return lambda x: {'y': 2 * f(x)['y']}\n\n@double\ndef execute",
        [2, 22, 42],
    ),
}


def test_edits_that_execute_depends_on_evaluate_all_and_the_old_code_finds_its_rows(finished):
    before = finished.result("t")
    counts, values = {}, {}
    for what, (path, old, new, _) in EVERYTHING.items():
        swap(finished, path, old, new)
        conf = finished.write("psy-tasks/psy-conf.py", "OFFSET = 7\n" if "psy-conf" in what else "\n")
        counts[what] = finished.count("run")
        values[what] = finished.result("t")["y"]
    assert counts == dict.fromkeys(EVERYTHING, 3)
    assert values == {what: expected for what, (*_, expected) in EVERYTHING.items()}

    write_all(finished)
    conf.unlink()
    assert finished.count("run") == 0
    assert finished.result("t") == before


def test_names_in_psy_conf_that_execute_reads_evaluate_all(project):
    small(project, "Param(x=[0, 1])", execute='return {"y": x + SHIFT}')
    project.write("psy-tasks/psy-conf.py", "SHIFT = 1\nCOLOUR = 'red'\n")
    assert project.count("run") == 2
    project.edit("psy-tasks/psy-conf.py", "red", "blue")
    assert project.count("run") == 0
    project.edit("psy-tasks/psy-conf.py", "SHIFT = 1", "SHIFT = 2")
    assert project.count("run") == 2
    assert project.result("t")["y"] == [2, 3]


def test_setup_belongs_to_the_code(project):
    small(
        project,
        "Param(x=[0, 1])",
        above='BIAS = 5\ndef setup(number):\n    return {"bias": BIAS}\n',
        signature="x, bias",
        execute='return {"y": x + bias}',
    )
    assert project.count("run") == 2
    project.edit(TASK_FILE, "BIAS = 5", "BIAS = 6")
    assert project.count("run") == 2
    assert project.result("t")["y"] == [6, 7]


def test_edit_of_equal_size_and_time_is_seen(finished):
    path = finished.root / DEEPER_FILE
    before = path.stat()
    finished.edit(DEEPER_FILE, "return 10", "return 30")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert finished.count("run") == 3
    assert finished.result("t")["y"] == [1, 31, 61]


def test_module_that_is_imported_inside_a_function_counts(project):
    small(project, "Param(x=[0, 1])", execute='import late; return {"y": late.f(x)}')
    project.write("psy-tasks/late.py", "def f(x):\n    return x\n")
    assert project.count("run") == 2
    project.edit("psy-tasks/late.py", "return x", "return -x")
    assert project.count("run") == 2
    assert project.result("t")["y"] == [0, -1]


def test_module_of_the_project_root_counts_where_the_task_file_imports_it(project):
    small(
        project,
        "Param(x=[0, 1])",
        above='import sys\nsys.path.insert(0, "..")\nimport model\n',
        execute='return {"y": model.f(x)}',
    )
    project.write("model.py", "def f(x):\n    return x\n")
    assert project.count("run") == 2
    project.edit("model.py", "return x", "return -x")
    assert project.count("run") == 2
    assert project.result("t")["y"] == [0, -1]


def test_run_says_what_an_edit_makes_stale_before_it_runs(finished):
    finished.edit(TASK_FILE, "OFFSET = 1", "OFFSET = 2")
    said = finished.psy("run").stdout.splitlines()
    assert said[0].startswith("t: psy-tasks/task_t.py: OFFSET changed. 3 rows (")
    assert said[0].endswith(" will be evaluated again; to keep them: psy run --continue t")
    assert "3 rows to evaluate" in said[1]
    finished.edit(HELPER_FILE, "* x", "* x * 1")
    assert "psy-tasks/helper.py: scale changed" in finished.psy("run").stdout
    finished.edit(TASK_FILE, "N = 3", "N = 4")
    assert "changed" not in finished.psy("run").stdout


def test_run_says_how_many_rows_an_edit_repeats_and_no_more(project):
    small(project, "Param(x=range(4))")
    project.psy("run")
    small(project, "Param(x=range(1, 8))", execute='return {"y": -x}')
    assert "changed. 3 rows (" in project.psy("run").stdout  # 0 has gone, and 4 to 7 are new.
    small(project, "Param(x=range(1, 4))")
    assert "evaluated again" not in project.psy("run").stdout  # They are kept from before.
    assert project.result("t") == {"x": [1, 2, 3], "y": [1, 2, 3]}


def test_overwrite_dirty_false_lets_the_code_go_back_where_nothing_is_lost(project):
    small(project, "Param(x=range(3))")
    project.psy("run")
    small(project, "Param(x=range(3))", execute='return {"y": -x}')
    project.psy("run")
    small(project, "Param(x=range(3))", above="overwrite_dirty = False\n")
    assert project.count("run") == 0
    assert project.result("t")["y"] == [0, 1, 2]
    small(project, "Param(x=range(3))", above="overwrite_dirty = False\n", execute='return {"y": x + 1}')
    done = project.psy("run", code=2)
    assert "3 finished rows would be evaluated again" in done.stderr
    assert "will be evaluated again" not in done.stdout


def test_run_that_fails_says_that_an_older_result_is_still_there(project):
    small(project, "Param(x=[0, 1])")
    assert "result of before" not in project.psy("run").stdout
    small(project, "Param(x=[0, 1])", execute='return {"y": 1 / x}')
    assert "  psy-work/t/result.pkl is still the result of before\n" in project.psy("run", code=1).stdout
    assert project.result("t")["y"] == [0, 1]


# ---------------------------------------------------------------------- --continue


def test_continue_after_going_back_names_each_assignment_once(project):
    small(project, "Param(x=[0, 1, 1])")
    assert project.count("run") == 3
    small(project, "Param(x=[0, 1, 1, 2])", execute='return {"y": -x}')
    assert project.count("run") == 4
    small(project, "Param(x=[0, 1])")
    assert project.count("run", "--continue") == 0
    # Of the two equal rows and of 2, which the last result had, the space names one less.
    assert project.result("t") == {"x": [0, 1, 1, 2], "y": [0, 1, -1, -2]}
    said = project.psy("status", "-v").stdout
    assert "  kept with --continue: 2 rows of older code, 2 rows that the space does not name\n" in said
    assert project.count("run") == 0


def test_continue_keeps_rows_of_older_code(finished):
    finished.edit(TASK_FILE, "+ OFFSET", "- OFFSET")
    finished.edit(TASK_FILE, "N = 3", "N = 5")
    assert finished.count("run", "--continue") == 2
    assert finished.result("t") == {"x": [0, 1, 2, 3, 4], "y": [1, 11, 21, 29, 39]}
    assert finished.count("run") == 0
    assert finished.status("t")["uptodate"]

    finished.edit(TASK_FILE, "N = 5", "N = 6")
    assert finished.count("run") == 1
    assert finished.result("t")["y"] == [1, 11, 21, 29, 39, 49]

    finished.edit(TASK_FILE, "- OFFSET", "- OFFSET - 0")
    assert finished.count("run") == 6
    assert finished.result("t")["y"] == [-1, 9, 19, 29, 39, 49]


def test_continue_keeps_rows_that_left_the_space(project):
    small(project, "Param(x=range(10))")
    assert project.count("run") == 10
    project.edit(TASK_FILE, "range(10)", "[20, 21]")
    assert project.count("run", "--continue", "t") == 2
    rows = [20, 21, *range(10)]
    assert project.result("t") == {"x": rows, "y": rows}
    assert project.count("run") == 0
    assert project.result("t")["x"] == rows
    assert project.status("t")["total"] == 12

    project.edit(TASK_FILE, "[20, 21]", "[21, 3, 22]")
    assert project.count("run", "--continue", "t") == 1
    assert project.result("t")["x"] == [21, 3, 22, 20, 0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_rows_that_continue_made_current_still_are_after_the_space_went_without_them(finished):
    finished.edit(TASK_FILE, "+ OFFSET", "- OFFSET")
    assert finished.count("run", "--continue") == 0
    finished.edit(TASK_FILE, "range(N)", "[7]")
    assert finished.count("run") == 1
    finished.edit(TASK_FILE, "[7]", "range(N)")
    assert finished.count("run") == 0
    assert finished.result("t")["y"] == [1, 11, 21]
    finished.edit(TASK_FILE, "- OFFSET", "- OFFSET - 0")
    assert finished.count("run") == 3


def test_continue_adopts_although_a_run_of_the_new_code_began(finished):
    """As psy run itself says: to keep them, psy run --continue."""
    finished.write("psy-tasks/broken", "")
    finished.edit(TASK_FILE, "+ OFFSET}", "- OFFSET / (x != 1 or not os.path.exists('broken'))}")
    finished.edit(TASK_FILE, "from counting", "import os\nfrom counting")
    assert finished.count("run", code=1) == 3
    assert finished.count("run", "--continue") == 0
    assert finished.result("t")["y"] == [-1, 11, 19]
    assert finished.count("run") == 0


def test_continue_without_anything_to_keep_is_a_run(project):
    small(project, "Param(x=[1, 2])")
    assert project.count("run", "--continue") == 2
    assert project.count("run", "--continue") == 0


# ---------------------------------------------------------------------- the project, data, and chains


def test_moved_project_evaluates_nothing(finished):
    before = finished.result("t")
    elsewhere = finished.root.with_name("another place")
    finished.root.rename(elsewhere)
    finished.root = elsewhere
    assert finished.status("t")["uptodate"]
    assert finished.count("run") == 0
    assert finished.result("t") == before
    finished.edit(TASK_FILE, "N = 3", "N = 4")
    assert finished.count("run") == 1


def test_copied_project_evaluates_nothing(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.root, copy, copy_function=shutil.copy)
    finished.root = copy
    assert finished.count("run") == 0


def test_data_file_counts_by_content(project):
    project.write("data/table.csv", "1\n")
    small(
        project,
        "Param(x=[0, 1])",
        above='file_dep = ["../data/table.csv"]',
        execute='return {"y": x + int(open("../data/table.csv").read())}',
    )
    assert project.count("run") == 2
    (project.root / "data/table.csv").touch()
    assert project.count("run") == 0

    project.write("data/table.csv", "2\n")
    said = project.psy("run").stdout
    assert "data/table.csv changed" in said
    assert len(project.rows_seen()) == 4
    assert project.result("t")["y"] == [2, 3]

    project.write("data/table.csv", "1\n")
    assert project.count("run") == 0
    assert project.result("t")["y"] == [1, 2]

    (project.root / "data/table.csv").unlink()
    done = project.psy("run", code=2)
    assert "data/table.csv" in done.stderr
    assert project.result("t")["y"] == [1, 2]


@pytest.fixture
def chain(project):
    """A finished task, and one that reads its result."""
    source = """\
        from counting import seen
        from psyrun import Param
        pspace = Param(x=[1, 2])
        pool_size = 1
        def execute(x):
            seen("source", x)
            return {"y": x * 10}
        """
    reader = """\
        import pickle
        from counting import seen
        from psyrun import Param
        pspace = Param(i=[0, 1])
        pool_size = 1
        file_dep = ["../psy-work/source/result.pkl"]
        def execute(i):
            seen("reader", i)
            with open("../psy-work/source/result.pkl", "rb") as file:
                return {"z": -pickle.load(file)["y"][i]}
        """
    project.finish({"psy-tasks/task_source.py": source, "psy-tasks/task_reader.py": reader})
    assert len(project.rows_seen()) == 4
    return project


def test_chained_task_follows_the_result_that_it_reads(chain):
    assert chain.result("reader") == {"i": [0, 1], "z": [-10, -20]}
    assert chain.count("run") == 0

    chain.edit("psy-tasks/task_source.py", "x * 10", "x * 5 * 2")
    assert chain.count("run") == 2
    assert all(row.startswith("('source'") for row in chain.rows_seen()[-2:])

    chain.edit("psy-tasks/task_source.py", "x * 5 * 2", "x * 11")
    assert chain.count("run") == 4
    assert chain.result("reader")["z"] == [-11, -22]


def test_chained_task_says_beforehand_what_a_new_result_before_it_costs(chain):
    cost = "reader: 2 rows (under 1 s of computing) will be evaluated again"
    note = f"{cost} if psy-work/source/result.pkl changes;"
    chain.edit("psy-tasks/task_source.py", "[1, 2]", "[1, 2, 3]")
    assert note in chain.psy("run", "reader").stdout
    assert "changes" not in chain.psy("run").stdout
    chain.edit("psy-tasks/task_source.py", "x * 10", "x * 11")
    assert note in chain.psy("run").stdout
    chain.edit("psy-tasks/task_source.py", "x * 11", "x * 12")
    assert note not in chain.psy("run", "--continue").stdout


@pytest.mark.parametrize("line", ["1 / 0", "overwrite_dirty = False"])
def test_chained_task_says_no_cost_where_the_task_before_it_ends_with_an_error(chain, line):
    chain.edit("psy-tasks/task_source.py", "x * 10", "x * 11")
    chain.edit("psy-tasks/task_source.py", "def execute", f"{line}\ndef execute")
    assert "will be evaluated again" not in chain.psy("run", code=2).stdout


@pytest.mark.parametrize(("named", "evaluated"), [((), 4), (("reader",), 2), (("source",), 2)])
def test_force_is_about_the_tasks_that_are_named(chain, named, evaluated):
    assert chain.count("run", "--force", *named) == evaluated
    assert chain.count("run") == 0


def test_plan_tells_what_force_is_about(chain):
    said = chain.psy("plan", "--force", "reader").stdout
    assert said == "source: up to date (2 rows)\nreader: evaluate 2 rows\n"


def test_continue_is_about_the_tasks_that_are_named(chain):
    chain.edit("psy-tasks/task_source.py", "x * 10", "x * 11")
    said = chain.psy("run", "--continue", "reader").stdout
    assert "source: psy-tasks/task_source.py: execute changed. 2 rows (" in said
    assert chain.result("source")["y"] == [11, 22]
    assert chain.result("reader")["z"] == [-10, -20]
    assert chain.count("run") == 0


def test_space_that_is_made_of_another_result_follows_it(project):
    small(project, "Param(x=[1, 2])")
    project.task(
        "next",
        """\
        import pickle
        from counting import seen
        from psyrun import Param
        file_dep = ["../psy-work/t/result.pkl"]
        pool_size = 1
        with open("../psy-work/t/result.pkl", "rb") as file:
            pspace = Param(x=[10 * y for y in pickle.load(file)["y"]])
        def execute(x):
            seen("next", x)
            return {}
        """,
    )
    assert project.count("run") == 4
    project.edit(TASK_FILE, "[1, 2]", "[1, 2, 3]")
    assert project.count("run", code=0) >= 2
    assert project.result("next") == {"x": [10, 20, 30]}


def test_rows_count_under_later_rules_for_digests_and_edits_are_told_apart(project, monkeypatch):
    """A later psyrun gives equal sources other digests: it digests those that were captured anew."""
    text = "from psyrun import Param\npspace = Param(x=range(4))\nmax_jobs = 2\n\n\n"
    project.task("t", text + "def execute(x):\n    return {'y': 2 * x}\n")
    project.psy("run")
    monkeypatch.chdir(project.root)
    for name, value in project.env().items():
        monkeypatch.setenv(name, value)
    for module in (archive, adoption, digests, draft, capture):
        monkeypatch.setattr(module, "SCHEME", archive.SCHEME + 1)
    before = set((project.root / "psy-work/t/out").iterdir())
    assert cli.main(["run"]) == 0
    assert set((project.root / "psy-work/t/out").iterdir()) == before
    project.edit("psy-tasks/task_t.py", "range(4)", "range(5)")
    assert cli.main(["run"]) == 0
    assert len(set((project.root / "psy-work/t/out").iterdir()) - before) == 1
    assert cli.main(["clean", "--stale", "--yes"]) == 0
    assert cli.main(["run"]) == 0
    assert len(set((project.root / "psy-work/t/out").iterdir()) - before) == 1
    project.edit("psy-tasks/task_t.py", "2 * x", "3 * x")
    assert cli.main(["run", "--yes"]) == 0
    assert project.result("t") == {"x": [*range(5)], "y": [0, 3, 6, 9, 12]}
