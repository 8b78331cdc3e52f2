"""Captured sources: local modules, digests, the cache, the zip file, and running what was captured."""

import importlib
import importlib.machinery
import os
import pickle
import shutil
import subprocess
import sys
import traceback
import zipfile
from pathlib import Path

import pytest

from psyrun import disk
from psyrun.disk import write_atomic
from psyrun.errors import FormatError, TaskFileError
from psyrun.source import cache as cache_module
from psyrun.source import capture as source_module
from psyrun.source.archive import read_zip, write_zip
from psyrun.source.cache import SourceCache, digest_data
from psyrun.source.capture import read_source
from psyrun.source.loading import loaded
from psyrun.values import dumps

TASK = """
import helper
N = 3
pspace = [{"x": x} for x in range(N)]
def execute(x):
    return {"y": helper.f(x)}
"""


@pytest.fixture
def project(tmp_path):
    """A project root to write into."""
    root = tmp_path / "project"
    root.mkdir()
    return root


def write(root, **files):
    """Write files into psy-tasks, named like `pkg__sub__mod` and `pkg__init`."""
    paths = {name: name.replace("__", "/").replace("/init", "/__init__") for name in files}
    put(root, {f"psy-tasks/{paths[name]}.py": text for name, text in files.items()})


def put(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        os.utime(path, ns=(10**18, 10**18))  # an edit shows in the bytes alone


def read(root, task="psy-tasks/task_a.py", cache=None):
    return read_source(root, root / task, cache)


def changed(root, files):
    """Which digests differ after an edit."""
    before = read(root)
    put(root, files)
    after = read(root)
    return " ".join(part for part in ("code", "space") if getattr(before, part) != getattr(after, part))


# -- local modules


def test_task_file_alone(project):
    write(project, task_a="pspace = []\ndef execute(): ...")
    source = read(project)
    assert source.task == "psy-tasks/task_a.py"
    assert source.conf is None
    assert list(source.files) == ["psy-tasks/task_a.py"]
    assert source.modules == {}
    assert len(source.code) == len(source.space) == 32


def test_conf_beside_the_task_file_is_captured(project):
    write(project, task_a="pspace = []\ndef execute(): return K")
    put(project, {"psy-tasks/psy-conf.py": "K = 1"})
    assert read(project).conf == "psy-tasks/psy-conf.py"
    assert changed(project, {"psy-tasks/psy-conf.py": "K = 2"}) == "code"


def test_helper_of_a_helper_counts_even_when_size_and_times_stay(project):
    write(
        project,
        task_a=TASK,
        helper="import deeper\ndef f(x): return deeper.g(x)",
        deeper="def g(x): return 1",
    )
    assert read(project).modules == {"deeper": "psy-tasks/deeper.py", "helper": "psy-tasks/helper.py"}
    cache = SourceCache()
    before = read(project, cache=cache)
    write(project, deeper="def g(x): return 2")
    after = read(project, cache=cache)
    assert before.code != after.code
    assert before.space == after.space


def test_comment_in_a_helper_changes_nothing(project):
    write(project, task_a=TASK, helper="def f(x): return x")
    edit = '"""Doc."""\n# comment\ndef f(x):\n    """Doc."""\n    return x'
    assert changed(project, {"psy-tasks/helper.py": edit}) == ""


def test_modules_import_each_other_in_a_circle(project):
    write(project, task_a="import a", a="import b", b="import a")
    assert set(read(project).modules) == {"a", "b"}


def test_imports_inside_functions_count_where_execute_reaches_the_function(project):
    write(
        project,
        task_a="def execute():\n    import used\ndef other():\n    import unused\npspace = []",
        used="",
        unused="",
    )
    assert set(read(project).modules) == {"unused", "used"}
    assert changed(project, {"psy-tasks/unused.py": "print(open('x'))"}) == ""
    assert changed(project, {"psy-tasks/used.py": "K = 1"}) == "code"


def test_module_that_only_the_space_imports_counts_for_both(project):
    write(project, task_a="def make():\n    import grid\npspace = make()\ndef execute(): ...", grid="")
    assert changed(project, {"psy-tasks/grid.py": "K = 1"}) == "code space"


@pytest.mark.parametrize(
    ("statement", "modules"),
    [
        ("import pkg", {"pkg"}),
        ("import pkg.sub.mod", {"pkg", "pkg.sub", "pkg.sub.mod"}),
        ("from pkg import sub", {"pkg", "pkg.sub"}),
        ("from pkg.sub import mod", {"pkg", "pkg.sub", "pkg.sub.mod"}),
        ("from pkg.sub.mod import name", {"pkg", "pkg.sub", "pkg.sub.mod"}),
        ("from pkg import name", {"pkg"}),
        (
            "import pkg.relative",
            {"pkg", "pkg.relative", "pkg.sibling", "pkg.sub", "pkg.sub.mod", "pkg.sub.up"},
        ),
        ("import pkg.sub.up", {"pkg", "pkg.sub", "pkg.sub.up", "pkg.sibling"}),
        ("import importlib\nm = importlib.import_module('pkg.sibling')", {"pkg", "pkg.sibling"}),
        ("import pkg.missing", {"pkg"}),
        ("import nowhere", set()),
        ("import os, numpy, json", set()),
        ("import ns.part", {"ns", "ns.part"}),
        ("import ns.deep.part", {"ns", "ns.deep", "ns.deep.part"}),
        ("from ns.deep import part", {"ns", "ns.deep", "ns.deep.part"}),
        ("import ns", set()),
        ("import psyrun", set()),
        ("import extension", set()),
        ("import task_a", set()),
    ],
)
def test_packages_are_followed(project, statement, modules):
    write(
        project,
        task_a=f"{statement}\npspace = []\ndef execute(): ...",
        pkg__init="",
        pkg__sibling="",
        pkg__relative="from . import sibling\nfrom .sub import mod\nfrom .sub.up import x\nfrom ... import y",
        pkg__sub__init="",
        pkg__sub__mod="",
        pkg__sub__up="from .. import sibling",
        ns__part="",
        ns__deep__part="",
        psyrun="",
    )
    put(project, {f"psy-tasks/extension{importlib.machinery.EXTENSION_SUFFIXES[0]}": b"\x7fELF"})
    assert set(read(project).modules) == modules


def test_namespace_packages_have_no_file(project):
    write(project, task_a="import ns.part", ns__part="")
    assert read(project).modules == {"ns": "", "ns.part": "psy-tasks/ns/part.py"}


def test_modules_come_from_the_task_folder_then_sys_path_then_the_root(project, monkeypatch):
    write(project, task_a="import near, middle, far", near="")
    put(project, {f"src/{name}.py": "" for name in ("near", "middle")})
    put(project, {f"{name}.py": "" for name in ("near", "middle", "far")})
    monkeypatch.syspath_prepend(project / "src")
    modules = read(project).modules
    assert modules == {"far": "far.py", "middle": "src/middle.py", "near": "psy-tasks/near.py"}


@pytest.mark.parametrize(
    "edit",
    [
        "sys.path.insert(0, '../lib')",
        "sys.path.append('../lib')",
        "sys.path += ['../lib']",
        "sys.path.extend(['../lib'])",
        "sys.path.append(os.path.join(os.path.dirname(__file__), '..', 'lib'))",
        "sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, 'lib'))",
        "sys.path.append(os.path.abspath('../lib'))",
        "sys.path.append(os.getcwd() + '/../lib')",
        "HERE = Path(__file__).resolve().parent\nsys.path.append(str(HERE.parent / 'lib'))",
        "sys.path.append(str(pathlib.Path(__file__).parents[1].joinpath('lib')))",
        "LIB = '../lib'\nif LIB not in sys.path:\n    sys.path.insert(1, LIB)",
    ],
)
def test_folders_that_the_task_file_adds_to_sys_path_are_searched(project, edit):
    put(project, {"lib/helper.py": "def f(x): return x", "helper/data.txt": ""})
    write(project, task_a=f"import os, pathlib, sys\nfrom pathlib import Path\n{edit}\n{TASK}")
    source = read(project)
    assert source.modules == {"helper": "lib/helper.py"}
    assert str(project) not in repr(source)
    with loaded(source, project) as module:
        assert module.execute(2) == {"y": 2}


@pytest.mark.parametrize("edit", ["undefined()", "open('is made later')"])
def test_file_that_can_not_be_loaded_yet_is_searched_for_imports(project, edit):
    put(project, {"lib/helper.py": ""})
    write(project, task_a=f"{edit}\nimport sys, helper, other", other="")
    assert read(project).modules == {"other": "psy-tasks/other.py"}


def test_editable_install_through_a_finder_is_local(project, monkeypatch):
    put(project, {"lib/edited/__init__.py": "", "lib/edited/part.py": ""})
    write(project, task_a="import edited.part")

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "edited":
                return importlib.util.spec_from_file_location(name, project / "lib/edited/__init__.py")
            return None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert set(read(project).modules) == {"edited", "edited.part"}


@pytest.mark.parametrize("mark", [".git/HEAD", "pyproject.toml"])
def test_project_reaches_up_to_the_folder_with_a_mark(project, tmp_path, mark):
    put(tmp_path, {mark: "", "lib/above.py": "K = 1"})
    write(
        project,
        task_a="import sys\nsys.path.append('../../lib')\nimport above\ndef execute(): return above.K",
    )
    source = read(project)
    assert source.modules == {"above": "../lib/above.py"}
    put(tmp_path, {"lib/above.py": "K = 2"})
    assert read(project).code != source.code
    with loaded(source, project) as module:
        assert module.execute() == 1


def test_editable_install_elsewhere_is_local_and_named_by_module(project, tmp_path, monkeypatch):
    url = f'{{"url": "file://{tmp_path}/my%20checkout", "dir_info": {{"editable": true}}}}'
    put(tmp_path, {"site/edited.dist-info/direct_url.json": url})
    put(tmp_path, {"my checkout/src/edited/__init__.py": "", "my checkout/src/edited/part.py": "K = 1"})
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "my checkout/src")
    write(project, task_a="from edited import part\ndef execute(): return part.K")
    cache = SourceCache()
    source = read(project, cache=cache)
    assert source.modules == {"edited": "@edited/__init__.py", "edited.part": "@edited/part.py"}
    assert source.paths == ["psy-tasks/task_a.py"]
    assert read(project, cache=cache) == source
    put(tmp_path, {"my checkout/src/edited/part.py": "K = 2"})
    assert read(project, cache=cache).code != source.code
    with loaded(source, project) as module:
        assert module.execute() == 1
        assert module.part.__file__ == str(tmp_path / "my checkout/src/edited/part.py")


@pytest.mark.parametrize("mark", ["pyvenv.cfg", "conda-meta/history"])
def test_environments_below_the_root_are_not_local(project, monkeypatch, mark):
    put(project, {f"env/{mark}": "", "env/lib/installed.py": "", "other/site-packages/packaged.py": ""})
    write(project, task_a="import installed, packaged")
    monkeypatch.syspath_prepend(project / "env/lib")
    monkeypatch.syspath_prepend(project / "other/site-packages")
    assert read(project).modules == {}


def test_project_inside_of_an_environment_is_local(project, tmp_path):
    put(tmp_path, {"pyvenv.cfg": ""})
    put(project, {"pyvenv.cfg": ""})
    write(project, task_a="import helper", helper="")
    assert set(read(project).modules) == {"helper"}


def test_modules_elsewhere_are_not_local(project, tmp_path, monkeypatch):
    put(tmp_path, {"elsewhere/foreign.py": ""})
    write(project, task_a="import foreign")
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    assert read(project).modules == {}


def test_installed_module_of_the_same_name_is_shadowed_by_the_task_folder(project):
    write(
        project,
        task_a="import random\npspace = []\ndef execute(): ...",
        random="def choice(xs): return 'mine'",
    )
    source = read(project)
    assert set(source.modules) == {"random"}
    standard = sys.modules["random"]
    with loaded(source, project) as module:
        assert module.random.choice([1]) == "mine"
    assert sys.modules["random"] is standard


def test_task_folder_outside_of_the_root(project, tmp_path):
    put(tmp_path, {"tasks/task_a.py": TASK, "tasks/helper.py": "def f(x): return x"})
    source = read_source(project, tmp_path / "tasks/task_a.py")
    assert source.task == "../tasks/task_a.py"
    assert source.modules == {"helper": "../tasks/helper.py"}
    with loaded(source, project) as module:
        assert module.execute(3) == {"y": 3}


def test_moved_project_has_the_same_digests(project, tmp_path):
    write(project, task_a=TASK, helper="from pkg import f", pkg__init="def f(x): return x")
    before = read(project)
    shutil.move(project, tmp_path / "moved")
    after = read(tmp_path / "moved")
    assert after == before


def test_root_that_is_a_symbolic_link(project, tmp_path, monkeypatch):
    write(project, task_a="import helper, lib", helper="")
    put(project, {"src/lib.py": ""})
    monkeypatch.syspath_prepend(project / "src")
    link = tmp_path / "link"
    link.symlink_to(project)
    assert read(link) == read(project)


# -- errors


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"psy-tasks/task_a.py": "def f(:"}, "psy-tasks/task_a.py:1: "),
        ({"psy-tasks/task_a.py": "x = 1\n\0"}, "psy-tasks/task_a.py"),
        ({"psy-tasks/task_a.py": b"x = '\xff'"}, "psy-tasks/task_a.py"),
        ({"psy-tasks/task_a.py": "# coding: nonsense"}, "nonsense"),
        ({"psy-tasks/task_a.py": "import bad", "psy-tasks/bad.py": "\n\n(1"}, "psy-tasks/bad.py:3: "),
        ({"psy-tasks/task_a.py": "", "psy-tasks/psy-conf.py": "1 +"}, "psy-tasks/psy-conf.py:1: "),
        ({"psy-tasks/task_a.py/x": ""}, "psy-tasks/task_a.py: not a regular file"),
        ({"psy-tasks/x": ""}, "psy-tasks/task_a.py: No such file"),
    ],
)
def test_file_that_cannot_be_read_is_named(project, files, said):
    put(project, files)
    with pytest.raises(TaskFileError, match=said):
        read(project)


@pytest.mark.parametrize("data", ["\ufeffK = 'é'".encode(), "# coding: latin-1\nK = 'é'".encode("latin-1")])
def test_declared_encodings_are_honoured(project, data):
    put(
        project,
        {"psy-tasks/task_a.py": data + b"\nfrom helper import H", "psy-tasks/helper.py": data + b"\nH = K"},
    )
    with loaded(read(project), project) as module:
        assert module.K == module.H == "é"


# -- definitions


def test_definitions_name_what_changed(project):
    text = "import helper\nK = 1\nN = 2\nxs = []\nxs.append(1)\npspace = [N]\n"
    text += "def execute(): return K, xs, helper.f"
    write(project, task_a=text, helper='"""Doc."""\nimport os\nA, B = 1, 2\ndef f(): return A\nos.nice(A)')
    before = read(project).definitions
    assert set(before) == {
        "psy-tasks/task_a.py: K",
        "psy-tasks/task_a.py: execute",
        "psy-tasks/task_a.py: xs",
        "psy-tasks/task_a.py: top level",
        "psy-tasks/helper.py: A",
        "psy-tasks/helper.py: B",
        "psy-tasks/helper.py: f",
        "psy-tasks/helper.py: top level",
    }
    put(project, {"psy-tasks/task_a.py": text.replace("K = 1", "K = 3").replace("N = 2", "N = 4")})
    put(project, {"psy-tasks/helper.py": "import os\nA, B = 1, 2\ndef f(): return 1, A\nos.nice(A)"})
    after = read(project).definitions
    assert {name for name in before if before[name] != after[name]} == {
        "psy-tasks/task_a.py: K",
        "psy-tasks/helper.py: f",
    }


# -- data files


def test_data_is_digested_by_content(project):
    put(project, {"a.csv": "1,2", "b.csv": "1,2", "c.csv": "1,3"})
    digests = digest_data(project, ["c.csv", "a.csv", "b.csv"], SourceCache())
    assert list(digests) == ["a.csv", "b.csv", "c.csv"]
    assert digests["a.csv"] == digests["b.csv"] != digests["c.csv"]


@pytest.mark.parametrize(("name", "said"), [("missing", "missing does not exist"), (".", "is a folder")])
def test_data_that_is_no_file_is_named(project, name, said):
    with pytest.raises(TaskFileError, match=said):
        digest_data(project, [name], SourceCache())


def test_unchanged_data_is_read_once(project, monkeypatch):
    put(project, {"a.csv": "1,2"})
    cache = SourceCache()
    monkeypatch.setattr(cache_module.time, "time_ns", lambda: 1 << 62)
    first = digest_data(project, ["a.csv"], cache)
    monkeypatch.setattr(cache_module, "digest_file", None)
    assert digest_data(project, ["a.csv"], cache) == first


def test_data_digested_right_after_a_change_is_read_again(project, monkeypatch):
    path = project / "a.csv"
    path.write_text("1,2")
    cache = SourceCache()
    now = path.stat().st_mtime_ns + 1_999_999_999
    monkeypatch.setattr(cache_module.time, "time_ns", lambda: now)
    first = digest_data(project, ["a.csv"], cache)
    monkeypatch.setattr(cache_module, "digest_file", lambda path: ("read again", None))
    assert digest_data(project, ["a.csv"], cache) == {"a.csv": "read again"} != first


@pytest.mark.parametrize("position", range(4), ids=["size", "mtime", "ctime", "inode"])
def test_data_with_another_stamp_is_read_again(project, position, monkeypatch):
    put(project, {"a.csv": "1,2"})
    monkeypatch.setattr(cache_module.time, "time_ns", lambda: 1 << 62)
    cache = SourceCache()
    first = digest_data(project, ["a.csv"], cache)
    cache._data["a.csv"][-1] = "stale"
    cache._data["a.csv"][position] -= 1
    assert digest_data(project, ["a.csv"], cache) == first


# -- the cache


def test_file_runs_and_is_parsed_again_only_after_a_change(project, tmp_path, monkeypatch):
    counting = "with open('../runs', 'a') as file:\n    file.write('x')\n"
    write(project, task_a=counting + TASK, helper="from deeper import g as f", deeper="def g(x): return x")
    cache = SourceCache()
    first = read(project, cache=cache)
    cache.save(tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(source_module, "digest_sources", None)
        assert read(project, cache=SourceCache.load(tmp_path / "cache")) == first
    assert (project / "runs").read_text() == "x"
    write(project, deeper="def g(x): return 2")
    assert read(project, cache=SourceCache.load(tmp_path / "cache")) != first
    assert (project / "runs").read_text() == "xx"


@pytest.mark.parametrize("name", ["helper", "override"])
def test_module_that_appears_in_front_of_another_is_noticed(project, tmp_path, name):
    put(project, {"helper.py": "def f(x): return x"})
    write(project, task_a="try:\n    import override\nexcept ImportError:\n    pass" + TASK)
    cache = SourceCache()
    before = read(project, cache=cache)
    put(project, {f"psy-tasks/{name}.py": "def f(x): return -x"})
    assert read(project, cache=cache).files != before.files


def is_empty(path):
    return SourceCache.load(path).recall("key", dict) == {}


@pytest.mark.parametrize(
    "damage",
    [b"", b"{}", b"other 1\n{}", b"psyrun source cache 1 abc\n{}", b"\xff\xfe", None],
    ids=["empty", "json", "foreign", "sum", "bytes", "cut"],
)
def test_damaged_cache_is_empty(tmp_path, damage):
    path = tmp_path / "cache"
    cache = SourceCache()
    cache.recall("key", lambda: {"a": 1})
    cache.save(path)
    assert not is_empty(path)
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    assert is_empty(path)
    assert is_empty(tmp_path / "missing")
    assert is_empty(tmp_path)


def test_cache_is_written_only_when_it_changed(tmp_path):
    path = tmp_path / "cache"
    cache = SourceCache()
    cache.save(path)
    assert not path.exists()
    cache.recall("key", dict)
    cache.save(path)
    path.unlink()
    cache.save(path)
    assert not path.exists()


def test_cache_that_cannot_be_written_or_expressed_is_no_error(tmp_path):
    cache = SourceCache()
    cache.recall("key", lambda: {"path": tmp_path})
    assert cache.recall("key", dict) == {}
    cache.save(tmp_path / "missing folder" / "cache")


def test_cache_forgets_what_was_used_longest_ago(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_MOST_FACTS", 2)
    cache = SourceCache()
    for key in "abc":
        cache.recall(key, lambda: {"made": "first"})
    cache.recall("a", dict)
    cache.save(tmp_path / "cache")
    kept = SourceCache.load(tmp_path / "cache")
    made = [kept.recall(key, lambda: {"made": "again"})["made"] for key in "abc"]
    assert made == ["first", "again", "first"]


# -- the zip file


def test_zip_file_gives_back_what_was_captured(project, tmp_path):
    write(project, task_a=TASK, helper="def f(x): return 'é'")
    put(project, {"psy-tasks/psy-conf.py": "max_jobs = 3"})
    source = read(project)
    path = tmp_path / "code.zip"
    write_zip(source, path)
    first = path.read_bytes()
    assert read_zip(path) == source
    write_zip(read(project), path)
    assert path.read_bytes() == first
    assert str(project).encode() not in first


def test_damaged_zip_file_is_an_error(project, tmp_path):
    write(project, task_a=TASK, helper="K = 12345")
    path = tmp_path / "code.zip"
    write_zip(read(project), path)
    whole = path.read_bytes()
    for damaged in (
        b"",
        whole[:-30],
        whole.replace(b"12345", b"12346"),
        whole.replace(b'"modules"', b'"modulus"'),
    ):
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"code\.zip"):
            read_zip(path)


def test_zip_file_of_a_newer_format_is_an_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        archive.writestr("meta.json", '{"format": 2}')
    with pytest.raises(FormatError, match="newer"):
        read_zip(tmp_path / "code.zip")


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    write_atomic(tmp_path / "file", b"old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk.os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "file", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


# -- running


def state():
    return list(sys.path), Path.cwd(), list(sys.meta_path), dict(sys.modules)


def test_loaded_runs_in_the_task_folder_and_restores_everything(project):
    write(project, task_a="import os, sys, helper\nwhere = os.getcwd()\npath = list(sys.path)", helper="")
    put(project, {"psy-tasks/psy-conf.py": "conf = __file__"})
    source = read(project)
    before = state()
    with loaded(source, project) as module:
        assert module.where == str(project / "psy-tasks")
        assert module.path[0] == str(project / "psy-tasks")
        assert module.path[-1] == str(project)
        assert module.__name__ == "task_a"
        assert module.__file__ == str(project / "psy-tasks/task_a.py")
        assert module.conf == str(project / "psy-tasks/psy-conf.py")
        assert module.helper.__file__ == str(project / "psy-tasks/helper.py")
        assert sys.modules["task_a"] is module
    assert state() == before


def test_state_is_restored_when_the_file_raises(project):
    write(project, task_a="import sys, helper\nsys.path.append('x')\n1 / 0", helper="")
    source = read(project)
    before = state()
    said = r"psy-tasks/task_a.py:3: ZeroDivisionError: division by zero"
    with pytest.raises(TaskFileError, match=said), loaded(source, project):
        pass
    assert state() == before


def test_planned_text_runs_although_the_disk_changed(project):
    text = "import helper, pkg.part\nK = 1\ndef execute():\n    import later\n    return later.K"
    package = {"pkg__init": "", "pkg__part": "from .deep import K", "pkg__deep": "K = 1"}
    write(project, task_a=text, helper="K = 1", later="K = 1", **package)
    source = read(project)
    write(project, task_a="K = 2", helper="K = 2")
    (project / "psy-tasks/later.py").unlink()
    shutil.rmtree(project / "psy-tasks/pkg")
    with loaded(source, project) as module:
        assert module.K == module.helper.K == module.pkg.part.K == module.execute() == 1
    assert not list(project.rglob("__pycache__"))


def test_namespace_package_runs_although_its_folder_is_gone(project):
    write(
        project,
        task_a="import ns.deep.part\nfrom ns.deep import other",
        ns__deep__part="K = 1",
        ns__deep__other="",
    )
    source = read(project)
    shutil.rmtree(project / "psy-tasks/ns")
    with loaded(source, project) as module:
        assert module.ns.deep.part.K == 1


def test_stale_pyc_is_not_read(project):
    write(project, task_a="import helper", helper="K = 1")
    subprocess.run([sys.executable, "-m", "compileall", "-q", project / "psy-tasks"], check=True)
    write(project, helper="K = 2")
    with loaded(read(project), project) as module:
        assert module.helper.K == 2


def test_modules_of_another_project_are_set_aside(project, tmp_path):
    other = tmp_path / "other"
    write(
        project,
        task_a="from pkg import part\nimport ns.part",
        pkg__init="",
        pkg__part="K = 1",
        ns__part="K = 1",
    )
    write(
        other,
        task_a="from pkg import part\nimport ns.part",
        pkg__init="",
        pkg__part="K = 2",
        ns__part="K = 2",
    )
    with loaded(read(other), other) as outer:
        sources = read(project)
        with loaded(sources, project) as inner:
            assert (inner.part.K, inner.ns.part.K, outer.part.K) == (1, 1, 2)
        assert sys.modules["pkg.part"].K == sys.modules["ns.part"].K == 2
        assert sys.modules["task_a"] is outer


def test_tracebacks_show_the_planned_lines(project):
    write(
        project,
        task_a="from helper import f\nexecute = f",
        helper="def f():\n    raise ValueError  # planned",
    )
    source = read(project)
    write(project, helper="# something\n# else")
    with loaded(source, project) as module:
        try:
            module.execute()
        except ValueError:
            shown = traceback.format_exc()
    assert "raise ValueError  # planned" in shown


def test_source_of_planned_functions_can_be_inspected(project):
    import inspect

    write(project, task_a="import helper\ndef execute():\n    return 1", helper="def f(): return 'planned'")
    source = read(project)
    write(project, helper="\n\n", task_a="")
    with loaded(source, project) as module:
        assert "planned" in inspect.getsource(module.helper.f)
        assert "return 1" in inspect.getsource(module.execute)


def test_data_of_a_package_is_read_from_disk(project):
    write(project, task_a="import pkg\nfrom importlib.resources import files", pkg__init="")
    put(project, {"psy-tasks/pkg/table.txt": "data"})
    with loaded(read(project), project) as module:
        assert module.files("pkg").joinpath("table.txt").read_text() == "data"


def test_classes_of_the_task_file_pickle_by_reference(project):
    write(project, task_a="class Model:\n    k = 1\npspace = [Model()]\ndef execute(): ...")
    source = read(project)
    with loaded(source, project) as module:
        pickled = pickle.dumps(module.pspace)
    with loaded(source, project) as module:
        assert pickle.loads(pickled)[0].k == 1


def test_task_file_with_a_dot_in_its_name_pickles_by_reference(project):
    put(project, {"psy-tasks/task_a.v2.py": "class Model: ..."})
    with loaded(read(project, "psy-tasks/task_a.v2.py"), project) as module:
        assert type(pickle.loads(pickle.dumps(module.Model()))) is module.Model


def test_whole_file_runs_as_an_import_would_run_it(project):
    text = (
        '"""Doc."""\nimport sys\nseen = __name__, __doc__, __file__, sys.modules[__name__].seen0\nMORE = 1\n'
    )
    put(project, {"psy-tasks/psy-conf.py": "seen0 = __file__"})
    write(project, task_a=text)
    with loaded(read(project), project) as module:
        assert module.seen[:2] == ("task_a", "Doc.")
        assert [Path(path).name for path in module.seen[2:]] == ["task_a.py", "psy-conf.py"]
        assert module.MORE == 1


def test_local_modules_of_standard_names_do_not_break_psyrun(project):
    write(project, task_a="import queue\nK = queue.K", queue="K = 1", types="K = 2", traceback="1 / 0")
    with loaded(read(project), project) as module:
        assert module.K == 1
        assert dumps(lambda: 1)
    import queue

    assert queue.Queue


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\nimport sys\nsys.exit('enough')", "psy-tasks/task_a.py:3: SystemExit: enough"),
        ("import helper", "psy-tasks/helper.py:2: KeyError: 'k'"),
        ("import nowhere", "psy-tasks/task_a.py:1: ModuleNotFoundError"),
        ("x = 1\nreturn x", "psy-tasks/task_a.py:2: SyntaxError"),
    ],
)
def test_exception_of_the_file_is_a_task_file_error_with_its_cause(project, text, said):
    write(project, task_a=text, helper="\n{}['k']")
    with pytest.raises(TaskFileError, match=said) as caught, loaded(read(project), project):
        pass
    assert caught.value.__cause__ is not None


def test_keyboard_interrupt_passes(project):
    write(project, task_a="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt), loaded(read(project), project):
        pass


def test_exceptions_of_the_caller_pass(project):
    write(project, task_a="")
    with pytest.raises(ZeroDivisionError), loaded(read(project), project):
        1 / 0  # noqa: B018


def test_missing_task_folder_is_named(project, tmp_path):
    write(project, task_a="")
    source = read(project)
    with pytest.raises(TaskFileError, match="psy-tasks: No such file"), loaded(source, tmp_path / "nowhere"):
        pass


def test_importing_the_module_is_light():
    code = "import sys, psyrun.source.capture; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "joblib", "click", "doit", "rich", "cloudpickle"} & set(answer.stdout.split())
