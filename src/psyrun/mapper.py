"""Evaluate a function for every assignment of a space, in this program rather than as a task."""

from __future__ import annotations

import copy
import warnings
from contextlib import closing
from itertools import chain, repeat
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.errors import ExecuteError
from psyrun.progressbar import watch
from psyrun.pspace import RNG, Table, check_space, iterate_rows, make_rng, number_equals, row_keys, takes_rng
from psyrun.resultfile import open_file, read_names, tabulate
from psyrun.store import AutodetectStore
from psyrun.values import check_returned, describe_error, show_value
from psyrun.workdir import FAILURE

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from typing import Literal

    from psyrun.pspace import ParameterSpace
    from psyrun.store import Store

    Function = Callable[..., Mapping[str, Any]]
    OnError = Literal["raise", "record"]
    Finished = Generator[tuple[int, dict[str, Any]]]
    Batch = tuple[Sequence[int], list[dict[str, Any]], list[int] | None]


_BATCHES = 1000  # Enough to keep a hundred processes evenly busy; joblib joins what is too small.
_LARGEST_BATCH = 256
_BLOCK = 1000  # Rows made at a time where this program evaluates them.
_NAMES = frozenset({str})
_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None)})
_MUTABLE = (list, dict, set, bytearray)
_RESERVED = f"with on_error='record', the result has a column {FAILURE!r}; use another name"


def map_pspace(
    fn: Function,
    pspace: ParameterSpace,
    exclude: Iterable[str] | None = None,
    *,
    on_error: OnError = "raise",
    progress: bool = False,
) -> Table:
    """Evaluate a function for all assignments, one after the other.

    Parameters
    ----------
    fn
        Called with the parameters by name. Returns a dict: name -> value. A parameter `rng` that the space
        does not have gets a `numpy.random.Generator`, seeded by the row; each of equal rows has its own.
    pspace
        What to try.
    exclude
        Names that are left out of the result, of parameters or of what `fn` returns.
    on_error
        ``"raise"`` ends at the first exception. ``"record"`` goes on, and adds a column ``failure`` with the
        exception of each row that has no values, '' for the others; a row that failed has NaN or None as one
        that lacks names.
    progress
        Whether to show a bar, in a notebook or on a terminal (standard error); elsewhere a line at the end.

    Returns
    -------
    dict of lists
        Name -> n values in the order of the space: the parameters, then what `fn` returned. Where a name is
        both, `fn` wins. A name that some rows lack is NaN there if it holds numbers, else None.

    Raises
    ------
    ExecuteError
        If `fn` does not return a dict, or one with names that are no strings.
    ValueError
        If errors are to be recorded and there is another column ``failure``, or it is to be left out.
    Exception
        What `fn` raises, with a note that tells the assignment.

    Examples
    --------
    >>> from psyrun import Param
    >>> map_pspace(lambda a, b: {"sum": a + b}, Param(a=[1, 2]) * Param(b=[10, 20]))
    {'a': [1, 1, 2, 2], 'b': [10, 20, 10, 20], 'sum': [11, 21, 12, 22]}
    >>> map_pspace(lambda a: {"inverse": 1 / a}, Param(a=[0, 2]), on_error="record")
    {'a': [0, 2], 'failure': ['ZeroDivisionError: division by zero', ''], 'inverse': [nan, 0.5]}
    """
    check_space(pspace)
    record = _records_errors(on_error, pspace, exclude)
    batches = _take_batches(pspace, range(pspace.size), _BLOCK, _find_replicates(fn, pspace))
    results = _watch(_evaluate_here(fn, record, batches), pspace.size, progress)
    return _tabulate(pspace, results, exclude, record)


def map_pspace_parallel(
    fn: Function,
    pspace: ParameterSpace,
    n_jobs: int = -1,
    backend: str | None = None,
    exclude: Iterable[str] | None = None,
    *,
    on_error: OnError = "raise",
    progress: bool = False,
) -> Table:
    """Evaluate a function for all assignments with joblib: in processes, threads, or on a dask cluster.

    A surrounding ``joblib.parallel_config`` is honoured. Functions and lambdas typed into a notebook work
    with every backend of joblib. Rows travel in batches, so that fast functions pay little for it.

    Parameters
    ----------
    fn
        Called as by `map_pspace`.
    pspace
        What to try.
    n_jobs
        How many at the same time, as joblib counts: -1 for all processors, or all workers of a cluster. -1
        also gives way to the number that a surrounding ``joblib.parallel_config`` sets; others do not.
    backend
        Name of a joblib backend. None: that of the surrounding ``joblib.parallel_config``, else processes.
    exclude
        Names that are left out of the result, of parameters or of what `fn` returns.
    on_error
        As of `map_pspace`. A process that dies ends the call nevertheless; `psy run` outlives that.
    progress
        As of `map_pspace`. A backend that returns all rows at the end moves the bar then.

    Returns
    -------
    dict of lists
        As `map_pspace` returns it, in the order of the space.

    Raises
    ------
    ExecuteError
        If `fn` does not return a dict, or one with names that are no strings.
    Exception
        What `fn` raises, with a note that tells the assignment.

    Examples
    --------
    >>> import joblib
    >>> from psyrun import Param
    >>> with joblib.parallel_config(backend="threading", n_jobs=2):
    ...     map_pspace_parallel(lambda a: {"square": a**2}, Param(a=[1, 2, 3]))
    {'a': [1, 2, 3], 'square': [1, 4, 9]}
    """
    check_space(pspace)
    record = _records_errors(on_error, pspace, exclude)
    size = min(max(pspace.size // _BATCHES, 1), _LARGEST_BATCH)
    batches = _take_batches(pspace, range(pspace.size), size, _find_replicates(fn, pspace))
    portable, jobs = _make_portable(fn, backend), _choose_jobs(n_jobs)
    with closing(_evaluate_parallel(portable, record, batches, n_jobs=jobs, backend=backend)) as results:
        ordered = sorted(_watch(results, pspace.size, progress), key=itemgetter(0))
    return _tabulate(pspace, ordered, exclude, record)


def map_pspace_hdd_backed(
    fn: Function,
    pspace: ParameterSpace,
    filename: str | os.PathLike[str],
    store: Store | None = None,
    return_data: bool = True,
    pool_size: int = 1,
    exclude: Iterable[str] | None = None,
    *,
    on_error: OnError = "raise",
    progress: bool = False,
) -> Table | None:
    """Evaluate a function for the assignments that a file does not hold yet, and add them to it.

    Finished rows are appended every few seconds (less often where that takes long), and also when `fn` raises
    or Ctrl-C is pressed. The next call goes on from there. Until then the file has the rows in the order in
    which they were finished, at the end in the order of the space. Rows of the file that the space does not
    have are kept, after those. One call may write to a file at a time.

    Parameters
    ----------
    fn
        Called as by `map_pspace`; with a generator only where no two rows are equal.
    pspace
        What to try. Of k equal assignments, as many are evaluated as the file lacks.
    filename
        The file; it and its folder are created where they are missing.
    store
        How the file is written and read; by default as the extension of its name says.
    return_data
        Whether to read and return the rows of the space.
    pool_size
        How many processes evaluate, as joblib counts: -1 for all processors. 1: this one alone.
    exclude
        Names that are left out of the result, and of the file unless it has them. A file without some
        parameter can't be continued.
    on_error
        As of `map_pspace`. With ``"record"``, rows of the file that failed are tried again, and with
        ``"raise"`` they are not.
    progress
        As of `map_pspace`, of the rows that the file lacks.

    Returns
    -------
    dict of lists or None
        Name -> n values as the store gives them back, in the order of the space. Otherwise as `map_pspace`.

    Raises
    ------
    ExecuteError
        If `fn` does not return a dict, or one with names that are no strings; or if the file is to be
        continued and `fn` returns another value for a parameter, so that its rows can't be found again; or if
        `fn` takes a generator and rows are equal, since the file does not say which of them it has.
    StoreError
        If the store can't hold a value, or the rows of the file can't be compared with the space: a parameter
        is not in it, or the store gives back other values than it was given, as most do with arrays that
        differ in shape. `psyrun.store.PickleStore` gives back all.
    Exception
        What `fn` raises, with a note that tells the assignment.

    Notes
    -----
    Rows are the same as `psyrun.pspace.identity` says: the row of ``1`` is not given to ``1.0``. Where a
    store keeps a column as an array, values of more than one type, for example integers and NaN, are
    compared by value, and lists as arrays.

    Examples
    --------
    >>> import tempfile, os
    >>> from psyrun import Param
    >>> filename = os.path.join(tempfile.mkdtemp(), "squares.pkl")
    >>> def square(a):
    ...     print(f"a = {a}")
    ...     return {"square": a**2}
    >>> map_pspace_hdd_backed(square, Param(a=[1, 3]), filename)
    a = 1
    a = 3
    {'a': [1, 3], 'square': [1, 9]}
    >>> map_pspace_hdd_backed(square, Param(a=[1, 2, 3]), filename)
    a = 2
    {'a': [1, 2, 3], 'square': [1, 4, 9]}
    """
    check_space(pspace)
    replicates = _find_replicates(fn, pspace)
    if replicates is not None and any(replicates):
        raise ExecuteError(
            "the file does not say which of equal rows it has, so they can't have generators of their own;"
            " tell them apart with a parameter, such as Param(replicate=range(3))"
        )
    record = _records_errors(on_error, pspace, exclude)
    store = store or AutodetectStore.get_concrete_store(filename)
    file = open_file(Path(filename), store, pspace, read_names(exclude), retry=record)
    todo = sorted(set(range(pspace.size)).difference(file.rows))
    if pool_size == 1 or not todo:
        finished = _evaluate_here(fn, record, _take_batches(pspace, todo, _BLOCK, replicates))
    else:
        # A row at a time: joblib forms batches of seconds, whatever a row takes.
        batches = _take_batches(pspace, todo, 1, replicates)
        finished = _evaluate_parallel(_make_portable(fn, None), record, batches, n_jobs=pool_size)
    with closing(finished), closing(_watch(finished, len(todo), progress)) as results:
        try:
            for row, values in results:
                file.add(row, values)
        finally:
            file.flush()
    file.sort()
    return file.read() if return_data else None


# ---------------------------------------------------------------------- evaluating


def _records_errors(on_error: OnError, pspace: ParameterSpace, exclude: Iterable[str] | None) -> bool:
    """Whether errors of rows become values."""
    if on_error not in ("raise", "record"):
        raise ValueError(f"on_error is {on_error!r}; it may be 'raise' or 'record'")
    if on_error == "raise":
        return False
    if FAILURE in pspace.keys():  # noqa: SIM118 - a space is a sequence
        raise ValueError(f"there is a parameter {FAILURE!r}; {_RESERVED}")
    if FAILURE in read_names(exclude):
        raise ValueError(f"{FAILURE!r} is to be left out, but it says which rows have no values")
    return True


def _find_replicates(fn: Function, pspace: ParameterSpace) -> Sequence[int] | None:
    """Return which of equal rows each row is; None where the function gets no generator."""
    if not takes_rng(fn, pspace.keys()):
        return None
    table = pspace.build()
    return number_equals(row_keys(table)) if table else range(pspace.size)


def _evaluate(
    fn: Function,
    record: bool,
    rows: Iterable[int],
    assignments: Iterable[Mapping[str, Any]],
    replicates: Iterable[int] | None,
) -> Finished:
    """Yield positions in the space and what `fn` returned, row by row."""
    name = str(getattr(fn, "__name__", type(fn).__name__))
    for row, assignment, replicate in zip(rows, assignments, replicates or repeat(None)):  # type: ignore[arg-type]
        try:
            if replicate is None:
                values = fn(**assignment)
            else:
                values = fn(**assignment, **{RNG: make_rng(assignment, replicate)})
            if type(values) is not dict or not _NAMES.issuperset(map(type, values)):
                check_returned(name, values)
        except (Exception, SystemExit) as error:
            if not record:
                shown = ", ".join(f"{key}={show_value(value, 200)}" for key, value in assignment.items())
                error.add_note(f"psyrun: raised by {name} for {shown}")
                raise
            yield row, {FAILURE: describe_error(error)}
        else:
            # Copied, for `fn` may change them and return them again.
            copied = {key: v if type(v) in _PLAIN else _copy_mutable(v) for key, v in values.items()}
            if record and FAILURE in copied:
                raise ExecuteError(f"{name} returned a value {FAILURE!r}; {_RESERVED}")
            yield row, {FAILURE: "", **copied} if record else copied


def _copy_mutable(value: Any) -> Any:
    mutable = isinstance(value, _MUTABLE) or hasattr(value, "__array_finalize__")
    return copy.copy(value) if mutable else value


def _evaluate_batch(fn: Function, record: bool, *batch: Any) -> list[tuple[int, dict[str, Any]]]:
    return list(_evaluate(fn, record, *batch))


def _evaluate_here(fn: Function, record: bool, batches: Iterable[Batch]) -> Finished:
    for batch in batches:
        yield from _evaluate(fn, record, *batch)


def _evaluate_parallel(fn: Function, record: bool, batches: Iterable[Batch], **options: Any) -> Finished:
    """Yield positions in the space and what `fn` returned, as they come; `options` are those of joblib."""
    import joblib

    try:
        parallel = joblib.Parallel(return_as="generator_unordered", **options)
    except ValueError:  # Multiprocessing, for example, returns all at the end.
        parallel = joblib.Parallel(**options)
    call = joblib.delayed(_evaluate_batch)
    results = parallel(call(fn, record, *batch) for batch in batches)
    try:
        yield from chain.from_iterable(results)
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib warns that unfinished rows are given up
            getattr(results, "close", list)()


def _watch(results: Iterable[tuple[int, dict[str, Any]]], total: int, progress: bool) -> Finished:
    """Yield finished rows, and show their progress where that is wanted."""
    yield from watch(results, total, lambda row: bool(row[1].get(FAILURE))) if progress else results


def _tabulate(
    pspace: ParameterSpace,
    results: Iterable[tuple[int, dict[str, Any]]],
    exclude: Iterable[str] | None,
    record: bool,
) -> Table:
    """Put the values of all rows, in the order of the space, beside the parameters."""
    table = tabulate(pspace.build(), map(itemgetter(1), results), read_names(exclude))
    return table | {FAILURE: table.get(FAILURE, [])} if record else table


def _take_batches(
    pspace: ParameterSpace, rows: Sequence[int], size: int, replicates: Sequence[int] | None
) -> Iterator[Batch]:
    """Yield positions, assignments and replicates, `size` at a time; larger blocks are faster to make."""
    block = max(1, _BATCHES // size) * size
    for start in range(0, len(rows), block):
        numbers = rows[start : start + block]
        assignments = list(iterate_rows(pspace.take(numbers)))
        for first in range(0, len(numbers), size):
            part = numbers[first : first + size]
            own = None if replicates is None else [replicates[row] for row in part]
            yield part, assignments[first : first + size], own


def _choose_jobs(n_jobs: int) -> int | None:
    """Leave the number of jobs to a surrounding `parallel_config` that sets it."""
    from joblib.parallel import get_active_backend

    # Without arguments, joblib returns 1 for a number that is not set.
    _, surrounding = get_active_backend(prefer=None, require=None)
    return None if n_jobs == -1 and surrounding is not None else n_jobs


def _make_portable(fn: Function, backend: str | None) -> Function:
    """Wrap a function for multiprocessing, the only backend that can't pickle functions of a notebook."""
    import joblib
    from joblib.parallel import get_active_backend

    active = type(get_active_backend()[0]).__name__
    if backend == "multiprocessing" or (backend is None and active == "MultiprocessingBackend"):
        wrapped: Function = joblib.wrap_non_picklable_objects(fn)
        return wrapped
    return fn
