"""The rows of a result as a dict of columns, and as the tables of pandas, xarray and Arrow."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import xarray as xr


_REPLICATE = "replicate"
_MOST_CELLS = 1_000_000  # of an array that is mostly empty


def require(module: str, extra: str) -> Any:
    """Import a package that an extra of psyrun installs.

    Raises
    ------
    ImportError
        If it is not installed, naming the extra.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        name = module.partition(".")[0]
        raise ImportError(f"{name} is not installed: pip install 'psyrun[{extra}]'") from error


class Results(dict[str, Any]):
    """The rows of a result: name -> array (n, ...), of objects where the values are no numbers.

    Integers are floats where values are missing, which are NaN; other missing values are None.

    Parameters
    ----------
    columns
        Name -> n values, a list or an array.
    parameters
        Names of the parameters, in their order; empty where they are not known.
    provenance
        Where the rows come from; see `psyrun.load`.
    """

    def __init__(
        self,
        columns: Mapping[str, Any],
        parameters: Iterable[str] = (),
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__({name: _pack(values) for name, values in columns.items()})
        self.parameters = tuple(parameters)
        self.provenance = dict(provenance or {})

    def _repr_html_(self) -> str:
        """Return a table of the first and last rows, for notebooks."""
        from psyrun.pspace import show_table

        size = max(map(len, self.values()), default=0)
        return show_table(
            size, lambda rows: {name: [values[row] for row in rows] for name, values in self.items()}
        )

    def to_pandas(self) -> pd.DataFrame:
        """Return a `pandas.DataFrame` of n rows; arrays become objects in cells.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = require("pandas", "pandas")
        return pandas.DataFrame({name: _flatten(values) for name, values in self.items()})

    def to_arrow(self) -> pa.Table:
        """Return a `pyarrow.Table` of n rows; arrays become nested lists.

        Raises
        ------
        ImportError
            If pyarrow is not installed.
        StoreError
            If Arrow has no type for a column.
        """
        from psyrun.store import to_arrow

        return to_arrow(self)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Give the rows to whatever reads Arrow streams, such as polars and DuckDB."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def to_xarray(self, dims: Sequence[str] | None = None) -> xr.Dataset:
        """Return an `xarray.Dataset`: values of parameters become coordinates, other columns variables.

        Rows that agree in all dimensions are numbered along a further one, ``replicate``. What is not there
        is NaN in numbers, and None in others. Arrays of one shape get dimensions of their own, ``<name>_0``
        and so on.

        Parameters
        ----------
        dims
            Parameters that become dimensions, in this order; all of them by default. The others become
            variables.

        Raises
        ------
        ImportError
            If xarray is not installed.
        ValueError
            If a dimension is not a parameter or has arrays for values, or if the space is not nearly a grid,
            so that the array would be huge and empty.
        """
        xarray = require("xarray", "xarray")
        if dims is None and not self.parameters:
            raise ValueError("the parameters of these rows are not known; name some with dims=[...]")
        names = list(self.parameters if dims is None else dims)
        unknown = [name for name in names if name not in self]
        if unknown:
            raise ValueError(f"there are no columns {unknown}; there are {list(self)}")
        rows = max(map(len, self.values()), default=0)
        labels: dict[str, list[Any]] = {}
        places: list[Sequence[int]] = []
        for name in names:
            labels[name], places_of_name = _number_labels(name, self[name])
            places.append(places_of_name)
        replicates = _number_replicates(places, rows)
        if any(replicates):
            label = _REPLICATE if _REPLICATE not in self else _REPLICATE + "_"
            labels[label] = list(range(max(replicates) + 1))
            places.append(replicates)
        shape = tuple(map(len, labels.values()))
        _check_size(shape, rows, names)
        variables = {
            name: _spread(name, values, list(labels), shape, tuple(places))
            for name, values in self.items()
            if name not in names
        }
        coordinates = {name: _unify(_pack(each)) for name, each in labels.items()}
        dataset: xr.Dataset = xarray.Dataset(variables, coords=coordinates)
        return dataset


def _pack(values: Any) -> np.ndarray[Any, Any]:
    """Return a column as an array (n, ...): of numbers, or of dates, or else of objects."""
    import numpy as np

    from psyrun.store import describe

    if isinstance(values, np.ndarray):
        return values
    column = describe(values)
    if column.kind == "number" and not (column.shape or column.boxed):
        return np.array([np.nan if value is None else value for value in values], column.array_dtype)
    if column.kind in ("datetime", "timedelta") and not column.shape:
        return np.array(values, column.dtype)
    boxed = np.empty(len(values), object)
    for place, value in enumerate(values):
        boxed[place] = value
    return boxed


def _flatten(values: Any) -> Any:
    """Return a column of one dimension."""
    return list(values) if getattr(values, "ndim", 1) > 1 else values


def _key(value: Any) -> Hashable:
    """Return what equal labels share; NaN equals NaN."""
    plain = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    return "NaN" if isinstance(plain, float) and plain != plain else (plain,)


def _number_labels(name: str, values: Iterable[Any]) -> tuple[list[Any], list[int]]:
    """Return the values of a parameter, each once as they appear, and for each row which of them it has."""
    numbers: dict[Hashable, int] = {}
    labels: list[Any] = []
    places = []
    for value in values:
        try:
            place = numbers.setdefault(_key(value), len(numbers))
        except TypeError as error:
            raise ValueError(
                f"{name!r} has values of type {type(value).__name__}, which can't label a dimension;"
                " leave it out of dims"
            ) from error
        if place == len(labels):
            labels.append(value)
        places.append(place)
    return labels, places


def _number_replicates(places: Sequence[Sequence[int]], rows: int) -> list[int]:
    """Return for each row how many before it are at the same place."""
    seen: dict[tuple[int, ...], int] = {}
    numbers = []
    for place in zip(*places) if places else [()] * rows:
        seen[place] = seen.get(place, -1) + 1
        numbers.append(seen[place])
    return numbers


def _check_size(shape: Sequence[int], rows: int, names: Sequence[str]) -> None:
    cells = 1
    for size in shape:
        cells *= size
    if cells > max(_MOST_CELLS, 10 * rows):
        raise ValueError(
            f"{rows:,} rows would be spread over {cells:,} cells, since they are not a grid of"
            f" {', '.join(names)}; name fewer dims, or use to_pandas()"
        )


def _spread(
    name: str, values: Any, dims: Sequence[str], shape: tuple[int, ...], places: tuple[Sequence[int], ...]
) -> tuple[list[str], Any]:
    """Return dimensions and array of a variable whose row i stands at place i."""
    import numpy as np

    column = _unify(values)
    more = column.shape[1:]
    holes = len(column) < int(np.prod(shape))
    dtype = column.dtype
    if holes and dtype.kind in "biu":
        dtype = np.dtype(float)
    elif holes and dtype.kind not in "fcmM":
        dtype = np.dtype(object)
    fill: Any = None if dtype.hasobject else np.nan if dtype.kind in "fc" else "NaT"
    spread = np.full(shape + more, fill, dtype) if holes else np.empty(shape + more, dtype)
    spread[tuple(np.asarray(each, int) for each in places)] = column
    return [*dims, *(f"{name}_{axis}" for axis in range(len(more)))], spread


def _unify(column: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array of objects as one of text, or of more dimensions, where all of them are alike.

    Where arrays of numbers are missing, there is NaN.
    """
    import numpy as np

    values = column.tolist() if column.dtype.hasobject else []
    lacking = [value is None or (isinstance(value, float) and value != value) for value in values]
    present = [value for value, lacks in zip(values, lacking) if not lacks]
    kinds = {type(value) for value in present}
    if kinds == {str} and not any(lacking):
        return np.array(values)
    if kinds == {np.ndarray} and len({(value.shape, value.dtype) for value in present}) == 1:
        shape, dtype = present[0].shape, present[0].dtype
        if not any(lacking):
            return np.stack(values)
        if dtype.kind in "biufc":
            filled = np.full((len(values), *shape), np.nan, np.result_type(dtype, np.float64))
            filled[~np.array(lacking)] = present
            return filled
    return column
