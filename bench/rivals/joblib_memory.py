"""``python joblib_memory.py ROWS FILE``: as joblib_parallel.py, and each row is kept in a file of its own."""

import sys
from itertools import product

from joblib import Memory, Parallel, delayed

from grid import axes, execute, save

if __name__ == "__main__":
    n = int(sys.argv[1])
    kept = Memory("kept", verbose=0).cache(execute)
    found = Parallel(n_jobs=-1)(delayed(kept)(*row) for row in product(*axes(n)))
    save(sys.argv[2], n, [each["result"] for each in found])
