"""``python bench/elements.py``: job arrays beside those written by hand, on a real Slurm of its own.

It writes SLURM.md. Slurm has to be installed (`tests/clusters/slurm.py` starts it), and root to run this.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cases import PSY, RIVALS, check_grid, grid_task, write_task
from harness import HERE, PYTHON, Case, Program, Reach, compare, judge, run
from run import describe_machine, measure_case, show_figures, show_head, show_reached

if TYPE_CHECKING:
    from collections.abc import Sequence

sys.path.append(str(HERE.parent / "tests"))

HEAD = """\
# Job arrays on Slurm

Made by `python bench/elements.py`, on a Slurm of its own with four nodes that are processes of this machine.
The array by hand (`rivals/elements.py`) evaluates the same rows in as many elements, looks for their
files ten times a second, and joins them; it keeps no track of anything. CPU time of elements is what the
accounting of Slurm says.
"""


def write_elements(folder: Path, n: int, elements: int, modules: Sequence[str]) -> None:
    """Write a task whose rows are shared out to so many elements, which imports modules."""
    text = grid_task(n).replace("import Param", "import Param, Slurm")
    imports = "".join(f"import {module}\n" for module in modules)
    write_task(folder, f"{imports}{text}scheduler = Slurm()\nmax_jobs = {elements}\n")


def make_case(n: int, elements: int, *modules: str) -> Case:
    """Return the case of so many rows and elements, each of which imports modules."""
    imports = f"; each imports {', '.join(modules)}" if modules else ""
    used = (PYTHON, str(HERE / "elements.py"), "--used", str(elements))
    programs = (
        Program(
            name="psy run --wait",
            argv=(PSY, "run", "--wait"),
            prepare=partial(write_elements, n=n, elements=elements, modules=modules),
            check=("sh", "-c", f"{' '.join(check_grid('psy-work/t/result.pkl', n))} && {' '.join(used)}"),
        ),
        Program(
            name="sbatch by hand",
            argv=(PYTHON, str(RIVALS / "elements.py"), str(n), str(elements), "result.npz", *modules),
            check=("sh", "-c", f"{' '.join(check_grid('result.npz', n))} && {' '.join(used)}"),
        ),
    )
    return Case(
        name="-".join(["slurm", *modules]),
        title=f"{n:,} rows over {elements} elements, from the command to the result{imports}",
        programs=programs,
        reaches=(
            compare("psy run --wait", "sbatch by hand", 1.5),
            Reach(
                what="an element, CPU seconds",
                most=None if modules else 0.15,
                value=lambda each: each["psy run --wait"].said["element"],
            ),
            Reach(
                what="an element by hand, CPU seconds",
                most=None,
                value=lambda each: each["sbatch by hand"].said["element"],
            ),
        ),
    )


def print_used(elements: int) -> None:
    """Print the CPU time of an element of the array submitted from this folder, when accounting knows all."""
    argv = ("sacct", "-n", "-P", "--format=JobID,State,TotalCPU,WorkDir")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        lines = [line.split("|") for line in run(*argv, folder=Path()).splitlines()]
        ours = {job for job, _, _, folder in lines if "_" in job and folder == str(Path.cwd())}
        used = [
            read_seconds(cpu)
            for job, state, cpu, _ in lines
            if state == "COMPLETED" and job.endswith(".batch") and job.partition(".")[0] in ours
        ]
        if len(used) == elements:
            print(f'{{"element": {sum(used) / elements}}}')
            return
        time.sleep(0.5)
    raise SystemExit("accounting does not tell of all elements")


def read_seconds(text: str) -> float:
    """Read a duration as Slurm writes it.

    Examples
    --------
    >>> read_seconds("01:02.500")
    62.5
    """
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def main() -> None:
    """Start Slurm, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="repetitions (3)")
    parser.add_argument("--rows", type=int, default=10_000, metavar="N", help="rows (10000)")
    parser.add_argument("--elements", type=int, default=200, metavar="N", help="elements (200)")
    parser.add_argument("--used", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.used:
        print_used(options.used)
        return
    from clusters.slurm import Slurm

    folder = Path(tempfile.mkdtemp(prefix="bench-slurm-"))
    cluster = Slurm(folder, accounting=True)
    if lacks := cluster.lacks():
        sys.exit(f"no Slurm: {lacks}")
    try:
        cluster.start()
        os.environ |= cluster.env
        cases = [make_case(options.rows, options.elements, *modules) for modules in ([], ["numpy"])]
        measured = [(case, measure_case(case, options.repeat)) for case in cases]
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    judged = (options.rows, options.elements) == (10_000, 200)
    reached = [each for case, rounds in measured for each in judge(case, rounds)]
    figures = [line for case, rounds in measured for line in show_figures(case, rounds)]
    lines = [*show_reached(reached, judged=judged), "", *show_head(), *figures]
    text = "\n".join(lines) + "\n"
    print(text)
    if judged:
        machine = "\n".join(
            [*describe_machine(), f"- Slurm {run('slurmctld', '-V', folder=HERE).split()[-1]}"]
        )
        (HERE / "SLURM.md").write_text(f"{HEAD}\n{machine}\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
