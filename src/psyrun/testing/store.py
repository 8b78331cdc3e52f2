"""What psyrun relies on of stores."""

from __future__ import annotations

import math
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from psyrun.disk import replacing
from psyrun.errors import RowError, StoreError
from psyrun.store import ChunkStore, Store

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path


KINDS: Mapping[str, Sequence[Any]] = MappingProxyType(
    {
        "integer": [0, -1, 2**53 + 1],
        "real": [0.1, -math.inf, 1e-300],
        "boolean": [True, False, True],
        "complex": [1j, 2.5 - 1j, 0j],
        "text": ["", "a\0", 'two words, "ünïcödé"\n'],
        "bytes": [b"", b"a\0", b"\xff"],
        "date": [np.datetime64("1969-07-20"), np.datetime64("2026-01-01"), np.datetime64("NaT")],
        "array": [np.eye(2), np.ones((2, 2)), np.full((2, 2), math.nan)],
        "missing number": [1.5, None, math.nan],
        "missing text": ["a", None, ""],
        "nothing": [None, None, None],
        "object": [{"a": 1}, {1, 2}, [[1], [1, 2]]],
    }
)
"""Kinds of values that results hold, each with a column of three."""


class StoreContract:
    """What psyrun relies on of every store.

    Attributes
    ----------
    kinds
        The kinds of values, of `KINDS`, that the store holds; it refuses the others.
    damaged
        Contents of files that are not of the store's format.
    """

    kinds: Collection[str] = tuple(KINDS)
    damaged: Collection[bytes] = (b"", b"\xff no table")

    @pytest.fixture
    def store(self) -> Store:
        """Return the store to test."""
        raise NotImplementedError

    @pytest.fixture
    def path(self, store: Store, tmp_path: Path) -> Path:
        """Return the name of a file that does not exist, in an empty folder."""
        return tmp_path / f"a tàble{store.ext}"

    def test_store_keeps_to_the_protocol(self, store: Store) -> None:
        assert isinstance(store, Store)
        assert store.ext.startswith(".")
        assert set(self.kinds) <= set(KINDS)

    @pytest.mark.parametrize("kind", KINDS)
    def test_values_come_back_as_they_were_or_are_refused(self, store: Store, path: Path, kind: str) -> None:
        table = {"x": [1, 2, 3], kind: KINDS[kind]}
        if kind in self.kinds:
            store.check(table)
            store.save(path, table)
            assert_same(store.load(path), table)
            return
        store.append(path, {"x": [0]})
        before = path.read_bytes()
        for call in (store.check, partial(store.append, path)):
            with pytest.raises(StoreError, match=kind):  # The name of the column.
                call(table)
        assert path.read_bytes() == before

    def test_appended_rows_come_after_those_that_were_there(self, store: Store, path: Path) -> None:
        for row in range(3):
            store.append(path, {kind: KINDS[kind][row : row + 1] for kind in self.kinds})
        assert_same(store.load(path), {kind: KINDS[kind] for kind in self.kinds})

    @pytest.mark.parametrize("table", [{"x": [], "y": []}, {}], ids=["no rows", "no columns"])
    def test_empty_tables_come_back(self, store: Store, path: Path, table: Mapping[str, Any]) -> None:
        store.check(table)
        store.save(path, table)
        assert_same(store.load(path), table)

    def test_columns_keep_names_and_order_and_may_be_arrays(self, store: Store, path: Path) -> None:
        names = ("b", "a", "net.rate", "two words", "größe", "class", "a/b,c")
        table = {name: np.arange(3) / 2 for name in names}
        store.check(table)
        store.save(path, table)
        assert_same(store.load(path), table)

    def test_columns_of_different_lengths_are_refused(self, store: Store, path: Path) -> None:
        store.append(path, {"x": [1], "y": [1]})
        for call in (store.append, store.save):
            with pytest.raises(StoreError):
                call(path, {"x": [1, 2], "y": [1]})
            assert_same(store.load(path), {"x": [1], "y": [1]})

    def test_one_row_is_loaded_by_its_number_from_either_end(self, store: Store, path: Path) -> None:
        store.save(path, {"x": [1, 2, 3], "y": [4, 5, 6]})
        assert_same(store.load(path, row=1), {"x": [2], "y": [5]})
        assert_same(store.load(path, row=-1), {"x": [3], "y": [6]})
        for row in (3, -4):
            with pytest.raises(RowError):
                store.load(path, row=row)

    def test_missing_file_is_an_error(self, store: Store, path: Path) -> None:
        with pytest.raises((StoreError, OSError)):
            store.load(path)
        assert not path.exists()

    def test_damaged_file_is_an_error_and_left_alone(self, store: Store, path: Path) -> None:
        for content in self.damaged:
            path.write_bytes(content)
            for call in (store.load, lambda path: store.append(path, {"x": [1]})):
                with pytest.raises((StoreError, OSError)):
                    call(path)
            assert path.read_bytes() == content

    def test_file_is_one_file_that_may_be_renamed(self, store: Store, path: Path) -> None:
        """A file is written under a temporary name, which ends in `ext`, and then renamed."""
        for table in ({"x": [1, 2], "y": [3, 4]}, {"x": [5]}):
            with replacing(path, store.ext) as temporary:
                store.save(temporary, table)
        store.append(str(path), {"x": [6]})
        content = path.read_bytes()
        assert_same(store.load(str(path)), {"x": [5, 6]})
        assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]

    def test_saving_replaces_the_table(self, store: Store, path: Path) -> None:
        store.save(path, {"x": [1, 2], "y": [3, 4]})
        store.save(path, {"z": [5]})
        assert_same(store.load(path), {"z": [5]})


class ChunkContract(StoreContract):
    """What psyrun relies on of a store that has `save_chunks`."""

    def test_chunks_are_written_one_below_the_other(self, store: ChunkStore, path: Path) -> None:
        """Chunks differ in names and types, and may have no rows; results of millions of rows have many."""
        chunks: list[dict[str, list[Any]]] = [{"x": [1]}, {}, {"x": [2.5], "y": [4]}, {"x": []}, {"y": [6]}]
        store.save_chunks(path, lambda: iter(chunks))
        assert isinstance(store, ChunkStore)
        assert_same(store.load(path), {"x": [1, 2.5, None], "y": [None, 4, 6]})

    def test_error_of_the_chunks_is_handed_on(self, store: ChunkStore, path: Path) -> None:
        def chunks() -> Any:
            yield {"x": [1]}
            raise KeyError("a damaged journal")

        with pytest.raises(KeyError, match="journal"), replacing(path, store.ext) as temporary:
            store.save_chunks(temporary, chunks)
        assert list(path.parent.iterdir()) == []


def assert_same(loaded: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Compare tables by value, in order; NaN, NaT and None all say that a value is missing."""
    assert list(loaded) == list(saved)
    for name, values in saved.items():
        assert len(loaded[name]) == len(values)
        assert all(map(_is_same, loaded[name], values)), f"{name}: {loaded[name]} instead of {values}"


def _is_same(a: Any, b: Any) -> bool:
    if _is_missing(a) or _is_missing(b):
        return _is_missing(a) and _is_missing(b)
    if isinstance(a, list | np.ndarray) and isinstance(b, list | np.ndarray):
        return len(a) == len(b) and all(map(_is_same, a, b))
    return bool(a == b)


def _is_missing(value: Any) -> bool:
    if isinstance(value, np.ndarray) and value.ndim:
        return value.size > 0 and all(map(_is_missing, value))
    return value is None or bool(np.isscalar(value) and value != value)
