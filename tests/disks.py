"""Disks: what they hold when the power goes, after operations on files that were traced.

Two disks are modelled:

ordered
    Names as of a moment after the last sync, of whatever file; the synced bytes of a file, and any part of
    what was written behind them.
strict
    What POSIX promises: a name is as it was when its folder was synced, or as it was made since; the synced
    bytes of a file, and no others.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MODELS", "Record", "restore"]

Record = tuple[Any, ...]  # operation, when, what; see traced/sitecustomize.py

_REBOOT = 120 * 10**9  # nanoseconds by which locks are older when psy runs again


@dataclass(eq=False, slots=True)
class _File:
    """A file: what changed it, by the number of the record, and up to which of them it was synced."""

    changes: list[tuple[int, Record]] = field(default_factory=list)
    synced: int = -1

    def content(self, changes: list[tuple[int, Record]]) -> tuple[bytes, int | None]:
        """Return its bytes after some of its changes, and its time of modification."""
        data, mtime = bytearray(), None
        for _, (operation, *details) in changes:
            if operation == "write":
                offset, written, mtime = details
                data[len(data) :] = bytes(max(0, offset - len(data)))
                data[offset : offset + len(written)] = written
            elif operation == "truncate":
                data[details[0] :] = bytes(max(0, details[0] - len(data)))
            else:
                mtime = details[0]
        return bytes(data), mtime

    def durable(self) -> list[tuple[int, Record]]:
        return [change for change in self.changes if change[0] <= self.synced]


_History = list[tuple[int, "_File | _Folder | None"]]


@dataclass(eq=False, slots=True)
class _Folder:
    """A folder: what each of its names meant from which record on."""

    names: dict[str, _History] = field(default_factory=dict)
    synced: int = -1

    def bind(self, number: int, name: str, node: _File | _Folder | None) -> None:
        self.names.setdefault(name, [(-1, None)]).append((number, node))

    def find(self, name: str) -> _File | _Folder | None:
        return self.names[name][-1][1] if name in self.names else None


class _Disk:
    """All that was done to files up to a moment, and what of it is sure to be on disk."""

    def __init__(self) -> None:
        self.root = _Folder()
        self.last = self.committed = -1
        self._files: dict[int, _File] = {}
        self._syncs: dict[tuple[Any, ...], list[int]] = {}

    def apply(self, number: int, operation: str, *details: Any) -> None:
        """Do what a record says."""
        self.last = number
        if operation in ("write", "truncate", "utime"):
            inode, *how = details
            self._files[inode].changes.append((number, (operation, *how)))
        elif operation == "syncing":
            self._syncs.setdefault(details, []).append(number)
        elif operation == "synced":
            self._sync(self._syncs[details].pop(0), *details)
        else:
            self._change_names(number, operation, *details)

    def _sync(self, number: int, kind: str, which: Any) -> None:
        self.committed = max(self.committed, number)
        node = self._files.get(which) if kind == "file" else self._walk(Path(which))
        if node is not None:  # None: no file that can be written
            node.synced = max(node.synced, number)

    def _change_names(self, number: int, operation: str, name: str, other: Any = None) -> None:
        path = Path(name)
        folder = self._walk(path.parent)
        if operation == "create":
            self._files[other] = _File()
            folder.bind(number, path.name, self._files[other])
        elif operation == "mkdir":
            folder.bind(number, path.name, _Folder())
        elif operation in ("unlink", "rmdir"):
            folder.bind(number, path.name, None)
        elif operation in ("link", "rename"):
            node = folder.find(path.name)
            if operation == "rename":
                folder.bind(number, path.name, None)
            self._walk(Path(other).parent).bind(number, Path(other).name, node)
        else:
            raise ValueError(operation)

    def _walk(self, path: Path) -> _Folder:
        folder = self.root
        for name in path.parts:
            found = folder.find(name)
            if not isinstance(found, _Folder):  # It was there before: durable.
                found = _Folder()
                folder.names[name] = [(-1, found)]
            folder = found
        return folder

    def write(self, target: Path, survival: _Survival, folder: _Folder | None = None) -> None:
        """Write what survives below a folder that is there."""
        folder = folder or self.root
        for name, history in folder.names.items():
            node = survival.choose_node(folder, history)
            path = target / name
            if isinstance(node, _Folder):
                path.mkdir(exist_ok=True)
                self.write(path, survival, node)
            elif node is not None:
                data, mtime = survival.read(node)
                path.write_bytes(data)
                mtime = path.stat().st_mtime_ns if mtime is None else mtime  # Receipts may name it.
                mtime -= _REBOOT * name.startswith("lock")
                os.utime(path, ns=(mtime, mtime))


class _Survival:
    """What is there while there is power: everything."""

    def choose_node(self, folder: _Folder, history: _History) -> _File | _Folder | None:
        return history[-1][1]

    def read(self, file: _File) -> tuple[bytes, int | None]:
        return file.content(file.changes)


class _Ordered(_Survival):
    """What survives on a disk that keeps the order of names, which any sync writes."""

    def __init__(self, disk: _Disk, chance: random.Random) -> None:
        self._chance = chance
        self._mood = chance.choice(["least", "most", "any"])
        self._names = {"least": disk.committed, "most": disk.last}.get(
            self._mood, chance.randint(disk.committed, disk.last)
        )

    def choose_node(self, folder: _Folder, history: _History) -> _File | _Folder | None:
        return [node for number, node in history if number <= self._names][-1]

    def read(self, file: _File) -> tuple[bytes, int | None]:
        durable = file.durable()
        more = len(file.changes) - len(durable)
        more = {"least": 0, "most": more}.get(self._mood, self._chance.randint(0, more))
        changes = file.changes[: len(durable) + more]
        if more and self._mood == "any" and changes[-1][1][0] == "write":
            number, (_, offset, data, mtime) = changes[-1]
            changes[-1] = (number, ("write", offset, data[: self._chance.randint(0, len(data))], mtime))
        return file.content(changes)


class _Strict(_Survival):
    """What survives on a disk that keeps no more than POSIX says."""

    def __init__(self, disk: _Disk, chance: random.Random) -> None:
        self._chance = chance
        self._mood = chance.choice(["least", "most", "any"])

    def choose_node(self, folder: _Folder, history: _History) -> _File | _Folder | None:
        least = max(i for i, (number, _) in enumerate(history) if number <= folder.synced)
        most = len(history) - 1
        at = {"least": least, "most": most}.get(self._mood, self._chance.randint(least, most))
        return history[at][1]

    def read(self, file: _File) -> tuple[bytes, int | None]:
        return file.content(file.durable())


_SURVIVALS = {"ordered": _Ordered, "strict": _Strict}
MODELS = tuple(_SURVIVALS)


def restore(
    records: Iterable[Record], folder: Path, *, until: float = float("inf"), model: str = "", seed: str = ""
) -> None:
    """Write what is there after operations.

    Parameters
    ----------
    records
        The operations, in order.
    folder
        Where to write; it is there.
    until
        The moment when the power goes.
    model
        The disk; without it, the power stays.
    seed
        Decides on what survives.
    """
    disk = _Disk()
    for number, (operation, happened, *details) in enumerate(records):
        if happened > until:
            break
        disk.apply(number, operation, *details)
    survival = _SURVIVALS[model](disk, random.Random(seed)) if model else _Survival()
    disk.write(folder, survival)
