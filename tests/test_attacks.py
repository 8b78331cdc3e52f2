"""Files are swapped, damaged and outlived by processes: there is never a wrong value, and psy gets on."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conftest import PRELUDE, Project
from powercut import read_records
from processes import Processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")

# A gate is no input of a row: `posix.stat` is seen by nothing that watches what rows read.
WAITING = """
import posix
import time
def wait_for(gate):
    while True:
        try:
            return posix.stat(os.path.join(os.environ["GATES"], gate)) and None
        except FileNotFoundError:
            time.sleep(0.01)
"""
TASK = """\
from counting import seen, wait_for
from psyrun import Param

pspace = Param(x=list({xs}))
max_jobs = {jobs}
pool_size = 1


def execute(x):
    seen({factor}, x)
    wait_for({gate!r} if x % 1100 == 0 else ".")
    return {{"y": {factor} * x}}
"""
OPEN = "."  # a gate that is always there


def write_task(xs: Iterable[int], factor: int = 2, *, jobs: int = 2, gate: str = OPEN) -> str:
    return TASK.format(xs=list(xs), factor=factor, jobs=jobs, gate=gate)


@dataclass
class Attacked(Project):
    """A project with gates, for which rows wait, and with variables of its own."""

    variables: dict[str, str] = field(default_factory=dict)

    @property
    def gates(self) -> Path:
        return self.root.parent / "gates"

    @property
    def work(self) -> Path:
        return self.root / "psy-work"

    def env(self, **more: str) -> dict[str, str]:
        return super().env(GATES=str(self.gates), **self.variables, **more)

    def with_sitecustomize(self, folder: Path, **variables: str) -> Attacked:
        """Return the same project, where Python imports a module when it starts."""
        path = os.pathsep.join([self.env()["PYTHONPATH"], str(folder)])
        return replace(self, variables={"PYTHONPATH": path, **variables})

    def with_trace(self, trace: Path, **variables: str) -> Attacked:
        """Return the same project, where psy and its workers write down what they do to files."""
        here = {"TRACE": str(trace), "TRACED": str(self.root.resolve())}
        return self.with_sitecustomize(Path(__file__).parent / "traced", **here, **variables)

    def journals(self, batch: int, task: str = "example") -> list[Path]:
        """Return the journals of a batch."""
        found = [path for path in (self.work / task / "out").glob(f"{batch}-*") if path.suffix != ".reads"]
        assert found
        return found

    def input(self, batch: int, task: str = "example") -> Path:
        return self.work / task / "in" / f"{batch}.pkl"

    def code(self, task: str = "example") -> Path:
        [path] = (self.work / task / "code").glob("*.zip")
        return path

    def remove_result(self, task: str = "example") -> None:
        for name in ("result.pkl", "result.pkl.receipt", "process.json"):
            (self.work / task / name).unlink(missing_ok=True)


def build(folder: Path, **options: Any) -> Attacked:
    """Make an empty project."""
    project = Attacked(folder / "my project", **options)
    for path in (project.root / "psy-tasks", folder / "elsewhere", project.gates):
        path.mkdir(parents=True)
    (folder / "elsewhere" / "counting.py").write_text(PRELUDE + WAITING)
    return project


@pytest.fixture
def project(tmp_path, forks, bases):
    return build(tmp_path, forks=forks, bases=bases)


@pytest.fixture
def older(project):
    """The same project in former days, at another place."""
    root = project.root.parent / "former days"
    (root / "psy-tasks").mkdir(parents=True)
    return replace(project, root=root)


class Started:
    """A psy that was started, its output in a file."""

    def __init__(self, project, path):
        self._path = path
        with path.open("w") as file:
            self.process = project.start("run", stdout=file, stderr=file)

    def said(self):
        return self._path.read_text()

    def end(self, *codes):
        """Wait for its end and check the exit code."""
        assert self.process.wait(timeout=60) in codes, f"exit {self.process.returncode}\n{self.said()}"
        assert "Traceback" not in self.said()
        return self.process.returncode


@pytest.fixture
def start(project, tmp_path):
    """Start psy; all processes that are still there in the end are killed."""
    started = []

    def begin(on=project):
        started.append(Started(on, tmp_path / f"psy{len(started)}.out"))
        return started[-1]

    yield begin
    Processes(project).send(signal.SIGKILL)
    for each in started:
        each.process.wait()


def assert_right(project, xs, factor=2, task="example"):
    xs = list(xs)
    assert project.result(task) == {"x": xs, "y": [factor * x for x in xs]}


def assert_rows_right(project, factor=2):
    """Whatever rows there are."""
    table = project.result("example")
    assert table["y"] == [factor * x for x in table["x"]]


def assert_settled(project, xs, factor=2, task="example"):
    """A run finds nothing to do, and one that has to merge again comes to the same."""
    assert project.count("run") == 0
    assert_right(project, xs, factor, task)
    project.remove_result(task)
    project.psy("run")
    assert_right(project, xs, factor, task)


def run_honestly(project, expected):
    """Run psy: it ends with 0 and right values, or says what is wrong and writes no value that is."""
    done = project.psy("run", code=None)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert done.returncode in (0, 1, 2), said
    for task, (xs, factor) in expected.items():
        if done.returncode == 0 or (project.work / task / "result.pkl").exists():
            table = project.result(task)
            assert table["y"] == [factor * x for x in table["x"]], said
        if done.returncode == 0:
            assert table["x"] == list(xs)
    assert done.returncode == 0 or any(f"psy-work/{task}/" in said for task in expected), said


# ---------------------------------------------------------------------- orphans


XS = range(40)


class Orphans:
    """A psy with a worker and a child that are at a row of old code; some of them are stopped."""

    def __init__(self, project, psy, which):
        self._gate, self._psy = project.gates / "old", psy
        self._workers = [pid for pid in Processes(project).find() if pid != psy.process.pid]
        assert len(self._workers) == 2
        both = [psy.process.pid, *self._workers]
        self._stopped = {"psy": both[:1], "worker": both[1:], "both": both}[which]
        send(self._stopped, signal.SIGSTOP)

    def are_stopped(self):
        return {state_of(pid) for pid in self._stopped} == {"T"}

    def go_on(self, wait_until):
        """Let them go on, until the worker has ended."""
        self._gate.touch()
        send([pid for pid in self._stopped if pid in self._workers], signal.SIGCONT)
        if len(self._stopped) == 3:
            self._psy.process.send_signal(signal.SIGCONT)
        wait_until(lambda: {state_of(pid) for pid in self._workers} <= {None, "Z"})
        self._psy.process.send_signal(signal.SIGCONT)

    def end(self):
        """Wait for the end of psy."""
        self._psy.end(0, 1, 2, 75)  # 75: the worker of the other psy goes on


@pytest.fixture
def orphans(project, start, wait_until, request):
    """Start psy, and stop it, its worker with its child, or both."""
    project.task("example", write_task(XS, 2, jobs=4, gate="old"))
    psy = start()
    wait_until(project.rows_seen)
    orphans = Orphans(project, psy, request.param)
    wait_until(orphans.are_stopped)
    return orphans


def send(pids, number):
    for pid in pids:
        with suppress(ProcessLookupError):  # psy ended it.
            os.kill(pid, number)


def state_of(pid):
    """Return the state of a process (R, S, T, Z, ...); None where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


@needs_proc
@pytest.mark.parametrize(
    ("orphans", "removed"),
    [("psy", "psy-work"), ("worker", "psy-work"), ("both", "psy-work"), ("both", "psy-work/example")],
    indirect=["orphans"],
)
def test_orphan_that_goes_on_while_new_code_is_evaluated_changes_no_result(
    project, start, orphans, removed, wait_until
):
    shutil.rmtree(project.root / removed)
    project.task("example", write_task(XS, 3, jobs=4, gate="new"))
    second = start()
    wait_until(lambda: any(row.startswith("(3,") for row in project.rows_seen()))
    orphans.go_on(wait_until)
    (project.gates / "new").touch()
    second.end(0)
    assert_right(project, XS, 3)
    orphans.end()
    assert_right(project, XS, 3)
    assert_settled(project, XS, 3)


@needs_proc
@pytest.mark.parametrize("orphans", ["worker", "both"], indirect=True)
def test_orphan_that_goes_on_after_all_is_finished_changes_no_result(project, orphans, wait_until):
    shutil.rmtree(project.work)
    project.task("example", write_task(XS, 3, jobs=4))
    project.psy("run")
    orphans.go_on(wait_until)
    orphans.end()
    project.remove_result()
    project.psy("run")
    assert_right(project, XS, 3)
    assert_settled(project, XS, 3)


@needs_proc
@pytest.mark.parametrize("orphans", ["worker", "both"], indirect=True)
def test_orphan_of_batches_that_are_not_planned_yet_changes_no_result(project, orphans, wait_until):
    """Its journals are there before the batches whose numbers they have."""
    shutil.rmtree(project.work)
    project.task("example", write_task(range(4), 3, jobs=1))
    project.psy("run")
    orphans.go_on(wait_until)
    orphans.end()
    project.task("example", write_task(XS, 3, jobs=4))
    project.psy("run")
    assert_right(project, XS, 3)
    assert_settled(project, XS, 3)


@needs_proc
@pytest.mark.parametrize("orphans", ["worker", "both"], indirect=True)
def test_orphan_whose_task_folder_was_replaced_by_a_copy_changes_no_result(
    project, older, orphans, wait_until
):
    """The folder comes from a project of other code, and goes on under it."""
    files = {"psy-tasks/task_example.py": write_task(range(20), 3, jobs=4)}
    older.finish(files)
    shutil.rmtree(project.work)
    shutil.copytree(older.work, project.work)
    project.task("example", files["psy-tasks/task_example.py"])
    orphans.go_on(wait_until)
    orphans.end()
    project.remove_result()
    project.task("example", write_task(XS, 3, jobs=4))
    project.psy("run")
    assert_right(project, XS, 3)
    assert_settled(project, XS, 3)


# ---------------------------------------------------------------------- two planners


FIRST = list(range(200))
SECOND = [*range(1000, 1100), *range(0, 200, 2)]
DISTINCT = list(range(1000, 1200))  # without a row of the first
JOBS = 12
AHEAD = """\
import datetime
import time

_now, _time = datetime.datetime.now, time.time


class _Ahead(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return _now(tz) + datetime.timedelta(hours=2)


datetime.datetime = _Ahead
time.time = lambda: _time() + 7200.0
"""


def break_lock(project):
    """Return the project for a psy that does not mind that another one plans."""
    for path in (project.work / "example").glob("lock*"):
        path.unlink()
    return project


def set_clock_ahead(project):
    folder = project.root.parent / "ahead"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(AHEAD)
    return project.with_sitecustomize(folder)


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """How many records psy has made when it wrote the first file below in/, half of all, all but the plan."""
    project = build(tmp_path_factory.mktemp("planning"))
    trace = project.root.parent / "trace"
    project.task("example", write_task(FIRST, jobs=JOBS))
    project.with_trace(trace).psy("run")
    records = [" ".join(map(str, record)) for record in read_records(trace)]
    first = next(i for i, record in enumerate(records, 1) if "psy-work/example/in/" in record)
    last = next(i for i, record in enumerate(records) if record.endswith("example/plan.json"))
    assert first < last
    return {"first": first, "middle": (first + last) // 2, "last": last}


@pytest.fixture
def stopped(project, points, start, wait_until):
    """Return a function that starts a psy, which stops itself at a point of planning."""

    def begin(point, gate=OPEN):
        project.task("example", write_task(FIRST, jobs=JOBS, gate=gate))
        psy = start(project.with_trace(project.root.parent / "trace", STOP=str(points[point])))
        wait_until(lambda: state_of(psy.process.pid) in ("T", "Z"))
        assert psy.process.poll() is None, psy.said()
        return psy

    return begin


@needs_proc
@pytest.mark.parametrize(
    ("point", "ignore_lock"),
    [("first", break_lock), ("middle", break_lock), ("last", break_lock), ("middle", set_clock_ahead)],
)
def test_planner_that_goes_on_after_another_has_finished_mixes_no_rows(
    project, stopped, start, point, ignore_lock, wait_until
):
    first = stopped(point)
    project.task("example", write_task(SECOND, jobs=JOBS))
    second = start(ignore_lock(project))
    wait_until(lambda: second.process.poll() is not None or "waiting" in second.said())
    break_lock(project)  # if it minds
    second.end(0)
    assert_right(project, SECOND)
    first.process.send_signal(signal.SIGCONT)
    code = first.end(0, 1, 2)
    assert_rows_right(project)
    if code == 0:
        assert project.result("example")["x"] in (FIRST, SECOND)
    project.psy("run")
    assert_right(project, SECOND)
    assert_settled(project, SECOND)


@needs_proc
@pytest.mark.parametrize("point", ["first", "last"])
def test_planner_that_goes_on_while_another_evaluates_mixes_no_rows(
    project, stopped, start, point, wait_until
):
    first = stopped(point, gate="rows")
    project.task("example", write_task(DISTINCT, jobs=JOBS, gate="rows"))
    second = start(break_lock(project))
    wait_until(lambda: "(2, 1100)" in project.rows_seen())  # Half of its rows are finished.
    first.process.send_signal(signal.SIGCONT)
    wait_until(
        lambda: (
            first.process.poll() is not None or "waiting" in first.said() or "(2, 0)" in project.rows_seen()
        )
    )
    (project.gates / "rows").touch()
    codes = [psy.end(0, 1, 2) for psy in (first, second)]
    if 0 in codes:
        assert_rows_right(project)
        assert project.result("example")["x"] in (FIRST, DISTINCT)
    project.psy("run")
    assert_right(project, DISTINCT)
    assert_settled(project, DISTINCT)


# ---------------------------------------------------------------------- swaps


NOW = {"example": (range(20), 2), "other": (range(100, 120), 5)}
EXTENDED = {"example": (range(25), 2), "other": (range(100, 125), 5)}


def files_of(tables):
    return {f"psy-tasks/task_{task}.py": write_task(xs, factor) for task, (xs, factor) in tables.items()}


def swap(one: Path, other: Path) -> None:
    """Exchange the content of two files."""
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def swap_journals_of_batches(project, older):
    [one], [other] = project.journals(0), project.journals(1)
    swap(one, other)


def rename_journals_of_batches(project, older):
    [one], [other] = project.journals(0), project.journals(1)
    one.rename(one.with_name("1" + one.name[1:]))
    other.rename(other.with_name("0" + other.name[1:]))


def swap_journals_of_tasks(project, older):
    [one], [other] = project.journals(0), project.journals(0, "other")
    swap(one, other)


def move_journals_between_tasks(project, older):
    [one], [other] = project.journals(0), project.journals(0, "other")
    shutil.copy(other, one.parent)
    shutil.move(one, other.parent)


def swap_inputs_of_batches(project, older):
    swap(project.input(0), project.input(1))


def swap_inputs_of_tasks(project, older):
    swap(project.input(0), project.input(0, "other"))


def restore_older_input(project, older):
    older.finish(files_of({"example": (range(50, 70), 2)}))
    shutil.copy(older.input(0), project.input(0))


def restore_older_inputs_and_journals(project, older):
    older.finish(files_of({"example": (range(50, 70), 3)}))
    shutil.copytree(older.work / "example" / "in", project.work / "example" / "in", dirs_exist_ok=True)
    merge_older_journals(project, older)


def swap_code_of_tasks(project, older):
    swap(project.code(), project.code("other"))


def replace_code_by_an_older_version(project, older):
    older.finish(files_of({"example": (range(20), 3)}))
    shutil.copy(older.code(), project.code())


def merge_journals_of_older_code(project, older):
    older.finish(files_of({"example": (range(20), 3)}))
    merge_older_journals(project, older)


def merge_journals_of_an_older_space(project, older):
    older.finish(files_of({"example": (range(50, 70), 2)}))
    merge_older_journals(project, older)


def replace_journals_by_older_ones(project, older):
    merge_journals_of_older_code(project, older)
    for path in older.journals(0):
        for ours in project.journals(0):
            if ours.name != path.name:
                ours.unlink()


def merge_older_journals(project, older):
    shutil.copytree(older.work / "example" / "out", project.work / "example" / "out", dirs_exist_ok=True)


SWAPS: list[Callable[[Attacked, Attacked], None]] = [
    swap_journals_of_batches,
    rename_journals_of_batches,
    swap_journals_of_tasks,
    move_journals_between_tasks,
    swap_inputs_of_batches,
    swap_inputs_of_tasks,
    restore_older_input,
    restore_older_inputs_and_journals,
    swap_code_of_tasks,
    replace_code_by_an_older_version,
    merge_journals_of_older_code,
    merge_journals_of_an_older_space,
    replace_journals_by_older_ones,
]


@pytest.mark.parametrize("do", SWAPS)
def test_swapped_files_give_no_wrong_value_when_results_are_written_again(project, older, do):
    project.finish(files_of(NOW))
    do(project, older)
    for task in NOW:
        project.remove_result(task)
    run_honestly(project, NOW)
    project.psy("run")
    for task, (xs, factor) in NOW.items():
        assert_right(project, xs, factor, task)


@pytest.mark.parametrize("do", SWAPS)
def test_swapped_files_give_no_wrong_value_when_the_space_is_extended(project, older, do):
    project.finish(files_of(NOW))
    do(project, older)
    for path, text in files_of(EXTENDED).items():
        project.write(path, text)
    run_honestly(project, EXTENDED)
    project.psy("run")
    for task, (xs, factor) in EXTENDED.items():
        assert_right(project, xs, factor, task)


# ---------------------------------------------------------------------- damage


def flip(path: Path, where: float) -> None:
    """Change a byte: the first for 0.0, the last for 1.0."""
    content = bytearray(path.read_bytes())
    content[round(where * (len(content) - 1))] ^= 0x55
    path.write_bytes(content)


def truncate(path: Path, where: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(where * len(content))])


@pytest.mark.parametrize("where", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_damaged_block_beside_missing_rows_is_mended_by_one_run(project, where):
    project.finish(files_of({"example": (range(40), 2)}))
    [damaged], [missing] = project.journals(0), project.journals(1)
    flip(damaged, where)
    missing.unlink()
    project.remove_result()
    before = len(project.rows_seen())
    project.psy("run")
    assert_right(project, range(40))
    evaluated = project.rows_seen()[before:]
    assert 20 < len(evaluated) == len(set(evaluated)) <= 40
    assert_settled(project, range(40))


@pytest.mark.parametrize("harm", [flip, truncate])
def test_damaged_plan_is_mended_from_its_copy(project, harm):
    project.finish(files_of({"example": (range(20), 2)}))
    plan = project.work / "example" / "plan.json"
    whole = plan.read_bytes()
    for where in (0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.99):
        harm(plan, where)
        before = len(project.rows_seen())
        done = project.psy("run")
        said = (done.stdout + done.stderr).splitlines()
        assert len([line for line in said if "plan.json" in line]) == 1, said
        assert len(project.rows_seen()) == before
        assert_right(project, range(20))
        assert plan.read_bytes() == whole
    done = project.psy("run")
    assert "plan.json" not in done.stdout + done.stderr


def test_plan_that_is_damaged_when_the_space_is_extended_costs_no_row(project):
    project.finish(files_of({"example": (range(20), 2)}))
    flip(project.work / "example" / "plan.json", 0.5)
    project.task("example", write_task(range(25)))
    assert project.count("run") == 5
    assert_right(project, range(25))
    assert_settled(project, range(25))


HARMS = [(flip, 0.0), (flip, 0.5), (truncate, 0.5)]


@pytest.mark.parametrize(("harm", "where"), HARMS)
def test_rows_whose_assignments_are_damaged_come_from_the_result(project, harm, where):
    project.finish(files_of({"example": (range(20), 2)}))
    harm(project.input(0), where)
    project.task("example", write_task(range(25)))
    before = len(project.rows_seen())
    done = project.psy("run")
    assert len(project.rows_seen()) == before + 5
    assert_says(done, "in/0.pkl")
    assert_right(project, range(25))
    assert_settled(project, range(25))


@pytest.mark.parametrize("end", [20, 25])
@pytest.mark.parametrize(("harm", "where"), HARMS)
def test_rows_whose_assignments_are_damaged_before_there_is_a_result_are_evaluated_again(
    project, harm, where, end
):
    project.finish(files_of({"example": (range(20), 2)}))
    project.remove_result()
    harm(project.input(0), where)
    if end > 20:
        project.task("example", write_task(range(end)))
    before = len(project.rows_seen())
    done = project.psy("run")
    assert len(project.rows_seen()) == before + end - 10
    assert_says(done, "in/0.pkl")
    assert_right(project, range(end))
    assert_settled(project, range(end))


@pytest.mark.parametrize(("harm", "where"), HARMS)
def test_assignments_that_are_damaged_before_their_rows_are_evaluated_are_planned_anew(project, harm, where):
    project.finish(files_of({"example": (range(20), 2)}))
    project.remove_result()
    for path in project.journals(0):
        path.unlink()
    harm(project.input(0), where)
    before = len(project.rows_seen())
    done = project.psy("run")
    assert len(project.rows_seen()) == before + 10
    assert_says(done, "in/0.pkl")
    assert_right(project, range(20))
    assert_settled(project, range(20))


def assert_says(done, words):
    said = (done.stdout + done.stderr).splitlines()
    assert len([line for line in said if words in line]) == 1, said
