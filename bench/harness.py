"""Programs measured in turn: each in a process of its own, and what it used until it ended.

This module stays small and imports no NumPy: what the harness holds would count as the memory of each
program that it starts.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
PYTHON = sys.executable
MB = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one run of a program used.

    Parameters
    ----------
    wall, cpu
        Seconds, the latter of the process and of all that it waited for.
    peak, own
        Largest resident memory (bytes) of any of these processes, and of the one that was started.
    written
        Bytes that they gave to the disk.
    files, size
        Files that the run left more in its folder, and bytes in them.
    said
        What the program measured itself: the JSON in the last line that it printed, and what its check did.
    """

    wall: float
    cpu: float
    peak: int = 0
    own: int = 0
    written: int = 0
    files: int = 0
    size: int = 0
    said: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A command, run in a folder of its own.

    Parameters
    ----------
    name
        How the tables call it.
    argv
        The command.
    prepare
        Writes into the folder what the command needs; not measured.
    check
        A command that fails in this folder unless the results are right; it may print JSON, too.
    keep
        Whether all repetitions run in one folder, which is prepared once.
    needs
        Modules and commands (beginning with ``$``) without which it is not measured.
    """

    name: str
    argv: tuple[str, ...]
    prepare: Callable[[Path], object] = lambda folder: None
    check: tuple[str, ...] = ()
    keep: bool = False
    needs: tuple[str, ...] = ()

    def lacks(self) -> list[str]:
        """Return what is not installed."""
        return [each for each in self.needs if not _is_installed(each)]


Round = dict[str, Sample]  # of each program


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What a case is to reach: a value of each repetition, of which the median counts.

    Parameters
    ----------
    what
        What the value is.
    most
        The limit; None: for comparison alone.
    value
        Makes it of one repetition.
    cpu
        The same of CPU time, which other work on the machine disturbs less.
    """

    what: str
    most: float | None
    value: Callable[[Round], float]
    cpu: Callable[[Round], float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Programs that do the same, and what they are to reach."""

    name: str
    title: str
    programs: tuple[Program, ...]
    reaches: tuple[Reach, ...]


def _is_installed(name: str) -> bool:
    return bool(shutil.which(name[1:]) if name.startswith("$") else importlib.util.find_spec(name))


# ---------------------------------------------------------------------- measuring


def run(*argv: str, folder: Path) -> str:
    """Run a command that is not measured; return what it printed."""
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} exited with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def measure(argv: tuple[str, ...], folder: Path) -> Sample:
    """Run a command to its end."""
    before, written = _files(folder), _written()
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        with _watched(process.pid) as watch:
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{' '.join(argv)} exited with {process.returncode}\n{text}")
    after = _files(folder)
    said = _said(text)
    return Sample(
        wall=said.get("wall", wall),
        cpu=said.get("cpu", usage.ru_utime + usage.ru_stime),
        peak=said.get("peak", usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)),
        own=said.get("peak", watch.peak),
        written=_written() - written,
        files=after[0] - before[0],
        size=after[1] - before[1],
        said=said,
    )


def _said(text: str) -> dict[str, Any]:
    last = text.strip().rpartition("\n")[2]
    found: dict[str, Any] = json.loads(last) if last.startswith("{") else {}
    return found


class _watched:  # noqa: N801 - a context
    """The peak memory of a process, looked at 20 times a second: the kernel tells that of the largest."""

    def __init__(self, pid: int) -> None:
        self.status = Path("/proc", str(pid), "status")
        self.peak = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.look)

    def __enter__(self) -> _watched:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def look(self) -> None:
        while not self.ended.wait(0.05):
            try:
                lines = self.status.read_text().splitlines()
            except OSError:
                return
            kilobytes = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
            self.peak = max([self.peak, *(1024 * each for each in kilobytes)])


def _written() -> int:
    """Bytes that this process and those that it waited for gave to the disk; 0 where that is not known."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    counts = dict(line.split(": ") for line in lines)
    return int(counts["write_bytes"])


def _files(folder: str | Path) -> tuple[int, int]:
    """Count files below a folder, and their bytes, without a list that would stay in our memory."""
    files = size = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            nested = entry.is_dir(follow_symlinks=False)
            more = _files(entry.path) if nested else (1, entry.stat(follow_symlinks=False).st_size)
            files, size = files + more[0], size + more[1]
    return files, size


def measure_rounds(programs: tuple[Program, ...], repeat: int) -> Iterator[Round]:
    """Run all programs, in turn, and this so many times; yield what each used.

    Results are checked after each run, so that nothing counts that is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        base = Path(name)
        for number in range(repeat):
            samples = {}
            for program in programs:
                folder = base / ("keep" if program.keep else str(number)) / program.name.replace("/", " ")
                if not folder.exists():
                    folder.mkdir(parents=True)
                    program.prepare(folder)
                samples[program.name] = measure(program.argv, folder)
                if program.check:
                    samples[program.name].said.update(_said(run(*program.check, folder=folder)))
                if not program.keep:
                    run("rm", "-rf", str(folder), folder=base)  # shutil lists what it removes.
            yield samples


# ---------------------------------------------------------------------- judging


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What a case reached: the values of all repetitions; none where a program is not installed."""

    case: str
    title: str
    what: str
    most: float | None
    values: tuple[float, ...]
    cpu: tuple[float, ...]

    def verdict(self) -> str:
        """Return ``met``, ``not met``, ``not measured``, or nothing where there is no limit."""
        if not self.values:
            return "not measured"
        if self.most is None:
            return ""
        return "met" if median(self.values) <= self.most else "not met"


def judge(case: Case, rounds: list[Round]) -> list[Reached]:
    """Return what a case reached."""
    return [
        Reached(
            case=case.name,
            title=case.title,
            what=reach.what,
            most=reach.most,
            values=_values(reach.value, rounds),
            cpu=_values(reach.cpu, rounds) if reach.cpu else (),
        )
        for reach in case.reaches
    ]


def _values(value: Callable[[Round], float], rounds: list[Round]) -> tuple[float, ...]:
    try:
        return tuple(map(value, rounds))
    except KeyError:  # of a program that is not installed
        return ()


def compare(ours: str, rival: str, most: float | None = None, *, scale: float = 1, what: str = "") -> Reach:
    """Return the ratio of two programs, divided by how much more the first has to do."""
    return Reach(
        what=what or f"/ {rival}",
        most=most,
        value=lambda each: each[ours].wall / each[rival].wall / scale,
        cpu=lambda each: each[ours].cpu / each[rival].cpu / scale,
    )
