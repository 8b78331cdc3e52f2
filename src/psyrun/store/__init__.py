"""Stores: how a table is kept in a file."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from psyrun.store.pickle import PickleStore
from psyrun.store.protocol import ChunkStore, Store

if TYPE_CHECKING:
    from psyrun.store.autodetect import AutodetectStore
    from psyrun.store.h5 import H5Store
    from psyrun.store.npz import NpzStore

DefaultStore = PickleStore

__all__ = ["AutodetectStore", "ChunkStore", "DefaultStore", "H5Store", "NpzStore", "PickleStore", "Store"]

_LAZY = {"AutodetectStore": "autodetect", "H5Store": "h5", "NpzStore": "npz"}  # numpy takes its time.


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
