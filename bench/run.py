"""``python bench/run.py``: measures psyrun beside its rivals, and prints what it reached.

Without ``--only`` and ``--quick``, the same is written to RESULTS.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from cases import make_cases
from harness import HERE, MB, judge, measure_rounds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Case, Reached, Round, Sample

HEAD = """\
# What psyrun reaches

Made by `make bench`; README.md beside this file says how. Ratios are of runs in turn on one machine, so that
they stand where its speed drifts: the median of the repetitions, and the least and the most.
"""
COLUMNS = {  # of the second table: what is shown, and how it is made of a sample
    "CPU, s": lambda sample: f"{sample.cpu:.3f}",
    "largest process, MB": lambda sample: f"{sample.peak / MB:.0f}",
    "first process, MB": lambda sample: f"{sample.own / MB:.0f}",
    "written, MB": lambda sample: f"{sample.written / MB:.2f}",
    "files": lambda sample: str(sample.files),
}


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, once: whether all cases work")
    parser.add_argument("--only", action="append", metavar="NAME", help="this case alone; may be repeated")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="repetitions (5)")
    options = parser.parse_args()
    cases = {case.name: case for case in make_cases(quick=options.quick)}
    unknown = set(options.only or ()).difference(cases)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(cases)}")
    reached: list[Reached] = []
    figures: list[str] = []
    for name in options.only or cases:
        rounds = measure_case(cases[name], 1 if options.quick else options.repeat)
        reached += judge(cases[name], rounds)
        figures += show_figures(cases[name], rounds)
    text = "\n".join([*show_reached(reached, judged=not options.quick), "", *show_head(), *figures]) + "\n"
    print(text)
    if not options.only and not options.quick:
        machine = "\n".join([describe_rivals(), *describe_machine()])
        (HERE / "RESULTS.md").write_text(f"{HEAD}\n{machine}\n\n{text}", encoding="utf-8")
    return 0


def measure_case(case: Case, repeat: int) -> list[Round]:
    """Measure the programs of a case that are installed."""
    rounds = []
    programs = tuple(each for each in case.programs if not each.lacks())
    for number, each in enumerate(measure_rounds(programs, repeat), 1):
        print(f"{case.name}: {number} of {repeat}", file=sys.stderr, flush=True)
        rounds.append(each)
    return rounds


# ---------------------------------------------------------------------- tables


def show_reached(reached: list[Reached], *, judged: bool) -> Iterator[str]:
    """Yield the table of what is to be reached."""
    yield "| case | ratio or figure | at most | reached | least to most | of CPU time | |"
    yield "|---|---|---|---|---|---|---|"
    shown = ""
    for each in reached:
        case, shown = "" if each.case == shown else f"{each.case}: {each.title}", each.case
        most = "" if each.most is None else f"{each.most:g}"
        values = each.values
        found = f"{median(values):.3g} | {min(values):.3g} to {max(values):.3g}" if values else " | "
        verdict = each.verdict() if judged or not values else "small sizes"
        cpu = f"{median(each.cpu):.3g}" if each.cpu else ""
        yield f"| {case} | {each.what} | {most} | {found} | {cpu} | {verdict} |"


def show_head() -> Iterator[str]:
    """Yield the head of the table of figures."""
    yield f"| case | program | wall, s | least to most | {' | '.join(COLUMNS)} |"
    yield "|---" * (4 + len(COLUMNS)) + "|"


def show_figures(case: Case, rounds: list[Round]) -> Iterator[str]:
    """Yield a line for each program of a case."""
    for program in case.programs:
        if lacks := program.lacks():
            yield f"| {case.name} | {program.name} | not installed: {', '.join(lacks)} |" + " |" * (
                1 + len(COLUMNS)
            )
            continue
        samples: list[Sample] = sorted((each[program.name] for each in rounds), key=lambda each: each.wall)
        middle = samples[len(samples) // 2]
        cells = [make(middle) for make in COLUMNS.values()]
        spread = f"{middle.wall:.4g} | {samples[0].wall:.4g} to {samples[-1].wall:.4g}"
        yield f"| {case.name} | {program.name} | {spread} | {' | '.join(cells)} |"


# ---------------------------------------------------------------------- where it was measured


def describe_machine() -> Iterator[str]:
    """Yield versions and machine as a list."""
    git = ("git", "-C", str(HERE), "describe", "--always", "--dirty", "--exclude=*")
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    yield f"- psyrun {version('psyrun')}, commit {commit}; Python {platform.python_version()}"
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    yield f"- {os.cpu_count()} cores ({cpu_model()}), {gigabytes:.0f} GB of memory, {system}, {file_system()}"


def describe_rivals() -> str:
    """Return the versions of all rivals."""
    pinned = [line.partition("==")[0] for line in (HERE / "requirements.txt").read_text().split()]
    return f"- {', '.join([*(f'{name} {version(name)}' for name in pinned), gnu_parallel()])}"


def gnu_parallel() -> str:
    """Return the version of GNU parallel."""
    if not shutil.which("parallel"):
        return "GNU parallel not installed"
    said = subprocess.run(("parallel", "--version"), capture_output=True, text=True, check=False).stdout
    return said.partition("\n")[0]


def cpu_model() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def file_system() -> str:
    """Return the kind of file system that the programs write to."""
    df = ("df", "--output=fstype", tempfile.gettempdir())
    said = subprocess.run(df, capture_output=True, text=True, check=False).stdout.split()
    return said[-1] if said else "a file system that df does not name"


if __name__ == "__main__":
    sys.exit(main())
