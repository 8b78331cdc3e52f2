"""The pages about schedulers: the code of one is an example that is tried, the table of the other is true."""

from __future__ import annotations

import re
from pathlib import Path

import abilities
from psyrun.scheduler import BUILT_IN, create_scheduler

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "dask-scheduler"
PAGE = (ROOT / "docs" / "schedulers.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


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
