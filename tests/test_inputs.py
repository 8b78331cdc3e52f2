"""Inputs that rows and spaces read: what changed is said, and just what was made of it is evaluated again."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HEAD = "from counting import seen\nfrom psyrun import Param\nimport json, os\nfrom pathlib import Path\n"
BY_ROW = HEAD + (
    "stateless = True\npspace = Param(x=range(6))\nmax_jobs = 2\npool_size = 2\n"
    "def execute(x):\n    seen(x)\n    return {'y': Path(f'../data/{x}.txt').read_text()}\n"
)
ONE_FILE = HEAD + (
    "pspace = Param(x=range(6))\nmax_jobs = 3\npool_size = 2\n"
    "def execute(x):\n    seen(x)\n    return {'y': x * json.loads(open('../data/rates.json').read())}\n"
)


@pytest.fixture
def data(project):
    for x in range(8):
        project.write(f"data/{x}.txt", f"text {x}")
    project.write("data/rates.json", "10")
    return project


def change(project, path, text):
    (project.root / path).write_text(text)


def test_only_rows_that_read_a_changed_file_are_evaluated_again_and_that_is_said(data):
    data.task("t", BY_ROW)
    assert data.count("run") == 6
    assert data.count("run") == 0
    change(data, "data/3.txt", "new")
    assert "data/3.txt changed; 1 row read it" in data.psy("plan", "t").stdout
    before = len(data.rows_seen())
    said = data.psy("run").stdout
    assert "t: data/3.txt changed; 1 row read it. 1 row" in said
    assert "to keep them: psy run --continue t" in said
    assert data.rows_seen()[before:] == ["(3,)"]
    assert data.result("t")["y"] == [f"text {x}" if x != 3 else "new" for x in range(6)]
    assert data.count("run") == 0
    assert data.status("t")["uptodate"]


def test_rows_evaluated_after_the_one_that_read_a_file_count_too(data):
    text = BY_ROW.replace("stateless = True\n", "").replace("max_jobs = 2\npool_size = 2", "pool_size = 1")
    data.task("t", text)
    data.psy("run")
    change(data, "data/3.txt", "new")
    before = len(data.rows_seen())
    said = data.psy("run").stdout
    assert "since 2 rows came later in a process that had read it (at most 1 with stateless = True" in said
    assert len(data.rows_seen()) - before == 3
    assert data.result("t")["y"] == [f"text {x}" if x != 3 else "new" for x in range(6)]


def test_file_that_all_rows_read(data):
    data.task("t", ONE_FILE)
    data.psy("run")
    change(data, "data/rates.json", "20")
    assert data.psy("plan").stdout == "t: data/rates.json changed; 6 rows read it\nt: evaluate 6 rows\n"
    before = len(data.rows_seen())
    assert "stateless" not in data.psy("run").stdout  # Each of them read it itself.
    assert len(data.rows_seen()) - before == 6
    assert data.result("t")["y"] == [20 * x for x in range(6)]
    # Touched, or written anew with equal content: nothing.
    change(data, "data/rates.json", "20")
    os.utime(data.root / "data/rates.json", (1, 1))
    assert data.count("run") == 0


def test_file_that_is_changed_back_costs_nothing(data):
    data.task("t", ONE_FILE)
    data.psy("run")
    change(data, "data/rates.json", "20")
    change(data, "data/rates.json", "10")
    assert data.count("run") == 0


def test_continue_keeps_rows_of_a_changed_file_until_it_changes_again(data):
    data.task("t", ONE_FILE)
    data.psy("run")
    change(data, "data/rates.json", "20")
    assert data.count("run", "--continue") == 0
    assert data.count("run") == 0
    data.edit("psy-tasks/task_t.py", "range(6)", "range(7)")
    assert data.count("run") == 1
    assert data.result("t")["y"] == [*(10 * x for x in range(6)), 120]
    change(data, "data/rates.json", "30")
    assert data.count("run") == 7


def test_state_that_continue_accepted_does_not_count_for_rows_that_read_another_since(data):
    data.task("t", ONE_FILE)
    data.psy("run")
    change(data, "data/rates.json", "20")
    assert data.count("run", "--continue") == 0
    change(data, "data/rates.json", "30")
    assert data.count("run") == 6
    change(data, "data/rates.json", "20")
    assert data.count("run") == 6
    assert data.result("t")["y"] == [20 * x for x in range(6)]


def test_continue_keeps_rows_of_a_changed_file_that_counts_by_its_date(data):
    with (data.root / "data/rates.json").open("a") as file:
        file.write(" " * (33 << 20))
    data.task("t", ONE_FILE)
    data.psy("run")
    os.utime(data.root / "data/rates.json", (1, 1))
    assert data.count("run", "--continue") == 0
    assert data.count("run") == 0
    os.utime(data.root / "data/rates.json", (2, 2))
    assert data.count("run") == 0  # Equal content.
    change(data, "data/rates.json", "20")
    assert data.count("run") == 6


def test_overwrite_dirty_false_refuses(data):
    data.task("t", ONE_FILE + "overwrite_dirty = False\n")
    data.psy("run")
    change(data, "data/rates.json", "20")
    said = data.psy("run", code=2).stderr
    assert "rates.json changed" in said
    assert data.count("run", "--force") == 6


def test_file_that_appears_or_goes_is_a_change(data):
    body = "    seen(x)\n    p = Path(f'../data/extra{x}.txt')\n"
    body += "    return {'y': p.read_text() if p.exists() else 0}\n"
    data.task(
        "t", HEAD + f"stateless = True\npool_size = 1\npspace = Param(x=range(4))\ndef execute(x):\n{body}"
    )
    data.psy("run")
    data.write("data/extra2.txt", "here")
    assert data.count("run") == 1
    assert data.result("t")["y"] == [0, 0, "here", 0]
    (data.root / "data/extra2.txt").unlink()
    before = len(data.rows_seen())
    assert "evaluated again" not in data.psy("run").stdout
    assert len(data.rows_seen()) == before  # The row from before is there yet.
    assert data.result("t")["y"] == [0, 0, 0, 0]


def test_listing_is_an_input(data):
    body = "    seen(x)\n    return {'y': len(os.listdir('../data'))}\n"
    data.task("t", HEAD + f"pspace = Param(x=range(2))\ndef execute(x):\n{body}")
    data.psy("run")
    data.write("data/more.txt", "")
    assert data.count("run") == 2
    assert data.result("t")["y"] == [10, 10]


def test_module_that_only_a_row_imports_is_an_input(data):
    body = "    import importlib\n    seen(x)\n    name = 'late' + str(1)\n"
    body += "    return {'y': importlib.import_module(name).K}\n"
    data.write("psy-tasks/late1.py", "K = 1\n")
    data.task("t", HEAD + f"pspace = Param(x=range(2))\ndef execute(x):\n{body}")
    data.psy("run")
    change(data, "psy-tasks/late1.py", "K = 2\n")
    assert data.count("run") == 2
    assert data.result("t")["y"] == [2, 2]


def test_rows_that_write_and_read_back_are_not_stale_by_it(data):
    body = "    seen(x)\n    p = Path(f'../data/made{x % 2}.txt')\n    p.write_text(str(x))\n"
    body += "    return {'y': p.read_text() and x}\n"
    data.task("t", HEAD + f"pspace = Param(x=range(6))\npool_size = 2\ndef execute(x):\n{body}")
    data.psy("run")
    assert data.count("run") == 0
    change(data, "data/made0.txt", "other")
    assert data.count("run") == 0


def test_untracked_paths_are_no_inputs(data):
    data.task("t", ONE_FILE + "untracked = ['../data/*']\n")
    data.psy("run")
    change(data, "data/rates.json", "20")
    assert data.count("run") == 0


@pytest.mark.parametrize("setting", ["untracked = ['../data/*']\n", "track_inputs = False\n"])
@pytest.mark.parametrize(
    "text", [ONE_FILE, ONE_FILE.replace("range(6)", "range(len(open('../data/rates.json').read()))")]
)
def test_settings_of_inputs_hold_for_rows_on_disk(data, setting, text):
    data.task("t", text)
    data.psy("run")
    change(data, "data/rates.json", "200")
    data.task("t", text + setting)
    assert data.count("run") == 0


def test_inputs_are_not_watched_where_the_task_says_so(data):
    data.task("t", ONE_FILE + "track_inputs = False\n")
    data.psy("run")
    change(data, "data/rates.json", "20")
    assert data.count("run") == 0


def test_file_that_rows_of_other_code_wrote_is_an_input(data):
    text = ONE_FILE.replace("    seen(x)\n", "    seen(x)\n    Path('../data/rates.json').write_text('10')\n")
    text = text.replace("pool_size = 2", "pool_size = 1")  # Another process would read what is half written.
    data.task("t", text)
    assert data.count("run") == 6
    data.task("t", ONE_FILE)
    assert data.count("run") == 6
    change(data, "data/rates.json", "20")
    assert data.count("run") == 6
    assert data.result("t")["y"] == [20 * x for x in range(6)]
    change(data, "data/rates.json", "10")
    data.task("t", text)
    assert data.count("run") == 0


def test_failed_row_whose_inputs_changed_is_evaluated_again_where_rows_may_fail(data):
    text = BY_ROW.replace(
        "    return", "    assert Path(f'../data/{x}.txt').read_text() != 'text 3'\n    return"
    )
    data.task("t", text + "allow_failed = True\n")
    data.psy("run")
    assert data.count("run") == 0
    change(data, "data/3.txt", "new")
    assert data.count("run") == 1
    assert data.result("t")["y"] == [f"text {x}" if x != 3 else "new" for x in range(6)]
    assert data.count("run") == 0
    change(data, "data/3.txt", "text 3")
    assert data.count("run") == 0  # The failure from before is there yet.
    assert data.result("t")["y"][3] is None


# ---------------------------------------------------------------------- what is lost


def lose(data, *names):
    for name in names:
        shutil.rmtree(data.root / "psy-work/t" / name)


def test_inputs_of_rows_whose_journals_were_removed_are_known_yet(data):
    data.task("t", BY_ROW)
    data.psy("run")
    lose(data, "out")
    assert data.count("run") == 0
    change(data, "data/3.txt", "new")
    assert "data/3.txt changed; 1 row read it" in data.psy("plan", "t").stdout
    assert data.count("run") == 1
    assert data.result("t")["y"] == [f"text {x}" if x != 3 else "new" for x in range(6)]
    change(data, "data/4.txt", "new")
    data.psy("clean", "--stale", "--yes", "t")
    assert data.count("run") == 1
    lose(data, "out")
    data.psy("clean", "--stale", "--yes", "t")
    change(data, "data/5.txt", "new")
    assert data.count("run") == 1
    assert data.result("t")["y"] == [*(f"text {x}" for x in range(3)), "new", "new", "new"]
    assert data.count("run") == 0


@pytest.mark.parametrize("lost", [("reads",), ("reads", "out")])
def test_rows_whose_inputs_are_not_known_any_more_are_stale_and_that_is_said(data, lost):
    data.task("t", ONE_FILE)
    data.psy("run")
    lose(data, *lost)
    change(data, "data/rates.json", "20")
    words = "what 6 rows read is not known, since files in psy-work/t/reads/ are gone or damaged"
    assert words in data.psy("plan", "t").stdout
    before = len(data.rows_seen())
    said = data.psy("run").stdout
    assert words in said
    assert "to keep them: psy run --continue t" in said
    assert len(data.rows_seen()) - before == 6
    assert data.result("t")["y"] == [20 * x for x in range(6)]
    assert data.count("run") == 0


def test_damaged_file_of_inputs_is_a_lost_one(data):
    data.task("t", ONE_FILE.replace("pool_size = 2", "pool_size = 1"))
    data.psy("run")
    for path in data.root.glob("psy-work/t/reads/*"):
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    assert data.count("run") == 6


def test_inputs_of_an_unfinished_task_may_be_lost_too(data):
    data.task("t", ONE_FILE.replace("    seen(x)\n", "    seen(x)\n    assert x < 5\n"))
    data.psy("run", code=1)
    lose(data, "reads")
    assert data.count("run", code=1) == 6


def test_continue_keeps_rows_whose_inputs_are_lost(data):
    data.task("t", ONE_FILE)
    data.psy("run")
    lose(data, "reads")
    assert data.count("run", "--continue") == 0
    assert data.count("run") == 0
    data.edit("psy-tasks/task_t.py", "range(6)", "range(7)")
    assert data.count("run") == 1
    change(data, "data/rates.json", "20")
    assert data.count("run") == 1  # the row whose inputs are known


def test_loss_of_journals_of_a_task_without_inputs_evaluates_nothing(data):
    data.task("t", HEAD + "pspace = Param(x=range(6))\ndef execute(x):\n    seen(x)\n    return {'y': x}\n")
    data.psy("run")
    lose(data, "out")
    assert data.count("run") == 0
    data.edit("psy-tasks/task_t.py", "range(6)", "range(7)")
    assert data.count("run") == 1


# ---------------------------------------------------------------------- the space


GRID = HEAD + (
    "grid = json.load(open('../data/grid.json'))\npspace = Param(x=grid)\nmax_jobs = 2\n"
    "def execute(x):\n    seen(x)\n    return {'y': 2 * x}\n"
)


def test_grid_in_a_file_leads_to_new_rows_only(data):
    data.write("data/grid.json", "[1, 2, 3]")
    data.task("t", GRID)
    assert data.count("run") == 3
    change(data, "data/grid.json", "[1, 2, 3, 4]")
    said = data.psy("plan", "t").stdout
    assert "t: the parameter space is evaluated again: data/grid.json changed\n" in said
    assert "t: evaluate 1 row, keep 3 finished rows\n" in said
    assert data.count("run") == 1
    assert data.result("t") == {"x": [1, 2, 3, 4], "y": [2, 4, 6, 8]}
    assert data.count("run") == 0
    change(data, "data/grid.json", "[4, 1]")
    assert data.count("run") == 0
    assert data.result("t") == {"x": [4, 1], "y": [8, 2]}


def test_glob_in_the_space_leads_to_new_rows_only(data):
    text = HEAD + "pspace = Param(name=sorted(p.name for p in Path('../data').glob('*.txt')))\n"
    data.task("t", text + "def execute(name):\n    seen(name)\n    return {'y': len(name)}\n")
    assert data.count("run") == 8
    data.write("data/README", "nothing to do with it")
    assert data.count("run") == 0
    data.write("data/9.txt", "")
    assert data.count("run") == 1
    assert data.result("t")["name"][-1] == "9.txt"


def test_row_added_to_a_task_upstream_costs_one_row_downstream(data):
    head = HEAD + "import numpy as np\n"
    data.task(
        "a",
        head
        + "pspace = Param(x=range(4))\nresultfile = '../psy-work/a/result.npz'\n"
        "def execute(x):\n    seen('a', x)\n    return {'y': x * FACTOR}\n".replace("FACTOR", "10"),
    )
    data.task(
        "b",
        head + "file_dep = ['../psy-work/a/result.npz']\n"
        "table = np.load('../psy-work/a/result.npz')['y']\npspace = Param(v=table.tolist())\n"
        "def execute(v):\n    seen('b', v)\n    return {'w': v + 1}\n",
    )
    assert data.count("run") == 8
    data.edit("psy-tasks/task_a.py", "range(4)", "range(5)")
    before = len(data.rows_seen())
    data.psy("run")
    assert sorted(data.rows_seen()[before:]) == ["('a', 4)", "('b', 40)"]
    assert data.result("b")["w"] == [1, 11, 21, 31, 41]
    assert data.count("run") == 0


def test_declared_file_that_is_not_seen_to_be_read_counts_for_everything(data):
    body = "    seen(x)\n    return {'y': os.popen('cat ../data/rates.json').read()}\n"
    data.task(
        "t", HEAD + f"file_dep = ['../data/rates.json']\npspace = Param(x=range(3))\ndef execute(x):\n{body}"
    )
    said = data.psy("run").stdout
    assert said.count("execute starts processes: what they read is not seen; name it in file_dep") == 1
    change(data, "data/rates.json", "20")
    assert not data.status("t")["uptodate"]
    assert "data/rates.json changed; 3 rows read it" in data.psy("plan").stdout
    assert data.count("run") == 3
    assert data.result("t")["y"] == ["20"] * 3
    assert data.count("run") == 0
    change(data, "data/rates.json", "30")
    assert data.count("run", "--continue") == 0
    assert data.count("run") == 0


def test_declared_file_that_only_rows_of_older_code_were_seen_to_read_counts_for_everything(data):
    data.task("t", ONE_FILE + "file_dep = ['../data/rates.json']\n")
    data.psy("run")
    data.edit("psy-tasks/task_t.py", "open('../data/rates.json')", "os.popen('cat ../data/rates.jso?')")
    assert data.count("run") == 6
    change(data, "data/rates.json", "20")
    assert data.count("run") == 6
    assert data.result("t")["y"] == [20 * x for x in range(6)]


def test_declared_file_that_rows_read_counts_for_these_rows(data):
    data.task("t", BY_ROW + "file_dep = ['../data/3.txt']\n")
    data.psy("run")
    change(data, "data/3.txt", "new")
    assert data.count("run") == 1
    assert data.count("run") == 0


# ---------------------------------------------------------------------- elsewhere


def test_moved_project_evaluates_nothing(data, tmp_path):
    data.task("t", BY_ROW)
    data.psy("run")
    elsewhere = tmp_path / "moved here"
    shutil.copytree(data.root, elsewhere, symlinks=True)
    shutil.rmtree(data.root)
    shutil.move(elsewhere, data.root)
    assert data.count("run") == 0


@pytest.fixture
def outside():
    """A file outside of the project, and of the folders for temporary files, which count nowhere."""
    with tempfile.TemporaryDirectory(prefix="psyrun-", dir=Path.home()) as folder:
        path = Path(folder).resolve() / "outside.json"
        path.write_text("10")
        yield path


def test_file_outside_of_the_project_is_an_input(data, outside):
    body = f"    seen(x)\n    return {{'y': x * json.load(open({str(outside)!r}))}}\n"
    data.task("t", HEAD + f"pspace = Param(x=range(2))\ndef execute(x):\n{body}")
    data.psy("run")
    outside.write_text("20")
    assert data.count("run") == 2
    assert data.result("t")["y"] == [0, 20]


def test_inputs_outside_that_are_all_gone_make_nothing_stale_and_that_is_said(data, outside):
    body = f"    seen(x)\n    return {{'y': x * json.load(open({str(outside)!r}))}}\n"
    data.task("t", HEAD + f"untracked = []\npspace = Param(x=range(2))\ndef execute(x):\n{body}")
    data.psy("run")
    outside.unlink()
    before = len(data.rows_seen())
    words = f"t: {outside}: read by rows, and not on this machine; they count as unchanged\n"
    assert words in data.psy("run").stdout
    assert words in data.psy("plan").stdout
    assert len(data.rows_seen()) == before


def test_nothing_to_do_reads_no_input_again(data, monkeypatch):
    data.task("t", ONE_FILE)
    data.psy("run")
    data.psy("run")
    path = data.root / "data/rates.json"
    path.chmod(0)
    try:
        assert data.count("run") == 0
    finally:
        path.chmod(0o644)


def test_plain_doit_notices_a_changed_input(data):
    data.task("t", ONE_FILE)
    data.psy("run")
    change(data, "data/rates.json", "20")
    before = len(data.rows_seen())
    assert "t: data/rates.json changed; 6 rows read it\n" in data.psy("doit").stdout
    assert len(data.rows_seen()) - before == 6
    with (data.root / "psy-work/t/result.pkl").open("rb") as file:
        assert pickle.load(file)["y"] == [20 * x for x in range(6)]
    assert json.loads((data.root / "data/rates.json").read_text()) == 20


def test_plan_v_lists_what_rows_and_the_space_read(data):
    data.write("data/grid.json", "[0, 1, 2]")
    text = BY_ROW.replace("Param(x=range(6))", "Param(x=json.load(open('../data/grid.json')))")
    data.task("t", text.replace("max_jobs = 2\npool_size = 2", "max_jobs = 1\npool_size = 1"))
    data.psy("run")
    said = data.psy("plan", "-v", "t").stdout
    assert "rows were seen to read\n" in said
    assert all(f"  data/{x}.txt  1 row\n" in said for x in range(3))
    assert "the space was seen to read\nt:   data/grid.json" in said or "  data/grid.json\n" in said
    assert "data/3.txt" not in said
    assert "data/grid.json  3 rows" not in said


def test_psy_test_lists_what_its_row_read(data):
    data.task("t", BY_ROW)
    assert "t: read data/0.txt\n" in data.psy("test", "t").stdout


@pytest.mark.parametrize("verb", ["run", "doit"])
def test_file_that_changes_while_rows_are_evaluated_is_named_at_the_end(data, wait_until, verb):
    body = "    rate = json.loads(open('../data/rates.json').read())\n    seen(x)\n"
    body += "    while not os.path.exists('../gate'):\n        pass\n    return {'y': x * rate}\n"
    head = HEAD + "untracked = ['../gate']\nstateless = True\npool_size = 1\npspace = Param(x=range(2))\n"
    data.task("t", f"{head}def execute(x):\n{body}")
    run = data.start(verb)
    wait_until(lambda: len(data.rows_seen()) == 1)
    change(data, "data/rates.json", "20")
    (data.root / "gate").touch()
    out, _ = run.communicate(timeout=30)
    assert run.returncode == (1 if verb == "run" else 0)  # doit: the target is there
    assert "data/rates.json changed meanwhile: psy run t evaluates what was made of it" in out
    assert data.count("run") == 1
    assert data.result("t")["y"] == [0, 20]


def test_file_that_changes_from_row_to_row_is_named_with_the_cure(data):
    body = "    seen(x)\n    os.system(f'cd ../data; echo {x} > made.txt')\n"
    body += "    return {'y': open('../data/made.txt').read()}\n"
    data.write("data/made.txt", "")
    data.task("t", HEAD + f"pool_size = 1\npspace = Param(x=range(4))\ndef execute(x):\n{body}")
    said = data.psy("run", code=1).stdout
    assert "; data/made.txt changes from row to row: name it in untracked if rows make it\n" in said
    data.edit("psy-tasks/task_t.py", "pool_size", "untracked = ['../data/made.txt']\npool_size")
    assert data.count("run") == 0


def test_listed_folder_that_rows_of_an_earlier_run_wrote_into_is_named_with_the_cure(data):
    body = "    seen(x)\n    n = len(list(Path('../data').glob('*.txt')))\n"
    body += "    Path(f'../data/{x}.out.txt').touch()\n    return {'y': n}\n"
    data.task("t", HEAD + f"pool_size = 1\npspace = Param(x=range(4))\ndef execute(x):\n{body}")
    data.psy("run")
    data.edit("psy-tasks/task_t.py", "range(4)", "range(6)")
    said = data.psy("run", code=1).stdout
    assert "; rows write there, too (data/*.txt): name in untracked what they make\n" in said
    data.edit("psy-tasks/task_t.py", "pool_size", "untracked = ['../data/*.out.txt']\npool_size")
    data.psy("run")  # What they listed is counted otherwise by now.
    assert data.count("run") == 0
    data.write("data/more.txt", "")
    assert data.count("run") == 6


def test_job_that_merges_names_inputs_that_changed_meanwhile(data):
    data.task("t", ONE_FILE)
    data.psy("run")
    (data.root / "psy-work/t/result.pkl").unlink()
    change(data, "data/rates.json", "20")
    argv = [sys.executable, "-m", "psyrun.jobs.finalize", "psy-tasks/task_t.py"]
    out = subprocess.run(
        argv, cwd=data.root, env=data.env(), check=True, text=True, capture_output=True
    ).stdout
    words = "data/rates.json changed meanwhile: psy run t evaluates what was made of it"
    assert out == f"psyrun: t: 6 rows in psy-work/t/result.pkl; {words}\n"


def test_own_files_of_psyrun_are_no_inputs_of_the_space(data):
    data.task("t", ONE_FILE + "resultfile = '../results/mine.pkl'\n")
    data.psy("run")
    assert data.count("run") == 0
    plan = json.loads((data.root / "psy-work/t/plan.json").read_text())
    assert plan["inputs"] == {}
    for path in data.root.glob("psy-work/t/out/*"):
        path.unlink()
    data.edit("psy-tasks/task_t.py", "range(6)", "range(7)")
    assert data.count("run") == 1
    assert json.loads((data.root / "psy-work/t/plan.json").read_text())["inputs"] == {}


def test_continue_says_which_files_changed_and_status_that_rows_were_kept(data):
    data.task("t", ONE_FILE)
    data.psy("run")
    assert "kept with" not in data.psy("status", "-v").stdout
    data.write("data/rates.json", "11")
    for verb in ("plan", "run"):
        said = data.psy(verb, "--continue").stdout
        assert re.search(r"t: data/rates.json changed; \d+ rows read it; kept\n", said)
    assert "rows that read data/rates.json before it changed" in data.psy("status", "-v").stdout
    assert "which --continue kept" in data.psy("status", "--receipt").stdout
    assert "kept" not in data.psy("run", "--continue").stdout
