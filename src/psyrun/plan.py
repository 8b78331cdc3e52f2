"""Plans: a parameter space and what exists already become batches; and every path that a task owns."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from psyrun.disk import write_atomic
from psyrun.errors import FormatError
from psyrun.rows import row_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Batch", "Existing", "Layout", "Plan", "Space", "make_plan", "read_plan", "write_plan"]

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The paths of one task.

    Parameters
    ----------
    root
        The project root, absolute.
    folder
        The task's own folder, ``<workdir>/<task>``.
    result
        Its result file.
    """

    root: Path
    folder: Path
    result: Path

    @property
    def plan(self) -> Path:
        """``plan.json``: target of split."""
        return self.folder / "plan.json"

    @property
    def process(self) -> Path:
        """``process.json``: the receipt of process."""
        return self.folder / "process.json"

    @property
    def receipt(self) -> Path:
        """The receipt of merge, beside the result."""
        return self.result.with_name(self.result.name + ".receipt")

    @property
    def inputs(self) -> Path:
        """Folder of the batches' assignments."""
        return self.folder / "in"

    @property
    def out(self) -> Path:
        """Folder of the journals."""
        return self.folder / "out"

    @property
    def log(self) -> Path:
        """Folder of what jobs print."""
        return self.folder / "log"

    @property
    def jobs(self) -> Path:
        """Folder of the submissions."""
        return self.folder / "jobs"

    @property
    def lock(self) -> Path:
        """Who is at work."""
        return self.folder / "lock"

    def input(self, batch: int) -> Path:
        """Return where the assignments of one batch are."""
        return self.inputs / f"{batch}.pkl"

    def code(self, digest: str) -> Path:
        """Return where the captured sources of one code digest are."""
        return self.folder / "code" / f"{digest}.zip"

    def relative(self, path: Path) -> str:
        """Return a path of ours in the one form in which the graph compares them."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as the plan sees it.

    Parameters
    ----------
    number
        Its number, never reused.
    size
        How many assignments its input file holds.
    wanted
        How many of them the current space asks for.
    """

    number: int
    size: int
    wanted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The batches of the current space, and which of their rows are wanted.

    Parameters
    ----------
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
        How many of them the space asks for; rows kept by ``--continue`` follow.
    next_batch
        The lowest number that was never used.
    adopted
        Digests of older code whose rows count as current.
    """

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

    @property
    def total(self) -> int:
        """How many rows the result has."""
        return sum(batch.wanted for batch in self.batches)

    @property
    def table_digest(self) -> str:
        """Digest of everything but the rows' values that the result depends on."""
        parts = [[b.number for b in self.batches], self.order, list(self.names), self.settings.get("exclude")]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def segments(self) -> list[tuple[int, range]]:
        """Return (batch number, its rows) in the order of the space."""
        packed = zlib.decompress(base64.b64decode(self.order))
        flat = memoryview(packed).cast("q").tolist()
        numbers = [batch.number for batch in self.batches]
        return [(numbers[b], range(row, row + n)) for b, row, n in zip(flat[::3], flat[1::3], flat[2::3])]

    def wanted_rows(self) -> dict[int, frozenset[int]]:
        """Return batch number -> wanted rows, for batches of which not all rows are wanted."""
        partial = {batch.number for batch in self.batches if batch.wanted < batch.size}
        found: dict[int, set[int]] = defaultdict(set)
        if partial:
            for number, rows in self.segments():
                if number in partial:
                    found[number].update(rows)
        return {number: frozenset(rows) for number, rows in found.items()}

    def to_json(self) -> bytes:
        """Encode; equal plans give equal bytes."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        batches = [[batch.number, batch.size, batch.wanted] for batch in self.batches]
        content = {"format": FORMAT, **fields, "batches": batches}
        return json.dumps(content, indent=0, sort_keys=True).encode() + b"\n"


def read_plan(path: Path) -> Plan | None:
    """Read a plan; None where there is none.

    Raises
    ------
    FormatError
        If the file is damaged, or a newer psyrun wrote it.
    """
    try:
        content = json.loads(path.read_bytes())
        version = content.pop("format")
        if version == FORMAT:
            content["batches"] = tuple(Batch(*numbers) for numbers in content["batches"])
            content |= {name: tuple(content[name]) for name in ("names", "adopted")}
            return Plan(**content)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FormatError(f"{path}: damaged ({error}); delete it, psy run plans anew") from error
    raise FormatError(f"{path}: format {version} is not known to this psyrun; upgrade psyrun to read it")


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan, all of it or nothing."""
    write_atomic(path, plan.to_json())


# ---------------------------------------------------------------------- planning


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A parameter space, evaluated.

    Parameters
    ----------
    columns
        Parameter -> values (n,).
    rows
        n, which can't be told from no columns.
    """

    columns: Mapping[str, Sequence[Any]]
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """A batch on disk whose rows a plan may use.

    Parameters
    ----------
    number, size
        Its number, and how many assignments it holds.
    code
        Digest of the code that its rows are, or will be, evaluated with.
    columns
        Its assignments, parameter -> values (size,).
    done
        Rows that have values.
    """

    number: int
    size: int
    code: str
    columns: Mapping[str, Sequence[Any]]
    done: Collection[int]


@dataclass(frozen=True, slots=True)
class _Slot:
    batch: Existing
    row: int


@dataclass(slots=True)
class _Slots:
    """The rows on disk that may stand for a row of the space, best first."""

    by_key: dict[Any, list[_Slot]] = field(default_factory=lambda: defaultdict(list))

    def add(self, batch: Existing, rows: Iterable[int], keys: Sequence[Any]) -> None:
        for row in rows:
            self.by_key[keys[row]].append(_Slot(batch, row))

    def take(self, key: Any) -> _Slot | None:
        slots = self.by_key.get(key)
        return slots.pop() if slots else None


def make_plan(
    space: Space,
    existing: Sequence[Existing],
    blank: Plan,
    *,
    partition: Callable[[int], Sequence[int]],
    keep: Iterable[tuple[int, range]] = (),
) -> tuple[Plan, dict[int, Sequence[int]]]:
    """Find the rows of a space among those on disk, and batch the others.

    A row of the space takes a row of equal identity: one that has values before one that has none, one of
    the current code before one of older code, a later batch before an earlier one. A row on disk is taken
    once: k equal rows are k evaluations.

    Parameters
    ----------
    space
        What is asked for, n rows.
    existing
        What there is. Rows of other code than the plan's are used only where they have values.
    blank
        The plan to complete: digests, settings, next batch number.
    partition
        Number of rows -> sizes of new batches, which add up to it.
    keep
        Rows (batch number, rows) to keep behind those of the space unless they are among them.

    Returns
    -------
    plan : Plan
    new : dict
        Number of a new batch -> the rows of the space (numbers from 0) that it holds.
    """
    taken = _match(space, existing, blank.code) if existing else [None] * space.rows
    fresh = [i for i, slot in enumerate(taken) if slot is None]
    new: dict[int, Sequence[int]] = {}
    start, number = 0, blank.next_batch
    for size in partition(len(fresh)) if fresh else ():
        new[number] = fresh[start : start + size]
        start, number = start + size, number + 1
    cells = [(slot.batch.number, slot.row) if slot else (-1, -1) for slot in taken]
    for new_number, rows in new.items():
        for row, i in enumerate(rows):
            cells[i] = (new_number, row)
    cells += _kept(cells, existing, keep)
    sizes = {batch.number: batch.size for batch in existing} | {b: len(rows) for b, rows in new.items()}
    plan = replace(blank, rows=space.rows, next_batch=number, **_arrange(cells, sizes))
    codes = {batch.number: batch.code for batch in existing}
    used = {codes[batch.number] for batch in plan.batches if batch.number in codes}
    return replace(plan, adopted=tuple(sorted(used - {plan.code}))), new


def _match(space: Space, existing: Sequence[Existing], code: str) -> list[_Slot | None]:
    slots = _Slots()
    # The best comes last, for `take` takes from the end.
    ranked = sorted(existing, key=lambda batch: (batch.code == code, batch.number))
    keys = {batch.number: row_keys(batch.columns)[::1] for batch in ranked}
    for batch in ranked:
        if batch.code == code:
            pending = (row for row in range(batch.size - 1, -1, -1) if row not in batch.done)
            slots.add(batch, pending, keys[batch.number])
    for batch in ranked:
        slots.add(batch, sorted(batch.done, reverse=True), keys[batch.number])
    wanted = row_keys(space.columns) if space.columns else [()] * space.rows
    return [slots.take(key) for key in wanted]


def _kept(
    cells: Collection[tuple[int, int]], existing: Sequence[Existing], keep: Iterable[tuple[int, range]]
) -> list[tuple[int, int]]:
    have = set(cells)
    done = {batch.number: batch.done for batch in existing}
    return [
        (number, row)
        for number, rows in keep
        for row in rows
        if (number, row) not in have and row in done.get(number, ())
    ]


def _arrange(cells: Sequence[tuple[int, int]], sizes: Mapping[int, int]) -> dict[str, Any]:
    """Describe an order of rows as segments of batches."""
    wanted: dict[int, int] = {}
    segments: list[list[int]] = []
    numbers = sorted({number for number, _ in cells})
    index = {number: i for i, number in enumerate(numbers)}
    last = (-1, -1)
    for number, row in cells:
        wanted[number] = wanted.get(number, 0) + 1
        if (number, row - 1) == last:
            segments[-1][2] += 1
        else:
            segments.append([index[number], row, 1])
        last = (number, row)
    packed = b"".join(n.to_bytes(8, "little") for segment in segments for n in segment)
    batches = tuple(Batch(number, sizes[number], wanted[number]) for number in numbers)
    return {"batches": batches, "order": base64.b64encode(zlib.compress(packed, 6)).decode()}
