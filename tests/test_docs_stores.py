"""The page for authors of stores: its example is a store, and its tests find what is wrong with others."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parent.parent / "docs" / "stores.md").read_text()
STORE, TESTS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(ENTRY_POINTS,) = re.findall(r"```toml\n\[project.entry-points.\"(.*?)\"\]\n(.*?)```", PAGE, re.DOTALL)


# What authors may get wrong.
FAULTS = [
    ("isinstance(value, Real | None)", "True"),
    ("column {name!r} holds", "it holds"),
    ("return int(cell)", "return float(cell)"),
    ("if cell else None", "if cell else 0.0"),
    ("[()] * len(names)", "[]"),
    ("writer.writerow(data)", "writer.writerow(sorted(data))"),
    ("except (ValueError, csv.Error)", "except csv.Error"),
    ("index = locate_row(filename, row, len(rows))", "index = row"),
    ("column[index : index + 1]", "column[index]"),
    ("[self.load(path), data]", "[data, self.load(path)]"),
    ("self.check(data)\n", "open(f'{filename}.lock', 'w').close()\n"),
]


def test_example_of_the_page_keeps_to_the_contract_which_finds_what_is_wrong_with_others(tmp_path):
    stores = {"tsv_store": STORE}
    for number, (old, new) in enumerate(FAULTS):
        assert STORE.count(old) == 1, old
        stores[f"fault_{number}"] = STORE.replace(old, new)
    for name, text in stores.items():
        (tmp_path / f"{name}.py").write_text(text)
        (tmp_path / f"test_{name}.py").write_text(TESTS.replace("tsv_store", name))
    argv = [sys.executable, "-m", "pytest", "-q", "--tb=line", "--rootdir", str(tmp_path)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    failed = set(re.findall(r"^FAILED test_(\w+)\.py", done.stdout, re.MULTILINE))
    assert failed == stores.keys() - {"tsv_store"}, done.stdout


def test_extension_of_an_entry_point_chooses_the_store(project):
    elsewhere = project.root.parent / "elsewhere"
    (elsewhere / "tsv_store.py").write_text(STORE)
    information = elsewhere / "tsv_store-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: tsv-store\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[{}]\n{}".format(*ENTRY_POINTS).replace('"', ""))
    project.task(
        "fig1",
        """\
        from psyrun import Param
        pspace = Param(x=[1, 2])
        resultfile = "../results/fig1.tsv"
        def execute(x):
            return {"half": x / 2} if x > 1 else {}
        """,
    )
    project.psy("run")
    project.psy("merge", "psy-work/fig1/out", "partial.tsv")
    for path in ("results/fig1.tsv", "partial.tsv"):
        assert (project.root / path).read_text().splitlines() == ["x\thalf", "1\tnan", "2\t1.0"]
