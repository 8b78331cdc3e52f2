"""The plan: the batches of the current space."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import struct
import zlib
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from psyrun.disk import write_atomic
from psyrun.errors import FormatError, NewerFormatError
from psyrun.workdir.journal import BatchKey
from psyrun.workdir.jsonfile import COUNT, check_shape, encode_json, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from psyrun.workdir.layout import Layout


FORMAT = 2
FAILURE = "failure"
"""Name of the column that says why rows failed, where a result may hold failed rows."""

_SHAPE = {
    **dict.fromkeys(("scheme", "rows", "next_batch", "since"), COUNT),
    **dict.fromkeys(("code", "space", "order"), str),
    "definitions": {str: str},
    "settings": {str: (dict, list, str, bool, int, float, None)},
    "names": [str],
    "adopted": [str],
    "data": {str: str},
    "inputs": {str: (str, None)},
    "accepted": {str: (str, None)},
    "batches": [[COUNT, COUNT, COUNT, str]],
}


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of a plan.

    Parameters
    ----------
    number
        Its number, never reused.
    size
        How many assignments its input file holds.
    wanted
        How many of them the current space asks for.
    tie
        The tie of its input file: files with another one are not of this plan.
    """

    number: int
    size: int
    wanted: int
    tie: str = ""

    @property
    def key(self) -> BatchKey:
        """The batch as journals name it."""
        return BatchKey(self.number, self.tie)


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many rows of a finished result may have failed.

    Parameters
    ----------
    value
        False: none, and the result has no column for reasons. Else True: all but one, a number, or a share of
        the rows.
    """

    value: bool | int | float = False

    def __bool__(self) -> bool:
        return self.value is not False

    def covers(self, failed: int, total: int) -> bool:
        """Whether so many failed rows of a total are allowed."""
        if failed == 0 or failed == total:
            return failed == 0
        if isinstance(self.value, float):
            return failed / total <= self.value
        return self.value is True or failed <= self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The batches of the current space, and which of their rows are wanted.

    Parameters
    ----------
    scheme
        Version of the rules for digests.
    code, space
        The digests that it was made for.
    definitions
        Definition -> digest, to name what changed.
    settings
        What the graph needs to know of the task file.
    names
        The parameters.
    batches
        The batches that hold wanted rows.
    order
        Wanted rows in the order of the space: segments (batch index, first row, length), packed.
    rows
        How many of them the space asks for; rows that ``--continue`` adopted follow.
    next_batch
        The lowest number that was never used.
    adopted
        Digests of older code whose rows count as current.
    since
        The lowest number that counts: ``--force`` gave up the batches before.
    data
        Declared data file -> digest of its content.
    inputs
        ``<kind> <path>`` of an input of the space -> its state when the space was evaluated.
    accepted
        ``<kind> <path>`` of an input -> its state when ``--continue`` accepted the rows that read another.
    extra
        What another psyrun wrote beside, kept as it is.
    """

    scheme: int
    code: str
    space: str
    definitions: Mapping[str, str]
    settings: Mapping[str, Any]
    names: tuple[str, ...]
    batches: tuple[Batch, ...]
    order: str
    rows: int
    next_batch: int
    adopted: tuple[str, ...] = ()
    since: int = 0
    data: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str | None] = field(default_factory=dict)
    accepted: Mapping[str, str | None] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many rows the result has."""
        return sum(batch.wanted for batch in self.batches)

    @property
    def allowance(self) -> Allowance:
        """How many rows may have failed."""
        return Allowance(ast.literal_eval(self.settings.get("allow_failed", "False")))

    @property
    def table_digest(self) -> str:
        """Digest of everything but the rows' values that the result depends on."""
        parts = [[b.key for b in self.batches], self.order, list(self.names), self.settings.get("exclude")]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def segments(self) -> list[tuple[int, range]]:
        """Return (batch number, its rows) in the order of the space."""
        numbers = [batch.number for batch in self.batches]
        try:
            packed = zlib.decompress(base64.b64decode(self.order))
            flat = struct.unpack(f"<{len(packed) // 8}q", packed)
            return [(numbers[b], range(row, row + n)) for b, row, n in zip(flat[::3], flat[1::3], flat[2::3])]
        except (ValueError, IndexError, zlib.error, struct.error) as error:
            raise FormatError(
                f"plan.json: its order is damaged ({error}); delete it, and its copy"
            ) from error

    def wanted_rows(self) -> dict[int, frozenset[int]]:
        """Return batch number -> wanted rows, for batches of which not all rows are wanted."""
        partial = {batch.number for batch in self.batches if batch.wanted < batch.size}
        found: dict[int, set[int]] = defaultdict(set)
        if partial:
            for number, rows in self.segments():
                if number in partial:
                    found[number].update(rows)
        return {number: frozenset(rows) for number, rows in found.items()}

    def with_keys(self, keys: Mapping[int, BatchKey]) -> Plan:
        """Return the plan with the numbers and ties of batches that were written; new ones stand last."""
        batches = [
            replace(batch, number=keys[batch.number].number, tie=keys[batch.number].tie)
            if batch.number in keys
            else batch
            for batch in self.batches
        ]
        last = max((key.number for key in keys.values()), default=-1)
        return replace(self, batches=tuple(batches), next_batch=max(self.next_batch, last + 1))

    def to_json(self) -> bytes:
        """Encode; equal plans give equal bytes."""
        fields = self._fields()
        return encode_json(FORMAT, {**fields, "checksum": _checksum(fields)})

    def _fields(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "extra"}
        batches = [[batch.number, batch.size, batch.wanted, batch.tie] for batch in self.batches]
        return {**self.extra, **fields, "batches": batches}


def _checksum(fields: Mapping[str, Any]) -> int:
    """Return the CRC-32 of the content of a plan."""
    return zlib.crc32(json.dumps(fields, sort_keys=True).encode())


def pack_order(numbers: Sequence[int]) -> str:
    """Pack an order: batch index, first row and length of each segment, one after the other."""
    packed = struct.pack(f"<{len(numbers)}q", *numbers)
    return base64.b64encode(zlib.compress(packed, 6)).decode()


def read_plan(layout: Layout) -> Plan | None:
    """Read a plan, from its copy where it was removed or is damaged; None where there is none.

    Raises
    ------
    FormatError
        If both files are damaged, or of another format.
    """
    try:
        return _read(layout.plan)
    except NewerFormatError:
        raise
    except FileNotFoundError:
        damage = None
    except FormatError as error:
        damage = error
    try:
        return _read(layout.plan_copy)
    except NewerFormatError:
        raise
    except (FileNotFoundError, FormatError):
        if damage is not None:
            raise damage from None
        return None  # psy run plans anew.


def is_plan_damaged(layout: Layout) -> bool:
    """Whether plan.json is there and damaged, so that the plan is read from its copy."""
    try:
        _read(layout.plan)
    except FileNotFoundError:
        return False
    except FormatError:
        return True
    return False


def require_plan(layout: Layout) -> Plan:
    """Read a plan.

    Raises
    ------
    FormatError
        If there is none, the file is damaged, or a newer psyrun wrote it.
    """
    plan = read_plan(layout)
    if plan is None:
        raise FormatError(f"{layout.relative(layout.plan)}: missing; psy run plans anew")
    return plan


def _read(path: Path) -> Plan:
    return read_json(
        path,
        FORMAT,
        _decode,
        cure="delete it, psy run makes it anew",
        outdated="finish it with the psyrun that wrote it, or remove its folder (move a result that is in it"
        " elsewhere before: psy run --continue keeps the rows of a result file)",
    )


def _decode(content: dict[str, Any]) -> Plan:
    checksum = content.pop("checksum")
    if checksum != _checksum(content):
        raise ValueError("its content does not match its checksum")
    check_shape(content, _SHAPE)
    content["batches"] = tuple(Batch(*numbers) for numbers in content["batches"])
    content |= {name: tuple(content[name]) for name in ("names", "adopted")}
    extra = {name: content.pop(name) for name in content.keys() - set(Plan.__slots__)}
    return Plan(**content, extra=extra)


def write_plan(layout: Layout, plan: Plan) -> None:
    """Write a plan, all of it or nothing, and its copy.

    A plan can't be made again from the task file alone: it says which rows `--continue` adopted and `--force`
    gave up, and how a random space was drawn.
    """
    data = plan.to_json()
    write_atomic(layout.plan_copy, data)
    write_atomic(layout.plan, data)
