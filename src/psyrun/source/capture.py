"""Captured sources: the bytes of a task file, psy-conf.py and local modules, read once.

Digests, the archive for jobs and the module that runs are all made of these bytes, not of the files on disk.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.errors import TaskFileError
from psyrun.source.cache import SourceCache
from psyrun.source.digests import SCHEME, mix, module_facts, task_facts
from psyrun.source.modules import ModuleSearch, with_packages
from psyrun.source.syntax import parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


_CONF = "psy-conf.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Captured sources of a task, and their digests.

    Parameters
    ----------
    task
        The task file, a POSIX path relative to the project root.
    conf
        psy-conf.py beside it, likewise, or None.
    files
        Path -> bytes, of these two and of local modules.
    modules
        Dotted name of each local module -> path, '' for a namespace package.
    code, space
        Digests of the statements that values of `execute`, and the space, depend on; without data files.
    definitions
        Digest of each top-level definition in `code`, named like ``psy-tasks/model.py: step``.
    """

    task: str
    conf: str | None
    files: Mapping[str, bytes]
    modules: Mapping[str, str]
    code: str
    space: str
    definitions: Mapping[str, str]

    @property
    def scripts(self) -> tuple[str, ...]:
        """Paths of the files that run in the task's own namespace, in order."""
        return (self.task,) if self.conf is None else (self.conf, self.task)


def read_source(root: Path, task_file: Path, cache: SourceCache | None = None) -> Source:
    """Capture a task file, psy-conf.py beside it, and the local modules that they import.

    Every top-level import counts for both digests, imports inside functions where the slice has the function.
    A module that only the space imports counts for `code` too: its classes may come out as values.

    Parameters
    ----------
    root
        The project root.
    task_file
        The task file, absolute or relative to the working directory.
    cache
        Facts about sources read before.

    Raises
    ------
    TaskFileError
        If a file can't be read or parsed.

    Notes
    -----
    Nothing is imported or executed. Installed packages and C extensions are not followed.
    """
    importlib.invalidate_caches()
    home, path = (Path(os.path.normpath(each.absolute())) for each in (root, task_file))
    search = ModuleSearch(root=str(home), folder=str(path.parent))
    capture = _Capture(root=home, task_file=path, search=search, cache=cache or SourceCache())
    task = capture.read(path)
    conf_file = path.with_name(_CONF)
    conf = capture.read(conf_file) if os.path.lexists(conf_file) else None
    scripts = [each for each in (conf, task) if each is not None]
    facts = capture.task_facts(scripts)
    capture.search.edits = facts["path"]
    space = capture.follow(facts["space_imports"])
    code = capture.follow([*facts["code_imports"], *facts["space_imports"]])
    definitions = dict(zip(scripts, facts["definitions"]))
    definitions |= {name: capture.module_facts(name)["definitions"] for name in code.values() if name}
    return Source(
        task=task,
        conf=conf,
        files=dict(sorted(capture.files.items())),
        modules=dict(sorted(code.items())),
        code=mix([facts["code"], *capture.digests(code)]),
        space=mix([facts["space"], *capture.digests(space)]),
        definitions={f"{file}: {name}": each[name] for file, each in definitions.items() for name in each},
    )


@dataclass(slots=True, kw_only=True)
class _Capture:
    """Files read so far, each once."""

    root: Path
    task_file: Path
    search: ModuleSearch
    cache: SourceCache
    files: dict[str, bytes] = field(default_factory=dict)
    _keys: dict[str, str] = field(default_factory=dict)

    def read(self, path: Path) -> str:
        """Read a file once, and return its path relative to the root."""
        name = self._relative(path)
        if name not in self.files:
            if path.exists() and not path.is_file():  # Reading a pipe would wait for ever.
                raise TaskFileError(f"{name}: not a regular file, so psyrun can't read it; move or rename it")
            try:
                self.files[name] = path.read_bytes()
            except OSError as error:
                raise TaskFileError(f"{name}: {error.strerror}; psyrun has to read it") from error
        return name

    def _relative(self, path: Path) -> str:
        real = Path(os.path.realpath(path))  # which a link to itself has too
        for place, root in ((path, self.root), (real, Path(os.path.realpath(self.root)))):
            if place.is_relative_to(root):
                return place.relative_to(root).as_posix()
        return Path(os.path.relpath(path, self.root)).as_posix()

    def task_facts(self, scripts: Iterable[str]) -> dict[str, Any]:
        """Return the facts of the task file with psy-conf.py above it."""
        key = self._key("task", scripts)
        return self.cache.recall(key, lambda: task_facts([parse(self.files[name], name) for name in scripts]))

    def module_facts(self, name: str) -> dict[str, Any]:
        """Return the facts of a local module."""
        key = self._keys.get(name) or self._keys.setdefault(name, self._key("module", [name]))
        return self.cache.recall(key, lambda: module_facts(parse(self.files[name], name)))

    def _key(self, kind: str, names: Iterable[str]) -> str:
        digests = [hashlib.sha256(self.files[name]).hexdigest() for name in names]
        return " ".join([kind, str(SCHEME), "{}.{}".format(*sys.version_info), *digests])

    def follow(self, names: Iterable[str]) -> dict[str, str]:
        """Find local modules and those that they import: dotted name -> path, '' for a namespace package."""
        found: dict[str, str] = {}
        todo = [name for name in names if not name.startswith(".")]
        while todo:
            for name in with_packages(todo.pop()):
                module = self.search.find(name)
                if module is None or (module.path is not None and Path(module.path) == self.task_file):
                    break
                if name in found:
                    continue
                found[name] = "" if module.path is None else self.read(Path(module.path))
                if found[name]:
                    todo += self._imports(name, found[name], is_package=module.folders is not None)
        real = {above for name, path in found.items() if path for above in with_packages(name)}
        return {name: path for name, path in found.items() if name in real}

    def _imports(self, name: str, path: str, *, is_package: bool) -> Iterator[str]:
        facts = self.module_facts(path)
        package = name if is_package else name.rpartition(".")[0]
        for imported in facts["imports"]:
            with suppress(ImportError):  # A relative import that leaves the package fails when it runs.
                yield importlib.util.resolve_name(imported, package)
        if is_package:
            yield from (f"{name}.{export}" for export in facts["exports"])

    def digests(self, modules: Mapping[str, str]) -> list[str]:
        """Return names and digests of modules, without their paths."""
        named = sorted((name, path) for name, path in modules.items() if path)
        return [f"{name} {self.module_facts(path)['digest']}" for name, path in named]
