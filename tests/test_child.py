"""The child: rows of a captured task go in, blocks of a journal come out, whatever `execute` does."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from files import add_inputs
from psyrun.errors import ExecuteError
from psyrun.source.archive import write_zip
from psyrun.source.capture import read_scripts, read_source
from psyrun.workdir.journal import BatchKey, JournalWriter, read_blocks
from psyrun.worker.child import command
from psyrun.worker.chunks import Work
from psyrun.worker.pool import StopRequest, evaluate
from psyrun.worker.process import PoolConfig

np = pytest.importorskip("numpy")
TIE = "00112233aabbccdd"


class Journal:
    """A sink that writes to a file as the worker does, and reads it back as a merge does."""

    def __init__(self, folder):
        self.writer = JournalWriter(folder, BatchKey(0, TIE), "abcdefgh").open()
        self.path = self.writer.path
        self.rows = {}
        self.failures = {}
        self.deaths = {}
        self.messages = 0
        self.batches = []

    def block(self, child, batch, rows, data):
        self.messages += 1
        self.batches.append(batch.number)
        self.writer.append(data, b"{}")

    def fail(self, child, batch, row, reason, seconds):
        assert row not in self.deaths
        self.deaths[row] = reason

    def blocks(self):
        return list(read_blocks(self.path, bytes.fromhex(TIE)))

    def read(self):
        for block in self.blocks():
            columns = block.columns()
            for i, row in enumerate(block.rows):
                assert row not in self.rows
                self.rows[row] = {name: column[i] for name, column in columns.items()}
            self.failures |= {failure.row: failure for failure in block.failures}


class Project:
    """A captured task file, and the assignments of batches."""

    def __init__(self, root, text, exclude=()):
        self.root = root
        task_file = root / "psy-tasks" / "task_x.py"
        task_file.parent.mkdir(exist_ok=True)
        task_file.write_text(text)
        self.digest = "c" * 32
        self.code = root / f"{self.digest}.zip"
        read = read_scripts if "_exit(4)" in text else read_source  # which would end this process
        write_zip(read(root, task_file), self.code)
        self.inputs = root / "in"
        self.inputs.mkdir()
        self.argv = command(root=root, code=self.code, inputs=self.inputs, exclude=exclude)

    def run(self, *batches, size=1, **settings):
        work = []
        for columns in batches:
            rows = range(len(next(iter(columns.values()))))
            work.append(Work(batch=add_inputs(self.inputs, columns), rows=rows))
        journal = Journal(self.root)
        assert evaluate(work, journal, PoolConfig(argv=self.argv, size=size, **settings))
        journal.read()
        ended = [*journal.rows, *journal.failures, *journal.deaths]
        assert len(ended) == len(set(ended))
        return journal


@pytest.fixture
def project(tmp_path):
    """Return a function that captures a task file."""
    return lambda text, **settings: Project(tmp_path, text, **settings)


def evaluate_rows(project, body, n=3, **settings):
    """Evaluate `def execute(x)` with this body for x in range(n)."""
    text = "".join(f"    {line}\n" for line in body.splitlines())
    return project(f"import os, sys, time\n\ndef execute(x):\n{text}").run({"x": list(range(n))}, **settings)


# ---------------------------------------------------------------------- results


def test_a_row_holds_what_execute_returned(project):
    journal = evaluate_rows(project, "return {'y': x * 0.5, 'name': f'row {x}'}")
    assert journal.rows == {x: {"y": x * 0.5, "name": f"row {x}"} for x in range(3)}


def test_values_keep_their_types(project):
    values = [True, 2**70, 1.5, 1j, "é\ud800", b"\0", None, (1, [2]), {"k": {3}}, np.float32(0.1), np.True_]
    text = f"VALUES = {values[:9]!r}\nimport numpy as np\nVALUES += [np.float32(0.1), np.True_]\n"
    journal = project(text + "def execute(x): return {'v': VALUES[x]}").run({"x": list(range(len(values)))})
    for x, value in enumerate(values):
        assert journal.rows[x]["v"] == value
        assert type(journal.rows[x]["v"]) is type(value)


def test_rows_may_return_different_names(project):
    journal = evaluate_rows(project, "return {'even': x} if x % 2 == 0 else {'odd': x, 'more': 1}", n=50)
    assert journal.rows[4] == {"even": 4}
    assert journal.rows[5] == {"odd": 5, "more": 1}
    assert len(journal.rows) == 50


def test_a_row_may_return_nothing_but_an_empty_dict(project):
    assert evaluate_rows(project, "return {}").rows == {0: {}, 1: {}, 2: {}}


@pytest.mark.parametrize(
    ("prepare", "fill", "wanted"),
    [
        ("import numpy as np; B = np.zeros(3)", "B[:] = x", [[0] * 3, [1] * 3, [2] * 3]),
        ("B = []", "B.append(x)", [[0], [0, 1], [0, 1, 2]]),
    ],
    ids=["array", "list"],
)
def test_a_row_keeps_its_values_when_the_buffer_is_used_again(project, prepare, fill, wanted):
    journal = project(f"{prepare}\ndef execute(x):\n    {fill}\n    return {{'y': B}}").run({"x": [0, 1, 2]})
    assert [list(journal.rows[x]["y"]) for x in range(3)] == wanted


def test_a_row_that_changes_its_parameter_does_not_change_it_for_others(project):
    text = "def execute(x, xs):\n    xs.append(x)\n    return {'n': len(xs)}"
    shared = []
    journal = project(text).run({"x": [0, 1, 2], "xs": [shared] * 3})
    assert [journal.rows[x]["n"] for x in range(3)] == [1, 1, 1]


def test_objects_of_the_task_file_can_be_read_without_it(project, tmp_path):
    text = """
from shapes import Point

class Third(Point):
    def triple(self): return 3 * self.x

def execute(x):
    class Local(Point): pass
    return {'module': [Point(x)], 'file': Third(x), 'local': Local(x), 'function': lambda: x}
"""
    module = tmp_path / "psy-tasks" / "shapes.py"
    module.parent.mkdir()
    module.write_text(
        "class Point:\n    def __init__(self, x): self.x = x\n    def double(self): return 2 * self.x"
    )
    journal = project(text).run({"x": [0, 1, 2]})
    assert journal.failures == {}
    read = """
import sys
from pathlib import Path
from psyrun.workdir.journal import read_blocks
for block in read_blocks(Path(sys.argv[1]), bytes.fromhex(sys.argv[2])):
    columns = block.columns()
    print(*(m[0].double() + t.triple() + l.double() + f() for m, t, l, f in zip(*columns.values())))
"""
    out = subprocess.run(
        [sys.executable, "-c", read, journal.path, TIE], capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == ["0", "8", "16"]


def test_large_results_are_sent_before_they_pile_up(project):
    journal = evaluate_rows(project, "return {'y': bytes(20_000_000 if x > 200 else 1)}", n=204)
    assert [len(journal.rows[x]["y"]) for x in (200, 201, 203)] == [1, 20_000_000, 20_000_000]
    assert journal.messages >= 4


def test_a_child_evaluates_batches_in_any_order(project):
    project = project("def execute(x): return {'y': x}")
    keys = [add_inputs(project.inputs, {"x": [i, i + 10, i + 20]}) for i in range(4)]
    work = [Work(batch=key, rows=[row]) for row in (2, 0, 1) for key in keys]
    journal = Journal(project.root)
    assert evaluate(work, journal, PoolConfig(argv=project.argv, size=1))
    values = [block.columns()["y"] for block in journal.blocks()]
    assert values == [[batch + 10 * row] for row in (2, 0, 1) for batch in range(4)]


def test_print_reaches_the_log_with_its_mini_batch(project, capfd):
    evaluate_rows(project, "print('row', x)\nos.write(2, b'')\nreturn {}")
    assert capfd.readouterr().out.splitlines() == ["row 0", "row 1", "row 2"]


# ---------------------------------------------------------------------- setup


SETUP = """
def setup(proc_id):
    print('setup')
    return {'slot': proc_id, 'model': [1, 2]}

def execute(x, slot, model):
    return {'y': x + slot + len(model)}
"""


def test_what_setup_returns_is_passed_and_recorded_unless_excluded(project, capfd):
    journal = project(SETUP, exclude=["model"]).run({"x": [0, 1, 2]})
    assert journal.rows == {x: {"slot": 0, "y": x + 2} for x in range(3)}
    assert capfd.readouterr().out.splitlines() == ["setup"]


def test_setup_is_passed_where_there_are_no_parameters(tmp_path):
    project = Project(tmp_path, "def setup(proc_id): return {'k': 1}\ndef execute(k): return {'y': k}")
    batch = add_inputs(project.inputs, {})
    journal = Journal(project.root)
    assert evaluate([Work(batch=batch, rows=range(6))], journal, PoolConfig(argv=project.argv, size=1))
    journal.read()
    assert journal.rows == {row: {"k": 1, "y": 1} for row in range(6)}


def test_execute_has_the_last_word_over_setup(project):
    text = "def setup(proc_id): return {'k': 1}\ndef execute(x, k): return {'k': k + x}"
    assert project(text).run({"x": [0, 5]}).rows == {0: {"k": 1}, 1: {"k": 6}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def setup(proc_id):\n    raise RuntimeError('no GPU')", r"line \d+, in setup[\s\S]*no GPU"),
        ("import sys\ndef setup(proc_id): sys.exit('bye')", "SystemExit: bye"),
        ("def setup(proc_id): return 3", r"setup returned 3 \(int\); return a dict"),
        ("def setup(proc_id): return {1: 2}", "setup returned"),
        ("def setup(proc_id): return {'x': 3}", "setup returns 'x', which is a parameter too"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("import os; os._exit(4)", r"before it was ready, 3 times .*\(exit 4\)"),
    ],
)
def test_a_task_that_can_not_be_evaluated_says_why(project, text, words):
    with pytest.raises(ExecuteError, match=words):
        project(f"{text}\ndef execute(**assignment): return {{}}").run({"x": [0]})


def test_missing_assignments_are_named(project):
    project = project("def execute(x): return {}")
    with pytest.raises(ExecuteError, match=r"in/7\.pkl"):
        evaluate(
            [Work(batch=BatchKey(7, TIE), rows=[0])],
            Journal(project.root),
            PoolConfig(argv=project.argv, size=1),
        )


# ---------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ("raise ValueError('no root')", "ValueError: no root"),
        ("raise ValueError", "ValueError"),
        ("raise KeyError('two\\nlines')", "KeyError: 'two\\nlines'"),
        ("sys.exit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise MemoryError", "MemoryError"),
        ("raise ExceptionGroup('several', [ValueError(1)])", "ExceptionGroup: several (1 sub-exception)"),
        ("class Odd(Exception):\n    def __str__(self): 1 / 0\nraise Odd", "Odd: (its text can't be shown)"),
        ("return 3", "ExecuteError: execute returned 3 (int); return a dict of names and values"),
        ("pass", "ExecuteError: execute returned None (NoneType); return a dict of names and values"),
        ("return {1: 2}", "ExecuteError: execute returned a dict with the name 1 (int); names are strings"),
    ],
)
def test_an_exception_fails_its_row_only(project, act, reason):
    body = (
        "if x == 1:\n" + "".join(f"    {line}\n" for line in act.splitlines()) + "else:\n    return {'y': x}"
    )
    journal = evaluate_rows(project, body, n=30)
    assert {row: failure.reason for row, failure in journal.failures.items()} == {1: reason}
    assert sorted(journal.rows) == [0, *range(2, 30)]
    assert journal.deaths == {}


def test_a_wrong_signature_is_told_as_python_tells_it(project):
    journal = project("def execute(y): return {}").run({"x": [0]})
    assert "unexpected keyword argument 'x'" in journal.failures[0].reason


TAKES = """
import functools
def setup(proc_id): return {'k': 10}
def wrapped(function):
    @functools.wraps(function)
    def call(*args, **kwargs): return {'n': (len(args), len(kwargs)), **function(*args, **kwargs)}
    return call
class Model:
    def run(self, c, b, a, k): return {'y': (a, b, c, k)}
    def __call__(self, k, c, b, a): return {'y': (a, b, c, k)}
"""


@pytest.mark.parametrize(
    "signature",
    [
        *("def execute(a, b, c, k):", "def execute(k, c, b, a):", "def execute(c, k, b, a, d=5):"),
        *(
            "def execute(c, *, a, k, b):",
            "def execute(k, a, d=5, b=1, c=2):",
            "def execute(a, b, k, c, *more):",
        ),
        *("def execute(c, b, a, k, **more):", "def execute(a, b=0, **more): c, k = more.values();"),
        *("def execute(a, b, c):", "def execute(a, b, c, d, k):", "def execute(a, k, b, /, c):"),
        *("execute = lambda k, a, c, b:", "@wrapped\ndef execute(b, c, a, k):"),
        *("execute = Model()", "execute = Model().run", "execute = functools.partial(Model().run, 7)"),
        "execute = functools.partial(Model().run, d=7)",
    ],
)
def test_a_function_gets_its_arguments_as_python_passes_them_by_name(project, signature):
    body = " return {'y': (a, b, c, k)}" if signature[-1] in ":;" else ""
    text = TAKES + signature + (body.replace("return", "") if "lambda" in signature else body)
    columns = {"c": list(range(100, 120)), "a": list(range(20)), "b": [str(i) for i in range(20)]}
    plain, wanted, reasons = {}, {}, {}
    exec(text, plain)
    for row in range(20):
        try:
            arguments = {name: values[row] for name, values in columns.items()}
            wanted[row] = {"k": 10, **plain["execute"](**arguments, k=10)}
        except TypeError as error:
            reasons[row] = f"TypeError: {error}"
    journal = project(text).run(columns)
    assert journal.rows == wanted
    assert {row: failure.reason for row, failure in journal.failures.items()} == reasons


def test_endless_recursion_fails_its_row_only(project):
    journal = evaluate_rows(project, "return execute(x) if x == 1 else {}")
    assert journal.failures[1].reason.startswith("RecursionError: maximum recursion depth exceeded")
    assert sorted(journal.rows) == [0, 2]


@pytest.mark.parametrize("value", ["open(os.devnull, 'w')", "[(i for i in range(3))]"])
def test_a_value_that_can_not_be_pickled_fails_its_row_by_name(project, value):
    journal = evaluate_rows(project, f"return {{'good': 1, 'handle': {value} if x == 1 else x}}")
    assert sorted(journal.rows) == [0, 2]
    assert journal.failures[1].reason.startswith("ExecuteError: the value 'handle' of type ")
    assert "can't be pickled" in journal.failures[1].reason
    assert journal.failures[1].traceback == ""  # there is nothing of the user's in it


def test_a_traceback_begins_in_the_task_file(project):
    text = "def helper(x):\n    raise ValueError(x)\n\ndef execute(x):\n    helper(x)\n"
    trace = project(text).run({"x": [0]}).failures[0].traceback
    assert "in execute" in trace
    assert "in helper" in trace
    assert trace.endswith("ValueError: 0\n")
    assert "child.py" not in trace


def test_long_reasons_and_tracebacks_are_shortened(project):
    failure = evaluate_rows(project, "raise ValueError('x' * 10**6)", n=1).failures[0]
    assert len(failure.reason) == 500
    assert len(failure.traceback) == 20_000


def test_a_failure_tells_where_and_how_long(project):
    failure = evaluate_rows(project, "time.sleep(0.1)\n1 / 0", n=1).failures[0]
    assert failure.host
    assert 0.1 <= failure.seconds < 5


# ---------------------------------------------------------------------- deaths, end to end


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ("os._exit(137)", "exit 137"),
        ("import ctypes; ctypes.string_at(0)", "signal 11 (SIGSEGV)"),
        ("import re; re.match('(a+)+$', 'a' * 100 + 'b')", "timeout (1 s)"),
        ("import ctypes; ctypes.PyDLL(None).sleep(1000)", "timeout (1 s)"),
        ("os.closerange(0, 5000)", "closed the pipes to psyrun"),
    ],
    ids=["exit", "segfault", "regular expression", "C call holding the GIL", "closed descriptors"],
)
def test_a_deadly_row_costs_itself_only(project, act, reason, capfd):
    journal = evaluate_rows(project, f"if x in (7, 8): {act}\nreturn {{'y': x}}", n=40, size=2, timeout=1)
    assert journal.deaths == {7: reason, 8: reason}
    assert journal.rows == {x: {"y": x} for x in range(40) if x not in (7, 8)}
    assert journal.failures == {}


def test_a_crash_leaves_its_traceback_and_what_was_printed_in_the_log(project, capfd):
    evaluate_rows(project, "print('about to crash')\nimport ctypes; ctypes.string_at(0)", n=1)
    log = capfd.readouterr()
    assert log.out == "about to crash\n"
    assert "in execute" in log.err


def test_stop_keeps_what_was_sent(project):
    project = project("import time\ndef execute(x):\n    time.sleep(0.02)\n    return {'y': x}")
    batch = add_inputs(project.inputs, {"x": list(range(10_000))})
    journal = Journal(project.root)
    began = time.monotonic()
    config = PoolConfig(argv=project.argv, size=2)
    stop = lambda: StopRequest.STOP if journal.messages > 3 else StopRequest.NONE  # noqa: E731
    assert not evaluate([Work(batch=batch, rows=range(10_000))], journal, config, stop)
    assert time.monotonic() - began < 10
    journal.read()
    assert 4 <= len(journal.rows) < 10_000
