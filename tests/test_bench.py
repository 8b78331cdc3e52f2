"""The harness of `make bench` works: what needs no rival's package runs here, small and once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"
ROWS = (
    *(
        "run-1e4",
        "run-3",
        "nothing",
        "run-1e6",
        "iterate",
        "build",
        "index",
        "missing",
        "map",
        "map-parallel",
    ),
    *("arrays", "execute-1ms", "heavy-tailed", "status", "merge-npz", "merge-h5", "merge-pickle", "help"),
    *("extend", "inputs"),
)


def measure(*arguments):
    argv = [sys.executable, str(BENCH / "run.py"), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_all_rows_of_the_table_are_measured():
    said = measure("--only", "none such").stderr
    assert said.strip().endswith(f"no such case: none such; there are {', '.join(ROWS)}")


def test_small_cases_run_and_their_results_are_right():
    names = ["run-3", "build", "index", "map", "help"]
    done = measure("--quick", *(word for name in names for word in ("--only", name)))
    assert done.returncode == 0, done.stderr
    for name in names:
        lines = [line for line in done.stdout.splitlines() if line.startswith(f"| {name}: ")]
        assert lines
        assert all(line.endswith(("| small sizes |", "| not measured |")) for line in lines), lines


def test_wrong_results_are_not_measured(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    from harness import Program, measure_rounds

    wrong = Program(name="wrong", argv=("true",), check=("false",))
    with pytest.raises(RuntimeError, match="false exited with 1"):
        list(measure_rounds((wrong,), 1))


@pytest.mark.long
@pytest.mark.xdist_group("slurm")
def test_job_arrays_are_measured_on_a_real_slurm():
    argv = [sys.executable, str(BENCH / "elements.py"), "--repeat=1", "--rows=40", "--elements=2"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.endswith(" small sizes |")]
    assert len(lines) == 6
