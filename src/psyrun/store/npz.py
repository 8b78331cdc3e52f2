"""Tables as npz files: one numpy array per column."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from psyrun.disk import replacing
from psyrun.errors import StoreError
from psyrun.store.arrays import assemble
from psyrun.store.columns import describe
from psyrun.store.encoding import escape, unescape
from psyrun.store.protocol import take_row
from psyrun.values import dump

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray


_MEMBER = ".npy"
_PICKLE_PROTOCOL = 4


class NpzStore:
    """Keeps a table as one array (n, ...) per column, in a file that `numpy.load` reads.

    `psyrun.store.columns` says how values become arrays. Strings are fixed-width arrays, or objects
    where some are missing, end in NUL or are much longer than the rest. Other objects are pickled:
    `numpy.load` needs ``allow_pickle=True`` for them, and **loading unpickles**, so load only files that you
    trust.

    Examples
    --------
    >>> import tempfile, os
    >>> filename = os.path.join(tempfile.mkdtemp(), "table.npz")
    >>> NpzStore().append(filename, {"x": [1, 2], "y": [[0.5], [0.5, 1.5]]})
    >>> NpzStore().append(filename, {"y": [[2.5]]})
    >>> NpzStore().load(filename)["x"]
    array([ 1.,  2., nan])
    >>> NpzStore().load(filename, row=0)["y"]
    array([[0.5, nan]])
    """

    ext = ".npz"

    def check(self, data: Mapping[str, Any]) -> None:
        """Make sure that the file can hold these values.

        Raises
        ------
        StoreError
            If there is an object that can't be pickled, naming column and type.
        """
        for name, values in data.items():
            column = describe(values)
            if column.boxed:
                _pickle(name, list(values), column.types)

    def save(self, filename: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
        """Write a table of n rows, replacing the file.

        Raises
        ------
        StoreError
            If there is an object that can't be pickled, naming column and type.
        """
        self.save_chunks(filename, lambda: iter([data]))

    def save_chunks(
        self,
        filename: str | os.PathLike[str],
        chunks: Callable[[], Iterator[Mapping[str, Sequence[Any]]]],
    ) -> None:
        """Write the tables that `chunks` yields, one below the other; `chunks` may be called twice.

        The arrays are held in memory, the chunks are not.
        """
        arrays = assemble(chunks)
        with zipfile.ZipFile(filename, "w", zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                member = zipfile.ZipInfo(escape(name) + _MEMBER, date_time=(1980, 1, 1, 0, 0, 0))
                with archive.open(member, "w", force_zip64=True) as file:
                    _write_array(file, name, array)

    def load(self, filename: str | os.PathLike[str], row: int | None = None) -> dict[str, Any]:
        """Read name -> array (n, ...), or with `row` those of this row alone (1, ...).

        Raises
        ------
        StoreError
            If the file is not an npz file or damaged, or does not have that row.
        """
        data = {}
        try:
            with zipfile.ZipFile(filename) as archive:
                for member in archive.namelist():
                    if member.endswith(_MEMBER):
                        name = unescape(member.removesuffix(_MEMBER))
                        data[name] = _read_array(archive, member)
        except OSError:
            raise
        except Exception as error:  # Damaged archives and pickles raise anything.
            raise StoreError(f"{filename}: not an npz file, or damaged ({error!r})") from error
        return take_row(filename, data, row)

    def append(self, filename: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
        """Add rows at the end, by writing all of the file anew and renaming it; a missing file is created.

        Names that one side lacks are filled with NaN or None.
        """
        path = Path(filename)
        tables = [self.load(path), data] if path.exists() else [data]
        with replacing(path) as temporary:
            self.save_chunks(temporary, lambda: iter(tables))


def _write_array(file: IO[bytes], name: str, array: NDArray[Any]) -> None:
    if array.dtype != object:
        np.lib.format.write_array(file, array, allow_pickle=False)
        return
    pickled = _pickle(name, array, describe(array).types)
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    file.write(pickled)


def _pickle(name: str, values: Any, types: frozenset[str]) -> memoryview:
    buffer = io.BytesIO()
    try:
        dump(values, buffer, _PICKLE_PROTOCOL)
    except Exception as error:
        what = " and ".join(sorted(types))
        raise StoreError(
            f"column {name!r} holds values of type {what} that can't be pickled ({error}); "
            "return something else, or name it in exclude_from_result"
        ) from error
    return buffer.getbuffer()


def _read_array(archive: zipfile.ZipFile, member: str) -> NDArray[Any]:
    with archive.open(member) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=True)
        if file.read(1):  # Also makes zipfile compare the checksum.
            raise ValueError(f"{member} goes on after its array")
    return np.atleast_1d(array)
