"""Copy this file to dodo.py, beside psy-tasks, to run the tasks with plain doit.

``doit`` runs everything that is not up to date, ``doit list --all`` shows the graph, and other tasks may name
``psy-work/<task>/result.pkl`` in their ``file_dep``. ``psy run`` works on the same files.
"""

from pathlib import Path

import psyrun

Path("psy-work").mkdir(exist_ok=True)
DOIT_CONFIG = {"dep_file": "psy-work/.doit.db", "backend": "psyrun", "continue": True}


def task_psy():
    """Yield split, process and merge for each task file."""
    yield from psyrun.doit_tasks("psy-tasks")
