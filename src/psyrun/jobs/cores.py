"""How many cores this machine grants."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_QUOTA_FILES = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))  # of versions 2 and 1


def count_cores() -> int:
    """Return how many cores this process may use, at least 1.

    That is what ``joblib.cpu_count()`` returns, without the import of joblib, which takes longer than a short
    run: the least of the machine's cores, the affinity, the limit of the cgroup and LOKY_MAX_CPU_COUNT.
    """
    cores = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    return int(max(1, min(cores, affinity, _read_quota(), int(os.environ.get("LOKY_MAX_CPU_COUNT", cores)))))


def _read_quota() -> float:
    """Return the limit of the cgroup, rounded up; infinity where there is none."""
    for names in _QUOTA_FILES:
        try:
            words = [word for name in names for word in (_CGROUP / name).read_text().split()]
        except OSError:
            continue
        if len(words) == 2:
            quota, period = (int(word) if word.isdecimal() else 0 for word in words)
            return math.ceil(quota / period) if quota and period else math.inf
    return math.inf
