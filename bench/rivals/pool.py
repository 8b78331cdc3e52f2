"""``python pool.py ROWS FILE``: what one writes by hand. It keeps nothing when it is killed."""

import sys
from itertools import product
from multiprocessing import Pool

from grid import axes, execute, save


def call(row):
    return execute(*row)["result"]


if __name__ == "__main__":
    n = int(sys.argv[1])
    with Pool() as pool:
        results = list(pool.imap(call, product(*axes(n)), chunksize=max(1, n // 100)))
    save(sys.argv[2], n, results)
