"""What observing inputs costs: rows that each read a small file of their own, with and without it.

Run with ``python bench/inputs.py [rows] [rounds]``. Each round runs both cases; CPU time, of psy and of all
processes that it starts. Timings on a shared machine are noisy: look at the ratios of one run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TASK = """\
import json

from psyrun import Param

pspace = Param(x=range({rows}))
pool_size = 2
track_inputs = {track_inputs}


def execute(x):
    with open(f"data/{{x % {files}}}.json") as file:
        return {{"y": json.load(file)}}
"""
COMMANDS = ("run, everything to do", "run, nothing to do", "status")


def write(folder: Path, rows: int, files: int, *, track_inputs: bool) -> None:
    data = folder / "psy-tasks" / "data"
    data.mkdir(parents=True)
    for x in range(files):
        (data / f"{x}.json").write_text(f"{x}")
    time.sleep(2.1)  # Files that changed just now would be read again, whatever their times say.
    text = TASK.format(rows=rows, files=files, track_inputs=track_inputs)
    (folder / "psy-tasks" / "task_t.py").write_text(text)


def cpu_seconds(command: str, folder: Path) -> float:
    """Run a command; return the CPU time of its process and of those that it waited for."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "psyrun.cli", command], cwd=folder, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return usage.ru_utime + usage.ru_stime


def measure(rows: int, files: int, rounds: int) -> None:
    seconds: dict[tuple[str, bool], list[float]] = {}
    for _ in range(rounds):
        for tracked in (False, True):
            with tempfile.TemporaryDirectory() as base:
                write(Path(base), rows, files, track_inputs=tracked)
                for name in COMMANDS:
                    used = cpu_seconds(name.split(",")[0], Path(base))
                    seconds.setdefault((name, tracked), []).append(used)
    for name in COMMANDS:
        bare, observed = (statistics.median(seconds[name, each]) for each in (False, True))
        micro = 1e6 * (observed - bare) / rows
        print(
            f"{rows:9,} rows {files:7,} files  {name:22s} {bare:7.3f} s, observed {observed:7.3f} s"
            f" {observed / bare:6.2f} x {micro:8.2f} us/row",
            flush=True,
        )


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    times = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    measure(count, count, times)
    measure(10 * count, count, max(1, times // 2))
    measure(100 * count, 1, 1)
