"""What schedulers can do, by the contracts that their tests subclass and the fixtures that these have.

As a script it prints the table of docs/clusters.md: ``python tests/abilities.py``. That they keep to these
contracts is what the tests show, which would fail otherwise.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from psyrun import testing

# Scheduler -> its tests, and what they run on.
ENGINES = {
    "Local": ("test_local_scheduler.TestLocal", "this machine"),
    "Slurm": ("test_slurm.TestContract", "a real one"),
    "GridEngine": ("test_gridengine.TestContract", "a real one"),
    "Hosts": ("test_hosts.TestContract", "sshd in two networks"),
    "PBS": ("test_pbs.TestContract", "stand-ins"),
    "Sqsub": ("test_sqsub.TestContract", "stand-ins"),
    "Dask": ("test_psyrun_dask.TestDask", "a real one"),
}
# Heading -> the contract that has it tried, or the fixture.
COLUMNS = {
    "arrays": "ArrayContract",
    "at most N at a time": "ThrottleContract",
    "the result by itself": "DependencyContract",
    "warns before a limit": "WarningContract",
    "why jobs ended": "ExplainContract",
    "stuck jobs": "hold",
    "no answer": "unreachable",
    "no more jobs": "full",
    "jobs of others": "foreign",
}


def can(tests: type, ability: str) -> bool:
    """Whether a contract, or the fixture of a contract, is among what tests have of their own."""
    if ability.endswith("Contract"):
        return issubclass(tests, getattr(testing, ability))
    owner = next((base for base in tests.__mro__ if ability in vars(base)), testing.DetachedContract)
    return owner is not testing.DetachedContract


def make_table() -> str:
    """Return a table in Markdown."""
    sys.path.append(str(Path(__file__).parent.parent / "examples" / "dask-scheduler"))
    lines = [["", *COLUMNS, "tried on"], ["---"] * (len(COLUMNS) + 2)]
    for name, (path, system) in ENGINES.items():
        module, _, tests = path.partition(".")
        contract = getattr(importlib.import_module(module), tests)
        cells = ["yes" if can(contract, ability) else "-" for ability in COLUMNS.values()]
        lines.append([f"`{name}`", *cells, system])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    print(make_table())
