"""psy log: what a row printed."""

from __future__ import annotations

import itertools
import re
import time

import pytest

from psyrun.cli.output import show_log
from psyrun.workdir import Layout, read_plan

NOISY = """\
import os, subprocess, sys, time
from psyrun import Param
pspace = Param(x=range(8)) * Param(seed=[0, 1])
pool_size = 2
max_jobs = 3
untracked = ["../stop"]


def execute(x, seed):
    print(f"<{x}.{seed}>")
    subprocess.run(f"echo sim of {x}.{seed} >&2", shell=True, check=True)
    time.sleep(0.006)
    if os.path.exists("../stop") and x == 5:
        raise ValueError(x)
    return {"y": x}
"""


def expected(x, seed):
    return f"<{x}.{seed}>\nsim of {x}.{seed}\n"


def of_rows(project, *words, code=0):
    return project.psy("log", "t", *words, code=code).stdout


@pytest.fixture
def noisy(project):
    """A finished task whose rows print."""
    project.finish({"psy-tasks/task_t.py": NOISY})
    return project


def test_log_prints_what_a_row_printed_and_nothing_else(noisy):
    for number, (x, seed) in enumerate(itertools.product(range(8), [0, 1])):
        assert of_rows(noisy, str(number)) == expected(x, seed)
    assert of_rows(noisy, "-1") == expected(7, 1)
    assert of_rows(noisy, "x=3", "seed=1.0") == expected(3, 1)


def test_log_of_several_rows_has_headings_and_prints_ten(noisy):
    said = of_rows(noisy, "x=3")
    assert said == (
        f"==> row 6: x=3, seed=0 <==\n{expected(3, 0)}==> row 7: x=3, seed=1 <==\n{expected(3, 1)}"
    )
    noisy.edit("psy-tasks/task_t.py", "[0, 1]", "[0] * 14")
    noisy.psy("run")
    said = of_rows(noisy, "x=3")
    assert said.count("==> row") == 10
    assert said.endswith("and 4 rows more; the next: psy log t 52\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["16"], "there is no row 16 among 16 rows"),
        (["x=9"], "there are rows with x=7, x=6"),
        (["z=9"], "there are x, seed"),
        (["--tail"], "'--tail' selects no row"),
    ],
)
def test_log_of_rows_that_there_are_not_ends_with_2(noisy, words, said):
    done = noisy.psy("log", "t", *words, code=2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_log_while_rows_are_missing_and_of_failed_rows_and_of_their_next_attempt(project):
    project.task("t", NOISY)
    assert of_rows(project, "0") == "t: it was never run; psy run t\n"
    (project.root / "stop").touch()
    project.psy("run", code=1)
    for number in (0, 9, 10, 11):
        assert of_rows(project, str(number)) == expected(number // 2, number % 2)
    project.edit("psy-tasks/task_t.py", "range(8)", "range(9)")
    before = list(project.root.glob("psy-work/t/log/*"))
    (project.root / "stop").unlink()
    project.psy("run")
    for log in before:
        log.unlink()
    assert of_rows(project, "x=5", "seed=0") == expected(5, 0)
    assert of_rows(project, "-1") == expected(8, 1)
    assert "was removed or cut" in of_rows(project, "0")


def test_log_of_rows_whose_log_or_journal_is_gone_says_so(noisy):
    folder = noisy.root / "psy-work/t"
    for path in folder.glob("out/*"):
        path.unlink()
    assert of_rows(noisy, "5") == expected(2, 1)  # receipts.rows has it.
    logs = sorted(path for path in folder.glob("log/*") if "-" in path.name)
    for path in logs:
        path.write_bytes(path.read_bytes()[:10])
    assert "row 15: x=7, seed=1 (not known any more: psy-work/t/log/" in of_rows(noisy, "15")
    (folder / "receipts.rows").unlink()
    said = of_rows(noisy, "5")
    assert said == "==> row 5: x=2, seed=1 (not evaluated yet, or not known any more) <==\n"


def test_log_of_rows_that_come_from_a_result(noisy):
    for path in noisy.root.glob("psy-work/t/out/*"):
        path.unlink()
    noisy.edit("psy-tasks/task_t.py", "range(8)", "range(1, 9)")
    noisy.psy("run")
    for number, (x, seed) in enumerate(itertools.product(range(1, 9), [0, 1])):
        assert of_rows(noisy, str(number)) == expected(x, seed)


def test_log_of_a_row_that_printed_nothing_and_of_rows_of_microseconds(project):
    text = "from psyrun import Param\npspace = Param(x=range(40))\nmax_jobs = 1\npool_size = 1\n"
    text += "def execute(x):\n    if x > 20:\n        print('row', x)\n    return {'y': 1}\n"
    project.task("t", text)
    project.psy("run")
    said = of_rows(project, "30")
    assert "maybe with its neighbours" in said
    assert "row 30\n" in said
    said = of_rows(project, "x=30", "x=30.0")
    assert said.count("row 30\n") == 1
    project.edit("psy-tasks/task_t.py", "x > 20", "x > 100")
    project.psy("run", "--yes")
    assert of_rows(project, "30") == "==> row 30: x=30 (nothing was printed) <==\n"


def test_log_of_output_that_is_no_text_or_has_no_last_newline(project):
    text = "import os, time\nfrom psyrun import Param\npspace = Param(x=range(2))\n"
    text += "def execute(x):\n    os.write(1, b'\\xff\\x00 no text')\n    time.sleep(0.01)\n    return {}\n"
    project.task("t", text)
    project.psy("run")
    process = project.start("log", "t", "0", text=False)
    out, err = process.communicate(timeout=60)
    assert (out, err) == (b"\xff\x00 no text\n", b"")


def test_log_of_the_task_shows_the_ends_of_its_newest_logs(noisy):
    logs = [log for log in noisy.root.glob("psy-work/t/log/*") if log.stat().st_size]
    assert len(logs) in (2, 3)  # of the worker, and of the processes that evaluated rows
    said = of_rows(noisy)
    assert {f"psy-work/t/log/{log.name}" for log in logs} == set(re.findall(r"==> (\S+)", said))
    assert expected(7, 1) in said or expected(7, 0) in said
    assert said.endswith(f"t: {len(logs)} logs in psy-work/t/log; of a row: psy log t N, or x=4\n")
    for log in noisy.root.glob("psy-work/t/log/*"):
        log.unlink()
    assert of_rows(noisy) == "t: nothing was printed; of a row: psy log t N, or x=4\n"


def test_log_of_a_task_whose_file_is_broken_or_gone(noisy):
    path = noisy.root / "psy-tasks/task_t.py"
    path.write_text("pspace = (")
    assert of_rows(noisy, "5") == expected(2, 1)
    path.unlink()
    assert of_rows(noisy, "x=2", "seed=1") == expected(2, 1)
    assert "no task 'u'" in noisy.psy("log", "u", "5", code=2).stderr


def test_log_writes_nothing(noisy):
    files = {path: path.read_bytes() for path in noisy.root.rglob("*") if path.is_file()}
    of_rows(noisy, "x=1")
    of_rows(noisy)
    assert {path: path.read_bytes() for path in noisy.root.rglob("*") if path.is_file()} == files


def test_row_among_a_million_is_found_at_once(project):
    text = "from psyrun import Param\npspace = Param(x=range(10_000)) * Param(seed=range(100))\n"
    text += "def execute(x, seed):\n    if x == 77:\n        print(x, seed)\n    return {'y': x}\n"
    project.task("t", text)
    project.psy("run")
    layout = Layout(
        root=project.root, folder=project.root / "psy-work/t", result=project.root / "psy-work/t/result.pkl"
    )
    for words in (["7742"], ["x=77", "seed=42"]):
        began = time.process_time()
        said = b"".join(show_log(layout, read_plan(layout), words))
        assert time.process_time() - began < 1.5  # 0.15 s on an idle machine
        assert b"\n77 42\n" in said
