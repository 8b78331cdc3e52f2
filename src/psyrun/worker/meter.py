"""Measuring rows: how long each took, the peak memory of its process, and where in the log its output is."""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


SLOW_SECONDS = 0.005  # rows that take longer are measured one by one

Run = tuple[
    int, float, int, int, int
]  # rows, seconds of each, peak memory, begin and end in the log in bytes


class RowMeter:
    """Measures the rows of a request.

    Parameters
    ----------
    flush
        Flushes the output of the process.
    keep
        Moves a file descriptor out of the range that user code closes.
    """

    def __init__(self, flush: Callable[[], None], keep: Callable[[int], int]) -> None:
        self.runs: list[Run] = []
        self._flush = flush
        self._log = self._status = self._clear = -1
        with suppress(OSError):
            self._log = keep(os.dup(1))
            self._status = keep(os.open("/proc/self/status", os.O_RDONLY))
            self._clear = keep(os.open("/proc/self/clear_refs", os.O_WRONLY))
        self._peak = _process_peak()
        self._rows, self._since, self._begin = 0, 0.0, self.log_size()

    def begin(self, now: float) -> int:
        """Begin a request; return where in the log the output of its rows begins."""
        self.runs = []
        self._rows, self._since, self._begin = 0, now, self.log_size()
        return self._begin

    def measure(self, rows: int, began: float, ended: float) -> int:
        """Measure a slow row, before which there were `rows`; return where the output of the next begins."""
        self._flush()
        end = self.log_size()
        self._add_fast(rows, began, end)
        self.runs.append((1, ended - began, self._take_peak(), self._begin, end))
        self._rows, self._since, self._begin = rows + 1, ended, end
        return end

    def end(self, rows: int, now: float) -> None:
        """End a request of which so many rows were evaluated."""
        self._flush()
        self._add_fast(rows, now, self.log_size())

    def _add_fast(self, rows: int, now: float, end: int) -> None:
        number = rows - self._rows
        if number > 0:
            self.runs.append((number, (now - self._since) / number, 0, self._begin, end))

    def log_size(self) -> int:
        """Return the size of the log in bytes; 0 where standard output is no file."""
        try:
            return os.fstat(self._log).st_size
        except OSError:
            return 0

    def _take_peak(self) -> int:
        """Return the peak memory since the last call in bytes, and begin anew; 0 where it is not known."""
        if self._clear >= 0:
            try:
                text = os.pread(self._status, 8192, 0)
                peak = int(text.partition(b"VmHWM:")[2].split(None, 1)[0]) * 1024
                os.write(self._clear, b"5")
            except (OSError, ValueError, IndexError):
                return 0
            return peak
        before, self._peak = self._peak, _process_peak()
        return self._peak if self._peak > before else 0


def _process_peak() -> int:
    """Return the peak memory of the process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
