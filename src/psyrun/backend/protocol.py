"""What a partition policy is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Backend"]


@runtime_checkable
class Backend(Protocol):
    """Decides how many rows go into which batch, and how many batches run at a time."""

    def partition(self, rows: int, max_jobs: int, min_items: int) -> Sequence[int]:
        """Return the sizes of the batches, all above 0, which add up to `rows`."""
        ...

    def throttle(self, max_jobs: int) -> int | None:
        """Return how many batches may run at a time; None where the scheduler alone decides."""
        ...
