"""Random numbers of rows: a generator that is seeded by what a row is, and by which of its equals it is."""

from __future__ import annotations

import hashlib
from collections import Counter
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Hashable, Iterable, Mapping

    import numpy as np


RNG = "rng"


def takes_rng(function: Callable[..., Any], given: Container[str]) -> bool:
    """Whether a function needs a parameter `rng` that is not given.

    Parameters
    ----------
    function
        The function. A default of its own counts: then it needs nothing.
    given
        Names of the parameters that it gets.

    Examples
    --------
    >>> def execute(x, rng): ...
    >>> takes_rng(execute, {"x"}), takes_rng(execute, {"x", "rng"})
    (True, False)
    """
    if RNG in given or _is_plain_without(RNG, function):
        return False
    import inspect

    try:
        parameter = inspect.signature(function).parameters.get(RNG)
    except (TypeError, ValueError):
        return False
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return parameter is not None and parameter.kind in named and parameter.default is parameter.empty


def _is_plain_without(name: str, function: Callable[..., Any]) -> bool:
    """Whether a function that no decorator changed has no variable of a name: seen without `inspect`."""
    return (
        isinstance(function, FunctionType)
        and not vars(function)
        and name not in function.__code__.co_varnames
    )


def make_rng(assignment: Mapping[str, Any], replicate: int) -> np.random.Generator:
    """Return a generator for a row, the same wherever and whenever the row is evaluated.

    Parameters
    ----------
    assignment
        The row: parameter -> value. The seed is a digest of its `row_keys`.
    replicate
        Which of equal rows it is, from 0.

    Raises
    ------
    IdentityError
        If a value can't be pickled; the message names its parameter.

    Examples
    --------
    >>> same = [make_rng({"x": 1}, 0).random() for _ in range(2)]
    >>> same[0] == same[1] != make_rng({"x": 1}, 1).random()
    True
    """
    import numpy as np

    from psyrun.pspace.keys import row_keys

    # ascii, unlike repr, does not depend on what a Python knows of Unicode.
    key = ascii(row_keys({name: [value] for name, value in assignment.items()}))
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16])
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(replicate,))))


def number_equals(keys: Iterable[Hashable]) -> list[int]:
    """Return for each key how many equal ones stand before it.

    Examples
    --------
    >>> number_equals(["a", "b", "a", "a"])
    [0, 0, 1, 2]
    """
    seen: Counter[Hashable] = Counter()
    numbers = []
    for key in keys:
        numbers.append(seen[key])
        seen[key] += 1
    return numbers
