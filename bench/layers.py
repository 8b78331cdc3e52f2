"""What each layer costs per row, in one run, beside a bare loop over its function.

Run with ``make bench`` or ``python bench/layers.py [rows]``. Timings on a shared machine are noisy:
compare the columns of one run, not runs.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from psyrun import Param
from psyrun.pspace.keys import row_keys
from psyrun.split.adoption import Adoption, Existing
from psyrun.split.matching import Space, make_plan
from psyrun.store import PickleStore
from psyrun.workdir.frame import reframe
from psyrun.workdir.inputs import pack_inputs
from psyrun.workdir.journal import encode_block, read_blocks
from psyrun.workdir.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

TASK = """\
from psyrun import Param

pspace = Param(x=range({rows}))


def execute(x):
    return {{"y": x * 2.0}}
"""


class Table:
    """Seconds per layer, printed as microseconds per row and as multiples of the bare loop."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.bare = 0.0

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self.bare = self.bare or seconds
        micro = 1e6 * seconds / self.rows
        print(f"{name:46s} {seconds:8.3f} s {micro:8.3f} us/row {seconds / self.bare:8.2f} x bare loop")


def measure_parts(rows: int) -> None:
    table = Table(rows)
    space = Param(x=range(rows))

    def execute(x: int) -> dict[str, float]:
        return {"y": x * 2.0}

    with table.measure("bare loop over execute"):
        values = [execute(x)["y"] for x in range(rows)]
    with table.measure("build the space"):
        columns = space.build()
    with table.measure("identity of rows"):
        row_keys(columns)
    blank = Plan(
        scheme=1,
        code="c",
        space="s",
        definitions={},
        settings={},
        names=("x",),
        batches=(),
        order="",
        rows=0,
        next_batch=0,
    )
    whole = Space(columns=columns, rows=rows)
    with table.measure("plan, nothing there"):
        make_plan(whole, Adoption(batches=[]), blank, partition=lambda n: [n])
    old = Existing(number=0, size=rows, code="c", columns=columns, done=range(rows))
    with table.measure("plan, everything there"):
        make_plan(whole, Adoption(batches=[old]), blank, partition=lambda n: [n])
    with table.measure("encode inputs"):
        pack_inputs(columns)
    with table.measure("encode a block"):
        tie = bytes(8)
        block = reframe(encode_block(range(rows), {"y": values}), tie=tie, offset=0, where=None)
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder, "0-x.rows")
        with table.measure("write and sync a journal"), journal.open("wb") as file:
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
        with table.measure("read a journal"):
            for found in read_blocks(journal, tie):
                found.columns()
        with table.measure("store the result as pickle"):
            PickleStore().save(Path(folder, "result.pkl"), {**columns, "y": values})


def measure_runs(sizes: list[int]) -> None:
    psy = [sys.executable, "-P", "-m", "psyrun.cli"]
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            tasks = Path(folder, "psy-tasks")
            tasks.mkdir()
            (tasks / "task_t.py").write_text(TASK.format(rows=rows))
            for name in ("psy run, everything to do", "psy run, nothing to do", "psy status"):
                began = time.perf_counter()
                argv = [*psy, "status" if name.endswith("status") else "run"]
                subprocess.run(argv, cwd=folder, check=True, stdout=subprocess.DEVNULL)
                seconds = time.perf_counter() - began
                print(f"{rows:10,} rows  {name:28s} {seconds:8.3f} s {1e6 * seconds / rows:10.3f} us/row")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    measure_parts(count)
    measure_runs([10, 1_000, 100_000, count])
