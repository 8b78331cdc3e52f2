"""Tables as pickled dicts of lists: any value, any shape."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.errors import StoreError
from psyrun.store.protocol import RewrittenStore, count_rows, take_row
from psyrun.values import dump

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping


# Where NumPy's functions stand depends on its version.
_NUMPY = ("numpy.core.", "numpy._core.")
_PLAIN = frozenset(
    {
        *("_codecs.encode", "builtins.bytearray", "builtins.complex", "builtins.frozenset", "builtins.range"),
        *("builtins.set", "datetime.date", "datetime.datetime", "datetime.timedelta"),
        *("numpy.dtype", "numpy.ndarray", "numpy.multiarray._reconstruct", "numpy.multiarray.scalar"),
        "numpy.numeric._frombuffer",
    }
)


def load_plain(filename: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a table of plain values from a pickle: numbers, text, arrays, containers of these.

    No other object is made of what the file says. So a space that is read from the result of another task
    depends on its values alone: rows added there are rows added here.

    Returns
    -------
    dict
        Name -> values (n,).

    Raises
    ------
    StoreError
        If the file holds no table, or other objects.

    Examples
    --------
    >>> import tempfile, os
    >>> filename = os.path.join(tempfile.mkdtemp(), "table.pkl")
    >>> PickleStore().save(filename, {"x": [1, 2.5, "three"]})
    >>> load_plain(filename)
    {'x': [1, 2.5, 'three']}
    """
    return _load(filename, _PlainUnpickler)


class _PlainUnpickler(pickle.Unpickler):
    """Makes no objects but plain values."""

    def find_class(self, module: str, name: str) -> Any:
        """Find what makes a plain value; see `pickle.Unpickler.find_class`."""
        home = next((f"numpy.{module[len(each) :]}" for each in _NUMPY if module.startswith(each)), module)
        if f"{home}.{name}" in _PLAIN:
            return super().find_class(module, name)
        raise _OtherObjectError(f"{module}.{name}")


class _OtherObjectError(Exception):
    """A pickle holds an object that is no plain value."""


def _load(filename: str | os.PathLike[str], unpickler: type[pickle.Unpickler]) -> dict[str, Any]:
    with Path(filename).open("rb") as file:
        try:
            data = unpickler(file).load()
        except OSError:
            raise
        except _OtherObjectError as error:
            raise StoreError(
                f"{filename}: holds {error}, no plain value; read it with PickleStore().load"
            ) from None
        except Exception as error:  # Damaged pickles raise anything.
            raise StoreError(f"{filename}: not a pickle file, or cut short ({error!r})") from error
    if not isinstance(data, dict):
        raise StoreError(f"{filename}: holds a {type(data).__name__}, not a table (a dict of lists)")
    return data


class PickleStore(RewrittenStore):
    """Keeps a table as a pickled dict of lists.

    Parameters
    ----------
    protocol
        Pickle protocol; the highest that this Python knows where it is not given.

    Examples
    --------
    >>> import tempfile, os
    >>> filename = os.path.join(tempfile.mkdtemp(), "table.pkl")
    >>> PickleStore().append(filename, {"x": [1, 2]})
    >>> PickleStore().append(filename, {"x": [3]})
    >>> PickleStore().load(filename)
    {'x': [1, 2, 3]}
    >>> PickleStore().load(filename, row=2)
    {'x': [3]}
    """

    ext = ".pkl"

    def __init__(self, protocol: int = pickle.HIGHEST_PROTOCOL) -> None:
        self.protocol = protocol

    def check(self, data: Mapping[str, Any]) -> None:
        """Accept any values: what went through a journal can be pickled."""

    def save(self, filename: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
        """Write a table of n rows, replacing the file."""
        count_rows(data)
        with Path(filename).open("wb") as file:
            dump({name: list(values) for name, values in data.items()}, file, self.protocol)

    def load(self, filename: str | os.PathLike[str], row: int | None = None) -> dict[str, Any]:
        """Read name -> values (n,), or with `row` those of this row alone (1,).

        Loading unpickles: load only files that you trust.

        Raises
        ------
        StoreError
            If the file holds no table, or not that row.
        """
        data = _load(filename, pickle.Unpickler)
        return take_row(filename, data, row)


DefaultStore = PickleStore
