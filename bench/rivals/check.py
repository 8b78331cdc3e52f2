"""``python check.py FILE ROWS``: fails unless a file holds the values of the grid, in its order."""

from __future__ import annotations

import pickle
import sys
from itertools import product
from pathlib import Path

import numpy as np

from grid import axes, execute


def read_table(path: str) -> dict[str, object]:
    """Read a table without psyrun."""
    if path.endswith(".h5"):
        import tables

        with tables.open_file(path) as file:
            return {node.name: node.read() for node in file.walk_nodes("/", "Array")}
    if path.endswith(".npz"):
        return dict(np.load(path))
    table: dict[str, object] = pickle.loads(Path(path).read_bytes())
    return table


def check(path: str, n: int) -> None:
    """Compare all columns with plain Python."""
    table = read_table(path)
    rows = list(product(*axes(n)))
    expected = dict(zip("abc", zip(*rows))) | {"result": [execute(*row)["result"] for row in rows]}
    for name, values in expected.items():
        found = np.asarray(table[name])
        if found.shape != (n,) or not (found == np.asarray(values)).all():
            raise SystemExit(f"{path}: {name} is not what plain Python makes")


if __name__ == "__main__":
    check(sys.argv[1], int(sys.argv[2]))
