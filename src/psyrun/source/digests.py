"""Digests of task files and of local modules, each from its own text."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from psyrun.source.searchpath import path_edits
from psyrun.source.slices import slice_statements
from psyrun.source.syntax import bound_names, digest, exported_names, imported_names, is_text, scopes_of

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterable, Mapping, Sequence


SCHEME = 1  # changes when equal sources get other digests than before
_OTHER_STATEMENTS = "top level"


def task_facts(trees: Sequence[ast.Module]) -> dict[str, Any]:
    """Return digests, imports and edits of `sys.path` of psy-conf.py and the task file, as JSON values."""
    statements = [statement for tree in trees for statement in tree.body]
    slices = slice_statements(statements)
    digests = {index: digest(statements[index]) for index in slices.code | slices.space}
    definitions, start = [], 0
    for tree in trees:
        inside = range(start, start := start + len(tree.body))
        kept = [(_bound(statements[index]), digests[index]) for index in inside if index in slices.code]
        definitions.append(_digest_definitions(kept))
    facts: dict[str, Any] = {"definitions": definitions, "path": path_edits(statements)}
    for part, indices in (("code", sorted(slices.code)), ("space", sorted(slices.space))):
        facts[part] = mix(digests[index] for index in indices)
        facts[f"{part}_imports"] = imported_names(statements[index] for index in indices)
    return facts


def module_facts(tree: ast.Module) -> dict[str, Any]:
    """Return digests, imports and exports of a local module, as JSON values."""
    statements = [statement for statement in tree.body if not is_text(statement)]
    digests = [digest(statement) for statement in statements]
    return {
        "digest": mix(digests),
        "definitions": _digest_definitions(zip((sorted(set(_bound(each))) for each in statements), digests)),
        "imports": imported_names([tree]),
        "exports": exported_names(tree),
    }


def _bound(statement: ast.stmt) -> list[str]:
    """Return the names that a statement binds, other than modules; twice if as a variable and a function."""
    return sorted(name for name, kind in set(bound_names(scopes_of(statement)[0].own)) if kind != "module")


def _digest_definitions(statements: Iterable[tuple[Sequence[str], str]]) -> dict[str, str]:
    """Digest each definition of a file from bound names and digests of its statements."""
    parts: dict[str, list[str]] = {}
    for names, each in statements:
        for name in names or [_OTHER_STATEMENTS]:
            parts.setdefault(name, []).append(each)
    return {name: mix(part) for name, part in parts.items()}


def digest_with_data(digest: str, data: Mapping[str, str]) -> str:
    """Mix digests of data files into a digest of sources.

    Examples
    --------
    >>> digest_with_data("0" * 32, {}) == "0" * 32
    True
    """
    return mix([digest, json.dumps(sorted(data.items()))]) if data else digest


def mix(parts: Iterable[str]) -> str:
    """Digest a list of digests: 32 hexadecimal characters."""
    return hashlib.sha256("\n".join([f"psyrun {SCHEME}", *parts]).encode()).hexdigest()[:32]
