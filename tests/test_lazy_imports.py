"""Importing psyrun, and asking psy for help, loads nothing heavy."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

import psyrun

HEAVY = {"numpy", "joblib", "doit", "tables", "rich", "click", "cloudpickle", "flufl", "flufl.lock", "pandas"}


def loaded_by(code, *arguments):
    """Names of the heavy modules that are loaded when a program ends."""
    program = (
        f"import sys, json, atexit\nheavy = {sorted(HEAVY)!r}\n"
        "report = lambda: print('\\n' + json.dumps([name for name in heavy if name in sys.modules]))\n"
        f"atexit.register(report)\n{code}\n"
    )
    argv = [sys.executable, "-P", "-W", "error", "-c", program, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1])), done.stdout


def test_importing_psyrun_loads_nothing_heavy():
    assert loaded_by("import psyrun; psyrun.__version__; dir(psyrun)")[0] == set()


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], ["clean", "--help"]])
def test_help_loads_nothing_heavy_but_click(arguments):
    heavy, said = loaded_by("from psyrun.cli import main; main()", *arguments)
    assert heavy == {"click"}
    assert "psy" in said


LIGHT = (
    "pspace.keys",
    "workdir.journal",
    "workdir.plan",
    "worker.__main__",
    "worker.pool",
    "scheduler.registry",
)


@pytest.mark.parametrize("name", ["pspace", "errors", "scheduler", "store", "task", "jobs", *LIGHT])
def test_modules_of_the_lower_floors_load_nothing_heavy(name):
    assert loaded_by(f"import psyrun.{name}")[0] == set()


def test_spaces_of_plain_values_load_nothing_heavy():
    code = (
        "from psyrun import Param, map_pspace; map_pspace(lambda **row: row, Param(a=[1, 2]) * Param(b=[3]))"
    )
    assert loaded_by(code)[0] == set()


def test_nothing_to_do_is_found_without_numpy_and_joblib(project):
    project.task(
        "t", "from psyrun import Param\npspace = Param(x=[1])\ndef execute(x):\n    return {'y': x}\n"
    )
    project.psy("run")
    project.psy("run")
    code = f"import os; os.chdir({str(project.root)!r}); from psyrun.cli import main; main(['run'])"
    heavy, said = loaded_by(code)
    assert "up to date" in said
    assert not heavy & {"numpy", "joblib", "tables", "rich"}


FORK_FOR_EACH = """\
import os, sys
failed = []
for program in sys.argv[1:]:
    pid = os.fork()
    if pid == 0:
        exec(program)
        break
    if os.waitpid(pid, 0)[1]:
        failed.append(program)
else:
    print(*failed, sep="\\n", end="")
"""


def find_failing(programs):
    """Run each program in a process that has imported nothing; return those that fail."""
    argv = [sys.executable, "-P", "-W", "error", "-c", FORK_FOR_EACH, *programs]
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()


def test_every_public_name_can_be_imported_on_its_own():
    programs = [f"from psyrun import {name}; assert {name} is not None" for name in psyrun.__all__]
    assert find_failing([*programs, "from psyrun import Parma"]) == ["from psyrun import Parma"]


def test_dir_is_what_is_public():
    assert dir(psyrun) == sorted(psyrun.__all__) == psyrun.__all__
    names = {}
    exec("from psyrun import *", names)
    assert names.keys() - {"__builtins__"} == set(psyrun.__all__)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'psyrun' has no attribute 'Parma'"):
        psyrun.Parma  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Parma'"):
        exec("from psyrun import Parma")
    assert not hasattr(psyrun, "__path_of_nothing__")


def test_names_are_the_same_wherever_they_are_imported_from():
    for name in psyrun.__all__:
        value = getattr(psyrun, name)
        if callable(value):
            assert getattr(importlib.import_module(value.__module__), value.__name__) is value


# What old task files import; batch systems have tests of their own.
OLD = [
    "psyrun.Param",
    "psyrun.map_pspace",
    "psyrun.map_pspace_parallel",
    "psyrun.pspace.Param",
    "psyrun.pspace.missing",
    "psyrun.mapper.map_pspace",
    "psyrun.mapper.map_pspace_parallel",
    "psyrun.store.PickleStore",
    "psyrun.store.AutodetectStore",
    "psyrun.store.npz.NpzStore",
    "psyrun.store.h5.H5Store",
    "psyrun.backend.DistributeBackend",
    "psyrun.backend.LoadBalancingBackend",
    "psyrun.scheduler.Local",
    "psyrun.scheduler.ImmediateRun",
    "psyrun.doit_tasks",
]


def test_paths_that_task_files_import_from_lead_somewhere():
    split = [path.rpartition(".") for path in OLD]
    assert (
        find_failing([f"from {module} import {name}; assert callable({name})" for module, _, name in split])
        == []
    )


def test_modules_are_attributes_of_the_package():
    """Old programs say `import psyrun`, then `psyrun.pspace.missing`."""
    modules = ["pspace", "mapper", "store", "backend", "scheduler"]
    assert find_failing([f"import psyrun; psyrun.{module}" for module in modules]) == []
