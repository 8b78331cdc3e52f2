"""Wherever a module of the project lies, and however it is imported, an edit of it evaluates again."""

import os

import pytest

TASK = """\
from counting import seen
from psyrun import Param

import beside
import installed.model
from package import inner

pspace = Param(x=[1])
pool_size = 1


def execute(x):
    seen(x)
    from late import value

    sources = beside.value(), installed.model.value(), inner.value(), value(), CONSTANT
    return {"y": "".join(map(str, sources))}
"""
FILES = {
    "psy-tasks/task_t.py": TASK,
    "psy-tasks/psy-conf.py": "CONSTANT = 0\n",
    "psy-tasks/beside.py": "import circle\n\ndef value():\n    return circle.VALUE\n",
    "psy-tasks/circle.py": "import beside\n\nVALUE = 0\n",
    "psy-tasks/late.py": "def value():\n    return 0\n",
    "psy-tasks/package/__init__.py": "",
    "psy-tasks/package/inner/__init__.py": "def value():\n    from ..outer import VALUE\n    return VALUE\n",
    "psy-tasks/package/outer.py": "from .deep.deeper import VALUE\n",
    "psy-tasks/package/deep/deeper.py": "VALUE = 0\n",
    "src/installed/__init__.py": "",
    "src/installed/model.py": "from . import part\n\ndef value():\n    return part.VALUE\n",
    "src/installed/part.py": "VALUE = 0\n",
}
EDITS = {  # file -> what becomes of the text, and of the five values
    "psy-tasks/circle.py": ("VALUE = 0", "VALUE = 1", "10000"),
    "src/installed/part.py": ("VALUE = 0", "VALUE = 1", "11000"),
    "psy-tasks/package/deep/deeper.py": ("VALUE = 0", "VALUE = 1", "11100"),
    "psy-tasks/late.py": ("return 0", "return 1", "11110"),
    "psy-tasks/psy-conf.py": ("CONSTANT = 0", "CONSTANT = 1", "11111"),
}


@pytest.fixture
def finished(project):
    """A project whose folder src is installed as `pip -e` does it: a .pth file names it."""
    elsewhere = project.root.parent / "elsewhere"
    site = elsewhere / "site"
    site.mkdir()
    (site / "installed.pth").write_text(f"{project.root / 'src'}\n")
    (elsewhere / "sitecustomize.py").write_text(f"import site\nsite.addsitedir({str(site)!r})\n")
    for name, text in FILES.items():
        project.write(name, text)
    assert project.count("run") == 1
    assert project.result("t") == {"x": [1], "y": ["00000"]}
    return project


def edit_unnoticed(project, name, old, new):
    """Edit a file such that its size and its times stay."""
    path = project.root / name
    before = path.stat()
    project.edit(name, old, new)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def test_edit_of_a_module_evaluates_again_wherever_it_lies(finished):
    counts, values = {}, {}
    for name, (old, new, _) in EDITS.items():
        edit_unnoticed(finished, name, old, new)
        counts[name] = finished.count("run")
        values[name] = finished.result("t")["y"]
    assert counts == dict.fromkeys(EDITS, 1)
    assert values == {name: [value] for name, (*_, value) in EDITS.items()}
    for name, (old, new, _) in EDITS.items():
        edit_unnoticed(finished, name, new, old)
    assert finished.count("run") == 0
    assert finished.result("t")["y"] == ["00000"]


def test_comments_and_times_of_modules_evaluate_nothing(finished):
    for name, text in FILES.items():
        finished.write(name, f"# A comment.\n{text}\n\n")
    assert finished.count("run") == 0
    for name in FILES:
        (finished.root / name).touch()
    assert finished.count("run") == 0
    assert finished.status("t")["uptodate"]


def test_data_file_of_equal_size_and_time_counts_by_content(project):
    project.write("data.txt", "1")
    project.task(
        "t",
        """\
        from counting import seen
        from psyrun import Param
        pspace = Param(x=[1, 2])
        pool_size = 1
        file_dep = ["../data.txt"]
        def execute(x):
            seen(x)
            with open("../data.txt") as file:
                return {"y": x * int(file.read())}
        """,
    )
    assert project.count("run") == 2
    edit_unnoticed(project, "data.txt", "1", "2")
    assert project.count("run") == 2
    assert project.result("t")["y"] == [2, 4]
    (project.root / "data.txt").touch()
    assert project.count("run") == 0
