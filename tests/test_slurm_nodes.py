"""Nodes that are cut off from Slurm, and go on writing: each has a network and a host name of its own."""

from __future__ import annotations

from collections import Counter

import pytest

from clusters.sweep import submissions, task
from conftest import start_slurm

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("slurm")]

ROWS = 48
# Row x of a batch of eight waits for the file `open/<x % 8>`, or for `open/<x % 8>-<host>`.
WAIT = """\
    import os
    host = os.uname().nodename
    while not any(os.path.exists(f"../open/{x % 8}{on}") for on in ("", "-" + host)):
        time.sleep(0.02)
    time.sleep(0.06)  # so long that each is written at once
    seen(x, host)
    return {"host": host, """


@pytest.fixture(scope="module")
def three_nodes(tmp_path_factory):
    with start_slurm(tmp_path_factory.mktemp("hosts"), nodes=3, cpus=2, hosts=True) as cluster:
        yield cluster


@pytest.fixture
def cluster(three_nodes, enter):
    """Three connected nodes, before and after."""
    yield enter(three_nodes)
    three_nodes.reconnect(1)
    three_nodes.wait_for_nodes()


@pytest.fixture
def cut_off(cluster, project, wait_until):
    """Submit six batches of eight rows, one for each core, and cut off node 1; return its rows.

    Its jobs go on to their third row and wait then, the others do all of theirs.
    """

    def begin(**settings):
        text = task(ROWS, 6, **settings).replace("    seen(x)\n    return {", WAIT)
        project.task("a", 'untracked = ["../open/*"]\n' + text)
        project.psy("run", code=75)
        wait_until(lambda: len(running(cluster)) == 6)
        elements = [int(element) for element, node in running(cluster).items() if node == cluster.node(1)]
        open_rows(project, [0, 1])
        wait_until(lambda: done(project) == 12)
        cluster.cut_off(1)
        open_rows(project, [2])  # Nobody has a reason to doubt what the orphans write.
        for number in (2, 3):
            open_rows(project, range(8), cluster.node(number))
        wait_until(lambda: done(project) == ROWS - 2 * 5)
        # A job that has written its rows takes a moment more until it is out of the queue.
        wait_until(lambda: "2 jobs in flight" in project.psy("run", code=75).stdout)
        return {x for element in elements for x in range(8 * element, 8 * element + 8)}

    return begin


def open_rows(project, rows, host=None):
    folder = project.root / "open"
    folder.mkdir(exist_ok=True)
    for row in rows:
        (folder / (f"{row}-{host}" if host else f"{row}")).touch()


def running(cluster):
    """Return element -> node."""
    lines = cluster.run("squeue", "-h", "-r", "-t", "R", "-o", "%K %N").splitlines()
    return dict(line.split() for line in lines if not line.startswith("N/A"))


def done(project):
    """Return how many rows are done, having checked that the counts add up."""
    status = project.status("a")
    kinds = ("done", "failed", "running", "queued", "missing")
    assert sum(status[kind] for kind in kinds) == status["total"] == ROWS
    assert all(status[kind] >= 0 for kind in kinds)
    return status["done"]


def said(project):
    """Return what workers said."""
    return "".join(path.read_text() for path in (project.root / "psy-work" / "a" / "log").glob("?.log"))


def evaluations(project):
    """Return (x, host) of all evaluations."""
    return [eval(line) for line in project.rows_seen()]


def is_seen(project, rows, host):
    return {x for x, where in evaluations(project) if where == host} == set(rows)


def assert_right(project):
    """Every row once, in order, and all of a row from one evaluation, which did take place."""
    result = project.result("a")
    assert result["x"] == list(range(ROWS))
    assert result["y"] == [2 * x for x in range(ROWS)]
    assert set(zip(result["x"], result["host"])) <= set(evaluations(project))


def assert_double_work_is_confined(project, lost):
    seen = Counter(x for x, _ in evaluations(project))
    assert seen.keys() == set(range(ROWS))
    assert {x for x, times in seen.items() if times > 1} == {x for x in lost if x % 8 >= 3}
    assert max(seen.values()) == 2


def test_orphan_and_the_requeued_element_write_the_same_rows(cluster, cut_off, project, wait_until):
    """Slurm gives what a lost node did another chance after two minutes."""
    lost = cut_off()
    wait_until(lambda: said(project).count(" 5 rows") == 2, 240)  # Others have looked for what is missing.
    assert cluster.node(1) not in running(cluster).values()
    open_rows(project, range(8))  # for both at once
    wait_until(lambda: is_seen(project, lost, cluster.node(1)))
    project.psy("run", "--wait")
    cluster.reconnect(1)
    cluster.wait_for_nodes()
    assert_right(project)
    assert done(project) == ROWS
    assert project.count("run") == 0
    assert_double_work_is_confined(project, lost)


def test_orphan_that_writes_after_the_merge_changes_nothing(cluster, cut_off, project, wait_until):
    lost = cut_off(scheduler_args={"timelimit": "10", "extra": ["--no-requeue"]})
    wait_until(lambda: not running(cluster), 120)
    assert "2 of its jobs ended early: NODE_FAIL" in project.psy("run", "--wait").stdout
    assert_right(project)
    before = (project.root / "psy-work" / "a" / "result.pkl").read_bytes()
    open_rows(project, range(8), cluster.node(1))
    wait_until(lambda: is_seen(project, lost, cluster.node(1)))
    cluster.reconnect(1)
    cluster.wait_for_nodes()
    assert project.count("run") == 0
    assert done(project) == ROWS
    assert (project.root / "psy-work" / "a" / "result.pkl").read_bytes() == before
    assert submissions(project) == []
    assert_double_work_is_confined(project, lost)
