"""Task files of a folder: read each by itself, those set aside that get in each other's way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from psyrun.errors import TaskFileError
from psyrun.task import find_task_files, name_of, read_outline

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from psyrun.cache import SourceCache
    from psyrun.task import Outline

__all__ = ["find_clashes", "find_needs", "find_upstream", "read_outlines"]


def read_outlines(
    root: Path, taskdir: str, cache: SourceCache | None = None
) -> tuple[dict[str, Outline], dict[str, TaskFileError]]:
    """Read all task files of a folder.

    Returns
    -------
    outlines : dict
        Task name -> outline.
    broken : dict
        Name (as far as it is known) -> what is wrong with that file; the others are not affected.
    """
    found: list[Outline] = []
    wrong: dict[Path, TaskFileError] = {}
    for path in find_task_files(root, taskdir):
        try:
            found.append(read_outline(root, path, cache))
        except TaskFileError as error:
            wrong[path] = error
    outlines: dict[str, Outline] = {}
    for outline in sorted(found, key=lambda each: each.name != name_of(Path(each.path))):
        other = outlines.setdefault(outline.name, outline)
        if other is not outline:
            taken = f"the name {outline.name!r} is taken by {other.path}; set another `name`"
            wrong[Path(outline.path)] = TaskFileError(f"{outline.path}: {taken}")
    for name, clash in find_clashes(list(outlines.values())).items():
        wrong[Path(outlines.pop(name).path)] = clash
    ordered = {each.name: each for each in found if outlines.get(each.name) is each}
    return ordered, {_name_broken(path, ordered): error for path, error in sorted(wrong.items())}


def _name_broken(path: Path, taken: Collection[str]) -> str:
    """Name a task file that can't be used: as its task would be, unless another is called so."""
    name = name_of(path)
    return path.name if name in taken else name


def find_clashes(outlines: Sequence[Outline]) -> dict[str, TaskFileError]:
    """Find the tasks whose result can't be where they want it, and those that wait for themselves.

    doit refuses the whole graph for one of them: without them, the others go on.

    Returns
    -------
    dict
        Task -> what is wrong with it.
    """
    found: dict[str, TaskFileError] = {}
    taken = {path: outline.path for outline in outlines for path in _fixed_paths(outline)}
    for outline in sorted(outlines, key=_lies_elsewhere):  # Who wants it where it belongs comes first.
        owner = taken.setdefault(outline.result, outline.path)
        if owner != outline.path or outline.result in _fixed_paths(outline):
            found[outline.name] = TaskFileError(
                f"{outline.path}: its result would be {outline.result}, which is a file of {owner};"
                " set another `resultfile`"
            )
    found |= _find_circles({o.name: o for o in outlines if o.name not in found})
    return found


def _lies_elsewhere(outline: Outline) -> bool:
    return not outline.layout.result.is_relative_to(outline.layout.folder)


def _fixed_paths(outline: Outline) -> Iterable[str]:
    """Give what a task reads or writes wherever its result is, data files aside."""
    layout = outline.layout
    yield from outline.source.files
    yield from map(layout.relative, layout.files)


def _find_circles(outlines: Mapping[str, Outline]) -> dict[str, TaskFileError]:
    needs = find_needs(outlines.values())
    found = {}
    for name, outline in outlines.items():
        if name in _ancestors(name, needs):
            found[name] = TaskFileError(
                f"{outline.path}: by file_dep, the task waits for its own result {outline.result};"
                " take a result out of file_dep, here or in the tasks that this one waits for"
            )
    return found


def _ancestors(name: str, needs: Mapping[str, Sequence[str]]) -> set[str]:
    seen: set[str] = set()
    todo = list(needs[name])
    while todo:
        each = todo.pop()
        if each not in seen:
            seen.add(each)
            todo += needs[each]
    return seen


def find_needs(outlines: Collection[Outline]) -> dict[str, list[str]]:
    """Return task -> those of these tasks whose results it names in file_dep."""
    makers = {outline.result: outline.name for outline in outlines}
    return {
        outline.name: [makers[path] for path in outline.file_dep if path in makers] for outline in outlines
    }


def find_upstream(outlines: Collection[Outline], known: Collection[Outline]) -> list[Outline]:
    """Return the known tasks, besides these, whose results these need, directly or through others."""
    needs, given = find_needs(known), {outline.name for outline in outlines}
    found = {name for each in given for name in _ancestors(each, needs)} - given
    return [outline for outline in known if outline.name in found]
