"""The store that a file name's extension asks for."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.errors import StoreError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from psyrun.store.protocol import Store


# Where our stores are registered: class -> extensions of its files, the first of which is its `ext`. No entry
# points: among 500 packages, reading them takes a tenth of the time of `psy run` with nothing to do.
EXTENSIONS = {
    "PickleStore": (".pkl", ".pickle"),
    "NpzStore": (".npz",),
    "H5Store": (".h5", ".hdf5"),
    "CsvStore": (".csv",),
    "ParquetStore": (".parquet",),
}
_GROUP = "psyrun.stores"
_NUMBER = re.compile(r"([0-9]+)")


class AutodetectStore:
    """Keeps a table in the format that the extension of the file name stands for.

    Besides the formats of psyrun, an installed package provides others with an entry point of the group
    ``psyrun.stores``: its name is the extension with the dot, its object a class that is called without
    arguments and makes a `psyrun.store.Store`. Where no file name says otherwise, `ext` is that of
    `PickleStore`.

    Examples
    --------
    >>> type(AutodetectStore.get_concrete_store("result.pkl")).__name__
    'PickleStore'
    """

    ext = EXTENSIONS["PickleStore"][0]

    @classmethod
    def get_concrete_store(cls, filename: str | os.PathLike[str]) -> Store:
        """Make the store for a file name.

        Raises
        ------
        StoreError
            If no store knows the extension, or a plug-in can't be loaded.
        """
        extension = Path(filename).suffix.lower()
        for name, extensions in EXTENSIONS.items():
            if extension in extensions:
                store: Store = getattr(import_module("psyrun.store"), name)()
                return store
        return _load_plugin(filename, extension)

    def check(self, data: Mapping[str, Any]) -> None:
        """Make sure that a file with the extension `ext` can hold these values."""
        self.get_concrete_store(f"result{self.ext}").check(data)

    def save(self, filename: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
        """Write a table, replacing the file."""
        self.get_concrete_store(filename).save(filename, data)

    def load(self, filename: str | os.PathLike[str], row: int | None = None) -> dict[str, Any]:
        """Read a table, or with `row` that of this row alone: columns of one value."""
        return self.get_concrete_store(filename).load(filename, row)

    def append(self, filename: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
        """Add rows at the end; a missing file is created."""
        self.get_concrete_store(filename).append(filename, data)


def list_tables(folder: Path) -> list[Path]:
    """List the files in formats of our stores in a folder, in the order of their names: 9 before 10."""
    known = {extension for extensions in EXTENSIONS.values() for extension in extensions}
    found = [path for path in folder.glob("[!.]*") if path.suffix.lower() in known and path.is_file()]
    return sorted(found, key=lambda path: [int(p) if p.isdecimal() else p for p in _NUMBER.split(path.name)])


def _load_plugin(filename: str | os.PathLike[str], extension: str) -> Store:
    from importlib.metadata import entry_points

    plugins = {point.name.lower(): point for point in entry_points(group=_GROUP)}
    if extension not in plugins:
        known = ", ".join(sorted({*sum(EXTENSIONS.values(), ()), *plugins}))
        raise StoreError(f"{filename}: no store for the extension {extension!r}; there are {known}")
    point = plugins[extension]
    try:
        store: Store = point.load()()
    except Exception as error:
        raise StoreError(
            f"the store for {point.name} ({point.value}, entry point of {_GROUP}) can't be loaded: {error!r}"
        ) from error
    return store
