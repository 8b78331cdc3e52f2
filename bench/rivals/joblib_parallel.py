"""``python joblib_parallel.py ROWS FILE``: a call of joblib for each row, which it joins to batches."""

import sys
from itertools import product

from joblib import Parallel, delayed

from grid import axes, execute, save

if __name__ == "__main__":
    n = int(sys.argv[1])
    found = Parallel(n_jobs=-1)(delayed(execute)(*row) for row in product(*axes(n)))
    save(sys.argv[2], n, [each["result"] for each in found])
