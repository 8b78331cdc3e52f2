"""The power goes while psy runs: the next run mends it, and evaluates hardly a finished row again.

Here a seeded sample; `make soak` cuts more often.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from disks import MODELS, restore
from powercut import Cut, Report, cut_power, read_records, record

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")

ROWS, CUTS, SEED = 1200, 6, 3


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """What two runs did."""
    return record(tmp_path_factory.mktemp("traced"), ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_power_cut_costs_no_row_that_is_older_than_a_second(trace, model, tmp_path, forks):
    report = Report()
    for number in range(CUTS):
        cut_power(trace, Cut(model, SEED, number), tmp_path / str(number), forks, report)
    assert report.cuts == CUTS
    assert not report.faults, "\n".join([str(report), *report.said])


# ---------------------------------------------------------------------- the disks themselves


WRITTEN = [("mkdir", "out"), ("create", "out/a", 1), ("write", 1, 0, b"12345678", 0)]
SYNCED = [("syncing", "file", 1), ("synced", "file", 1)]
FOLDERS_SYNCED = [(when, "folder", name) for name in ("out", ".") for when in ("syncing", "synced")]


@pytest.fixture
def survivals(tmp_path):
    """Return what may be on disk after some operations: the content of out/a, None where it is not there."""

    def find(operations, model):
        records = [(operation, float(i), *rest) for i, (operation, *rest) in enumerate(operations)]
        found = set()
        for number in range(60):
            folder = tmp_path / f"{len(operations)} {model} {number}"
            folder.mkdir()
            restore(records, folder, model=model, seed=str(number))
            path = folder / "out" / "a"
            found.add(path.read_bytes() if path.exists() else None)
        return found

    return find


@pytest.mark.parametrize("model", MODELS)
def test_disk_may_lose_what_was_not_synced(survivals, model):
    assert survivals(WRITTEN, model) >= {None, b""}


def test_strict_disk_may_lose_the_name_of_a_synced_file(survivals):
    assert survivals(WRITTEN + SYNCED, "strict") == {None, b"12345678"}
    assert survivals(WRITTEN + SYNCED, "ordered") == {b"12345678"}


@pytest.mark.parametrize("model", MODELS)
def test_disk_keeps_what_was_synced_with_its_folders(survivals, model):
    assert survivals(WRITTEN + SYNCED + FOLDERS_SYNCED, model) == {b"12345678"}


@pytest.mark.parametrize("model", MODELS)
def test_disk_may_hold_any_part_of_what_was_appended_after_a_sync(survivals, model):
    more = [("write", 1, 8, b"9", 0), ("write", 1, 9, b"0123", 0)]
    found = survivals(WRITTEN + SYNCED + FOLDERS_SYNCED + more, model)
    assert found == {b"12345678"} if model == "strict" else found > {b"12345678", b"1234567890123"}


def test_strict_disk_holds_the_old_file_or_the_new_one_after_a_rename(survivals):
    new = [("create", "out/b", 2), ("write", 2, 0, b"new", 0), ("syncing", "file", 2), ("synced", "file", 2)]
    before = WRITTEN + SYNCED + FOLDERS_SYNCED + new
    assert survivals([*before, ("rename", "out/b", "out/a")], "strict") == {b"12345678", b"new"}
    assert survivals([*before, ("rename", "out/b", "out/a"), *FOLDERS_SYNCED], "strict") == {b"new"}


# ---------------------------------------------------------------------- the trace

OPERATIONS = """\
import io, os, pathlib, shutil, sys
root = pathlib.Path(sys.argv[1])
folder = root / "work" / "out"
folder.mkdir(parents=True)
with (folder / "new.tmp").open("xb") as file:
    file.write(b"first")
    file.flush()
    os.fsync(file.fileno())
    file.write(b", second")
(folder / "new.tmp").replace(folder / "new")
fd = os.open(folder / "journal.part", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.write(fd, b"12345")
os.writev(fd, [b"67", b"8"])
os.ftruncate(fd, 7)
os.write(fd, b"90")
os.close(fd)
os.link(folder / "journal.part", folder / "journal.rows")
os.unlink(folder / "journal.part")
(folder / "text").write_text("a line\\n")
with open(folder / "text", "a") as file:
    print("another", file=file)
shutil.copy(folder / "text", root / "work" / "copy")
os.truncate(folder / "text", 3)
os.utime(folder / "text", ns=(0, 12345678))
(root / "gone").mkdir()
(root / "gone" / "file").touch()
shutil.rmtree(root / "gone")
print("standard output is a pipe")
for each in (folder, root):
    fd = os.open(each, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
"""


def test_trace_leads_to_the_files_that_are_there(tmp_path):
    root, restored = tmp_path / "root", tmp_path / "restored"
    root.mkdir()
    restored.mkdir()
    traced = str(Path(__file__).parent / "traced")
    env = os.environ | {"PYTHONPATH": traced, "TRACE": str(tmp_path / "trace"), "TRACED": str(root.resolve())}
    argv = [sys.executable, "-c", OPERATIONS, str(root)]
    subprocess.run(argv, cwd=root, env=env, check=True, stdout=subprocess.PIPE)
    records = list(read_records(tmp_path / "trace"))
    restore(records, restored)
    assert read_tree(restored) == read_tree(root)
    assert (restored / "work" / "out" / "text").stat().st_mtime_ns == 12345678
    syncs = [rest for operation, _, *rest in records if operation == "synced" and rest[0] == "folder"]
    assert syncs == [["folder", "work/out"], ["folder", "."]]


def read_tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }
