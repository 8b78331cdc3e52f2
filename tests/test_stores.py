"""What every store does, and what only one of them does."""

import itertools
import math
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from decimal import Decimal
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import tables
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import psyrun.store
from psyrun.errors import PsyrunWarning, StoreError
from psyrun.store import (
    EXTENSIONS,
    AutodetectStore,
    ChunkStore,
    H5Store,
    NpzStore,
    PickleStore,
    Store,
    load_plain,
)
from psyrun.store.columns import describe, join
from psyrun.store.encoding import escape, unescape
from psyrun.testing import KINDS, ChunkContract, StoreContract
from psyrun.workdir.journal import pack_column, unpack_column

pytestmark = pytest.mark.filterwarnings("ignore:.*(None|True and False) beside:psyrun.errors.PsyrunWarning")

STORES = {"pickle": PickleStore, "npz": NpzStore, "h5": H5Store}
ARRAY_STORES = {"npz": NpzStore, "h5": H5Store}

quick = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(params=STORES)
def store(request):
    return STORES[request.param]()


@pytest.fixture(params=ARRAY_STORES)
def array_store(request):
    return ARRAY_STORES[request.param]()


@pytest.fixture
def file(tmp_path):
    """Give fresh file names: a Hypothesis test shares its folder between examples."""
    numbers = itertools.count()
    return lambda store: tmp_path / f"table {next(numbers)} ü{store.ext}"


def same(a, b):
    """Compare values as a user would: NaN equals NaN and None, arrays element by element."""
    if isinstance(a, (np.ndarray, list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if is_missing(a) or is_missing(b):
        return is_missing(a) and is_missing(b)
    return bool(a == b)


def is_missing(value):
    if isinstance(value, (float, complex, np.inexact)):
        return bool(np.isnan(value))
    return value is None or (isinstance(value, (np.datetime64, np.timedelta64)) and bool(np.isnat(value)))


class TestPickleStore(StoreContract):
    @pytest.fixture
    def store(self):
        return PickleStore()


class TestNpzStore(ChunkContract):
    @pytest.fixture
    def store(self):
        return NpzStore()


class TestH5Store(ChunkContract):
    kinds = tuple(kind for kind in KINDS if kind != "object")

    @pytest.fixture
    def store(self):
        return H5Store()


def round_trip(store, path, data):
    store.save(path, data)
    return store.load(path)


# ---------------------------------------------------------------------- all stores

integers = st.integers(-(2**63), 2**63 - 1)
small = st.integers(-1000, 1000)
text = st.text(max_size=8) | st.sampled_from(["a\0", "", "\0", "naïve ☃", "x" * 300, "\ud800", "ÿþ"])
dates = st.integers(-1000, 1000).map(lambda day: np.datetime64(day, "D"))
column_kinds = [
    st.booleans(),
    integers,
    st.floats(),
    st.complex_numbers(),
    text,
    st.binary(max_size=6) | st.sampled_from([b"\0", b"a\0", b"\xff", b"\xfe"]),
    text | st.none(),
    small | st.none(),
    small | st.floats(),
    dates | st.none(),
    st.lists(small, min_size=2, max_size=2),
    st.lists(text, min_size=2, max_size=2),
    st.lists(st.floats(width=32), min_size=3, max_size=3).map(lambda v: np.array(v, np.float32)),
]
names = st.text(max_size=5) | st.sampled_from(
    ["file", "b.b", "/", "a/b", ".", "..", "_v_x", "_p_x", "%2F", "%e"]
)


@st.composite
def tables_of_equal_columns(draw, kinds=None):
    count = draw(st.integers(0, 5))
    kinds = (
        draw(st.dictionaries(names, st.sampled_from(column_kinds), max_size=3)) if kinds is None else kinds
    )
    return {n: draw(st.lists(kind, min_size=count, max_size=count)) for n, kind in kinds.items()}


@st.composite
def pairs_of_tables(draw):
    kinds = draw(st.dictionaries(names, st.sampled_from(column_kinds), max_size=3))
    return draw(tables_of_equal_columns(kinds)), draw(tables_of_equal_columns(kinds))


@quick
@given(data=tables_of_equal_columns())
@example(data={})
@example(data={"x": []})
@example(data={"x": [None, None], "y": [[], []]})
@example(data={"s": ["short", "x" * 10000, ""]})
def test_what_was_saved_is_loaded(store, file, data):
    loaded = round_trip(store, file(store), data)
    assert list(loaded) == list(data)
    assert all(same(loaded[name], data[name]) for name in data)


@quick
@given(pair=pairs_of_tables())
@example(pair=({"x": [None]}, {"x": ["a"]}))
@example(pair=({"x": [2**63]}, {"x": [1]}))
@example(pair=({"x": [1]}, {"x": [2**64 - 1]}))
@example(pair=({"x": [True]}, {"x": [2.5]}))
@example(pair=({"x": []}, {"x": [[1, 2]]}))
@example(pair=({"x": [None]}, {"x": [np.datetime64("2020-01-01", "ns")]}))
def test_appended_rows_come_after_those_that_were_there(store, file, pair):
    path, (first, second) = file(store), pair
    store.append(path, first)
    store.append(path, second)
    loaded = store.load(path)
    for name in loaded:
        assert same(loaded[name], [*first[name], *second[name]])


@quick
@given(data=tables_of_equal_columns(), k=st.integers(-6, 5))
def test_one_row_is_that_of_the_table(store, file, data, k):
    path = file(store)
    loaded = round_trip(store, path, data)
    count = len(next(iter(data.values()), ()))
    if -count <= k < count:
        row = store.load(path, row=k)
        assert list(row) == list(data)
        assert all(same(row[name], [loaded[name][k]]) for name in data)
    else:
        with pytest.raises(IndexError, match=f"there is no row {k}") as raised:
            store.load(path, row=k)
        assert isinstance(raised.value, StoreError)


def test_names_that_one_side_of_an_append_lacks_are_filled(store, file):
    path = file(store)
    store.save(path, {"x": [1, 2], "s": ["a", "b"], "v": [[1, 2], [3, 4]]})
    store.append(path, {"x": [3], "y": [0.5]})
    loaded = store.load(path)
    assert list(loaded) == ["x", "s", "v", "y"]
    assert same(loaded["x"], [1, 2, 3])
    assert same(loaded["s"], ["a", "b", None])
    assert same(loaded["y"], [None, None, 0.5])
    assert is_missing(loaded["v"][2]) or same(loaded["v"][2], [None, None])


def test_saving_replaces_the_table(store, file):
    path = file(store)
    store.save(path, {"x": [1, 2], "y": [1, 2]})
    assert list(round_trip(store, path, {"x": [3]})) == ["x"]


def test_columns_of_different_lengths_are_refused_and_leave_the_file_alone(store, file):
    path = file(store)
    store.save(path, {"x": [1]})
    with pytest.raises(StoreError, match="one length"):
        store.save(path, {"x": [1, 2], "y": [1]})
    assert same(store.load(path)["x"], [1])


def test_a_missing_file_can_not_be_loaded(store, file):
    with pytest.raises(FileNotFoundError):
        store.load(file(store))


@pytest.mark.parametrize(
    "content", [b"", b"no such format", b"\x89HDF\r\n\x1a\nrest", b"PK\x03\x04rest", b"\x80\x05K"]
)
@pytest.mark.parametrize("verb", ["load", "append"])
def test_a_file_of_another_format_is_named(store, file, content, verb):
    path = file(store)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=path.name):
        store.load(path) if verb == "load" else store.append(path, {"x": [1]})
    assert path.read_bytes() == content


def test_a_file_that_was_cut_short_is_named(store, file):
    path = file(store)
    store.save(path, {"x": list(range(1000)), "s": [f"name {i}" for i in range(1000)]})
    content = path.read_bytes()
    for part in (0.1, 0.5, 0.9, 0.999):
        path.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(StoreError, match=path.name):
            store.load(path)


def test_stores_keep_to_the_protocol(store):
    assert isinstance(store, Store)
    store.check({"x": [1], "s": ["a"], "v": [np.zeros(3)], "m": [None]})


def test_importing_the_package_loads_neither_numpy_nor_tables():
    code = "import sys, psyrun.store; sys.exit(bool({'numpy', 'tables', 'cloudpickle'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert set(psyrun.store.__all__) >= {"AutodetectStore", "H5Store", "NpzStore", "PickleStore"}
    with pytest.raises(AttributeError, match="NoStore"):
        psyrun.store.NoStore  # noqa: B018


# ---------------------------------------------------------------------- npz and HDF5: types and shapes


CHANGES = {
    "None beside numbers is kept as NaN": [[1, None], [1.5, None], [True, None], [np.int8(1), None]],
    "True and False beside other values are kept as 1 and 0": [
        [True, None],
        [True, math.nan],
        [True, 2],
        [np.True_, 0.5],
        [[True], [True, False]],
    ],
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("change", "values"), [(c, v) for c in CHANGES for v in CHANGES[c]], ids=repr)
def test_values_that_change_their_meaning_are_warned_of(array_store, file, change, values):
    path = file(array_store)
    with pytest.warns(PsyrunWarning, match=f"^'x': {change}; PickleStore keeps"):
        array_store.save(path, {"x": values, "y": [1, 2]})
    with warnings.catch_warnings(record=True) as said:
        array_store.append(path, {"y": [1]})
    assert not [each for each in said if change in str(each.message)]
    array_store.save(path, {"x": values[:1]})
    with pytest.warns(PsyrunWarning, match=f"^'x': {change}"):
        array_store.append(path, {"x": values[1:]})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "values",
    [
        [True, False],
        ["a", None],
        [b"a", None],
        [None, None],
        [1, math.nan],
        [1, 2.5],
    ],
    ids=repr,
)
def test_values_that_come_back_as_they_were_are_not_warned_of(array_store, file, values):
    loaded = round_trip(array_store, file(array_store), {"x": values})["x"].tolist()
    assert repr(loaded) == repr(
        [float(each) if 2.5 in values or math.nan in values else each for each in values]
    )


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], np.int64),
        ([True, False], np.bool_),
        ([1, 2.5], np.float64),
        ([1, None], np.float64),
        ([True, None], np.float64),
        ([1, 2j], np.complex128),
        ([2**63, 1], np.uint64),
        ([10**20, 0.5], np.float64),
        ([np.int8(1), np.int8(2)], np.int8),
        ([np.float32(1), None], np.float32),
        ([np.zeros(2, np.float32), np.zeros(3, np.float32)], np.float32),
        ([np.datetime64("2020-01-01", "s"), None], "M8[s]"),
        ([np.timedelta64(1, "m"), np.timedelta64(1, "s")], "m8[s]"),
        (["a", "bcd"], "U3"),
        ([b"a", b"bcd"], "S3"),
    ],
)
def test_columns_keep_their_type(array_store, file, values, dtype):
    for data in ({"x": values}, {"x": describe_and_build(values)}):
        assert round_trip(array_store, file(array_store), data)["x"].dtype == np.dtype(dtype)


def describe_and_build(values):
    from psyrun.store.arrays import build

    return build(values, describe(values))


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("values", "padded"),
    [
        ([[1, 2], [3], []], [[1, 2], [3, None], [None, None]]),
        ([5, [1, 2], None], [[5, None], [1, 2], [None, None]]),
        ([[7, 8], [[1], [2]], 5], [[[7, 8], [None] * 2], [[1, None], [2, None]], [[5, None], [None] * 2]]),
        ([["a"], [], ["b\0", "c"]], [["a", None], [None, None], ["b\0", "c"]]),
        ([np.zeros((0, 2)), np.zeros((0, 2)), np.ones((1, 2))], [[[None, None]], [[None, None]], [[1, 1]]]),
        ([np.array([1, None]), np.array([2, 3]), np.array(4)], [[1, None], [2, 3], [4, None]]),
    ],
)  # fmt: skip
def test_values_of_varying_shape_are_padded_at_once_and_by_appending(array_store, file, values, padded, cut):
    path = file(array_store)
    array_store.append(path, {"x": values[:cut]})
    array_store.append(path, {"x": values[cut:]})
    loaded = array_store.load(path)["x"]
    assert same(loaded, padded)
    assert loaded.shape == (3, *np.shape(padded)[1:])


def test_none_among_strings_is_not_the_empty_string(array_store, file):
    values = round_trip(array_store, file(array_store), {"s": ["", None, "a\0"]})["s"]
    assert values.tolist() == ["", None, "a\0"]


def test_one_long_string_does_not_widen_the_others(array_store, file):
    values = round_trip(array_store, file(array_store), {"s": ["a"] * 999 + ["x" * 10**4]})["s"]
    assert values.dtype == object


def test_a_column_of_missing_values_takes_any_type_later(array_store, file):
    for later in ("a", 1.5, [1, 2], np.datetime64("2020-01-01"), b"a"):
        path = file(array_store)
        array_store.save(path, {"x": [None]})
        assert array_store.load(path)["x"].tolist() == [None]
        array_store.append(path, {"x": [later]})
        loaded = array_store.load(path)["x"]
        assert same(loaded[1], later)
        assert is_missing(loaded[0]) or all(map(is_missing, loaded[0]))


def test_a_column_of_empty_lists_takes_strings_later(file):
    path = file(H5Store())
    H5Store().append(path, {"x": [[], []]})
    H5Store().append(path, {"x": [["a", "b"]]})
    assert same(H5Store().load(path)["x"], [[None, None], [None, None], ["a", "b"]])


def test_integers_survive_where_float64_would_lose_digits(file):
    seeds = [2**60 + 1, None]
    assert round_trip(NpzStore(), file(NpzStore()), {"seed": seeds})["seed"].tolist() == seeds
    path = file(H5Store())
    with pytest.raises(StoreError, match=r"'seed'.*lose digits"):
        H5Store().save(path, {"seed": seeds})
    H5Store().save(path, {"seed": seeds[:1]})
    with pytest.raises(StoreError, match=r"'seed'.*lose digits"):
        H5Store().append(path, {"seed": [None]})
    assert H5Store().load(path)["seed"].tolist() == [2**60 + 1]


def test_chunks_are_written_one_below_the_other(array_store, file):
    path = file(array_store)
    chunks = [{"x": [1], "s": ["a"]}, {}, {"x": [2.5, 3], "y": [[1], [1, 2]]}, {"s": ["longer"]}]
    array_store.save_chunks(path, lambda: iter(chunks))
    loaded = array_store.load(path)
    assert isinstance(array_store, ChunkStore)
    assert same(loaded["x"], [1, 2.5, 3, None])
    assert same(loaded["s"], ["a", None, None, "longer"])
    assert same(loaded["y"], [[None, None], [1, None], [1, 2], [None, None]])


alike = st.one_of(
    *(
        st.lists(value.map(kind), min_size=1, max_size=3)
        for kind, value in (
            *((np.int64, st.integers(-(2**63), 2**63 - 1)), (np.uint64, st.integers(0, 2**64 - 1))),
            *((np.float32, st.floats(width=32)), (np.bool_, st.booleans()), (np.complex128, st.integers())),
            (lambda n: np.full((2, n % 3), n, np.int8), st.integers(0, 2)),
            (lambda text: np.array([text, "a"], "U9"), st.text("ab\0\xe4", max_size=3)),
            (lambda day: np.array([day], "M8[D]"), st.integers(0, 9)),
            (lambda day: np.array([day], "M8[s]"), st.integers(0, 9)),
        )
    ),
    *(st.lists(kind, min_size=1, max_size=3) for kind in column_kinds),
)


@quick
@given(
    chunks=st.lists(
        alike.flatmap(
            lambda x: (
                st.fixed_dictionaries({}, optional={"x": st.just(x)})
                | st.just({"x": x, "n": [*range(len(x))]})
            )
        ),
        min_size=1,
        max_size=3,
    ),
    most=st.sampled_from([-1, 40, 1 << 26]),
)
def test_packed_chunks_are_written_as_their_values_are(array_store, file, chunks, most):
    packed = [{n: unpack_column(*pack_column(values)) for n, values in each.items()} for each in chunks]
    paths = file(array_store), file(array_store)
    errors = []
    with pytest.MonkeyPatch.context() as patch:
        for path, given_chunks, kept in zip(paths, (chunks, packed), (-1, most)):
            patch.setattr("psyrun.store.arrays._MOST_KEPT", kept)
            try:
                array_store.save_chunks(path, lambda each=given_chunks: iter(each))
            except StoreError as error:
                errors.append(str(error))
    if errors:
        assert errors == errors[:1] * 2
    else:
        plain, other = map(array_store.load, paths)
        assert list(plain) == list(other)
        for name, column in plain.items():
            assert column.dtype == other[name].dtype
            assert repr(column.tolist()) == repr(other[name].tolist())
            assert list(map(type, column.flat)) == list(map(type, other[name].flat))


@quick
@given(
    data=st.lists(
        st.sampled_from(column_kinds).flatmap(lambda kind: st.lists(kind, max_size=3)), min_size=3, max_size=3
    )
)
def test_columns_are_described_alike_in_any_order(data):
    a, b, c = map(describe, data)
    assert join(join(a, b), c).array_dtype == join(a, join(b, c)).array_dtype
    assert join(a, b).shape == join(b, a).shape


@given(name=st.text() | names | st.text("%e2Fab/\0._", max_size=8))
def test_escaped_names_are_plain_and_reversible(name):
    escaped = escape(name, "/|^_")
    assert unescape(escaped) == name
    assert escaped
    assert not set(escaped) & {"/", "\0"}


# ---------------------------------------------------------------------- objects


class Unpicklable:
    def __reduce__(self):
        raise TypeError("not me")


OBJECTS = {
    "dict": {"a": 1},
    "list": [[1], [1, 2]],
    "list of dict": [{}],
    "set": {1},
    "int": 2**70 + 1,
    "Decimal": Decimal("1.5"),
    "MaskedArray": np.ma.masked_array([1, 2], [True, False]),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_pickle_and_npz_hold_objects(kind, file):
    for store in (PickleStore(), NpzStore()):
        store.check({"x": [OBJECTS[kind]]})
        path = file(store)
        store.append(path, {"x": [OBJECTS[kind], None]})
        store.append(path, {"x": ["a string", 1.5, [1, 2]]})
        loaded = list(store.load(path)["x"])
        assert repr(loaded) == repr([OBJECTS[kind], None, "a string", 1.5, [1, 2]])


@pytest.mark.parametrize("kind", OBJECTS)
def test_hdf5_names_column_and_type_of_an_object_before_it_writes(kind, file):
    store = H5Store()
    path = file(store)
    words = rf"column 'b\.b' holds values of type .*{kind}.*PickleStore or NpzStore.*exclude_from_result"
    with pytest.raises(StoreError, match=words):
        store.check({"x": [1], "b.b": [OBJECTS[kind]]})
    with pytest.raises(StoreError, match=words):
        store.save(path, {"b.b": [OBJECTS[kind]]})
    assert not path.exists()
    store.save(path, {"b.b": [1]})
    with pytest.raises(StoreError, match=words):
        store.append(path, {"b.b": [OBJECTS[kind]]})
    assert same(store.load(path)["b.b"], [1])


def test_hdf5_refuses_a_mixture_and_names_its_types(file):
    with pytest.raises(StoreError, match="'x' holds values of type int and str"):
        H5Store().check({"x": [1, "a"]})


def test_npz_names_column_and_type_of_what_can_not_be_pickled(file):
    store = NpzStore()
    for call in (store.check, lambda data: store.save(file(store), data)):
        with pytest.raises(StoreError, match=r"column 'x' .*Unpicklable.*not me"):
            call({"x": [Unpicklable()]})


def test_objects_of_classes_without_a_module_are_pickled_by_value(file):
    namespace = {"__name__": "gone"}
    exec("class Local:\n    value = 42", namespace)
    for store in (PickleStore(), NpzStore()):
        loaded = round_trip(store, file(store), {"x": [namespace["Local"]()]})
        assert loaded["x"][0].value == 42


# ---------------------------------------------------------------------- npz


def test_numpy_reads_an_npz_file(file):
    path = file(NpzStore())
    NpzStore().save(path, {"x": [1, 2], "file": ["a", "b"], "allow_pickle": [0.5, 1.5]})
    with np.load(path) as archive:
        assert archive["x"].tolist() == [1, 2]
        assert archive["file"].tolist() == ["a", "b"]


def test_npz_reads_what_numpy_wrote(file):
    path = file(NpzStore())
    np.savez_compressed(path, x=np.arange(3), y=np.ones((3, 2)))
    NpzStore().append(path, {"x": [3]})
    assert NpzStore().load(path)["y"].shape == (4, 2)
    np.savez(path, scalar=7)
    assert NpzStore().load(path, row=0) == {"scalar": [7]}


def test_a_flipped_byte_in_an_npz_file_is_noticed(file):
    path = file(NpzStore())
    NpzStore().save(path, {"x": [1.0] * 100})
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="CRC"):
        NpzStore().load(path)


def test_a_failed_append_leaves_the_npz_file_as_it_was(file):
    path = file(NpzStore())
    NpzStore().save(path, {"x": [1]})
    before = path.read_bytes()
    with pytest.raises(StoreError):
        NpzStore().append(path, {"x": [Unpicklable()]})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_equal_tables_make_equal_npz_files(file):
    paths = [file(NpzStore()) for _ in range(2)]
    for path in paths:
        NpzStore().save(path, {"x": [1], "s": ["a"]})
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert zipfile.is_zipfile(paths[0])


# ---------------------------------------------------------------------- HDF5


def test_hdf5_keeps_what_is_not_below_its_node(file):
    path = file(H5Store())
    with tables.open_file(str(path), "w") as h5:
        h5.create_array("/", "other", [1, 2, 3])
        h5.create_array("/psyrun/below", "deeper", [4], createparents=True)
    H5Store().append(path, {"x": [1]})
    H5Store("/runs/a").save(path, {"x": [2]})
    H5Store().save(path, {"y": [3]})
    with tables.open_file(str(path)) as h5:
        assert h5.root.other.read() == [1, 2, 3]
        assert h5.root.psyrun.below.deeper.read() == [4]
    assert same(H5Store("/runs/a/").load(path)["x"], [2])
    assert list(H5Store().load(path)) == ["y"]


def test_a_missing_node_is_named_with_those_that_are_there(file):
    path = file(H5Store())
    with tables.open_file(str(path), "w") as h5:
        h5.create_array("/", "other", [1])
    with pytest.raises(StoreError, match=r"no node '/psyrun'; there is /other"):
        H5Store().load(path)
    with pytest.raises(StoreError, match="'/other' is an array"):
        H5Store("/other").load(path)
    with pytest.raises(StoreError, match="must start with '/'"):
        H5Store("psyrun")


def test_arrays_that_others_wrote_are_read_and_grow(file):
    path = file(H5Store())
    with tables.open_file(str(path), "w") as h5:
        h5.create_array("/psyrun", "x", np.arange(3), createparents=True)
        h5.create_array("/psyrun", "s", np.array([b"a", b"bc", b""]))
        h5.create_carray("/psyrun", "m", obj=np.ones((2, 2)))
        ragged = h5.create_vlarray("/psyrun", "ragged", tables.Int64Atom())
        for length in (1, 2, 3):
            ragged.append(np.ones(length))
    H5Store().append(path, {"x": [2.5], "s": [b"longer"]})
    loaded = H5Store().load(path)
    assert same(loaded["x"], [0, 1, 2, 2.5])
    assert same(loaded["s"], [b"a", b"bc", b"", b"longer"])
    assert same(loaded["m"][:, 0], [1, 1, None, None])
    assert same(loaded["ragged"][1], [1, 1, None])


def test_columns_that_another_program_copied_are_read_and_grow(file):
    path = file(H5Store())
    with tables.open_file(str(path), "w") as h5:
        for name, kind, stored in [("s", "text", [b"a", b"\xff"]), ("x", "number", [1, 2])]:
            h5.create_array("/psyrun", name, np.array(stored), createparents=True).attrs.psyrun_kind = kind
    assert H5Store().load(path)["s"].tolist() == ["a", None]
    H5Store().append(path, {"s": ["b"], "x": [3]})
    assert H5Store().load(path)["s"].tolist() == ["a", None, "b"]


def test_integers_of_a_node_become_wider_only_where_they_fit(file):
    store = H5Store()
    for first, second in [
        ([1], [2**64 - 1]),
        ([2**64 - 1], [1]),
        ([np.uint64(1)], [-1]),
        ([np.int8(1)], [300]),
    ]:
        path = file(store)
        store.save(path, {"x": first})
        store.append(path, {"x": second})
        assert store.load(path)["x"].tolist() == [*first, *second]
        assert store.load(path)["x"].dtype.kind in "iu"
    store.save(path, {"x": [-1]})
    with pytest.raises(StoreError, match="beyond 64 bits"):
        store.append(path, {"x": [2**64 - 1]})


def test_an_interrupted_append_is_cut_by_the_next(file):
    path = file(H5Store())
    H5Store().save(path, {"x": [1, 2], "s": ["a", "b"]})
    with tables.open_file(str(path), "a") as h5:
        h5.root.psyrun.x.append([99])
        h5.create_earray("/psyrun", "_p_psyrun_new", tables.Int64Atom(), (0,))
    assert same(H5Store().load(path)["x"], [1, 2])
    H5Store().append(path, {"x": [3.5], "s": ["c"]})
    loaded = H5Store().load(path)
    assert same(loaded["x"], [1, 2, 3.5])
    assert same(loaded["s"], ["a", "b", "c"])


def test_a_column_that_an_interrupted_append_left_short_is_filled(file):
    path = file(H5Store())
    H5Store().save(path, {"x": [1, 2], "y": [1, 2]})
    with tables.open_file(str(path), "a") as h5:
        h5.root.psyrun.y.truncate(1)
    assert same(H5Store().load(path)["y"], [1, None])
    assert same(H5Store().load(path, row=1)["y"], [None])
    H5Store().append(path, {"x": [3], "y": [3]})
    assert same(H5Store().load(path)["y"], [1, None, 3])


def test_a_node_of_many_blocks_is_rewritten_and_filled(file, monkeypatch):
    monkeypatch.setattr("psyrun.store.h5_nodes._BLOCK", 64)
    path = file(H5Store())
    H5Store().save(path, {"x": list(range(100)), "s": [str(i) for i in range(100)], "u": [2**63] * 100})
    H5Store().append(path, {"x": [[0.5, 1.5]], "s": ["much longer"], "y": [1], "u": [5]})
    loaded = H5Store().load(path)
    assert same(loaded["x"][:, 0], [*range(100), 0.5])
    assert same(loaded["s"], [*map(str, range(100)), "much longer"])
    assert same(loaded["y"], [None] * 100 + [1])


def test_a_file_that_is_open_elsewhere_in_the_process_is_named(file):
    path = file(H5Store())
    H5Store().save(path, {"x": [1]})
    with tables.open_file(str(path)), pytest.raises(StoreError, match="already opened"):
        H5Store().append(path, {"x": [2]})


def test_strings_are_legible_for_other_hdf5_readers(file):
    path = file(H5Store())
    H5Store().save(path, {"s": ["naïve", "b"], "b": [b"raw", b"x"]})
    with tables.open_file(str(path)) as h5:
        assert h5.root.psyrun.s[:].tolist() == ["naïve".encode(), b"b"]
        assert h5.root.psyrun.b[:].tolist() == [b"raw", b"x"]


def test_names_that_pytables_dislikes_raise_no_warning_and_come_back(file):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = ["b.b", "a b", "class", "/", "_v_x", "", "ü", "__members__", "a.", "..", "%00", "x" * 300]
        loaded = round_trip(H5Store(), file(H5Store()), {name: [1] for name in names})
    assert list(loaded) == names


MERGE = """
import resource, sys
from psyrun.store.h5 import H5Store
def chunks():
    for start in range(0, 10**6, 10**4):
        rows = range(start, start + 10**4)
        floats = {f"f{k}": [i + k / 10 for i in rows] for k in range(4)}
        yield {**floats, "i": list(rows), "s": [f"s{i}" for i in rows]}
H5Store().save_chunks(sys.argv[1], chunks)
try:  # Resident memory in getrusage may be that of the process which started this one.
    lines = open("/proc/self/status").read().splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
except FileNotFoundError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_million_rows_are_merged_in_little_memory(file):
    path = file(H5Store())
    run = subprocess.run([sys.executable, "-c", MERGE, str(path)], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(run.stdout) * unit < 300e6
    row = H5Store().load(path, row=-1)
    assert (*row["i"], *row["s"]) == (999_999, "s999999")


# ---------------------------------------------------------------------- AutodetectStore


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.pkl", PickleStore),
        (Path("a.pickle"), PickleStore),
        ("a.npz", NpzStore),
        ("a.b.h5", H5Store),
        ("a.HDF5", H5Store),
    ],
)
def test_the_extension_chooses_the_store(name, kind):
    assert type(AutodetectStore.get_concrete_store(name)) is kind


@pytest.mark.parametrize("name", EXTENSIONS)
def test_stores_are_registered_with_the_extension_of_their_files(name):
    store = getattr(psyrun, name)()
    assert store.ext == EXTENSIONS[name][0]
    assert {type(AutodetectStore.get_concrete_store(f"a{end}")) for end in EXTENSIONS[name]} == {type(store)}


def test_autodetect_store_saves_appends_and_loads(tmp_path):
    store = AutodetectStore()
    assert isinstance(store, Store)
    store.check({"x": [{}]})
    for extension in (".pkl", ".npz", ".h5"):
        path = str(tmp_path / f"table{extension}")
        store.save(path, {"x": [1]})
        store.append(path, {"x": [2]})
        assert same(store.load(path)["x"], [1, 2])
        assert store.load(path, row=1) == {"x": [2]}


def test_an_unknown_extension_is_answered_with_the_known_ones():
    with pytest.raises(
        StoreError, match=r"'\.txt'; there are \.csv, \.h5, \.hdf5, \.npz, \.parquet, \.pickle, \.pkl"
    ):
        AutodetectStore.get_concrete_store("table.txt")


def test_plugins_add_extensions_and_broken_ones_are_named(monkeypatch):
    points = [
        EntryPoint(".tsv", "psyrun.store.pickle:PickleStore", "psyrun.stores"),
        EntryPoint(".bad", "no_such_module:Store", "psyrun.stores"),
        EntryPoint(".npz", "no_such_module:Store", "psyrun.stores"),
    ]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    assert type(AutodetectStore.get_concrete_store("a.tsv")) is PickleStore
    assert type(AutodetectStore.get_concrete_store("a.npz")) is NpzStore
    with pytest.raises(StoreError, match=r"\.bad .*no_such_module"):
        AutodetectStore.get_concrete_store("a.bad")


def test_plain_tables_are_read_from_pickles_and_other_objects_are_refused(tmp_path):
    values = [1, 2.5, "a", b"b", None, 1j, {1}, range(3), (1, {"k": [2]})]
    scalars = [np.float64(3), np.bool_(True), np.datetime64("2020")]
    arrays = [
        np.arange(6).reshape(2, 3),
        np.array(["a", "b"]),
        np.zeros((2, 2), order="F"),
        np.array([None, "c"]),
    ]
    for protocol in range(3, pickle.HIGHEST_PROTOCOL + 1):
        for n, each in enumerate([*values, *scalars, *arrays]):
            path = tmp_path / f"{n}.pkl"
            PickleStore(protocol).save(path, {"x": [each]})
            [again] = load_plain(path)["x"]
            assert type(again) is type(each)
            assert repr(again) == repr(each)
    for other in (Path("a"), print, iter([1]), os.system):
        PickleStore().save(tmp_path / "other.pkl", {"x": [1, other]})
        with pytest.raises(StoreError, match=r"other.pkl: holds .*, no plain value"):
            load_plain(tmp_path / "other.pkl")
    (tmp_path / "other.pkl").write_bytes(b"x")
    with pytest.raises(StoreError, match="not a pickle file"):
        load_plain(tmp_path / "other.pkl")
