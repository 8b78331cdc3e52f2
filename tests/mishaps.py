"""Mishaps: a file operation of psy or its worker goes wrong; what is true then, and after the next run."""

from __future__ import annotations

import errno
import os
import pickle
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from conftest import PRELUDE, Project
from processes import Processes
from siege import Witness

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DEEDS", "SCENARIOS", "Mishap", "Stage", "undergo"]

TASK = """\
import time
from counting import seen
from psyrun import Param

pspace = Param(x=list({xs}))
factor = {factor}
max_jobs = 2
pool_size = 1


def execute(x):
    seen(factor, x)
    return {{"y": x * factor, "by": factor}}
"""
DEEDS = ("kill", "torn", "EIO", "ESTALE", "ENOSPC", "EDQUOT", "EROFS", "EACCES")
_MODULES = ("psyrun.cli", "psyrun.worker")
_TEMPORARY = re.compile(r"^\.(.+)\.[0-9a-f]{16}\.\w+$")
_FINAL = r"\1"  # the name that the file gets in the end
_ANY = {"create", "write", "sync", "rename", "link", "remove", "mkdir", "truncate"}
_GROWS = {"create", "write", "link", "mkdir"}
_NAMES = {"create", "link", "mkdir", "rename", "remove"}
_FAILING = {  # deed -> operations that it can befall
    "kill": _ANY,
    "torn": {"write"},
    "EIO": _ANY,
    "ESTALE": _ANY,
    "ENOSPC": _GROWS,
    "EDQUOT": _GROWS,
    "EROFS": _NAMES,
    "EACCES": _NAMES,
}


@dataclass(frozen=True, slots=True)
class Mishap:
    """A deed at the so-manieth operation of a process; `operation` says which that was when all went well."""

    module: str
    number: int
    deed: str
    operation: str = ""

    def __str__(self) -> str:
        return f"{self.module}:{self.number}:{self.deed}"


class Faulty(Project):
    """A project whose next run meets with a mishap."""

    mishap: Mishap | None = None

    def env(self, **more: str) -> dict[str, str]:
        if self.mishap is not None:
            more |= {"FAULT": str(self.mishap), "OPERATIONS": str(self.root / "operations.txt")}
        return super().env(**more)

    def write_task(self, xs: range | list[int], factor: int) -> None:
        self.task("example", TASK.format(xs=xs, factor=factor))

    @property
    def folder(self) -> Path:
        return self.root / "psy-work" / "example"


# ---------------------------------------------------------------------- scenarios


class Fresh:
    """A task that never ran."""

    arguments: tuple[str, ...] = ()
    xs: list[int] = list(range(10))
    factor = 2
    durable: frozenset[int] = frozenset()  # the xs whose rows of this factor are there already

    def prepare(self, project: Faulty) -> None:
        project.write_task(self.xs, self.factor)

    def table(self) -> dict[str, list[int]]:
        return {"x": self.xs, "y": [x * self.factor for x in self.xs], "by": [self.factor] * len(self.xs)}


class EditedCode(Fresh):
    """A finished task whose code was edited; its new result is as long as the old one."""

    factor = 3

    def prepare(self, project: Faulty) -> None:
        project.write_task(self.xs, 2)
        project.psy("run")
        super().prepare(project)


class EditedSpace(Fresh):
    """A finished task to whose space rows were added, from which others were taken, in another order."""

    xs = [12, 3, 2, 1, 11, 0, 7]
    durable = frozenset(range(10))

    def prepare(self, project: Faulty) -> None:
        project.write_task(range(10), 2)
        project.psy("run")
        super().prepare(project)


class LostJournals(EditedSpace):
    """The same, and only the result still holds the rows."""

    def prepare(self, project: Faulty) -> None:
        super().prepare(project)
        shutil.rmtree(project.folder / "out")


class Adopted(Fresh):
    """A result that psyrun did not write, to be continued."""

    arguments = ("--continue",)
    durable = frozenset(range(4, 8))

    def prepare(self, project: Faulty) -> None:
        super().prepare(project)
        project.folder.mkdir(parents=True)
        ours = {name: [values[x] for x in sorted(self.durable)] for name, values in self.table().items()}
        (project.folder / "result.pkl").write_bytes(pickle.dumps(ours))


SCENARIOS = {kind.__name__: kind() for kind in (Fresh, EditedCode, EditedSpace, LostJournals, Adopted)}


# ---------------------------------------------------------------------- mishaps


@dataclass
class Stage:
    """A scenario that is prepared once and copied for each mishap.

    Parameters
    ----------
    scenario
        What is there, and what psy is to do.
    folder
        Where to build.
    """

    scenario: Fresh
    folder: Path

    def prepare(self) -> None:
        """Build what is copied."""
        self.scenario.prepare(_build(self.folder / "prepared"))

    def copy(self, name: str) -> Faulty:
        """Return a copy of it."""
        target = self.folder / name.replace(":", " ")  # It is on PYTHONPATH.
        shutil.copytree(self.folder / "prepared", target)
        return Faulty(target / "my project")

    def find_mishaps(self) -> Iterator[Mishap]:
        """Yield all that can go wrong, from the operations of a run in which nothing does."""
        for module in _MODULES:
            project = self.copy(f"undisturbed {module}")
            project.mishap = Mishap(module, 0, "none")
            project.psy("run", *self.scenario.arguments)
            for line in (project.root / "operations.txt").read_text().splitlines():
                number, operation, path = line.split(" ", 2)
                what = f"{operation} {_TEMPORARY.sub(_FINAL, path)}"
                yield from (Mishap(module, int(number), d, what) for d in DEEDS if operation in _FAILING[d])


def _build(folder: Path) -> Faulty:
    root = folder / "my project"
    (root / "psy-tasks").mkdir(parents=True)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "counting.py").write_text(PRELUDE)
    shutil.copy(Path(__file__).parent / "faulty" / "sitecustomize.py", elsewhere)
    return Faulty(root)


def undergo(project: Faulty, scenario: Fresh, mishap: Mishap) -> None:
    """Let a run meet with a mishap; psy says so plainly, and the next run makes up for it.

    Raises
    ------
    AssertionError
        If it does not.
    """
    project.mishap = mishap
    first = project.psy("run", *scenario.arguments, code=None)
    project.mishap = None
    said = f"{mishap} ({mishap.operation}): exit {first.returncode}\n{first.stdout}{first.stderr}"
    fatal = mishap.deed in ("kill", "torn")
    assert first.returncode in ((0, 1, -9) if fatal else (0, 1)), said
    assert "Traceback" not in said, said
    if first.returncode == 0:
        assert_right(project, scenario, said)
    elif not fatal:
        reason = re.escape(os.strerror(getattr(errno, mishap.deed)))
        named = r"^(psy: \S.*/psy-work|(psy: )?example: (\S.*/)?psy-work/\S.*)"
        assert re.search(rf"{named}: {reason}; \w", said, re.MULTILINE), said
    _wait_for_end(project)
    before = {x for factor, x in Witness(project.folder).look() if factor == scenario.factor}
    start = len(project.rows_seen())
    second = project.psy("run", *scenario.arguments, code=None)
    said += f"then exit {second.returncode}\n{second.stdout}{second.stderr}"
    assert second.returncode == 0, said
    evaluated = sorted(eval(line)[1] for line in project.rows_seen()[start:])
    assert evaluated == sorted(set(scenario.xs) - scenario.durable - before), said
    assert_right(project, scenario, said)


def assert_right(project: Faulty, scenario: Fresh, said: str) -> None:
    """The result is the undisturbed one, and called up to date."""
    assert project.result("example") == scenario.table(), said
    assert project.status("example")["uptodate"], said


def _wait_for_end(project: Faulty) -> None:
    processes = Processes(project)
    deadline = time.monotonic() + 10.0
    while processes.find():
        assert time.monotonic() < deadline, "processes are left behind"
        time.sleep(0.01)
