"""doit's database as a cache: where it is damaged or locked, nothing but a little time is lost."""

from __future__ import annotations

import errno
import sqlite3
import warnings
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.disk import share_file
from psyrun.errors import PsyrunWarning, explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_PATIENCE = 2.0  # seconds
_CHECKSUM = "checksum:"  # doit's own entries end with a colon too, or are paths
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class CacheDatabase:
    """doit's database, read when it is opened and written at its end, so that it is not locked between.

    A file of SQLite that plain doit reads and writes too. Each node has a checksum: one that does not match
    it, or that plain doit wrote, counts as absent. A damaged file is replaced.

    Parameters
    ----------
    name
        The file.
    codec
        Encodes the entries of a node.
    """

    def __init__(self, name: str, codec: Any, **options: Any) -> None:
        self.name = name
        self._codec = codec
        self._nodes: dict[str, dict[str, Any]] = {}
        self._changed: set[str] = set()
        self._given_up = False
        self._warned = False
        self._try(self._read)

    def get(self, task_id: str, dependency: str) -> Any:
        """Return an entry of a node; None where there is none."""
        return self._nodes.get(task_id, {}).get(dependency)

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        """Set an entry of a node."""
        self._nodes.setdefault(task_id, {})[dependency] = value
        self._changed.add(task_id)

    def in_(self, task_id: str) -> bool:
        """Whether a node has entries."""
        return task_id in self._nodes

    def remove(self, task_id: str) -> None:
        """Remove a node."""
        self._nodes.pop(task_id, None)
        self._changed.add(task_id)

    def remove_all(self) -> None:
        """Remove all nodes."""
        for task_id in list(self._nodes):
            self.remove(task_id)

    def dump(self) -> None:
        """Write what changed; where that is not possible, the next run has a little more to do."""
        if self._changed and not self._given_up:
            self._try(self._write) or self._given_up or self._try(self._write)

    # ------------------------------------------------------------------ the file

    def _try(self, act: Callable[[sqlite3.Connection], None]) -> bool:
        """Do something with the file; one that is damaged is removed. Return whether that worked."""
        try:
            with self._open() as database:
                act(database)
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:  # The latter: of a message of SQLite.
            if not self._warned:
                text = "".join(each if each.isprintable() else " " for each in str(error))
                why = explain(error) if isinstance(error, OSError) else f"{self.name}: {text}"
                why = f"{why}; going on without it, nothing is evaluated twice"
                warnings.warn(why, PsyrunWarning, stacklevel=2)
            self._warned = True
            self._given_up = getattr(error, "sqlite_errorcode", 0) & 0xFF in _LOCKED or not self._remove()
            return False
        return True

    def _remove(self) -> bool:
        try:
            for path in self._paths():
                path.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def _paths(self) -> list[Path]:
        return [Path(self.name + suffix) for suffix in ("", "-journal", "-wal", "-shm")]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the file, which is sound, for one transaction."""
        for path in self._paths():
            if path.exists() and not path.is_file():  # SQLite would wait for a pipe.
                raise FileExistsError(errno.EEXIST, "not a regular file", str(path))
        database = self._connect()
        try:
            [found] = database.execute("pragma integrity_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            yield database
            database.commit()
        finally:
            database.close()

    def _connect(self) -> sqlite3.Connection:
        """Connect to the file, and begin to write; a file of a disk that is read-only can be read."""
        try:
            Path(self.name).touch()  # SQLite itself would not let a group write that may.
            share_file(Path(self.name))
        except OSError as error:
            if error.errno != errno.EROFS or not Path(self.name).exists():
                raise
            return sqlite3.connect(f"{Path(self.name).absolute().as_uri()}?mode=ro", uri=True)
        database = sqlite3.connect(self.name, timeout=_PATIENCE, isolation_level=None)
        try:
            database.execute("begin immediate")
            database.execute(
                "create table if not exists doit (task_id text not null primary key, task_data json)"
            )
        except BaseException:
            database.close()
            raise
        return database

    def _read(self, database: sqlite3.Connection) -> None:
        for task_id, data in database.execute("select task_id, cast(task_data as blob) from doit"):
            with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
                node = self._codec.decode(data.decode())
                if node.pop(_CHECKSUM) == self._checksum(task_id, node):
                    self._nodes[task_id] = node

    def _write(self, database: sqlite3.Connection) -> None:
        for task_id in self._changed:
            database.execute("delete from doit where task_id=?", (task_id,))
            node = self._nodes.get(task_id)
            if node is not None:
                data = self._codec.encode({**node, _CHECKSUM: self._checksum(task_id, node)})
                database.execute("insert into doit values (?, ?)", (task_id, data))

    def _checksum(self, task_id: str, node: dict[str, Any]) -> int:
        return zlib.crc32(self._codec.encode({task_id: node}).encode())
