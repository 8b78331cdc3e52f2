"""What tests hold against psyrun where its own answer is too clever to be copied."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable

__all__ = ["find_rest", "subtract"]

_T = TypeVar("_T")


def find_rest(
    candidates: Iterable[_T], taken: Collection[_T], named: Iterable[Hashable], name: Callable[[_T], Hashable]
) -> list[_T]:
    """Return the candidates that a space does not name, as often as it does not.

    Parameters
    ----------
    candidates
        Finished rows, in order.
    taken
        The rows that the space took, candidates or others.
    named
        The names of the rows of the space.
    name
        Returns the name of a candidate.
    """
    left = Counter(named)
    left.subtract(name(row) for row in candidates if row in taken)
    rest = []
    for row in candidates:
        if row in taken:
            continue
        left[name(row)] -= 1
        if left[name(row)] < 0:
            rest.append(row)
    return rest


def subtract(rows: Iterable[_T], done: Iterable[_T], same: Callable[[_T, _T], bool]) -> list[_T]:
    """Take every row of the second list from the first, once; `same` compares a row of each."""
    done, left = list(done), []
    for row in rows:
        match = next((i for i, other in enumerate(done) if same(row, other)), None)
        if match is None:
            left.append(row)
        else:
            del done[match]
    return left
