"""Edits, runs, failures, kills and losses in any order: exactly the rows, by the fewest evaluations.

`make test` tries a small sample that is the same every time. The long form takes its size from the
environment: ``MODEL_EXAMPLES=500 MODEL_STEPS=30 MODEL_SEED=1 python -m pytest tests/test_model.py``.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from psyrun.backend import DistributeBackend
from psyrun.cli import commands as cli
from psyrun.split import matching
from psyrun.split.adoption import Adoption, Existing
from psyrun.split.matching import Space, make_plan
from psyrun.workdir.plan import Plan
from reference import find_rest

EXAMPLES, STEPS, SEED = (
    int(os.environ.get(f"MODEL_{name}", default))
    for name, default in (("EXAMPLES", "6"), ("STEPS", "10"), ("SEED", "0"))
)

# What tasks import, from outside of the project: it evaluates, counts, fails and stops.
RECORDING = """\
import json, os, time
from pathlib import Path

import numpy as np

ABSENT = object()
FOLDER = Path(os.environ["RECORDING"])


def describe(value):
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        return f"{value.dtype.kind}{value.shape}{[describe(each) for each in value.ravel().tolist()]}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}{[describe(each) for each in value]}"
    return f"{type(value).__name__} {value!r}"


def evaluate(version, **assignment):
    row = "; ".join(f"{name}={describe(v)}" for name, v in sorted(assignment.items()) if v is not ABSENT)
    log = FOLDER / "log"
    if (FOLDER / "gate").exists() and log.stat().st_size >= int((FOLDER / "gate").read_text()):
        (FOLDER / "stopped").touch()
        while True:
            time.sleep(0.01)
    is_broken = row in json.loads((FOLDER / "broken").read_text())
    ticket = os.urandom(6).hex()
    with open(log, "ab", buffering=0) as file:
        file.write(json.dumps([ticket, version, row, is_broken]).encode().ljust(LINE - 1) + b"\\n")
    if is_broken:
        raise ValueError(row)
    return f"{ticket} {version} {row}"
"""
LINE = 400  # bytes; so the size of the log counts evaluations

TASK = """\
{noise}import numpy as np
import helper
from psyrun import Param
from recording import ABSENT, evaluate

CONSTANT = {constant}
nan = float("nan")
pspace = {space}
pool_size = 1
max_jobs = {max_jobs}
file_dep = ["../data.txt"]


def execute(x, z=ABSENT):{docstring}
    with open("../data.txt") as file:
        data = file.read()
    return {{"y": evaluate(f"{{CONSTANT}}.{body}.{{helper.version()}}.{{data}}", x=x, z=z)}}
"""
HELPER = "{noise}def version():{docstring}\n    import deeper\n    return deeper.VERSION\n"

# Text -> (what counts as the same row, what is the same value in the algebra).
VALUES = {
    "1": ("int 1", "one"),
    "np.int64(1)": ("int 1", "one"),
    "1.0": ("float 1.0", "one"),
    "True": ("bool True", "one"),
    "'1'": ("str '1'", "str"),
    "nan": ("float nan", "nan"),
    "np.array([1, 2])": ("i(2,)['int 1', 'int 2']", "array"),
    "np.array([1.0, 2.0])": ("f(2,)['float 1.0', 'float 2.0']", "array"),
    "None": ("NoneType None", "none"),
    "(1, 'a')": ("tuple['int 1', \"str 'a'\"]", "tuple"),
    "-0.0": ("float -0.0", "zero"),
    "0.0": ("float 0.0", "zero"),
    "2": ("int 2", "two"),
    "3": ("int 3", "three"),
}
VALUE = st.sampled_from(list(VALUES))
KINDS = ("constant", "body", "helper", "data")
SOME = st.lists(VALUE, max_size=3).map(tuple)
ANY_FACTOR = st.none() | st.lists(VALUE, max_size=2).map(tuple)
PLACE = st.integers(0, 9)
SPACE_EDIT = st.one_of(
    st.tuples(st.just("add_values"), VALUE, PLACE, st.integers(1, 3)),
    st.tuples(st.just("remove_value"), PLACE),
    st.tuples(st.just("reorder"), st.randoms(use_true_random=False)),
    st.tuples(st.just("set_factor"), ANY_FACTOR),
    st.tuples(st.just("add_term"), SOME, ANY_FACTOR),
    st.tuples(st.just("subtract"), SOME),
)
OTHER_EDIT = st.one_of(
    st.tuples(st.just("edit_code"), st.sampled_from(KINDS), st.integers(0, 2)),
    st.tuples(
        st.just("edit_what_does_not_count"),
        st.sampled_from(["", "# a comment\n", '"""What it is for."""\n\n\n']),
        st.sampled_from(["", '\n    """Say so."""']),
        st.sampled_from([100, 1, 2]),
    ),
    st.tuples(st.just("break_rows"), st.lists(PLACE, max_size=2)),
    st.sampled_from([("lose_result",), ("lose_journals",), ("lose_inputs",), ("lose_plan",)]),
    st.tuples(
        st.just("lose_what_does_not_count"),
        st.sampled_from(
            ["plan.json", "process.json", "log", "jobs", "code", "../.doit.db", "../.sources.json"]
        ),
    ),
)
EDITS = st.lists(SPACE_EDIT | OTHER_EDIT, max_size=3)
FLAGS = st.sampled_from([(), (), (), ("--continue",), ("--force",), ("--no-retry",)])


@dataclass(frozen=True)
class Term:
    """`Param(x=...)`, or its product with `Param(z=...)`."""

    x: tuple[str, ...]
    z: tuple[str, ...] | None = None

    def __str__(self):
        factor = "" if self.z is None else f" * Param(z=[{', '.join(self.z)}])"
        return f"Param(x=[{', '.join(self.x)}]){factor}"


@dataclass(frozen=True)
class Grid:
    """A sum of terms, less the rows with some values of x."""

    terms: tuple[Term, ...]
    less: tuple[str, ...] = ()

    def __str__(self):
        less = f" - Param(x=[{', '.join(self.less)}])" if self.less else ""
        return " + ".join(map(str, self.terms)) + less

    def rows(self):
        """List the rows by what counts as the same."""
        rows, gone = [], {VALUES[text][1] for text in self.less}
        has_z = any(term.z is not None for term in self.terms)
        for term in self.terms:
            for x, z in product(term.x, term.z or ("nan",) if term.z is None else term.z):
                if VALUES[x][1] not in gone:
                    rows.append(f"x={VALUES[x][0]}" + (f"; z={VALUES[z][0]}" if has_z else ""))
        return rows


@dataclass
class Planned:
    """What the last run planned: whether it is settled, its finished rows in order, and what it lacks."""

    sources: tuple
    code: str
    adopted: set
    cells: list = field(default_factory=list)  # tickets
    tail: list = field(default_factory=list)  # (code, row) of those that the space does not name
    lacking: Counter = field(default_factory=Counter)  # (code, row)


class World:
    """A project on disk, and evaluations as `execute` itself wrote them down."""

    def __init__(self):
        self._stack = contextlib.ExitStack()
        self.home = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.root = self.home / "a project"
        self.work = self.root / "psy-work/t"
        (self.root / "psy-tasks").mkdir(parents=True)
        elsewhere = self.home / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "recording.py").write_text(f"LINE = {LINE}\n{RECORDING}")
        (self.home / "log").touch()
        self.set_broken([])
        more = {"RECORDING": str(self.home), "PYTHONPATH": str(elsewhere)}
        self._stack.enter_context(patch.dict(os.environ, more))
        self._stack.enter_context(patch.object(sys, "path", [str(elsewhere), *sys.path]))
        self._stack.enter_context(contextlib.chdir(self.root))

    def close(self):
        self.kill_processes()
        self._stack.close()

    def kill_processes(self):
        for pid in self.find_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def set_broken(self, rows):
        (self.home / "broken").write_text(json.dumps(rows))

    def read_log(self):
        return [json.loads(line) for line in (self.home / "log").read_text().splitlines()]

    def psy(self, *arguments):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = cli.main(list(arguments))
        return code, said.getvalue()

    def kill_psy(self, after, *arguments):
        """Kill psy once so many evaluations were made; return whether it came to that."""
        gate, stopped = self.home / "gate", self.home / "stopped"
        gate.write_text(str((self.home / "log").stat().st_size + after * LINE))
        argv = [sys.executable, "-P", "-m", "psyrun.cli", *arguments]
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        with subprocess.Popen(argv, process_group=0, **quiet) as process:
            self.wait_until(lambda: stopped.exists() or process.poll() is not None)
            self.kill_processes()
        gate.unlink()
        was_killed = stopped.exists()
        stopped.unlink(missing_ok=True)
        return was_killed

    def wait_until(self, condition, seconds=60):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true"
            time.sleep(0.02)

    def find_processes(self):
        """Return the ids of the project's processes, but not our own."""
        mark = f"RECORDING={self.home}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # It ended meanwhile.
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    def read_result(self):
        with (self.work / "result.pkl").open("rb") as file:
            return pickle.load(file)

    def read_finished(self):
        """Return the finished rows of the plan in order."""
        code, said = self.psy("merge", "--force", "psy-work/t/out", "partial.pkl")
        if code:
            assert "there are no finished rows" in said or "does not exist" in said, said
            return {}
        with (self.root / "partial.pkl").open("rb") as file:
            return pickle.load(file)


TALLY = Counter()
STATES = set()


class Edits(RuleBasedStateMachine):
    """The user's side: what is edited, run, killed, broken and lost, and what has to come of it."""

    def __init__(self):
        super().__init__()
        self.world = World()
        self.task = dict.fromkeys(KINDS, 0) | {"noise": "", "docstring": "", "max_jobs": 100}
        self.space = Grid((Term(("1",)),))
        self.broken = []
        self.ever_broken = set()
        self.evaluated = {}  # ticket -> (code, row): all that were ever evaluated
        self.disk = set()  # tickets whose assignments and values are on disk
        self.given_up = set()  # tickets that --force gave up
        self.failed = Counter()  # (code, row): unfinished rows on disk that failed
        self.plan = None
        self.result = None  # tickets in the result file, where it is up to date
        self.has_inputs = True
        self.is_loose = False  # whether unfinished rows are on disk that neither failed nor are planned

    def teardown(self):
        self.world.close()

    # ------------------------------------------------------------------ edits

    @initialize(x=st.lists(VALUE, max_size=5))
    def begin(self, x):
        self.space = Grid((Term(tuple(x)),))
        self.write()

    @property
    def code(self):
        return ".".join(str(self.task[kind]) for kind in KINDS)

    @property
    def sources(self):
        return self.code, str(self.space)

    def write(self):
        self._write("psy-tasks/task_t.py", TASK.format(space=self.space, **self.task))
        self._write("psy-tasks/helper.py", HELPER.format(**self.task))
        self._write("psy-tasks/deeper.py", f"VERSION = {self.task['helper']}\n")
        self._write("data.txt", str(self.task["data"]))

    def _write(self, name, text):
        """Write a file where its text changed, with the times that it had: size and times tell nothing."""
        path = self.world.root / name
        before = path.stat() if path.exists() else None
        if before is None or path.read_text() != text:
            path.write_text(text)
            if before is not None:
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def add_values(self, x, place, times):
        first, *others = self.space.terms
        place = min(place, len(first.x))
        if len(self.space.rows()) < 12:
            self.edit_terms(Term((*first.x[:place], *[x] * times, *first.x[place:]), first.z), *others)

    def remove_value(self, place):
        first, *others = self.space.terms
        self.edit_terms(Term(first.x[:place] + first.x[place + 1 :], first.z), *others)

    def reorder(self, order):
        terms = [Term(tuple(order.sample(term.x, len(term.x))), term.z) for term in self.space.terms]
        self.edit_terms(*order.sample(terms, len(terms)))

    def set_factor(self, z):
        first, *others = self.space.terms
        self.edit_terms(Term(first.x, z), *others)

    def add_term(self, x, z):
        self.edit_terms(self.space.terms[0], Term(x, z))

    def subtract(self, less):
        self.space = Grid(self.space.terms, less)
        self.write()

    def edit_terms(self, *terms):
        self.space = Grid(terms, self.space.less)
        self.write()

    def edit_code(self, kind, version):
        self.task[kind] = version
        self.write()

    def edit_what_does_not_count(self, noise, docstring, max_jobs):
        self.task |= {"noise": noise, "docstring": docstring, "max_jobs": max_jobs}
        self.write()
        (self.world.root / "data.txt").touch()

    # ------------------------------------------------------------------ what goes wrong

    def break_rows(self, places):
        rows = self.space.rows()
        self.broken = sorted({rows[place] for place in places if place < len(rows)})
        self.ever_broken |= set(self.broken)
        self.world.set_broken(self.broken)

    def lose_what_does_not_count(self, name):
        self._remove(name)

    def lose_result(self):
        self._remove("result.pkl")
        if self.result is not None and not set(self.result) <= self.disk:  # The journals were lost before.
            lost = [ticket for ticket in self.plan.cells if ticket not in self.disk]
            self.plan.cells = [ticket for ticket in self.plan.cells if ticket in self.disk]
            self.plan.lacking.update(self.evaluated[ticket] for ticket in lost)
        self.result = None

    def lose_journals(self):
        if self.result is not None:
            self._remove("out")
            self.disk.clear()
            self.given_up.clear()
            self.failed.clear()
            self.is_loose = True

    def lose_inputs(self):
        if self.plan is not None or not self._has_result():
            self._remove("in")
            self.has_inputs = False

    def lose_plan(self):
        if self.result is not None and not set(self.result) <= self.disk:
            return
        if self.has_inputs or not self._has_result():
            self._remove("plan.json")
            self._remove("plan.json.bak")
            self.plan = None
            self.disk |= self.given_up  # Only the plan knew.
            self.given_up.clear()
            self.is_loose = True

    def _has_result(self):
        """Whether there is a result, of now or before; without plan and inputs, it would be refused."""
        return (self.world.work / "result.pkl").exists()

    def _remove(self, name):
        path = self.world.work / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    # ------------------------------------------------------------------ runs

    @rule(edits=EDITS, flags=FLAGS)
    def run(self, edits, flags):
        self.make(edits)
        expected = self.expect(*flags)
        before = len(self.world.read_log())
        code, said = self.world.psy("run", *flags)
        note(said)
        self.settle(expected, before, flags, code)

    @precondition(lambda self: Path("/proc/self/environ").exists())
    @rule(edits=EDITS, flags=FLAGS, after=st.integers(0, 4))
    def kill_run(self, edits, flags, after):
        self.make(edits)
        expected = self.expect(*flags)
        before = len(self.world.read_log())
        if self.world.kill_psy(after, "run", *flags):
            self.settle_killed(expected, before)
        else:
            self.settle(expected, before, flags, code=None)

    def make(self, edits):
        for name, *arguments in edits:
            getattr(self, name)(*arguments)
            TALLY["edits"] += 1

    def expect(self, *flags):
        """Plan as psy should, and return what has to be evaluated: (code, row) -> times."""
        old = self.plan
        if self.is_settled(old, flags):
            self.usable = None
            return Counter() if self.result is not None else Counter(old.lacking)
        if self.result is not None and old is not None and self.has_inputs:
            self.disk |= set(self.result)
        if "--force" in flags:
            self.given_up |= self.disk
        if not self.has_inputs:
            self.given_up.clear()
        if not self.has_inputs or "--force" in flags:
            self.disk.clear()
            self.failed.clear()
        self.has_inputs = True
        adopts = "--continue" in flags
        goes_on = old is not None and old.code == self.code and "--force" not in flags
        adopted = set(old.adopted) if goes_on else set()
        self.usable = {self.code} | ({code for code, _ in self.evaluated.values()} if adopts else adopted)
        self.plan = Planned(self.sources, self.code, adopted)
        self.kept = [ticket for ticket in old.cells if ticket in self.disk] if adopts and old else []
        found = Counter(row for code, row in map(self.evaluated.get, self.disk) if code in self.usable)
        rows = Counter(self.space.rows()) - found
        return Counter({(self.code, row): times for row, times in rows.items()})

    def is_settled(self, old, flags):
        if old is None or old.sources != self.sources or "--force" in flags:
            return False
        if "--continue" in flags and self.result is None and old.lacking:
            return False
        return self.has_inputs or self.result is not None

    def settle(self, expected, before, flags, code):
        """Compare what a run did with what was expected of it."""
        made = self.world.read_log()[before:]
        attempts = Counter((version, row) for _, version, row, _ in made)
        spared = expected & self.failed if "--no-retry" in flags else Counter()
        if self.is_loose and "--no-retry" in flags:
            spared = expected - attempts
            assert attempts <= expected
            assert all(cell[1] in self.ever_broken for cell in spared)
        assert attempts == expected - spared
        for ticket, version, row, is_broken in made:
            assert is_broken == (row in self.broken)
            if not is_broken:
                self.evaluated[ticket] = version, row
                self.disk.add(ticket)
        failed = Counter((version, row) for _, version, row, is_broken in made if is_broken)
        self.failed = self.failed - (expected & self.failed) + spared + failed
        self.plan.lacking = failed + spared
        if code is not None:
            assert code == (1 if self.plan.lacking else 0)
        if self.plan.lacking:
            self.check_cells(self.world.read_finished())
            self.result = None
        else:
            self.check_cells(self.world.read_result())
            self.result = self.plan.cells
        self.count()

    def settle_killed(self, expected, before):
        """Find what a killed run left: nothing that was there before is lost."""
        made = self.world.read_log()[before:]
        assert Counter((version, row) for _, version, row, _ in made) <= expected
        self.evaluated |= {ticket: (version, row) for ticket, version, row, broken in made if not broken}
        table = self.world.read_finished()
        survivors = {text.split()[0] for text in table.get("y", ())} & {ticket for ticket, *_ in made}
        self.disk |= survivors
        self.plan.lacking = expected - Counter(self.evaluated[ticket] for ticket in survivors)
        self.check_cells(table)
        self.result, self.is_loose = None, True
        self.count(killed=1)

    def check_cells(self, table):
        """A table holds the rows of the plan less those that it lacks: in order, each with its own values."""
        cells = self.read_cells(table)
        space, lacking = self.space.rows(), Counter(row for _, row in self.plan.lacking.elements())
        assert len(set(cells)) == len(cells)
        assert set(cells) <= self.disk | set(self.result or ())
        if self.usable is not None:
            end = len(space) - lacking.total()
            self.check_choice(Counter(self.evaluated[ticket] for ticket in cells[:end]))
            taken = set(cells[:end])
            assert cells[end:] == find_rest(self.kept, taken, space, lambda ticket: self.evaluated[ticket][1])
            self.plan.tail = [self.evaluated[ticket] for ticket in cells[end:]]
            self.plan.adopted |= {self.evaluated[ticket][0] for ticket in cells} - {self.code}
        wanted = [*space, *(row for _, row in self.plan.tail)]
        rows = [self.evaluated[ticket][1] for ticket in cells]
        assert Counter(rows) == Counter(wanted) - lacking
        rest = iter(wanted)
        assert all(row in rest for row in rows), "the order is not that of the space"
        self.plan.cells = cells

    def check_choice(self, used):
        """Rows of the code at hand go first, others only where they count as current."""
        assert all(code in self.usable for code, _ in used)
        there = Counter(map(self.evaluated.get, self.disk))
        for row, times in Counter(self.space.rows()).items():
            assert used[self.code, row] == min(times, there[self.code, row])

    def read_cells(self, table):
        """Return the tickets of a table's rows, each of which says what it was evaluated from."""
        from recording import describe

        cells = []
        for i, text in enumerate(table.get("y", ())):
            ticket, version, row = text.split(" ", 2)
            assert self.evaluated[ticket] == (version, row)
            shown = {name: describe(table[name][i]) for name in ("x", "z") if f"{name}=" in row}
            assert row == "; ".join(f"{name}={value}" for name, value in shown.items())
            cells.append(ticket)
        assert all(len(values) == len(cells) for values in table.values())
        return cells

    def count(self, killed=0):
        TALLY.update(runs=1, kills=killed, rows=len(self.plan.cells))
        state = (self.sources, self.plan.adopted, self.plan.lacking, self.failed, len(self.disk))
        STATES.add(repr((*state, self.plan.tail, self.result is None, self.broken)))


def limit(examples, steps):
    """Limit a machine; what fails is not made smaller, since a step takes half a second."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=not SEED,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def try_machine(machine, limits, capsys):
    TALLY.clear()
    STATES.clear()
    try:
        run_state_machine_as_test(seed(SEED)(machine) if SEED else machine, settings=limits)
    finally:
        with capsys.disabled():
            print(f"\n{machine.__name__}: seed {SEED}, {len(STATES)} states, {dict(TALLY)}")


@pytest.mark.slow
def test_edits_in_any_order_leave_exactly_the_rows_with_the_fewest_evaluations(capsys):
    try_machine(Edits, limit(EXAMPLES, STEPS), capsys)


# ---------------------------------------------------------------------- plans alone, by the thousand

BLANK = Plan(
    scheme=1,
    code="",
    space="",
    definitions={},
    settings={},
    names=("x",),
    batches=(),
    order="",
    rows=0,
    next_batch=0,
)
PALETTE = [(VALUES[text][0], eval(text, {"np": np, "nan": np.nan})) for text in VALUES]


class Plans(RuleBasedStateMachine):
    """One plan after the other over batches in memory: of several codes, finished in part, adopted or not."""

    def __init__(self):
        super().__init__()
        self.plan = replace(BLANK, order=base64.b64encode(zlib.compress(b"")).decode())
        self.batches = {}  # number -> (code, names of the rows, their values)
        self.done = set()  # (number, row)

    @rule(
        rows=st.lists(st.sampled_from(PALETTE), max_size=12),
        code=st.sampled_from("AB"),
        jobs=st.integers(1, 4),
        adopts=st.booleans(),
        by_columns=st.booleans(),
        data=st.data(),
    )
    def replan(self, rows, code, jobs, adopts, by_columns, data):
        old = self.plan
        adopted = old.adopted if old.code == code else ()
        usable = {"A", "B"} if adopts else {code, *adopted}
        with patch.object(matching, "MANY", 0 if by_columns else matching.MANY):
            plan, new = make_plan(
                Space(columns={"x": [value for _, value in rows]}, rows=len(rows)),
                Adoption(
                    batches=[self.batch(number) for number, (of, *_) in self.batches.items() if of in usable],
                    codes=adopted,
                    tables=[old.segments()] if adopts else (),
                ),
                replace(BLANK, code=code, next_batch=old.next_batch),
                partition=lambda size: DistributeBackend().partition(size, jobs, 1),
            )
        before = Counter(self.name(cell)[1] for cell in self.done if self.name(cell)[0] in usable)
        for number, places in new.items():
            self.batches[number] = code, [rows[i][0] for i in places], [rows[i][1] for i in places]
        self.plan = plan
        self.check(rows, Counter(name for name, _ in rows) - before, old if adopts else None)
        todo = sorted({cell for cell in self.cells(plan) if cell not in self.done})
        self.done |= set(data.draw(st.sampled_from([todo, todo, todo[::2], []])))
        TALLY.update(plans=1, rows=len(rows))
        STATES.add((plan.to_json(), len(self.done)))

    def check(self, rows, fresh, adopted):
        cells = self.cells(self.plan)
        space, tail = cells[: len(rows)], cells[len(rows) :]
        assert [self.name(cell)[1] for cell in space] == [name for name, _ in rows]
        assert len(set(cells)) == len(cells)
        todo = [cell for cell in cells if cell not in self.done]
        assert Counter(self.name(cell)[1] for cell in todo) == fresh
        assert {self.name(cell)[0] for cell in todo} <= {self.plan.code}
        assert {self.name(cell)[0] for cell in cells} <= {self.plan.code, *self.plan.adopted}
        candidates = [] if adopted is None else [cell for cell in self.cells(adopted) if cell in self.done]
        names = [name for name, _ in rows]
        assert tail == find_rest(candidates, set(space), names, lambda cell: self.name(cell)[1])

    def cells(self, plan):
        return [(number, row) for number, rows in plan.segments() for row in rows]

    def name(self, cell):
        number, row = cell
        code, names, _ = self.batches[number]
        return code, names[row]

    def batch(self, number):
        code, _, values = self.batches[number]
        done = {row for of, row in self.done if of == number}
        return Existing(number=number, size=len(values), code=code, columns={"x": values}, done=done)


@pytest.mark.parametrize("many", [0, 10**9])
def test_batches_of_other_parameters_give_no_rows_to_a_space(many):
    done = {"done": frozenset({0}), "size": 1, "code": ""}
    others = [{"y": [1]}, {"x": [1], "y": [1]}, {}, {"x": [1]}]
    batches = [Existing(number=i, columns=columns, **done) for i, columns in enumerate(others)]
    blank = replace(BLANK, next_batch=4)
    with patch.object(matching, "MANY", many):
        space = Space(columns={"x": [1, 1.0]}, rows=2)
        plan, new = make_plan(space, Adoption(batches=batches), blank, partition=lambda size: [size])
    assert new == {4: [1]}
    assert [(batch.number, batch.wanted) for batch in plan.batches] == [(3, 1), (4, 1)]


def test_plans_in_any_order_find_every_row_that_there_is(capsys):
    try_machine(Plans, limit(20 * EXAMPLES, 30), capsys)
