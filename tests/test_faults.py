"""Faults: whatever dies, is cut short or fills up, finished rows stay, no process does, and psy says why."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest

import files
from conftest import GATED
from processes import Processes
from psyrun.workdir.inputs import read_inputs
from psyrun.workdir.journal import parse_name, read_headers
from psyrun.workdir.records import list_journals, read_records

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")

TASK = """\
import time
from counting import seen
from psyrun import Param

pspace = Param(x=range(ROWS))
pool_size = 2


def execute(x):
    seen(x)
    time.sleep(0.05)
    return {"y": 2 * x}
"""
N = 40
LONG = TASK.replace("ROWS", str(N))


@pytest.fixture
def processes(project):
    """The project's processes; those that a test leaves behind end with it."""
    found = Processes(project)
    yield found
    for pid in found.find():
        os.kill(pid, signal.SIGKILL)


def folder_of(project, task="example"):
    return project.root / "psy-work" / task


def rows_on_disk(project, task="example"):
    """Return the x of all rows that have values, and of those that failed."""
    done, failed = set(), set()
    for batch, journals in list_journals(folder_of(project, task) / "out").items():
        columns = read_inputs(folder_of(project, task) / "in" / f"{batch.number}.pkl", batch.tie).columns()
        records = read_records(journals)
        done |= {columns["x"][row] for row in records.done}
        failed |= {columns["x"][row] for row in records.failures}
    return done, failed


def xs_seen(project, start=0):
    return [eval(line)[0] for line in project.rows_seen()[start:]]


def assert_right(project, n, factor=2, task="example"):
    assert project.result(task) == {"x": list(range(n)), "y": [factor * x for x in range(n)]}


def assert_completed_by_next_run(project, n, kept):
    """The next run evaluates what is not among `kept`, each row once, and the result is right."""
    start = len(project.rows_seen())
    project.psy("run")
    assert sorted(xs_seen(project, start)) == sorted(set(range(n)) - kept)
    assert_right(project, n)


def snapshot(folder):
    """Return the bytes of all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_clean_words(done, *words):
    """It says these words, and no traceback of psyrun's own."""
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    for word in words:
        assert word in said, said


# ---------------------------------------------------------------------- rows that go wrong


@pytest.mark.slow
def test_death_and_time_out_fail_their_rows_alone(project):
    project.task(
        "example",
        """\
        import os
        from counting import seen
        from psyrun import Param

        pspace = Param(x=range(20))
        timeout = 2
        pool_size = 2


        def execute(x):
            seen(x)
            if x == 3:
                os._exit(137)
            while x == 7:
                pass
            return {"y": 2 * x}
        """,
    )
    done = project.psy("run", code=1, timeout=30)
    assert_clean_words(done, "18 of 20 rows done", "2 failed")
    status = project.status("example")
    assert (status["done"], status["failed"], status["missing"], status["result"]) == (18, 2, 0, None)
    lines = project.psy("status", "-v", "example").stdout.splitlines()
    assert any("x=3" in line and "exit 137" in line for line in lines), lines
    assert any("x=7" in line and "timeout" in line for line in lines), lines
    errors = project.psy("errors", "example").stdout
    assert "exit 137" in errors
    assert "timeout" in errors
    assert errors.count("  output of the first of them: nothing was printed\n") == 2
    # After mending, exactly the two are evaluated.
    project.edit("psy-tasks/task_example.py", "os._exit(137)", "pass")
    project.edit("psy-tasks/task_example.py", "while x == 7", "if x == 7")
    start = len(project.rows_seen())
    project.psy("run", "--continue")
    assert sorted(xs_seen(project, start)) == [3, 7]
    assert_right(project, 20)


def test_whatever_a_row_does_is_a_failure_of_that_row_by_name(project):
    project.task(
        "example",
        """\
        import os
        import signal
        import sys
        import threading
        from psyrun import Param

        pspace = Param(x=range(12))
        pool_size = 2


        def execute(x):
            if x == 1:
                os.kill(os.getpid(), signal.SIGSEGV)
            elif x == 2:
                sys.exit("gone")
            elif x == 3:
                raise KeyboardInterrupt
            elif x == 4:
                return {"y": threading.Lock()}
            elif x == 5:
                return 2 * x
            elif x == 6:
                raise ValueError("six is right out")
            elif x == 7:
                return {1: x}
            return {"y": 2 * x}
        """,
    )
    project.psy("run", code=1, timeout=30)
    status = project.status("example")
    assert (status["done"], status["failed"]) == (5, 7)
    lines = project.psy("status", "-v", "example").stdout.splitlines()
    reasons = {
        1: "signal 11 (SIGSEGV)",
        2: "SystemExit: gone",
        3: "KeyboardInterrupt",
        4: "can't be pickled",
        5: "return a dict",
        6: "ValueError: six is right out",
        7: "names are strings",
    }
    for x, reason in reasons.items():
        assert any(f"x={x} " in line and reason in line for line in lines), (x, lines)
    errors = project.psy("errors", "example").stdout
    for reason in reasons.values():
        assert reason in errors, errors
    assert "task_example.py" in errors


def test_setup_that_raises_is_shown_once(project):
    project.task(
        "example",
        """\
        from psyrun import Param

        pspace = Param(x=range(20))
        pool_size = 2


        def setup(proc_id):
            raise OSError("no such device")


        def execute(x):
            return {"y": 2 * x}
        """,
    )
    done = project.psy("run", code=1, timeout=30)
    said = done.stdout + done.stderr
    assert said.count("OSError: no such device") == 1, said
    assert "in setup" in said
    assert project.status("example")["missing"] == 20


def test_setup_that_dies_ends_the_run_and_is_named(project):
    project.task(
        "example",
        """\
        import os
        from psyrun import Param

        pspace = Param(x=range(20))
        pool_size = 2


        def setup(proc_id):
            os._exit(9)


        def execute(x):
            return {"y": 2 * x}
        """,
    )
    done = project.psy("run", code=1, timeout=30)
    assert_clean_words(done, "exit 9", "setup")
    assert project.status("example")["missing"] == 20


# ---------------------------------------------------------------------- kill -9


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("victim", ["psyrun.cli", "psyrun.worker"])
def test_kill_9_leaves_no_process_and_loses_no_finished_row(project, processes, wait_until, victim):
    project.task("example", LONG)
    run = project.start("run")
    wait_until(lambda: len(rows_on_disk(project)[0]) >= 6)
    (pid,) = processes.find(victim)
    os.kill(pid, signal.SIGKILL)
    _, err = run.communicate(timeout=20)
    assert run.returncode == (-9 if victim == "psyrun.cli" else 1), err
    wait_until(lambda: not processes.find(), seconds=5)
    kept, failed = rows_on_disk(project)
    assert len(kept) >= 6
    assert not failed
    assert_completed_by_next_run(project, N, kept)


@needs_proc
def test_worker_that_was_killed_is_named(project, processes, wait_until):
    project.task("example", GATED)
    run = project.start("run")
    wait_until(project.rows_seen)
    (pid,) = processes.find("psyrun.worker")
    os.kill(pid, signal.SIGKILL)
    out, err = run.communicate(timeout=20)
    assert run.returncode == 1
    assert "SIGKILL" in out + err
    assert "go on: psy run example" in out


@needs_proc
@pytest.mark.slow
def test_kill_9_of_a_child_fails_the_row_that_it_was_at(project, processes, wait_until):
    project.task("example", GATED)  # A child between two rows is killed at no row.
    run = project.start("run")
    wait_until(lambda: len(project.rows_seen()) == 2)
    os.kill(processes.find("psyrun.worker.child")[0], signal.SIGKILL)
    (project.root / "gate").touch()
    run.communicate(timeout=20)
    assert run.returncode == 1
    kept, failed = rows_on_disk(project)
    assert len(kept) == 19
    assert len(failed) == 1
    assert "signal 9 (SIGKILL)" in project.psy("status", "-v", "example").stdout
    assert_completed_by_next_run(project, 20, kept)


# ---------------------------------------------------------------------- signals


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_signal_stops_and_keeps_every_finished_row(project, processes, wait_until, number):
    project.task("example", LONG)
    run = project.start("run")
    wait_until(lambda: len(rows_on_disk(project)[0]) >= 6)
    if number == signal.SIGINT:
        os.killpg(run.pid, number)
    else:
        os.kill(run.pid, number)
    began = time.monotonic()
    out, err = run.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert run.returncode == 130, err
    assert "psy run example" in out
    assert "Traceback" not in out + err
    wait_until(lambda: not processes.find(), seconds=5)
    kept, failed = rows_on_disk(project)
    assert not failed
    assert kept == set(xs_seen(project))  # Rows of 0.05 s at which children were had time to end.
    assert not list(folder_of(project).glob("out/*.part"))
    status = project.status("example")
    assert (status["done"], status["missing"], status["failed"]) == (len(kept), N - len(kept), 0)
    assert_completed_by_next_run(project, N, kept)


@needs_proc
def test_interrupt_does_not_wait_for_endless_rows(project, processes, wait_until):
    project.task("example", GATED)
    run = project.start("run")
    wait_until(lambda: len(project.rows_seen()) == 2)
    os.killpg(run.pid, signal.SIGINT)
    began = time.monotonic()
    _, err = run.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert run.returncode == 130, err
    wait_until(lambda: not processes.find(), seconds=5)
    assert rows_on_disk(project) == (set(), set())
    (project.root / "gate").touch()
    assert_completed_by_next_run(project, 20, set())


@needs_proc
@pytest.mark.slow
def test_second_interrupt_leaves_nothing_behind(project, processes, wait_until):
    project.task("example", LONG)
    run = project.start("run")
    wait_until(lambda: len(rows_on_disk(project)[0]) >= 6)
    before, _ = rows_on_disk(project)
    os.killpg(run.pid, signal.SIGINT)
    wait_until(lambda: run.poll() is not None or len(processes.find()) < 4)
    if run.poll() is None:
        os.killpg(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=20)
    assert run.returncode in (130, -2), err
    wait_until(lambda: not processes.find(), seconds=5)
    kept, failed = rows_on_disk(project)
    assert before <= kept
    assert not failed
    assert_completed_by_next_run(project, N, kept)


@needs_proc
def test_worker_stops_whatever_number_of_signals_it_gets(project, processes, wait_until):
    project.task("example", GATED)
    run = project.start("run")
    wait_until(lambda: len(project.rows_seen()) == 2)
    (worker,) = processes.find("psyrun.worker")

    def stops():
        """Send more, at moments that no two runs share, as a terminal, psy and a batch system do."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1) * 100:
            with suppress(ProcessLookupError):
                os.kill(worker, number)
            for _ in range(random.randrange(2000)):
                pass
        return not processes.find("psyrun.worker")

    wait_until(stops, seconds=4)
    out, err = run.communicate(timeout=20)
    assert run.returncode == 1, out + err
    assert not processes.find()
    assert rows_on_disk(project) == (set(), set())


def test_signal_that_arrives_while_another_is_dealt_with_does_not_hang_the_worker():
    code = """\
        import signal
        import threading
        from psyrun.worker import __main__ as worker

        def notify_all(self, real=threading.Condition.notify_all):
            threading.Condition.notify_all = real
            signal.raise_signal(signal.SIGTERM)
            real(self)

        threading.Condition.notify_all = notify_all
        worker._install_signal_handlers()
        signal.raise_signal(signal.SIGINT)
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=5)


@needs_proc
def test_interrupt_while_the_task_file_is_run(project, processes, wait_until):
    project.task("example", GATED + "\n\nseen('loading')\nwhile not os.path.exists('../gate'):\n    pass\n")
    run = project.start("run")
    wait_until(project.rows_seen)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=5)
    assert run.returncode == 130, err
    assert "Traceback" not in out + err
    assert len(project.rows_seen()) == 1


@needs_proc
def test_terminal_that_is_closed_costs_no_finished_row(project, processes, wait_until):
    """The terminal sends HUP to all of them."""
    project.task("example", GATED.replace("    while", "    while x > 5 and"))
    run = project.start("run")
    wait_until(lambda: len(rows_on_disk(project)[0]) == 6)
    os.killpg(run.pid, signal.SIGHUP)
    run.communicate(timeout=10)
    assert run.returncode == 130
    wait_until(lambda: not processes.find())
    assert not list(folder_of(project).glob("out/*.part"))
    kept, failed = rows_on_disk(project)
    assert (len(kept), failed) == (6, set())
    (project.root / "gate").touch()
    assert_completed_by_next_run(project, 20, kept)


@needs_proc
def test_hangup_that_was_ignored_stays_ignored(project, processes, wait_until):
    """`nohup psy run &` goes on when the terminal is closed."""
    project.task("example", GATED)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = project.start("run")
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_until(lambda: len(project.rows_seen()) == 2)
    os.kill(run.pid, signal.SIGHUP)
    (project.root / "gate").touch()
    out, err = run.communicate(timeout=30)
    assert run.returncode == 0, out + err
    assert_right(project, 20)


# ---------------------------------------------------------------------- edits during a run


def test_edit_during_a_run_counts_from_the_next_run_on(project, wait_until):
    late = 'from late import factor\n\n    return {"y": factor * x}'
    project.task("example", GATED.replace('return {"y": 2 * x}', late))
    project.write("psy-tasks/late.py", "factor = 2\n")
    run = project.start("run")
    wait_until(project.rows_seen)
    project.edit("psy-tasks/late.py", "factor = 2", "factor = 3")
    project.edit("psy-tasks/task_example.py", "factor * x", "factor * x + 0 * 5")
    (project.root / "gate").touch()
    out, err = run.communicate(timeout=30)
    assert run.returncode == 0, out + err
    assert_right(project, 20)
    assert not project.status("example")["uptodate"]
    assert project.count("run") == 20
    assert_right(project, 20, factor=3)
    assert project.status("example")["uptodate"]


def test_edit_of_the_space_during_a_run_counts_from_the_next_run_on(project, wait_until):
    project.task("example", GATED)
    run = project.start("run")
    wait_until(project.rows_seen)
    project.edit("psy-tasks/task_example.py", "range(20)", "range(25)")
    (project.root / "gate").touch()
    out, err = run.communicate(timeout=30)
    assert run.returncode == 0, out + err
    assert_right(project, 20)
    assert project.count("run") == 5
    assert_right(project, 25)


# ---------------------------------------------------------------------- damaged files


def make_blocks(project):
    """Run a task to its end; return its only journal and the ends of the journal's blocks, 3 at least."""
    text = TASK.replace("pool_size = 2", "pool_size = 1\nmax_jobs = 1").replace("ROWS", "12")
    project.finish({"psy-tasks/task_example.py": text})
    (journal,) = folder_of(project).glob("out/*.rows")
    tie = bytes.fromhex(parse_name(journal.name)[0].tie)
    ends = [header.end for header in read_headers(journal, tie)]
    assert len(ends) >= 3
    return journal, ends


def damage(journal, start, end, how):
    """Damage the block between two offsets."""
    data = bytearray(journal.read_bytes())
    if how == "truncated":
        del data[(start + end) // 2 :]
    else:
        data[(start + end) // 2] ^= 0xFF
    journal.write_bytes(data)


@pytest.mark.parametrize("lost", ["result", "everything but rows"])
@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_damaged_block_costs_its_rows_and_those_after_it(project, how, lost):
    journal, ends = make_blocks(project)
    damage(journal, ends[0], ends[1], how)
    (project.root / "psy-work/example/result.pkl").unlink()
    if lost != "result":
        for name in ("process.json", "result.pkl.receipt"):
            (folder_of(project) / name).unlink()
    kept, _ = rows_on_disk(project)
    assert 0 < len(kept) < 12
    assert_completed_by_next_run(project, 12, kept)
    status = project.status("example")
    assert (status["done"], status["missing"], status["uptodate"]) == (12, 0, True)


def fail_one(project):
    """Leave a task with rows done and one failed, hence without a result."""
    text = TASK.replace("ROWS", "6").replace("seen(x)", "seen(x)\n    1 / (x - 3)")
    project.finish({"psy-tasks/task_example.py": text}, code=1)


@pytest.mark.slow
def test_damaged_plan_is_a_clear_error(project):
    fail_one(project)
    plan = folder_of(project) / "plan.json"
    (folder_of(project) / "plan.json.bak").unlink()
    for garbage in (b"", b"\x00\xff garbage", b"[1, 2]", b'{"format": 2}'):
        plan.write_bytes(garbage)
        before = snapshot(folder_of(project))
        assert_clean_words(project.psy("run", code=2), "plan.json", "damaged", "delete it")
        assert snapshot(folder_of(project)) == before
    assert_clean_words(project.psy("status", code=None), "plan.json", "damaged")
    assert_clean_words(project.psy("errors", code=None), "plan.json", "damaged")
    # The cure that it names works.
    plan.unlink()
    project.edit("psy-tasks/task_example.py", "1 / (x - 3)", "pass")
    start = len(project.rows_seen())
    project.psy("run", "--continue")
    assert xs_seen(project, start) == [3]
    assert_right(project, 6)


def test_plan_of_a_newer_psyrun_is_a_clear_error(project):
    fail_one(project)
    path = folder_of(project) / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"format": 99}))
    before = snapshot(folder_of(project))
    for command, code in {"run": 2, "plan": 0, "status": 0}.items():
        assert_clean_words(project.psy(command, code=code), "plan.json", "upgrade psyrun")
    assert snapshot(folder_of(project)) == before


def make_newer(path):
    """Write a file anew as a later version of psyrun might."""
    if path.suffix == ".pkl":
        path.write_bytes(files.make_newer(path.read_bytes()))
    else:
        path.write_text(path.read_text().replace('"format": 1', '"format": 2'))


@pytest.mark.parametrize("edit", ["no edit", "edit of the space"])
def test_input_file_of_a_newer_psyrun_is_a_clear_error(project, edit):
    fail_one(project)
    for path in folder_of(project).glob("in/*.pkl"):
        make_newer(path)
    if edit != "no edit":
        project.edit("psy-tasks/task_example.py", "range(6)", "range(7)")
    before = snapshot(folder_of(project))
    start = len(project.rows_seen())
    done = project.psy("run", code=2)
    assert_clean_words(done, "in/", "upgrade psyrun")
    assert snapshot(folder_of(project)) == before
    assert project.rows_seen()[start:] == []


# ---------------------------------------------------------------------- disks


class Disk:
    """A small file system at the project's work folder."""

    def __init__(self, folder):
        self.folder = folder

    def mount(self, *options):
        subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(self.folder)], check=True)

    def remount(self, options):
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)


@pytest.fixture
def disk(project):
    """A work folder of 2 MB; needs the right to mount."""
    folder = project.root / "psy-work"
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


BULKY = """\
from counting import seen
from psyrun import Param

pspace = Param(x=range(60))
pool_size = 2


def execute(x):
    seen(x)
    return {"y": bytes([x]) * 50_000}
"""


def test_full_disk_is_a_clear_error_and_costs_no_row(project, disk):
    project.task("example", BULKY)
    done = project.psy("run", code=1, timeout=60)
    assert_clean_words(done, "No space left")
    kept, failed = rows_on_disk(project)
    assert 10 < len(kept) < 60
    assert not failed
    assert project.status("example")["done"] == len(kept)
    again = project.psy("run", code=1, timeout=60)
    assert_clean_words(again, "No space left")
    assert kept <= rows_on_disk(project)[0]
    kept, _ = rows_on_disk(project)
    disk.remount("size=32m")
    start = len(project.rows_seen())
    project.psy("run")
    assert sorted(xs_seen(project, start)) == sorted(set(range(60)) - kept)
    assert project.result("example") == {"x": list(range(60)), "y": [bytes([x]) * 50_000 for x in range(60)]}


def test_disk_that_fills_up_before_the_merge_is_a_clear_error(project, disk):
    project.task("example", BULKY.replace("range(60)", "range(30)"))
    done = project.psy("run", code=1, timeout=60)
    assert_clean_words(done, "No space left")
    assert project.status("example")["done"] == 30
    assert project.status("example")["result"] is None
    assert not list(folder_of(project).glob(".result*"))
    disk.remount("size=32m")
    assert project.count("run") == 0
    assert len(project.result("example")["y"]) == 30


def test_disk_that_is_full_from_the_start_is_a_clear_error(project, disk):
    project.task("example", TASK.replace("ROWS", "6"))
    ballast = disk.folder / "ballast"
    with pytest.raises(OSError, match="No space left"), ballast.open("wb") as file:
        file.write(bytes(4_000_000))
    done = project.psy("run", code=1, timeout=60)
    assert_clean_words(done, "No space left")
    assert not project.rows_seen()
    ballast.unlink()
    assert project.count("run") == 6
    assert_right(project, 6)


def test_read_only_work_folder_is_a_clear_error(project, disk):
    fail_one(project)
    disk.remount("ro")
    before = snapshot(disk.folder)
    start = len(project.rows_seen())
    done = project.psy("run", code=1, timeout=60)
    assert_clean_words(done, "Read-only file system", "psy-work")
    assert project.status("example")["done"] == 5
    project.psy("plan")
    project.psy("errors")
    assert snapshot(disk.folder) == before
    assert project.rows_seen()[start:] == []


def test_up_to_date_project_on_a_read_only_disk_is_up_to_date(project, disk):
    project.task("example", TASK.replace("ROWS", "6"))
    project.psy("run")
    disk.remount("ro")
    done = project.psy("run", timeout=60)
    assert_clean_words(done, "up to date")


# ---------------------------------------------------------------------- two writers of one batch


def write_rival(project, suffix, name, rows=None):
    """Write a journal with other values for the rows of batch 0, as an orphan would have."""
    size = read_inputs(folder_of(project) / "in" / "0.pkl").size
    rows = range(size) if rows is None else rows
    files.add_journal(folder_of(project), 0, rows, {"y": [-1] * len(rows)}, run=name, suffix=suffix)


@pytest.mark.parametrize(("name", "suffix"), [("00000000", ".part"), ("zzzzzzzz", ".rows")])
def test_journal_of_an_orphan_changes_no_result(project, name, suffix):
    text = TASK.replace("ROWS", "12").replace("pool_size = 2", "max_jobs = 2")
    project.finish({"psy-tasks/task_example.py": text})
    result = folder_of(project) / "result.pkl"
    before = result.read_bytes()
    write_rival(project, suffix, name)
    status = project.status("example")
    assert (status["done"], status["total"], status["uptodate"]) == (12, 12, True)
    assert project.count("run") == 0
    assert result.read_bytes() == before
    result.unlink()
    assert project.count("run") == 0
    assert result.read_bytes() == before


@needs_proc
def test_orphan_and_successor_count_each_row_once(project, processes, wait_until):
    project.task(
        "example", TASK.replace("ROWS", "20").replace("pool_size = 2", "pool_size = 2\nmax_jobs = 1")
    )
    run = project.start("run")
    wait_until(lambda: len(rows_on_disk(project)[0]) >= 4)
    os.killpg(run.pid, signal.SIGINT)
    run.communicate(timeout=20)
    kept, _ = rows_on_disk(project)
    write_rival(project, ".part", "zzzzzzzz", range(10))
    status = project.status("example")
    assert status["done"] == len(kept | set(range(10)))
    start = len(project.rows_seen())
    project.psy("run")
    assert sorted(xs_seen(project, start)) == sorted(set(range(20)) - kept - set(range(10)))
    first = project.result("example")
    assert first["x"] == list(range(20))
    assert first["y"] == [2 * x if x in kept or x >= 10 else -1 for x in range(20)]
    (folder_of(project) / "result.pkl").unlink()
    assert project.count("run") == 0
    assert project.result("example") == first


def test_row_that_an_orphan_brings_in_after_it_failed_is_done(project):
    fail_one(project)
    inputs = map(read_inputs, folder_of(project).glob("in/*.pkl"))
    number, xs = next((each.batch, each.columns()["x"]) for each in inputs if 3 in each.columns()["x"])
    files.add_journal(folder_of(project), number, [xs.index(3)], {"y": [6]}, suffix=".part")
    status = project.status("example")
    assert (status["done"], status["failed"]) == (6, 0)
    assert project.count("run") == 0
    assert_right(project, 6)


# ---------------------------------------------------------------------- suspended


def pause(wait_until, seconds):
    """Let time pass that is itself what a test is about."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end)


@needs_proc
def test_suspended_psy_goes_on(project, processes, wait_until):
    project.task("example", GATED)
    run = project.start("run")
    wait_until(lambda: len(project.rows_seen()) == 2)
    os.kill(run.pid, signal.SIGSTOP)
    wait_until(lambda: "T" in processes.states())
    (project.root / "gate").touch()
    wait_until(lambda: len(rows_on_disk(project)[0]) == 20)
    os.kill(run.pid, signal.SIGCONT)
    _, err = run.communicate(timeout=20)
    assert run.returncode == 0, err
    assert_right(project, 20)
    assert len(project.rows_seen()) == 20


@needs_proc
@pytest.mark.slow
def test_time_for_which_everything_was_stopped_is_no_time_out(project, processes, wait_until):
    project.task("example", GATED + "\n\ntimeout = 3\n")
    run = project.start("run")
    wait_until(lambda: len(project.rows_seen()) == 2)
    processes.send(signal.SIGSTOP)
    wait_until(lambda: processes.states() == {"T"})
    pause(wait_until, 3.5)
    processes.send(signal.SIGCONT)
    pause(wait_until, 0.5)
    (project.root / "gate").touch()
    out, err = run.communicate(timeout=20)
    assert run.returncode == 0, out + err
    assert rows_on_disk(project) == (set(range(20)), set())
    assert_right(project, 20)
