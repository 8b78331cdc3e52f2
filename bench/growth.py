"""``python bench/growth.py``: plots time and memory against the number of rows, to growth.png."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from cases import finished, psy_run, rivals
from harness import HERE, MB, measure_rounds

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
    """Return the least of the seconds: what disturbs a run makes it longer."""
    return min(each.wall for each in samples)


def peak(samples: list[Sample]) -> float:
    """Return the median of the memory, in MB."""
    return median(each.peak for each in samples) / MB


def measure_growth(sizes: list[int], repeat: int) -> Growth:
    """Return what each program used for each number of rows that it was asked for."""
    found: Growth = {}
    longest: dict[str, int] = {}
    for n in sizes * repeat:
        programs = [psy_run(n), replace(finished(n), name="psy run, nothing to do"), *rivals(n)]
        wanted = (each for each in programs if not each.lacks() and n <= longest.get(each.name, n))
        for samples in measure_rounds(tuple(wanted), 1):
            for name, sample in samples.items():
                found.setdefault(name, {}).setdefault(n, []).append(sample)
                print(f"{name}: {n:,} rows in {sample.wall:.2f} s", file=sys.stderr, flush=True)
                if sample.wall > PATIENCE:
                    longest[name] = min(n, longest.get(name, n))
    return found


def plot(found: Growth) -> None:
    """Draw time and memory beside each other."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    figure, panels = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    for panel, title, value in zip(panels, ("seconds", "memory of the largest process, MB"), (wall, peak)):
        for (name, sizes), marker in zip(found.items(), "oosv^<>Dp"):
            ours = name.startswith("psy")
            style = {"color": "black", "linewidth": 2.5, "zorder": 3} if ours else {"linewidth": 1.2}
            dashes = (
                "--" if "nothing" in name or marker == "p" else "-"
            )  # GNU parallel and doit start the same
            values = [value(samples) for samples in sizes.values()]
            panel.loglog(list(sizes), values, dashes, marker=marker, markersize=5, label=name, **style)
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("")
        panel.set(xlabel="rows", title=title)
        panel.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.savefig(HERE / "growth.png", dpi=110)


if __name__ == "__main__":
    main()
