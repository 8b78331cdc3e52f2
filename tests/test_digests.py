"""Digests of sources: what has to change them, what must not; plain Python is the oracle."""

import ast
import copy
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import fuzz_programs
from fuzz_programs import run_plainly
from psyrun.source import inert
from psyrun.source.archive import read_zip, write_zip
from psyrun.source.capture import read_source
from psyrun.source.digests import Analysis, digest_sources
from psyrun.source.inert import PURE, Kind

HEAD = "from psyrun import Param\npspace = Param(x=[1, 2])\nimport helper\n"
EXECUTE = "def execute(x):\n    return {'y': repr(K)}\n"
HELPER = "K = [1]\ndef f(x):\n    return x * K[0]\ndef unused():\n    return 1\nclass A:\n    v = 1\n"


def digests(task, helper=HELPER, conf=None):
    files = {"psy-tasks/task_x.py": task.encode(), "psy-tasks/helper.py": helper.encode()}
    if conf is not None:
        files["psy-tasks/psy-conf.py"] = conf.encode()
    name = None if conf is None else "psy-tasks/psy-conf.py"
    return digest_sources("psy-tasks/task_x.py", name, files, {"helper": "psy-tasks/helper.py"})


def test_attributes_of_a_scheduler_count_where_execute_reads_them_and_else_do_not():
    text = HEAD.replace("Param\n", "Param, Sqsub\n") + "s = Sqsub('w')\ns.poll = (1, 2)\n"
    for execute, counts in (("return {'y': x}", False), ("return {'y': s.poll}", True)):
        task = f"{text}def execute(x):\n    {execute}\n"
        edited = digests(task.replace("(1, 2)", "(1, 3)"))["code"]
        assert (edited != digests(task)["code"]) is counts


def test_edits_of_generated_programs_are_noticed_where_plain_python_gets_other_values():
    misses, counts = fuzz_programs.find_misses(seed=5, programs=40)
    assert misses == []
    assert sum(number for name, number in counts.items() if "values differ" in name) > 10


# Each pair is the text between HEAD and execute, before and after; values of K differ.
CHANGED = {
    "order of assignments": ("X = 1\nK = X\nX = 2", "X = 1\nX = 2\nK = X"),
    "default": ("K0 = 1\ndef f(k=K0):\n    return k\nK0 = 2\nK = f()", "K0 = 1\nK0 = 2\ndef f(k=K0):\n    return k\nK = f()"),
    "hidden builtin": ("K = max(1, 2)\ndef max(*a):\n    return 9", "def max(*a):\n    return 9\nK = max(1, 2)"),
    "other module": ("K = helper.K\nhelper.K = 5", "helper.K = 5\nK = helper.K"),
    "setattr": ("setattr(helper, 'K', 5)\nK = helper.K", "setattr(helper, 'K', 6)\nK = helper.K"),
    "environment": ("import os\nK = os.getcwd()\nos.chdir('/')", "import os\nos.chdir('/')\nK = os.getcwd()"),
    "alias": ("K = [1]\nL = K\nL.append(2)", "K = [1]\nL = K\nL.append(3)"),
    "in a container": ("K = [1]\nL = [K]\nL[0].append(2)", "K = [1]\nL = [K]\nL[0].append(3)"),
    "abs is the array": (
        "import numpy as np\nK = np.ones(2)\nL = abs(K)\nL = K\nL += 1",
        "import numpy as np\nK = np.ones(2)\nL = abs(K)\nL = K\nL += 2",
    ),
    "sum is the list": ("K = [1]\nL = sum([K], [])\nL = K\nL += [1]", "K = [1]\nL = sum([K], [])\nL = K\nL += [2]"),
    "iterator": ("i = iter([1, 2, 3])\nnext(i)\nK = next(i)", "i = iter([1, 2, 3])\nK = next(i)"),
    "iterator in a list": ("L = [zip('ab')]\nlist(L[0])\nK = list(L[0])", "L = [zip('ab')]\nK = list(L[0])"),
    "positional out": (
        "import numpy as np\nK = np.array([1.25])\nK.round(1, K)",
        "import numpy as np\nK = np.array([1.25])\nK.round(0, K)",
    ),
    "registry": (
        "K = []\ndef add(f):\n    K.append(f.__name__)\n@add\ndef one(): ...",
        "K = []\ndef add(f):\n    K.append(f.__name__)\n@add\ndef two(): ...",
    ),
    "subclass hook": (
        "K = []\nclass B:\n    def __init_subclass__(cls):\n        K.append(cls.v)\nclass C(B):\n    v = 1",
        "K = []\nclass B:\n    def __init_subclass__(cls):\n        K.append(cls.v)\nclass C(B):\n    v = 2",
    ),
    "descriptor": (
        "K = []\nclass D:\n    def __set_name__(self, owner, name):\n        K.append(name)\nd = D()\nclass C:\n    a = d",
        "K = []\nclass D:\n    def __set_name__(self, owner, name):\n        K.append(name)\nd = D()\nclass C:\n    b = d",
    ),
    "enum": (
        "import enum\nK = []\nclass E(enum.Enum):\n    def __init__(self, v):\n        K.append(v)\nclass F(E):\n    a = 1",
        "import enum\nK = []\nclass E(enum.Enum):\n    def __init__(self, v):\n        K.append(v)\nclass F(E):\n    a = 2",
    ),
    "subclasses": (
        "class B: ...\nclass C(B): ...\nK = [c.__name__ for c in B.__subclasses__()]",
        "class B: ...\nclass D(B): ...\nK = [c.__name__ for c in B.__subclasses__()]",
    ),
    "printed": (
        "import io, contextlib\nq = io.StringIO()\nwith contextlib.redirect_stdout(q):\n    print('a')\nK = q.getvalue()",
        "import io, contextlib\nq = io.StringIO()\nwith contextlib.redirect_stdout(q):\n    print('b')\nK = q.getvalue()",
    ),
    "patched module": (
        "import math\nmath.sqrt = lambda x: 1\nK = math.sqrt(4)",
        "import math\nmath.sqrt = lambda x: 2\nK = math.sqrt(4)",
    ),
    "patched by a string": (
        "from unittest import mock\nimport math\nmock.patch('math.sqrt', lambda x: 1).start()\nK = math.sqrt(4)",
        "from unittest import mock\nimport math\nmock.patch('math.sqrt', lambda x: 2).start()\nK = math.sqrt(4)",
    ),
    "print options": (
        "import numpy as np\nnp.set_printoptions(precision=2)\nK = str(np.array([1 / 3]))",
        "import numpy as np\nnp.set_printoptions(precision=3)\nK = str(np.array([1 / 3]))",
    ),
    "docstring": ("def f():\n    'a'\nK = f.__doc__", "def f():\n    'b'\nK = f.__doc__"),
    "annotation": ("def f(a: int): ...\nK = f.__annotations__", "def f(a: str): ...\nK = f.__annotations__"),
    "name of a function": ("def f(): ...\nK = f.__name__", "def g(): ...\nK = g.__name__"),
    "line": ("def f(): ...\nK = f.__code__.co_firstlineno", "# why\ndef f(): ...\nK = f.__code__.co_firstlineno"),
    "name in a string": ("Q = 1\nK = eval('Q')", "Q = 2\nK = eval('Q')"),
    "attrgetter": ("from operator import attrgetter\nK = attrgetter('A.v')(helper)\nhelper.A.v = 2", "from operator import attrgetter\nhelper.A.v = 2\nK = attrgetter('A.v')(helper)"),
    "missing name": ("try:\n    K = Q\nexcept NameError:\n    K = 0\nQ = 1", "Q = 1\ntry:\n    K = Q\nexcept NameError:\n    K = 0"),
    "global": ("K = 1\ndef f():\n    global K\n    K = 2\nf()", "K = 1\ndef f():\n    global K\n    K = 3\nf()"),
    "through parameters": (
        "class P:\n    w = 0\nclass M:\n    ps = [P()]\n    def parameters(self):\n        return self.ps\nm = M()\nfor p in m.parameters():\n    p.w = 7\nK = m.ps[0].w",
        "class P:\n    w = 0\nclass M:\n    ps = [P()]\n    def parameters(self):\n        return self.ps\nm = M()\nfor p in m.parameters():\n    p.w = 8\nK = m.ps[0].w",
    ),
    "attribute of a class": ("class C:\n    J = 1\n    K = 2\nJ = K = 5\nK = C.J", "class C:\n    K = 1\n    J = 2\nJ = K = 5\nK = C.J"),
    "module handed on": ("def g(m):\n    return m.f(2)\nK = g(helper)", "def g(m):\n    return m.unused()\nK = g(helper)"),
    "comprehension in a class": ("K = [i for i in range(3)]", "K = [i for i in range(4)]"),
    "own list grown": ("K = []\nfor i in range(2):\n    K.append(i)", "K = []\nfor i in range(3):\n    K.append(i)"),
    "grown after it was read": ("L = [1]\nK = L[:]\nL += [2]", "L = [1]\nL += [2]\nK = L[:]"),
    "item set after it was read": ("L = [1]\nK = list(L)\nL[0] = 2", "L = [1]\nL[0] = 2\nK = list(L)"),
    "items set twice": ("K = {}\nK['a'] = 1\nK['a'] = 2", "K = {}\nK['a'] = 2\nK['a'] = 1"),
    "attribute called like a variable": (
        "class C:\n    a, b = 1, 2\ndef f():\n    a = 0\n    return C.a + a\nK = f()",
        "class C:\n    a, b = 1, 2\ndef f():\n    b = 0\n    return C.b + b\nK = f()",
    ),
    "attribute of a parameter called like a variable": (
        "class C:\n    a, b = 1, 2\ndef f(c):\n    a = 0\n    return c.a + a\nK = f(C)",
        "class C:\n    a, b = 1, 2\ndef f(c):\n    b = 0\n    return c.b + b\nK = f(C)",
    ),
    "keyword called like a variable": (
        "def g(a=1, b=2):\n    return a, b\ndef f():\n    a = 5\n    return g(a=a)\nK = f()",
        "def g(a=1, b=2):\n    return a, b\ndef f():\n    b = 5\n    return g(b=b)\nK = f()",
    ),
    "alias of a module": (
        "import math\nimport cmath as c\nm = c\nm.k = 1\nK = hasattr(math, 'k')",
        "import math\nimport math as c\nm = c\nm.k = 1\nK = hasattr(math, 'k')",
    ),
    "two aliases of a list": ("a = b = []\na.append(1)\nK = b", "a = b = []\na.append(2)\nK = b"),
    "default shares a list": (
        "xs = []\ndef f(q=xs):\n    return len(q)\nxs.append(1)\nK = f()",
        "xs = []\ndef f(q=xs):\n    return len(q)\nK = f()\nxs.append(1)",
    ),
    "walrus": ("K = [(J := 1), J][1]", "K = [(J := 2), J][1]"),
    "del": ("K = 1\nJ = 2\ndel J\nK = globals().get('J', 0)", "K = 1\nJ = 2\nK = globals().get('J', 0)"),
    "alias of import_module": (
        "from importlib import import_module as load\nK = load('helper').f(1)",
        "from importlib import import_module as load\nK = load('helper').f(2)",
    ),
    "star": ("from helper import *\nK = f(2)", "from helper import *\ndef f(x):\n    return 9\nK = f(2)"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_edit_that_changes_values_changes_the_digest(name):
    before, after = (HEAD + text + "\n" + EXECUTE for text in CHANGED[name])
    values = run_plainly(before, HELPER), run_plainly(after, HELPER)
    assert None not in values
    assert values[0] != values[1]
    assert digests(before)["code"] != digests(after)["code"]


BASE = """\
import math
import helper
from psyrun import Param
GAIN = 2
N = 3
pspace = Param(x=range(N))
def scale(v):
    total = v * GAIN
    return total
def shift(v):
    return v + 1
def plot(y):
    return helper.unused()
def execute(x):
    value = scale(shift(x))
    return {"y": helper.f(value)}
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import math\n", ""),
        ("import math", "import os, math  # two"),
        ("GAIN = 2", "GAIN: int = 0x2"),
        ("    total =", '    """Doc of scale."""\n    total ='),
        ("total", "result"),
        ("scale", "rescale"),
        ("shift(v)", "shift(v: float) -> float"),
        ("    value =", "    print(x, 'so far')\n    value ="),
        ("helper.unused()", "y, GAIN"),
        ("import math\n", "from __future__ import annotations\nimport math\n"),
        ("import helper\n", "from helper import f, unused\nimport helper\n"),
        ("helper.f(value)", "(helper.f)(value)"),
        ("def plot", "max_jobs = 4\nprint(N)\nif __name__ == '__main__':\n    print(execute(1))\ndef plot"),
        ("def plot", "import logging\nlog = logging.getLogger(__name__)\nlog.info('%s', N)\ndef plot"),
    ],
)
def test_innocent_edit_leaves_the_code_as_it_is(old, new):
    assert BASE.replace(old, new) != BASE
    assert digests(BASE)["code"] == digests(BASE.replace(old, new))["code"]


def test_innocent_edits_of_a_helper_and_of_conf_change_no_digest():
    before = digests(BASE)["code"]
    after = HELPER.replace("return 1", "return 2") + "import os\ndef more():\n    import colorsys\n"
    assert digests(BASE, after)["code"] == before
    assert (
        digests(BASE, conf="from psyrun import Slurm\nmax_jobs = 10\nscheduler = Slurm()")["code"] == before
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("N = 3", "N = 4"),
        ("Param(x=range(N))", "Param(x=[i / 2 for i in range(N)])"),
        ("range(N))\n", "range(N))\npspace += Param(x=[9])\n"),
        ("range(N))\n", "range(N))\nfor k in (5, 6):\n    pspace += Param(x=[k])\n"),
        ("GAIN = 2", "import numpy as np\nxs = np.linspace(0, 1, 3)\nGAIN = 2"),
    ],
)
def test_edit_of_the_space_alone_leaves_the_code_as_it_is(old, new):
    assert digests(BASE)["code"] == digests(BASE.replace(old, new))["code"]


def test_definitions_that_parameters_are_made_of_are_code():
    text = (
        HEAD
        + "class A:\n    def f(self):\n        return 1\npspace = Param(m=[A()])\ndef execute(m):\n    return {'y': m.f()}\n"
    )
    assert digests(text)["code"] != digests(text.replace("return 1", "return 2"))["code"]


def test_statement_that_changes_what_the_space_is_made_of_counts_for_the_space():
    text = HEAD + "xs = [1]\nfor q in [xs]:\n    q.append(2)\npspace = Param(x=xs)\ndef execute(x): ...\n"
    assert digests(text)["space"] != digests(text.replace("append(2)", "append(3)"))["space"]


def test_captured_sources_are_digested_again_from_the_archive(tmp_path):
    (tmp_path / "psy-tasks").mkdir()
    (tmp_path / "psy-tasks/task_x.py").write_text(BASE)
    (tmp_path / "psy-tasks/helper.py").write_text(HELPER)
    source = read_source(tmp_path, tmp_path / "psy-tasks/task_x.py")
    write_zip(source, tmp_path / "code.zip")
    again = read_zip(tmp_path / "code.zip")
    facts = digest_sources(again.task, again.conf, again.files, again.modules)
    assert facts == {"code": source.code, "space": source.space, "definitions": source.definitions}


def test_deep_and_huge_expressions_have_a_digest():
    text = HEAD + f"K = {' + '.join(['1'] * 900)}\nL = 0x{'f' * 9000}\n" + EXECUTE
    assert digests(text)["code"] != digests(text.replace("1 + 1", "1 + 2", 1))["code"]


def test_analysis_says_what_may_act_and_what_is_not_reached():
    files = {
        "psy-tasks/task_x.py": BASE.encode() + b"open('x', 'w')\n",
        "psy-tasks/helper.py": HELPER.encode(),
    }
    analysis = Analysis("psy-tasks/task_x.py", None, files, {"helper": "psy-tasks/helper.py"})
    said = {(each.path, each.line, each.part): each.reason for each in analysis.explain()}
    assert said["psy-tasks/task_x.py", 17, "code and space"] == "open('x', 'w') may do something"
    assert said["psy-tasks/task_x.py", 12, ""] == ""
    assert said["psy-tasks/task_x.py", 14, "code"] == ""


# -- the white list

ARGUMENTS = {
    **dict.fromkeys(["enumerate", "reversed", "zip", "list", "set", "sorted", "max", "min", "sum", "len"], ([3, 1, 2],)),
    **{name: ([1, 2],) for name in PURE if name.startswith("itertools.")},
    **{name: (2,) for name in PURE if name.startswith("math.")},
    **{name: (1, 2) for name in PURE if name.startswith("numpy.")},
    **{f"numpy.{name}": (2,) for name in ("array", "bool_", "eye", "float32", "float64", "int32", "int64", "ones", "zeros")},
    "itertools.combinations": ([1, 2], 1), "itertools.repeat": (1, 2), "numpy.full": (2, 1.0), "math.pow": (2, 3),
    **dict.fromkeys(("abs", "round", "bool", "complex", "float", "int", "range", "str"), (2,)),
    "dict": ([(1, 2)],), "os.environ.get": ("HOME",), "os.path.join": ("a", "b"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PURE))
def test_callable_of_the_white_list_changes_nothing_and_gives_what_is_said(name):
    namespace = {"numpy": np, "math": __import__("math"), "os": os, "itertools": __import__("itertools")}
    function = eval(name, namespace)
    arguments = ARGUMENTS[name]
    kept = copy.deepcopy(arguments)
    one, other = function(*arguments), function(*arguments)
    assert arguments == kept
    assert (PURE[name] is Kind.ONCE) == hasattr(one, "__next__")
    if PURE[name] is Kind.ONCE:
        one, other = list(one), list(other)
    assert np.array_equal(one, other)
    if PURE[name] is Kind.FROZEN and name != "range":
        assert not hasattr(one, "__setitem__")
        assert not isinstance(one, np.ndarray)
    if isinstance(one, (list, dict, set, np.ndarray)):
        assert one is not other
        assert all(one is not each for each in arguments)


def test_every_entry_of_the_list_of_decorators_leaves_the_function_uncalled():
    for name in inert.DECORATORS - {"dataclasses.dataclass"}:
        module, _, attribute = name.rpartition(".")
        decorator = getattr(__import__(module or "builtins"), attribute)
        decorator(lambda: 1 / 0)


# -- versions of Python

ODDITIES = r'''
x = f"a{b!r:>{w}}c" "d" f"{e=}" rf"\d{f}"
y = {**a, "k": 1j, b"\xff": 1e300, "\ud800": ..., -1: None}
async def f(a, /, b=1, *c, d, e=2, **g) -> "x": return [i async for i in a if (j := i)]
class C(B, metaclass=M):
    """Doc."""
    x: int = 3
match a:
    case {"k": [1, *r], **s} | C(x=1) as t if t: pass
try: pass
except* ValueError as e: raise
with (a as b, c): lambda *a, k=1: a @ b
def execute(): return x, y, f, C, e, s
'''
DIGEST_ALL = """
import json, sys
from psyrun.source.digests import digest_sources
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        print(json.dumps(digest_sources("t.py", None, {"t.py": file.read() + b"\\ndef execute(): return eval('x')"}, {})))
"""


@pytest.mark.parametrize("python", ["python3.11", "python3.12", "python3.13", "python3.14"])
def test_digests_agree_between_versions_of_python(python, tmp_path):
    other = shutil.which(python)
    if other is None or subprocess.run([other, "-V"], capture_output=True, check=False).returncode:
        pytest.skip(f"{python} is not installed")
    oddities = tmp_path / "oddities.py"
    oddities.write_text(ODDITIES)
    package = Path(inert.__file__).parent
    files = [oddities, *sorted(package.glob("*.py")), *sorted(Path(ast.__file__).parent.glob("[a-b]*.py"))]
    environment = {**os.environ, "PYTHONPATH": str(package.parents[1])}
    answers = [
        subprocess.run(
            [each, "-c", DIGEST_ALL, *map(str, files)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for each in (other, os.sys.executable)
    ]
    assert answers[0] == answers[1]
