"""``python executorlib_map.py ROWS FILE``: workers that stay, and a future for each of 16 chunks."""

import os
import sys
from itertools import chain

from executorlib import SingleNodeExecutor

from grid import CHUNKS, evaluate_chunk, save

if __name__ == "__main__":
    os.environ["PYTHONPATH"] = sys.path[0]  # so that workers find the grid
    n = int(sys.argv[1])
    with SingleNodeExecutor(max_workers=os.cpu_count(), block_allocation=True) as executor:
        found = [executor.submit(evaluate_chunk, n, chunk) for chunk in range(CHUNKS)]
        results = list(chain.from_iterable(each.result() for each in found))
    save(sys.argv[2], n, results)
