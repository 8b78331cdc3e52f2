"""Folders and files that a group shares, whatever the umask of its users."""

from __future__ import annotations

import os
import stat

import pytest

from psyrun.disk import AppendedFile, make_folders, write_atomic
from psyrun.workdir import create_root

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder to any group")
GROUP = 4711
TASK = "from psyrun import Param\npspace = Param(x=range(3))\ndef execute(x):\n    return {'y': x}\n"


@pytest.fixture(params=[0o022, 0o077], ids=["umask 022", "umask 077"])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@needs_root
@pytest.mark.parametrize("outer", [0o775, 0o2775], ids=["group-writable", "with set-group-ID"])
def test_work_folder_of_a_group_is_shared_with_it(tmp_path, umask, outer):
    os.chown(tmp_path, -1, GROUP)
    tmp_path.chmod(outer)
    folder = tmp_path / "psy-work" / "a"
    create_root(folder.parent)
    make_folders(folder / "in", folder / "out")
    for each in (folder.parent, folder, folder / "in", folder / "out"):
        assert each.stat().st_gid == GROUP
        assert mode(each) & 0o2770 == 0o2770
        assert mode(each) & 0o007 == 0o005 & ~umask
    write_atomic(folder / "plan.json", b"{}")
    AppendedFile(folder / "out" / "journal").open().close()
    for path in (folder / "plan.json", folder / "out" / "journal"):
        assert path.stat().st_gid == GROUP
        assert mode(path) & 0o770 == 0o660


@pytest.mark.parametrize("outer", [0o755, 0o2755, 0o1777], ids=oct)
def test_folder_that_no_group_may_write_to_is_not_shared(tmp_path, umask, outer):
    tmp_path.chmod(outer)
    create_root(tmp_path / "a")
    make_folders(tmp_path / "a" / "b")
    write_atomic(tmp_path / "a" / "file", b"")
    assert mode(tmp_path / "a") & 0o777 == mode(tmp_path / "a" / "b") & 0o777 == 0o777 & ~umask
    assert mode(tmp_path / "a" / "file") == 0o666 & ~umask
    assert (tmp_path / "a").stat().st_gid == tmp_path.stat().st_gid


@needs_root
@pytest.mark.started
def test_whatever_a_run_leaves_can_be_replaced_by_the_group(project):
    """Logs of children are the exception: they have one writer."""
    os.chown(project.root, -1, GROUP)
    project.root.chmod(0o775)
    project.task("a", TASK)
    project.psy("run", "-j", "1")
    left = [project.root / "psy-work", *(project.root / "psy-work").rglob("*")]
    assert len(left) > 15
    for path in left:
        assert path.stat().st_gid == GROUP, path
        bits = 0o2770 if path.is_dir() else 0o660
        assert mode(path) & bits == bits or path.parent.name == "log", path
