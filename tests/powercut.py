"""Power cuts: psy run is traced, and what a disk holds at a random moment is built from that.

On what the disk holds, `psy run` is run again. It has to end with 0 and the values of plain Python, without
any cure by hand, and must not evaluate rows again that were finished some time before the cut.

``python tests/powercut.py --cuts 300 --seed 7`` tries many on each disk of `disks`. With ``--trace FILE``
the runs are kept, so that ``--models strict --only 12`` can repeat a cut.
"""

from __future__ import annotations

import argparse
import marshal
import pickle
import random
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from conftest import PRELUDE, Project, pytest_configure
from disks import MODELS, Record, restore
from forks import ForkServer
from processes import Processes

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Cut", "Report", "Trace", "cut_power", "read_records", "record"]

TASK = """\
import os
import time
from counting import seen
from psyrun import Param

pspace = Param(x=list({xs}))
max_jobs = 2
pool_size = 2


def execute(x):
    time.sleep(float(os.environ["PACE"]))
    seen(x, time.monotonic())
    return {{"y": 3 * x + 1}}
"""
PACE = 0.004  # seconds per row
DURABLE = 1.2  # seconds after which a finished row must be on disk: one, and some for the way there
ALLOWED = {"ordered": 0, "strict": 1}  # older rows that may be evaluated again, per cut
_UNTRACED = (".doit.db", "__pycache__", "log")  # a cache that SQLite writes; what processes inherit


class Paced(Project):
    """A project whose rows take so many seconds, and which may be traced."""

    pace = 0.0
    trace: Path | None = None

    @property
    def evaluations(self) -> Path:
        return self.root.parent / "evaluations.txt"

    def env(self, **more: str) -> dict[str, str]:
        if self.trace is not None:
            more |= {"TRACE": str(self.trace), "TRACED": str(self.root.resolve())}
        return super().env(PACE=str(self.pace), **more)

    def finished(self) -> dict[int, float]:
        """Return x -> when its row was finished first."""
        found: dict[int, float] = {}
        for line in self.rows_seen():
            x, when = eval(line)
            found.setdefault(x, when)
        return found


def build(folder: Path) -> Paced:
    """Make an empty project."""
    root = folder / "my project"
    (root / "psy-tasks").mkdir(parents=True)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "counting.py").write_text(PRELUDE)
    return Paced(root)


# ---------------------------------------------------------------------- recording


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What two runs did, the second after an edit of the space.

    Parameters
    ----------
    records
        What happened to files, in the order in which it took effect.
    spaces
        The values of x of both runs.
    edited
        When the task file was edited.
    finished
        x -> when its row was finished.
    delay
        Seconds for which this machine kept a thread waiting that slept: it may have kept psy waiting, too.
    """

    records: list[Record]
    spaces: tuple[list[int], list[int]]
    edited: float
    finished: dict[int, float]
    delay: float

    @property
    def begin(self) -> float:
        return float(self.records[0][1])

    @property
    def end(self) -> float:
        return float(self.records[-1][1])


def record(folder: Path, rows: int) -> Trace:
    """Run a task of so many rows, edit its space, run it again, and return what happened.

    Raises
    ------
    AssertionError
        If psy fails, or the records do not lead to the files that are there.
    """
    project = build(folder)
    shutil.copy(Path(__file__).parent / "traced" / "sitecustomize.py", folder / "elsewhere")
    project.pace, project.trace = PACE, folder / "trace"
    first = list(range(rows))
    second = [*range(rows + rows // 3, rows, -1), *range(0, rows, 2)]
    with _Metronome() as metronome:
        project.task("example", TASK.format(xs=first))
        project.psy("run")
        edited = time.monotonic()
        project.task("example", TASK.format(xs=second))
        project.psy("run")
    _wait_for_end(project)
    trace = Trace(
        records=list(read_records(project.trace)),
        spaces=(first, second),
        edited=edited,
        finished=project.finished(),
        delay=metronome.longest,
    )
    _assert_complete(trace, folder / "replayed", project.root)
    return trace


class _Metronome:
    """Sleeps, and notes how much longer that took than it should."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat)

    def __enter__(self) -> _Metronome:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        before = time.monotonic()
        while not self._over.wait(0.01):
            now = time.monotonic()
            self.longest, before = max(self.longest, now - before - 0.01), now


def _wait_for_end(project: Project) -> None:
    processes = Processes(project)
    deadline = time.monotonic() + 10.0
    while processes.find():
        assert time.monotonic() < deadline, "processes are left behind"
        time.sleep(0.01)


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a trace."""
    with path.open("rb") as file:
        while True:
            try:
                yield marshal.load(file)
            except EOFError:
                return


def _assert_complete(trace: Trace, folder: Path, root: Path) -> None:
    """The records say what became of every file."""
    folder.mkdir()
    restore(trace.records, folder)
    ours, there = _read_files(folder), _read_files(root)
    differ = [name for name in {*ours, *there} if ours.get(name) != there.get(name)]
    assert not differ, f"not all that happened to {sorted(differ)[:5]} was traced"


def _read_files(root: Path) -> dict[str, bytes]:
    paths = [path for path in (root / "psy-work").rglob("*") if path.is_file()]
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in paths
        if not any(part.startswith(_UNTRACED) for part in path.relative_to(root).parts)
    }


# ---------------------------------------------------------------------- cutting


@dataclass(slots=True)
class Report:
    """What came of cuts.

    Parameters
    ----------
    cuts
        How many were tried.
    lost
        How many rows were evaluated again although they were old.
    losing
        At how many cuts more of them than the model allows.
    wrong
        At how many cuts the result was wrong.
    failed
        At how many cuts psy run did not end with 0.
    said
        What happened at those that went wrong.
    """

    cuts: int = 0
    lost: int = 0
    losing: int = 0
    wrong: int = 0
    failed: int = 0
    said: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        return len(self.said)

    def __str__(self) -> str:
        return (
            f"{self.cuts} cuts: {self.lost} rows lost that were older than {DURABLE} s (too many"
            f" at {self.losing} cuts), wrong values at {self.wrong}, not finished by one psy run at"
            f" {self.failed}"
        )


@dataclass(frozen=True, slots=True)
class Cut:
    """A power cut; its moment and what survives depend on seed and number alone."""

    model: str
    seed: int
    number: int

    def __str__(self) -> str:
        return f"{self.model} {self.seed} {self.number}"

    def choose_moment(self, trace: Trace) -> float:
        """Return when the power goes: at any time, or around a change of names or a sync."""
        chance = random.Random(str(self))
        if self.number % 2:
            return chance.uniform(trace.begin, trace.end)
        return float(chance.choice([record[1] for record in trace.records if record[0] != "write"]))


def cut_power(trace: Trace, cut: Cut, folder: Path, forks: ForkServer, report: Report) -> None:
    """Cut the power, run psy, and report what is there then."""
    when = cut.choose_moment(trace)
    project = build(folder)
    project.forks = forks
    xs = trace.spaces[when >= trace.edited]
    project.task("example", TASK.format(xs=xs))
    restore(trace.records, project.root, until=when, model=cut.model, seed=str(cut))
    done = project.psy("run", code=None)
    age = DURABLE + 2 * trace.delay
    again = [x for x in project.finished() if trace.finished.get(x, when) < when - age]
    faults = []
    if done.returncode != 0:
        faults.append(f"exit {done.returncode}")
        report.failed += 1
    elif project.result("example") != {"x": xs, "y": [3 * x + 1 for x in xs]}:
        faults.append("wrong values")
        report.wrong += 1
    if len(again) > ALLOWED[cut.model]:
        faults.append(f"{len(again)} rows older than {age:.2f} s are lost")
        report.losing += 1
    report.lost += len(again)
    report.cuts += 1
    if faults:
        where = f"{cut}, {when - trace.begin:.2f} s after the start"
        report.said.append(f"{where}: {', '.join(faults)}\n{done.stdout}{done.stderr}")


def cut_often(trace: Trace, cuts: list[Cut], folder: Path, threads: int = 2) -> Report:
    """Cut the power many times, in several threads."""
    report = Report()
    local = threading.local()
    with ExitStack() as stack:

        def do(cut: Cut) -> None:
            if not hasattr(local, "forks"):
                local.forks = ForkServer()
                stack.callback(local.forks.close)
            place = folder / f"{cut.model} {cut.number}"
            cut_power(trace, cut, place, local.forks, report)
            shutil.rmtree(place)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(do, cuts))
    return report


def main() -> int:
    options = _parse()
    pytest_configure()
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        trace = _get_trace(options, Path(name))
        print(
            f"{len(trace.records)} records of {trace.end - trace.begin:.1f} s, {len(trace.finished)} rows,"
            f" a thread waited for {trace.delay:.3f} s at most",
            flush=True,
        )
        for model in options.models:
            numbers = range(options.cuts) if options.only is None else [options.only]
            began = time.monotonic()
            report = cut_often(trace, [Cut(model, options.seed, n) for n in numbers], Path(name))
            for said in report.said[: options.show]:
                print(f"FAILED: {said}", flush=True)
            print(f"{model}: {report}; {time.monotonic() - began:.0f} s", flush=True)
            faults += report.faults
    return bool(faults)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cuts", type=int, default=300, help="per model")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--models", nargs="*", default=MODELS, choices=MODELS)
    parser.add_argument("--rows", type=int, default=1600, help="of the first run")
    parser.add_argument(
        "--trace", type=Path, help="read the trace from this file; where there is none, write it"
    )
    parser.add_argument("--only", type=int, help="only the cut of this number")
    parser.add_argument(
        "--show", type=int, default=5, help="how many cuts that went wrong are shown, per model"
    )
    return parser.parse_args()


def _get_trace(options: argparse.Namespace, folder: Path) -> Trace:
    if options.trace and options.trace.exists():
        trace: Trace = pickle.loads(options.trace.read_bytes())
        return trace
    (folder / "traced").mkdir()
    trace = record(folder / "traced", options.rows)
    if options.trace:
        options.trace.write_bytes(pickle.dumps(trace))
    return trace


if __name__ == "__main__":
    sys.exit(main())
