"""The number of cores that this machine grants is what joblib says."""

from __future__ import annotations

import builtins
import io
import os

import joblib
import pytest

from psyrun.jobs.cores import count_cores

V1 = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")


@pytest.fixture(params=[1, 3, 64])
def cores(request, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: request.param)


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """Let both see the files of a folder as those of the cgroup."""

    def place(path):
        text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
        return tmp_path / text.removeprefix("/sys/fs/cgroup/") if text.startswith("/sys/fs/cgroup/") else path

    really_open, really_exists = io.open, os.path.exists
    for module in (io, builtins):
        monkeypatch.setattr(
            module, "open", lambda path, *more, **named: really_open(place(path), *more, **named)
        )
    monkeypatch.setattr(os.path, "exists", lambda path: really_exists(place(path)))
    (tmp_path / "cpu").mkdir()
    return tmp_path


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize("limit", [None, "1", "2", "0", "100"])
@pytest.mark.parametrize("affinity", [{0}, {0, 1}, set(range(64))])
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity here")
def test_cores_are_those_of_joblib_for_any_affinity_and_limit(limit, affinity, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: affinity)
    if limit is not None:
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", limit)
    assert count_cores() == joblib.cpu_count()


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(
    "files",
    [
        {},
        {"cpu.max": "max 100000\n"},
        {"cpu.max": "150000 100000\n"},
        {"cpu.max": "1000 100000\n"},
        {"cpu.max": "0 100000\n"},
        {"cpu.max": "", **dict(zip(V1, ["200000\n", "100000\n"]))},
        dict(zip(V1, ["-1\n", "100000\n"])),
        dict(zip(V1, ["250000\n", "100000\n"])),
        dict(zip(V1, ["250000\n"])),
    ],
)
def test_cores_are_those_of_joblib_for_any_cgroup(files, cgroup, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    for name, text in files.items():
        (cgroup / name).write_text(text)
    assert count_cores() == joblib.cpu_count()


def test_cores_are_those_of_joblib_here():
    assert count_cores() == joblib.cpu_count()
