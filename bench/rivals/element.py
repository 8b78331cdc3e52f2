"""``python element.py ROWS ELEMENTS MODULES``: an element of a job array by hand."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from itertools import islice, product

from grid import axes, execute


def main(n: int, elements: int) -> None:
    """Evaluate the rows of one element, and write their results."""
    element = int(os.environ["SLURM_ARRAY_TASK_ID"])
    rows = islice(product(*axes(n)), n * element // elements, n * (element + 1) // elements)
    results = [execute(*row)["result"] for row in rows]
    with open(f"out/{element}.new", "wb") as file:  # noqa: PTH123 - as one writes it, and without one more import
        pickle.dump(results, file)
    os.replace(f"out/{element}.new", f"out/{element}.pkl")  # noqa: PTH105


if __name__ == "__main__":
    for module in sys.argv[3:]:
        importlib.import_module(module)
    main(int(sys.argv[1]), int(sys.argv[2]))
