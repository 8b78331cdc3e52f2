"""The project at hand: the task files below its root, and those of them that a command is about."""

from __future__ import annotations

import difflib
from contextlib import suppress
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import PurePath
from typing import TYPE_CHECKING

from psyrun.errors import TaskFileError
from psyrun.source import CACHE_PATH, SourceCache
from psyrun.task import outline_folder
from psyrun.taskfiles import find_needs, find_upstream, read_outlines

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from psyrun.task import Outline

__all__ = ["Project", "Selection"]


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
        return [there[name] for name in TopologicalSorter(find_needs(there.values())).static_order()]


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
