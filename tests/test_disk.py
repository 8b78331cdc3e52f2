"""What is written reaches the disk before its name does, the receipt before the result; errors name files."""

import errno
import os
from pathlib import Path

import pytest

from psyrun.cli import commands as cli
from psyrun.disk import make_folders, naming, open_file, read_file, write_atomic
from psyrun.errors import explain
from psyrun.source import SourceCache
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


# ---------------------------------------------------------------------- errors that name their file


ERRNOS = [getattr(errno, name) for name in ("EIO", "ESTALE", "EDQUOT", "ENOSPC", "EROFS", "EACCES")]


@pytest.fixture(params=ERRNOS, ids=errno.errorcode.get)
def number(request):
    return request.param


def assert_named(caught, place):
    """The error says task, file, reason and cure."""
    words = os.strerror(caught.value.errno)
    before, cure = explain(caught.value, "fig1").split(f": {words}; ")
    assert before == f"fig1: {place}"
    assert cure


class BrokenFile:
    """A file that was created, of which one call fails."""

    def __init__(self, path, call, number):
        self.call, self.number = call, number
        path.touch()

    def __enter__(self):
        return self

    def write(self, data):
        if self.call == "write":
            raise OSError(self.number, os.strerror(self.number))

    def __exit__(self, *error):
        if self.call == "close":
            raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("call", ["write", "close"])
def test_write_that_fails_names_the_file_and_the_cure(tmp_path, monkeypatch, number, call):
    path = tmp_path / "plan.json"
    monkeypatch.setattr(Path, "open", lambda temporary, mode: BrokenFile(temporary, call, number))
    with pytest.raises(OSError) as caught:  # noqa: PT011
        write_atomic(path, b"new")
    assert_named(caught, path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("owner", "call"), [(Path, "open"), (os, "fsync"), (os, "replace")])
def test_file_that_can_not_be_replaced_is_named_with_the_cure(tmp_path, monkeypatch, number, owner, call):
    path = tmp_path / "plan.json"
    path.write_bytes(b"old")

    def fail(what, *more):
        names = {"open": (str(what),), "fsync": (), "replace": (str(what), None, *map(str, more))}[call]
        raise OSError(number, os.strerror(number), *names)

    with monkeypatch.context() as context:
        context.setattr(owner, call, fail)
        with pytest.raises(OSError) as caught:  # noqa: PT011
            write_atomic(path, b"new")
    assert_named(caught, path)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"old"]


def test_folder_that_can_not_be_synced_is_named_with_the_cure(tmp_path, monkeypatch, number):
    def fail(descriptor):
        if os.path.samestat(os.fstat(descriptor), tmp_path.stat()):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        write_atomic(tmp_path / "plan.json", b"new")
    assert_named(caught, tmp_path)


def test_read_that_fails_names_the_file(tmp_path, monkeypatch):
    path = tmp_path / "plan.json"
    path.write_bytes(b"{}")
    with pytest.raises(OSError, match=r"plan\.json"), naming(path):
        raise OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="other"), naming(path):
        raise OSError(errno.EIO, "Input/output error", "other")
    with pytest.raises(OSError, match=r"^no error of the system$"), naming(path):
        raise OSError("no error of the system")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, make):
    path = tmp_path / "plan.json"
    make(path)
    for read in (read_file, open_file):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            read(path)
        assert explain(caught.value).startswith(f"{path}: ")
        assert "something else is in its place: move it away" in explain(caught.value)
    SourceCache.load(path)


def test_regular_file_is_read_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 5000)
    assert read_file(path) == bytes(range(256)) * 5000
    with open_file(path) as file:
        file.seek(3)
        assert file.read(2) == b"\x03\x04"
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_file(tmp_path / "nothing")
