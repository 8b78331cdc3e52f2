"""States of inputs: what files, listings and patterns are now, and what the space was seen to read."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from psyrun.disk import take_stamp
from psyrun.source import Observer, TrackedPaths, describe_existence, find_parts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from psyrun.disk import Stamp
    from psyrun.source import SourceCache
    from psyrun.task import Outline
    from psyrun.workdir import Input


KINDS = ("file", "declared", "folder", "glob", "exists")
_FILES = ("file", "declared")
_WORDS = {"folder": "names in {}", "glob": "files {}", "exists": "whether there is {}"}


def name_input(key: str) -> str:
    """Return words for ``<kind> <path>`` of an input.

    Examples
    --------
    >>> name_input("file data/rates.csv"), name_input("glob data/*.csv")
    ('data/rates.csv', 'files data/*.csv')
    """
    kind, _, path = key.partition(" ")
    return _WORDS.get(kind, "{}").format(path)


class InputStates:
    """States of inputs as they are now, each looked at once.

    Parameters
    ----------
    outline
        The task.
    cache
        Digests of files read before.
    products
        Code -> paths that its rows wrote, which are left out of what these list.
    """

    def __init__(
        self, outline: Outline, cache: SourceCache, products: Mapping[str, Collection[str]] | None = None
    ) -> None:
        self._cache, self._products = cache, products or {}
        self._paths, self._tracked = tracked_paths(outline), outline.track_inputs
        self._states: dict[tuple[str, bool, str], str | None] = {}
        self._stamps: dict[str, Stamp | None] = {}

    def counts(self, key: str) -> bool:
        """Whether ``<kind> <path>`` is an input by the settings of now."""
        kind, _, path = key.partition(" ")
        tracked = self._tracked and self._paths.name(self._paths.locate(path)) is not None
        return kind in KINDS and (tracked or kind == "declared")

    def of(self, each: Input, code: str) -> str | None:
        """Return the state of an input of rows of a code as it would be recorded now; None: no such file.

        A file is not read where its stamp is the one that the worker noted with the digest.
        """
        if each.inode is not None and self._stamp(each.path) == each.stamp:
            return each.digest
        by_stat = each.kind in _FILES and each.digest is None
        return self.of_key(f"{each.kind} {each.path}", by_stat=by_stat, code=code)

    def of_key(self, key: str, *, by_stat: bool = False, code: str = "") -> str | None:
        """Return the state of ``<kind> <path>``; size and mtime instead of the content where `by_stat`."""
        kind, _, path = key.partition(" ")
        where = key, by_stat, "" if kind in _FILES else code
        if where not in self._states:
            self._states[where] = self._look(kind, path, by_stat, self._products.get(code, ()))
        return self._states[where]

    def _look(self, kind: str, path: str, by_stat: bool, products: Collection[str]) -> str | None:
        if kind == "folder":
            return self._paths.digest_listing(path, products)
        if kind == "glob":
            return self._paths.digest_matches(path, products)
        if kind == "exists":
            return describe_existence(self._paths.locate(path))
        stamp = self._stamp(path)
        if stamp is None or by_stat:
            return None if stamp is None else f"{stamp[0]} {stamp[1]}"
        with suppress(OSError):
            return self._cache.digest_file(path, self._paths.locate(path), stamp)
        return None

    def _stamp(self, path: str) -> Stamp | None:
        try:
            return self._stamps[path]
        except KeyError:
            stamp = self._stamps[path] = take_stamp(self._paths.locate(path))
            return stamp


def tracked_paths(outline: Outline) -> TrackedPaths:
    """Return the paths that count as inputs of a task."""
    return TrackedPaths(
        root=str(outline.root),
        folder=str((outline.root / outline.path).parent),
        work=str(outline.layout.folder),
        untracked=outline.untracked,
    )


def recorded_state(each: Input) -> str | None:
    """Return the state of an input when it was read."""
    if each.kind in _FILES and each.digest is None:
        return f"{each.size} {each.mtime}"
    return each.digest


def observe_planning(outline: Outline) -> Observer:
    """Return an observer of what loading a task file and evaluating its space read; see `inputs_of_space`."""
    sources = {str(outline.root / name): name for name in outline.source.files}
    observer = Observer(tracked_paths(outline), sources)
    observer.declare(outline.file_dep)
    return observer


def inputs_of_space(outline: Outline, observer: Observer, cache: SourceCache) -> dict[str, str | None]:
    """Return ``<kind> <path>`` -> state of what was read, but for what only the code reads."""
    readings = observer.take()
    parts = find_parts(outline.source) if any(each.place for each in readings) else {}
    code = {(path, first, last) for (path, first, last), part in parts.items() if part == "code"}
    states = InputStates(outline, cache)
    found: dict[str, str | None] = {}
    for each in readings:
        if not states.counts(f"{each.kind} {each.path}") or any(
            lies_in(each.place, *statement) for statement in code
        ):
            continue
        state = states.of_key(f"{each.kind} {each.path}")
        changed = each.kind in _FILES and states.of_key(f"file {each.path}", by_stat=True) != (
            f"{each.size} {each.mtime}"
        )
        found[f"{each.kind} {each.path}"] = "changed meanwhile" if changed else state
    return found


def lies_in(place: str, path: str, first: int, last: int) -> bool:
    """Return whether a place, ``file:line``, lies in lines of a file."""
    file, _, line = place.rpartition(":")
    return file == path and line.isdecimal() and first <= int(line) <= last
