"""Captured sources: the bytes of a task file, psy-conf.py and local modules, read once.

Everything that is done with a task derives from these bytes: the digests which say what has to be evaluated
again, the zip file which jobs load, and the module which runs, whatever becomes of the files on disk.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import json
import os
import sys
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.disk import write_atomic
from psyrun.errors import FormatError, NewerFormatError, TaskFileError
from psyrun.source.cache import SourceCache
from psyrun.source.modules import ModuleSearch
from psyrun.source.searchpath import path_edits
from psyrun.source.slices import slice_statements
from psyrun.source.syntax import (
    bound_names,
    digest,
    exported_names,
    imported_names,
    is_text,
    parse,
    scopes_of,
)

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterable, Iterator, Mapping, Sequence


_CONF = "psy-conf.py"
_DIGEST_FORMAT = 1  # changes when equal sources get other digests than before
_ZIP_FORMAT = 1
_REST = "top level"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The sources of a task as they were at one moment, and what follows from them.

    Parameters
    ----------
    task
        The task file, a POSIX path relative to the project root.
    conf
        psy-conf.py beside it, likewise, or None.
    files
        Path -> bytes: these two, and local modules.
    modules
        Dotted name of each local module -> path, '' for a namespace package.
    code, space
        Digests of what the values of `execute`, and the space, depend on; data files are not in them.
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
        """Paths of what runs in the task's own namespace, in this order."""
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
    capture = _Capture.begin(root, task_file, SourceCache() if cache is None else cache)
    task = capture.read(capture.task_file)
    conf_file = Path(capture.task_file).with_name(_CONF)
    conf = capture.read(conf_file) if os.path.lexists(conf_file) else None
    scripts = [path for path in (conf, task) if path is not None]
    facts = capture.task_facts(scripts)
    capture.search.edits = facts["path"]
    space = capture.follow(facts["space_imports"])
    code = capture.follow([*facts["code_imports"], *facts["space_imports"]])
    definitions = dict(zip(scripts, facts["definitions"]))
    definitions |= {path: capture.module_facts(path)["definitions"] for path in code.values() if path}
    return Source(
        task=task,
        conf=conf,
        files=dict(sorted(capture.files.items())),
        modules=dict(sorted(code.items())),
        code=_mix([facts["code"], *capture.digests(code)]),
        space=_mix([facts["space"], *capture.digests(space)]),
        definitions={f"{path}: {name}": each[name] for path, each in definitions.items() for name in each},
    )


def digest_with_data(digest: str, data: Mapping[str, str]) -> str:
    """Mix the content of data files into a digest of sources.

    Examples
    --------
    >>> digest_with_data("0" * 32, {}) == "0" * 32
    True
    """
    return _mix([digest, json.dumps(sorted(data.items()))]) if data else digest


def unread_names(source: Source) -> set[str]:
    """Name what the task file or psy-conf.py bind at the top level, by no import, and never read."""
    trees = [parse(source.files[path], path) for path in source.scripts]
    return set(slice_statements([statement for tree in trees for statement in tree.body]).unread)


def _mix(parts: Iterable[str]) -> str:
    """Digest a list of digests: 32 hexadecimal characters."""
    return hashlib.sha256("\n".join([f"psyrun {_DIGEST_FORMAT}", *parts]).encode()).hexdigest()[:32]


# -- capturing


@dataclass(slots=True, kw_only=True)
class _Capture:
    """Files read so far, each once."""

    root: str
    task_file: Path
    search: ModuleSearch
    cache: SourceCache
    files: dict[str, bytes] = field(default_factory=dict)
    _keys: dict[str, str] = field(default_factory=dict)

    @classmethod
    def begin(cls, root: Path, task_file: Path, cache: SourceCache) -> _Capture:
        home, task = (Path(os.path.normpath(path.absolute())) for path in (root, task_file))
        search = ModuleSearch(root=str(home), folder=str(task.parent))
        return cls(root=str(home), task_file=task, search=search, cache=cache)

    def read(self, path: Path) -> str:
        """Read a file unless it was, and return its path relative to the root."""
        name = self._relative(path)
        if name not in self.files:
            if path.exists() and not path.is_file():  # Reading a pipe would wait for ever.
                raise TaskFileError(f"{name}: it is no file; psyrun has to read it: move or rename it")
            try:
                self.files[name] = path.read_bytes()
            except OSError as error:
                raise TaskFileError(f"{name}: {error.strerror}; psyrun has to read it") from error
        return name

    def _relative(self, path: Path) -> str:
        real = Path(os.path.realpath(path))  # which a link to itself has too
        for place, root in ((path, self.root), (real, os.path.realpath(self.root))):
            if place.is_relative_to(root):
                return place.relative_to(root).as_posix()
        return Path(os.path.relpath(path, self.root)).as_posix()

    def task_facts(self, scripts: Sequence[str]) -> dict[str, Any]:
        """Slice the task file with psy-conf.py above it."""
        key = self._key("task", scripts)
        return self.cache.recall(
            key, lambda: _task_facts([parse(self.files[name], name) for name in scripts])
        )

    def module_facts(self, name: str) -> dict[str, Any]:
        """Digest a local module, and list what it imports."""
        key = self._keys.get(name) or self._keys.setdefault(name, self._key("module", [name]))
        return self.cache.recall(key, lambda: _module_facts(parse(self.files[name], name)))

    def _key(self, kind: str, names: Iterable[str]) -> str:
        parts = [kind, str(_DIGEST_FORMAT), "{}.{}".format(*sys.version_info)]
        return " ".join(parts + [hashlib.sha256(self.files[name]).hexdigest() for name in names])

    def follow(self, names: Iterable[str]) -> dict[str, str]:
        """Find local modules, those that they import, and so on: dotted name -> path, '' for a namespace."""
        found: dict[str, str] = {}
        todo = [name for name in names if not name.startswith(".")]
        while todo:
            for name in _ancestry(todo.pop()):
                module = self.search.find(name)
                if module is None or (module.path is not None and Path(module.path) == self.task_file):
                    break
                if name in found:
                    continue
                found[name] = "" if module.path is None else self.read(Path(module.path))
                if found[name]:
                    todo += self._imports(name, found[name], is_package=module.folders is not None)
        real = {above for name, path in found.items() if path for above in _ancestry(name)}
        return {name: path for name, path in found.items() if name in real}

    def _imports(self, name: str, path: str, *, is_package: bool) -> Iterator[str]:
        facts = self.module_facts(path)
        package = name if is_package else name.rpartition(".")[0]
        for imported in facts["imports"]:
            with suppress(ImportError):  # a relative import that leads out of the package fails when it runs
                yield importlib.util.resolve_name(imported, package)
        if is_package:
            yield from (f"{name}.{export}" for export in facts["exports"])

    def digests(self, modules: Mapping[str, str]) -> list[str]:
        """Digests of modules by name, wherever their files are."""
        named = sorted((name, path) for name, path in modules.items() if path)
        return [f"{name} {self.module_facts(path)['digest']}" for name, path in named]


def _ancestry(name: str) -> Iterator[str]:
    """Give `a`, `a.b` and `a.b.c` for `a.b.c`."""
    parts = name.split(".")
    return (".".join(parts[: end + 1]) for end in range(len(parts)))


def _task_facts(trees: Sequence[ast.Module]) -> dict[str, Any]:
    """Everything that follows from psy-conf.py and the task file alone, as JSON values."""
    statements = [statement for tree in trees for statement in tree.body]
    slices = slice_statements(statements)
    said = {index: digest(statements[index]) for index in slices.code | slices.space}
    definitions, start = [], 0
    for tree in trees:
        inside = range(start, start := start + len(tree.body))
        definitions.append(_define((slices.bound[i], said[i]) for i in inside if i in slices.code))
    facts: dict[str, Any] = {"definitions": definitions, "path": path_edits(statements)}
    for part, kept in (("code", sorted(slices.code)), ("space", sorted(slices.space))):
        facts[part] = _mix(said[index] for index in kept)
        facts[f"{part}_imports"] = imported_names(statements[index] for index in kept)
    return facts


def _module_facts(tree: ast.Module) -> dict[str, Any]:
    """Everything that follows from a local module alone, as JSON values."""
    statements = [statement for statement in tree.body if not is_text(statement)]
    said = [digest(statement) for statement in statements]
    bound = [
        sorted({name for name, kind in bound_names(scopes_of(statement)[0].own) if kind != "module"})
        for statement in statements
    ]
    return {
        "digest": _mix(said),
        "definitions": _define(zip(bound, said)),
        "imports": imported_names([tree]),
        "exports": exported_names(tree),
    }


def _define(statements: Iterable[tuple[Sequence[str], str]]) -> dict[str, str]:
    """Digest each definition of a file from the statements that bind it; what binds nothing goes together."""
    parts: dict[str, list[str]] = {}
    for names, said in statements:
        for name in names or [_REST]:
            parts.setdefault(name, []).append(said)
    return {name: _mix(part) for name, part in parts.items()}


# -- keeping


def write_zip(source: Source, path: Path) -> None:
    """Write captured sources to a file; equal sources give equal bytes.

    Raises
    ------
    OSError
        If it can't be written; what was there is untouched then.
    """
    names = sorted(source.files)
    meta = {name: value for name, value in _fields(source) if name != "files"}
    meta |= {"format": _ZIP_FORMAT, "files": names}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(_entry("meta.json"), json.dumps(meta, sort_keys=True, indent=1))
        for number, name in enumerate(names):
            archive.writestr(_entry(str(number)), source.files[name])
    write_atomic(path, buffer.getvalue())


def read_zip(path: Path) -> Source:
    """Read captured sources back.

    Raises
    ------
    FormatError
        If the file is damaged, or of a newer psyrun.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            meta = json.loads(archive.read("meta.json"))
            version = meta.pop("format")
            if version == _ZIP_FORMAT:
                files = {name: archive.read(str(number)) for number, name in enumerate(meta.pop("files"))}
                return Source(**meta, files=files)
    except OSError:
        raise
    except Exception as error:  # Damaged archives raise anything.
        raise FormatError(f"{path}: damaged ({error}); run psy run again, it is written anew") from error
    raise NewerFormatError(f"{path}: written by a newer psyrun (format {version}); upgrade psyrun")


def _fields(source: Source) -> Iterator[tuple[str, Any]]:
    return ((each.name, getattr(source, each.name)) for each in fields(source))


def _entry(name: str) -> zipfile.ZipInfo:
    """Make an entry without time and host: stored, since compressors differ in their bytes."""
    entry = zipfile.ZipInfo(name)  # dated 1980
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    return entry
