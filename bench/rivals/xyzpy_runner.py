"""``python xyzpy_runner.py ROWS FILE``: a labelled array of all combinations."""

import sys

import xyzpy

from grid import axes, execute, save


def call(a, b, c):
    return execute(a, b, c)["result"]


if __name__ == "__main__":
    n = int(sys.argv[1])
    runner = xyzpy.Runner(call, var_names=["result"])
    data = runner.run_combos(dict(zip("abc", axes(n))), parallel=True, verbosity=0)
    save(sys.argv[2], n, data["result"].transpose("a", "b", "c").values.ravel())
