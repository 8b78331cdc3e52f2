"""What the project shows to its users does what it says."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import psyrun

pytestmark = pytest.mark.started
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CONSOLES = re.findall(r"^```console\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def block_that_starts_with(start):
    (block,) = [block for block in BLOCKS if block.startswith(start)]
    return block


# ---------------------------------------------------------------------- docstrings


def modules():
    found = pkgutil.walk_packages(psyrun.__path__, "psyrun.")
    return ["psyrun", *(module.name for module in found)]


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_run(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = importlib.import_module(name)
        result = doctest.testmod(module, optionflags=doctest.FAIL_FAST)
    assert result.failed == 0
    assert module.__doc__
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------- README


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0])
def test_python_in_the_readme_is_valid(block):
    compile(block, "README.md", "exec")


def test_spaces_of_the_readme_have_the_sizes_that_it_claims(monkeypatch):
    names = {"__name__": "readme"}
    block = block_that_starts_with("from psyrun import Param, map_pspace")
    # A function that is read from a text, not from a file, can't be found by other processes.
    monkeypatch.setattr(psyrun, "map_pspace_parallel", psyrun.map_pspace, raising=False)
    exec(block, names)
    claims = dict(re.findall(r"^(\w+) = .*# (\d+) assignments", block, flags=re.MULTILINE))
    assert claims.keys() == {"grid", "pairs", "space"}
    for name, size in claims.items():
        assert len(names[name]) == int(size), name
    assert 2 not in names["space"].build()["a"]
    assert list(names["table"]) == ["a", "b", "value"]
    assert names["table"]["value"] == [a * b for a, b in zip(names["table"]["a"], names["table"]["b"])]


def test_spaces_of_the_readme_are_mapped_in_parallel(tmp_path):
    program = tmp_path / "program.py"
    block = block_that_starts_with("from psyrun import Param, map_pspace")
    program.write_text(block + "\nassert table == map_pspace(objective, space)\n")
    subprocess.run([sys.executable, "-W", "error", program], check=True, timeout=60, cwd=tmp_path)


def test_task_of_the_readme_is_the_one_that_is_shipped():
    shipped = (ROOT / "psy-tasks/task_example.py").read_text().partition('"""\n\n')[2]
    shown = block_that_starts_with("import numpy as np\nfrom psyrun import Param")
    one, other = ("".join(text.split()) for text in (shown, shipped))
    assert one.replace("(Param", "Param").replace("))def", ")def") == other


def test_settings_of_the_readme_are_those_that_there_are():
    from psyrun.task.settings import SETTINGS

    (table,) = re.findall(r"^\| setting \|.*?\n\n", README, flags=re.MULTILINE | re.DOTALL)
    first = [line.split("|")[1] for line in table.strip().splitlines()[2:]]
    named = {name for cell in first for name in re.findall(r"`(\w+)", cell)}
    assert named == SETTINGS.keys() - {"pspace", "execute"}


# ---------------------------------------------------------------------- projects


def assert_console(project, start, code=0):
    """Type the commands of a block of the README, and compare what they print, less cores and host."""
    (block,) = [block for block in CONSOLES if block.startswith(start)]
    for part in block.split("$ ")[1:]:
        command, _, shown = part.partition("\n")
        said = project.psy(*command.split()[1:], code=None)
        assert (said.returncode, said.stderr) == (code if command == "psy run" else 0, "")
        printed = re.sub(r"\d+ process(es)?", "2 processes", said.stdout)
        assert printed.replace(f" on {os.uname().nodename}\n", " on laptop\n") == shown


def test_session_of_the_readme(project, monkeypatch):
    shutil.copy(ROOT / "psy-tasks/task_example.py", project.root / "psy-tasks")
    assert_console(project, "$ psy run\nexample: 160 rows")
    project.edit("psy-tasks/task_example.py", "10.0, 10.5]", "10.0, 10.5, 20.0]")
    assert_console(project, "$ psy plan\nexample: the parameter space changed")
    monkeypatch.chdir(project.root)
    block, names = block_that_starts_with("import pickle\n"), {"np": np}
    exec(block, names)
    claims = re.findall(r"^(\S.*)  # (.*)$", block, flags=re.MULTILINE)
    assert len(claims) == 3
    for expression, shown in claims:
        assert repr(eval(expression, names)) == repr(eval(shown, names))
    assert len(psyrun.load("example").to_pandas()) == 200
    project.psy("export", "example", "example.npz")
    assert np.load("example.npz")["result"].tolist() == names["table"]["result"]
    table = project.result("example")
    assert table["a"][:3] == [1, 1, 1]
    assert table["result"][:3] == [1.0, 1.5, 10.0]
    assert len(table["result"]) == 200
    assert table["result"] == [a * b + c for a, b, c in zip(table["a"], table["b"], table["c"])]


def test_what_the_readme_shows_when_things_go_wrong(project):
    project.task(
        "sweep",
        """
        import os, time
        from psyrun import Param
        pspace = Param(x=range(20))
        timeout = 2
        def execute(x):
            if x == 3:
                os._exit(137)
            time.sleep(100 if x == 7 else 0)
            return {"y": x}
        """,
    )
    assert_console(project, "$ psy run\nsweep: 20 rows", code=1)


def test_printed_text_is_where_the_readme_says_and_git_ignores_it(project):
    project.task(
        "example",
        """
        from psyrun import Param
        pspace = Param(x=range(3))
        def execute(x):
            print(f"at {x}")
            return {}
        """,
    )
    project.psy("run")
    logs = (project.root / "psy-work/example/log").glob("*.log")
    printed = {line for log in logs for line in log.read_text().splitlines()}
    assert {"at 0", "at 1", "at 2"} <= printed
    assert "at 0" in project.psy("log", "example", "0").stdout
    assert (project.root / "psy-work/.gitignore").read_text() == "*\n"


@pytest.mark.slow
def test_digits_are_swept_and_drawn_by_doit(project):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    example = project.root / "digits"
    shutil.copytree(
        ROOT / "examples/digits", example, ignore=shutil.ignore_patterns("psy-work", "*.png", "__pycache__")
    )
    task = example / "psy-tasks/task_svm.py"
    text = task.read_text()
    smaller = text.replace("np.logspace(-1, 2, 4)", "np.logspace(-1, 2, 2)")
    smaller = smaller.replace("np.logspace(-5, -2, 7)", "np.logspace(-4, -3, 2)").replace(
        "range(2)", "range(1)"
    )
    assert smaller != text
    task.write_text(smaller)
    env = os.environ | {"MPLCONFIGDIR": str(project.root)}

    def doit(*arguments):
        argv = [sys.executable, "-m", "doit", *arguments]
        done = subprocess.run(
            argv, cwd=example, env=env, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    listed = doit("list", "--all")
    assert all(
        f"psy:svm:{step}" in listed or f"svm:{step}" in listed for step in ("split", "process", "merge")
    )
    doit()
    image = (example / "accuracy.png").read_bytes()
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(image) > 5000
    before = (example / "accuracy.png").stat().st_mtime_ns
    assert ".  plot" not in doit()
    assert (example / "accuracy.png").stat().st_mtime_ns == before
    done = subprocess.run(
        [sys.executable, "-P", "-m", "psyrun.cli", "run"],
        cwd=example,
        env=env,
        capture_output=True,
        check=True,
    )
    assert b"up to date, 4 rows" in done.stdout
    table = psyrun.PickleStore().load(example / "psy-work/svm/result.pkl")
    assert set(table) == {"C", "gamma", "seed", "scores", "accuracy"}
    assert np.shape(table["scores"]) == (4, 3)
    assert max(table["accuracy"]) > 0.9
