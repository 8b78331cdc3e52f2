"""The power goes while psy runs: the next run mends it, and evaluates hardly a finished row again.

Here a seeded sample; `make soak` cuts more often.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from disks import MODELS, restore
from powercut import Cut, Report, cut_power, record

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
