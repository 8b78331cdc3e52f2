"""Tables as HTML, for notebooks: the first and last rows of a table that may have billions."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from psyrun.values import show_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


_ENDS = 5  # rows at either end


def show_table(size: int, take: Callable[[Sequence[int]], Mapping[str, Sequence[Any]]]) -> str:
    """Return a table of numbered rows as HTML, the first and last ones where there are more than ten.

    Parameters
    ----------
    size
        The number of rows.
    take
        Called once, with the numbers of the rows that are shown; returns them as columns.

    Examples
    --------
    >>> show_table(1, lambda rows: {"a<b": ["&"]})
    '<table><tr><th></th><th>a&lt;b</th></tr><tr><th>0</th><td>&#x27;&amp;&#x27;</td></tr></table>1 row'
    """
    gap = size > 2 * _ENDS
    shown = [*range(_ENDS), *range(size - _ENDS, size)] if gap else range(size)
    table = take(shown)
    lines = [_line("th", ["", *table])]
    lines += [
        _line("td", map(show_value, values), f"{row:,}") for row, *values in zip(shown, *table.values())
    ]
    if gap:
        lines.insert(1 + _ENDS, _line("td", ["..."] * len(table), "..."))
    return f"<table>{''.join(lines)}</table>{size:,} row{'s' * (size != 1)}"


def _line(tag: str, cells: Iterable[str], number: str | None = None) -> str:
    first = "" if number is None else f"<th>{number}</th>"
    return f"<tr>{first}{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
