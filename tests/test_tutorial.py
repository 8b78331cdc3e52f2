"""What the tutorial of 2018 promises, where no other test has it."""

import subprocess
import sys

import numpy as np
import pytest

from psyrun import Param, map_pspace
from psyrun.store import AutodetectStore

pytestmark = pytest.mark.started

SPACE = Param(a=np.arange(1, 5)) * Param(b=np.linspace(0, 1, 10)) * Param(c=[1.0, 1.5, 10.0, 10.5])
TASK = """\
import numpy as np
from counting import seen
from psyrun import H5Store, NpzStore, Param

pspace = (Param(a=np.arange(1, 5))
          * Param(b=np.linspace(0, 1, 10))
          * Param(c=[1., 1.5, 10., 10.5]))

def execute(a, b, c):
    seen(a, b, c)
    return {'result': a * b + c}
"""
MODULE = """\
def objective(a, b, c):
    return {'result': a * b + c}
"""
PROGRAM = """\
import numpy as np
from module import objective
from psyrun import Param, map_pspace, map_pspace_parallel

if __name__ == '__main__':
    pspace = (Param(a=np.arange(1, 5))
              * Param(b=np.linspace(0, 1, 10))
              * Param(c=[1., 1.5, 10., 10.5]))
    assert map_pspace_parallel(objective, pspace) == map_pspace(objective, pspace)
"""


def loop(cs=(1.0, 1.5, 10.0, 10.5)):
    """Return what nested loops give: (a, b, c, result) of all combinations."""
    return [(a, b, c, a * b + c) for a in np.arange(1, 5) for b in np.linspace(0, 1, 10) for c in cs]


def rows_of(table):
    return list(zip(*(list(table[name]) for name in ("a", "b", "c", "result")), strict=True))


def test_mapping_gives_what_nested_loops_give():
    table = map_pspace(lambda a, b, c: {"result": a * b + c}, SPACE)
    assert rows_of(table) == loop()
    assert set(table) == {"a", "b", "c", "result"}


def test_parallel_mapping_of_an_imported_function_gives_the_same(project):
    project.write("module.py", MODULE)
    program = project.write("program.py", PROGRAM)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("store", "ext"), [("NpzStore", "npz"), ("H5Store", "h5")])
def test_other_stores_hold_the_same_rows(project, store, ext):
    project.task("example", f"{TASK}store = {store}()\n")
    project.psy("run", "example")
    table = AutodetectStore().load(project.root / f"psy-work/example/result.{ext}")
    assert rows_of(table) == loop()


def test_continue_preserves_results_and_adds_assignments(project):
    """The first 160 rows have the values of the first code, those that were added have the second's."""
    project.task("example", TASK)
    assert project.count("run", "example") == 160
    project.edit("psy-tasks/task_example.py", "10.5]", "10.5, 20.]")
    project.edit("psy-tasks/task_example.py", "a * b + c", "a * b - c")
    assert project.count("run", "--continue", "example") == 40
    expected = [
        (a, b, c, a * b - c if c == 20 else result)
        for a, b, c, result in loop(cs=(1.0, 1.5, 10.0, 10.5, 20.0))
    ]
    assert rows_of(project.result("example")) == expected
    assert project.count("run") == 0


def test_partial_results_are_merged_before_all_rows_are_there(project):
    """Nothing is in the result's place while rows fail, and what is merged has no gaps."""
    failing = TASK.replace("    return", "    assert c != 1.5\n    return").replace(
        "{'result'", "{'sign': 'plus', 'result'"
    )
    project.task("example", failing)
    project.psy("run", "example", code=1)
    assert not (project.root / "psy-work/example/result.pkl").exists()
    for ext in ("npz", "h5"):
        assert "120 rows" in project.psy("merge", "psy-work/example/out", f"partial-result.{ext}").stdout
        table = AutodetectStore().load(project.root / f"partial-result.{ext}")
        assert rows_of(table) == loop(cs=(1.0, 10.0, 10.5))
        assert set(table["sign"]) == {"plus"}
    said = project.psy("status", "-v", "example").stdout
    assert sum("c=1.5" in line for line in said.splitlines()) == 40
    assert "c=10.5" not in said
