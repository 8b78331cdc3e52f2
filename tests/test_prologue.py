"""What a prologue may do for jobs, and what they keep in their folder, as docs/clusters.md says."""

from __future__ import annotations

import sys

import pytest

pytestmark = pytest.mark.usefixtures("sqsub")

TASK = """\
import os
import shutil
import sys
from psyrun import Param
from psyrun.scheduler import Sqsub

pspace = Param(x=range(12))
scheduler = Sqsub()
scheduler.poll = (0.2, 1.0)
scheduler.grace = 0
scheduler_args = {"timelimit": "1h", "memory": "512M"}
max_jobs = 6
prologue = "env.sh"
untracked = ["../site", "../site/*"]


def execute(x):
    return {"lab": os.environ.get("LAB"), "python": sys.executable, "program": shutil.which("solver")}
"""
MODULES = """\
module() {
    if [ "$2" != lab ]; then
        echo "module: no module $2" >&2
        return 1
    fi
    export LAB=loaded
}
"""


@pytest.fixture
def site(project):
    """A task with a prologue, on a site with a module system and an environment with a program in it."""
    project.task("a", TASK)
    modules = project.write("site/modules.sh", MODULES)
    project.write("site/bin/activate", f"export PATH='{modules.parent}/bin':$PATH\n")
    program = project.write("site/bin/solver", "#!/bin/sh\n")
    program.chmod(0o755)
    return modules.parent


def test_prologue_loads_modules_and_activates_environments_but_not_another_python(project, site):
    lines = ["set -e", f"source '{site}/modules.sh'", "module load lab", f"source '{site}/bin/activate'"]
    project.write("psy-tasks/env.sh", "\n".join(lines))
    project.psy("run", "--wait")
    result = project.result("a")
    assert result["lab"] == ["loaded"] * 12
    assert result["program"] == [str(site / "bin" / "solver")] * 12
    assert result["python"] == [sys.executable] * 12


def test_module_that_is_not_there_ends_jobs_and_is_said(project, site):
    project.write("psy-tasks/env.sh", f"set -e\nsource '{site}/modules.sh'\nmodule load physics\n")
    printed = project.psy("run", "--wait", code=1).stdout
    assert printed.count("ended early") == 1
    assert "6 of its jobs ended early: left the queue without its rows (module: no module physics)" in printed
    assert project.status("a")["missing"] == 12


def test_task_keeps_two_files_for_each_batch_and_few_others(project, site):
    project.write("psy-tasks/env.sh", "")
    project.psy("run", "--wait")
    folder = project.root / "psy-work" / "a"
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert len([path for path in files if path.parts[0] in ("in", "out")]) == 2 * 6
    assert len([path for path in files if path.parts[0] == "log"]) <= 6 + 1  # and the job that merges
    assert len([path for path in files if path.parts[0] not in ("in", "out", "log")]) <= 15, files
