"""Digests of sources: what has to change them, what must not; plain Python is the oracle."""

import ast
import copy
import io
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import fuzz_programs
from fuzz_programs import run_plainly
from psyrun.source import inert
from psyrun.source.archive import Source, read_zip, write_zip
from psyrun.source.capture import read_source
from psyrun.source.digests import digest_sources
from psyrun.source.explanation import find_parts
from psyrun.source.pure import DECORATORS, METHODS, METHODS_OF_FILES, PURE, READS_FIRST, Kind
from psyrun.store import PickleStore

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
    "docstring of a class that something gets": (
        "def f(c):\n    return getattr(c.m, '__do' + 'c__')\nclass C:\n    def m(self):\n        'a'\nK = f(C)",
        "def f(c):\n    return getattr(c.m, '__do' + 'c__')\nclass C:\n    def m(self):\n        'b'\nK = f(C)",
    ),
    "message of a name that nothing binds": (
        "def f():\n    print('a')\n    return 1\ntry:\n    K = f()\nexcept NameError:\n    K = 0",
        "def f():\n    print(a)\n    return 1\ntry:\n    K = f()\nexcept NameError:\n    K = 0",
    ),
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
    "array that holds an iterator": (
        "import numpy as np\nA = np.array(zip([1, 2], [3, 4]))\nL = list(A[()])\nK = list(A[()])",
        "import numpy as np\nA = np.array(zip([1, 2], [3, 4]))\nK = list(A[()])",
    ),
    "dict that holds an iterator": (
        "A = dict(a=zip([1, 2], [3, 4]))\nL = list(A['a'])\nK = list(A['a'])",
        "A = dict(a=zip([1, 2], [3, 4]))\nK = list(A['a'])",
    ),
    "default that is an iterator": (
        "A = min([], default=zip([1, 2], [3, 4]))\nL = list(A)\nK = list(A)",
        "A = min([], default=zip([1, 2], [3, 4]))\nK = list(A)",
    ),
    "start that is an iterator": (
        "A = sum([], zip([1, 2], [3, 4]))\nL = list(A)\nK = list(A)",
        "A = sum([], zip([1, 2], [3, 4]))\nK = list(A)",
    ),
    "open file": (
        "f = open('grid.txt')\nL = list(f)\nK = list(f)",
        "f = open('grid.txt')\nK = list(f)",
    ),
    "number of an open file": (
        "import os\nN = os.open('grid.txt', os.O_RDONLY)\nL = open(N, closefd=False).read(3)\nK = open(N).read()",
        "import os\nN = os.open('grid.txt', os.O_RDONLY)\nK = open(N).read()",
    ),
    "written before it is read": (
        "q = open('t.txt', 'w')\nq.write('1')\nq.close()\nwith open('t.txt') as f:\n    K = f.read()",
        "q = open('t.txt', 'w')\nq.write('2')\nq.close()\nwith open('t.txt') as f:\n    K = f.read()",
    ),
    "written after it is read": (
        "from pathlib import Path\nPath('t.txt').write_text('1')\nK = Path('t.txt').read_text()\nPath('t.txt').write_text('2')",
        "from pathlib import Path\nPath('t.txt').write_text('1')\nPath('t.txt').write_text('2')\nK = Path('t.txt').read_text()",
    ),
    "other folder": (
        "import os\nK = os.path.exists('grid.txt')\nos.chdir('/')",
        "import os\nos.chdir('/')\nK = os.path.exists('grid.txt')",
    ),
    "own open": (
        "def open(name):\n    return [1]\nK = [int(line) for line in open('grid.txt')]",
        "def open(name):\n    return [2]\nK = [int(line) for line in open('grid.txt')]",
    ),
    "patched reader": (
        "import json\njson.load = lambda f: 1\nwith open('grid.txt') as f:\n    K = json.load(f)",
        "import json\njson.load = lambda f: 2\nwith open('grid.txt') as f:\n    K = json.load(f)",
    ),
    "patched method": (
        "import pathlib\npathlib.Path.read_text = lambda self: 1\nK = pathlib.Path('grid.txt').read_text()",
        "import pathlib\npathlib.Path.read_text = lambda self: 2\nK = pathlib.Path('grid.txt').read_text()",
    ),
    "reader of the library over a patched one": (
        "import os, pathlib\nK = []\nos.listdir = lambda *a: K.append(1) or []\nL = list(pathlib.Path('.').iterdir())",
        "import os, pathlib\nK = []\nos.listdir = lambda *a: K.append(1) or []",
    ),
    "patched opener below a reader": (
        "import io, pathlib\nK = []\nold = io.open\nio.open = lambda *a: K.append(1) or old('grid.txt')\nL = pathlib.Path('q').read_text()",
        "import io, pathlib\nK = []\nold = io.open\nio.open = lambda *a: K.append(1) or old('grid.txt')",
    ),
    "builtin patched by a string": (
        "from unittest import mock\nK = []\nmock.patch('builtins.abs', lambda x: K.append(x)).start()\nL = abs(1)",
        "from unittest import mock\nK = []\nmock.patch('builtins.abs', lambda x: K.append(x)).start()",
    ),
    "audit hook": (
        "import sys\nK = []\nsys.addaudithook(lambda e, a: K.append(1) if a[:1] == ('grid.txt',) else None)\nL = open('grid.txt').read()",
        "import sys\nK = []\nsys.addaudithook(lambda e, a: K.append(1) if a[:1] == ('grid.txt',) else None)",
    ),
    "environment read before it is set": (
        "import os\nK = os.environ.get('K_', 'a')\nos.environ['K_'] = 'b'",
        "import os\nos.environ['K_'] = 'b'\nK = os.environ.get('K_', 'a')",
    ),
    "other file": ("K = open('grid.txt').read()", "K = open('other.txt').read()"),
    "file read on after a closed one": (
        "with open('grid.txt') as f:\n    pass\nK = f.name",
        "with open('other.txt') as f:\n    pass\nK = f.name",
    ),
    "two files of one name": (
        "with open('grid.txt') as f:\n    K = [f.name]\nwith open('other.txt') as f:\n    pass\nK += [f.name]",
        "with open('other.txt') as f:\n    pass\nwith open('grid.txt') as f:\n    K = [f.name]\nK += [f.name]",
    ),
    "iterator named in a with": (
        "with open('grid.txt') as f:\n    i = zip([1, 2], [3, 4])\n    L = next(i)\nK = list(i)",
        "with open('grid.txt') as f:\n    i = zip([1, 2], [3, 4])\nK = list(i)",
    ),
    "array added to a number": (
        "import numpy as np\nX = 0\nX += np.ones(2)\nY = X\nY += 1\nK = X.tolist()",
        "import numpy as np\nX = 0\nX += np.ones(2)\nY = X\nY += 2\nK = X.tolist()",
    ),
    "list in a grown tuple": (
        "X = ()\nX += ([1],)\nY = X[0]\nY += [1]\nK = X",
        "X = ()\nX += ([1],)\nY = X[0]\nY += [2]\nK = X",
    ),
    "array of a scalar type": (
        "import numpy as np\nX = np.float64([1, 2])\nY = X\nY += 1\nK = X.tolist()",
        "import numpy as np\nX = np.float64([1, 2])\nY = X\nY += 2\nK = X.tolist()",
    ),
    "default of the environment": (
        "import os\nX = [1]\nY = os.environ.get('NOT_THERE_', X)\nY += [1]\nK = X",
        "import os\nX = [1]\nY = os.environ.get('NOT_THERE_', X)\nY += [2]\nK = X",
    ),
    "own TYPE_CHECKING": (
        "TYPE_CHECKING = True\nK = 1\nif TYPE_CHECKING:\n    K = 2",
        "TYPE_CHECKING = True\nK = 1\nif TYPE_CHECKING:\n    K = 3",
    ),
    "TYPE_CHECKING of another module": (
        "from helper import A as TYPE_CHECKING\nK = 1\nif TYPE_CHECKING:\n    K = 2",
        "from helper import A as TYPE_CHECKING\nK = 1\nif TYPE_CHECKING:\n    K = 3",
    ),
    "parameter called TYPE_CHECKING": (
        "def f(TYPE_CHECKING):\n    if TYPE_CHECKING:\n        return 2\nK = f(1)",
        "def f(TYPE_CHECKING):\n    if TYPE_CHECKING:\n        return 3\nK = f(1)",
    ),
    "main in a function of a module that calls itself so": (
        "__name__ = '__main__'\ndef f():\n    if __name__ == '__main__':\n        return 2\nK = f()",
        "__name__ = '__main__'\ndef f():\n    if __name__ == '__main__':\n        return 3\nK = f()",
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


# Text of the helper, before and after, and of the task file above execute.
CHANGED_HELPERS = {
    "names that a star imports": ("M = 9\n__all__ = ['f']\n", "M = 9\n__all__ = ['f', 'M']\n", "M = 1\nfrom helper import *\nK = M"),
    "builtin that a star hides": (
        "def max(*a):\n    return 9\n__all__ = ['f']\n", "def max(*a):\n    return 9\n__all__ = ['f', 'max']\n",
        "from helper import *\nK = max(1, 2)",
    ),
    "names that a star imports, grown": (
        "M = 9\n__all__ = ['f']\n__all__ += []\n", "M = 9\n__all__ = ['f']\n__all__ += ['M']\n", "M = 1\nfrom helper import *\nK = M",
    ),
    "names that a star imports, appended": (
        "M = 9\n__all__ = ['f']\n__all__.append('f')\n", "M = 9\n__all__ = ['f']\n__all__.append('M')\n", "M = 1\nfrom helper import *\nK = M",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED_HELPERS)
def test_edit_of_a_module_that_changes_values_changes_the_digest(name):
    before, after, text = CHANGED_HELPERS[name]
    task, helpers = f"{HEAD}{text}\n{EXECUTE}", [HELPER + each for each in (before, after)]
    values = [run_plainly(task, each) for each in helpers]
    assert None not in values
    assert values[0] != values[1]
    assert digests(task, helpers[0])["code"] != digests(task, helpers[1])["code"]


@pytest.mark.parametrize("line", ["sub = None", "def sub(): ...", ""])
def test_module_of_a_package_counts_where_the_package_binds_its_name(line):
    def digest(value):
        files = {
            "t.py": b"import pkg.sub\npspace = []\ndef execute():\n    return {'y': pkg.sub.K}\n",
            "pkg/__init__.py": line.encode(), "pkg/sub.py": f"K = {value}\n".encode(),
        }  # fmt: skip
        return digest_sources("t.py", None, files, {"pkg": "pkg/__init__.py", "pkg.sub": "pkg/sub.py"})[
            "code"
        ]

    assert digest(1) != digest(2)


def test_names_that_a_star_imports_leave_what_they_do_not_name_as_it_is():
    task, helper = HEAD + "from helper import *\nK = f(2)\n" + EXECUTE, HELPER + "__all__ = ['f', 'A']\n"
    assert digests(task, helper)["code"] == digests(task, helper.replace("return 1", "return 2"))["code"]


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
        ("GAIN = 2", "xs: list[int] = []\nxs.append(3)\nGAIN = 2"),
        ("GAIN = 2", "i = 0\nwhile i < 5:\n    i += 2\nGAIN = 2"),
        ("range(N))\n", "range(N))\nfor k in (5, 6):\n    pspace += Param(x=[k])\n"),
        ("GAIN = 2", "import numpy as np\nxs = np.linspace(0, 1, 3)\nGAIN = 2"),
    ],
)
def test_edit_of_the_space_alone_leaves_the_code_as_it_is(old, new):
    assert digests(BASE)["code"] == digests(BASE.replace(old, new))["code"]


READERS = """\
import csv, glob, json, os, tomllib
import numpy as np
import pandas as pd
import yaml
from pathlib import Path
from psyrun import Param
from psyrun.store import load_plain
HERE = Path(__file__).parent
TABLE = np.loadtxt(HERE / "table.txt")
with open("settings.toml", "rb") as f:
    GAIN = tomllib.load(f)["gain"]
xs = [1, 2]
pspace = Param(x=xs)
def execute(x):
    return {"y": x * GAIN * TABLE}
"""


@pytest.mark.parametrize(
    "text",
    [
        'xs = json.load(open("grid.json"))',
        'with open("grid.json") as f:\n    xs = json.load(f)["xs"]',
        'with open(HERE / "grid.json", encoding="utf8") as f, open("b") as g:\n    a = json.load(f)\n    xs = g.read().split()',
        'xs = load_plain("../psy-work/a/result.pkl")["x"]',
        'xs = sorted(Path("data").glob("*.csv"))',
        'xs = [path.stem for path in sorted((HERE / "data").glob("*.csv"))]',
        'xs = sorted(glob.glob("*.csv"))',
        "xs = [name for name in sorted(os.listdir('data'))]",
        'xs = np.loadtxt("grid.txt", delimiter=",", skiprows=1)[:, 0]',
        'xs = np.genfromtxt("grid.txt")',
        'xs = np.load("grid.npy")',
        'with np.load("grid.npz") as z:\n    xs = z["xs"]',
        'xs = Path("subjects.txt").read_text().splitlines()',
        'xs = [line.strip() for line in open(os.path.join("data", "subjects.txt"))]',
        'with open("grid.csv", newline="") as f:\n    xs = [int(row["x"]) for row in csv.DictReader(f)]',
        'with open("grid.csv") as f:\n    rows = csv.reader(f)\n    head = next(rows)\n    xs = [float(r[0]) for r in rows]',
        'xs = pd.read_csv("grid.csv")["x"].tolist()',
        'with open("grid.yaml") as f:\n    xs = yaml.safe_load(f)["xs"]',
        'with open("grid.toml", "rb") as f:\n    xs = tomllib.load(f)["xs"]',
        'xs = []\nfor path in sorted(glob.glob("*.json")):\n    with open(path) as f:\n        xs.append(json.load(f)["x"])',
        'data = {path: json.load(open(path)) for path in sorted(glob.glob("*.json"))}\nxs = [d["x"] for d in data.values()]',
    ],
)
def test_grid_that_the_space_reads_from_a_file_is_no_code(text):
    after = READERS.replace("xs = [1, 2]", text)
    assert digests(after)["code"] == digests(READERS)["code"]
    assert digests(after)["space"] != digests(READERS)["space"]


@pytest.mark.parametrize(
    "text",
    [
        'open("a", "w")', 'open("a", "r+")', 'open("a", MODE)', 'open("a", **{"mode": "w"})', 'open(*["a", "w"])',
        'Path("a").open("w")', "open(3)", "open(XS[0])", 'open("a", opener=os.open)', 'np.load("a", mmap_mode="r+")',
        'np.load("a", "r+")', 'np.load("a", allow_pickle=True)', 'pd.read_csv("a", chunksize=2)',
        'json.load(open("a"), object_hook=print)', 'Path("a").write_text("b")', 'Path("a").unlink()',
        "[open(n) for n in XS]", 'list([open("a")])', 'csv.reader(open("a"))', 'open("a")',
    ],
)  # fmt: skip
def test_reader_that_may_do_more_than_return_plain_values_is_code(text):
    before = READERS.replace("xs = [1, 2]", "MODE = 'r'\nXS = [0]\nxs = [1, 2]")
    after = before.replace("pspace", f"q = {text}\npspace")
    assert digests(after)["code"] != digests(before)["code"]


@pytest.mark.parametrize(
    "reader",
    [
        "import pickle\nxs = pickle.load(open('r.pkl', 'rb'))",
        "from psyrun.store import PickleStore\nxs = PickleStore().load('r.pkl')",
        "from psyrun.store import AutodetectStore as Any\nstore = Any()\nxs = store.load('r.pkl')",
        "import psyrun\nxs = psyrun.store.NpzStore().load('r.npz')",
        "import psyrun\nxs = psyrun.load('a')['x']",
        "import yaml\nxs = yaml.unsafe_load(open('r.yaml'))",
        "import yaml\nxs = yaml.load(open('r.yaml'), Loader=yaml.FullLoader)",
    ],
)
def test_reader_that_may_make_objects_of_classes_by_name_makes_all_code(reader):
    text = HEAD + reader + "\npspace = Param(x=xs)\ndef execute(x):\n    return {'y': x.f()}\n"
    assert digests(text)["code"] != digests(text, HELPER.replace("v = 1", "v = 2"))["code"]


def test_store_that_results_are_kept_in_leaves_the_code_as_it_is():
    text = HEAD.replace("Param", "Param, PickleStore", 1) + "from psyrun.store import CsvStore\n" + EXECUTE
    for store in ("PickleStore()", "CsvStore()", "CsvStore"):
        for edited in (HELPER.replace("v = 1", "v = 2"), HELPER.replace("return 1", "return 2")):
            assert digests(text)["code"] == digests(f"{text}store = {store}\n", edited)["code"]


def test_yaml_that_may_make_objects_of_the_program_is_code():
    before = READERS.replace(
        "xs = [1, 2]", "def make(*a): ...\nyaml.SafeLoader.add_constructor('!x', make)\nxs = [1, 2]"
    )
    after = before.replace("xs = [1, 2]", "xs = yaml.safe_load(Path('a').read_text())")
    assert digests(after)["code"] != digests(before)["code"]


def test_parts_of_statements_say_for_what_an_input_counts():
    text = READERS.replace(
        "xs = [1, 2]", "@staticmethod\ndef f():\n    pass\nxs = json.load(open('a')); b = open('b').read()"
    )
    text += "print(open('c', 'w'))\n"
    source = Source(
        task="psy-tasks/task_x.py", conf=None, files={"psy-tasks/task_x.py": text.encode()},
        modules={}, code="", space="", definitions={},
    )  # fmt: skip
    parts = {
        text.splitlines()[first - 1][:6]: (last - first, part)
        for (_, first, last), part in find_parts(source).items()
    }
    assert parts["TABLE "] == (0, "code")
    assert parts["with o"] == (1, "code")
    assert parts["@stati"] == (2, "")
    assert parts["xs = j"] == (0, "space")
    assert parts["print("] == (0, "code and space")


def test_parts_of_statements_include_those_of_modules():
    files = {
        "psy-tasks/task_x.py": b"import helper\npspace = helper.G\ndef execute(): ...",
        "psy-tasks/helper.py": b"\nG = open('g').read()\n",
    }
    source = Source(
        task="psy-tasks/task_x.py", conf=None, files=files, modules={"helper": "psy-tasks/helper.py"},
        code="", space="", definitions={},
    )  # fmt: skip
    assert find_parts(source)["psy-tasks/helper.py", 2, 2] == "space"


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


# -- the white list

ARGUMENTS = {
    **dict.fromkeys(["all", "any", "tuple", "enumerate", "reversed", "zip", "list", "set", "sorted", "max", "min", "sum", "len"], ([3, 1, 2],)),
    **{name: ([1, 2],) for name in PURE if name.startswith("itertools.")},
    **{name: (2,) for name in PURE if name.startswith("math.")},
    **{name: (1, 2) for name in PURE if name.startswith("numpy.")},
    **{f"numpy.{name}": (2,) for name in ("array", "bool_", "eye", "float32", "float64", "int32", "int64", "ones", "zeros")},
    "itertools.combinations": ([1, 2], 1), "itertools.repeat": (1, 2), "numpy.full": (2, 1.0), "math.pow": (2, 3),
    **dict.fromkeys(("abs", "round", "bool", "complex", "float", "int", "range", "str"), (2,)),
    "dict": ([(1, 2)],), "os.environ.get": ("HOME",), "os.path.join": ("a", "b"),
    **{f"os.path.{name}": ("a.txt",) for name in ("abspath", "basename", "dirname", "exists", "isdir", "isfile")},
    **{f"numpy.{name}": ("a.txt",) for name in ("genfromtxt", "loadtxt")},
    "numpy.load": ("a.npy",), "glob.glob": ("*",), "glob.iglob": ("*",), "os.listdir": (".",), "pathlib.Path": ("a.txt",),
    "csv.reader": (["a,b"],), "csv.DictReader": (["a,b", "1,2"],), "open": ("a.txt",), "io.open": ("a.txt",),
    "psyrun.store.load_plain": ("a.pkl",), "json.loads": ("[1]",), "tomllib.loads": ("a = 1",), "pandas.read_csv": ("a.txt",), "yaml.safe_load": ("[1]",),
}  # fmt: skip
# What gets an iterator of its own for each call.
ITERATORS = {
    "next": lambda: (iter([1]),), "json.load": lambda: (io.StringIO("[1]"),),
    "tomllib.load": lambda: (io.BytesIO(b"a = 1"),),
}  # fmt: skip
RECEIVERS = {
    **dict.fromkeys(("glob", "rglob"), (Path(), "*")),
    **dict.fromkeys(("iterdir", "exists", "is_dir", "is_file", "resolve", "absolute"), (Path(),)),
    **dict.fromkeys(("open", "read_text", "read_bytes"), (Path("a.txt"),)),
    **dict.fromkeys(("items", "keys", "values"), ({1: 2},)),
    **dict.fromkeys(("split", "splitlines", "lower", "upper", "strip", "lstrip", "rstrip"), (" a b ",)),
    "join": (" ", ["a"]), **dict.fromkeys(("startswith", "endswith"), ("ab", "a")), "get": ({1: 2}, 1),
    "tolist": (np.ones(2),), "joinpath": (Path("a"), "b"), "with_name": (Path("a"), "b"), "with_suffix": (Path("a"), ".b"),
}  # fmt: skip


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("1\n2\n")
    np.save("a.npy", np.ones(2))
    PickleStore().save("a.pkl", {"x": [1]})
    return tmp_path


def content(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def check_entry(function, make_arguments, kind, folder):
    """Hold a callable against what the list says of it: it changes nothing, and gives the same again."""
    arguments = make_arguments()
    kept, before = ascii(arguments), content(folder)
    one, other = function(*arguments), function(*make_arguments())
    assert "<" in kept or ascii(arguments) == kept
    assert content(folder) == before
    if kind is Kind.ONCE:
        assert not hasattr(one, "append")
        one, other = list(one), list(other)
    assert not hasattr(one, "__next__")
    assert np.array_equal(one, other)
    if kind is Kind.FROZEN and not isinstance(one, range):
        assert not hasattr(one, "__setitem__")
        assert not isinstance(one, np.ndarray)
        hash(one)
    if isinstance(one, (list, dict, set, np.ndarray)):
        assert one is not other
        assert all(one is not each for each in arguments)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", sorted(PURE))
def test_callable_of_the_white_list_changes_nothing_and_gives_what_is_said(name, files):
    module, _, attribute = name.rpartition(".")
    owner = pytest.importorskip(module.removesuffix(".environ") or "builtins")
    function = getattr(owner.environ if module == "os.environ" else owner, attribute)
    make = ITERATORS.get(name) or (lambda: copy.deepcopy(ARGUMENTS[name]))
    check_entry(function, make, PURE[name], files)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", sorted(METHODS.keys() - METHODS_OF_FILES))
def test_method_of_the_white_list_changes_nothing_and_gives_what_is_said(name, files):
    receiver, *arguments = RECEIVERS[name]
    check_entry(getattr(receiver, name), lambda: arguments, METHODS[name], files)


@pytest.mark.parametrize("name", sorted(METHODS_OF_FILES))
def test_method_of_files_gives_plain_values(name, files):
    for mode in ("r", "rb"):
        with Path("a.txt").open(mode) as file:
            value = getattr(file, name)()
        assert isinstance(value, str | bytes) or {type(each) for each in value} <= {str, bytes}


@pytest.mark.parametrize("name", sorted(READS_FIRST - {"any", "next", "numpy.load"}))
def test_reader_of_an_iterator_has_read_it_or_gives_an_iterator(name, files):
    module, _, attribute = name.rpartition(".")
    function = getattr(pytest.importorskip(module or "builtins"), attribute)
    texts = {
        "json.load": "1",
        "pandas.read_csv": "a",
        "tomllib.load": b"a = 1",
        "yaml.safe_load": "1",
        "dict": ["ab"],
    }
    text = texts.get(name, ["1", "2"])
    kinds = {str: io.StringIO, bytes: io.BytesIO, list: iter}
    given = map(float, text) if name == "sum" else kinds[type(text)](text)
    more = [1] if name == "itertools.combinations" else []
    value = function(given, *more)
    if hasattr(value, "__next__"):
        assert PURE[name] is Kind.ONCE
        list(value)
    assert list(given) == []


def test_plain_values_have_no_other_methods_of_the_names_on_the_list():
    plain = (
        int,
        float,
        complex,
        bool,
        str,
        bytes,
        list,
        tuple,
        dict,
        set,
        frozenset,
        range,
        slice,
        type(None),
        np.ndarray,
        np.float64,
    )
    expected = {
        "str bytes": {"split", "splitlines", "lower", "upper", "strip", "lstrip", "rstrip", "join", "startswith", "endswith"},
        "dict": {"items", "keys", "values", "get"}, "ndarray float64": {"tolist"},
    }  # fmt: skip
    found = {each.__name__: {name for name in METHODS if hasattr(each, name)} for each in plain}
    assert {name: names for name, names in found.items() if names} == {
        name: names for types, names in expected.items() for name in types.split()
    }


def test_every_entry_of_the_list_of_decorators_leaves_the_function_uncalled():
    for name in DECORATORS - {"dataclasses.dataclass"}:
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
