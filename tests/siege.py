"""A siege of a project: runs of psy, killed at random moments, and what has to be true nevertheless."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conftest import PRELUDE, Project
from hosts import move, shorten_leases
from processes import Processes
from psyrun.workdir.inputs import read_inputs
from psyrun.workdir.records import list_journals, read_values

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

    from psyrun.workdir.journal import BatchKey

__all__ = ["Report", "Siege"]

TASK = """\
import os
import time
from counting import seen
from psyrun import Param

pspace = Param(x={xs})
factor = {factor}
max_jobs = 6
pool_size = 2


def execute(x):
    seen(factor, x, time.monotonic())
    time.sleep(float(os.environ["PACE"]))
    return {{"y": x * factor, "by": factor}}
"""
ROWS = 300
LONGEST = 1.2  # seconds from the start of a run, or from one blow, to the next
SHORTER = 0.6  # seconds from the first row that is evaluated, where that is waited for
DURABLE = 1.0  # seconds on disk after which a row must not be evaluated again
PATIENCE = 60.0  # seconds after which a psy that nobody kills hangs

Row = tuple[int, int]  # factor, x


class Paced(Project):
    """A project whose rows take so many seconds."""

    pace = 0.004

    def env(self, **more: str) -> dict[str, str]:
        return super().env(PACE=str(self.pace), **more)


@dataclass
class Report:
    """What happened in one or several sieges."""

    blows: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    edits: int = 0
    rows: int = 0
    lost: int = 0
    repeated: int = 0
    unfinished: int = 0

    @property
    def kills(self) -> int:
        return sum(count for name, count in self.blows.items() if name.startswith("KILL"))

    def __iadd__(self, other: Report) -> Report:
        self.blows += other.blows
        for name in ("runs", "edits", "rows", "lost", "repeated", "unfinished"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def __str__(self) -> str:
        blows = ", ".join(f"{name} {count}" for name, count in sorted(self.blows.items()))
        return (
            f"{self.kills} kills ({blows}), {self.runs} runs, {self.edits} edits, {self.rows} rows, lost"
            f" {self.lost}, evaluated again although durable {self.repeated}, evaluated again in the making"
            f" {self.unfinished}"
        )


class Witness:
    """Notes which rows have been on disk, and since when."""

    def __init__(self, folder: Path) -> None:
        self.since: dict[Row, float] = {}
        self._folder = folder
        self._assignments: dict[BatchKey, list[int]] = {}
        self._read: dict[str, tuple[int, set[Row]]] = {}

    def look(self) -> set[Row]:
        """Return the rows that are on disk."""
        found: set[Row] = set()
        for batch, journals in list_journals(self._folder / "out").items():
            for journal in journals:
                size, rows = self._read.get(journal.path.stem, (-1, set()))
                if size != journal.size:
                    rows = self._read_rows(batch, journal)
                    self._read[journal.path.stem] = (journal.size, rows)
                found |= rows
        now = time.monotonic()
        for row in found:
            self.since.setdefault(row, now)
        return found

    def _read_rows(self, batch: BatchKey, journal: Any) -> set[Row]:
        if batch not in self._assignments:
            columns = read_inputs(self._folder / "in" / f"{batch.number}.pkl", batch.tie).columns()
            self._assignments[batch] = columns["x"]
        xs = self._assignments[batch]
        return {
            (factor, xs[row])
            for rows, values in read_values([journal])
            for row, factor in zip(rows, values.get("by", ()))  # A block may hold failures alone.
        }


class Siege:
    """A project under attack.

    Parameters
    ----------
    folder
        Where to build it.
    seed
        Decides on blows and edits; not on how far psy is then.
    kills
        How many processes, or groups of them, to kill.
    hosts
        Names of hosts that share the folder: each run is on one of them.
    """

    def __init__(self, folder: Path, seed: int, kills: int, hosts: Sequence[str] = ()) -> None:
        self.random = random.Random(seed)
        self.seed, self.kills, self.hosts = seed, kills, hosts
        self.project = _build(folder / "disturbed" / "my project")
        self.calm = _build(folder / "calm" / "my project")
        if hosts:
            shorten_leases(self.project, 2)
        self.calm.pace = 0.0
        self.processes = Processes(self.project)
        self.witness = Witness(self.project.root / "psy-work" / "example")
        self.report = Report()
        self.xs, self.factor = list(range(ROWS)), 2
        self._fresh = ROWS
        self._signalled = False

    def lay(self) -> Report:
        """Attack until the kills are used up, let psy finish, and look at what it has got.

        Raises
        ------
        AssertionError
            If a row was lost, or evaluated although it was durable; if psy hangs, says something that it
            should not, leaves a process behind or a wrong result.
        """
        self._write_task()
        try:
            while self.report.kills < self.kills:
                if self._run() == 0 or self.random.random() < 0.15:
                    self._edit()
            self._assert_gone()
            self._run()
            self._assert_gone()
            self._assert_right()
        finally:
            self.processes.send(signal.SIGKILL)
        self._assert_nothing_repeated()
        return self.report

    # ------------------------------------------------------------------ runs and blows

    def _run(self) -> int:
        """Start psy, and attack it until it has ended; return its exit code."""
        self.report.runs += 1
        self._signalled = False
        path = self.project.root / "said.txt"
        project = move(self.project, self.random.choice(self.hosts)) if self.hosts else self.project
        with path.open("w") as said:
            psy = project.start("run", stdout=said, stderr=said)
        while not self._ends(psy):
            self._strike(psy)
        if psy.returncode == -signal.SIGKILL and self.random.random() < 0.5:
            return psy.returncode  # The next one begins while the worker of this one goes.
        self._assert_gone()
        self._assert_said(psy.returncode, path.read_text())
        self._assert_kept()
        return psy.returncode

    def _ends(self, psy: subprocess.Popen[str]) -> bool:
        """Wait for the end of psy, or for the moment of the next blow; return whether it was the end."""
        attacked = self.report.kills < self.kills
        if attacked and self.random.random() < 0.75:
            before = self._count_evaluations()
            self._wait(lambda: psy.poll() is not None or self._count_evaluations() > before, PATIENCE)
            seconds = self.random.uniform(0, SHORTER)
        else:
            seconds = self.random.uniform(0, LONGEST) if attacked else PATIENCE
        ended = self._wait(lambda: psy.poll() is not None, seconds)
        assert ended or attacked, self._explain("psy hangs")
        return ended

    def _count_evaluations(self) -> int:
        path = self.project.evaluations
        return path.stat().st_size if path.exists() else 0

    def _wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not (true := condition()) and time.monotonic() < deadline:
            self.witness.look()
            time.sleep(0.01)
        return true

    def _strike(self, psy: subprocess.Popen[str]) -> None:
        """Send a signal to somebody who is there."""
        victims = {
            "psy": [psy.pid],
            "worker": self.processes.find("psyrun.worker"),
            "child": self.processes.find("psyrun.worker.child"),
            "all": self.processes.find(),
        }
        victim = self.random.choice([name for name, pids in victims.items() if pids])
        number = signal.SIGKILL
        if victim != "child" and self.random.random() < 0.15:
            number = self.random.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
            self._signalled = True
        targets = victims[victim]
        if victim == "child":
            targets = [self.random.choice(targets)]
        for pid in targets:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        self.report.blows[f"{number.name.removeprefix('SIG')} {victim}"] += 1

    # ------------------------------------------------------------------ edits

    def _edit(self) -> None:
        """Change the space: add, remove, take back or reorder values; sometimes change the code."""
        self.report.edits += 1
        how = self.random.choice(["add", "add", "remove", "take back", "reorder", "code", "code"])
        if how == "add":
            at = self.random.randrange(len(self.xs) + 1)
            more = self.random.randrange(20, 300)
            self.xs[at:at] = range(self._fresh, self._fresh + more)
            self._fresh += more
        elif how == "remove" and len(self.xs) > ROWS:
            self.xs = sorted(self.random.sample(self.xs, len(self.xs) - 60), key=self.xs.index)
        elif how == "take back":
            self.xs += sorted(set(range(self._fresh)) - set(self.xs))[:60]
        elif how == "reorder":
            self.random.shuffle(self.xs)
        elif how == "code":
            self.factor = self.random.randrange(2, 6)
        self._write_task()

    def _write_task(self) -> None:
        for project in (self.project, self.calm):
            project.task("example", TASK.format(xs=self.xs, factor=self.factor))

    # ------------------------------------------------------------------ what has to be true

    def _explain(self, fault: str) -> str:
        hosts = f" on {len(self.hosts)} hosts" if self.hosts else ""
        return f"seed {self.seed}{hosts}: {fault}; {self.report}"

    def _assert_gone(self) -> None:
        gone = self._wait(lambda: not self.processes.find(), 10.0)
        assert gone, self._explain("processes are left behind")

    def _assert_said(self, code: int, said: str) -> None:
        # A signal may come before psy heeds it: then Python ends as it does.
        assert code in (0, 1, -signal.SIGKILL) or (self._signalled and (code == 130 or code < 0)), (
            self._explain(f"exit {code}: {said}")
        )
        assert self._signalled or "Traceback" not in said, self._explain(said)

    def _assert_kept(self) -> None:
        lost = set(self.witness.since) - self.witness.look()
        self.report.lost += len(lost)
        assert not lost, self._explain(f"rows {sorted(lost)} are not on disk any more")

    def _assert_nothing_repeated(self) -> None:
        evaluations = [eval(line) for line in self.project.rows_seen()]
        repeated = [
            (factor, x)
            for factor, x, began in evaluations
            if began > self.witness.since.get((factor, x), began) + DURABLE
        ]
        distinct = {(factor, x) for factor, x, _ in evaluations}
        self.report.rows = len(distinct)
        self.report.unfinished = len(evaluations) - len(distinct) - len(repeated)
        self.report.repeated = len(repeated)
        assert not repeated, self._explain(f"rows {repeated} were evaluated again")

    def _assert_right(self) -> None:
        self.project.psy("run")  # Rows that failed as a child was killed were tried again.
        self.calm.psy("run")
        ours, theirs = self.project.result("example"), self.calm.result("example")
        assert list(ours.items()) == list(theirs.items()), self._explain(
            "the result is not the undisturbed one"
        )
        assert ours == {
            "x": self.xs,
            "y": [x * self.factor for x in self.xs],
            "by": [self.factor] * len(self.xs),
        }
        self.witness.look()
        self._assert_kept()


def _build(root: Path) -> Paced:
    (root / "psy-tasks").mkdir(parents=True)
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "counting.py").write_text(PRELUDE)
    return Paced(root)
