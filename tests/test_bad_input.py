"""Bad input: one clear error that names thing, place and cure; nothing is written, and the others go on."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace

import pytest

import files
from psyrun.cli.commands import main
from psyrun.workdir import frame
from psyrun.workdir.journal import Failure, encode_block, parse_name

GOOD = "from psyrun import Param\npspace = Param(x=[1, 2])\n\ndef execute(x):\n    return {'y': x}\n\n"
FILE = "psy-tasks/task_bad.py"


def snapshot(folder):
    """Return the bytes of all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def psy(project, monkeypatch, capsys):
    """Run psy in this process; return its exit code and all that it said."""
    monkeypatch.chdir(project.root)

    def run(*arguments):
        capsys.readouterr()
        code = main(list(arguments))
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return code, said.out + said.err

    return run


def assert_refused(project, psy, *words, arguments=("run", "bad"), code=2):
    """The run ends with this code, says all the words in one line, and writes nothing."""
    before = snapshot(project.root)
    found, said = psy(*arguments)
    assert found == code, said
    lines = [line for line in said.splitlines() if all(word in line for word in words)]
    assert len(lines) == 1, said
    work = {path: data for path, data in snapshot(project.root).items() if not path.startswith("psy-work/.")}
    assert work == {path: data for path, data in before.items() if not path.startswith("psy-work/.")}


# ---------------------------------------------------------------------- task files that can't be read


def write(data):
    return lambda path: path.write_bytes(data if isinstance(data, bytes) else data.encode())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda path: path.mkdir(), ["not a regular file", "move"], id="folder"),
        pytest.param(os.mkfifo, ["not a regular file", "move"], id="pipe"),
        pytest.param(lambda path: path.symlink_to("nowhere"), ["No such file"], id="dangling link"),
        pytest.param(lambda path: path.symlink_to(path.name), ["symbolic links"], id="link to itself"),
        pytest.param(write(b"x = '\xff\xfe'\n"), [":1:", "utf-8", "correct it"], id="no UTF-8"),
        pytest.param(write(b"x = 1\0\n"), ["null bytes", "correct it"], id="NUL"),
        pytest.param(write("# coding: klingon\n"), ["unknown encoding", "correct it"], id="encoding"),
        pytest.param(write("def (:\n"), [":1:", "invalid syntax", "correct it"], id="syntax"),
        pytest.param(write(""), ["there is no `pspace`", "define it"], id="empty"),
        pytest.param(write("import nowhere_at_all\n"), [":1: ModuleNotFoundError"], id="import"),
        pytest.param(write("raise SystemExit(3)\n"), [":1: SystemExit: 3", "correct it"], id="exit"),
        pytest.param(write("raise GeneratorExit\n"), [":1: GeneratorExit", "correct it"], id="GeneratorExit"),
        pytest.param(
            write("class Odd(BaseException): pass\nraise Odd('boo')\n"),
            [":2:", "Odd: boo"],
            id="BaseException",
        ),
    ],
)
def test_task_file_that_is_none_is_refused_and_the_others_are_looked_after(project, psy, make, words):
    project.task("good", GOOD)
    make(project.root / FILE)
    assert_refused(project, psy, FILE, *words)
    for command in ("status", "plan", "list", "errors"):
        assert psy(command)[0] == 0
    assert "good" in psy("status")[1]
    assert psy("kill", "--all")[0] in (0, 2)


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf" + GOOD.encode(), GOOD.replace("\n", "\r\n").encode()])
def test_byte_order_mark_and_line_ends_of_windows_are_fine(project, psy, data):
    (project.root / FILE).write_bytes(data)
    assert psy("plan", "bad")[1].count("evaluate 2 rows") == 1


def test_link_in_place_of_psy_conf_is_not_ignored_where_it_leads_nowhere(project, psy):
    project.task("bad", GOOD)
    (project.root / "psy-tasks/psy-conf.py").symlink_to("nowhere")
    assert_refused(project, psy, "psy-conf.py", "No such file")


def test_run_without_a_folder_of_task_files_shows_no_traceback_of_plain_doit(project, psy):
    (project.root / "psy-tasks").rmdir()
    (project.root / "psy-tasks").write_text("in the way")
    code, said = psy("doit", "list")
    assert code != 0
    assert "psy-tasks: no such folder" in said


# ---------------------------------------------------------------------- what is in them

E = "def execute(x):\n    return {'y': x}\n"
SPACE = (
    "class Space:\n    build = iterate = keys = lambda self: 1 / 0\n    def __len__(self): return 1 // 0\n"
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pspace = Param\n" + E, ["pspace has to be a parameter space", "class"]),
        ("pspace = [{'x': 1}]\n" + E, ["pspace has to be a parameter space", "(list)"]),
        (SPACE + "pspace = Space()\n" + E, ["pspace does not tell its parameters"]),
        ("pspace = Param(x=[lambda: 1])\n" + E, ["parameter 'x' can't be pickled"]),
        ("pspace = Param(x=[1])\n", ["there is no `execute`"]),
        ("pspace = Param(x=[1])\nexecute = 3\n", ["execute has to be a function, not 3 (int)"]),
        ("pspace = Param(x=[1])\nasync def execute(x):\n    return {}\n", ["execute", "plain function"]),
        ("pspace = Param(x=[1])\ndef execute(x):\n    yield {}\n", ["execute", "plain function"]),
        ("pspace = Param(x=[1])\ndef execute(z):\n    return {}\n", ["execute(z)", "['x']", "add them"]),
        ("pspace = Param(x=[1])\ndef execute(x, /):\n    return {}\n", ["execute(x, /)", "by name"]),
        ("pspace = Param(x=[1])\ndef execute(z, /, x):\n    return {}\n", ["['z']", "remove the /"]),
        ("pspace = Param(x=[1])\ndef execute(*args):\n    return {}\n", ["execute(*args)", "['x']"]),
        ("pspace = Param(x=[1])\ndef execute(x, z):\n    return {}\n", ["execute needs ['z']", "defaults"]),
        ("pspace = Param(x=[1])\n" + E + "def setup():\n    pass\n", ["setup()", "write setup(proc_id)"]),
        ("pspace = Param(x=[1])\n" + E + "def setup(a, b):\n    pass\n", ["setup(a, b)", "setup(proc_id)"]),
        ("pspace = Param(x=[1])\n" + E + "def setup(i):\n    yield\n", ["setup", "plain function"]),
    ],
)
@pytest.mark.parametrize("command", ["run", "test"])
def test_what_can_not_be_called_is_refused_before_anything_runs(project, psy, text, words, command):
    project.task("bad", "from psyrun import Param\n" + text)
    assert_refused(project, psy, FILE, *words, arguments=(command, "bad"))


@pytest.mark.parametrize(
    "function",
    ["def execute(**all): return {}", "def execute(x, z=1): return {}", "def execute(*, x): return {}"],
)
def test_other_signatures_are_fine(project, psy, function):
    project.task("bad", f"from psyrun import Param\npspace = Param(x=[1])\n{function}\n")
    assert "evaluate 1 row" in psy("plan", "bad")[1]


@pytest.mark.parametrize("setting", ["workdir", "resultfile", "python", "prologue", "file_dep"])
def test_path_with_a_nul_is_refused(project, psy, setting):
    value = ["a\0b"] if setting == "file_dep" else "a\0b"
    project.task("bad", GOOD + f"{setting} = {value!r}\n")
    assert_refused(project, psy, FILE, setting)


def test_data_files_may_be_paths(project, psy):
    project.write("psy-tasks/data.csv", "1")
    project.task("bad", GOOD + "from pathlib import Path\nfile_dep = [Path('data.csv')]\n")
    assert "evaluate 2 rows" in psy("plan", "bad")[1]


# ---------------------------------------------------------------------- tasks in each other's way


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            "resultfile = '../psy-work/good/result.pkl'",
            ["is a file of psy-tasks/task_good.py", "`resultfile`"],
        ),
        ("resultfile = '../psy-tasks/task_good.py'", ["is a file of psy-tasks/task_good.py", "`resultfile`"]),
        ("resultfile = '../psy-tasks/task_bad.py'", ["is a file of psy-tasks/task_bad.py", "`resultfile`"]),
        (
            "resultfile = '../psy-work/bad/plan.json.bak'",
            ["is a file of psy-tasks/task_bad.py", "`resultfile`"],
        ),
        ("file_dep = ['../psy-work/bad/result.pkl']", ["waits for its own result", "file_dep"]),
        ("name = 'good'", ["is taken by psy-tasks/task_good.py", "`name`"]),
    ],
)
def test_task_that_gets_in_the_way_of_another_is_refused_alone(project, psy, setting, words):
    project.task("good", GOOD)
    project.task("bad", GOOD + setting + "\n")
    code, said = psy("plan")
    assert code == 0
    assert "good: evaluate 2 rows" in said
    assert "bad:" not in said
    assert_refused(project, psy, FILE, *words)


def test_tasks_that_wait_for_each_other_are_refused_and_the_others_go_on(project, psy):
    project.task("a", GOOD + "file_dep = ['../psy-work/b/result.pkl']\n")
    project.task("b", GOOD + "file_dep = ['../psy-work/a/result.pkl']\n")
    project.task("good", GOOD)
    project.psy("run", code=2)
    assert project.result("good")["y"] == [1, 2]
    assert psy("status")[1].count("waits for its own result") == 2


@pytest.mark.parametrize("name", ["", "a b", "a=b"])
def test_task_files_whose_names_are_alike_but_for_odd_characters_stop_no_other(project, psy, name):
    for each in (name, "a_b", "a;b"):
        project.task(each, GOOD)
    code, said = psy("doit", "list", "a_b")
    assert code == 0, said


def test_folder_in_place_of_the_result_is_refused(project, psy):
    project.task("bad", GOOD)
    (project.root / "psy-work/bad/result.pkl").mkdir(parents=True)
    assert_refused(project, psy, FILE, "psy-work/bad/result.pkl", "a folder", "move")
    assert_refused(project, psy, FILE, "a folder", arguments=("run", "--force", "bad"))


def test_file_in_place_of_the_work_folder_is_refused(project, psy):
    project.task("bad", GOOD)
    (project.root / "psy-work").write_text("mine")
    assert_refused(project, psy, "psy-work", "move it away", code=1)
    assert psy("status")[0] == 0
    assert (project.root / "psy-work").read_text() == "mine"


@pytest.mark.parametrize("thing", ["plan.json", "out", "in", "log", "jobs", "code"])
def test_what_is_in_the_way_in_one_work_folder_stops_no_other_task(project, psy, thing):
    project.task("good", GOOD)
    project.task("bad", GOOD)
    path = project.root / "psy-work/bad" / thing
    path.parent.mkdir(parents=True)
    path.mkdir() if thing == "plan.json" else path.write_text("in the way")
    assert project.psy("run", code=1).stderr.count("move it away") == 1
    assert project.result("good")["y"] == [1, 2]
    for command in ("status", "plan", "errors"):
        assert psy(command)[0] == 0


# ---------------------------------------------------------------------- files that were edited by hand

HALF = """\
import os
from psyrun import Param
pspace = Param(x=range(6))
pool_size = 1
max_jobs = 2


def execute(x):
    if x == 4 and os.path.exists('../fail'):
        raise ValueError(x)
    return {'y': 2 * x}
"""
RIGHT = {"x": list(range(6)), "y": [2 * x for x in range(6)]}


@pytest.fixture
def take(project):
    """Finish the project, or let a row of it fail, and return the file that a pattern names."""

    def finish(state, pattern):
        half = state == "half"
        project.finish({FILE: HALF, "fail": ""} if half else {FILE: HALF}, code=int(half))
        return min((project.root / "psy-work/bad").glob(pattern))

    return finish


def assert_recovers(project):
    """The next run but one, at the latest, has the right result."""
    (project.root / "fail").unlink(missing_ok=True)
    if project.psy("run", "--continue", code=None).returncode:
        project.psy("run", "--continue")
    assert project.result("bad") == RIGHT


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def make_folder(path):
    path.unlink()
    path.mkdir()


def make_loop(path):
    path.unlink()
    path.symlink_to(path.name)


def append_block(*block):
    def append(path):
        with path.open("ab") as file:
            tie = parse_name(path.name)[0].tie
            file.write(files.seal(encode_block(*block), tie=tie, offset=file.tell()))

    return append


def rows_of_anything(path):
    """A block whose checksums are right, and whose rows and failures are none."""
    tie = bytes.fromhex(parse_name(path.name)[0].tie)
    sections = {frame.ROWS: b"abcdefgh", frame.FAILURES: b"no pickle"}
    path.write_bytes(frame.encode_frame(sections, frame.Counts(rows=3), tie=tie))


@pytest.mark.parametrize(
    "damage",
    [
        write(b""),
        write(b"random"),
        flip,
        make_folder,
        make_loop,
        lambda path: path.write_bytes(path.read_bytes().replace(b"PSY2", b"PSX2")),
        lambda path: path.rename(path.with_name(f"{10**20}-{'0' * 16}-aaaaaaaa.rows")),
        append_block([3, 10**9], {"y": [7, 8]}),
        append_block([99], {"y": [7]}),
        append_block([], {}, [Failure(-1, "one"), Failure(77, "two")]),
        rows_of_anything,
    ],
)
def test_damaged_journal_is_recovered_from(project, take, damage):
    damage(take("half", "out/0-*.rows"))
    for command in ("status", "errors", "plan"):
        assert "Traceback" not in project.psy(command).stderr
    assert_recovers(project)
    project.psy("merge", "psy-work/bad/out", "all.pkl")
    assert pickle.loads((project.root / "all.pkl").read_bytes()) == RIGHT


def test_journal_of_a_newer_psyrun_is_refused_by_name_and_kept(project, take):
    path = take("half", "out/0-*.rows")
    newer = files.make_newer(path.read_bytes())
    path.write_bytes(newer)
    for options in ([], ["--continue"]):
        said = project.psy("run", *options, code=2).stderr
        assert f"out/{path.name}: written by a newer psyrun; upgrade psyrun" in said
        assert "Traceback" not in said
    assert path.read_bytes() == newer


def edit_json(**values):
    return lambda path: path.write_text(json.dumps(json.loads(path.read_bytes()) | values))


JSON = [
    write(b""),
    write(b"\x00\xff"),
    write(b"[1, 2]"),
    write(b"null"),
    write(b"{}"),
    write(b'{"format": 2}'),
    write(b"[" * 100_000),
    edit_json(format=99),
]


@pytest.mark.parametrize("damage", [*JSON, edit_json(journals=3), edit_json(journals=[[1]])])
@pytest.mark.parametrize("name", ["process.json", "result.pkl.receipt"])
def test_damaged_receipt_is_made_anew(project, psy, take, name, damage):
    damage(take("finished", name))
    assert psy("status")[0] == 0
    assert psy("run")[0] == 0
    assert project.result("bad") == RIGHT
    assert psy("run")[1].count("up to date") == 1


@pytest.mark.parametrize("damage", JSON)
def test_damaged_plan_is_mended_from_its_copy_and_without_one_is_an_error(project, psy, take, damage):
    path = take("half", "plan.json")
    whole = path.read_bytes()
    damage(path)
    if b"99" not in path.read_bytes():
        said = psy("run")[1]
        assert said.count("plan.json was damaged, and is mended from its copy") == 1
        assert "1 of 6 rows to evaluate" in said
        assert path.read_bytes() == whole
        damage(path)
        path.with_name("plan.json.bak").unlink()
    assert_refused(project, psy, "plan.json", "upgrade" if b"99" in path.read_bytes() else "delete it")
    for command in ("status", "plan", "errors"):
        assert psy(command)[0] == 0
    path.unlink()
    assert_recovers(project)


def test_result_that_was_edited_without_changing_its_size_is_written_anew(project, psy, take):
    path = take("finished", "result.pkl")
    path.write_bytes(pickle.dumps(RIGHT | {"y": [7] * 6}).ljust(path.stat().st_size, b"\0"))
    assert '"uptodate": false' in psy("status", "--json")[1]
    assert psy("run")[0] == 0
    assert project.result("bad") == RIGHT


def test_result_that_was_only_touched_is_up_to_date(project, psy, take):
    path = take("finished", "result.pkl")
    os.utime(path, (1, 1))
    receipt = path.with_name("result.pkl.receipt")
    assert '"uptodate": true' in psy("status", "--json")[1]
    assert json.loads(receipt.read_text())["mtime"] != 10**9
    assert "up to date" in psy("run")[1]
    assert path.stat().st_mtime == 1
    assert json.loads(receipt.read_text())["mtime"] == 10**9  # Nobody has to read it again.


@pytest.mark.parametrize("damage", [write(b""), write(b"random"), flip])
def test_damaged_sources_are_captured_anew(project, take, damage):
    damage(take("half", "code/*.zip"))
    assert_recovers(project)


ABOUT = {"task": "bad", "batch": 0, "scheme": 1, "code": "", "space": "", "size": 3}


@pytest.mark.parametrize("about", [[1], {}, ABOUT | {"batch": 1}, ABOUT | {"size": "x"}, ABOUT], ids=str)
def test_input_file_that_was_not_planned_is_moved_aside_and_its_rows_are_planned_anew(
    project, psy, take, about
):
    path = take("half", "in/0.pkl")
    sections = {
        frame.ABOUT: json.dumps(about).encode(),
        frame.VALUES: pickle.dumps({"x": ("list", [7, 8, 9])}),
    }
    path.write_bytes(frame.encode_frame(sections, frame.Counts()))
    (project.root / "fail").unlink(missing_ok=True)
    code, said = psy("run")
    assert code == 0
    assert "in/0.pkl: damaged, or not what was planned; kept as *.damaged" in said
    assert path.with_name("0.pkl.damaged").exists()
    assert project.result("bad") == RIGHT


SUBMISSION = {
    "format": 3,
    "token": "p0aaaaaaaa",
    "task": "bad",
    "code": "0" * 32,
    "scheduler": "Local",
    "batches": [[0, "0" * 16, None]],
    "retry": True,
    "job": None,
    "exclude": [],
    "core_variables": [],
    "ends": {},
}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"format": 1, "gone": {}, "told": {}, "ended": {}, "over": False},
        {"token": "../../victim"},
        {"job": 5},
        {"scheduler": 3},
        {"batches": [["a", "0" * 16, None]]},
        {"batches": [[0, 1, None]]},
        {"ends": 3},
        {"ends": {"1": {"since": 0.0, "reason": None, "final": True}}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_damaged_submission_is_an_error_that_names_the_cure(project, psy, take, change):
    victim = project.root / "psy-work/victim.json"
    take("half", "plan.json")
    victim.write_text("mine")
    (project.root / "psy-work/bad/jobs/p0aaaaaaaa.json").write_text(json.dumps(SUBMISSION | change))
    assert_refused(project, psy, "p0aaaaaaaa.json", "upgrade" if 99 in change.values() else "delete it")
    for command in (["status"], ["plan"], ["errors"]):
        assert psy(*command)[0] == 0
    assert psy("clean", "bad")[0] == 2
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("job", ["nonsense", "a/b", f"localhost/{10**20}/1", "123"])
def test_job_of_a_local_submission_that_is_none_is_over(project, take, job):
    take("half", "plan.json")
    (project.root / "psy-work/bad/jobs/p0aaaaaaaa.json").write_text(json.dumps(SUBMISSION | {"job": job}))
    project.psy("kill", "bad")
    assert_recovers(project)


# ---------------------------------------------------------------------- locks


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\xfe", b"plan.json"])
def test_lock_that_names_no_owner_is_broken(project, take, content):
    take("half", "plan.json")
    lock = project.root / "psy-work/bad/lock"
    lock.write_bytes(content)
    os.utime(lock, (1, 1))
    (project.root / "fail").unlink()
    assert project.psy("run", timeout=30).stdout.count("finished") == 1
    assert project.result("bad") == RIGHT
    assert not lock.exists()


def test_folder_in_place_of_the_lock_is_refused(project, psy, take):
    take("half", "plan.json")
    (project.root / "psy-work/bad/lock").mkdir()
    assert_refused(project, psy, "psy-work/bad/lock", "move it away", code=1)
    assert [path.name for path in (project.root / "psy-work/bad").glob("lock*")] == ["lock"]


# ---------------------------------------------------------------------- paths


@pytest.mark.parametrize("name", ["it's", 'say "hi"', "new\nline", "üñï", "$(touch PWNED)", "a;b", "%s{}"])
def test_project_may_lie_in_a_folder_of_any_name(project, tmp_path, name):
    project = replace(project, root=tmp_path / name)
    project.task("good", GOOD)
    project.psy("run")
    assert project.result("good")["y"] == [1, 2]
    assert not list(tmp_path.rglob("PWNED"))


def test_folder_whose_name_is_no_text_is_an_error_that_names_the_cure(project, tmp_path):
    project = replace(project, root=tmp_path / os.fsdecode(b"caf\xe9"))
    project.task("good", GOOD)
    said = project.psy("run", code=1).stderr
    assert "rename the folder" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("link", ["psy-tasks", "psy-work", "psy-tasks/task_good.py"])
def test_links_are_followed(project, tmp_path, link):
    project.task("good", GOOD)
    (project.root / "psy-work").mkdir()
    path = project.root / link
    path.rename(tmp_path / "there")
    path.symlink_to(tmp_path / "there")
    project.psy("run")
    assert project.result("good")["y"] == [1, 2]
    assert "up to date" in project.psy("run").stdout
    project.psy("clean", "good", "-y")
    assert path.is_symlink()
