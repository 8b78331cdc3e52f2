"""Results in hand: `psyrun.load`, pandas, xarray, Arrow, `psy export`, results as CSV and Parquet."""

import csv
import json
import math
import os
import pickle
import random
import subprocess
import sys
from datetime import UTC, datetime

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import xarray as xr

import psyrun
from psyrun import CsvStore, Param, ParquetStore, Results
from psyrun.errors import PsyrunError, StoreError
from psyrun.results import export
from psyrun.testing import KINDS, StoreContract

TASK = """\
from counting import seen
from psyrun import Param

pspace = Param(n=[4, 8]) * Param(kind=["lu", "qr"]) * Param(seed=range(3))
pool_size = 2
allow_failed = True
{settings}


def execute(n, kind, seed):
    seen(n, kind, seed)
    if kind == "qr" and seed == 2:
        raise ValueError("no")
    return {{"rate": n / (seed + 1), "steps": n * seed, "word": kind * 2}}
"""
ROWS = [(n, kind, seed) for n in (4, 8) for kind in ("lu", "qr") for seed in range(3)]


@pytest.fixture
def finished(project, monkeypatch):
    project.finish({"psy-tasks/task_fig.py": TASK.format(settings="")})
    monkeypatch.chdir(project.root)
    return project


def is_failed(row):
    return row[1:] == ("qr", 2)


# ---------------------------------------------------------------------- loading


def test_result_is_found_by_name_and_by_paths_and_without_its_task_file(finished, monkeypatch):
    (finished.root / "psy-tasks/task_fig.py").unlink()
    folder = finished.root / "notebooks/deep"
    folder.mkdir(parents=True)
    work = finished.root / "psy-work/fig"
    for place in (finished.root, folder):
        monkeypatch.chdir(place)
        for name in ("fig", work, work / "result.pkl", os.path.relpath(work / "result.pkl")):
            table = psyrun.load(name)
            assert isinstance(table, dict)
            assert table.parameters == ("n", "kind", "seed")
            assert list(table) == ["n", "kind", "seed", "failure", "rate", "steps", "word"]
            assert list(zip(table["n"], table["kind"], table["seed"])) == ROWS
            for row, rate, word in zip(ROWS, table["rate"], table["word"]):
                assert (
                    (math.isnan(rate), word) == (True, None)
                    if is_failed(row)
                    else rate == row[0] / (row[2] + 1)
                )


def test_numbers_are_arrays(finished):
    table = psyrun.load("fig")
    assert table["n"].dtype == np.int64
    assert table["steps"].dtype == np.float64  # Some are missing.
    assert table["rate"][0] == 4.0


def test_result_elsewhere_is_found(project, monkeypatch):
    project.task("t", TASK.format(settings='resultfile = "../results/mine.npz"'))
    project.psy("run")
    monkeypatch.chdir(project.root)
    for name in ("t", "results/mine.npz", "psy-work/t"):
        assert psyrun.load(name).parameters == ("n", "kind", "seed")
        assert list(psyrun.load(name)["n"]) == [row[0] for row in ROWS]


def test_file_that_no_task_wrote_is_loaded_too(tmp_path):
    path = tmp_path / "old.pkl"
    path.write_bytes(pickle.dumps({"x": [1, 2], "y": ["a", "b"]}))
    table = psyrun.load(path)
    assert (list(table["x"]), list(table["y"]), table.parameters) == ([1, 2], ["a", "b"], ())


def test_unknown_names_are_refused_with_those_that_there_are(finished):
    with pytest.raises(
        FileNotFoundError, match="gif: neither a task that was run, nor a file; psy-work has fig"
    ):
        psyrun.load("gif")


def test_unfinished_task_is_refused_with_the_cure(project, monkeypatch):
    project.task("fig", TASK.format(settings="").replace("True", "1"))
    project.psy("run", code=1)
    monkeypatch.chdir(project.root)
    with pytest.raises(
        PsyrunError, match=r"fig: 10 of 12 rows are done, 2 failed; .*partial=True.*psy run fig"
    ):
        psyrun.load("fig")


def test_partial_has_all_rows_and_their_status(project, monkeypatch):
    """Rows with n=8 are not evaluated: the first of them kills the worker."""
    text = TASK.format(settings="max_jobs = 1\npool_size = 1\nimport os").replace("n=[4, 8]", "n=[4]")
    kill = "    if n == 8:\n        os.kill(os.getppid(), 9)\n    if kind =="
    project.task("fig", text.replace("    if kind ==", kill))
    project.psy("run")
    project.edit("psy-tasks/task_fig.py", "n=[4]", "n=[4, 8]")
    project.psy("run", code=1)
    monkeypatch.chdir(project.root)
    table = psyrun.load("fig", partial=True)
    assert list(zip(table["n"], table["kind"], table["seed"])) == ROWS
    wanted = ["missing" if row[0] == 8 else "failed" if is_failed(row) else "done" for row in ROWS]
    assert list(table["status"]) == wanted
    for row, status, rate, steps in zip(ROWS, wanted, table["rate"], table["steps"]):
        if status == "done":
            assert (rate, steps) == (row[0] / (row[2] + 1), row[0] * row[2])
        else:
            assert math.isnan(rate)
            assert math.isnan(steps)


def test_partial_of_a_finished_task_says_which_rows_failed(finished):
    status = list(psyrun.load("fig", partial=True)["status"])
    assert status == ["failed" if is_failed(row) else "done" for row in ROWS]
    import shutil

    shutil.rmtree("psy-work/fig/out")
    assert list(psyrun.load("fig", partial=True)["status"]) == status


@pytest.mark.parametrize("partial", [False, True])
def test_receipts_say_seconds_memory_and_host_of_failed_rows_too(project, monkeypatch, partial):
    project.task(
        "t",
        TASK.format(settings="import time").replace(
            "    if kind", "    time.sleep(0.02 * n / 4)\n    if kind"
        ),
    )
    project.psy("run")
    monkeypatch.chdir(project.root)
    if partial:
        (project.root / "psy-work/t/result.pkl").unlink()
    table = psyrun.load("t", receipts=True, partial=partial)
    for n, seconds, memory, host in zip(table["n"], table["seconds"], table["peak_memory"], table["host"]):
        assert 0.02 * n / 4 <= seconds < 5
        assert memory > 1e6
        assert host == os.uname().nodename


def test_names_that_are_taken_are_refused(project, monkeypatch):
    project.task(
        "t",
        "from psyrun import Param\npspace = Param(x=[1])\ndef execute(x):\n    return dict(host=1, status=2)",
    )
    project.psy("run")
    monkeypatch.chdir(project.root)
    assert psyrun.load("t")["host"] == [1]
    with pytest.raises(StoreError, match="names: host"):
        psyrun.load("t", receipts=True)
    for _ in range(2):  # Finished, and not.
        with pytest.raises(StoreError, match="names: status"):
            psyrun.load("t", partial=True)
        said = project.psy("export", "--partial", "t", "a.csv", code=1).stderr
        assert said == "psy: the rows have columns of their own of these names: status\n"
        (project.root / "psy-work/t/result.pkl").unlink(missing_ok=True)


def test_provenance_answers_a_reviewer(project, monkeypatch):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    project.write("data.txt", "3")
    project.write(".gitignore", "psy-work\nevaluations.txt\n")
    text = TASK.format(settings="import numpy").replace(
        "    if kind", '    open("../data.txt").read()\n    if kind'
    )
    project.task("fig", text)
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], cwd=project.root, check=True)
    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], cwd=project.root, capture_output=True, text=True
    ).stdout.strip()
    before = datetime.now(UTC).replace(microsecond=0)
    project.psy("run")
    monkeypatch.chdir(project.root)
    found = psyrun.load("fig").provenance
    assert (found["task"], found["result"], found["rows"], found["unknown"]) == (
        "fig",
        "psy-work/fig/result.pkl",
        12,
        0,
    )
    assert found["commits"] == [{"commit": head, "clean": True, "rows": 12}]
    assert found["hosts"] == {os.uname().nodename: 12}
    assert found["pythons"] == {".".join(map(str, sys.version_info[:3])): 12}
    assert found["packages"]["numpy"] == [np.__version__]
    assert "data.txt" in found["inputs"]
    began, written = (datetime.fromisoformat(each) for each in (found["evaluated"][0], found["written"]))
    assert before <= began <= written <= datetime.now(UTC)
    [code] = found["code"]
    assert (project.root / f"psy-work/fig/code/{code}.zip").exists()
    said = project.psy("status", "--receipt", "fig").stdout
    for words in (f"commit    {head} clean (12 rows)", f"numpy {np.__version__}", "input     data.txt", code):
        assert words in said
    assert json.loads(project.psy("status", "--receipt", "--json").stdout)["tasks"] == [found]
    project.edit("psy-tasks/task_fig.py", "range(3)", "range(4)")
    project.psy("run")
    assert sorted((each["clean"], each["rows"]) for each in psyrun.load("fig").provenance["commits"]) == [
        (False, 4),
        (True, 12),
    ]


# ---------------------------------------------------------------------- tables of other libraries


def test_pandas_polars_and_arrow_get_the_rows(finished):
    table = psyrun.load("fig")
    frame = table.to_pandas()
    assert list(frame.columns) == list(table)
    assert list(zip(frame.n, frame.kind, frame.seed)) == ROWS
    good = frame[frame.failure == ""]
    assert (good.rate == good.n / (good.seed + 1)).all()
    for other in (pl.DataFrame(table), pl.DataFrame(pa.table(table))):
        assert list(other.columns) == list(table)
        assert other["steps"].to_list()[:3] == [0.0, 4.0, 8.0]
        assert other["word"].to_list()[3:6] == ["qrqr", "qrqr", None]


def test_notebooks_show_results_as_spaces():
    table = {"a": range(100), "b": [np.ones(1)] * 100}
    assert Results(table)._repr_html_() == Param(**table)._repr_html_()
    assert Results({})._repr_html_() == Param()._repr_html_()


def test_duckdb_reads_the_rows_by_the_name_of_the_variable(finished):
    rows = psyrun.load("fig")
    [(number, mean)] = duckdb.sql("select count(*), avg(rate) from rows where failure = ''").fetchall()
    assert number == sum(not is_failed(row) for row in ROWS) == len(rows["n"]) - 2
    assert mean == pytest.approx(np.nanmean(rows["rate"]))


def test_arrays_become_nested_lists_and_objects():
    table = Results({"x": [1, 2], "m": [np.eye(2), 2 * np.eye(2)]}, ["x"])
    assert table.to_arrow()["m"].to_pylist() == [[[1, 0], [0, 1]], [[2, 0], [0, 2]]]
    np.testing.assert_array_equal(table.to_pandas()["m"][1], 2 * np.eye(2))
    dataset = table.to_xarray()
    assert dataset["m"].dims == ("x", "m_0", "m_1")
    np.testing.assert_array_equal(dataset["m"].sel(x=2), 2 * np.eye(2))


def draw_table(number):
    """Draw a table of random rows: a grid with holes and replicates, values of three kinds, some missing."""
    draw = random.Random(number)
    domains = {
        "a": draw.sample(range(20), draw.randint(1, 4)),
        "b": draw.sample(["x", "y", "z", "ü"], draw.randint(1, 3)),
        "c": draw.sample([0.5, -1.0, 2.25, 1e300], draw.randint(1, 3)),
    }
    names = draw.sample(sorted(domains), draw.randint(1, 3))
    grid = [()]
    for name in names:
        grid = [(*row, value) for row in grid for value in domains[name]]
    rows = [row for row in grid for _ in range(draw.choice([0, 1, 1, 1, 2, 3]))] or grid
    draw.shuffle(rows)
    table = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    table["real"] = [draw.random() if draw.random() < 0.8 else math.nan for _ in rows]
    table["count"] = [draw.randint(-5, 5) for _ in rows]
    table["text"] = [draw.choice(["u", "v", None]) for _ in rows]
    return Results(table, names), names


@pytest.mark.parametrize("number", range(40))
def test_xarray_gives_the_answers_of_pandas(number):
    table, names = draw_table(number)
    dims = names if number % 2 else random.Random(number).sample(names, len(names))
    dataset, frame = table.to_xarray(None if dims == names else dims), pd.DataFrame(dict(table))
    assert [*dataset["real"].dims][: len(names)] == dims
    most = frame.groupby(names, sort=False).size().max()
    assert ("replicate" in dataset.dims) == (most > 1)
    assert dataset.sizes.get("replicate", 1) == most
    for name in names:
        assert list(dataset[name].values) == list(dict.fromkeys(table[name]))
    for key in np.ndindex(*(dataset.sizes[name] for name in names)):
        label = {name: dataset[name].values[i] for name, i in zip(names, key)}
        here, there = dataset.sel(label), frame
        for name, value in label.items():
            there = there[there[name] == value]
        for variable in ("real", "count", "text"):
            values = list(np.atleast_1d(here[variable].values))
            wanted = list(there[variable])
            assert len(values) == most
            for value, want in zip(values, wanted):
                assert value == want or (pd.isna(value) and pd.isna(want))
            assert all(pd.isna(value) for value in values[len(wanted) :])


def test_parameters_that_are_no_dimensions_become_variables(finished):
    dataset = psyrun.load("fig").to_xarray(["kind", "n"])
    assert dataset["seed"].dims == ("kind", "n", "replicate")
    assert list(dataset["seed"].sel(kind="qr", n=8).values) == [0, 1, 2]


def test_what_is_no_grid_is_refused_with_the_cure():
    rows = range(2000)
    table = Results({name: [f"{name}{i}" for i in rows] for name in "abc"} | {"y": list(rows)}, "abc")
    with pytest.raises(ValueError, match=r"8,000,000,000 cells.*to_pandas"):
        table.to_xarray()
    assert table.to_xarray(["a"])["y"].shape == (2000,)
    with pytest.raises(ValueError, match="type list"):
        Results({"v": [[1], [2]]}, ["v"]).to_xarray()
    with pytest.raises(ValueError, match="not known"):
        Results({"v": [1, 2]}).to_xarray()
    with pytest.raises(ValueError, match="'w'"):
        Results({"v": [1, 2]}).to_xarray(["w"])


@pytest.mark.parametrize(("call", "module"), [("to_pandas", "pandas"), ("to_xarray", "xarray")])
def test_package_that_is_missing_is_named_with_its_extra(monkeypatch, call, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module} is not installed: pip install 'psyrun\[{module}\]'"):
        getattr(Results({"x": [1]}, ["x"]), call)()


# ---------------------------------------------------------------------- files of other formats


def read_rows(path):
    match path.suffix:
        case ".csv":
            return pd.read_csv(path, keep_default_na=False, na_values=["nan"])
        case ".parquet":
            return pd.read_parquet(path)
        case ".nc":
            return xr.open_dataset(path).to_dataframe().reset_index()
        case ".npz":
            with np.load(path, allow_pickle=True) as file:
                return pd.DataFrame({name: list(file[name]) for name in file})
        case _:
            return psyrun.load(path).to_pandas()


@pytest.mark.parametrize("ext", ["csv", "parquet", "nc", "npz", "h5", "pkl"])
def test_export_is_read_by_others(finished, ext):
    assert "12 rows" in finished.psy("export", "fig", f"out.{ext}").stdout
    frame = read_rows(finished.root / f"out.{ext}")
    assert len(frame) == 12
    for row in ROWS:
        [(_, found)] = frame[(frame.n == row[0]) & (frame.kind == row[1]) & (frame.seed == row[2])].iterrows()
        if is_failed(row):
            assert found.failure == "ValueError: no"
            assert math.isnan(found.rate)
        else:
            assert (found.rate, found.steps, found.word) == (
                row[0] / (row[2] + 1),
                row[0] * row[2],
                row[1] * 2,
            )
    assert "--force" in finished.psy("export", "fig", f"out.{ext}", code=2).stderr
    finished.psy("export", "--force", "fig", f"out.{ext}")
    assert sorted(path.name for path in finished.root.glob("*out*")) == [f"out.{ext}"]


def test_export_of_rows_so_far_has_their_status(project):
    project.task("fig", TASK.format(settings="").replace("True", "1"))
    project.psy("run", code=1)
    assert "10 of 12 rows" in project.psy("export", "fig", "a.csv", code=1).stderr
    project.psy("export", "--partial", "--receipts", "fig", "a.csv")
    with (project.root / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["failed" if is_failed(row) else "done" for row in ROWS]
    assert {"seconds", "peak_memory", "host"} <= rows[0].keys()


@pytest.mark.parametrize(("name", "words"), [("a.xyz", "no store for the extension"), ("a", "extension")])
def test_export_to_what_nothing_writes_is_refused(finished, name, words):
    assert words in finished.psy("export", "fig", name, code=1).stderr
    assert not (finished.root / name).exists()


def test_export_of_an_unknown_task_is_refused(finished):
    assert "gif" in finished.psy("export", "gif", "a.csv", code=2).stderr


@pytest.mark.parametrize("ext", ["csv", "parquet"])
def test_result_file_is_what_its_name_says(project, monkeypatch, ext):
    project.task("t", TASK.format(settings=f'resultfile = "../r.{ext}"'))
    project.psy("run")
    frame = read_rows(project.root / f"r.{ext}")
    assert list(zip(frame.n, frame.kind, frame.seed)) == ROWS
    monkeypatch.chdir(project.root)
    assert psyrun.load("t").parameters == ("n", "kind", "seed")
    import shutil

    shutil.rmtree("psy-work/t/out")
    project.edit("psy-tasks/task_t.py", "range(3)", "range(4)")
    assert project.count("run") == 4


@pytest.mark.parametrize("name", ["r.json", "r.xlsx", "r.nc", "r.mat", "r.txt"])
def test_result_file_of_a_format_that_is_not_written_is_refused_before_anything_runs(project, name):
    project.task("t", TASK.format(settings=f'resultfile = "{name}"'))
    done = project.psy("run", code=2)
    assert name in done.stderr
    assert ".parquet" in done.stderr
    assert project.rows_seen() == []


def test_result_file_of_an_unknown_extension_is_a_pickle(project):
    project.task("t", TASK.format(settings='resultfile = "../r.dat"'))
    project.psy("run")
    assert pickle.loads((project.root / "r.dat").read_bytes())["n"] == [row[0] for row in ROWS]


def test_parquet_without_pyarrow_is_refused_before_anything_runs(project):
    project.task("t", TASK.format(settings='resultfile = "r.parquet"'))
    code = "import sys; sys.modules['pyarrow'] = None; from psyrun.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "run"],
        cwd=project.root,
        env=project.env(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "pip install 'psyrun[arrow]'" in done.stderr
    assert project.rows_seen() == []


class TestCsv(StoreContract):
    kinds = ("integer", "real", "boolean", "text", "missing number", "missing text", "nothing")

    @pytest.fixture
    def store(self):
        return CsvStore()


class TestParquet(StoreContract):
    kinds = tuple(kind for kind in KINDS if kind not in ("complex", "object"))

    @pytest.fixture
    def store(self):
        return ParquetStore()


@pytest.mark.parametrize(
    "text", ["", " ", "007", "nan", "True", 'a"b', "a,b", "a\nb", "a\r\nb", "\ufeff", "\0"]
)
def test_text_in_csv_comes_back_as_it_was(tmp_path, text):
    CsvStore().save(tmp_path / "t.csv", {"x": [text, None, text], text: [1, 2.5, True]})
    assert CsvStore().load(tmp_path / "t.csv") == {"x": [text, None, text], text: [1, 2.5, True]}
    with (tmp_path / "t.csv").open(newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["x", text, "", text]


def test_receipt_of_an_unfinished_task_is_of_the_rows_so_far(project):
    project.task("fig", TASK.format(settings="").replace("True", "1"))
    project.psy("run", code=1)
    [found] = json.loads(project.psy("status", "--receipt", "--json").stdout)["tasks"]
    assert (found["rows"], found["unknown"], found["hosts"]) == (12, 0, {os.uname().nodename: 12})
    assert "written" not in found
    project.task("new", TASK.format(settings=""))
    assert "psy run plans" in project.psy("status", "--receipt", "new", code=2).stderr


def test_arrays_beside_failed_rows_are_exported(project, monkeypatch):
    project.task(
        "t",
        """\
        import numpy as np
        from psyrun import Param
        allow_failed = True
        pspace = Param(x=[1, 2, 3]) + Param(y=["a"])
        def execute(x, y):
            if x == 2:
                raise ValueError(x)
            return {"w": np.ones(2) * 7}
        """,
    )
    project.psy("run")
    monkeypatch.chdir(project.root)
    table = psyrun.load("t")
    wanted = [[7.0, 7.0], None, [7.0, 7.0], [7.0, 7.0]]
    assert table.to_arrow()["w"].to_pylist() == wanted
    assert table.to_arrow()["y"].to_pylist() == [None, None, None, "a"]
    project.psy("export", "t", "a.parquet")
    assert [each if each is None else list(each) for each in pd.read_parquet("a.parquet")["w"]] == wanted
    numbers = table.to_xarray(["x"])["w"]
    assert numbers.dims == ("x", "w_0")
    np.testing.assert_array_equal(numbers[:3], [[7, 7], [np.nan, np.nan], [7, 7]])
    del table["y"]
    table.parameters = ("x",)
    export(table, "a.nc")
    np.testing.assert_array_equal(xr.open_dataset("a.nc")["w"][:3], [[7, 7], [np.nan, np.nan], [7, 7]])
