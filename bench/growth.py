"""``python bench/growth.py``: plots time and memory against the number of rows, to growth.png."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from cases import finished, psy_run, rivals
from harness import HERE, MB, by_program, measure_rounds

if TYPE_CHECKING:
    from harness import Sample

PATIENCE = 10.0  # seconds: a program that took longer is not asked for ten times as many rows
Growth = dict[str, dict[int, list["Sample"]]]


def main() -> None:
    """Measure, print, plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="repetitions (3)")
    parser.add_argument("--largest", type=int, default=6, metavar="K", help="up to 10**K rows (6)")
    options = parser.parse_args()
    found = measure_growth([10**k for k in range(2, options.largest + 1)], options.repeat)
    for name, sizes in found.items():
        print(
            name,
            *(f"{n}: {wall(samples):.3f} s {peak(samples):.0f} MB" for n, samples in sizes.items()),
            sep="\t",
        )
    plot(found)


def wall(samples: list[Sample]) -> float:
    """Return the median of the seconds."""
    return median(each.wall for each in samples)


def peak(samples: list[Sample]) -> float:
    """Return the median of the memory, in MB."""
    return median(each.peak for each in samples) / MB


def measure_growth(sizes: list[int], repeat: int) -> Growth:
    """Return what each program used for each number of rows that it was asked for."""
    found: Growth = {}
    slow: set[str] = set()
    for n in sizes:
        programs = [psy_run(n), replace(finished(n), name="psy run, nothing to do"), *rivals(n)]
        wanted = tuple(each for each in programs if not each.lacks() and each.name not in slow)
        for name, samples in by_program(list(measure_rounds(wanted, repeat))).items():
            found.setdefault(name, {})[n] = samples
            print(f"{name}: {n:,} rows in {wall(samples):.2f} s", file=sys.stderr, flush=True)
            if wall(samples) > PATIENCE:
                slow.add(name)
    return found


def plot(found: Growth) -> None:
    """Draw time and memory beside each other."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    for panel, title, value in zip(panels, ("seconds", "memory of the largest process, MB"), (wall, peak)):
        for name, sizes in found.items():
            ours = name.startswith("psy")
            style = {"color": "black", "linewidth": 2.5, "zorder": 3} if ours else {"linewidth": 1.2}
            dashes = "--" if "nothing" in name else "-"
            values = [value(samples) for samples in sizes.values()]
            panel.loglog(list(sizes), values, dashes, marker="o", markersize=4, label=name, **style)
        panel.set(xlabel="rows", title=title)
        panel.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.savefig(HERE / "growth.png", dpi=110)


if __name__ == "__main__":
    main()
