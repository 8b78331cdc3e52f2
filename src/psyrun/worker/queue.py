"""Rows that were not handed out yet, and how many a child gets at a time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


_AIM = 0.05  # seconds of evaluation that a mini-batch should hold
_GROWTH = 8
STRIKES = 3  # deaths for no known reason before rows are suspected one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Rows to evaluate.

    Parameters
    ----------
    tag
        What the children know the rows' batch by.
    rows
        Numbers of the rows (n,) within the batch.
    """

    tag: int
    rows: Sequence[int]


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows [lo, hi) of a work, and how often a child died over them for no known reason."""

    work: Work
    lo: int
    hi: int
    strikes: int = 0

    def __len__(self) -> int:
        return self.hi - self.lo

    @property
    def rows(self) -> Sequence[int]:
        """Their numbers."""
        return self.work.rows[self.lo : self.hi]

    def part(self, lo: int, hi: int) -> Piece:
        """Return the rows from `lo` to `hi`, counted from this piece's first."""
        return Piece(self.work, self.lo + lo, self.lo + hi, self.strikes)


class Queue:
    """The rows that are left, in the order in which they are begun."""

    def __init__(self, work: Iterable[Work]) -> None:
        self._pieces = deque(Piece(w, 0, len(w.rows)) for w in work if len(w.rows))
        self.left = sum(map(len, self._pieces))

    def take(self, most: int) -> Piece:
        """Remove at most `most` rows; suspects come one at a time."""
        piece = self._pieces.popleft()
        n = 1 if piece.strikes >= STRIKES else min(most, len(piece))
        if n < len(piece):
            self._pieces.appendleft(piece.part(n, len(piece)))
        self.left -= n
        return piece.part(0, n)

    def put_back(self, piece: Piece) -> None:
        """Let rows be begun next."""
        if len(piece):
            self._pieces.appendleft(piece)
            self.left += len(piece)


class Pace:
    """How many rows fill a mini-batch."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._limit = 1

    def measure(self, rows: int, seconds: float) -> None:
        """Learn from rows that took so long."""
        fitting = int(_AIM * rows / max(seconds, 1e-6))
        self._limit = max(1, min(fitting, _GROWTH * self._limit))

    def rows(self, left: int) -> int:
        """Return how many of the rows `left` to take; towards the end fewer, so that no child idles."""
        return min(self._limit, max(1, left // (2 * self._size)))

    def depth(self, left: int) -> int:
        """Return how many mini-batches a child may have: rows that wait behind a slow row wait long."""
        return 2 if self._limit > 1 and left > self._size * self._limit else 1
