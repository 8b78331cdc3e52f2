"""What `psy plan -v` says about what a task depends on."""

from __future__ import annotations

import time

import pytest

from psyrun.source import explain, read_source

START = "import numpy as np\nfrom psyrun import Param\n\n"


def plan_of(project, *arguments, task="t"):
    said = project.psy("plan", "-v", *arguments, task).stdout
    lines = said.splitlines()
    begin = next(i for i, line in enumerate(lines) if not line.startswith(f"{task}: "))
    return lines[begin:]


def test_short_file_is_listed_statement_by_statement(project):
    project.write(
        "psy-tasks/helper.py", "GAIN = 3\n\n\ndef f(x):\n    return x * GAIN\n\n\ndef plot(): ...\n"
    )
    project.task(
        "t",
        """\
        import numpy as np
        from psyrun import Param
        from helper import f
        values = np.linspace(0, 1, 4)
        pspace = Param(x=values)
        np.random.seed(0)
        timeout = 5
        def main(): ...
        def execute(x): return {"y": f(x)}
        """,
    )
    assert plan_of(project) == [
        "  values depend on",
        "    psy-tasks/helper.py",
        "      1  GAIN  read by f",
        "      4  f     read by execute",
        "    psy-tasks/task_t.py",
        "      6  np.random.seed(0)  may do something",
        "      9  execute",
        "    what may do something when the file is loaded counts, whether anything reads it or not",
        "  the space depends on",
        "    psy-tasks/task_t.py",
        "      4  values  read by pspace",
        "      5  pspace",
        "  proven to bind names only, which nothing of the above reads",
        "    psy-tasks/helper.py: plot (8)",
        "    psy-tasks/task_t.py: timeout (7), main (8)",
        "  installed packages, whose changes are not seen: numpy",
    ]


def test_what_counts_is_what_makes_rows_stale(project):
    project.write("psy-tasks/helper.py", "A = 1\nB = 2\ndef f(x): return x + A\n")
    project.task(
        "t",
        START + "from helper import f\nC = 5\npspace = Param(x=[1])\ndef execute(x): return {'y': f(x)}\n",
    )
    project.psy("run")
    counted = "\n".join(plan_of(project)).partition("proven")[0]
    for path, name, old in (("helper", "A", "A = 1"), ("helper", "B", "B = 2"), ("task_t", "C", "C = 5")):
        project.edit(f"psy-tasks/{path}.py", old, f"{old}0")
        stale = "evaluate" in project.psy("plan", "t").stdout
        assert stale == (f"  {name} " in counted), name
        project.edit(f"psy-tasks/{path}.py", f"{old}0", old)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("header = next(iter([1]))", "header  may do something: iter([1])"),
        ("for each in [print]:\n    each()", "for each in [print]: ...  may do something: each()"),
    ],
)
def test_statement_that_may_do_something_is_listed_with_the_part_that_may(project, code, why):
    project.task("t", START + f"{code}\npspace = Param(x=[1])\ndef execute(x): return {{'y': x}}\n")
    said = project.psy("plan", "-v", code=None)
    assert any(why in line for line in said.stdout.splitlines())


def test_definition_that_parameters_are_made_of_is_listed_so(project):
    code = (
        "class A:\n    def f(self): return 1\npspace = Param(m=[A()])\ndef execute(m): return {'y': m.f()}\n"
    )
    project.task("t", START + code)
    assert any("A" in line and "parameters may be made of it" in line for line in plan_of(project))


def test_reason_why_everything_counts_is_given(project):
    project.task("t", START + "pspace = Param(x=[1])\ndef execute(x): return {'y': eval('x')}\n")
    first, second, *_ = plan_of(project)
    assert first.startswith(
        "  all that the files of the project hold counts, since psy-tasks/task_t.py:5 may"
    )
    assert second == "    psy-tasks/task_t.py: 4 statements"


def test_data_files_are_listed(project):
    project.write("psy-tasks/rates.csv", "1\n")
    project.task(
        "t", START + "file_dep = ['rates.csv']\npspace = Param(x=[1])\ndef execute(x): return {'y': x}\n"
    )
    said = plan_of(project)
    head = "  file_dep that nothing was seen to read yet, which counts for values and space"
    assert said[said.index(head) + 1] == "    psy-tasks/rates.csv"


def long_file():
    lines = [START, "pspace = Param(x=range(9))", "REG = {}"]
    for i in range(400):
        lines += [
            f"C{i} = {i}",
            f"def step_{i}(x):",
            f"    y = x + C{i}",
            f"    return y + step_{max(i - 2, 0)}(x)",
        ]
    lines += [f"REG.setdefault({i}, []).append(np.linalg.norm({i}))" for i in range(60)]
    for i in range(400):
        lines += [f"def plot_{i}(a):", "    import matplotlib", "    return a"]
    return "\n".join([*lines, "def execute(x):", "    return {'y': step_399(x)}", ""])


def test_long_file_stays_readable_and_can_be_listed_whole(project):
    project.task("t", long_file())
    lines = plan_of(project)
    assert len(lines) < 50
    assert max(map(len, lines)) < 140
    assert any(line.split()[1:] == ["execute"] for line in lines)
    assert any("step_399" in line for line in plan_of(project, "--all"))
    assert sum("psy plan -v --all" in line for line in lines) == 3
    assert not any("psy plan -v --all" in line for line in plan_of(project, "--all"))


def test_explaining_a_long_file_takes_a_moment(project):
    path = project.task("t", long_file())
    source = read_source(project.root, path)
    began = time.perf_counter()
    assert len(explain(source).verdicts) > 1200
    assert time.perf_counter() - began < 5


def test_deep_expression_does_not_hinder(project):
    path = project.task(
        "t",
        START + f"K = {'+'.join('1' * 900)}\npspace = Param(x=[1])\ndef execute(x): return {{'y': K}}\n",
    )
    assert any(each.title == "K" and each.code for each in explain(read_source(project.root, path)).verdicts)


def test_plan_without_the_option_says_nothing_of_it(project):
    project.task("t", START + "pspace = Param(x=[1])\ndef execute(x): return {'y': x}\n")
    assert "depend" not in project.psy("plan").stdout
