"""What many batches cost: on a real Slurm to submit and to look after, and here to evaluate and to merge.

Run as root with ``python bench/batches.py [batches]`` where Slurm is installed; the jobs are held, none runs.
Every figure is one command from its start to its end, so that it holds the 0.2 s in which Python starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from clusters.slurm import Slurm

TASK = """\
from psyrun import {scheduler}, Param

pspace = Param(x=range({batches}))
scheduler = {scheduler}()
max_jobs = {batches}
{more}


def execute(x):
    return {{"y": x * 2.0}}
"""


def measure(folder: Path, *commands: str) -> None:
    psy = [sys.executable, "-P", "-m", "psyrun.cli"]
    for command in commands:
        began = time.perf_counter()
        done = subprocess.run([*psy, *command.split()], cwd=folder, capture_output=True, check=False)
        seconds = time.perf_counter() - began
        said = (done.stdout + done.stderr).decode().strip().splitlines()[-1:]
        print(f"psy {command:16s} {seconds:8.2f} s  exit {done.returncode:2d}  {' '.join(said)}", flush=True)


def write(folder: Path, scheduler: str, batches: int, more: str = "") -> None:
    tasks = folder / "psy-tasks"
    tasks.mkdir(parents=True)
    (tasks / "task_t.py").write_text(TASK.format(scheduler=scheduler, batches=batches, more=more))


def measure_slurm(folder: Path, batches: int) -> None:
    cluster = Slurm(folder / "slurm")
    try:
        cluster.start()
        os.environ |= cluster.env
        write(folder / "held", "Slurm", batches, 'scheduler_args = {"extra": ["--hold"]}')
        measure(folder / "held", "run", "run", "status", "kill t")
    finally:
        cluster.stop()


def measure_merge(folder: Path, batches: int) -> None:
    write(folder / "here", "Local", batches)
    measure(folder / "here", "run", "run", "status")
    (folder / "here" / "psy-work" / "t" / "result.pkl").unlink()
    measure(folder / "here", "run")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as base:
        measure_slurm(Path(base), count)
        measure_merge(Path(base), count)
