"""What the tool of 2018 got wrong: each fault has a test by name, here or where it belongs."""

from __future__ import annotations

import ast
import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from psyrun import DistributeBackend, ImmediateRun, LoadBalancingBackend, Local, Param, cli
from psyrun.pspace import algebra as pspace_module
from psyrun.pspace.algebra import missing
from psyrun.source.cache import SourceCache
from psyrun.store import AutodetectStore, H5Store, NpzStore, PickleStore
from psyrun.workdir.journal import BatchKey, JournalWriter, encode_block, read_blocks
from psyrun.workdir.layout import Layout

pytestmark = pytest.mark.started

TASK = """\
from counting import seen
from psyrun import Param

pspace = Param(x=range(4))
pool_size = 1


def execute(x):
    seen(x)
    return {"y": 2 * x}
"""

WHERE = {
    "rows were compared column by column": [
        "test_pspace.py::test_difference_keeps_rows_that_share_only_single_columns",
        "test_edits.py::test_edits_of_the_space_evaluate_only_new_rows",
    ],
    "rows with NaN or arrays never counted as done, or raised": [
        "test_pspace.py::test_nan_rows_of_a_sum_count_as_equal",
        "test_pspace.py::test_difference_of_array_values",
        "test_edits.py::test_unlike_spaces_side_by_side_are_recognised",
        "test_edits.py::test_values_of_any_kind_are_recognised",
    ],
    "differences were quadratic": [
        "test_faults_of_2018.py::test_differences_look_at_each_row_once",
    ],
    "psy kill cancelled every job of the user": [
        "test_commands.py::test_kill_ends_the_run_of_the_named_task_alone",
        "test_slurm.py::test_kill_ends_the_jobs_of_the_task_and_no_others",
    ],
    "each row rewrote the whole file": [
        "test_faults_of_2018.py::test_rows_are_written_once_and_never_rewritten",
        "test_mapper.py::test_writing_takes_a_small_share_of_the_time",
    ],
    "a worker that died hung the run": [
        "test_faults.py::test_death_and_time_out_fail_their_rows_alone",
        "test_pool.py::test_a_death_fails_exactly_the_row_that_died",
    ],
    "the order depended on os.listdir and on timing": [
        "test_run.py::test_tutorial_leaves_a_pickled_table_in_the_order_of_the_space",
        "test_mapper.py::test_order_does_not_depend_on_how_long_rows_take",
        "test_faults_of_2018.py::test_result_has_the_order_of_the_space_whichever_row_was_first",
    ],
    "--continue merged in place, then deleted outputs": [
        "test_faults_of_2018.py::test_merge_that_fails_leaves_the_result_and_every_row",
    ],
    "a misspelt setting was ignored": [
        "test_settings.py::test_misspelt_setting_is_refused_with_a_suggestion",
        "test_run.py::test_task_file_that_cannot_work_is_refused_before_anything_is_written",
    ],
    "the template of new-task did not load": ["test_commands.py::test_new_task_runs_as_it_is"],
    "a generator became one point": [
        "test_pspace.py::test_generator_is_read_into_many_assignments",
        "test_pspace.py::test_sets_are_refused",
    ],
    "constructors and status wrote": [
        "test_faults_of_2018.py::test_constructors_do_not_touch_the_disk",
        "test_status.py::test_reading_commands_write_nothing",
    ],
    "file names had colons, jobs were matched by name": [
        "test_faults_of_2018.py::test_files_have_plain_names",
        "test_local_scheduler.py::test_process_that_got_the_id_of_an_ended_job_is_left_alone",
    ],
    "code was kept in strings": [
        "test_faults_of_2018.py::test_jobs_run_a_module_and_no_text",
    ],
}


@pytest.mark.parametrize("fault", WHERE)
def test_every_fault_has_its_test(fault):
    for place in WHERE[fault]:
        file, _, name = place.partition("::")
        tree = ast.parse((Path(__file__).parent / file).read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, place


def test_differences_look_at_each_row_once(monkeypatch):
    looked = Counter()
    make_keys = pspace_module.row_keys

    def count(columns, key):
        looked["rows"] += len(next(iter(columns.values())))
        return make_keys(columns, key)

    monkeypatch.setattr(pspace_module, "row_keys", count)
    grid = Param(a=range(120)) * Param(b=range(120))
    done = grid[::2]
    for difference in (lambda: grid - done, lambda: missing(grid, done)):
        looked.clear()
        assert len(difference()) == len(grid) - len(done) == 7_200
        assert looked["rows"] == len(grid) + len(done)


def test_rows_are_written_once_and_never_rewritten(tmp_path, monkeypatch):
    written = Counter()
    write = os.write

    def count(fd, data):
        written[fd] += len(data)
        return write(fd, data)

    tie = "00112233aabbccdd"
    journal = JournalWriter(tmp_path, BatchKey(0, tie), "abcdefgh").open()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", count)
        for row in range(800):
            journal.append(encode_block([row], {"x": [row]}), b"{}")
    journal.close()
    (closed,) = tmp_path.iterdir()
    assert written[journal._fd] == closed.stat().st_size
    blocks = read_blocks(closed, bytes.fromhex(tie))
    assert [list(block.rows) for block in blocks] == [[row] for row in range(800)]


def test_result_has_the_order_of_the_space_whichever_row_was_first(project):
    """Row 0 waits for the last row, which is in another batch."""
    os.mkfifo(project.root / "gate")
    waiting = "    seen(x)\n    if x in (0, 3):\n        open('../gate', 'w' if x else 'r').close()\n"
    text = TASK.replace("pool_size = 1", "pool_size = 2").replace("    seen(x)\n", waiting)
    project.task("t", text)
    project.psy("run")
    assert project.result("t") == {"x": [0, 1, 2, 3], "y": [0, 2, 4, 6]}


@pytest.mark.parametrize("arguments", [("run", "--continue"), ("run",), ("run", "--force")], ids=" ".join)
def test_merge_that_fails_leaves_the_result_and_every_row(project, arguments, monkeypatch, capsys):
    project.task("t", TASK)
    project.psy("run")
    folder = project.root / "psy-work/t"
    before = (folder / "result.pkl").read_bytes()
    journals = {path.name for path in (folder / "out").iterdir()}
    project.edit("psy-tasks/task_t.py", "range(4)", "[7, *range(1, 4)]")

    def save(store, filename, data):
        Path(filename).write_text("half a result")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.chdir(project.root)
        for name, value in project.env().items():
            patch.setenv(name, value)
        for path in project.env()["PYTHONPATH"].split(os.pathsep):
            patch.syspath_prepend(path)
        patch.setattr(PickleStore, "save", save)
        assert cli.main(list(arguments)) in (1, 2)
    said = capsys.readouterr()
    assert "No space left" in said.out + said.err
    assert (folder / "result.pkl").read_bytes() == before
    assert journals <= {path.name for path in (folder / "out").iterdir()}
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    assert project.count("run") == 0
    assert project.result("t")["x"][:4] == [7, 1, 2, 3]


def test_constructors_do_not_touch_the_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in (
        *(AutodetectStore, H5Store, NpzStore, PickleStore),
        *(Local, ImmediateRun, DistributeBackend, LoadBalancingBackend, SourceCache),
    ):
        kind()
    JournalWriter(tmp_path / "out", BatchKey(0, "0" * 16), "abcdefgh")
    layout = Layout(root=tmp_path, folder=tmp_path / "psy-work/t", result=tmp_path / "t.pkl")
    for name in ("plan", "process", "receipt", "inputs", "out", "log", "jobs", "lock"):
        getattr(layout, name)
    assert list(tmp_path.iterdir()) == []


def test_files_have_plain_names(project):
    project.task("t.1-a_b", TASK.replace("range(4)", "[0, 'a']").replace("2 * x", "1 / x"))
    project.psy("run", code=1)
    project.edit("psy-tasks/task_t.1-a_b.py", "1 / x", "x")
    project.psy("run")
    names = {part for path in (project.root / "psy-work").rglob("*") for part in path.parts[-1:]}
    assert {"plan.json", "result.pkl"} <= names
    assert [name for name in names if not re.fullmatch(r"[A-Za-z0-9._-]+", name)] == []


def test_jobs_run_a_module_and_no_text(project):
    text = TASK + (
        "\nimport json\nfrom psyrun.scheduler import Local\n\n"
        "class Recording(Local):\n"
        "    def submit(self, spec):\n"
        "        with open('../argv.json', 'w') as file:\n"
        "            json.dump(list(spec.argv), file)\n"
        "        return super().submit(spec)\n\n"
        "scheduler = Recording()\n"
    )
    project.task("t", text)
    project.psy("run")
    argv = json.loads((project.root / "argv.json").read_text())
    assert argv[1:4] == ["-P", "-m", "psyrun.worker"]
    assert len(argv) == 5
    assert re.fullmatch(r"psy-work/t/jobs/\w+\.json", argv[4])
