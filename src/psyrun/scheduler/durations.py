"""Time limits: one notation for the option `timelimit` of all schedulers."""

from __future__ import annotations

import re
from typing import Any

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: Any) -> int:
    """Return a time limit in seconds, rounded up.

    Parameters
    ----------
    value
        Minutes; ``[days-]hours:minutes:seconds``, or ``minutes:seconds``, or ``days-hours``; or a number
        with a unit s, m, h or d.

    Raises
    ------
    ValueError
        If it is written otherwise.

    Examples
    --------
    >>> [parse_duration(each) for each in (90, "1:30", "2:00:00", "1-12", "2h", "1.5m")]
    [5400, 90, 7200, 129600, 7200, 90]
    """
    text = str(value).strip().lower()
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text):
        return -int(-float(found[1]) * _UNITS[found[2] or "m"] // 1)
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not found:
        raise ValueError(f"{value!r} is no time limit; write minutes, hours:minutes:seconds, or 2h")
    days = found[1]
    parts = [int(part) for part in found.groups()[1:] if part is not None]
    forms = {2: (60, 1), 3: (3600, 60, 1)}
    units = forms[len(parts)] if days is None else (3600, 60, 1)  # after days, hours come first
    return int(days or 0) * _UNITS["d"] + sum(part * unit for part, unit in zip(parts, units))


def format_duration(seconds: int) -> str:
    """Return seconds as ``hours:minutes:seconds``.

    Examples
    --------
    >>> format_duration(129_601)
    '36:00:01'
    """
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def warning_seconds(limit: int | None) -> int:
    """Return how long before its time limit a job is warned: a twentieth of it, from 10 to 120 s."""
    return 60 if limit is None else min(120, max(10, limit // 20))
