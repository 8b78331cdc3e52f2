"""Journals and records: what was written is read, what was damaged is not, and nothing is counted twice."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import random
import resource
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import files
from psyrun.errors import FormatError, NewerFormatError
from psyrun.values import PackedColumn
from psyrun.workdir import frame
from psyrun.workdir.frame import Counts
from psyrun.workdir.inputs import create_inputs, pack_inputs, read_inputs
from psyrun.workdir.journal import (
    BatchKey,
    Failure,
    JournalWriter,
    encode_block,
    journal_path,
    pack_column,
    unpack_column,
)
from psyrun.workdir.journal import read_blocks as read_blocks_tied
from psyrun.workdir.journal import read_headers as read_headers_tied
from psyrun.workdir.records import (
    JournalFile,
    Records,
    RowCounter,
    RowCounts,
    list_journals,
    read_records,
    read_values,
    up_to_receipt,
)

PLAIN = settings(deadline=None, max_examples=60)
TIE = "00112233aabbccdd"
KEY = BatchKey(0, TIE)
OTHER_TIE = "0" * 16


def read_blocks(path, **options):
    return read_blocks_tied(path, bytes.fromhex(TIE), **options)


def read_headers(path, **options):
    return read_headers_tied(path, bytes.fromhex(TIE), **options)


def seal(*blocks, tie=TIE, **options):
    return files.seal(*blocks, tie=tie, **options)


def encode(rows, columns, failures=(), seconds=0.0):
    """A block that is not sealed yet."""
    return encode_block(rows, columns, failures, counts=Counts(seconds=seconds))


# ---------------------------------------------------------------------- values


def same(one, other):
    """Whether two values are the same in type, and in every bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray | np.generic):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        if one.dtype.hasobject:
            return same(one.tolist(), other.tolist())
        if one.dtype.char in "gG":  # Padding between the numbers may hold anything.
            return repr(one) == repr(other)
        return one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float | complex):
        return repr(one) == repr(other)
    return one == other


# NumPy's pickles bring big-endian times, and arrays that are not contiguous, back in native byte order.
TIMES = hnp.datetime64_dtypes(endianness="=") | hnp.timedelta64_dtypes(endianness="=")
SCALAR_DTYPES = hnp.scalar_dtypes().filter(lambda dtype: dtype.kind not in "mM") | TIMES
DTYPES = SCALAR_DTYPES | hnp.array_dtypes(SCALAR_DTYPES, allow_subarrays=True)
PYTHON = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.text() | st.binary()
)
NUMPY = SCALAR_DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, 1)).map(lambda array: array[0])
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
ARRAYS = hnp.arrays(DTYPES, SHAPES)
OBJECT_ARRAYS = hnp.arrays(np.dtype(object), SHAPES, elements=PYTHON, fill=st.nothing())
NATIVE_DTYPES = SCALAR_DTYPES.filter(lambda dtype: dtype.isnative)
NOT_CONTIGUOUS = hnp.arrays(NATIVE_DTYPES, (4, 3)).map(lambda array: array[::-2, 1:].T)
CONTAINERS = st.lists(PYTHON | NUMPY, max_size=3) | st.dictionaries(st.text(), PYTHON | NUMPY, max_size=3)
VALUES = PYTHON | NUMPY | ARRAYS | OBJECT_ARRAYS | NOT_CONTIGUOUS | CONTAINERS


@st.composite
def columns_of(draw, size):
    """A column of one kind, the case that is packed, or of many."""
    kind = draw(st.sampled_from(("python", "scalars", "arrays", "mixed")))
    if kind == "python":
        one = draw(st.sampled_from((st.booleans(), st.integers(), st.floats(), st.text(), st.none())))
    elif kind == "scalars":
        dtype = draw(SCALAR_DTYPES)
        return list(draw(hnp.arrays(dtype, size)))
    elif kind == "arrays":
        one = hnp.arrays(draw(DTYPES), draw(SHAPES))
    else:
        one = VALUES
    return draw(st.lists(one, min_size=size, max_size=size))


FAILURES = st.lists(
    st.builds(
        Failure,
        row=st.integers(0, 20),
        reason=st.text(),
        traceback=st.text(),
        seconds=st.floats(0, 1e6),
        host=st.text(),
    ),
    max_size=3,
)


@st.composite
def tables(draw):
    """Row numbers, as a list or a range, and as many values per column."""
    size = draw(st.integers(1, 5))
    first = draw(st.integers(0, 1000))
    numbers = st.lists(st.integers(0, 2000), min_size=size, max_size=size, unique=True)
    rows = draw(st.just(range(first, first + size)) | numbers)
    names = draw(st.lists(st.text(), max_size=3, unique=True))
    return rows, {name: draw(columns_of(size)) for name in names}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file that any example may overwrite."""
    return tmp_path_factory.mktemp("journals") / f"0-{TIE}-abcdefgh.rows"


@PLAIN
@given(table=tables(), failures=FAILURES, seconds=st.floats(0, 1e9))
def test_values_come_back_with_their_exact_types(path, table, failures, seconds):
    rows, columns = table
    path.write_bytes(seal(encode(rows, columns, failures, seconds)))
    (block,) = read_blocks(path)
    assert list(block.rows) == list(rows)
    assert same(block.columns(), columns)
    assert block.failures == failures
    header = block.header
    counts = header.counts
    assert (counts.rows, counts.failures, counts.seconds) == (len(rows), len(failures), seconds)
    assert header.end == path.stat().st_size


@pytest.mark.parametrize(
    "column",
    [
        [np.datetime64("2020-01-01"), np.datetime64("2020-01-01T00:00:00.5"), np.datetime64("NaT", "s")],
        [np.timedelta64(1, "D"), np.timedelta64(24, "h"), np.timedelta64(1, "s")],
        [np.array([np.datetime64("2020", "Y")]), np.array([np.datetime64("2020-01", "M")])],
        [np.array([1, 2], ">i4"), np.array([1, 2], "<i4")],
        [np.array(1.5), np.array(2.5)],
        [np.array("a"), np.array("abc")],
        [np.array(""), np.array("")],
        [np.array([b""]), np.array([b""])],
        [np.zeros((0, 3)), np.zeros((0, 3))],
        [np.zeros(2), np.zeros(3)],
        [np.float32(1), np.float64(1), 1.0, 1, True, np.True_],
        [np.longdouble("0.1"), np.longdouble("1e-4000")],
        [np.str_("a"), "a", np.bytes_(b"a"), b"a"],
        [np.array([(1, 2.0)], "i4, >f8"), np.array([(3, 4.0)], "i4, >f8")],
        [np.array([(1, 2.0)], "i4, >f8")[0], np.array([(3, 4.0)], "i4, >f8")[0]],
        [np.array([None, {"a": 1}], dtype=object)] * 2,
        [np.ma.masked_array([1, 2], [0, 1]), np.array([1, 2])],
        [True, 1, 1.0, 1 + 0j],
        [2**70, -(2**70)],
    ],
    ids=str,
)
def test_values_that_look_alike_are_not_mixed_up(path, column):
    path.write_bytes(seal(encode(range(len(column)), {"x": column})))
    (block,) = read_blocks(path)
    for read, written in zip(block.columns()["x"], column, strict=True):
        assert same(read, written) or np.ma.isMaskedArray(written)
        assert repr(read) == repr(written)
        assert getattr(read, "dtype", None) == getattr(written, "dtype", None)


@PLAIN
@given(column=st.integers(1, 6).flatmap(columns_of), data=st.data())
def test_parts_of_a_column_are_gathered_as_they_are(column, data):
    rows = data.draw(st.permutations(range(len(column))))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(column)))) | {len(column)})
    parts = [rows[start:end] for start, end in zip([0, *cuts], cuts)]
    packed = [(part, unpack_column(*pack_column([column[row] for row in part]))) for part in parts]
    whole = PackedColumn.gather(packed, len(column))
    assert PackedColumn.gather(packed, len(column) + 1) is None
    assert whole is None or same(list(whole), list(column))
    if all(isinstance(values, PackedColumn) for _, values in packed):
        assert (whole is None) == (len({(v.array.dtype, v.array.shape[1:]) for _, v in packed}) > 1)


def test_arrays_that_were_read_can_be_changed(path):
    path.write_bytes(seal(encode([0, 1], {"x": [np.zeros(2), np.zeros(2)], "y": [np.array(1), np.array(2)]})))
    (block,) = read_blocks(path)
    columns = block.columns()
    columns["x"][0][:] = 1
    columns["y"][0][...] = 7
    assert columns["x"][1].tolist() == [0, 0]
    assert columns["y"][1] == 2


def test_many_equal_arrays_cost_little_more_than_their_numbers():
    arrays = [np.full(100, i, dtype=float) for i in range(50)]
    assert len(encode(range(50), {"x": arrays})) < 50 * 100 * 8 + 1000


def test_what_pickle_cannot_name_is_written_by_value(path):
    path.write_bytes(seal(encode([0], {"f": [lambda x: x + 1]})))
    (block,) = read_blocks(path)
    assert block.columns()["f"][0](1) == 2


# ---------------------------------------------------------------------- blocks


BLOCKS = st.lists(
    st.builds(
        lambda table, failures, seconds: (*table, failures, seconds),
        tables(),
        FAILURES,
        st.floats(0, 1e3),
    )
    | FAILURES.map(lambda failures: ([], {}, failures, 0.5)),
    max_size=4,
)


@PLAIN
@given(blocks=BLOCKS)
def test_blocks_are_concatenated_and_counted_from_their_headers(path, blocks):
    encoded = [encode(*block) for block in blocks]
    path.write_bytes(seal(*encoded))
    read = list(read_blocks(path))
    assert len(read) == len(blocks)
    assert all(same(each.columns(), block[1] if block[0] else {}) for each, block in zip(read, blocks))
    assert list(read_headers(path)) == [block.header for block in read]
    ends = [sum(map(len, encoded[: i + 1])) for i in range(len(encoded))]
    assert [block.header.end for block in read] == ends
    for i, end in enumerate(ends):
        assert [h.end for h in read_headers(path, start=end)] == ends[i + 1 :]
        assert [block.header.end for block in read_blocks(path, size=end)] == ends[: i + 1]
        assert [block.header.end for block in read_blocks(path, size=end - 1)] == ends[:i]


def test_file_without_blocks_has_no_rows(path):
    for content in (b"", b"PSY2", b"nothing of ours, but longer than the header of a block would be" * 3):
        path.write_bytes(content)
        assert list(read_blocks(path)) == list(read_headers(path)) == []


def test_journal_of_a_newer_psyrun_is_refused_and_one_that_is_damaged_is_not(path):
    whole = seal(encode([0], {"x": [1]}))
    later = files.make_newer(seal(encode([1], {"x": [2]}), offset=len(whole)), offset=len(whole))
    for content in (files.make_newer(whole), whole + later):
        path.write_bytes(content)
        for read in (read_blocks, read_headers):
            with pytest.raises(NewerFormatError, match=rf"0-{TIE}-abcdefgh\.rows: written by a newer psyrun"):
                list(read(path))
    for content in (b"PSY3", b"PSY3" + whole[4:], b"PSYX" + whole[4:], b"\0" + whole[1:]):
        path.write_bytes(content)
        assert list(read_blocks(path)) == list(read_headers(path)) == []


def test_flags_and_sections_that_a_reader_has_to_know_are_refused_and_others_ignored(path, monkeypatch):
    sections = {frame.ROWS: b""}
    for kind, refused in ((0x7FFF, True), (0x8000, False)):
        path.write_bytes(frame.encode_frame({**sections, kind: b"new"}, Counts(), tie=bytes.fromhex(TIE)))
        if refused:
            with pytest.raises(NewerFormatError):
                list(read_blocks(path))
        else:
            assert len(list(read_blocks(path))) == 1
    for flag, refused in ((0x0001, True), (0x0080, True), (0x0100, False)):
        with monkeypatch.context() as patch:
            patch.setattr(frame, "_FLAGS", flag)
            path.write_bytes(frame.encode_frame(sections, Counts(), tie=bytes.fromhex(TIE)))
        if refused:
            with pytest.raises(NewerFormatError):
                list(read_headers(path))
        else:
            assert len(list(read_headers(path))) == 1


def test_block_of_another_tie_or_place_is_not_read(path):
    first, second = encode([0], {"x": [1]}), encode([1], {"x": [2]})
    whole = seal(first, second)
    path.write_bytes(whole)
    assert len(list(read_blocks(path))) == len(list(read_headers(path))) == 2
    path.write_bytes(seal(first, second, tie=OTHER_TIE))
    assert list(read_blocks(path)) == list(read_headers(path)) == []
    end = len(seal(first))
    for moved in (whole[end:], whole[:end] + whole[:end], whole[:end] + b"\0" + whole[end:]):
        path.write_bytes(moved)
        assert len(list(read_blocks(path))) == len(list(read_headers(path))) == moved.startswith(whole[:end])


THREE = [
    encode([0, 1], {"x": [1, 2]}, (), 1.0),
    encode([2], {"x": [np.float64(3)]}, [Failure(3, "ValueError: no", "Traceback", 0.1, "node")], 2.0),
    encode(range(4, 6), {"x": [np.zeros(2), np.ones(2)]}, (), 3.0),
]
ENDS = [0, *(len(seal(*THREE[: i + 1])) for i in range(3))]


def whole_blocks(position):
    """How many blocks end before or at this byte."""
    return sum(end <= position for end in ENDS[1:])


def test_truncation_at_any_byte_costs_the_cut_block_only(path):
    data = seal(*THREE)
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        whole = ENDS[1 : whole_blocks(cut) + 1]
        assert [block.header.end for block in read_blocks(path)] == whole
        assert [header.end for header in read_headers(path)] == whole


def test_flipped_byte_anywhere_costs_its_block_and_those_after_it(path):
    data = seal(*THREE)
    chance = random.Random(1)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= chance.choice((1, 0x80, chance.randrange(1, 256)))
        path.write_bytes(damaged)
        before = ENDS[1 : whole_blocks(position) + 1]
        assert [block.header.end for block in read_blocks(path)] == before, position
        assert [header.end for header in read_headers(path)][: len(before)] == before, position


def test_readers_stop_at_the_end_of_a_file_that_is_shorter_than_they_were_told(path):
    data = seal(*THREE)
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        read = list(read_blocks(path, size=len(data)))
        assert [block.header.end for block in read] == ENDS[1 : whole_blocks(cut) + 1], cut
    path.write_bytes(data)
    assert list(read_headers(path, start=len(data) + 100)) == []


@PLAIN
@given(garbage=st.binary(max_size=200))
def test_garbage_behind_blocks_is_not_read(path, garbage):
    path.write_bytes(seal(THREE[0]) + garbage)
    assert [block.header.end for block in read_blocks(path)][:1] == [ENDS[1]]
    assert all(header.end <= path.stat().st_size for header in read_headers(path))


# ---------------------------------------------------------------------- writing

PLACE = b'{"host": "node"}'


@pytest.fixture
def writer(tmp_path):
    return JournalWriter(tmp_path, KEY, "abcdefgh").open()


@pytest.fixture
def closed(tmp_path):
    return tmp_path / f"0-{TIE}-abcdefgh.rows"


def test_written_blocks_are_there_at_once_and_the_journal_is_renamed_in_the_end(tmp_path, writer, closed):
    for i, block in enumerate(THREE):
        writer.append(block, PLACE)
        assert len(list(read_blocks(writer.path))) == i + 1
    writer.sync()
    writer.close()
    assert list(tmp_path.iterdir()) == [closed]
    expected = seal(*THREE, where=PLACE)
    assert closed.read_bytes() == expected


def test_place_stands_in_the_first_block_and_where_it_changed(writer, closed):
    for block, place in zip([*THREE, THREE[0]], (PLACE, PLACE, b'{"host": "other"}', PLACE)):
        writer.append(block, place)
    writer.close()
    hosts = [(block.where() or {}).get("host") for block in read_blocks(closed)]
    assert hosts == ["node", None, "other", "node"]


def test_journal_of_another_process_is_never_opened(tmp_path):
    journal = journal_path(tmp_path, KEY, "abcdefgh")
    journal.write_bytes(THREE[0])
    with pytest.raises(FileExistsError):
        JournalWriter(tmp_path, KEY, "abcdefgh").open()
    assert journal.read_bytes() == THREE[0]


def test_empty_journal_is_removed(tmp_path, writer):
    writer.close()
    assert list(tmp_path.iterdir()) == []


def write_in_part(fd, room):
    """Return an os.write for which the disk is full after so many bytes."""
    really_write, left = os.write, [room]

    def write(given, data):
        if given != fd:
            return really_write(given, data)
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = really_write(given, bytes(data)[: left[0]])
        left[0] -= written
        return written

    return write


def test_full_disk_leaves_what_was_synced_and_ends_the_journal(writer, monkeypatch):
    writer.append(THREE[0], PLACE)
    writer.sync()
    synced = writer.path.read_bytes()
    writer.append(THREE[1], PLACE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_in_part(writer._fd, 7))
        with pytest.raises(OSError, match="No space") as caught:
            writer.append(THREE[2], PLACE)
    assert caught.value.filename == str(writer.path)
    assert writer.path.read_bytes() == synced
    for go_on in (lambda: writer.append(THREE[2], PLACE), writer.sync, writer.close):
        with pytest.raises(OSError, match="No space"):
            go_on()
    assert writer.path.read_bytes() == synced


def test_block_is_whole_although_the_system_writes_it_in_pieces(writer, closed, monkeypatch):
    really_write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: really_write(fd, bytes(data)[:5]))
        writer.append(bytearray(THREE[0]), PLACE)
    writer.close()
    assert closed.read_bytes() == seal(THREE[0], where=PLACE)


def test_rows_that_could_not_be_synced_are_not_there(writer, tmp_path, monkeypatch):
    writer.append(THREE[0], PLACE)
    writer.sync()
    writer.append(THREE[1], PLACE)

    def fsync(fd):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="Input/output"):
            writer.close()
    assert list(tmp_path.iterdir()) == [writer.path]
    assert writer.path.read_bytes() == seal(THREE[0], where=PLACE)


# ---------------------------------------------------------------------- input files


ABOUT = {"task": "a", "scheme": 1, "code": "c" * 32, "space": "s" * 32}


def write_inputs(folder, columns, size=None):
    """Create an input file and return its path."""
    size = len(next(iter(columns.values()), ())) if size is None else size
    (key,) = create_inputs(folder, 0, [({**ABOUT, "size": size}, pack_inputs(columns))])
    return folder / f"{key.number}.pkl", key


@PLAIN
@given(table=tables())
def test_assignments_come_back_with_their_exact_types(tmp_path_factory, table):
    rows, columns = table
    path, key = write_inputs(tmp_path_factory.mktemp("in"), columns, len(rows))
    inputs = read_inputs(path, key.tie)
    assert same(inputs.columns(), columns)
    assert (inputs.key, inputs.size, inputs.code) == (key, len(rows), ABOUT["code"])


def test_equal_assignments_of_two_plans_are_two_ties(tmp_path):
    ties = {write_inputs(tmp_path, {"a": [1]})[1].tie for _ in range(10)}
    assert len(ties) == 10


def test_numbers_that_are_taken_are_skipped_and_their_files_are_untouched(tmp_path):
    taken = [tmp_path / "3.pkl", tmp_path / "5.pkl", tmp_path / "6.pkl"]
    for path in taken:
        path.write_bytes(b"of somebody else")
    batches = [({**ABOUT, "size": 1}, pack_inputs({"a": [i]})) for i in range(4)]
    keys = create_inputs(tmp_path, 3, batches)
    assert [key.number for key in keys] == [4, 7, 8, 9]
    assert [read_inputs(tmp_path / f"{k.number}.pkl", k.tie).columns()["a"] for k in keys] == [
        [0],
        [1],
        [2],
        [3],
    ]
    assert {path.read_bytes() for path in taken} == {b"of somebody else"}


def test_two_planners_at_once_never_share_a_number(tmp_path):
    batches = [({**ABOUT, "size": 1}, pack_inputs({"a": [i]})) for i in range(50)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: create_inputs(tmp_path, 0, batches), range(4)))
    numbers = [key.number for keys in found for key in keys]
    assert sorted(numbers) == list(range(200))
    for keys in found:
        assert [key.number for key in keys] == sorted(key.number for key in keys)
        read = [read_inputs(tmp_path / f"{key.number}.pkl", key.tie).columns()["a"] for key in keys]
        assert read == [[i] for i in range(50)]


def test_what_an_input_file_says_is_read_without_the_classes_of_its_values(tmp_path, monkeypatch):
    module = types.ModuleType("module_of_a_user")
    exec("class Network:\n    pass", vars(module))
    monkeypatch.setitem(sys.modules, "module_of_a_user", module)
    path, key = write_inputs(tmp_path, {"network": [module.Network()]})
    assert isinstance(read_inputs(path, key.tie).columns()["network"][0], module.Network)
    monkeypatch.delitem(sys.modules, "module_of_a_user")
    assert read_inputs(path).size == 1
    with pytest.raises(ModuleNotFoundError):
        read_inputs(path).columns()


def test_value_that_cannot_be_pickled_is_refused():
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        pack_inputs({"f": [lambda: None]})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PSY2",
        b"not a frame, but longer than the header of one would be, which takes a little",
        frame.encode_frame({frame.ABOUT: b"[]"}, Counts()),
        frame.encode_frame({frame.ABOUT: b"{}", frame.VALUES: b""}, Counts()),
        frame.encode_frame({frame.VALUES: b""}, Counts()),
    ],
    ids=repr,
)
def test_input_file_that_psyrun_did_not_write_is_named(tmp_path, content):
    path = tmp_path / "0.pkl"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"0\.pkl: damaged, or not written by psyrun"):
        read_inputs(path)


def test_input_file_under_the_name_of_another_is_refused(tmp_path):
    one, key = write_inputs(tmp_path, {"a": [1]})
    other, other_key = write_inputs(tmp_path, {"a": [1]})
    one.replace(other)
    for tie in (None, key.tie, other_key.tie):
        with pytest.raises(FormatError, match=r"1\.pkl: not the assignments that were planned"):
            read_inputs(other, tie)


def test_input_file_of_a_newer_format_is_not_read(tmp_path):
    path, _ = write_inputs(tmp_path, {"a": [1]})
    path.write_bytes(files.make_newer(path.read_bytes()))
    with pytest.raises(NewerFormatError, match=r"0\.pkl: written by a newer psyrun"):
        read_inputs(path)


def test_input_file_that_was_cut_short_or_has_a_flipped_byte_is_named(tmp_path):
    columns = {"a": [1, 2], "b": [np.zeros(2), np.ones(2)], "c": ["one", "two"]}
    path, _ = write_inputs(tmp_path, columns)
    data = path.read_bytes()
    flipped = [data[:i] + bytes([data[i] ^ 0x15]) + data[i + 1 :] for i in range(len(data))]
    for content in (*(data[:cut] for cut in range(len(data))), *flipped):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"0\.pkl: "):
            read_inputs(path)


# ---------------------------------------------------------------------- records


def write_journals(folder, journals):
    """Write journals of blocks (rows, failed rows); every value tells which block it is from."""
    for old in folder.iterdir():
        old.unlink()
    for number, blocks in enumerate(journals):
        data = seal(*(make_block(number, i, *block) for i, block in enumerate(blocks)))
        (folder / f"0-{TIE}-{number:08}.{'part' if number % 2 else 'rows'}").write_bytes(data)


def make_block(journal, number, rows, failed):
    origin = f"{journal}.{number}"
    failures = [Failure(row, origin) for row in failed]
    return encode(rows, {"origin": [origin] * len(rows), "row": list(rows)}, failures, 0.5)


@st.composite
def journal_blocks(draw):
    """Blocks of one writer: it evaluates a row once, and once more if that failed."""
    rows = draw(st.permutations(range(8)))
    blocks = []
    while rows:
        n = draw(st.integers(1, 4))
        part, rows = rows[:n], rows[n:]
        failed = draw(st.sets(st.sampled_from(part)))
        blocks.append(([row for row in part if row not in failed], sorted(failed)))
    return blocks[: draw(st.integers(0, len(blocks)))]


JOURNALS = st.lists(journal_blocks(), max_size=3)
WANTED = st.none() | st.frozensets(st.integers(0, 8))


@PLAIN
@given(journals=JOURNALS, wanted=WANTED)
def test_records_are_the_union_over_all_journals_and_success_outweighs_failure(
    tmp_path_factory, journals, wanted
):
    folder = tmp_path_factory.mktemp("out")
    write_journals(folder, journals)
    found = read_records(list_journals(folder).get(KEY, []))
    flat = [block for blocks in journals for block in blocks]
    done = {row for rows, _ in flat for row in rows}
    failed = {row for _, failures in flat for row in failures} - done
    assert found.done == done
    assert found.failures.keys() == failed
    assert found.seconds == 0.5 * len(flat)
    expected = (len(done), len(failed)) if wanted is None else (len(done & wanted), len(failed & wanted))
    assert (found.count(wanted).done, found.count(wanted).failed) == expected
    last = {
        row: f"{j}.{b}"
        for j, blocks in enumerate(journals)
        for b, (_, bad) in enumerate(blocks)
        for row in bad
    }
    assert {row: failure.reason for row, failure in found.failures.items()} == {
        row: last[row] for row in failed
    }
    ends = {name: end for name, end, _ in found.ends}
    assert ends == {
        f"0-{TIE}-{j:08}": len(read_all(folder, j)) for j, blocks in enumerate(journals) if blocks
    }


def read_all(folder, number):
    (path,) = folder.glob(f"0-{TIE}-{number:08}.*")
    return path.read_bytes()


@PLAIN
@given(journals=JOURNALS)
def test_of_several_records_of_a_row_the_first_counts(tmp_path_factory, journals):
    folder = tmp_path_factory.mktemp("out")
    write_journals(folder, journals)
    first = {}
    for j, blocks in enumerate(journals):
        for b, (rows, _) in enumerate(blocks):
            for row in rows:
                first.setdefault(row, f"{j}.{b}")
    read = []
    for rows, columns in read_values(list_journals(folder).get(KEY, [])):
        assert list(rows) == columns.get("row", [])
        read += zip(rows, columns.get("origin", []), strict=True)
    assert sorted(read) == sorted(first.items())


@PLAIN
@given(journals=JOURNALS, wanted=WANTED, order=st.randoms())
def test_counts_that_go_on_are_those_of_a_fresh_count(tmp_path_factory, journals, wanted, order):
    folder = tmp_path_factory.mktemp("out")
    left = [list(enumerate(blocks)) for blocks in journals]
    going_on = RowCounter()
    while any(left):
        j = order.choice([j for j, blocks in enumerate(left) if blocks])
        number, block = left[j].pop(0)
        path = folder / f"0-{TIE}-{j:08}.part"
        with path.open("ab") as file:
            file.write(seal(make_block(j, number, *block), offset=file.tell()))
        if not left[j]:
            path.rename(path.with_suffix(".rows"))
        listed = list_journals(folder)[KEY]
        exact = read_records(listed).count(wanted)
        assert going_on.count(listed, wanted) == exact
        assert RowCounter().count(listed, wanted) == exact


def test_rows_that_a_writer_cut_off_again_are_counted_no_more(tmp_path):
    write_journals(tmp_path, [[([0, 1], []), ([2], [3])]])
    counter = RowCounter()
    assert counter.count(list_journals(tmp_path)[KEY]).done == 3
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[: len(seal(make_block(0, 0, [0, 1], [])))])
    assert counter.count(list_journals(tmp_path)[KEY]) == RowCounts(2, 0, 0.5)


def test_values_are_read_no_further_than_the_receipt_says(tmp_path):
    write_journals(tmp_path, [[([0], []), ([1], [])], [([1], [])]])
    listed = list_journals(tmp_path)[KEY]
    size = len(seal(make_block(0, 0, [0], [])))
    ends = [(f"0-{TIE}-00000000", size), (f"0-{TIE}-00000001", size)]
    read = [(list(rows), columns["origin"]) for rows, columns in read_values(up_to_receipt(listed, ends))]
    assert read == [([0], ["0.0"]), ([1], ["1.0"])]


def test_records_that_a_receipt_names_count_before_those_of_a_journal_that_went_on(tmp_path):
    write_journals(tmp_path, [[([0], []), ([1], [])], [([1], [])]])
    listed = list_journals(tmp_path)[KEY]
    size = len(seal(make_block(0, 0, [0], [])))
    journals = [*up_to_receipt(listed, [(f"0-{TIE}-00000000", size), (f"0-{TIE}-00000001", size)]), *listed]
    read = {
        row: value for rows, columns in read_values(journals) for row, value in zip(rows, columns["origin"])
    }
    assert read == {0: "0.0", 1: "1.0"}
    records = read_records(journals)
    assert records.done == {0, 1}
    assert records.seconds == read_records(listed).seconds
    assert [(name, end) for name, end, _ in records.ends] == [
        (f"0-{TIE}-00000000", size),
        (f"0-{TIE}-00000001", size),
        (f"0-{TIE}-00000000", listed[0].size),
    ]


def test_blocks_without_fresh_rows_give_no_values(tmp_path):
    write_journals(tmp_path, [[([], [1])], [([0], [1])], [([0], [])]])
    assert [list(rows) for rows, _ in read_values(list_journals(tmp_path)[KEY])] == [[0]]


def test_listing_finds_journals_by_batch_and_nothing_else(tmp_path):
    for name in (
        f"0-{TIE}-aaaaaaaa.part",
        f"0-{TIE}-bbbbbbbb.rows",
        f"0-{OTHER_TIE}-bbbbbbbb.rows",
        f"12-{TIE}-cccccccc.rows",
        f"012-{TIE}-cccccccc.rows",
        f"12-{TIE}-cccccccc",
        f"12-{TIE}-x.tmp",
        "0-bbbbbbbb.rows",
        "bbbbbbbb.reads",
        "x-y.rows",
        f".0-{TIE}-bbbbbbbb.rows",
    ):
        (tmp_path / name).write_bytes(b"12")
    found = list_journals(tmp_path)
    assert {batch: [j.path.name for j in journals] for batch, journals in found.items()} == {
        KEY: [f"0-{TIE}-aaaaaaaa.part", f"0-{TIE}-bbbbbbbb.rows"],
        BatchKey(0, OTHER_TIE): [f"0-{OTHER_TIE}-bbbbbbbb.rows"],
        BatchKey(12, TIE): [f"12-{TIE}-cccccccc.rows"],
    }
    assert [journal.closed for journal in found[KEY]] == [False, True]
    assert {journal.size for journals in found.values() for journal in journals} == {2}
    assert list_journals(tmp_path / "not there") == {}


def test_journal_that_is_closed_after_it_was_listed_is_read(tmp_path):
    write_journals(tmp_path, [[], [([0, 1], [2])]])
    listed = [journal for journal in list_journals(tmp_path)[KEY] if journal.size]
    before = read_records(listed)
    listed[0].path.rename(listed[0].path.with_suffix(".rows"))
    assert read_records(listed) == before
    assert RowCounter().count(listed) == RowCounts(2, 1, 0.5)
    assert [list(rows) for rows, _ in read_values(listed)] == [[0, 1]]


def test_journal_that_vanished_after_it_was_listed_has_no_rows(tmp_path):
    vanished = [
        JournalFile(tmp_path / f"0-{TIE}-aaaaaaaa.part", 100, bytes.fromhex(TIE)),
        JournalFile(tmp_path / f"0-{TIE}-bbbbbbbb.rows", 100, bytes.fromhex(TIE)),
    ]
    assert read_records(vanished) == Records()
    assert list(read_values(vanished)) == []
    assert RowCounter().count(vanished) == RowCounter().count(vanished[:1]) == RowCounts()


def test_journal_that_is_listed_under_both_names_is_read_once(tmp_path):
    """A listing may show a file under its old and its new name when it is renamed meanwhile."""
    write_journals(tmp_path, [[([0, 1], [])]])
    once = read_records(list_journals(tmp_path)[KEY])
    (closed,) = tmp_path.iterdir()
    closed.with_suffix(".part").hardlink_to(closed)
    listed = list_journals(tmp_path)[KEY]
    assert read_records(listed) == once
    assert RowCounter().count(listed) == once.count(None)


def test_journal_that_is_renamed_while_its_folder_is_listed_is_found(tmp_path, monkeypatch):
    """A listing need not show a name that came while it was read."""
    write_journals(tmp_path, [[([0, 1], [])]])
    before = list_journals(tmp_path)
    (closed,) = tmp_path.iterdir()
    part = closed.rename(closed.with_suffix(".part"))
    os.utime(tmp_path, (0, 0))
    scandir = os.scandir

    @contextlib.contextmanager
    def listing(folder):
        if part.exists():
            part.rename(closed)
            yield iter(())
        else:
            with scandir(folder) as entries:
                yield entries

    monkeypatch.setattr("psyrun.workdir.records.os.scandir", listing)
    assert list_journals(tmp_path) == before


def test_more_batches_than_files_may_be_open_at_a_time(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/dev/fd").iterdir())) + 200, limit[1]))
    try:
        batches = [({**ABOUT, "size": 1}, pack_inputs({"a": [row]})) for row in range(500)]
        keys = create_inputs(tmp_path, 5, batches)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert [key.number for key in keys] == list(range(5, 505))
    read = [read_inputs(tmp_path / f"{key.number}.pkl", key.tie).columns()["a"] for key in keys]
    assert read == [[row] for row in range(500)]
