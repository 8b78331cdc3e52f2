"""A notebook is executed from end to end, in a kernel of its own: its cells show what they should."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("notebook"),  # the notebook is executed once
]
TASK = """
from psyrun import Param
pspace = Param(x=[1, 2, 3])
def execute(x):
    return {"y": x**2}
"""
CELLS = {
    "import": """
        import os, psyrun, signal, threading, time
        from psyrun import Param, map_pspace_hdd_backed, map_pspace_parallel
        """,
    "space": """
        grid = Param(word=["<b>", "c"]) * Param(n=range(1000))
        grid
        """,
    "lambda": "map_pspace_parallel(lambda a: {'square': a**2}, Param(a=[1, 2, 3]), n_jobs=2)",
    "function": """
        OFFSET, KERNEL = 10, os.getpid()

        def add(a):
            if a == 2:
                raise ValueError("no twos")
            return {"sum": a + OFFSET, "elsewhere": os.getpid() != KERNEL}

        map_pspace_parallel(add, Param(a=[1, 2, 3]), n_jobs=2, progress=True, on_error="record")
        """,
    "file": """
        map_pspace_hdd_backed(add, Param(a=[1, 2]), "sums.npz", on_error="record")["failure"]
        """,
    "file with a cure": """
        map_pspace_hdd_backed(lambda a: {"sum": -a}, Param(a=[1, 2, 3]), "sums.npz", on_error="record")["sum"]
        """,
    "interrupt": """
        def wait(a):
            open("begun", "w").close()
            time.sleep(0.01)
            return {}

        def press_ctrl_c():
            while not os.path.exists("begun"):
                time.sleep(0.01)
            signal.raise_signal(signal.SIGINT)

        threading.Thread(target=press_ctrl_c).start()
        try:
            map_pspace_parallel(wait, Param(a=range(100_000)), n_jobs=2, progress=True)
        except KeyboardInterrupt:
            print("stopped")
        """,
    "after the interrupt": "map_pspace_parallel(add, Param(a=[4]), n_jobs=2)['sum']",
    "load": "psyrun.load('squares')",
    "pandas": "psyrun.load('squares').to_pandas().query('y > 2')",
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Outputs of each cell, in a folder where psy ran a task."""
    folder = tmp_path_factory.mktemp("a notebook")
    (folder / "psy-tasks").mkdir()
    (folder / "psy-tasks/task_squares.py").write_text(TASK)
    subprocess.run([sys.executable, "-m", "psyrun.cli", "run"], cwd=folder, check=True)
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(source).strip()) for source in CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    return dict(zip(CELLS, (cell.outputs for cell in notebook.cells)))


def text_of(output):
    return output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"]


def test_functions_of_cells_and_lambdas_are_evaluated_by_other_processes(outputs):
    (squares,) = outputs["lambda"]
    assert eval(text_of(squares)) == {"a": [1, 2, 3], "square": [1, 4, 9]}
    table = eval(text_of(outputs["function"][-1]), {"nan": None})
    assert table["sum"] == [11, None, 13]
    assert table["elsewhere"] == [True, None, True]
    assert table["failure"] == ["", "ValueError: no twos", ""]


def test_progress_is_one_bar_below_its_cell(outputs):
    bar, _ = outputs["function"]
    assert bar["output_type"] == "display_data"
    words = r"3 of 3 rows, 1 failed, [\d,.]+ rows/s, (under|about) \d+ s"
    assert re.fullmatch(words, text_of(bar))
    assert re.fullmatch(f'<progress value="3" max="3"></progress> {words}', bar["data"]["text/html"])


def test_failed_rows_of_a_file_are_tried_again_by_the_cell_with_the_cure(outputs):
    assert eval(text_of(outputs["file"][-1])) == ["", "ValueError: no twos"]
    assert eval(text_of(outputs["file with a cure"][-1])) == [11, -2, -3]


def test_interrupted_cell_shows_its_progress_and_the_kernel_goes_on(outputs):
    bar, stopped = outputs["interrupt"]
    assert re.search(r"^[\d,]+ of 100,000 rows", text_of(bar))
    assert text_of(stopped) == "stopped\n"
    (sums,) = outputs["after the interrupt"]
    assert eval(text_of(sums)) == [14]


def test_spaces_and_results_are_shown_as_tables(outputs):
    (space,), (results,) = outputs["space"], outputs["load"]
    html = space["data"]["text/html"]
    assert html.count("<tr>") == 12
    assert "<td>&#x27;&lt;b&gt;&#x27;</td><td>0</td>" in html
    assert "<th>1,999</th><td>&#x27;c&#x27;</td><td>999</td>" in html
    assert html.endswith("</table>2,000 rows")
    assert results["data"]["text/html"].endswith("<th>2</th><td>3</td><td>9</td></tr></table>3 rows")


def test_results_of_tasks_become_data_frames(outputs):
    (frame,) = outputs["pandas"]
    assert [line.split() for line in text_of(frame).splitlines()] == [
        ["x", "y"],
        ["1", "2", "4"],
        ["2", "3", "9"],
    ]
