"""Batches of equal size, as many as jobs."""

from __future__ import annotations

__all__ = ["DistributeBackend"]


class DistributeBackend:
    """At most `max_jobs` batches of at least `min_items` rows each, sizes differing by at most one.

    Examples
    --------
    >>> DistributeBackend().partition(rows=10, max_jobs=4, min_items=1)
    [3, 3, 2, 2]
    """

    def partition(self, rows: int, max_jobs: int, min_items: int) -> list[int]:
        """Return the sizes of the batches, which add up to `rows`."""
        if rows == 0:
            return []
        batches = max(1, min(max_jobs, rows // min_items))
        size, larger = divmod(rows, batches)
        return [size + 1] * larger + [size] * (batches - larger)

    def throttle(self, max_jobs: int) -> None:
        """Return None: there are no more batches than jobs."""
        del max_jobs
