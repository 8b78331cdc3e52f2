"""Tables as Parquet, through Arrow: typed columns for pandas, polars, DuckDB, R and others."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.errors import StoreError
from psyrun.store.protocol import RewrittenStore, count_rows, take_row

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import pyarrow as pa


_ARRAY = b"psyrun.array"  # Metadata of a column whose values were arrays: their dtype.


def to_arrow(data: Mapping[str, Any]) -> pa.Table:
    """Turn a table into a `pyarrow.Table`; arrays become nested lists.

    Raises
    ------
    StoreError
        If Arrow has no type for a column, naming it.
    """
    import pyarrow as pa

    columns, fields = [], []
    for name, values in data.items():
        column, dtype = _to_column(name, values)
        columns.append(column)
        metadata = {_ARRAY: dtype.encode()} if dtype else None
        fields.append(pa.field(name, column.type, metadata=metadata))
    return pa.table(columns, schema=pa.schema(fields))


def _to_column(name: str, values: Any) -> tuple[pa.Array, str]:
    """Return a column, and the dtype of its values where they are arrays."""
    import numpy as np
    import pyarrow as pa

    try:
        if isinstance(values, np.ndarray) and values.dtype != object:
            if values.ndim == 1:
                return pa.array(values), ""
            return pa.array(values.tolist()), values.dtype.str
        dtypes = {value.dtype for value in values if isinstance(value, np.ndarray)}
        if not dtypes:
            texts = any(isinstance(value, str) for value in values)
            return pa.array([None if texts and is_nan(value) else _plain(value) for value in values]), ""
        dtype = np.result_type(*dtypes)
        plain = [
            value.tolist() if isinstance(value, np.ndarray) else None if is_nan(value) else value
            for value in values
        ]
        return pa.array(plain), dtype.str
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        kinds = ", ".join(sorted({type(value).__name__ for value in values}))
        why = str(error).splitlines()[0]
        raise StoreError(
            f"column {name!r} holds values of type {kinds} that Parquet can't hold ({why}); name it in"
            " exclude_from_result, or use PickleStore"
        ) from error


def is_nan(value: Any) -> bool:
    """Whether a value is the NaN that stands beside others for one that is missing."""
    return isinstance(value, float) and value != value


def _plain(value: Any) -> Any:
    """Return a number of NumPy as Python's: Arrow does not take different ones in one column."""
    import numpy as np

    return value.item() if isinstance(value, np.generic) else value


class ParquetStore(RewrittenStore):
    """Keeps a table as Parquet, which pandas, polars, DuckDB and R read. Needs the package pa.

    Numbers, text, bytes, dates, lists, dicts and arrays of real numbers come back as they were, where all
    values of a column are of one type; None comes back as None.

    Raises
    ------
    StoreError
        If pyarrow is not installed.
    """

    ext = ".parquet"

    def __init__(self) -> None:
        if find_spec("pyarrow") is None:
            raise StoreError("for .parquet, pyarrow has to be installed: pip install 'psyrun[arrow]'")

    def check(self, data: Mapping[str, Any]) -> None:
        """Make sure that the file can hold these values.

        Raises
        ------
        StoreError
            If Arrow has no type for a column, naming it.
        """
        to_arrow(data)

    def save(self, filename: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
        """Write a table of n rows, replacing the file.

        Raises
        ------
        StoreError
            If Arrow has no type for a column, naming it.
        """
        from pyarrow import parquet

        count_rows(data)
        parquet.write_table(to_arrow(data), filename)

    def load(self, filename: str | os.PathLike[str], row: int | None = None) -> dict[str, Any]:
        """Read name -> values (n,), or with `row` those of this row alone (1,).

        Columns without missing numbers are arrays.

        Raises
        ------
        StoreError
            If the file is not Parquet or damaged, or does not have that row.
        """
        import pyarrow as pa
        from pyarrow import parquet

        if not Path(filename).exists():
            raise FileNotFoundError(2, "No such file or directory", str(filename))
        try:
            table = parquet.ParquetFile(filename).read()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise StoreError(f"{filename}: not a Parquet file, or damaged ({error})") from error
        data = {field.name: _to_values(table.column(i), field) for i, field in enumerate(table.schema)}
        return take_row(filename, data, row)


def _to_values(column: pa.ChunkedArray, field: pa.Field) -> Any:
    """Return the values of a column: numbers of which none is missing as an array."""
    import numpy as np
    import pyarrow as pa

    dtype = (field.metadata or {}).get(_ARRAY)
    if dtype is not None:
        return [value if value is None else np.array(value, dtype.decode()) for value in column.to_pylist()]
    numbers = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    if column.null_count == 0 and (numbers or pa.types.is_boolean(field.type)):
        return column.to_numpy()
    return column.to_pylist()
