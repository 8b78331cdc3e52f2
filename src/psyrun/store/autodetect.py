"""The store that a file name's extension asks for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.errors import StoreError
from psyrun.store.pickle import PickleStore

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from importlib.metadata import EntryPoint

    from psyrun.store.protocol import Store


_GROUP = "psyrun.stores"
_BUILT_IN = {
    ".pkl": "psyrun.store.pickle:PickleStore",
    ".pickle": "psyrun.store.pickle:PickleStore",
    ".npz": "psyrun.store.npz:NpzStore",
    ".h5": "psyrun.store.h5:H5Store",
    ".hdf5": "psyrun.store.h5:H5Store",
}


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

    ext = PickleStore.ext

    @classmethod
    def get_concrete_store(cls, filename: str | os.PathLike[str]) -> Store:
        """Make the store for a file name.

        Raises
        ------
        StoreError
            If no store knows the extension, or a plug-in can't be loaded.
        """
        extension = Path(filename).suffix.lower()
        if extension in _BUILT_IN:
            module, _, name = _BUILT_IN[extension].partition(":")
            store: Store = getattr(import_module(module), name)()
            return store
        plugins = _find_plugins()
        if extension not in plugins:
            known = ", ".join(sorted({*_BUILT_IN, *plugins}))
            raise StoreError(f"{filename}: no store for the extension {extension!r}; there are {known}")
        return _make(plugins[extension])

    def check(self, data: Mapping[str, Any]) -> None:
        """Make sure that a file with the extension `ext` can hold these values."""
        self.get_concrete_store(f"result{self.ext}").check(data)

    def save(self, filename: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
        """Write a table, replacing the file."""
        self.get_concrete_store(filename).save(filename, data)

    def load(self, filename: str | os.PathLike[str], row: int | None = None) -> dict[str, Any]:
        """Read a table, or the values of one row."""
        return self.get_concrete_store(filename).load(filename, row)

    def append(self, filename: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
        """Add rows at the end; a missing file is created."""
        self.get_concrete_store(filename).append(filename, data)


def _find_plugins() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {point.name.lower(): point for point in entry_points(group=_GROUP)}


def _make(point: EntryPoint) -> Store:
    try:
        store: Store = point.load()()
    except Exception as error:
        raise StoreError(
            f"the store for {point.name} ({point.value}, entry point of {_GROUP}) can't be loaded: {error!r}"
        ) from error
    return store
