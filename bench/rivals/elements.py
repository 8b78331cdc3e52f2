"""``python elements.py ROWS ELEMENTS FILE MODULES``: a job array by hand, and what joins its results."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from grid import save

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(n: int, elements: int, filename: str, modules: Sequence[str]) -> None:
    """Submit, wait, and join."""
    here = Path(__file__).parent
    for name in ("out", "log"):
        Path(name).mkdir()
    command = f"{sys.executable} {here / 'element.py'} {n} {elements} {' '.join(modules)}"
    options = [f"--array=0-{elements - 1}", "--output=log/%a.txt"]
    subprocess.run(["sbatch", "--quiet", *options, "--wrap", command], check=True)
    while sum(path.suffix == ".pkl" for path in Path("out").iterdir()) < elements:
        time.sleep(0.1)
    results = [
        each
        for element in range(elements)
        for each in pickle.loads(Path("out", f"{element}.pkl").read_bytes())
    ]
    save(filename, n, results)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
