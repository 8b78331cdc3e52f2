"""What is written reaches the disk before its name does, and the receipt before the result."""

import os
from pathlib import Path

import pytest

from psyrun.cli import commands as cli
from psyrun.disk import make_folders, write_atomic
from psyrun.workdir.inputs import create_inputs
from psyrun.workdir.journal import BatchKey, JournalWriter, encode_block

KEY = BatchKey(0, "00112233aabbccdd")


@pytest.fixture
def events(monkeypatch):
    """What is synced and renamed, in order, each by the number that the file keeps whatever its name."""
    happened = []

    def observe(owner, name, number):
        real = getattr(owner, name)

        def call(what, *more):
            happened.append((name, number(what)))
            return real(what, *more)

        monkeypatch.setattr(owner, name, call)

    observe(os, "fsync", lambda descriptor: os.fstat(descriptor).st_ino)
    for name in ("replace", "rename"):
        observe(Path, name, lambda path: path.stat().st_ino)
    return happened


def test_file_is_synced_then_renamed_then_its_folder_is_synced(tmp_path, events):
    path = tmp_path / "file"
    write_atomic(path, b"content")
    number, folder = path.stat().st_ino, tmp_path.stat().st_ino
    assert events == [("fsync", number), ("replace", number), ("fsync", folder)]


def test_input_files_are_synced_and_their_folder_once(tmp_path, events):
    batches = [({"task": "a", "size": 1}, b"") for _ in range(100)]
    create_inputs(tmp_path, 0, batches)
    numbers = {path.stat().st_ino for path in tmp_path.iterdir()}
    assert sorted(events[:-1]) == sorted(("fsync", number) for number in numbers)
    assert events[-1] == ("fsync", tmp_path.stat().st_ino)


def test_new_folders_are_synced_in_their_parents(tmp_path, events):
    make_folders(tmp_path / "a" / "b", tmp_path / "a" / "c")
    numbers = {path.stat().st_ino for path in (tmp_path, tmp_path / "a")}
    assert set(events) == {("fsync", number) for number in numbers}
    events.clear()
    make_folders(tmp_path / "a" / "b")
    assert events == []


def test_journal_is_synced_then_renamed(tmp_path, events):
    writer = JournalWriter(tmp_path, KEY, "aaaaaaaa").open()
    writer.append(encode_block([0], {"y": [1]}), b"{}")
    writer.close()
    (closed,) = tmp_path.iterdir()
    number = closed.stat().st_ino
    assert events == [("fsync", number), ("rename", number)]


def test_receipt_is_there_before_the_result(project, monkeypatch):
    """A result without a receipt would be taken for somebody else's, and not be overwritten."""
    project.task(
        "t", "from psyrun import Param\npspace = Param(x=[1])\ndef execute(x):\n    return {'y': x}\n"
    )
    monkeypatch.chdir(project.root)
    real, names = Path.replace, []

    def replace(path, target):
        names.append(Path(target).name)
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    assert cli.main(["run"]) == 0
    written = [name for name in names if name.startswith("result.pkl")]
    assert written == ["result.pkl.receipt", "result.pkl", "result.pkl.receipt"]


def test_journal_that_once_could_not_be_synced_is_never_called_closed(tmp_path, monkeypatch):
    """Asked again, the system says that all is well: it has forgotten what it could not write."""
    writer = JournalWriter(tmp_path, KEY, "aaaaaaaa").open()
    writer.append(encode_block([0], {"y": [1]}), b"{}")

    def fail(descriptor):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as context:
        context.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output"):
            writer.sync()
    with pytest.raises(OSError, match="Input/output"):
        writer.close()
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
