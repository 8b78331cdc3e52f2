"""Journals and records: what was written is read, what was damaged is not, and nothing is counted twice."""

from __future__ import annotations

import errno
import os
import pickle
import random
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from psyrun.errors import FormatError, NewerFormatError
from psyrun.workdir.inputs import encode_inputs, read_input_header, read_inputs
from psyrun.workdir.journal import Failure, JournalWriter, encode_block, read_blocks, read_headers
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
    return tmp_path_factory.mktemp("journals") / "0-abcdefgh.rows"


@PLAIN
@given(table=tables(), failures=FAILURES, seconds=st.floats(0, 1e9))
def test_values_come_back_with_their_exact_types(path, table, failures, seconds):
    rows, columns = table
    path.write_bytes(encode_block(rows, columns, failures, seconds))
    (block,) = read_blocks(path)
    assert list(block.rows) == list(rows)
    assert same(block.columns(), columns)
    assert block.failures == failures
    header = block.header
    assert (header.rows, header.failures, header.seconds) == (len(rows), len(failures), seconds)
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
    path.write_bytes(encode_block(range(len(column)), {"x": column}))
    (block,) = read_blocks(path)
    for read, written in zip(block.columns()["x"], column, strict=True):
        assert same(read, written) or np.ma.isMaskedArray(written)
        assert repr(read) == repr(written)
        assert getattr(read, "dtype", None) == getattr(written, "dtype", None)


def test_arrays_that_were_read_can_be_changed(path):
    path.write_bytes(encode_block([0, 1], {"x": [np.zeros(2), np.zeros(2)], "y": [np.array(1), np.array(2)]}))
    (block,) = read_blocks(path)
    columns = block.columns()
    columns["x"][0][:] = 1
    columns["y"][0][...] = 7
    assert columns["x"][1].tolist() == [0, 0]
    assert columns["y"][1] == 2


def test_many_equal_arrays_cost_little_more_than_their_numbers():
    arrays = [np.full(100, i, dtype=float) for i in range(50)]
    assert len(encode_block(range(50), {"x": arrays})) < 50 * 100 * 8 + 1000


def test_what_pickle_cannot_name_is_written_by_value(path):
    path.write_bytes(encode_block([0], {"f": [lambda x: x + 1]}))
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
    encoded = [encode_block(*block) for block in blocks]
    path.write_bytes(b"".join(encoded))
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
    for content in (b"", b"PSY1", b"nothing of ours, but longer than the header of a block would be"):
        path.write_bytes(content)
        assert list(read_blocks(path)) == list(read_headers(path)) == []


def test_journal_of_a_newer_psyrun_is_refused_and_one_that_is_damaged_is_not(path):
    whole = encode_block([0], {"x": [1]})
    path.write_bytes(b"PSY2" + whole[4:])
    for read in (read_blocks, read_headers):
        with pytest.raises(
            NewerFormatError, match=r"0-abcdefgh\.rows: written by a newer psyrun \(format 2\)"
        ):
            list(read(path))
    for content in (b"PSY2", b"PSYX" + whole[4:], b"\0" + whole[1:]):
        path.write_bytes(content)
        assert list(read_blocks(path)) == list(read_headers(path)) == []
    path.write_bytes(whole + b"PSY2" + whole[4:])
    assert len(list(read_blocks(path))) == len(list(read_headers(path))) == 1


THREE = [
    encode_block([0, 1], {"x": [1, 2]}, (), 1.0),
    encode_block([2], {"x": [np.float64(3)]}, [Failure(3, "ValueError: no", "Traceback", 0.1, "node")], 2.0),
    encode_block(range(4, 6), {"x": [np.zeros(2), np.ones(2)]}, (), 3.0),
]
ENDS = [0, *(sum(map(len, THREE[: i + 1])) for i in range(3))]


def whole_blocks(position):
    """How many blocks end before or at this byte."""
    return sum(end <= position for end in ENDS[1:])


def test_truncation_at_any_byte_costs_the_cut_block_only(path):
    data = b"".join(THREE)
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        whole = ENDS[1 : whole_blocks(cut) + 1]
        assert [block.header.end for block in read_blocks(path)] == whole
        assert [header.end for header in read_headers(path)] == whole


def test_flipped_byte_anywhere_costs_its_block_and_those_after_it(path):
    data = b"".join(THREE)
    chance = random.Random(1)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= chance.choice((1, 0x80, chance.randrange(1, 256)))
        path.write_bytes(damaged)
        before = ENDS[1 : whole_blocks(position) + 1]
        assert [block.header.end for block in read_blocks(path)] == before, position
        assert [header.end for header in read_headers(path)][: len(before)] == before, position


def test_readers_stop_at_the_end_of_a_file_that_is_shorter_than_they_were_told(path):
    data = b"".join(THREE)
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        read = list(read_blocks(path, size=len(data)))
        assert [block.header.end for block in read] == ENDS[1 : whole_blocks(cut) + 1], cut
    path.write_bytes(data)
    assert list(read_headers(path, start=len(data) + 100)) == []


@PLAIN
@given(garbage=st.binary(max_size=200))
def test_garbage_behind_blocks_is_not_read(path, garbage):
    path.write_bytes(THREE[0] + garbage)
    assert [block.header.end for block in read_blocks(path)][:1] == [len(THREE[0])]
    assert all(header.end <= path.stat().st_size for header in read_headers(path))


# ---------------------------------------------------------------------- writing


def test_written_blocks_are_there_at_once_and_the_journal_is_renamed_in_the_end(tmp_path):
    journal = tmp_path / "3-abcdefgh.part"
    writer = JournalWriter(journal).open()
    for i, block in enumerate(THREE):
        writer.append(block)
        assert len(list(read_blocks(journal))) == i + 1
        assert journal.read_bytes().startswith(b"".join(THREE[: i + 1]))
    writer.sync()
    assert writer.close() == tmp_path / "3-abcdefgh.rows"
    assert [path.name for path in tmp_path.iterdir()] == ["3-abcdefgh.rows"]
    assert (tmp_path / "3-abcdefgh.rows").read_bytes() == b"".join(THREE)


def test_journal_of_another_process_is_never_opened(tmp_path):
    journal = tmp_path / "0-abcdefgh.part"
    journal.write_bytes(THREE[0])
    with pytest.raises(FileExistsError):
        JournalWriter(journal).open()
    assert journal.read_bytes() == THREE[0]


def test_empty_journal_is_removed(tmp_path):
    writer = JournalWriter(tmp_path / "0-abcdefgh.part").open()
    assert writer.close() is None
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_the_blocks_before(tmp_path, monkeypatch):
    journal = tmp_path / "0-abcdefgh.part"
    writer = JournalWriter(journal).open()
    writer.append(THREE[0])
    really_write = os.write
    room = [7]

    def write(fd, data):
        if fd != writer._fd:
            return really_write(fd, data)
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = really_write(fd, bytes(data)[: room[0]])
        room[0] -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space"):
            writer.append(THREE[1])
    assert journal.read_bytes() == THREE[0]
    writer.append(THREE[2])
    writer.close()
    assert journal.with_suffix(".rows").read_bytes() == THREE[0] + THREE[2]


def test_block_is_whole_although_the_system_writes_it_in_pieces(tmp_path, monkeypatch):
    writer = JournalWriter(tmp_path / "0-abcdefgh.part").open()
    really_write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: really_write(fd, bytes(data)[:5]))
        writer.append(bytearray(THREE[0]))
    assert writer.close().read_bytes() == THREE[0]


def test_journal_that_could_not_be_synced_is_not_called_closed(tmp_path, monkeypatch):
    writer = JournalWriter(tmp_path / "0-abcdefgh.part").open()
    writer.append(THREE[0])

    def fsync(fd):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="Input/output"):
            writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["0-abcdefgh.part"]


# ---------------------------------------------------------------------- input files


@PLAIN
@given(table=tables())
def test_assignments_come_back_with_their_exact_types(path, table):
    rows, columns = table
    header = {"batch": 3, "size": len(rows), "code": "c" * 32, "names": list(columns)}
    path.write_bytes(encode_inputs(header, columns))
    read_header, read_columns = read_inputs(path)
    assert same(read_columns, columns)
    assert read_header == read_input_header(path)
    assert header.items() <= read_header.items()


def test_header_of_an_input_file_is_read_without_the_classes_of_its_values(tmp_path, monkeypatch):
    module = types.ModuleType("module_of_a_user")
    exec("class Network:\n    pass", vars(module))
    monkeypatch.setitem(sys.modules, "module_of_a_user", module)
    path = tmp_path / "0.pkl"
    path.write_bytes(encode_inputs({"size": 1, "code": ""}, {"network": [module.Network()]}))
    assert isinstance(read_inputs(path)[1]["network"][0], module.Network)
    monkeypatch.delitem(sys.modules, "module_of_a_user")
    assert read_input_header(path)["size"] == 1
    with pytest.raises(ModuleNotFoundError):
        read_inputs(path)


def test_value_that_cannot_be_pickled_is_refused():
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        encode_inputs({}, {"f": [lambda: None]})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PSY1",
        b"not a pickle",
        pickle.dumps([1, 2]),
        pickle.dumps({"size": 1}),
        pickle.dumps({"format": "one"}),
        pickle.dumps(None),
    ],
    ids=repr,
)
def test_input_file_that_psyrun_did_not_write_is_named(tmp_path, content):
    path = tmp_path / "0.pkl"
    path.write_bytes(content)
    for read in (read_input_header, read_inputs):
        with pytest.raises(FormatError, match=r"0\.pkl: not an input file of psyrun"):
            read(path)


@pytest.mark.parametrize("read", [read_input_header, read_inputs])
def test_input_file_of_a_newer_format_is_not_read(tmp_path, read):
    path = tmp_path / "0.pkl"
    path.write_bytes(pickle.dumps({"format": 2, "size": 1}) + b"something new")
    with pytest.raises(NewerFormatError, match=r"0\.pkl: written by a newer psyrun"):
        read(path)


def test_input_file_that_was_cut_short_is_named(tmp_path):
    path = tmp_path / "0.pkl"
    data = encode_inputs({"size": 2}, {"a": [1, 2], "b": [np.zeros(2), np.ones(2)], "c": [np.int8(1)] * 2})
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        with pytest.raises(FormatError, match=r"0\.pkl: "):
            read_inputs(path)


def test_input_file_with_a_flipped_byte_is_named(tmp_path):
    path = tmp_path / "0.pkl"
    columns = {"a": [1, 2], "b": [np.zeros(2), np.ones(2)], "c": ["one", "two"]}
    data = encode_inputs({"size": 2}, columns)
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x15]) + data[position + 1 :])
        with pytest.raises(FormatError, match=r"0\.pkl: "):
            read_inputs(path)


# ---------------------------------------------------------------------- records


def write_journals(folder, journals):
    """Write journals of blocks (rows, failed rows); every value tells which block it is from."""
    for old in folder.iterdir():
        old.unlink()
    for number, blocks in enumerate(journals):
        data = b"".join(make_block(number, i, *block) for i, block in enumerate(blocks))
        (folder / f"0-{number:08}.{'part' if number % 2 else 'rows'}").write_bytes(data)


def make_block(journal, number, rows, failed):
    origin = f"{journal}.{number}"
    failures = [Failure(row, origin) for row in failed]
    return encode_block(rows, {"origin": [origin] * len(rows), "row": list(rows)}, failures, 0.5)


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
    found = read_records(list_journals(folder).get(0, []))
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
    assert ends == {f"0-{j:08}": len(read_all(folder, j)) for j, blocks in enumerate(journals) if blocks}


def read_all(folder, number):
    (path,) = folder.glob(f"0-{number:08}.*")
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
    for rows, columns in read_values(list_journals(folder).get(0, [])):
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
        path = folder / f"0-{j:08}.part"
        with path.open("ab") as file:
            file.write(make_block(j, number, *block))
        if not left[j]:
            path.rename(path.with_suffix(".rows"))
        listed = list_journals(folder)[0]
        exact = read_records(listed).count(wanted)
        assert going_on.count(listed, wanted) == exact
        assert RowCounter().count(listed, wanted) == exact


def test_values_are_read_no_further_than_the_receipt_says(tmp_path):
    write_journals(tmp_path, [[([0], []), ([1], [])], [([1], [])]])
    listed = list_journals(tmp_path)[0]
    size = len(make_block(0, 0, [0], []))
    ends = [("0-00000000", size), ("0-00000001", size)]
    read = [(list(rows), columns["origin"]) for rows, columns in read_values(up_to_receipt(listed, ends))]
    assert read == [([0], ["0.0"]), ([1], ["1.0"])]


def test_records_that_a_receipt_names_count_before_those_of_a_journal_that_went_on(tmp_path):
    write_journals(tmp_path, [[([0], []), ([1], [])], [([1], [])]])
    listed = list_journals(tmp_path)[0]
    size = len(make_block(0, 0, [0], []))
    journals = [*up_to_receipt(listed, [("0-00000000", size), ("0-00000001", size)]), *listed]
    read = {
        row: value for rows, columns in read_values(journals) for row, value in zip(rows, columns["origin"])
    }
    assert read == {0: "0.0", 1: "1.0"}
    records = read_records(journals)
    assert records.done == {0, 1}
    assert records.seconds == read_records(listed).seconds
    assert [(name, end) for name, end, _ in records.ends] == [
        ("0-00000000", size),
        ("0-00000001", size),
        ("0-00000000", listed[0].size),
    ]


def test_blocks_without_fresh_rows_give_no_values(tmp_path):
    write_journals(tmp_path, [[([], [1])], [([0], [1])], [([0], [])]])
    assert [list(rows) for rows, _ in read_values(list_journals(tmp_path)[0])] == [[0]]


def test_listing_finds_journals_by_batch_and_nothing_else(tmp_path):
    for name in (
        "0-aaaaaaaa.part",
        "0-bbbbbbbb.rows",
        "12-cccccccc.rows",
        "12-x.tmp",
        "x-y.rows",
        ".0-d.rows",
    ):
        (tmp_path / name).write_bytes(b"12")
    found = list_journals(tmp_path)
    assert {batch: [j.path.name for j in journals] for batch, journals in found.items()} == {
        0: ["0-aaaaaaaa.part", "0-bbbbbbbb.rows"],
        12: ["12-cccccccc.rows"],
    }
    assert [journal.closed for journal in found[0]] == [False, True]
    assert {journal.size for journals in found.values() for journal in journals} == {2}
    assert list_journals(tmp_path / "not there") == {}


def test_journal_that_is_closed_after_it_was_listed_is_read(tmp_path):
    write_journals(tmp_path, [[], [([0, 1], [2])]])
    listed = [journal for journal in list_journals(tmp_path)[0] if journal.size]
    before = read_records(listed)
    listed[0].path.rename(listed[0].path.with_suffix(".rows"))
    assert read_records(listed) == before
    assert RowCounter().count(listed) == RowCounts(2, 1, 0.5)
    assert [list(rows) for rows, _ in read_values(listed)] == [[0, 1]]


def test_journal_that_vanished_after_it_was_listed_has_no_rows(tmp_path):
    vanished = [
        JournalFile(tmp_path / "0-aaaaaaaa.part", 100),
        JournalFile(tmp_path / "0-bbbbbbbb.rows", 100),
    ]
    assert read_records(vanished) == Records()
    assert list(read_values(vanished)) == []
    assert RowCounter().count(vanished) == RowCounter().count(vanished[:1]) == RowCounts()


def test_journal_that_is_listed_under_both_names_is_read_once(tmp_path):
    """A listing may show a file under its old and its new name when it is renamed meanwhile."""
    write_journals(tmp_path, [[([0, 1], [])]])
    once = read_records(list_journals(tmp_path)[0])
    (closed,) = tmp_path.iterdir()
    closed.with_suffix(".part").hardlink_to(closed)
    listed = list_journals(tmp_path)[0]
    assert read_records(listed) == once
    assert RowCounter().count(listed) == once.count(None)
