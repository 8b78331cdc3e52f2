"""Stores: how a table is kept in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.store.autodetect import EXTENSIONS as EXTENSIONS
    from psyrun.store.autodetect import AutodetectStore as AutodetectStore
    from psyrun.store.autodetect import list_tables as list_tables
    from psyrun.store.columns import describe as describe
    from psyrun.store.csv import CsvStore as CsvStore
    from psyrun.store.h5 import H5Store as H5Store
    from psyrun.store.npz import NpzStore as NpzStore
    from psyrun.store.parquet import ParquetStore as ParquetStore
    from psyrun.store.parquet import to_arrow as to_arrow
    from psyrun.store.pickle import DefaultStore as DefaultStore
    from psyrun.store.pickle import PickleStore as PickleStore
    from psyrun.store.pickle import load_plain as load_plain
    from psyrun.store.protocol import ChunkStore as ChunkStore
    from psyrun.store.protocol import Store as Store
    from psyrun.store.protocol import count_rows as count_rows
    from psyrun.store.protocol import locate_row as locate_row
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        autodetect="EXTENSIONS AutodetectStore list_tables",
        columns="describe",
        csv="CsvStore",
        h5="H5Store",
        npz="NpzStore",
        parquet="ParquetStore to_arrow",
        pickle="DefaultStore PickleStore load_plain",
        protocol="ChunkStore Store count_rows locate_row",
    )
