"""Receipts of rows: seconds, memory, place, and the text that a row printed; they outlive the journals."""

from __future__ import annotations

import json
import math
import os
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import files
from psyrun.errors import ExecuteError
from psyrun.workdir.frame import RECEIPTS
from psyrun.workdir.journal import BatchKey, JournalWriter, encode_block, read_blocks
from psyrun.workdir.receipts import read_receipt
from psyrun.workdir.records import find_receipts, list_journals, read_first_records
from psyrun.workdir.row_receipts import (
    ReceiptReader,
    Receipts,
    RowReceipt,
    pack_receipts,
    read_receipts,
    unpack_receipts,
    write_receipts,
)
from psyrun.worker import journals as worker_journals
from psyrun.worker.chunks import Work
from psyrun.worker.journals import Journals

TIE = "00112233aabbccdd"
KEY = BatchKey(0, TIE)
RECEIPT = st.builds(
    RowReceipt,
    seconds=st.floats(0, 1e6),
    memory=st.integers(0, 2**50),
    log=st.integers(0, 2**50),
    log_end=st.integers(0, 2**50),
    inputs=st.integers(0, 2**32 - 1),
    reads=st.integers(0, 2**32 - 1),
    origin=st.integers(0, 2**32 - 1),
)


def receipts_of(project, task):
    """(receipt, place) of each row of the result."""
    folder = project.root / "psy-work" / task
    process = read_receipt(folder / "result.pkl.receipt")["process"]
    return list(read_receipts(folder / "receipts.rows", process).rows())


def text_of(project, task, row):
    """What a row of the result printed."""
    receipt, place = receipts_of(project, task)[row]
    log = project.root / "psy-work" / task / "log" / f"{place['run']}-{place['slot']}.log"
    return log.read_text()[receipt.log : receipt.log_end] if log.exists() else ""


# ---------------------------------------------------------------------- packing


@settings(deadline=None)
@given(runs=st.lists(st.tuples(st.integers(1, 2**32 - 1), RECEIPT)))
def test_receipts_come_back(runs):
    assert list(unpack_receipts(pack_receipts(runs))) == runs


@st.composite
def written(draw):
    """Journals of a batch of 8 rows, whose receipts name journal and row in their seconds."""
    found = []
    for journal in range(draw(st.integers(1, 3))):
        left, blocks = draw(st.permutations(range(8))), []
        while left:
            n = draw(st.integers(1, 5))
            part, left = sorted(left[:n]), left[n:]
            failed = draw(st.sets(st.sampled_from(part)))
            blocks.append(([row for row in part if row not in failed], sorted(failed)))
        found.append((journal, blocks[: draw(st.integers(0, len(blocks)))]))
    return found


@settings(deadline=None)
@given(journals=written(), cuts=st.lists(st.tuples(st.integers(0, 7), st.integers(1, 8)), max_size=4))
def test_each_row_has_the_receipt_of_its_first_record_in_the_order_of_the_plan(
    tmp_path_factory, journals, cuts
):
    folder = tmp_path_factory.mktemp("out")
    expected, failures = {}, {}
    for journal, blocks in journals:
        data = b""
        for rows, failed in blocks:
            seconds = [100 * journal + row for row in [*rows, *failed]]
            receipts = pack_receipts((1, RowReceipt(s)) for s in seconds)
            block = encode_block(
                rows,
                {"y": rows},
                [files_failure(row) for row in failed],
                sections={RECEIPTS: receipts},
            )
            where = json.dumps({"host": f"h{journal}"}).encode()
            data += files.seal(block, tie=TIE, offset=len(data), where=None if data else where)
            for row in rows:
                expected.setdefault(row, (100 * journal + row, f"h{journal}"))
            failures |= {row: (100 * journal + row, f"h{journal}") for row in failed}
        (folder / f"0-{TIE}-{journal:08}.rows").write_bytes(data)
    reader = ReceiptReader()
    for each in read_first_records(list_journals(folder)[KEY], rows=8):
        reader.add(0, *each)
    segments = [(0, range(first, min(8, first + n))) for first, n in cuts]
    found = [
        (None if math.isnan(receipt.seconds) else (receipt.seconds, place["host"]))
        for receipt, place in reader.in_order(segments).rows()
    ]
    wanted = {**failures, **expected}  # Of a row without values, that of its last failure.
    assert found == [wanted.get(row) for _, rows in segments for row in rows]
    some = [row for _, rows in segments for row in rows][::2]
    alone = find_receipts(list_journals(folder).get(KEY, ()), some, 8)
    assert [(receipt.seconds, place["host"]) if place else None for receipt, place in alone] == [
        wanted.get(row) for row in some
    ]


def files_failure(row):
    from psyrun.workdir.journal import Failure

    return Failure(row, "no")


def test_receipts_of_another_process_json_are_not_known(tmp_path):
    path = tmp_path / "receipts.rows"
    receipts = Receipts([{"host": "a"}], [(3, RowReceipt(1.0, origin=1))])
    write_receipts(path, receipts, "ab" * 32)
    assert [place for _, place in read_receipts(path, "ab" * 32).rows()] == [{"host": "a"}] * 3
    assert list(read_receipts(path, "cd" * 32).rows()) == []
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        assert list(read_receipts(path, "ab" * 32).rows()) == []
    path.unlink()
    assert list(read_receipts(path, "ab" * 32).rows()) == []


# ---------------------------------------------------------------------- what a run leaves

MEASURED = """\
import time
import numpy
from psyrun import Param
pspace = Param(x=range(6))
pool_size = 2
max_jobs = 1


def execute(x):
    print("row", x, "begins")
    if x in (2, 4):
        time.sleep(0.1 * x)
    if x == 4:
        numpy.ones(20_000_000)
    return {"y": x}
"""


def test_rows_have_seconds_memory_and_place(project):
    project.task("t", MEASURED)
    project.psy("run")
    found = receipts_of(project, "t")
    assert project.result("t")["x"] == [0, 1, 2, 3, 4, 5]
    seconds = [receipt.seconds for receipt, _ in found]
    assert 0.2 <= seconds[2] < 0.4 <= seconds[4] < 5
    assert all(0 <= seconds[row] < 0.2 for row in (0, 1, 3, 5))
    memory = [receipt.memory for receipt, _ in found]
    assert memory[4] > 160_000_000 > memory[2] > 1_000_000
    system = os.uname()
    for _, place in found:
        assert (place["host"], place["machine"]) == (system.nodename, system.machine)
        assert place["packages"]["numpy"] == np.__version__
        assert {"psyrun", "numpy"} <= place["packages"].keys()
        assert (place["commit"], place["clean"]) == (None, None)


def test_memory_of_a_row_is_not_that_of_a_greedy_row_before(project):
    text = (
        "import numpy, time\nfrom psyrun import Param\npspace = Param(x=[30_000_000, 1, 1])\npool_size = 1\n"
    )
    text += "def execute(x):\n    numpy.ones(x)\n    time.sleep(0.02)\n    return {'y': 1}\n"
    project.task("t", text)
    project.psy("run")
    memory = [receipt.memory for receipt, _ in receipts_of(project, "t")]
    assert memory[0] > 240_000_000
    assert all(0 < each < 200_000_000 for each in memory[1:])


def test_commit_and_cleanliness_of_the_work_tree_are_recorded(project):
    project.task("t", MEASURED)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(project.root)]
    for argv in (["init", "-q"], ["add", "psy-tasks"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *argv], check=True)
    said = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    project.psy("run")
    places = [place for _, place in receipts_of(project, "t")]
    assert {(place["commit"], place["clean"]) for place in places} == {(said.stdout.strip(), True)}
    project.edit("psy-tasks/task_t.py", "range(6)", "range(7)")
    project.psy("run")
    assert [place["clean"] for _, place in receipts_of(project, "t")] == [True] * 6 + [False]
    assert (
        "psy-work"
        not in subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, text=True, check=True
        ).stdout
    )


def test_text_of_each_row_is_found_also_of_rows_that_share_a_process_or_die(project):
    body = """\
import os, sys, time
from psyrun import Param
pspace = Param(x=range(12))
pool_size = 3
max_jobs = 2


def execute(x):
    sys.stdout.write(f"<{x}")
    time.sleep(0.01 if x % 2 else 0)
    print(f"{x}>", file=sys.stderr)
    os.system(f"echo program {x}")
    if x == 7 and not os.path.exists("../again"):
        os._exit(3)
    return {"y": x}
"""
    project.task("t", body)
    project.psy("run", code=1)
    folder = project.root / "psy-work/t"
    texts = {}
    for journals in list_journals(folder / "out").values():
        for journal in journals:
            for block in read_blocks(journal.path, journal.tie):
                rows = [*block.rows, *(failure.row for failure in block.failures)]
                runs = unpack_receipts(block.sections[RECEIPTS])
                assert sum(n for n, _ in runs) == len(rows)
    (project.root / "again").touch()
    project.psy("run")
    for row, x in enumerate(project.result("t")["x"]):
        texts[x] = text_of(project, "t", row)
    for x, text in texts.items():
        assert f"program {x}\n" in text, x
        if x % 2:  # Faster rows share the text of their neighbours.
            assert f"<{x}" in text


def test_receipts_outlive_the_journals(project):
    project.task("t", MEASURED)
    project.psy("run")
    before = receipts_of(project, "t")
    for path in project.root.glob("psy-work/t/out/*"):
        path.unlink()
    project.edit("psy-tasks/task_t.py", "range(6)", "range(1, 7)")
    assert project.psy("run").stdout.count("1 of 6 rows to evaluate") == 1
    after = receipts_of(project, "t")
    assert [place["host"] for _, place in after] == [place["host"] for _, place in before]
    assert [receipt.seconds for receipt, _ in after[:5]] == [receipt.seconds for receipt, _ in before[1:]]
    # Without receipts.rows, nothing is known of the rows that come from the result.
    (project.root / "psy-work/t/receipts.rows").unlink()
    for path in project.root.glob("psy-work/t/out/*"):
        path.unlink()
    project.edit("psy-tasks/task_t.py", "range(1, 7)", "range(1, 8)")
    project.psy("run")
    last = receipts_of(project, "t")
    assert [math.isnan(receipt.seconds) for receipt, _ in last] == [True] * 6 + [False]
    assert [place for _, place in last[:6]] == [{}] * 6


def test_rows_of_microseconds_cost_few_bytes_of_receipts(project):
    text = "from psyrun import Param\npspace = Param(x=range(20_000))\nmax_jobs = 1\npool_size = 1\n"
    project.task("t", text + "def execute(x):\n    return {'y': x}\n")
    project.psy("run")
    assert (project.root / "psy-work/t/receipts.rows").stat().st_size < 40_000
    found = receipts_of(project, "t")
    assert len(found) == 20_000
    assert all(0 < receipt.seconds < 5 for receipt, _ in found)
    assert all(receipt.memory == 0 for receipt, _ in found if receipt.seconds < 0.005)


# ---------------------------------------------------------------------- logs, cleaning


def test_worker_leaves_no_empty_log(project):
    text = "from psyrun import Param\npspace = Param(x=range(4))\ndef execute(x):\n    return {'y': x}\n"
    project.task("t", text)
    project.psy("run")
    logs = [path for path in project.root.glob("psy-work/t/log/*") if "-" in path.name]
    assert logs == []


def test_work_folder_is_ignored_by_version_control_and_a_folder_of_the_user_is_left_alone(project):
    text = "from psyrun import Param\npspace = Param(x=range(4))\ndef execute(x):\n    return {'y': x}\n"
    project.task("t", text)
    project.write("mine/notes.txt", "mine")
    project.task("u", f"workdir = 'mine'\n{text}")
    project.psy("run")
    assert (project.root / "psy-work/.gitignore").read_text() == "*\n"
    assert not (project.root / "mine/.gitignore").exists()


def test_clean_stale_removes_what_repeated_failures_left_and_no_failure(project):
    text = "from psyrun import Param\npspace = Param(x=range(4))\nmax_jobs = 1\npool_size = 1\n"
    text += "def execute(x):\n    print('try', x)\n    return {'y': 1 / (x - 2) / (x - 3)}\n"
    project.task("t", text)
    for _ in range(4):
        project.psy("run", code=1)
    folder = project.root / "psy-work/t"
    before = project.status("t")
    errors = project.psy("errors", "t").stdout
    assert (len(list(folder.glob("out/*"))), before["failed"], before["done"]) == (4, 2, 2)
    project.psy("clean", "--stale", "--yes")
    assert len(list(folder.glob("out/*"))) == 2
    runs = {path.name.split("-")[2].partition(".")[0] for path in folder.glob("out/*")}
    logs = {path.stem: path.read_text() for path in folder.glob("log/*")}
    assert len(logs) == 4  # of a worker and its child, for each journal
    assert all(
        name.partition("-")[0] in runs or any(run in text for run in runs) for name, text in logs.items()
    )
    assert project.status("t") == before
    assert project.psy("errors", "t").stdout == errors


def test_clean_stale_leaves_young_input_files(project):
    text = "from psyrun import Param\npspace = Param(x=range(4))\nmax_jobs = 1\n"
    project.task("t", text + "def execute(x):\n    return {'y': x}\n")
    project.psy("run")
    project.edit("psy-tasks/task_t.py", "'y': x", "'y': -x")
    project.psy("run", "--yes")
    folder = project.root / "psy-work/t/in"
    assert len(list(folder.iterdir())) == 2
    project.psy("clean", "--stale", "--yes")
    assert len(list(folder.iterdir())) == 2  # Another psy may be planning.
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    project.psy("clean", "--stale", "--yes")
    assert len(list(folder.iterdir())) == 1


# ---------------------------------------------------------------------- the journals of a worker


class Child:
    """As much of a child as journals look at."""

    where, number, slot = None, 1, 0


@pytest.fixture
def opened(tmp_path):
    """Journals of a worker that is to evaluate three rows of a batch."""
    for folder in ("out", "jobs"):
        (tmp_path / folder).mkdir()
    submission = tmp_path / "jobs/p0.json"
    submission.touch()
    work = [Work(batch=KEY, rows=range(3))]
    return Journals(submission, "abcdefgh", work, {}, "c0de")


def block(row):
    return encode_block([row], {"y": [row]})


def test_worker_whose_submission_is_gone_opens_no_journal(tmp_path, opened):
    (tmp_path / "jobs/p0.json").unlink()
    with pytest.raises(ExecuteError, match=r"p0\.json: gone"):
        opened.block(Child(), KEY, [0], block(0))
    assert list((tmp_path / "out").iterdir()) == []


def test_appending_never_waits_for_a_disk_that_syncs_slowly(opened, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def fsync(fd):
        begun.set()
        assert go_on.wait(20)

    monkeypatch.setattr(worker_journals, "_PAUSE_SECONDS", 0.001)
    opened.block(Child(), KEY, [0], block(0))
    ended = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        thread = threading.Thread(target=opened.sync_until, args=(ended,))
        thread.start()
        assert begun.wait(20)
        for row in (1, 2):
            opened.block(Child(), KEY, [row], block(row))  # would wait for ever
        assert opened.left == 0
        go_on.set()
        ended.set()
        thread.join()
    opened.close()


def test_rows_are_synced_and_then_the_folder_that_names_their_journal(tmp_path, opened, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(fd):
        synced.append(Path(f"/proc/self/fd/{fd}").resolve().name)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    opened.block(Child(), KEY, [0], block(0))
    opened._sync()
    name = f"0-{TIE}-abcdefgh"
    assert synced == [f"{name}.part", "out"]
    opened._sync()
    assert len(synced) == 2
    opened.block(Child(), KEY, [1], block(1))
    opened._sync()
    assert synced[2:] == [f"{name}.part"]
    opened.block(Child(), KEY, [2], block(2))
    opened._sync()
    assert synced[3:] == [f"{name}.part", "out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{name}.rows"]


def test_error_of_the_syncing_thread_is_that_of_the_next_append(opened, monkeypatch):
    def fsync(fd):
        raise OSError(5, "Input/output error")

    opened.block(Child(), KEY, [0], block(0))
    with monkeypatch.context() as patch:
        patch.setattr(worker_journals, "_PAUSE_SECONDS", 0.001)
        patch.setattr(os, "fsync", fsync)
        opened.sync_until(threading.Event())
    with pytest.raises(OSError, match="Input/output") as caught:
        opened.block(Child(), KEY, [1], block(1))
    assert caught.value.filename.endswith(f"0-{TIE}-abcdefgh.part")


def test_pause_between_syncs_grows_with_what_a_sync_costs(opened, monkeypatch):
    pauses = []

    class Ended:
        def wait(self, seconds):
            pauses.append(seconds)
            return len(pauses) == 3

    now = iter([0.0, 0.01, 10.0, 12.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    monkeypatch.setattr(opened, "_sync", lambda: None)
    opened.sync_until(Ended())
    assert pauses == [1.0, 1.0, 40.0]


def test_journal_writer_is_dirty_until_it_is_synced(tmp_path):
    writer = JournalWriter(tmp_path, KEY, "abcdefgh").open()
    assert not writer.dirty
    writer.append(block(0), b"{}")
    assert writer.dirty
    writer.sync()
    assert not writer.dirty
    writer.close()
