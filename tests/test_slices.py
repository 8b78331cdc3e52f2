"""What the values of `execute` depend on, and what the space depends on."""

import ast
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from psyrun.source import syntax
from psyrun.source.digests import task_facts
from psyrun.source.slices import slice_statements
from psyrun.source.syntax import digest, exported_names, imported_names, parse, scopes_of

BASE = '''
"""An experiment."""
import numpy as np
from psyrun import Param

N = 50
SCALE = 2.0
pspace = Param(x=range(N))


def execute(x):
    """Evaluate."""
    return {"y": SCALE * x}
'''


def facts(text, conf=""):
    return task_facts([parse(conf.encode(), "psy-conf.py"), parse(text.encode(), "task_a.py")])


def changes(before, after):
    """Which of the two digests differ between two task files, or two pairs of psy-conf.py and task file."""
    one, other = (
        facts(*reversed(text)) if isinstance(text, tuple) else facts(text) for text in (before, after)
    )
    return "".join(part for part in ("code ", "space ") if one[part.strip()] != other[part.strip()]).strip()


def kept(text, part):
    """The statements of a slice, as text."""
    body = ast.parse(text).body
    return [ast.unparse(body[index]) for index in sorted(getattr(slice_statements(body), part))]


def in_code(text):
    return "\n".join(kept(text, "code"))


def in_space(text):
    return "\n".join(kept(text, "space"))


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("N = 50", "N = 60", "space"),
        ("range(N))", "range(N)) + Param(x=[7])", "space"),
        ("range(N))", "range(N))\npspace += Param(x=[100])", "space"),
        ("range(N))", "range(N))\nfor n in range(3):\n    pspace += Param(x=[n])", "space"),
        ("range(N))", "range(N))\nprint(len(pspace))", ""),
        ("range(N))", "range(N))\nassert len(pspace) == N", ""),
        ("range(N))", "range(N))\nif __name__ == '__main__':\n    np.random.seed(1)\n    N = 3", ""),
        ("range(N))", "range( N, ))  # why", ""),
        ('"""An experiment."""', '"""Another."""', ""),
        ('"""Evaluate."""', '"""Compute."""', ""),
        ('"y"', "'y'", ""),
        ("N = 50", "N = 50\ntimeout = 3", ""),
        ("N = 50", "N = 50\nmax_jobs = 10", ""),
        ("N = 50", "N = 50\nscheduler_args = {'time': 3}", ""),
        ("N = 50", "N = 50\nunused = 3", ""),
        ("N = 50", "N = 50\ndef unused(x):\n    return x", ""),
        ("N = 50", "N = 50\npass", ""),
        ("SCALE = 2.0", "SCALE = 3.0", "code"),
        ("SCALE = 2.0", "SCALE = 2", "code"),
        ("SCALE * x", "SCALE + x", "code"),
        ("def execute(x)", "def execute(x=1)", "code"),
        ("def execute(x)", "def setup(proc_id):\n    pass\ndef execute(x)", "code"),
        ("import numpy as np", "import numpy as np\nimport json", "code space"),
        ("N = 50", "N = 50\nnp.random.seed(0)", "code space"),
        ("N = 50", "N = 50\nif N > 3:\n    np.random.seed(0)", "code space"),
        ("N = 50", "N = 50\nfor k in [1]:\n    np.random.seed(k)", "code space"),
        ("N = 50", "N = 50\nnp.random.x = 3", "code space"),
    ],
)
def test_edit_changes_exactly_the_digests_that_depend_on_it(old, new, changed):
    assert old in BASE
    assert changes(BASE, BASE.replace(old, new)) == changed


def test_space_that_reads_what_execute_reads_changes_with_it():
    text = "N = 3\npspace = Param(x=range(N))\ndef execute(x): return N"
    assert changes(text, text.replace("3", "4")) == "code space"


def test_code_follows_functions_classes_and_constants_transitively():
    text = "A = 1\nclass B:\n    a = A\ndef c(): return B\nD = c\ndef execute(x): return D()()\nE = 5"
    assert "A = 1" in in_code(text)
    assert "E = 5" not in in_code(text)


def test_all_bindings_of_a_name_belong_to_it():
    bindings = ["a = 1", "a = 2", "del a", "a: int = 3"]
    assert kept("\n".join([*bindings, "def execute(): return a"]), "code")[:-1] == bindings


@pytest.mark.parametrize(
    "binding",
    [
        "if FAST:\n    a = 1\nelse:\n    a = 2",
        "try:\n    a = 1\nexcept ValueError:\n    a = 2",
        "for a in range(3):\n    pass",
        "with open('x') as a:\n    pass",
        "while True:\n    a = 1\n    break",
        "match 3:\n    case [a, *_]:\n        pass",
        "match 3:\n    case {'k': 1, **a}:\n        pass",
        "a, (b, *c) = 1, (2, 3)",
        "b = (a := 3)",
        "[b for b in range(3) if (a := b)]",
        "try:\n    pass\nexcept ValueError as a:\n    pass",
        "class a:\n    pass",
        "if FAST:\n    def a(): ...",
    ],
)
def test_compound_statement_is_one_unit_that_binds_everything_inside(binding):
    assert binding.splitlines()[0].split("(")[0] in in_code(f"{binding}\ndef execute(): return a")


def test_compound_statement_reads_everything_inside():
    assert "lim = 3" in in_code(
        "lim = 3\nfor i in range(9):\n    if i > lim:\n        a = i\ndef execute(): return a"
    )


@pytest.mark.parametrize(
    "body",
    [
        "def execute(a): return a",
        "def execute(*a, **b): return a",
        "def execute(x):\n    a = x\n    return a",
        "def execute(x):\n    for a in x: print(a)",
        "def execute(x): return [a for a in x]",
        "def execute(x): return (lambda a: a)(x)",
        "def execute(x):\n    a = 1\n    def inner(): return a\n    return inner()",
        "def execute(x):\n    a = 1\n    def inner():\n        nonlocal a\n        a = 2\n    return inner()",
        "def execute(x):\n    import a\n    return a",
        "def execute(x):\n    match x:\n        case [a]: return a",
        "def execute(x): return x.a",
    ],
)
def test_local_variables_are_no_reads_of_globals(body):
    assert in_code(f"a = 1\n{body}") == ast.unparse(ast.parse(body))


@pytest.mark.parametrize(
    "body",
    [
        "def execute(x=a): return x",
        "@a\ndef execute(x): return x",
        "def execute(x: a): return x",
        "def execute(x) -> a: return x",
        "def execute(x): return [b for b in a]",
        "def execute(x): return [a for a in a]",
        "def execute(x): return lambda: a",
        "def execute(x):\n    global a\n    a += 1",
        "def execute(x):\n    def f(a): pass\n    return a",
        "def execute(x):\n    class C:\n        a = a\n    return C",
        "def execute(x):\n    class C:\n        a = 1\n        def f(self): return a\n    return C",
        "def execute(x=lambda a: a): return a",
        "class execute:\n    def __new__(cls): return a",
    ],
)
def test_free_names_are_reads(body):
    assert "a = 1" in in_code(f"a = 1\n{body}")


# -- mutations


@pytest.mark.parametrize(
    "change",
    [
        "xs.append(3)",
        "xs[0] = 3",
        "xs.field = 3",
        "xs[0].field[1] += 3",
        "del xs[0]",
        "xs += [3]",
        "first = xs.pop()",
        "print(xs.pop())",
        "for i in [1]:\n    xs.append(i)",
        "if FAST:\n    xs[0] = 1",
        "rng.shuffle(xs)",
        "rng.fill(out=xs)",
        "rng.fill([1, xs])",
        "a = xs\na.append(1)",
        "a = xs\nb = a\nb[0] = 1",
        "a = b = xs[0]\nb.append(1)",
        "a, b = xs, 1\na.append(1)",
        "a = xs if FAST else None\na.append(1)",
        "a = (b := xs)\nb.append(1)",
        "a = xs.setdefault('k', [])\na.append(1)",
        "for a in xs:\n    a.append(1)",
        "for i, a in enumerate(xs):\n    a.append(1)",
        "for k, a in xs.items():\n    a.append(1)",
        "[a.pop() for a in xs]",
        "with wrap(xs) as a:\n    a.append(1)",
        "match xs:\n    case [a]:\n        a.append(1)",
    ],
)
def test_statement_that_changes_an_object_belongs_to_its_variable(change):
    text = f"rng = 1\nxs = []\n{change}\ndef execute(): return xs"
    assert ast.unparse(ast.parse(change).body[-1]) in in_code(text)


@pytest.mark.parametrize(
    "change", ["xs.append(3)", "xs[0] = 3", "xs += [3]", "rng.shuffle(xs)", "a = xs\na[0] = 1"]
)
def test_change_of_a_variable_that_execute_does_not_read_is_not_in_code(change):
    text = f"rng = 1\nxs = []\n{change}\npspace = xs\ndef execute(): ..."
    assert in_code(text) == "def execute():\n    ..."
    assert ast.unparse(ast.parse(change).body[-1]) in in_space(text)


@pytest.mark.parametrize(
    "statement",
    [
        "pspace = Param(x=xs)",
        "pspace = Param(x=xs)\npspace += Param(x=xs)",
        "pspace = Param()\nfor x in xs:\n    pspace += Param(x=[x])",
        "rows = []\nfor x in xs:\n    rows.append(Param(x=[x]))\npspace = sum(rows)",
        "rows = list(xs)\nrows.append(4)\npspace = Param(x=rows)",
        "pspace = Param(x=[x + 1 for x in xs])",
        "pspace = make(xs)",
        "pspace = xs.copy()",
        "small = Param(x=xs)\nlarge = Param(x=range(9))\npspace = large",
        "small = np.linspace(0, 1)\npspace = Param(x=[1])",
        "total = len(pspace)",
        "log.info('%d rows', len(pspace))",
    ],
)
def test_space_that_only_reads_what_execute_reads_is_not_in_code(statement):
    head = "import numpy as np\nfrom psyrun import Param\nxs = [1]\nlog = 1\n"
    tail = "def execute(x): return xs, log"
    assert in_code(f"{head}{statement}\n{tail}") == in_code(head + tail)


@pytest.mark.parametrize(
    "statement",
    [
        "np.random.seed(0)",
        "seed(0)",
        "os.environ['A'] = '1'",
        "np.random.x = 3",
        "del os.environ['A']",
        "draw = np.random\ndraw.seed(0)",
        "f.cache = {}",
        "f(1)",
        "C.register(1)",
        "step(1)",
        "[f(i) for i in range(3)]",
        "FAST and f(1)",
        "(f if FAST else g)(1)",
        "setattr(xs, 'a', 1)",
        "try:\n    import json\nexcept ImportError:\n    json = None",
        "if FAST:\n    import json",
        "_ = torch.manual_seed(0)",
        "old = np.seterr(all='raise')",
        "session = torch.start()",
        "_ = np.random.rand(3)",
        "unused = g()",
    ],
)
def test_statement_with_effects_outside_of_the_file_is_in_both(statement):
    head = "import numpy as np, torch, os\nfrom random import seed\nxs = []\nstep = jit(xs)\ndef f(x): ...\n"
    head += "def g(): seed(1)\nclass C: ...\n"
    text = f"{head}{statement}\npspace = 1\ndef execute(x): return x"
    last = ast.unparse(ast.parse(statement).body[-1])
    assert last in in_code(text)
    assert last in in_space(text)


@pytest.mark.parametrize(
    "statement",
    [
        "'text'",
        "xs",
        "xs[0]",
        "log.warning('hm')",
        "print(f(1))",
        "assert f(1)",
        "if not xs:\n    raise ValueError",
        "if not xs:\n    sys.exit('empty')",
        "alternative = make(3)",
        "alternative = [make(n) for n in range(3)]",
    ],
)
def test_statement_without_effects_is_in_neither(statement):
    text = (
        f"{statement}\npspace = 1\ndef f(x): ...\ndef make(n): return n\nxs = []\ndef execute(x): return x, f"
    )
    assert ast.unparse(ast.parse(statement)) not in in_code(text) + in_space(text)


@pytest.mark.parametrize(
    "function",
    [
        "def fill(n):\n    table[n] = 1\n    return n",
        "def fill(n):\n    global table\n    table = {n: 1}",
        "def fill(n):\n    t = table\n    t[n] = 1",
        "def fill(n):\n    def inner(): table.update(n=1)\n    inner()",
        "def fill(n): deeper(n)\ndef deeper(n): table.update(n=1)",
        "def fill(n): rng.shuffle(table)",
        "class fill:\n    def __init__(self, n): table[n] = self",
        "fill = lambda n: table.update(n=1) or table.pop(n)",
    ],
)
@pytest.mark.parametrize("call", ["M = fill(3)", "M = [fill(n) for n in range(3)]", "@fill\ndef M(): ..."])
def test_statement_that_calls_a_function_belongs_to_what_the_function_changes(function, call):
    text = f"rng = 1\ntable = {{}}\n{function}\n{call}\ndef execute(x): return table[x]"
    assert ast.unparse(ast.parse(call)) in in_code(text)


def test_function_that_changes_its_own_variables_changes_nothing_else():
    make = "def make(n):\n    xs = []\n    xs.append(n)\n    return xs"
    text = f"xs = [1]\n{make}\nN = make(3)\ndef execute(x): return xs"
    assert "make" not in in_code(text)


def test_constants_do_not_change_by_being_passed_along():
    text = "SEED = 3\nrng = new()\nrng.start(SEED)\npspace = 1\ndef execute(x): return SEED"
    assert "rng" not in in_code(text)


def test_decorated_definition_belongs_to_the_variable_that_registers_it():
    models = "@registry.add\ndef model(): ...\n@registry\nclass Other: ..."
    text = f"registry = new()\n{models}\ndef execute(x): return registry"
    assert "model" in in_code(text)
    assert "Other" in in_code(text)


# -- values of the space that carry code


@pytest.mark.parametrize(
    "space",
    [
        "pspace = Param(f=[model])",
        "pspace = Param(f=[partial(model, 1)])",
        "pspace = Param(f=map(model, [1]))",
        "@model\ndef make(): ...\npspace = make()",
        "def make(): return [model]\npspace = make()",
        "chosen = model\npspace = Param(f=[chosen])",
    ],
)
def test_function_that_the_space_names_is_in_code(space):
    assert "K = 1" in in_code(f"K = 1\ndef model(): return K\n{space}\ndef execute(f): return f()")


@pytest.mark.parametrize("space", ["pspace = model()", "def make(): return model()\npspace = make()"])
def test_function_that_the_space_only_calls_is_not_in_code(space):
    assert in_code(f"def model(): return 1\n{space}\ndef execute(f): ...") == "def execute(f):\n    ..."


@pytest.mark.parametrize(
    "definition",
    ["class Model:\n    k = K", "Model = namedtuple('Model', [K])", "if K:\n    class Model: ..."],
)
def test_class_that_the_space_reaches_is_in_code(definition):
    assert "K = 1" in in_code(f"K = 1\n{definition}\npspace = Param(m=[Model(2)])\ndef execute(m): return m")


# -- the whole file


@pytest.mark.parametrize(
    "statement",
    [
        "exec('a = 1')",
        "def f(): return eval('a')",
        "globals()['a'] = 1",
        "x = vars()",
        "x = locals()",
        "from numpy import *",
    ],
)
def test_hidden_bindings_put_the_whole_file_in_both(statement):
    text = f"unused = 1\n{statement}\npspace = 1\ndef execute(): ..."
    assert changes(text, text.replace("unused = 1", "unused = 2")) == "code space"


def test_variables_of_an_object_and_methods_called_eval_hide_nothing():
    text = "unused = 1\nx = vars(y)\nmodel.eval()\ndef f(): return locals()\npspace = 1\ndef execute(): ..."
    assert changes(text, text.replace("unused = 1", "unused = 2")) == ""


# -- psy-conf.py


def test_conf_counts_as_text_above_the_task_file():
    task = "pspace = Param(x=range(N))\ndef execute(x): return SCALE"
    conf = "N = 5\nSCALE = 2\nmax_jobs = 3"
    assert changes((conf, task), (conf.replace("5", "6"), task)) == "space"
    assert changes((conf, task), (conf.replace("2", "3"), task)) == "code"
    assert changes((conf, task), (conf.replace("max_jobs = 3", "max_jobs = 4"), task)) == ""
    assert changes((conf, task), ("N = 5", f"SCALE = 2\n{task}")) == ""


def test_star_import_in_conf_puts_the_task_file_in_both():
    task = "unused = 1\npspace = 1\ndef execute(x): ..."
    conf = "from settings import *"
    assert changes((conf, task), (conf, task.replace("unused = 1", "unused = 2"))) == "code space"


# -- digests of trees


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1  # a", "x   =   1"),
        ("x = (1 +\n 2)", "x = 1 + 2"),
        ("x = 'a' f'{b}' 'c'", "x = f'a{b}c'"),
        ("def f():\n    'doc'\n    return 1", "def f():\n    return 1"),
        ("x = 0x10", "x = 16"),
        ("x = u'a'", "x = 'a'"),
    ],
)
def test_digest_ignores_what_means_the_same(one, other):
    assert digest(ast.parse(one)) == digest(ast.parse(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 0.0", "x = -0.0"),
        ("x = 'a'", "x = b'a'"),
        ("x = '1'", "x = 1"),
        ("f(a, b)", "f([a, b])"),
        ("f(a)(b)", "f(a, b)"),
        ("x = None", "x = ''"),
        ("def f(*, a, b=1): ...", "def f(*, a=1, b): ..."),
        ("x = f'{a}'", "x = f'{a!r}'"),
        ("x = f'{a:3}'", "x = f'{a:4}'"),
        ("{**a}", "{None: a}"),
        ("x = 'e\u0301'", "x = '\u00e9'"),
        ("if a:\n    b\nc", "if a:\n    b\n    c"),
    ],
)
def test_digest_tells_apart_what_differs(one, other):
    assert digest(ast.parse(one)) != digest(ast.parse(other))


def test_deep_and_huge_expressions_have_a_digest():
    assert digest(ast.parse("x = " + " + ".join(["a"] * 700)))
    assert digest(ast.parse(f"x = 0x{'f' * 9000}"))
    assert slice_statements(ast.parse("pspace = " + " + ".join(["a"] * 700)).body)


ODDITIES = r'''
x = f"a{b!r:>{w}}c" "d" f"{e=}" rf"\d{f}"
y = {**a, "k": 1j, b"\xff": 1e300, "\ud800": ..., -1: None}
z = [i async for i in a if (j := i)] if True else (yield)
async def f(a, /, b=1, *c, d, e=2, **g) -> "x": return await a
class C(B, metaclass=M):
    """Doc."""
    x: int = 3
match a:
    case {"k": [1, *r], **s} | C(x=1) as t if t: pass
try: pass
except* ValueError as e: raise
with (a as b, c): lambda *a, k=1: a @ b
'''

DIGEST_ALL = """
import ast, sys
from psyrun.source.syntax import digest
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        print(digest(ast.parse(file.read())))
"""


@pytest.mark.parametrize("python", ["python3.11", "python3.12", "python3.13", "python3.14"])
def test_digests_agree_between_versions_of_python(python, tmp_path):
    other = shutil.which(python)
    if other is None or subprocess.run([other, "-V"], capture_output=True, check=False).returncode:
        pytest.skip(f"{python} is not installed")
    oddities = tmp_path / "oddities.py"
    oddities.write_text(ODDITIES)
    package = Path(syntax.__file__).parent
    files = [oddities, *sorted(package.glob("*.py")), *sorted(Path(ast.__file__).parent.glob("[a-b]*.py"))]
    environment = {**os.environ, "PYTHONPATH": str(package.parents[1])}
    argv = [other, "-c", DIGEST_ALL, *map(str, files)]
    answer = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == [digest(parse(file.read_bytes(), file.name)) for file in files]


# -- imports


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import a", ["a"]),
        ("import a.b as c, d", ["a.b", "d"]),
        ("from a import b", ["a", "a.b"]),
        ("from . import b", [".", ".b"]),
        ("from ..a import b", ["..a", "..a.b"]),
        ("from a import *", ["a"]),
        ("def f():\n    if x:\n        import a", ["a"]),
        ("m = importlib.import_module('a.b')", ["a.b"]),
        ("m = __import__('a')", ["a"]),
        ("m = import_module(name)", []),
    ],
)
def test_imports_are_listed(text, names):
    assert imported_names([ast.parse(text)]) == names


def test_names_in_all_are_exports():
    assert exported_names(ast.parse("__all__ = ['a']\n__all__ += ['b', 'not a name']")) == ["a", "b"]


def test_scopes_begin_with_the_statement_itself():
    scopes = scopes_of(ast.parse("def f(a):\n    class C:\n        def g(self): ...").body[0])
    assert [scope.runs_now for scope in scopes] == [True, False, False, False]
    assert "a" in scopes[1].hidden
