"""Results as files of other formats, by the extension of the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from psyrun.disk import replacing
from psyrun.errors import StoreError
from psyrun.results.table import require
from psyrun.store import AutodetectStore

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from psyrun.results.table import Results

    Writer = Callable[[Path, Results], None]


_NETCDF = ".nc"


def find_writer(filename: str | os.PathLike[str]) -> Writer:
    """Return what writes a file of this extension: of a store, or ``.nc``.

    Raises
    ------
    StoreError
        If nothing does, or a package that it needs is not installed.
    """
    if Path(filename).suffix.lower() == _NETCDF:
        try:
            require("xarray", "xarray")
            require("netCDF4", "xarray")
        except ImportError as error:
            raise StoreError(str(error)) from error
        return _write_netcdf
    store = AutodetectStore.get_concrete_store(filename)
    return lambda path, results: store.save(path, results)


def export(results: Results, filename: str | os.PathLike[str]) -> None:
    """Write rows to a file: all of it, or nothing.

    Raises
    ------
    StoreError
        If nothing writes files of this extension, or the format can't hold a value.
    """
    write, path = find_writer(filename), Path(filename).absolute()
    with replacing(path, path.suffix) as temporary:
        write(temporary, results)


def _write_netcdf(path: Path, results: Results) -> None:
    try:
        results.to_xarray().to_netcdf(path, engine="netcdf4")
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path.suffix}: {error}") from error
