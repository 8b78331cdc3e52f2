"""Settings: read off the text where that is possible, else from one run of the file, and checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from doit.doit_cmd import DoitMain

from psyrun.cli.commands import cli
from psyrun.errors import TaskFileError
from psyrun.source.cache import SourceCache
from psyrun.source.capture import read_source
from psyrun.store import H5Store
from psyrun.task.outline import COMMANDS, read_outline
from psyrun.task.project import find_task_files, read_outlines
from psyrun.task.settings import SETTINGS, check_text, literal_settings
from psyrun.task.task import open_task

HEAD = "from psyrun import Param\npspace = Param(x=[1, 2])\n\ndef execute(x):\n    return {}\n\n"
COUNTING = "with open('../runs', 'a') as file:\n    file.write('x')\n"


def runs(project):
    """How often the task file was run."""
    path = project.root / "runs"
    return len(path.read_text()) if path.exists() else 0


def outline_of(project, text, name="a", cache=None):
    path = project.task(name, text)
    return read_outline(project.root, path, cache)


def source_of(project, text):
    return read_source(project.root, project.task("a", text))


# ---------------------------------------------------------------------- without running the file


def test_file_that_raises_has_an_outline_where_its_settings_are_literals(project):
    outline = outline_of(
        project,
        """\
        from psyrun.store import H5Store
        name = "another-name"
        workdir = "work"
        file_dep = ["data.csv", "../psy-work/b/result.pkl"]
        exclude_from_result = ("images",)
        store = H5Store(node="/results")
        overwrite_dirty = False
        raise RuntimeError("this file was run")
        """,
    )
    assert outline.name == "another-name"
    assert outline.workdir == "work"
    assert outline.result == "work/another-name/result.h5"
    assert outline.file_dep == ("psy-tasks/data.csv", "psy-work/b/result.pkl")
    assert outline.exclude == ("images",)
    assert outline.overwrite_dirty is False
    with pytest.raises(TaskFileError, match="this file was run"), open_task(outline):
        pass


def test_file_without_settings_has_defaults(project):
    outline = outline_of(project, HEAD + COUNTING)
    assert (outline.name, outline.workdir, outline.result) == ("a", "psy-work", "psy-work/a/result.pkl")
    assert (outline.file_dep, outline.exclude, outline.ext) == ((), (), ".pkl")
    assert outline.overwrite_dirty is True
    assert outline.settings == {
        "exclude": [],
        "file_dep": [],
        "result": "psy-work/a/result.pkl",
        "store": ".pkl",
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("store = PickleStore()", {"store": ".pkl"}),
        ("store = NpzStore", {"store": ".npz"}),
        ("store = psyrun.store.H5Store()", {"store": ".h5"}),
        ("resultfile = None", {"resultfile": None}),
        ("file_dep = []", {"file_dep": []}),
        ("paths = ['a']\nother = [name for name in paths]", {}),
        ("max_jobs = 2 + 2", {}),
        ("def f(name):\n    workdir = name\n    return workdir", {}),
        ("if True:\n    def f(name):\n        workdir = name\n        return workdir", {}),
    ],
)
def test_literals_are_read_off_the_text(project, line, expected):
    assert literal_settings(source_of(project, line + "\n")) == expected


@pytest.mark.parametrize(
    "text",
    [
        "workdir = 'a' + 'b'",
        "workdir = 'a'\nworkdir = 'b'",
        "workdir: str = 'a'",
        "workdir, name = 'a', 'b'",
        "workdir = name = 'a'",
        "file_dep = []\nfile_dep.append('a')",
        "file_dep = []\nfile_dep += ['a']",
        "file_dep = ['a' for _ in range(2)]",
        "for name in ('a', 'b'):\n    pass",
        "if True:\n    name = 'a'",
        "with open('a') as name:\n    pass",
        "import os as name",
        "from os import *",
        "def name():\n    pass",
        "class store:\n    pass",
        "def f():\n    global name\n    name = 'a'",
        "store = make_store()",
        "other = (name := 'a')",
        "other = [name := 'a']",
        "match 1:\n    case name:\n        pass",
        "try:\n    pass\nexcept ValueError as name:\n    pass",
        "if True:\n    async def name(): ...",
        "if True:\n    def f():\n        return file_dep",
        "exec(\"name = 'a'\")",
        "globals()['name'] = 'a'",
    ],
)
def test_settings_that_are_computed_are_not_read_off_the_text(project, text):
    assert literal_settings(source_of(project, text + "\n")) is None


def test_list_that_is_changed_under_another_name_is_as_the_file_leaves_it(project):
    outline = outline_of(project, HEAD + "file_dep = []\npaths = file_dep\npaths.append('data.csv')\n")
    assert outline.file_dep == ("psy-tasks/data.csv",)


def test_text_and_run_of_a_file_say_the_same(project):
    settings = "workdir = 'w'\nfile_dep = ['d']\nexclude_from_result = ['x']\noverwrite_dirty = False\n"
    read = outline_of(project, HEAD + settings + COUNTING)
    ran = outline_of(project, HEAD + settings + COUNTING + "if True:\n    name = 'a'\n")
    for field in ("name", "workdir", "result", "file_dep", "exclude", "ext", "overwrite_dirty", "settings"):
        assert getattr(read, field) == getattr(ran, field)


# ---------------------------------------------------------------------- running the file


COMPUTED = HEAD + COUNTING + "workdir = '-'.join(('my', 'work'))\n"


def test_file_that_did_not_change_is_not_run_again(project):
    cache = SourceCache()
    assert outline_of(project, COMPUTED, cache=cache).workdir == "my-work"
    before = runs(project)
    assert outline_of(project, COMPUTED, cache=cache).workdir == "my-work"
    assert runs(project) == before
    assert outline_of(project, COMPUTED.replace("'my'", "'our'"), cache=cache).workdir == "our-work"
    assert runs(project) > before


def test_file_that_did_not_change_is_not_run_again_by_later_processes(project, tmp_path):
    cache = SourceCache()
    outline_of(project, COMPUTED, cache=cache)
    cache.save(tmp_path / "cache")
    before = runs(project)
    later = outline_of(project, COMPUTED, cache=SourceCache.load(tmp_path / "cache"))
    assert later.workdir == "my-work"
    assert runs(project) == before


def test_settings_follow_the_modules_that_they_come_from(project):
    cache = SourceCache()
    text = HEAD + "from common import workdir\n"
    project.write("psy-tasks/common.py", "workdir = 'one'\n")
    assert outline_of(project, text, cache=cache).workdir == "one"
    project.write("psy-tasks/common.py", "workdir = 'two'\n")
    assert outline_of(project, text, cache=cache).workdir == "two"


def test_computed_settings_may_be_paths(project):
    text = HEAD + "from pathlib import Path\nworkdir = Path('w')\nresultfile = Path('r') / 'x.npz'\n"
    outline = outline_of(project, text)
    assert (outline.workdir, outline.result, outline.ext) == ("w", "psy-tasks/r/x.npz", ".npz")


def test_computed_settings_are_checked(project):
    with pytest.raises(TaskFileError, match=r"task_a\.py: workdir has to be a path, not 3 \(int\)"):
        outline_of(project, HEAD + "workdir = 1 + 2\n")


def test_class_of_a_store_stands_for_an_instance(project):
    outline = outline_of(project, HEAD + "from psyrun.store import H5Store\nstore = H5Store\n")
    assert outline.result == "psy-work/a/result.h5"
    with open_task(outline) as task:
        assert isinstance(task.store, H5Store)


# ---------------------------------------------------------------------- psy-conf.py


def test_conf_gives_defaults_that_a_task_file_overrides(project):
    project.write("psy-tasks/psy-conf.py", "workdir = 'work'\nfile_dep = ['shared.csv']\nmax_jobs = 7\n")
    plain = outline_of(project, HEAD, name="plain")
    own = outline_of(project, HEAD + "workdir = 'own'\nmax_jobs = 3\n", name="own")
    assert (plain.workdir, plain.file_dep) == ("work", ("psy-tasks/shared.csv",))
    assert (own.workdir, own.file_dep) == ("own", ("psy-tasks/shared.csv",))
    with open_task(plain) as first, open_task(own) as second:
        assert (first.max_jobs, second.max_jobs) == (7, 3)


def test_task_file_computes_with_what_conf_says(project):
    project.write("psy-tasks/psy-conf.py", "workdir = 'work'\n")
    assert outline_of(project, HEAD + "workdir = workdir + '/a'\n").workdir == "work/a"


# ---------------------------------------------------------------------- forms of paths


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("work", "work"),
        ("./work", "work"),
        ("work/", "work"),
        ("a/../work", "work"),
        ("a//work", "a/work"),
        ("../beside", "../beside"),
        (".", "."),
        ("with blank/ünicode", "with blank/ünicode"),
        ("/elsewhere/../other", "/other"),
        ("ROOT/work", "work"),
        ("ROOT/../beside", "ROOT/../beside"),
    ],
)
def test_paths_have_one_form(project, written, expected):
    root = str(project.root)
    outline = outline_of(project, HEAD + f"workdir = {written.replace('ROOT', root)!r}\n")
    wanted = str(project.root.parent / "beside") if "ROOT" in expected else expected
    assert outline.workdir == wanted
    assert outline.result == (Path(wanted) / "a/result.pkl").as_posix()
    assert outline.layout.plan == project.root / wanted / "a/plan.json"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("data.csv", "psy-tasks/data.csv"),
        ("./data.csv", "psy-tasks/data.csv"),
        ("../psy-work/b/result.pkl", "psy-work/b/result.pkl"),
        ("../../beside.csv", "../beside.csv"),
        ("/elsewhere/data.csv", "/elsewhere/data.csv"),
    ],
)
def test_data_files_are_relative_to_the_task_file(project, written, expected):
    assert outline_of(project, HEAD + f"file_dep = [{written!r}]\n").file_dep == (expected,)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("a.npz", "psy-tasks/a.npz"),
        ("../results/a.npz", "results/a.npz"),
        ("../../beside/a.npz", "../beside/a.npz"),
        ("/elsewhere/a.npz", "/elsewhere/a.npz"),
    ],
)
def test_result_file_is_relative_to_the_task_file(project, written, expected):
    outline = outline_of(project, HEAD + f"resultfile = {written!r}\n")
    assert (outline.result, outline.ext) == (expected, ".npz")
    assert outline.layout.receipt.name == "a.npz.receipt"


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name", ["a=b", "*", "a*", "-a", ".a", "_a", "a/b", "..", "a b", "a:b", "a\n", "ü", *sorted(COMMANDS)]
)
def test_names_that_could_not_be_addressed_are_refused(project, name):
    with pytest.raises(TaskFileError, match=r"task_a\.py: .* can't be a task's name;"):
        outline_of(project, HEAD + f"name = {name!r}\n")


@pytest.mark.parametrize("name", ["a=b", "-a", "a b", "run", "list"])
def test_file_names_that_could_not_be_addressed_are_refused(project, name):
    with pytest.raises(TaskFileError, match="rename the file, or set `name`"):
        outline_of(project, HEAD, name=name)
    assert outline_of(project, HEAD + "name = 'b'\n", name=name).name == "b"


@pytest.mark.parametrize("name", ["a", "A", "7", "a.b", "a-b", "a_b", "runs", "run2", "task_a"])
def test_plain_names_are_taken(project, name):
    assert outline_of(project, HEAD, name=name).name == name


def test_empty_name_is_the_one_of_the_file(project):
    assert outline_of(project, HEAD + "name = ''\n").name == "a"
    assert outline_of(project, HEAD + "name = None\n").name == "a"


# ---------------------------------------------------------------------- misspelt and wrong


@pytest.mark.parametrize(
    ("written", "meant", "value"),
    [
        ("max_job", "max_jobs", "1"),
        ("maxjobs", "max_jobs", "1"),
        ("min_item", "min_items", "1"),
        ("time_out", "timeout", "1"),
        ("resultfiles", "resultfile", "'r.pkl'"),
        ("exclude_from_results", "exclude_from_result", "['x']"),
        ("schedular", "scheduler", "make()"),
        ("scheduler_arg", "scheduler_args", "{'a': 1}"),
        ("overwrite_dirt", "overwrite_dirty", "True"),
        ("file_deps", "file_dep", "['a']"),
        ("untrackd", "untracked", "['a']"),
        ("state_less", "stateless", "True"),
        ("track_input", "track_inputs", "False"),
        ("setup_", "setup", "None"),
    ],
)
def test_misspelt_setting_is_refused_with_a_suggestion(project, written, meant, value):
    message = rf"psy-tasks/task_a\.py: '{written}' is not a setting; did you mean '{meant}'\?"
    with pytest.raises(TaskFileError, match=message):
        check_text(source_of(project, HEAD + f"{written} = {value}\n"))


def test_misspelt_setting_in_conf_is_refused_there(project):
    project.write("psy-tasks/psy-conf.py", "max_job = 1\n")
    with pytest.raises(TaskFileError, match=r"psy-tasks/psy-conf\.py: 'max_job' is not a setting"):
        check_text(source_of(project, HEAD))


def test_name_of_conf_that_the_task_file_reads_is_the_users_own(project):
    project.write("psy-tasks/psy-conf.py", "max_job = 1\n")
    check_text(source_of(project, HEAD + "n = max_job\n"))


@pytest.mark.parametrize(
    "line",
    [
        "_max_job = 1",
        "max_job = 1\nmax_jobs = 2 * max_job",
        "timeouts = [1, 2]\ntimeout = 3",
        "colours = 1",
        "n = 3",
        "import stores",
    ],
)
def test_other_names_are_the_users_own(project, line):
    project.write("psy-tasks/stores.py", "")
    check_text(source_of(project, HEAD + line + "\n"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("max_jobs = 0", "max_jobs has to be a whole number from 1, not 0 (int)"),
        ("max_jobs = True", "max_jobs has to be a whole number from 1, not True (bool)"),
        ("timeout = -1", "timeout has to be seconds or None, not -1 (int)"),
        ("file_dep = 'data.csv'", "file_dep has to be a list of paths, not 'data.csv' (str)"),
        ("store = 'npz'", "store has to be a store, such as NpzStore(), not 'npz' (str)"),
        ("scheduler_args = {1: 2}", "scheduler_args has to be a dict of options with names (strings)"),
        ("overwrite_dirty = 0", "overwrite_dirty has to be True or False, not 0 (int)"),
        ("untracked = '*'", "untracked has to be a list of paths, not '*' (str)"),
        ("stateless = 1", "stateless has to be True or False, not 1 (int)"),
        ("track_inputs = None", "track_inputs has to be True or False, not None"),
    ],
)
def test_literal_of_a_wrong_type_is_found_without_running_the_file(project, line, words):
    source = source_of(project, HEAD + line + "\nraise RuntimeError\n")
    with pytest.raises(TaskFileError) as caught:
        check_text(source)
    assert str(caught.value).startswith("psy-tasks/task_a.py: " + words)


def test_literal_that_python_cannot_make_is_an_error_of_its_file_alone(project):
    project.task("good", HEAD)
    project.task("bad", HEAD + "scheduler_args = {[1]: 2}\n")
    outlines, broken = read_outlines(project.root, "psy-tasks")
    assert list(outlines) + list(broken) in (["good", "bad"], ["bad", "good"])
    assert "good" in outlines


def test_long_values_are_shortened_in_messages(project):
    with pytest.raises(TaskFileError) as caught:
        outline_of(project, HEAD + f"file_dep = {'x' * 1000!r}\n")
    assert len(str(caught.value)) < 200


OPTIONS = """\
from psyrun.scheduler import Local

class Cluster(Local):
    options = {"mem": "memory", "time": "limit of time"}

scheduler = Cluster()
"""


@pytest.mark.parametrize("setting", ["scheduler_args", "merge_args"])
def test_unknown_option_of_a_scheduler_is_refused_with_a_suggestion(project, setting):
    for option, hint in (("men", "did you mean 'mem'?"), ("partition", "there are mem, time")):
        outline = outline_of(project, HEAD + OPTIONS + f"{setting} = {{{option!r}: 1}}\n")
        with pytest.raises(TaskFileError) as caught, open_task(outline):
            pass
        assert str(caught.value) == f"psy-tasks/task_a.py: {setting}: '{option}' is not an option; {hint}"


def test_known_options_are_handed_on(project):
    outline = outline_of(project, HEAD + OPTIONS + "scheduler_args = {'mem': '1G'}\n")
    with open_task(outline) as task:
        assert task.scheduler_args == {"mem": "1G"}


def test_every_setting_has_a_meaning_and_accepts_its_default():
    for name, setting in SETTINGS.items():
        assert setting.meaning, name
        assert setting.expected, name
        default = setting.default() if isinstance(setting.default, type) else setting.default
        assert name in ("pspace", "execute") or setting.accepts(default), name


def test_commands_are_no_names_of_tasks():
    ours, theirs = set(cli.commands), {command.get_name() for command in DoitMain.DOIT_CMDS}
    assert ours | theirs <= COMMANDS


@pytest.mark.parametrize("line", ["names = ['a']", "stores = 3", "pool_sizes = [1, 2]", "timeouts = {}"])
def test_name_whose_value_can_be_no_setting_is_not_refused(project, line):
    project.task("t", HEAD + line)
    check_text(read_source(project.root, project.root / "psy-tasks/task_t.py"))


@pytest.mark.parametrize("line", ["names = 'a'", "stores = make()", "pool_sizes = 2"])
def test_name_whose_value_may_be_that_of_a_setting_is_refused(project, line):
    project.task("t", HEAD + "def make(): ...\n" + line)
    with pytest.raises(TaskFileError, match="did you mean"):
        check_text(read_source(project.root, project.root / "psy-tasks/task_t.py"))


def test_task_files_are_found_in_the_order_of_their_names(project):
    for name in ("b", "a", "10"):
        project.task(name, HEAD)
    project.write("psy-tasks/other.py", "")
    project.write("psy-tasks/task_x.txt", "")
    found = find_task_files(project.root, "psy-tasks")
    assert [path.name for path in found] == ["task_10.py", "task_a.py", "task_b.py"]
