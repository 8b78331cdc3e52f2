"""Generators that outlive a row are named in a warning, and others are not."""

from __future__ import annotations

import numpy as np
import pytest

START = """\
import random
import numpy as np
from psyrun import Param
pspace = Param(x=range(8))
pool_size = 2
"""
WARNING = "outlive"
# How the warning names the generator, and the task file from its sixth line on.
OUTLIVING = {
    "seeded by the first row only": [
        "numpy.random,",
        "seeded = False",
        "def execute(x):",
        "    global seeded",
        "    if not seeded:",
        "        np.random.seed(0)",
        "    seeded = True",
        "    return {'y': np.random.rand()}",
    ],
    "a generator": [
        "{rng}:6)",
        "rng = np.random.default_rng(1)",
        "def execute(x): return {'y': rng.normal()}",
    ],
    "NumPy's own": ["numpy.random,", "def execute(x): return {'y': np.random.rand()}"],
    "Python's own": ["random,", "def execute(x): return {'y': random.random()}"],
    "NumPy's, seeded once": [
        "numpy.random,",
        "np.random.seed(0)",
        "def execute(x): return {'y': np.random.rand()}",
    ],
    "many draws": ["numpy.random,", "def execute(x): return {'y': np.random.rand(300_000 + x).sum()}"],
    "many of Python's": [
        "random,",
        "def execute(x): return {'y': sum(random.random() for _ in range(50_000))}",
    ],
    "in the middle of a block": [
        "numpy.random,",
        "np.random.seed(1); np.random.rand(100)",
        "def execute(x): return {'y': np.random.rand(x + 1).sum()}",
    ],
    "a RandomState": [
        "rs ({task}:6)",
        "rs = np.random.RandomState(0)",
        "def execute(x): return {'y': rs.rand()}",
    ],
    "a Random": ["r ({task}:6)", "r = random.Random(0)", "def execute(x): return {'y': r.random()}"],
    "an attribute": [
        "m.rng ({task}:8)",
        "class M:",
        "    def __init__(self): self.rng = np.random.default_rng(0)",
        "m = M()",
        "def execute(x): return {'y': m.rng.random()}",
    ],
    "a slot": [
        "m.rng ({task}:8)",
        "class M:",
        "    __slots__ = ('rng',)",
        "m = M(); m.rng = np.random.default_rng(0)",
        "def execute(x): return {'y': m.rng.random()}",
    ],
    "an attribute of a class": [
        "M.rng ({task}:6)",
        "class M:",
        "    rng = np.random.default_rng(0)",
        "def execute(x): return {'y': M.rng.random()}",
    ],
    "an element": [
        "rngs[0] ({task}:6)",
        "rngs = [np.random.default_rng(i) for i in range(9)]",
        "def execute(x): return {'y': rngs[0].random()}",
    ],
    "an entry": [
        "rngs['a'] ({task}:6)",
        "rngs = {'a': np.random.default_rng()}",
        "def execute(x): return {'y': rngs['a'].random()}",
    ],
    "a default": [
        "a default of execute ({task}:6)",
        "def execute(x, rng=np.random.default_rng(0)): return {'y': rng.random()}",
    ],
    "a method": [
        "draw ({task}:6)",
        "draw = np.random.default_rng(0).normal",
        "def execute(x): return {'y': draw()}",
    ],
    "what setup returns": [
        "setup['rng'] ({task}:7)",
        "exclude_from_result = ['rng']",
        "def setup(proc_id): return {'rng': np.random.default_rng(proc_id)}",
        "def execute(x, rng): return {'y': rng.random()}",
    ],
    "a seed sequence": [
        "seeds ({task}:6)",
        "seeds = np.random.SeedSequence(0)",
        "def execute(x): return {'y': np.random.default_rng(seeds.spawn(1)[0]).random()}",
    ],
    "made by the first row": [
        "rng ({task}:6)",
        "rng = None",
        "def execute(x):",
        "    global rng",
        "    rng = rng or np.random.default_rng(0)",
        "    return {'y': rng.random()}",
    ],
    "where rows fail": [
        "rng ({task}:6)",
        "rng = np.random.default_rng(0)",
        "def execute(x):",
        "    if rng.random() < 2: raise ValueError",
    ],
    "another kind": [
        "rng ({task}:6)",
        "rng = np.random.Generator(np.random.SFC64(0))",
        "def execute(x): return {'y': rng.random()}",
    ],
}
SEEDED = {
    "seeded by NumPy": "def execute(x):\n    np.random.seed(x)\n    return {'y': np.random.rand()}",
    "seeded equally": (
        "np.random.seed(3)\ndef execute(x):\n    np.random.seed(3)\n    return {'y': np.random.rand(x).sum()}"
    ),
    "seeded by Python": "def execute(x):\n    random.seed(x)\n    return {'y': random.random()}",
    "seeded unseen": (
        "from numpy.random import seed, rand\nseed(0)\ndef execute(x):\n    seed(x)\n    return {'y': rand()}"
    ),
    "Python's seeded unseen": (
        "from random import seed, random as r\ndef execute(x):\n    seed(x)\n    return {'y': r()}"
    ),
    "a RandomState seeded": (
        "rs = np.random.RandomState(0)\n"
        "def execute(x):\n    rs.seed(x)\n    return {'y': rs.rand(1000 * x).sum()}"
    ),
    "a RandomState seeded equally": (
        "rs = np.random.RandomState(0)\ndef execute(x):\n    rs.seed(0)\n    return {'y': rs.rand()}"
    ),
    "a Random seeded": "r = random.Random(0)\ndef execute(x):\n    r.seed(x)\n    return {'y': r.random()}",
    "set to a state": (
        "state = np.random.get_state()\n"
        "def execute(x):\n    np.random.set_state(state)\n    return {'y': np.random.rand(x).sum()}"
    ),
    "kept": (
        "def execute(x):\n    state = np.random.get_state()\n    y = np.random.rand()\n"
        "    np.random.set_state(state)\n    return {'y': x}"
    ),
    "made in the row": "def execute(x): return {'y': np.random.default_rng(x).random()}",
    "made anew under a global name": (
        "rng = None\ndef execute(x):\n    global rng\n    rng = np.random.default_rng(x)\n"
        "    return {'y': rng.random()}"
    ),
    "the row's own": "def execute(x, rng): return {'y': rng.random()}",
    "only for the space": "rng = np.random.default_rng(0)\nnp.random.rand()\ndef execute(x): return {'y': x}",
    "another seed each time": (
        "rng = np.random.default_rng(0)\ndef execute(x):\n"
        "    rng.bit_generator.state = np.random.PCG64(x + 9).state\n    return {'y': rng.random()}"
    ),
}


def warnings_of(project, code=None):
    return [line for line in project.psy("run", code=code).stdout.splitlines() if WARNING in line]


@pytest.mark.parametrize("case", OUTLIVING)
def test_generator_that_outlives_a_row_is_named_once(project, case):
    named, *code = OUTLIVING[case]
    project.task("t", START + "\n".join(code))
    (line,) = warnings_of(project)
    named = named.format(task="psy-tasks/task_t.py", rng="rng (psy-tasks/task_t.py")
    assert line.startswith(f"t: execute draws from {named}")


@pytest.mark.parametrize("case", SEEDED)
def test_row_that_does_not_depend_on_others_is_not_warned_of(project, case):
    project.task("t", START + SEEDED[case])
    assert warnings_of(project, 0) == []


def test_generator_of_a_local_module_is_named_where_it_is_made(project):
    project.write("psy-tasks/helper.py", "import numpy as np\n\nrng = np.random.default_rng(1)\n")
    project.task("t", START + "from helper import rng\ndef execute(x): return {'y': rng.random()}")
    (line,) = warnings_of(project)
    assert "draws from rng (psy-tasks/helper.py:3), which outlives a row" in line


def test_several_generators_are_one_warning(project):
    code = "a, b = np.random.default_rng(1), np.random.default_rng(2)\n"
    project.task("t", START + code + "def execute(x): return {'y': a.random() + b.random()}")
    (line,) = warnings_of(project)
    assert "a (psy-tasks/task_t.py:6), b (psy-tasks/task_t.py:6), which outlive a row" in line


def test_warning_comes_with_the_next_run_that_looks_too_and_not_where_nothing_is_done(project):
    project.task("t", START + "\n".join(OUTLIVING["a generator"][1:]))
    assert len(warnings_of(project)) == 1
    assert warnings_of(project) == []
    (project.root / "psy-work/t/process.json").unlink()  # As after jobs of a batch system.
    assert len(warnings_of(project)) == 1
    project.edit("psy-tasks/task_t.py", "rng.normal()", "np.random.default_rng(x).normal()")
    assert warnings_of(project) == []


def test_status_warns_too_since_jobs_may_have_finished_the_task(project):
    project.task("t", START + "\n".join(OUTLIVING["a generator"][1:]))
    project.psy("run")
    line = "t: execute draws from rng (psy-tasks/task_t.py:6), which outlives a row"
    assert line in project.psy("status").stdout
    assert project.status("t")["done"] == 8
    project.edit("psy-tasks/task_t.py", "rng.normal()", "x")
    project.psy("run")
    assert line not in project.psy("status").stdout


def test_looking_changes_no_value(project):
    code = "rng, r = np.random.default_rng(1), random.Random(5)\n"
    code += "pool_size = 1\nnp.random.seed(4); random.seed(4)\n"
    code += "def execute(x): return {'y': [rng.random(), r.random(), np.random.rand(), random.random()]}"
    project.task("t", START + code)
    project.psy("run")
    plain = {}
    exec(START + code, plain)
    assert project.result("t")["y"] == [plain["execute"](x)["y"] for x in range(8)]


def test_what_is_not_loaded_is_not_imported(project):
    code = "import sys\nfrom psyrun import Param\npspace = Param(x=[1, 2, 3, 4])\n"
    project.task("t", code + "def execute(x): return {'y': 'numpy' in sys.modules}")
    project.psy("run")
    assert project.result("t")["y"] == [False] * 4


def test_functions_that_seed_can_be_pickled_and_are_themselves_again(project):
    code = """
import pickle
def execute(x):
    pickle.loads(pickle.dumps(np.random.seed))(x)
    return {"y": type(np.random.seed).__name__}
"""
    project.task("t", START + "pool_size = 1\n" + code)
    assert warnings_of(project, 0) == []
    assert project.result("t")["y"][-1] == type(np.random.seed).__name__


def test_receipts_say_which_generators_outlived_rows_of_a_place(project):
    project.task("t", START + "\n".join(OUTLIVING["a generator"][1:]))
    project.psy("run")
    assert b'"generators"' in (project.root / "psy-work/t/receipts.rows").read_bytes()


def test_trial_of_a_row_warns_too(project):
    project.task("t", START + "\n".join(OUTLIVING["a generator"][1:]))
    assert (
        "execute draws from rng (psy-tasks/task_t.py:6), which outlives a row" in project.psy("test").stdout
    )
    project.edit("psy-tasks/task_t.py", "rng.normal()", "np.random.default_rng(x).normal()")
    assert WARNING not in project.psy("test").stdout
