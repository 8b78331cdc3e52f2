"""Chunks of rows: which are left, and how many rows a child gets at a time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


MAX_UNEXPLAINED_DEATHS = 3  # over a chunk before its rows are evaluated one by one

_CHUNK_SECONDS = 0.05
_MAX_GROWTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Rows of a batch to evaluate.

    Parameters
    ----------
    batch
        The batch.
    rows
        Numbers of the rows (n,) within the batch.
    """

    batch: Any
    rows: Sequence[int]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows [start, stop) of a work, and how many children died over them for no known reason."""

    work: Work
    start: int
    stop: int
    deaths: int = 0

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def rows(self) -> Sequence[int]:
        """Numbers of the rows within the batch."""
        return self.work.rows[self.start : self.stop]

    def part(self, start: int, stop: int) -> Chunk:
        """Return rows of this chunk, counted from its first."""
        return Chunk(self.work, self.start + start, self.start + stop, self.deaths)


class Backlog:
    """Rows that no child has, in the order of evaluation."""

    def __init__(self, work: Iterable[Work]) -> None:
        self._chunks = deque(Chunk(each, 0, len(each.rows)) for each in work if len(each.rows))
        self.size = sum(map(len, self._chunks))

    def take(self, limit: int) -> Chunk:
        """Remove the next rows, at most `limit`; only one where too many children died over them."""
        chunk = self._chunks.popleft()
        n = 1 if chunk.deaths >= MAX_UNEXPLAINED_DEATHS else min(limit, len(chunk))
        self.size -= len(chunk)
        self.put_back(chunk.part(n, len(chunk)))
        return chunk.part(0, n)

    def put_back(self, chunk: Chunk) -> None:
        """Make these rows the next ones."""
        if len(chunk):
            self._chunks.appendleft(chunk)
            self.size += len(chunk)


class ChunkSizer:
    """Sizes chunks by the rate of the rows so far.

    Parameters
    ----------
    children
        Number of children.
    """

    def __init__(self, children: int) -> None:
        self._children = children
        self._limit = 1

    def measure(self, rows: int, seconds: float) -> None:
        """Adapt to a chunk of `rows` rows that took `seconds`."""
        fitting = int(_CHUNK_SECONDS * rows / max(seconds, 1e-6))
        self._limit = max(1, min(fitting, _MAX_GROWTH * self._limit))

    def rows_per_chunk(self, left: int) -> int:
        """Return the size of the next chunk of `left` rows: smaller at the end, so that no child idles."""
        return min(self._limit, max(1, left // (2 * self._children)))

    def chunks_per_child(self, left: int) -> int:
        """Return how many chunks a child may have: one if rows are slow, since a second would wait long."""
        return 2 if self._limit > 1 and left > self._children * self._limit else 1
