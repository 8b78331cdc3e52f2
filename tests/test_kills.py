"""Psy, its worker or a child is killed at any moment: nothing is lost, and the result is right in the end.

`make soak` is the long form.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hosts import needs_hosts
from siege import Siege

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_project_that_is_killed_again_and_again_gets_the_undisturbed_result(tmp_path, seed):
    report = Siege(tmp_path, seed, kills=6).lay()
    assert report.kills >= 6
    assert (report.lost, report.repeated) == (0, 0)


@needs_hosts
@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("seed", [2])
def test_project_on_hosts_that_die_again_and_again_gets_the_undisturbed_result(tmp_path, seed):
    report = Siege(tmp_path, seed, kills=4, hosts=["mars", "venus"]).lay()
    assert report.kills >= 4
    assert (report.lost, report.repeated) == (0, 0)
