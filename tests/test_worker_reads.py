"""The inputs of a worker are digested, written and synced before the blocks that count them."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from pathlib import Path

import pytest

import psyrun.worker.reads as worker_reads
from psyrun.disk import take_stamp
from psyrun.errors import FormatError
from psyrun.workdir.frame import INPUTS, Counts, encode_frame
from psyrun.workdir.journal import BatchKey, encode_block, read_blocks
from psyrun.workdir.reads import Input, pack_reads, read_reads
from psyrun.workdir.submissions import Submission, read_submission, write_submission
from psyrun.worker.chunks import Work
from psyrun.worker.journals import Journals
from psyrun.worker.reads import digest_reading

TIE = "00112233aabbccdd"
KEY = BatchKey(0, TIE)


class Child:
    """As much of a child as journals look at."""

    where, number, slot, inputs = None, 1, 0, 0


@pytest.fixture
def journals(tmp_path, monkeypatch):
    """Journals of a worker that is to evaluate ten rows of a batch, in the project root."""
    monkeypatch.chdir(tmp_path)
    for folder in ("work/out", "work/jobs", "work/reads"):
        (tmp_path / folder).mkdir(parents=True)
    submission = tmp_path / "work/jobs/p0.json"
    submission.touch()
    return Journals(submission, "abcdefgh", [Work(batch=KEY, rows=range(10))], {}, "c0de")


def input_of(path, number):
    found = Path(path).stat()
    return Input(1, number, "file", path, found.st_size, found.st_mtime_ns)


def block(row, *inputs):
    sections = {INPUTS: pack_reads(inputs)} if inputs else {}
    counts = Counts(child=1, inputs=len(inputs))
    return encode_block([row], {"y": [row]}, counts=counts, sections=sections)


def rows_in(folder):
    blocks = (each for path in folder.glob("out/0-*") for each in read_blocks(path, bytes.fromhex(TIE)))
    return [row for each in blocks for row in each.rows]


def test_inputs_leave_the_blocks_for_a_file_of_their_own(tmp_path, journals):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    journals.block(Child(), KEY, [0], block(0, input_of("a.txt", 1), input_of("b.txt", 2)))
    journals.block(Child(), KEY, [1], block(1))
    journals.close()
    found = read_reads(tmp_path / "work/reads/abcdefgh.reads")
    assert (found[0].kind, found[0].path) == ("code", "c0de")
    assert [(each.path, each.number, each.digest) for each in found[1:]] == [
        (name, number, hashlib.sha256(name[:1].encode()).hexdigest())
        for number, name in enumerate(("a.txt", "b.txt"), 1)
    ]
    [journal] = (tmp_path / "work/out").glob("0-*")
    blocks = list(read_blocks(journal, bytes.fromhex(TIE)))
    assert [INPUTS in each.sections for each in blocks] == [False, False]


def test_blocks_wait_for_the_inputs_before_them_and_keep_their_order(tmp_path, journals, monkeypatch):
    go_on = threading.Event()
    real = digest_reading

    def digest_late(*arguments):
        assert go_on.wait(20)
        return real(*arguments)

    monkeypatch.setattr(worker_reads, "digest_reading", digest_late)
    (tmp_path / "a.txt").write_text("a")
    journals.block(Child(), KEY, [0], block(0))
    journals.block(Child(), KEY, [1], block(1, input_of("a.txt", 1)))
    journals.block(Child(), KEY, [2], block(2))
    assert rows_in(tmp_path / "work") == [0]
    assert read_reads(tmp_path / "work/reads/abcdefgh.reads") is None
    go_on.set()
    journals.close()
    assert rows_in(tmp_path / "work") == [0, 1, 2]
    assert len(read_reads(tmp_path / "work/reads/abcdefgh.reads")) == 2


def test_inputs_are_synced_before_the_journals_and_their_name_once(tmp_path, journals, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(fd):
        synced.append(Path(f"/proc/self/fd/{fd}").resolve().name)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    (tmp_path / "a.txt").write_text("a")
    for row in range(3):
        inputs = [input_of("a.txt", row + 1)] if row < 2 else []
        journals.block(Child(), KEY, [row], block(row, *inputs))
        journals._reads.drain()
        journals._sync()
    name = f"0-{TIE}-abcdefgh.part"
    assert synced == ["abcdefgh.reads", "reads", name, "out", "abcdefgh.reads", name, name]
    journals.close()


def test_block_with_inputs_does_not_come_between_the_syncs_of_inputs_and_journals(
    tmp_path, journals, monkeypatch
):
    begun, go_on = threading.Event(), threading.Event()
    real = os.fsync

    def fsync(fd):
        if Path(f"/proc/self/fd/{fd}").resolve().name.endswith(".part"):
            begun.set()
            assert go_on.wait(20)
        real(fd)

    (tmp_path / "a.txt").write_text("a")
    journals.block(Child(), KEY, [0], block(0, input_of("a.txt", 1)))
    journals._reads.drain()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        thread = threading.Thread(target=journals._sync)
        thread.start()
        assert begun.wait(20)
        journals.block(Child(), KEY, [1], block(1, input_of("a.txt", 2)))
        journals.block(Child(), KEY, [2], block(2))
        journals._reads._thread.join(0.2)
        assert rows_in(tmp_path / "work") == [0]
        assert len(read_reads(tmp_path / "work/reads/abcdefgh.reads")) == 2
        go_on.set()
        thread.join()
    journals.close()
    assert rows_in(tmp_path / "work") == [0, 1, 2]
    assert len(read_reads(tmp_path / "work/reads/abcdefgh.reads")) == 3


def test_inputs_that_cannot_be_written_end_the_worker_without_their_blocks(tmp_path, journals, monkeypatch):
    def write(fd, data):
        raise OSError(28, "No space left on device")

    (tmp_path / "a.txt").write_text("a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        journals.block(Child(), KEY, [0], block(0, input_of("a.txt", 1)))
        journals._reads.drain()
    with pytest.raises(OSError, match="No space left") as caught:
        journals.block(Child(), KEY, [1], block(1))
    assert caught.value.filename.endswith("abcdefgh.reads")
    with pytest.raises(OSError, match="No space left"):
        journals.close()
    assert rows_in(tmp_path / "work") == []


def test_failure_of_a_dead_child_counts_all_inputs_that_are_known_of_it(tmp_path, journals):
    class Marker:
        logs = (0,)

    child = Child()
    child.marker, child.log_size = Marker(), lambda: 0
    (tmp_path / "a.txt").write_text("a")
    journals.block(child, KEY, [0], block(0, input_of("a.txt", 1)))
    journals.fail(child, KEY, 1, "exit 1", 0.1)
    journals.close()
    [journal] = (tmp_path / "work/out").glob("0-*")
    assert [each.header.counts.inputs for each in read_blocks(journal, bytes.fromhex(TIE))] == [1, 1]


def test_file_that_changed_since_it_was_read_has_no_digest(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a")
    size, mtime = path.stat().st_size, path.stat().st_mtime_ns
    assert digest_reading(str(path), size, mtime)[-1] == hashlib.sha256(b"a").hexdigest()
    assert digest_reading(str(path), size + 1, mtime)[-1] is None
    os.utime(path, ns=(0, mtime + 1))
    assert digest_reading(str(path), size, mtime)[-1] is None
    path.unlink()
    assert digest_reading(str(path), size, mtime)[-1] is None


@pytest.mark.parametrize("edit", ["no edit", "content", "content and mtime set back", "another file"])
def test_file_with_the_stamp_of_its_digest_is_not_read_again(tmp_path, monkeypatch, edit):
    path, other = tmp_path / "a.txt", tmp_path / "b.txt"
    path.write_text("a")
    size, mtime = path.stat().st_size, path.stat().st_mtime_ns
    monkeypatch.setattr(time, "time_ns", lambda: mtime + 2_000_000_001)
    ctime, inode, digest = digest_reading(str(path), size, mtime)
    if edit.startswith("content"):
        path.write_text("b")
    if edit == "another file":
        other.write_text("b")
        other.replace(path)
    if edit == "content and mtime set back":
        os.utime(path, ns=(0, mtime))
    read = Input(1, 1, "file", "a.txt", size, mtime, ctime, inode, digest)
    assert (take_stamp(path) == read.stamp) is (edit == "no edit")


def test_file_that_changed_just_before_its_digest_has_no_stamp(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("a")
    size, mtime = path.stat().st_size, path.stat().st_mtime_ns
    monkeypatch.setattr(time, "time_ns", lambda: mtime + 1_999_999_999)
    assert digest_reading(str(path), size, mtime)[:2] == (None, None)


def test_large_files_count_by_size_and_time(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("abc")
    found = path.stat()
    assert digest_reading(str(path), found.st_size, found.st_mtime_ns)[-1]
    monkeypatch.setattr(worker_reads, "_LARGEST", 2)
    assert digest_reading(str(path), found.st_size, found.st_mtime_ns)[-1] is None


def test_equal_files_are_digested_once(tmp_path, journals, monkeypatch):
    seen = []

    def digest(*arguments):
        seen.append(arguments)
        return None, None, None

    monkeypatch.setattr(worker_reads, "digest_reading", digest)
    (tmp_path / "a.txt").write_text("a")
    for row in range(3):
        journals.block(Child(), KEY, [row], block(row, input_of("a.txt", row + 1)))
    journals.close()
    assert len(seen) == 1


def test_inputs_of_an_older_psyrun_are_refused_by_name(tmp_path):
    path = tmp_path / "abcdefgh.reads"
    path.write_bytes(encode_frame({8: b"[]"}, Counts()))
    with pytest.raises(FormatError, match=r"abcdefgh\.reads: of an older psyrun; remove it"):
        read_reads(path)


def test_submission_without_settings_of_inputs_is_of_a_task_that_has_none(tmp_path):
    submission = Submission(
        token="p0",
        task="t",
        code="c",
        scheduler="Local",
        batches=(),
        retry=False,
        untracked=("a/*",),
        stateless=True,
    )
    path = write_submission(tmp_path, submission)
    assert read_submission(path) == submission
    content = json.loads(path.read_text())
    for name in ("untracked", "stateless", "track_inputs"):
        del content[name]
    path.write_text(json.dumps(content))
    found = read_submission(path)
    assert (found.untracked, found.stateless, found.track_inputs) == ((), False, True)
