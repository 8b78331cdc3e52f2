"""The lock of a task: what is left of one never stops work, and where there is none, work goes on."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time

import pytest

from psyrun.cli import commands as cli
from psyrun.errors import explain
from psyrun.workdir import task_lock

TASK = "from psyrun import Param\npspace = Param(x=[1, 2])\n\ndef execute(x):\n    return {'y': 2 * x}\n"
RIGHT = {"x": [1, 2], "y": [2, 4]}


class WaitsError(Exception):
    """The lock is another's."""


def wait(owner):
    raise WaitsError(owner)


@pytest.fixture(scope="module")
def ended():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def content(path, pid, host=None):
    return f"{path}|{host or socket.getfqdn()}|{pid}|1234567890".encode()


def assert_free(path):
    """The lock can be had, and nothing is left of it."""
    with task_lock(path, wait):
        assert path.exists()
    assert list(path.parent.iterdir()) == []


# ---------------------------------------------------------------------- damaged locks


def damage_at(data, at):
    """The tail is cut off, or is garbage; a byte is another, or is none of any text."""
    tail = bytes(range(200, 200 + 40))
    yield data[:at]
    yield data[:at] + tail
    yield data[:at] + b"\0" * (len(data) - at)
    for byte in b"\xff|/-x9\n\0":
        yield data[:at] + bytes([byte]) + data[at + 1 :]
    yield data + tail[: at + 1]
    yield data + b"|" * at


def test_lock_that_is_damaged_at_any_byte_is_no_owner(tmp_path, ended):
    path = tmp_path / "lock"
    whole = content(path, ended)
    for at in range(len(whole)):
        for data in damage_at(whole, at):
            path.write_bytes(data)
            os.utime(path, (1, 1))
            assert_free(path)


def test_lock_that_is_damaged_and_new_is_waited_for_some_seconds_only(tmp_path, ended):
    path = tmp_path / "lock"
    path.write_bytes(content(path, ended)[:-20] + b"\xff\0||")
    began = time.monotonic()
    with task_lock(path, lambda owner: None):
        assert time.monotonic() - began < 10


def test_lock_that_was_damaged_while_it_was_held_is_released(tmp_path):
    path = tmp_path / "lock"
    with task_lock(path, wait):
        path.write_bytes(path.read_bytes()[:-3])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pid", [0, -1, 10**19, 10**400])
def test_lock_of_an_impossible_process_is_no_owner(tmp_path, pid):
    path = tmp_path / "lock"
    path.write_bytes(content(path, pid))
    os.utime(path, (1, 1))
    assert_free(path)


def test_lock_of_another_process_is_waited_for(tmp_path):
    path = tmp_path / "lock"
    path.write_bytes(content(path, os.getppid()))
    with pytest.raises(WaitsError, match=f"process id {os.getppid()} on "), task_lock(path, wait):
        pass


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("nowhere"), lambda path: path.mkdir()]
)
def test_what_is_no_file_in_the_place_of_a_lock_is_refused(tmp_path, make):
    path = tmp_path / "lock"
    make(path)
    with pytest.raises(OSError) as caught, task_lock(path, wait):  # noqa: PT011
        pass
    assert "lock: not a regular file; something else is in its place: move it away" in explain(caught.value)
    assert list(tmp_path.iterdir()) == [path]


# ---------------------------------------------------------------------- file systems without hard links


@pytest.fixture
def without_links(monkeypatch):
    def break_links(number):
        def link(source, target, **options):
            raise OSError(number, os.strerror(number), source, None, target)

        monkeypatch.setattr(os, "link", link)

    return break_links


@pytest.mark.parametrize(
    "name", ["EPERM", "EACCES", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK", "EXDEV", "EINVAL"]
)
def test_work_goes_on_without_a_lock_where_there_are_no_hard_links(tmp_path, without_links, name):
    without_links(getattr(errno, name))
    path = tmp_path / "lock"
    with pytest.warns(UserWarning, match="no hard links can be made there"), task_lock(path, wait):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["EIO", "EDQUOT", "ENOSPC", "EROFS"])
def test_disk_that_fails_as_a_lock_is_made_is_an_error(tmp_path, without_links, name):
    without_links(getattr(errno, name))
    with pytest.raises(OSError, match=os.strerror(getattr(errno, name))), task_lock(tmp_path / "lock", wait):
        pass
    assert list(tmp_path.iterdir()) == []


def test_run_of_several_tasks_without_hard_links_is_one_warning(project, monkeypatch, capsys, without_links):
    without_links(errno.EPERM)
    for name in ("a", "b", "c"):
        project.task(name, TASK)
    monkeypatch.chdir(project.root)
    assert cli.main(["run"]) == 0
    said = capsys.readouterr()
    assert (said.out + said.err).count("no hard links") == 1
    assert [project.result(name) for name in ("a", "b", "c")] == [RIGHT] * 3
    assert not list((project.root / "psy-work").glob("*/lock*"))


def test_link_whose_success_was_reported_as_a_failure_is_a_lock(tmp_path, monkeypatch):
    """As NFS does when the answer is lost and the question repeated."""
    real = os.link

    def link(source, target, **options):
        real(source, target, **options)
        raise FileExistsError(errno.EEXIST, "File exists", source, None, target)

    monkeypatch.setattr(os, "link", link)
    assert_free(tmp_path / "lock")
