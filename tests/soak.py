"""The long form of the tests that kill and trouble psy: `make soak`.

It lays siege to projects until so many processes were killed, then lets every file operation of psy and its
worker go wrong. It prints how to repeat what failed.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from conftest import pytest_configure
from hosts import can_move
from mishaps import DEEDS, SCENARIOS, Mishap, Stage, undergo
from siege import Report, Siege

if TYPE_CHECKING:
    from collections.abc import Sequence

KILLS = 25  # per siege
HOSTS = ("mars", "venus")
HOSTED = 4  # every fourth seed is laid on these hosts


def main() -> int:
    options = _parse()
    pytest_configure()
    faults = _besiege(options.seed, options.kills) if options.kills else 0
    for name in options.scenarios:
        faults += _try_mishaps(name, options.deeds, options.at)
    return bool(faults)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the first siege")
    parser.add_argument("--kills", type=int, default=500, help=f"at least so many, {KILLS} per siege")
    parser.add_argument("--scenarios", nargs="*", default=list(SCENARIOS), choices=SCENARIOS)
    parser.add_argument("--deeds", nargs="*", default=list(DEEDS), choices=DEEDS)
    parser.add_argument("--at", help="only the mishap that is written so: <module>:<number>:<deed>")
    return parser.parse_args()


def _besiege(first: int, kills: int) -> int:
    """Lay sieges until so many processes were killed; return how many sieges failed."""
    total, faults, seed = Report(), 0, first
    began = time.monotonic()
    while total.kills < kills:
        with tempfile.TemporaryDirectory() as folder:
            siege = Siege(Path(folder), seed, min(KILLS, kills), _hosts(seed))
            try:
                siege.lay()
            except Exception as error:
                faults += 1
                again = f"python tests/soak.py --scenarios --seed {seed} --kills {siege.kills}"
                print(f"FAILED: {type(error).__name__}: {error}\n  again: {again}")
        total += siege.report
        print(f"seed {seed}: {siege.report}", flush=True)
        seed += 1
    seconds = time.monotonic() - began
    print(f"kills: seeds {first} to {seed - 1}, {total}; {seconds:.0f} s, {faults} sieges failed", flush=True)
    return faults


def _hosts(seed: int) -> Sequence[str]:
    return HOSTS if seed % HOSTED == 0 and can_move() else ()


def _try_mishaps(name: str, deeds: list[str], at: str | None) -> int:
    """Try the mishaps of a scenario; return how many psy did not stand."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(SCENARIOS[name], Path(folder))
        stage.prepare()
        mishaps = [
            mishap for mishap in stage.find_mishaps() if mishap.deed in deeds and at in (None, str(mishap))
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            faults = sum(pool.map(lambda mishap: not _stands(stage, mishap), mishaps))
    seconds = time.monotonic() - began
    print(f"mishaps: {name}, {len(mishaps)} tried; {seconds:.0f} s, {faults} failed", flush=True)
    return faults


def _stands(stage: Stage, mishap: Mishap) -> bool:
    try:
        undergo(stage.copy(str(mishap)), stage.scenario, mishap)
    except Exception as error:
        name = type(stage.scenario).__name__
        again = f"python tests/soak.py --kills 0 --scenarios {name} --at {mishap}"
        print(f"FAILED: {type(error).__name__}: {error}\n  again: {again}", flush=True)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
