"""The grid that all programs evaluate, and the function."""

from __future__ import annotations

from itertools import islice, product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNKS = 16


def axes(n: int) -> tuple[list[int], list[float], list[float]]:
    """Return values of a, b and c whose product has n rows."""
    if n % 100:
        return list(range(n)), [0.5], [1.0]
    return list(range(10)), [each / 10 for each in range(10)], [each / 7 for each in range(n // 100)]


def execute(a: int, b: float, c: float) -> dict[str, float]:
    return {"result": a * b + c}


def evaluate_chunk(n: int, chunk: int) -> list[float]:
    """Evaluate one of 16 parts of the grid."""
    rows = islice(product(*axes(n)), n * chunk // CHUNKS, n * (chunk + 1) // CHUNKS)
    return [execute(*row)["result"] for row in rows]


def save(filename: str, n: int, results: Sequence[float]) -> None:
    """Write the parameters of all rows and their results as scripts by hand do."""
    import numpy as np

    a, b, c = map(np.array, zip(*product(*axes(n))))
    np.savez(filename, a=a, b=b, c=c, result=np.asarray(results))
