"""Files ``out/<run>.now``: the rows that a worker has in hand, for `psy status`; nothing rests on them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from psyrun.errors import FormatError
from psyrun.workdir.journal import BatchKey
from psyrun.workdir.jsonfile import COUNT, check_shape, encode_json, read_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path


FORMAT = 1
_SUFFIX = ".now"
_SHAPE = {
    "host": str,
    "processes": COUNT,
    "batches": [[COUNT, str]],
    "rows": [[COUNT, COUNT, (float, int)]],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsInHand:
    """What a worker is at.

    Parameters
    ----------
    host
        Where it runs.
    processes
        How many processes evaluate rows.
    batches
        (number, tie) of its batches.
    rows
        (batch number, row, since when in seconds since 1970) of rows that take longer than some seconds.
    """

    host: str
    processes: int
    batches: tuple[tuple[int, str], ...]
    rows: tuple[tuple[int, int, float], ...] = ()

    @property
    def keys(self) -> set[BatchKey]:
        """Its batches, as journals name them."""
        return {BatchKey(*batch) for batch in self.batches}


def write_rows_in_hand(folder: Path, run: str, found: RowsInHand) -> None:
    """Write what a worker is at, not synced; that it can't be written is no matter."""
    path = folder / f"{run}{_SUFFIX}"
    temporary = path.with_name(f".{path.name}")
    with suppress(OSError):
        temporary.write_bytes(encode_json(FORMAT, asdict(found)))
        temporary.replace(path)


def remove_rows_in_hand(folder: Path, run: str) -> None:
    """Remove what a worker wrote, which is at nothing any more."""
    with suppress(OSError):
        (folder / f"{run}{_SUFFIX}").unlink()


def forget_rows_in_hand(folder: Path, batches: Collection[BatchKey]) -> None:
    """Remove what workers left that were killed, of batches that another has now."""
    for path, found in _read_all(folder):
        if not found.keys.isdisjoint(batches):
            with suppress(OSError):
                path.unlink()


def list_rows_in_hand(folder: Path) -> list[RowsInHand]:
    """Read what the workers of a task are at; files that can't be read are left out."""
    return [found for _, found in _read_all(folder)]


def _read_all(folder: Path) -> Iterator[tuple[Path, RowsInHand]]:
    for path in sorted(folder.glob(f"[!.]*{_SUFFIX}")):
        with suppress(OSError, FormatError):
            yield path, read_json(path, FORMAT, _decode, cure="delete it")


def _decode(content: dict[str, Any]) -> RowsInHand:
    check_shape(content, _SHAPE)
    content |= {name: tuple(map(tuple, content[name])) for name in ("batches", "rows")}
    return RowsInHand(**content)
