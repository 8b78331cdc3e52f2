"""Foreign results: what stands in the place of a result, and is not psyrun's to overwrite unasked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psyrun.errors import DirtyError, StoreError
from psyrun.split.matching import Existing
from psyrun.workdir import file_digest, has_inputs, is_current, read_input_header, read_progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psyrun.options import RunOptions
    from psyrun.task import Outline, Task
    from psyrun.workdir import Layout, Plan


@dataclass(frozen=True, slots=True)
class AdoptedRows:
    """The rows of a result that psyrun did not write: a batch, its values, and the digest of the file."""

    batch: Existing
    values: Mapping[str, Sequence[Any]]
    origin: str | None


def is_unmanaged_result(layout: Layout, plan: Plan | None) -> bool:
    """Whether there is a result file that psyrun did not write, or of which the work folder knows nothing."""
    if not layout.result.exists():
        return False
    if not layout.receipt.exists():
        return True
    if plan is None:
        return not any(layout.inputs.glob("*.pkl"))
    if layout.process.exists() or has_inputs(plan, layout) or read_progress(plan, layout).complete:
        return False
    return is_current(layout, plan)  # An older one is written anew.


def refuse_unmanaged_result(outline: Outline, plan: Plan | None, options: RunOptions) -> None:
    """Raise DirtyError where there is a foreign result, and nobody said what is to become of it."""
    layout = outline.layout
    if options.force or options.adopt or not is_unmanaged_result(layout, plan):
        return
    why = "psyrun did not write this file"
    if layout.receipt.exists():
        why = f"{layout.relative(layout.folder)} does not know any more what it was made from"
    raise DirtyError(
        f"{outline.result}: {why}; keep its rows: psy run --continue {outline.name},"
        f" overwrite it: psy run --force {outline.name}"
    )


def refuse_folder(outline: Outline) -> None:
    """Raise DirtyError where there is a folder in the place of the result file."""
    if outline.layout.result.is_dir():
        raise DirtyError(
            f"{outline.path}: its result would be {outline.result}, which is a folder;"
            " move the folder away, or set another `resultfile`"
        )


def find_adopted(layout: Layout, existing: Sequence[Existing]) -> Existing | None:
    """Return the batch that a run which got no further made of the result file."""
    origin = file_digest(layout.result)
    for batch in existing:
        header = read_input_header(layout.input(batch.number))
        if header.get("origin") == origin and len(batch.done) == batch.size:
            return batch
    return None


def read_unmanaged_result(task: Task, number: int, code: str, names: Sequence[str]) -> AdoptedRows:
    """Read the rows of a foreign result as a batch of this number and code.

    Raises
    ------
    DirtyError
        If the file can't be read, or lacks a parameter.
    """
    result = task.outline.result
    try:
        table = task.store.load(task.outline.layout.result)
    except (StoreError, OSError) as error:
        raise DirtyError(
            f"{result}: its rows can't be kept: {error}; move it away, or use --force"
        ) from error
    lacking = [name for name in names if name not in table]
    if lacking:
        raise DirtyError(
            f"{result}: its rows can't be kept, for it lacks the parameters {lacking};"
            " move it away, or use --force"
        )
    size = max((len(values) for values in table.values()), default=0)
    columns = {name: list(table[name]) for name in names}
    values = {name: list(column) for name, column in table.items() if name not in columns}
    batch = Existing(number=number, size=size, code=code, columns=columns, done=frozenset(range(size)))
    return AdoptedRows(batch, values, file_digest(task.outline.layout.result))
