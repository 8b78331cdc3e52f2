"""Shrinking batches, more than jobs, so that whoever is quick takes more of them."""

from __future__ import annotations

__all__ = ["LoadBalancingBackend"]


class LoadBalancingBackend:
    """Batches that shrink from a half share to `min_items` rows, `max_jobs` of them at a time.

    Each batch takes half of an equal share of the rows that are left (factoring; Hummel, Schonberg and
    Flynn, Communications of the ACM 35(8), 1992), so that long rows at the end are spread thinly.

    Examples
    --------
    >>> LoadBalancingBackend().partition(rows=20, max_jobs=2, min_items=1)
    [5, 5, 3, 3, 1, 1, 1, 1]
    """

    def partition(self, rows: int, max_jobs: int, min_items: int) -> list[int]:
        """Return the sizes of the batches, which add up to `rows`."""
        sizes: list[int] = []
        while rows:
            share = max(min_items, -(-rows // (2 * max_jobs)))
            for _ in range(max_jobs):
                size = min(share, rows)
                sizes += [size] if size else []
                rows -= size
        return sizes

    def throttle(self, max_jobs: int) -> int:
        """Return `max_jobs`."""
        return max_jobs
