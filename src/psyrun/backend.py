"""Backends: partition policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence


@runtime_checkable
class Backend(Protocol):
    """Decides how many rows go into which batch, and how many batches run at a time."""

    def partition(self, rows: int, max_jobs: int, min_items: int) -> Sequence[int]:
        """Return the sizes of the batches, all above 0, which add up to `rows`."""
        ...

    def throttle(self, max_jobs: int) -> int | None:
        """Return how many batches may run at a time; None where the scheduler alone decides."""
        ...


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
