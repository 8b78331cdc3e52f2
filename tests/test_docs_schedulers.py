"""The pages about schedulers: the code of one is tried; the table of the other is true."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import abilities
from clusters import mill
from psyrun.scheduler import BUILT_IN, create_scheduler

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "dask-scheduler"
PAGE = (ROOT / "docs" / "schedulers.md").read_text()
CODE, COMMANDS = (
    re.findall(r"```python\n(.*?)```", part, re.DOTALL)
    for part in PAGE.split("\n## Systems that commands drive\n")
)

for code in COMMANDS:
    exec(compile(code, "docs/schedulers.md", "exec"))  # the class Mill, and TestMill


@pytest.fixture
def home(tmp_path, monkeypatch, wait_until):
    """A mill that runs four elements at a time; what it still runs ends with the test."""
    commands, home = tmp_path / "bin", tmp_path / "the mill"
    commands.mkdir()
    home.mkdir()
    mill.install(commands)
    with monkeypatch.context() as context:
        context.setenv("MILL_HOME", str(home))
        context.setenv("MILL_SLOTS", "4")
        context.setenv("PATH", f"{commands}:{os.environ['PATH']}")
        yield home
    jobs = [path.parent for path in home.glob("*/about")]
    for job in jobs:
        (job / "deleted").touch()
    wait_until(lambda: not any(map(mill.is_there, jobs)))


TestMill = pytest.mark.usefixtures("home")(TestMill)  # noqa: F821 - the page defines it


def squeeze(text):
    return "".join(line + "\n" for line in text.splitlines() if line.strip())


def test_code_of_the_page_is_all_of_the_example():
    example, tests = ((EXAMPLE / name).read_text() for name in ("psyrun_dask.py", "test_psyrun_dask.py"))
    *shown, use, tried = CODE
    assert squeeze("".join(shown)) == squeeze(example.partition('"""\n')[2])
    assert squeeze(tried) == squeeze(tests)
    assert "scheduler = Dask()" in use


def test_package_of_the_page_is_that_of_the_example():
    (package,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert package.strip() in (EXAMPLE / "pyproject.toml").read_text()
    assert type(create_scheduler("Dask")).__name__ == "Dask"


def test_table_is_made_from_the_contracts():
    assert abilities.make_table() in (ROOT / "docs" / "clusters.md").read_text()
    assert set(BUILT_IN) - {"ImmediateRun"} <= set(abilities.ENGINES)
