"""The place where rows are evaluated: host, machine, Python, the packages that are loaded, commit."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


_SITE = re.compile(r".*/(?:site|dist)-packages/")


class Place:
    """The place of this process, told anew when packages were loaded.

    Parameters
    ----------
    known
        What is known without looking: commit and cleanliness of the work tree, when the worker began (seconds
        since 1970).
    """

    def __init__(self, known: Mapping[str, Any]) -> None:
        self._known = dict(known)
        self._modules = self._generators = 0
        self._packages: dict[str, str] = {}

    def look(self, generators: Sequence[str] = ()) -> bytes | None:
        """Return the place as JSON where it changed since the last look, else None.

        Parameters
        ----------
        generators
            Generators that outlive a row, and that rows drew from, as far as that was noticed.
        """
        if (len(sys.modules), len(generators)) == (self._modules, self._generators):
            return None
        first, more = not self._modules, len(generators) > self._generators
        self._modules, self._generators = len(sys.modules), len(generators)
        packages = dict(_loaded_packages())
        if packages == self._packages and not first and not more:
            return None
        self._packages = packages
        known = {**self._known, "generators": list(generators)} if generators else self._known
        return encode_place(known, packages)


def encode_place(known: Mapping[str, Any], packages: Mapping[str, str]) -> bytes:
    """Return the place of this process as JSON."""
    system = os.uname()
    place = {
        "host": system.nodename,
        "machine": system.machine,
        "python": ".".join(map(str, sys.version_info[:3])),
        "packages": packages,
    }
    return json.dumps({**known, **place}, sort_keys=True).encode()


def _loaded_packages() -> Iterator[tuple[str, str]]:
    """Yield name and version of the installed packages that are loaded, as far as these are known."""
    folders: dict[str, dict[str, str]] = {}
    for name, module in list(sys.modules.items()):
        if "." in name or name in sys.stdlib_module_names or module is None:
            continue
        values = vars(module) if hasattr(module, "__dict__") else {}
        version, path = values.get("__version__"), values.get("__file__")
        if not isinstance(version, str) and isinstance(path, str) and (found := _SITE.match(path)):
            if found[0] not in folders:
                folders[found[0]] = _installed_versions(found[0])
            version = folders[found[0]].get(_normalise(name))
        if isinstance(version, str):
            yield name, version


def _installed_versions(folder: str) -> dict[str, str]:
    """Return name -> version of the packages in a folder, from the names of their .dist-info folders."""
    found = {}
    with suppress(OSError):
        for entry in os.listdir(folder):  # noqa: PTH208 - names only
            if entry.endswith(".dist-info"):
                name, _, version = entry.removesuffix(".dist-info").partition("-")
                found[_normalise(name)] = version
    return found


def _normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()
