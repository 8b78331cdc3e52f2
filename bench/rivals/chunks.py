"""``python chunks.py ROWS CHUNK``: evaluates one of 16 chunks; ``python chunks.py ROWS FILE``: joins them."""

import sys

import numpy as np

from grid import CHUNKS, evaluate_chunk, save

if __name__ == "__main__":
    n, what = int(sys.argv[1]), sys.argv[2]
    if what.isdigit():
        np.save(f"{what}.npy", evaluate_chunk(n, int(what)))
    else:
        save(what, n, np.concatenate([np.load(f"{chunk}.npy") for chunk in range(CHUNKS)]))
