"""Projects: the task files of a folder, and conflicts between them."""

from __future__ import annotations

import difflib
from contextlib import suppress
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from psyrun.errors import TaskFileError
from psyrun.source import CACHE_PATH, SourceCache, read_scripts
from psyrun.task.outline import name_of, outline_without_file, read_outline
from psyrun.task.settings import literal_settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from psyrun.task.outline import Outline


def find_task_files(root: Path, taskdir: str) -> list[Path]:
    """Return the task files of a folder, sorted by name.

    Raises
    ------
    TaskFileError
        If there is no such folder.
    """
    folder = root / taskdir
    if not folder.is_dir():
        above = next((str(parent) for parent in root.parents if (parent / taskdir).is_dir()), None)
        place = "where it is" if above is None else f"in {above}, where it is"
        raise TaskFileError(
            f"{taskdir}: no such folder in {root}; run psy {place}, name another with --taskdir,"
            " or begin with psy new-task NAME"
        )
    return sorted(folder.glob("task_*.py"))


def find_names(root: Path, taskdir: str) -> list[str]:
    """Return the names of the tasks of a folder without running any file; computed names are not known."""
    names = []
    for path in find_task_files(root, taskdir):
        name = name_of(path)
        with suppress(TaskFileError):
            name = (literal_settings(read_scripts(root, path)) or {}).get("name") or name
        names.append(name)
    return names


def read_outlines(
    root: Path, taskdir: str, cache: SourceCache | None = None
) -> tuple[dict[str, Outline], dict[str, TaskFileError]]:
    """Read all task files of a folder.

    Returns
    -------
    outlines : dict
        Task name -> outline.
    broken : dict
        Name of the task, or of its file -> error; other files are not affected.
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
    for name, conflict in _find_conflicts(list(outlines.values())).items():
        wrong[Path(outlines.pop(name).path)] = conflict
    ordered = {each.name: each for each in found if outlines.get(each.name) is each}
    names = {path: name_of(path) for path in sorted(wrong)}
    return ordered, {path.name if names[path] in ordered else names[path]: wrong[path] for path in names}


def _find_conflicts(outlines: Sequence[Outline]) -> dict[str, TaskFileError]:
    """Find the tasks whose result path is taken, and those that wait for themselves; doit refuses both."""
    found: dict[str, TaskFileError] = {}
    taken = {path: outline.path for outline in outlines for path in _fixed_paths(outline)}
    for outline in sorted(outlines, key=lambda o: not o.layout.result.is_relative_to(o.layout.folder)):
        owner = taken.setdefault(outline.result, outline.path)
        if owner != outline.path or outline.result in _fixed_paths(outline):
            found[outline.name] = TaskFileError(
                f"{outline.path}: its result would be {outline.result}, which is a file of {owner};"
                " set another `resultfile`"
            )
    rest = [outline for outline in outlines if outline.name not in found]
    needs = find_dependencies(rest)
    for outline in rest:
        if outline.name in _ancestors(outline.name, needs):
            found[outline.name] = TaskFileError(
                f"{outline.path}: by file_dep, the task waits for its own result {outline.result};"
                " take a result out of file_dep, here or in the tasks that this one waits for"
            )
    return found


def _fixed_paths(outline: Outline) -> Iterable[str]:
    """Yield the paths of a task's sources and work files, not of its result and data files."""
    layout = outline.layout
    yield from outline.source.paths
    yield from map(layout.relative, layout.files)


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
    """Return task -> those of these tasks whose results its file_dep names."""
    makers = {outline.result: outline.name for outline in outlines}
    return {
        outline.name: [makers[path] for path in outline.file_dep if path in makers] for outline in outlines
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Tasks that a command is for.

    Parameters
    ----------
    outlines
        Tasks whose files can be read.
    upstream
        Other tasks whose results these need, directly or through more.
    broken
        Name -> error of a task whose file can't be read.
    cache
        Cache of source facts.
    """

    outlines: Sequence[Outline]
    upstream: Sequence[Outline]
    broken: Mapping[str, TaskFileError]
    cache: SourceCache

    @property
    def chain(self) -> Sequence[Outline]:
        """These and upstream tasks, each after those whose results it needs."""
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

    def select(self, names: Collection[str] = (), *, folders: bool = False) -> Selection:
        """Read the named task files, or all.

        Parameters
        ----------
        names
            Names of tasks.
        folders
            Whether a work folder is enough where the task file is broken or gone.

        Raises
        ------
        TaskFileError
            If there is no task of such a name.
        """
        cache = SourceCache.load(self.root / CACHE_PATH)
        outlines, broken = read_outlines(self.root, self.taskdir, cache)
        if folders:
            outlines |= self._outline_folders({*names, *broken} - outlines.keys())
            broken = {name: error for name, error in broken.items() if name not in outlines}
        for name in names:
            if name not in outlines and name not in broken:
                raise TaskFileError(_no_such_task(name, [*outlines, *broken], self.taskdir))
        chosen = {name: each for name, each in outlines.items() if not names or name in names}
        needs = find_dependencies(outlines.values())
        upstream = {above for name in chosen for above in _ancestors(name, needs)} - chosen.keys()
        return Selection(
            outlines=list(chosen.values()),
            upstream=[each for name, each in outlines.items() if name in upstream],
            broken={name: error for name, error in broken.items() if not names or name in names},
            cache=cache,
        )

    def _outline_folders(self, names: Iterable[str]) -> dict[str, Outline]:
        found = {}
        for name in names:
            with suppress(TaskFileError):  # A task can't have this name.
                outline = outline_without_file(self.root, self.taskdir, name)
                if outline.layout.folder.is_dir():
                    found[name] = outline
        return found


def _no_such_task(name: str, known: Sequence[str], taskdir: str) -> str:
    meant = PurePath(name).stem.removeprefix("task_").lower()  # It may be the name of a file.
    near = [each for each in known if each.lower() == meant] or difflib.get_close_matches(name, known, n=1)
    if near:
        return f"no task {name!r} in {taskdir}; did you mean {near[0]!r}?"
    there = f"known: {', '.join(sorted(known))}" if known else "there is none"
    return f"no task {name!r} in {taskdir}; {there} (a task is a file {taskdir}/task_<name>.py)"
