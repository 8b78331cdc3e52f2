"""What rows read is named beside their journals, however they read it."""

from __future__ import annotations

import hashlib
import importlib.util

import pytest

from psyrun.workdir.frame import RECEIPTS
from psyrun.workdir.journal import parse_name, read_blocks
from psyrun.workdir.reads import read_reads
from psyrun.workdir.row_receipts import unpack_receipts

HEAD = """\
import glob, json, os, subprocess
from pathlib import Path
from psyrun import Param

pspace = Param(x=range({rows}))
pool_size = {processes}
"""


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Reads:
    """What the rows of a task were seen to read, and what they count."""

    def __init__(self, folder):
        found = [each for path in folder.glob("reads/*.reads") for each in read_reads(path)]
        self.inputs = [each for each in found if each.kind != "code"]
        self.rows = {}  # (batch, row) -> (child, receipt)
        for path in sorted(folder.glob("out/*.rows")):
            key = parse_name(path.name)[0]
            for block in read_blocks(path, bytes.fromhex(key.tie)):
                order = [*block.rows, *(each.row for each in block.failures)]
                receipts = [r for n, r in unpack_receipts(block.sections[RECEIPTS]) for _ in range(n)]
                assert len(order) == len(receipts)
                assert all(each.inputs <= block.header.counts.inputs for each in receipts)
                child = block.header.counts.child
                self.rows |= {(key.number, row): (child, each) for row, each in zip(order, receipts)}

    def named(self, *kinds):
        return {each.path for each in self.inputs if each.kind in (kinds or ("file",))}

    def one(self, path, *kinds):
        [found] = [each for each in self.inputs if each.path == path and each.kind in (kinds or (each.kind,))]
        return found

    def counted(self, batch, row, *kinds):
        """The inputs that count for a row."""
        child, receipt = self.rows[batch, row]
        numbers = range(1, receipt.inputs + 1)
        return {
            each.path
            for each in self.inputs
            if each.child == child and each.number in numbers and each.kind in (kinds or ("file",))
        }

    def own(self, batch, row):
        """The inputs that a row read itself, and those that were read while the file was loaded."""
        child, receipt = self.rows[batch, row]
        return {
            each.path
            for each in self.inputs
            if each.child == child
            and each.kind == "file"
            and (each.loading or receipt.reads <= each.number <= receipt.inputs)
        }


@pytest.fixture
def run(project):
    """Run a task whose `execute` has this body; return what its rows were seen to read."""

    def call(body, *, above="", rows=1, processes=1, code=0):
        text = HEAD.format(rows=rows, processes=processes) + above
        text += "\n\ndef execute(x):\n" + "".join(f"    {line}\n" for line in body.splitlines())
        project.task("t", text + ("" if "return" in body else "    return {'y': 1}\n"))
        project.psy("run", code=code)
        return Reads(project.root / "psy-work/t")

    return call


DATA = "psy-tasks/data.txt"
WAYS = {
    "open": "open('data.txt').read()",
    "absolute": "open(os.path.abspath('data.txt')).read()",
    "bytes": "open(b'data.txt').read()",
    "descriptor": "os.close(os.open('data.txt', os.O_RDONLY))",
    "pathlib": "Path('data.txt').read_text()",
    "np.load": "import numpy; numpy.load('data.npy')",
    "np.load mmap": "import numpy; numpy.load('data.npy', mmap_mode='r').sum()",
    "np.memmap r+": "import numpy; numpy.memmap('data.npy').sum()",
    "np.loadtxt": "import numpy; numpy.loadtxt('data.txt')",
    "np.fromfile": "import numpy; numpy.fromfile('data.txt', 'u1')",
    "json": "json.load(open('data.json'))",
    "csv": "import csv; list(csv.reader(open('data.txt')))",
    "sqlite3": "import sqlite3; sqlite3.connect('data.db').execute('select * from t').fetchall()",
    "sqlite3 uri": "import sqlite3; sqlite3.connect('file:data.db?mode=ro', uri=True)",
    "importlib.resources": "import importlib.resources as r; (r.files('pack') / 'data.txt').read_text()",
    "pkgutil": "import pkgutil; pkgutil.get_data('pack', 'data.txt')",
    "argument of a program": "subprocess.run(['cat', 'data.txt'], check=True)",
    "word of a shell": "subprocess.run('cat < data.txt', shell=True, check=True)",
    "os.system": "os.system('cat data.txt')",
    "module by its path": "import importlib.util as u; s = u.spec_from_file_location('m', 'data.py')\n"
    "s.loader.exec_module(u.module_from_spec(s))",
    "link of a row": "os.symlink('data.txt', 'link'); open('link').read(); os.remove('link')",
    "link in another folder": "os.mkdir('a'); os.symlink('../data.txt', b'a/b'); open('a/b').read()",
    "hard link of a row": "os.link('data.txt', 'link'); open('link').read(); os.remove('link')",
    "own source": "open(__file__).read()",
    "size": "os.path.getsize('data.txt')",
    "pandas": "import pandas; pandas.read_csv('data.txt')",
}
PATHS = {
    "np.load": "psy-tasks/data.npy",
    "np.load mmap": "psy-tasks/data.npy",
    "np.memmap r+": "psy-tasks/data.npy",
    "json": "psy-tasks/data.json",
    "sqlite3": "psy-tasks/data.db",
    "sqlite3 uri": "psy-tasks/data.db",
    "importlib.resources": "psy-tasks/pack/data.txt",
    "pkgutil": "psy-tasks/pack/data.txt",
    "own source": "psy-tasks/task_t.py",
    "module by its path": "psy-tasks/data.py",
}


@pytest.fixture
def data(project):
    """A file for each way to read one."""
    import sqlite3

    np = pytest.importorskip("numpy")
    for path in (DATA, "psy-tasks/pack/data.txt"):
        project.write(path, "1 2 3\n")
    project.write("psy-tasks/pack/__init__.py", "")
    project.write("psy-tasks/data.json", "[1]")
    project.write("psy-tasks/data.py", "")
    np.save(project.root / "psy-tasks/data.npy", np.zeros(5))
    connection = sqlite3.connect(project.root / "psy-tasks/data.db")
    connection.execute("create table t (a)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("way", WAYS)
def test_file_that_a_row_reads_is_an_input(project, run, data, way):
    if way == "pandas" and importlib.util.find_spec("pandas") is None:
        pytest.skip("pandas is not installed")
    path = PATHS.get(way, DATA)
    reads = run(WAYS[way])
    package = {"psy-tasks/pack/__init__.py"} if "pack" in path else set()  # which only the row imports
    assert reads.named() == {path} | package
    content = (project.root / path).read_bytes()
    found = reads.one(path, "file")
    assert (found.size, found.digest, found.loading) == (len(content), sha256(content), False)
    assert found.mtime == (project.root / path).stat().st_mtime_ns
    assert reads.counted(0, 0) == {path} | package


@pytest.mark.parametrize(
    "listing", ["os.listdir('data')", "list(os.scandir('data'))", "list(Path('data').iterdir())"]
)
def test_folder_that_a_row_lists_is_an_input(project, run, listing):
    project.write("psy-tasks/data/a.txt", "1")
    reads = run(listing)
    assert (reads.named("folder"), reads.named()) == ({"psy-tasks/data"}, set())
    before = reads.one("psy-tasks/data").digest
    project.write("psy-tasks/data/b.txt", "1")
    project.psy("clean", "--yes", "t")
    assert run(listing).one("psy-tasks/data").digest != before


@pytest.mark.parametrize(
    "search",
    ["glob.glob('data/*.txt')", "list(glob.iglob('data/*.txt'))", "list(Path('data').glob('*.txt'))"],
)
def test_pattern_is_an_input_with_what_matches_and_not_the_folder(project, run, search):
    digests = []
    for name in ("a.txt", "README.md", "b.txt"):
        project.write(f"psy-tasks/data/{name}", "1")
        project.psy("clean", "--yes", "t", code=None)
        reads = run(search)
        assert reads.named("folder", "exists", "file") == set()
        digests.append(reads.one("psy-tasks/data/*.txt").digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    "question",
    ["os.path.exists('{}')", "Path('{}').is_file()", "os.access('{}', os.R_OK)", "os.path.isdir('{}')"],
)
@pytest.mark.parametrize("name", ["data.txt", "folder", "nothing"])
def test_question_whether_a_file_is_there_is_an_input(project, run, question, name):
    project.write(DATA, "1")
    project.write("psy-tasks/folder/a.txt", "1")
    reads = run(question.format(name))
    assert reads.named("exists", "file", "folder") == {f"psy-tasks/{name}"}
    state = {"data.txt": "file", "folder": "folder", "nothing": "absent"}[name]
    assert reads.one(f"psy-tasks/{name}").digest == state


def test_file_that_is_missed_is_an_absence(run):
    reads = run("try:\n    open('more.json')\nexcept OSError:\n    pass")
    found = reads.one("psy-tasks/more.json")
    assert (found.kind, found.digest) == ("exists", "absent")


def test_local_module_that_only_a_row_imports_is_an_input_where_it_was_not_captured(project, run):
    project.write("psy-tasks/late.py", "y = 1")
    project.write("psy-tasks/known.py", "y = 1")
    reads = run("import importlib, known\nname = 'la' + 'te'\nimportlib.import_module(name)")
    assert reads.named() == {"psy-tasks/late.py"}


def test_paths_elsewhere_are_absolute(project, run, tmp_path):
    project.write(DATA, "1")
    reads = run("open('/tmp/nothing', 'w').close(); open('data.txt'); open('/usr/bin/env', 'rb')")
    assert reads.named("file", "exists", "product") == {DATA}


# ---------------------------------------------------------------------- what is no input


def test_what_rows_write_is_no_input(run):
    reads = run(
        "os.makedirs('made/deep', exist_ok=True)\n"
        "for name in ('made/a.txt', 'cache.json'):\n"
        "    if not os.path.exists(name):\n"
        "        open(name + '~', 'w').write('1')\n"
        "        os.replace(name + '~', name)\n"
        "    open(name).read()\n"
        "open('log.txt', 'a').write('1')\n"
        "open('log.txt').read()\n"
        "os.listdir('made')",
        rows=3,
    )
    assert reads.named("file", "folder", "exists", "glob") == set()
    assert {"psy-tasks/cache.json", "psy-tasks/log.txt", "psy-tasks/made"} <= reads.named("product")


def test_listing_is_the_same_whatever_rows_write_into_the_folder(project, run):
    project.write("psy-tasks/data/a.txt", "1")
    reads = run("os.listdir('data')\nopen(f'data/{x}.out', 'w').close()", rows=20)
    assert [each.path for each in reads.inputs if each.kind == "folder"] == ["psy-tasks/data"]


def test_folder_that_makedirs_finds_is_no_product(project, run):
    project.write("psy-tasks/data/a.txt", "1")
    reads = run("os.makedirs('data', exist_ok=True)\nos.listdir('data')")
    assert (reads.named("folder"), reads.named("product")) == ({"psy-tasks/data"}, set())


def test_file_opened_for_both_is_an_input_unless_the_row_changed_it(project, run):
    for name in ("read", "changed"):
        project.write(f"psy-tasks/{name}.txt", "1")
    reads = run("open('read.txt', 'r+').read()\nwith open('changed.txt', 'r+') as f: f.write('22')")
    assert reads.named() == {"psy-tasks/read.txt"}
    assert reads.named("product") == {"psy-tasks/changed.txt"}


def test_argument_that_a_program_changed_is_no_input(project, run):
    project.write(DATA, "1")
    reads = run("subprocess.run(['cp', 'data.txt', 'copy.txt'], check=True)\nopen('copy.txt').read()")
    assert reads.named() >= {DATA}
    project.psy("clean", "--yes", "t")
    assert run("subprocess.run(['sh', '-c', 'echo 22 >> data.txt'], check=True)").named() == set()


@pytest.mark.parametrize(
    "read", ["os.listdir('..')", "open('../psy-work/.gitignore')", "import json.tool", "1"]
)
def test_python_and_the_work_folder_are_no_inputs(run, read):
    assert run(read).named("file", "exists", "glob") == set()


def test_results_of_other_tasks_are_inputs(project, run):
    project.task("a", HEAD.format(rows=2, processes=1) + "def execute(x):\n    return {'y': x}\n")
    project.psy("run", "a")
    reads = run("open('../psy-work/a/result.pkl', 'rb').read()")
    assert reads.named() == {"psy-work/a/result.pkl"}


@pytest.mark.parametrize("pattern", ["data.*", "./data.txt", "*", "../psy-tasks/data.txt"])
def test_untracked_files_are_no_inputs(project, run, pattern):
    project.write(DATA, "1")
    project.write("other.txt", "1")
    reads = run("open('data.txt'); open('../other.txt')", above=f"untracked = [{pattern!r}]\n")
    assert reads.named() == {"other.txt"}


def test_nothing_is_observed_where_the_task_says_so(project, run):
    project.write(DATA, "1")
    reads = run("open('data.txt'); return {'wrapped': os.stat.__module__}", above="track_inputs = False\n")
    assert (reads.inputs, project.result("t")["wrapped"]) == ([], ["posix"])


# ---------------------------------------------------------------------- which rows


def test_what_is_read_while_loading_names_its_statement_and_counts_for_all_rows(project, run):
    project.write(DATA, "1")
    project.write("psy-tasks/grid.txt", "1")
    project.write("psy-tasks/helper.py", "\n\nDATA = open('grid.txt').read()\n")
    above = "import helper\nA = open('data.txt').read()\nB = open(\n    'data.txt').read()\n"
    reads = run("return {'y': 1}", above=above, rows=4)
    found = {(each.path, each.place, each.loading) for each in reads.inputs if each.kind == "file"}
    first = len(HEAD.splitlines()) + 1
    assert found == {
        ("psy-tasks/grid.txt", "psy-tasks/helper.py:3", True),
        (DATA, f"psy-tasks/task_t.py:{first + 1}", True),
        (DATA, f"psy-tasks/task_t.py:{first + 2}", True),
    }
    assert all(reads.counted(*key) == {DATA, "psy-tasks/grid.txt"} for key in reads.rows)


def test_what_setup_reads_counts_for_all_rows(project, run):
    project.write(DATA, "1")
    above = "stateless = True\ndef setup(number):\n    return {'text': open('data.txt').read()}\n"
    text = HEAD.format(rows=3, processes=1) + above + "def execute(x, text):\n    return {'y': 1}\n"
    project.task("t", text)
    project.psy("run")
    reads = Reads(project.root / "psy-work/t")
    assert all(reads.own(*key) == {DATA} for key in reads.rows)


def write_data(project, rows):
    for x in range(rows):
        project.write(f"psy-tasks/data/{x}.txt", f"{x}")


def places(reads):
    """The rows in the order of the space."""
    return sorted(reads.rows)


def test_rows_count_what_their_process_read_before(project, run):
    write_data(project, 4)
    reads = run("open(f'data/{x}.txt').read()", rows=4)
    for x, key in enumerate(places(reads)):
        assert reads.counted(*key) == {f"psy-tasks/data/{i}.txt" for i in range(x + 1)}
        assert reads.own(*key) == {f"psy-tasks/data/{x}.txt"}


@pytest.mark.parametrize("stateless", [True, False])
def test_own_inputs_of_a_row_are_all_that_it_read(project, run, stateless):
    rows = 60
    write_data(project, rows)
    project.write("psy-tasks/shared.txt", "1")
    body = "if x % 3: open('shared.txt').read()\nif x % 2: open(f'data/{x}.txt').read()"
    reads = run(body, rows=rows, processes=2, above=f"stateless = {stateless}\n")
    assert len(reads.rows) == rows
    for x, key in enumerate(places(reads)):
        read = {"psy-tasks/shared.txt"} if x % 3 else set()
        read |= {f"psy-tasks/data/{x}.txt"} if x % 2 else set()
        assert reads.own(*key) == read if stateless else reads.own(*key) >= read
        assert reads.counted(*key) >= read


def test_each_version_of_a_file_that_rows_read_is_an_input(project, run):
    project.write(DATA, "0")
    # A program that another process starts is what changes it: no row of this process wrote it.
    body = """\
y = open('data.txt').read()
if x == 5:
    run = "open('dat' + 'a.txt', 'w').write('22')"
    subprocess.run([sys.executable, '-c', run], check=True)
return {'y': y}"""
    reads = run(body, rows=9, above="import sys\n", code=1)  # It changed meanwhile, psy run says.
    assert project.result("t")["y"] == ["0"] * 6 + ["22"] * 3
    found = [(each.size, each.digest) for each in reads.inputs if each.path == DATA]
    assert [size for size, _ in found] == [1, 2]
    assert found[1][1] == sha256(b"22")
    for x, key in enumerate(places(reads)):
        numbers = [each.number for each in reads.inputs if each.path == DATA]
        assert sum(number <= reads.rows[key][1].inputs for number in numbers) == (1 if x < 6 else 2)


def test_failed_row_counts_what_it_read(project, run):
    project.write(DATA, "1")
    reads = run("open('data.txt')\nraise ValueError", code=1)
    assert reads.counted(0, 0) == {DATA}


def test_replacement_of_a_dead_child_counts_its_own_inputs(project, run):
    rows = 12
    write_data(project, rows)
    body = "open(f'data/{x}.txt').read()\nif x == 5 and os.open('died', 65) and 0: pass\n"
    body = "open(f'data/{x}.txt').read()\nif x == 5: os._exit(3)"
    reads = run(body, rows=rows, code=1)
    assert len({each.child for each in reads.inputs}) == 2
    for x, key in enumerate(places(reads)):
        if x != 5:
            assert f"psy-tasks/data/{x}.txt" in reads.counted(*key)


@pytest.mark.slow
def test_ten_thousand_rows_with_a_file_each(project, run):
    rows = 10_000
    folder = project.root / "psy-tasks/data"
    folder.mkdir()
    for x in range(rows):
        (folder / f"{x}.txt").write_text(f"{x}")
    reads = run("return {'y': int(open(f'data/{x}.txt').read())}", rows=rows, processes=2)
    assert project.result("t")["y"] == list(range(rows))
    found = {each.path: each.digest for each in reads.inputs}
    assert found == {f"psy-tasks/data/{x}.txt": sha256(b"%d" % x) for x in range(rows)}
    assert all(
        reads.own(*key) == {f"psy-tasks/data/{x}.txt"} for x, key in list(enumerate(places(reads)))[::500]
    )


def test_empty_file_is_an_input(project, run):
    project.write(DATA, "")
    found = run("open('data.txt').read()").one(DATA)
    assert (found.size, found.digest) == (0, sha256(b""))


def test_file_removed_below_a_folder_is_not_taken_for_one_in_the_working_directory(project, run):
    project.write(DATA, "1")
    body = "import shutil; os.mkdir('a'); open('a/data.txt', 'w').close(); shutil.rmtree('a')"
    assert run(f"open('data.txt').read()\n{body}").named() == {DATA}


def test_looking_for_installed_packages_is_no_listing_of_the_task_folder(run):
    above = "from importlib.metadata import entry_points, version\nentry_points(), version('numpy')\n"
    assert run("version('doit')", above=above).named("folder", "file", "glob") == set()


def test_started_processes_are_noted_once(run):
    reads = run("if os.fork() == 0: os._exit(0)\nos.wait()", rows=3)
    assert [each.path for each in reads.inputs if each.kind == "program"] == ["os.fork"]
