"""Tables as CSV: for spreadsheets and other programs."""

from __future__ import annotations

import re
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.errors import StoreError
from psyrun.store.protocol import RewrittenStore, count_rows, take_row

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping


_CELL = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\n]*))(,|\n|\Z)')
_WORDS = {"": None, "True": True, "False": False}


class CsvStore(RewrittenStore):
    """Keeps numbers and text as CSV, a line for each row, the names in the first line.

    Text stands in quotes, numbers, ``True`` and ``False`` do not, and an empty cell without quotes is a
    missing value: so each comes back as it was. Numbers come back as Python's.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> filename = pathlib.Path(tempfile.mkdtemp(), "table.csv")
    >>> CsvStore().save(filename, {"x": [1, 2.5], "word": ["007", None]})
    >>> print(filename.read_text())
    "x","word"
    1,"007"
    2.5,
    <BLANKLINE>
    >>> CsvStore().load(filename)
    {'x': [1, 2.5], 'word': ['007', None]}
    """

    ext = ".csv"

    def check(self, data: Mapping[str, Any]) -> None:
        """Make sure that the file can hold these values.

        Raises
        ------
        StoreError
            If there is something else than a real number, text or None, naming column and type.
        """
        for name, values in data.items():
            for value in values:
                _format(name, value)

    def save(self, filename: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
        """Write a table of n rows, replacing the file.

        Raises
        ------
        StoreError
            If there is something else than a real number, text or None, naming column and type.
        """
        count_rows(data)
        columns = [[_format(name, value) for value in values] for name, values in data.items()]
        with Path(filename).open("w", newline="", encoding="utf-8") as file:
            file.write(",".join(map(_quote, data)) + "\n")
            file.writelines(",".join(cells) + "\n" for cells in zip(*columns))

    def load(self, filename: str | os.PathLike[str], row: int | None = None) -> dict[str, Any]:
        """Read name -> values (n,), or with `row` those of this row alone (1,).

        Raises
        ------
        StoreError
            If the file is not such a table, or does not have that row.
        """
        try:
            text = Path(filename).read_bytes().decode()
            lines = [list[Any]()] if text == "\n" else list(_split(text))
            names, *rows = lines
            columns = zip(*rows, strict=True) if rows else [()] * len(names)
            data = dict(zip(names, map(list, columns), strict=True))
        except ValueError as error:
            raise StoreError(f"{filename}: not a table as CSV, or damaged ({error})") from error
        if not all(isinstance(name, str) for name in data):
            raise StoreError(f"{filename}: not a table as CSV: its first line has no names in quotes")
        return take_row(filename, data, row)


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _format(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return str(bool(value))
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        return repr(float(value))
    raise StoreError(
        f"column {name!r} holds a value of type {type(value).__name__}; CSV holds real numbers and text;"
        " name it in exclude_from_result, or use another format"
    )


def _split(text: str) -> Iterator[list[Any]]:
    """Yield the values of each line."""
    place, line = 0, list[Any]()
    while place < len(text):
        found = _CELL.match(text, place)
        if found is None:
            raise ValueError(f"a quote is not closed, at character {place}")
        quoted, plain, end = found.groups()
        line.append(quoted.replace('""', '"') if quoted is not None else _parse(plain))
        place = found.end()
        if end != ",":
            yield line
            line = []


def _parse(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    try:
        return int(text)
    except ValueError:
        return float(text)
