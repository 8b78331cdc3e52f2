"""Task files of a folder: read each by itself, those set aside that get in each other's way."""

from __future__ import annotations

import difflib
from contextlib import suppress
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from psyrun.errors import TaskFileError
from psyrun.source import CACHE_PATH, SourceCache
from psyrun.task.task import find_task_files, name_of, outline_folder, read_outline

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from psyrun.task.task import Outline


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
    needs = find_dependencies(outlines.values())
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


def find_dependencies(outlines: Collection[Outline]) -> dict[str, list[str]]:
    """Return task -> those of these tasks whose results it names in file_dep."""
    makers = {outline.result: outline.name for outline in outlines}
    return {
        outline.name: [makers[path] for path in outline.file_dep if path in makers] for outline in outlines
    }


def find_upstream(outlines: Collection[Outline], known: Collection[Outline]) -> list[Outline]:
    """Return the known tasks, besides these, whose results these need, directly or through others."""
    needs, given = find_dependencies(known), {outline.name for outline in outlines}
    found = {name for each in given for name in _ancestors(each, needs)} - given
    return [outline for outline in known if outline.name in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The tasks that a command is about.

    Parameters
    ----------
    outlines
        Those whose task files can be read.
    upstream
        Others whose results these need, directly or through more.
    broken
        Name -> what is wrong with the others.
    cache
        What is remembered of unchanged sources.
    """

    outlines: Sequence[Outline]
    upstream: Sequence[Outline]
    broken: Mapping[str, TaskFileError]
    cache: SourceCache

    @property
    def chain(self) -> Sequence[Outline]:
        """All tasks that have to be finished for these to be, each behind those whose results it needs."""
        there = {outline.name: outline for outline in (*self.upstream, *self.outlines)}
        return [there[name] for name in TopologicalSorter(find_dependencies(there.values())).static_order()]


@dataclass(frozen=True, slots=True)
class Project:
    """The task files of a folder.

    Parameters
    ----------
    root
        The project root.
    taskdir
        Folder of the task files, relative to the root.
    """

    root: Path
    taskdir: str

    def select(self, names: Collection[str] = ()) -> Selection:
        """Read the named task files, or all.

        Raises
        ------
        TaskFileError
            If there is no task of such a name.
        """
        cache = SourceCache.load(self.root / CACHE_PATH)
        outlines, broken = read_outlines(self.root, self.taskdir, cache)
        return self._select(names, outlines, broken, cache)

    def select_folders(self, names: Collection[str] = ()) -> Selection:
        """Do what `select` does; of tasks whose files are broken or gone, there are their folders."""
        cache = SourceCache.load(self.root / CACHE_PATH)
        outlines, broken = read_outlines(self.root, self.taskdir, cache)
        for name in {*names, *broken} - outlines.keys():
            with suppress(TaskFileError):  # It can't have had such a name.
                outline = outline_folder(self.root, self.taskdir, name)
                if outline.layout.folder.is_dir():
                    outlines[name] = outline
        broken = {name: error for name, error in broken.items() if name not in outlines}
        return self._select(names, outlines, broken, cache)

    def _select(
        self,
        names: Collection[str],
        outlines: Mapping[str, Outline],
        broken: Mapping[str, TaskFileError],
        cache: SourceCache,
    ) -> Selection:
        for name in names:
            if name not in outlines and name not in broken:
                raise TaskFileError(_no_such_task(name, [*outlines, *broken], self.taskdir))
        chosen = [outline for name, outline in outlines.items() if not names or name in names]
        return Selection(
            outlines=chosen,
            upstream=find_upstream(chosen, outlines.values()),
            broken={name: error for name, error in broken.items() if not names or name in names},
            cache=cache,
        )


def _no_such_task(name: str, known: Sequence[str], taskdir: str) -> str:
    meant = PurePath(name).stem.removeprefix("task_").lower()  # It may have been given as a file.
    near = [each for each in known if each.lower() == meant] or difflib.get_close_matches(name, known, n=1)
    if near:
        return f"no task {name!r} in {taskdir}; did you mean {near[0]!r}?"
    there = f"known: {', '.join(sorted(known))}" if known else "there is none"
    return f"no task {name!r} in {taskdir}; {there} (a task is a file {taskdir}/task_<name>.py)"
