"""doit's database is a cache: with a damaged file, a run ends as without one, and says at most one line."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path

import pytest
from doit.dependency import JSONCodec, SqliteDB

from conftest import Project
from psyrun.database import CacheDatabase

NODES = {
    f"task{number}:{step}": {
        "_values_:": {},
        "checker:": "MD5Checker",
        "deps:": ["psy-work/a/plan.json", "data/ü.csv"],
        "psy-work/a/plan.json": [1764449411.25 + number, 812, f"{number:032x}"],
        "data/ü.csv": [1764449000.5, 9, "0" * 32],
    }
    for number in range(6)
    for step in ("split", "process", "merge")
}
PAGE = 4096


def open_database(path):
    """Open a database as doit does; return it and what it warned of."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        return CacheDatabase(str(path), JSONCodec()), said


def fill(database, nodes=NODES):
    for task_id, entries in nodes.items():
        for dependency, value in entries.items():
            database.set(task_id, dependency, value)
    database.dump()


def read_back(database):
    """Return the nodes that a database knows, and fail where one is not what was written."""
    found = {}
    for task_id, entries in NODES.items():
        if database.in_(task_id):
            found[task_id] = {name: database.get(task_id, name) for name in entries}
            assert found[task_id] == entries
        else:
            assert database.get(task_id, "deps:") is None
    return found


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / ".doit.db"
    fill(open_database(path)[0])
    return path.read_bytes()


# ---------------------------------------------------------------------- damages

SAMPLE = random.Random(7)


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 1 << SAMPLE.randrange(8)]) + data[at + 1 :]


def replace_byte(data, at):
    return data[:at] + SAMPLE.randbytes(1) + data[at + 1 :]


def replace_some(data, at):
    return (data[:at] + SAMPLE.randbytes(64) + data[at + 64 :])[: len(data)]


def zero_page(data, at):
    start = at // PAGE * PAGE
    return data[:start] + bytes(PAGE) + data[start + PAGE :]


def swap_pages(data, at):
    pages = [data[i : i + PAGE] for i in range(0, len(data), PAGE)]
    k = at // PAGE
    pages[k], pages[k - 1] = pages[k - 1], pages[k]
    return b"".join(pages)


def cut(data, at):
    return data[:at]


DAMAGES = (flip, replace_byte, replace_some, zero_page, swap_pages, cut)


def sample_offsets(data, number):
    """Offsets in the header, at the beginning of each page, and anywhere."""
    starts = [page + SAMPLE.randrange(24) for page in range(0, len(data), PAGE)]
    return [*range(0, 108, max(1, 1000 // number)), *starts, *SAMPLE.sample(range(len(data)), number)]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_loses_nodes_but_never_changes_one_and_the_next_database_is_sound(tmp_path, sound, damage):
    path = tmp_path / ".doit.db"
    for at in sample_offsets(sound, 60):
        path.write_bytes(damage(sound, at))
        database, said = open_database(path)
        read_back(database)
        with warnings.catch_warnings(record=True) as more:
            warnings.simplefilter("always")
            fill(database)
        assert len([*said, *more]) <= 1, at
        again, said = open_database(path)
        assert read_back(again) == NODES, at
        assert not said, at


def test_nodes_are_kept_by_task(tmp_path):
    path = tmp_path / ".doit.db"
    fill(open_database(path)[0])
    database, _ = open_database(path)
    database.remove("task0:split")
    database.set("task1:split", "checker:", "other")
    database.dump()
    again, said = open_database(path)
    assert not again.in_("task0:split")
    assert again.get("task1:split", "checker:") == "other"
    assert again.get("task2:split", "deps:") == NODES["task2:split"]["deps:"]
    again.remove_all()
    again.dump()
    assert read_back(open_database(path)[0]) == {}
    assert not said


def test_two_that_are_open_at_once_keep_the_nodes_of_each_other(tmp_path):
    path = tmp_path / ".doit.db"
    one, two = open_database(path)[0], open_database(path)[0]
    names = list(NODES)
    fill(one, {names[0]: NODES[names[0]]})
    fill(two, {names[1]: NODES[names[1]]})
    assert list(read_back(open_database(path)[0])) == names[:2]


def test_plain_doit_reads_the_nodes_and_what_it_changes_counts_as_absent(tmp_path):
    path = tmp_path / ".doit.db"
    fill(open_database(path)[0])
    plain = SqliteDB(str(path), JSONCodec())
    assert plain.get("task0:split", "deps:") == NODES["task0:split"]["deps:"]
    plain.set("task0:split", "deps:", ["another"])
    plain.set("own", "deps:", ["mine"])
    plain.dump()
    database, said = open_database(path)
    assert set(NODES) - set(read_back(database)) == {"task0:split"}
    assert not database.in_("own")
    assert not said


@pytest.mark.parametrize(
    "rows",
    [
        [("task0:split", None)],
        [("task0:split", "[1, 2]")],
        [("task0:split", "3")],
        [("task0:split", "[" * 100_000)],
        [("task0:split", b"\xff\xfe")],
        [("task0:split", '{"checksum:": "x", "deps:": 5}')],
        [(b"\xff", "{}"), (7, "{}")],
    ],
    ids=repr,
)
def test_row_that_is_no_node_counts_as_absent(tmp_path, rows):
    path = tmp_path / ".doit.db"
    fill(open_database(path)[0])
    with closing(sqlite3.connect(path)) as connection:
        connection.executemany("insert or replace into doit values (?, ?)", rows)
        connection.commit()
    database, said = open_database(path)
    assert read_back(database).keys() >= set(NODES) - {"task0:split"}
    assert not said


# ---------------------------------------------------------------------- runs

TASK = """\
import os
from counting import seen
from psyrun import Param

pspace = Param(x=range(6))
pool_size = 1


def execute(x):
    seen(x)
    if x == 4 and os.path.exists('../fail'):
        raise ValueError(x)
    return {"y": 2 * x}
"""


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """A finished and a half-done project."""
    from conftest import PRELUDE

    found = {}
    for state in ("finished", "half"):
        folder = tmp_path_factory.mktemp(state)
        (folder / "elsewhere").mkdir()
        (folder / "elsewhere/counting.py").write_text(PRELUDE)
        found[state] = Project(folder / "project")
        found[state].task("t", TASK)
        if state == "half":
            (found[state].root / "fail").touch()
        found[state].psy("run", code=1 if state == "half" else 0)
    return found


def make_folder(path):
    path.unlink()
    path.mkdir()


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


def damaged(damage, part):
    def act(path):
        data = path.read_bytes()
        path.write_bytes(damage(data, int(len(data) * part)))

    act.__name__ = f"{damage.__name__} {part}"
    return act


MISHAPS = [
    make_folder,
    make_pipe,
    lambda path: os.mkfifo(f"{path}-journal"),
    lambda path: Path(f"{path}-journal").write_bytes(SAMPLE.randbytes(5000)),
    lambda path: path.write_bytes(SAMPLE.randbytes(5000)),
    *(damaged(damage, part) for damage in DAMAGES for part in (0.001, 0.4, 0.97)),
]


@pytest.mark.parametrize("mishap", MISHAPS, ids=lambda mishap: mishap.__name__)
@pytest.mark.parametrize("state", ["finished", "half"])
@pytest.mark.slow
def test_run_with_a_damaged_database_ends_as_without_one(project, projects, state, mishap):
    shutil.copytree(projects[state].root, project.root, dirs_exist_ok=True)
    database = project.root / "psy-work/.doit.db"
    start = len(project.rows_seen())
    mishap(database)
    done = project.psy("run", code=1 if state == "half" else 0, timeout=60)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert len([line for line in said.splitlines() if ".doit.db" in line]) <= 1, said
    assert project.rows_seen()[start:] == (["(4,)"] if state == "half" else [])
    again = project.psy("run", code=done.returncode)
    if not database.is_dir():
        assert ".doit.db" not in again.stdout + again.stderr
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
            assert connection.execute("select count(*) from doit").fetchone() > (0,)
    (project.root / "fail").unlink(missing_ok=True)
    project.psy("run")
    assert project.result("t") == {"x": list(range(6)), "y": [2 * x for x in range(6)]}
