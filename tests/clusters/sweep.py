"""Sweeps to try clusters with: task files that count, hold rows back, and are right or not."""

from __future__ import annotations

import json

TASK = """\
import time
from counting import seen
from psyrun import Param, KIND

pspace = Param(x=range(ROWS))
scheduler = KIND()
scheduler.poll = (0.5, 2.0)
scheduler.grace = GRACE
scheduler_args = {"timelimit": "10"}
max_jobs = JOBS


def execute(x):
    seen(x)
    return {"y": 2 * x}
"""


def task(rows, jobs, grace=0, kind="Slurm", **settings):
    text = TASK.replace("ROWS", str(rows)).replace("JOBS", str(jobs)).replace("GRACE", str(grace))
    text = text.replace("KIND", kind)
    return text + "".join(f"{name} = {value!r}\n" for name, value in settings.items())


def gated(text):
    """Let rows wait until the file `gate` is there."""
    waiting = (
        "    import os\n    while not os.path.exists('../gate'):\n        time.sleep(0.02)\n    seen(x)\n"
    )
    return text.replace("    seen(x)\n", waiting) + "untracked = ['../gate']\n"


def xs_seen(project):
    return sorted(eval(line)[0] for line in project.rows_seen())


def assert_right(project, n, factor=2, name="a"):
    assert project.result(name) == {"x": list(range(n)), "y": [factor * x for x in range(n)]}


def submissions(project, name="a"):
    jobs = project.root / "psy-work" / name / "jobs"
    return [json.loads(path.read_text()) for path in jobs.glob("*.json")]
