"""Functions of the program that only return a value: an edit of one is an edit of what it is for."""

import pytest

from fuzz_programs import run_plainly
from test_digests import EXECUTE, HEAD, HELPER, READERS, digests

# Names of the space, made by functions of the program.
SPACES = {
    "grid": "def make(n=2):\n    return Param(x=range(n)) * Param(y=[1.0, 2.0])\nxs = make()",
    "sum of spaces": (
        "def make(gains=(1, 2)):\n    grid = Param()\n    for g in gains:\n        grid += Param(g=[g])\n    return grid\n"
        "xs = make()"
    ),
    "values": "def make(n):\n    return [i * 0.5 for i in range(n)]\nxs = make(5)",
    "generator": "def make(n):\n    for i in range(n):\n        if i % 2:\n            yield i\nxs = list(make(5))",
    "generator of a generator": "def one():\n    yield 1\ndef make():\n    yield from one()\nxs = [*make()]",
    "recursion": "def make(n):\n    if n == 0:\n        return []\n    return [n, *make(n - 1)]\nxs = make(4)",
    "recursion of two": (
        "def even(n):\n    return True if n == 0 else odd(n - 1)\n"
        "def odd(n):\n    return False if n == 0 else even(n - 1)\nxs = [i for i in range(5) if even(i)]"
    ),
    "constants": "M = 3\ndef count():\n    return M\ndef make():\n    return list(range(count()))\nxs = make()",
    "loop": "def make():\n    n = 1\n    while True:\n        n += 1\n        if n > 5:\n            break\n    return [n]\nxs = make()",
    "grown by its caller": "def make():\n    out = [1]\n    return out\nxs = make()\nxs.append(2)",
    "errors": "def make(n):\n    if n < 0:\n        raise ValueError(f'{n}')\n    assert n, 'n'\n    return [n]\nxs = make(2)",
    "message": "def make():\n    print('grid', 3)\n    return [3]\nxs = make()",
    "reader": "def load():\n    with open('grid.json') as f:\n        return json.load(f)\nxs = load()",
    "reader of a named file": "def load(name):\n    with open(name) as f:\n        return json.load(f)\nxs = load('grid.json')",
    "reader with defaults": (
        "def load(name='grid.json', *, key='x'):\n    with open(HERE / name) as f:\n        return json.load(f)[key]\n"
        "xs = load(key='y')"
    ),
    "reader of a path": (
        "def load(path):\n    path = Path(path)\n    with path.open() as f:\n        return [float(line) for line in f]\n"
        "xs = load(HERE / 'a.txt')"
    ),
    "table by hand": (
        "def read(name):\n    rows = []\n    with open(name) as f:\n        reader = csv.reader(f)\n        next(reader)\n"
        "        for row in reader:\n            rows.append([float(v) for v in row])\n    return rows\nxs = read('x.csv')"
    ),
    "settings by hand": (
        "def read(name):\n    data = {}\n    for line in open(name):\n        if not line.strip():\n            continue\n"
        "        key, value = line.split(',')\n        data[key] = float(value)\n    return data\nxs = read('x.csv')"
    ),
    "file that may be missing": (
        "def load():\n    try:\n        return json.load(open('grid.json'))\n    except FileNotFoundError:\n        return []\nxs = load()"
    ),
    "name of a file above": (
        "GRID = os.path.join('a', 'grid.json')\ndef load():\n    with open(GRID) as f:\n        return json.load(f)\nxs = load()"
    ),
    "files of a folder": (
        "def load():\n    out = []\n    for path in sorted(glob.glob('*.json')):\n        with open(path) as f:\n"
        "            out.append(json.load(f)['x'])\n    return out\nxs = load()"
    ),
    "name made in it": "def load(name):\n    path = os.path.join('data', name)\n    return np.loadtxt(open(path))\nxs = load('a')",
    "reader of a reader": (
        "def load(name):\n    with open(name) as f:\n        return f.read().split()\n"
        "def subjects(name='s.txt'):\n    return [s for s in load(name) if s]\nxs = subjects()"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPACES)
def test_space_that_functions_of_the_program_make_is_no_code(name):
    after = READERS.replace("xs = [1, 2]", SPACES[name])
    assert digests(after)["code"] == digests(READERS)["code"]
    assert digests(after)["space"] != digests(READERS)["space"]


def test_space_that_a_function_of_a_module_makes_is_no_code():
    text = (
        HEAD.replace("pspace = Param(x=[1, 2])\n", "")
        + "pspace = Param(x=helper.f(2))\ndef execute(x): ...\n"
    )
    edited = HELPER.replace("return x * K[0]", "return [x, 2]")
    assert digests(text)["code"] == digests(text, edited)["code"]
    assert digests(text)["space"] != digests(text, edited)["space"]


def test_function_that_execute_calls_too_is_code():
    text = (
        HEAD + "def f(n):\n    return [n]\npspace = Param(x=f(2))\ndef execute(x):\n    return {'y': f(x)}\n"
    )
    assert digests(text)["code"] != digests(text.replace("[n]", "[n, n]"))["code"]


# Each pair is the text between HEAD and execute, before and after; values of K differ.
CHANGED = {
    "it changes a list of the module": (
        "K = []\ndef f(n):\n    K.append(n)\n    return n\nL = f(1)", "K = []\ndef f(n):\n    K.append(n)\n    return n",
    ),
    "it changes a list of the module by another name": (
        "K = []\ndef f(n):\n    q = K\n    q.append(n)\n    return n\nL = f(1)",
        "K = []\ndef f(n):\n    q = K\n    q.append(n)\n    return n",
    ),
    "it changes an array in place": (
        "import numpy as np\nK = np.ones(2)\ndef f():\n    q = K\n    q += 1\n    return 1\nL = f()",
        "import numpy as np\nK = np.ones(2)\ndef f():\n    q = K\n    q += 1\n    return 1",
    ),
    "it changes what it is given": (
        "K = []\ndef f(q):\n    q.append(1)\n    return 1\nL = f(K)", "K = []\ndef f(q):\n    q.append(1)\n    return 1",
    ),
    "it changes what is in a list of its own": (
        "K = []\ndef f(q):\n    own = [q]\n    for each in own:\n        each.append(1)\n    return 1\nL = f(K)",
        "K = []\ndef f(q):\n    own = [q]\n    for each in own:\n        each.append(1)\n    return 1",
    ),
    "it changes what is in a list of its own by +=": (
        "K = []\ndef f(q):\n    own = [q]\n    own[0] += [1]\n    return 1\nL = f(K)",
        "K = []\ndef f(q):\n    own = [q]\n    own[0] += [1]\n    return 1",
    ),
    "it is given an array and adds to it": (
        "import numpy as np\nK = np.ones(2)\ndef f(q):\n    q += 1\n    return 1\nL = f(K)",
        "import numpy as np\nK = np.ones(2)\ndef f(q):\n    q += 1\n    return 1",
    ),
    "it returns what it is given": (
        "K = []\ndef f(q):\n    return q\nL = f(K)\nL.append(1)", "K = []\ndef f(q):\n    return q\nL = f(K)\nL.append(2)",
    ),
    "it returns a list of the module": (
        "K = []\ndef f():\n    return K\nL = f()\nL.append(1)", "K = []\ndef f():\n    return K\nL = f()\nL.append(2)",
    ),
    "it yields a list of the module": (
        "K = []\ndef f():\n    yield K\nfor q in f():\n    q.append(1)", "K = []\ndef f():\n    yield K\nfor q in f():\n    q.append(2)",
    ),
    "default that it keeps": (
        "def f(q=[]):\n    q.append(1)\n    return list(q)\nL = f()\nK = f()", "def f(q=[]):\n    q.append(1)\n    return list(q)\nK = f()",
    ),
    "cache": (
        "import functools\n@functools.cache\ndef f():\n    return [1]\nK = f()\nL = f()\nL.append(1)",
        "import functools\n@functools.cache\ndef f():\n    return [1]\nK = f()\nL = f()\nL.append(2)",
    ),
    "closure": (
        "def make():\n    n = [0]\n    def f():\n        n.append(1)\n        return len(n)\n    return f\nf = make()\nL = f()\nK = f()",
        "def make():\n    n = [0]\n    def f():\n        n.append(1)\n        return len(n)\n    return f\nf = make()\nK = f()",
    ),
    "lambda that it returns": (
        "def make():\n    n = [0]\n    return lambda: n.append(1) or len(n)\nf = make()\nL = f()\nK = f()",
        "def make():\n    n = [0]\n    return lambda: n.append(1) or len(n)\nf = make()\nK = f()",
    ),
    "global": (
        "K = 1\ndef f():\n    global K\n    K = 2\n    return 1\nL = f()", "K = 1\ndef f():\n    global K\n    K = 2\n    return 1",
    ),
    "attribute of itself": (
        "def f():\n    f.n = getattr(f, 'n', 0) + 1\n    return f.n\nL = f()\nK = f()",
        "def f():\n    f.n = getattr(f, 'n', 0) + 1\n    return f.n\nK = f()",
    ),
    "iterator of the module": (
        "i = iter([1, 2, 3])\ndef f():\n    return next(i)\nL = f()\nK = f()", "i = iter([1, 2, 3])\ndef f():\n    return next(i)\nK = f()",
    ),
    "iterator that it keeps open": (
        "def f():\n    return zip([1, 2], [3, 4])\ni = f()\nL = list(i)\nK = list(i)", "def f():\n    return zip([1, 2], [3, 4])\ni = f()\nK = list(i)",
    ),
    "generator that is read on": (
        "def f():\n    yield 1\n    yield 2\ni = f()\nL = next(i)\nK = next(i)", "def f():\n    yield 1\n    yield 2\ni = f()\nK = next(i)",
    ),
    "open file that it returns": (
        "def f():\n    return open('grid.txt')\ni = f()\nL = i.read()\nK = i.read()", "def f():\n    return open('grid.txt')\ni = f()\nK = i.read()",
    ),
    "open file of the module": (
        "i = open('grid.txt')\ndef f():\n    return i.read()\nL = f()\nK = f()", "i = open('grid.txt')\ndef f():\n    return i.read()\nK = f()",
    ),
    "number of an open file": (
        "import os\nN = os.open('grid.txt', os.O_RDONLY)\ndef f(n):\n    return open(n, closefd=False).read(3)\nL = f(N)\nK = open(N).read()",
        "import os\nN = os.open('grid.txt', os.O_RDONLY)\ndef f(n):\n    return open(n, closefd=False).read(3)\nK = open(N).read()",
    ),
    "number of an open file by default": (
        "import os\nN = os.open('grid.txt', os.O_RDONLY)\nos.dup2(N, 9)\ndef f(n=9):\n    return open(n, closefd=False).read(3)\nL = f()\nK = open(9).read()",
        "import os\nN = os.open('grid.txt', os.O_RDONLY)\nos.dup2(N, 9)\ndef f(n=9):\n    return open(n, closefd=False).read(3)\nK = open(9).read()",
    ),
    "number that hides behind a variable of a comprehension": (
        "import os\nN = os.open('grid.txt', os.O_RDONLY)\nos.dup2(N, 9)\ndef f(n):\n    return [open(n, closefd=False).read(3) for n in [9]]\nL = f('a')\nK = open(9).read()",
        "import os\nN = os.open('grid.txt', os.O_RDONLY)\nos.dup2(N, 9)\ndef f(n):\n    return [open(n, closefd=False).read(3) for n in [9]]\nK = open(9).read()",
    ),
    "number of an open file among others": (
        "import os\nN = os.open('grid.txt', os.O_RDONLY)\nos.dup2(N, 9)\ndef f(n='a'):\n    return open(n, closefd=False).read(3)\nL = f(*[9])\nK = open(9).read()",
        "import os\nN = os.open('grid.txt', os.O_RDONLY)\nos.dup2(N, 9)\ndef f(n='a'):\n    return open(n, closefd=False).read(3)\nK = open(9).read()",
    ),
    "number of an open file by a dict": (
        "import os\nN = os.open('grid.txt', os.O_RDONLY)\nos.dup2(N, 9)\ndef f(n='a'):\n    return open(n, closefd=False).read(3)\nL = f(**{'n': 9})\nK = open(9).read()",
        "import os\nN = os.open('grid.txt', os.O_RDONLY)\nos.dup2(N, 9)\ndef f(n='a'):\n    return open(n, closefd=False).read(3)\nK = open(9).read()",
    ),
    "default called like a parameter of the caller": (
        "import os\nN = os.open('grid.txt', os.O_RDONLY)\nos.dup2(N, 9)\nM = 9\ndef g(n=M):\n    return open(n, closefd=False).read(3)\ndef f(M='a'):\n    return g()\nL = f('a')\nK = open(9).read()",
        "import os\nN = os.open('grid.txt', os.O_RDONLY)\nos.dup2(N, 9)\nM = 9\ndef g(n=M):\n    return open(n, closefd=False).read(3)\ndef f(M='a'):\n    return g()\nK = open(9).read()",
    ),
    "it writes a file": (
        "def f():\n    open('t.txt', 'w').write('1')\n    return 1\nL = f()\nimport os\nK = os.path.exists('t.txt')",
        "def f():\n    open('t.txt', 'w').write('1')\n    return 1\nimport os\nK = os.path.exists('t.txt')",
    ),
    "it calls one that writes": (
        "import os\ndef g():\n    os.mkdir('t')\ndef f():\n    return g()\nL = f()\nK = os.path.exists('t')",
        "import os\ndef g():\n    os.mkdir('t')\ndef f():\n    return g()\nK = os.path.exists('t')",
    ),
    "it is rebound": (
        "K = []\ndef f():\n    return 1\nf = lambda: K.append(1)\nL = f()", "K = []\ndef f():\n    return 1\nf = lambda: K.append(1)",
    ),
    "it is rebound by another function": (
        "K = []\ndef f():\n    return 1\ndef g():\n    global f\n    f = lambda: K.append(1)\ng()\nL = f()",
        "K = []\ndef f():\n    return 1\ndef g():\n    global f\n    f = lambda: K.append(1)\ng()",
    ),
    "its defaults are replaced": (
        "K = []\ndef f(q=1):\n    return q\nf.__defaults__ = (K,)\nL = f()\nL.append(1)",
        "K = []\ndef f(q=1):\n    return q\nf.__defaults__ = (K,)\nL = f()\nL.append(2)",
    ),
    "its code is replaced by who gets it": (
        "K = []\ndef f():\n    return 1\ndef g():\n    return K.append(1)\ndef patch(q):\n    q.__code__ = g.__code__\npatch(f)\nL = f()",
        "K = []\ndef f():\n    return 1\ndef g():\n    return K.append(1)\ndef patch(q):\n    q.__code__ = g.__code__\npatch(f)",
    ),
    "its code is replaced by another name": (
        "K = []\ndef f():\n    return 1\ndef g():\n    return K.append(1)\nh = f\nh.__code__ = g.__code__\nL = f()",
        "K = []\ndef f():\n    return 1\ndef g():\n    return K.append(1)\nh = f\nh.__code__ = g.__code__",
    ),
    "one of a module is patched": (
        "K = []\nhelper.unused = lambda: K.append(1)\nL = helper.unused()", "K = []\nhelper.unused = lambda: K.append(1)",
    ),
    "one of a module is patched by a string": (
        "from unittest import mock\nimport helper as h\nK = []\nmock.patch('helper.unused', lambda: K.append(1)).start()\nL = h.unused()",
        "from unittest import mock\nimport helper as h\nK = []\nmock.patch('helper.unused', lambda: K.append(1)).start()",
    ),
    "a builtin that it calls is hidden later": (
        "K = []\ndef f():\n    return max(1, 2)\ndef max(*a):\n    K.append(1)\nL = f()", "K = []\ndef f():\n    return max(1, 2)\ndef max(*a):\n    K.append(1)",
    ),
    "its name is that of a builtin": (
        "L = open('t.txt', 'w')\ndef open(*a):\n    return 1\nimport os\nK = os.path.exists('t.txt')",
        "def open(*a):\n    return 1\nimport os\nK = os.path.exists('t.txt')",
    ),
    "name that is not bound yet": (
        "def f():\n    try:\n        return Q\n    except NameError:\n        return 0\nK = f()\nQ = 1",
        "Q = 1\ndef f():\n    try:\n        return Q\n    except NameError:\n        return 0\nK = f()",
    ),
    "constant bound twice": ("Q = 1\ndef f():\n    return Q\nK = f()\nQ = 2", "Q = 1\ndef f():\n    return Q\nQ = 2\nK = f()"),
    "list grown after the call": (
        "Q = [1]\ndef f():\n    return len(Q)\nK = f()\nQ.append(2)", "Q = [1]\ndef f():\n    return len(Q)\nQ.append(2)\nK = f()",
    ),
    "yield in a lambda": (
        "def f():\n    return lambda: (yield 1)\nL = f()\nK = [next(L()), 1]", "def f():\n    return lambda: (yield 2)\nL = f()\nK = [next(L()), 1]",
    ),
    "import in it": ("def f():\n    import helper as h\n    h.K.append(1)\n    return 1\nL = f()\nK = helper.K", "def f():\n    import helper as h\n    h.K.append(1)\n    return 1\nK = helper.K"),
    "object with an operator of its own": (
        "K = []\nclass A:\n    def __add__(self, q):\n        K.append(q)\ndef f(a):\n    return a + 1\nL = f(A())",
        "K = []\nclass A:\n    def __add__(self, q):\n        K.append(q)\ndef f(a):\n    return a + 1",
    ),
    "function that it is given": (
        "K = []\ndef f(g):\n    return g(1)\nL = f(K.append)", "K = []\ndef f(g):\n    return g(1)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_function_that_does_more_than_return_a_value_is_code(name):
    before, after = (HEAD + text + "\n" + EXECUTE for text in CHANGED[name])
    values = run_plainly(before, HELPER), run_plainly(after, HELPER)
    assert None not in values
    assert values[0] != values[1]
    assert digests(before)["code"] != digests(after)["code"]


def test_grid_that_a_function_reads_from_a_file_leads_to_new_rows_only(project):
    project.write("psy-tasks/grid.json", "[1, 2]")
    project.task(
        "t",
        "import json\nfrom counting import seen\nfrom psyrun import Param\n"
        "def load(name):\n    with open(name) as f:\n        return json.load(f)\n"
        "def make_grid():\n    return Param(x=load('grid.json'))\n"
        "pspace = make_grid()\ndef execute(x):\n    seen(x)\n    return {'y': 2 * x}\n",
    )
    assert project.count("run") == 2
    project.write("psy-tasks/grid.json", "[1, 2, 3]")
    assert project.count("run") == 1
    project.edit("psy-tasks/task_t.py", "json.load(f)", "[9, *json.load(f)]")
    assert project.count("run") == 1
    assert project.result("t") == {"x": [9, 1, 2, 3], "y": [18, 2, 4, 6]}
    assert project.count("run") == 0
