"""Template of a new task file, which runs as it is and has a line about each setting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun.scheduler import Local, create_scheduler
from psyrun.task.settings import SETTINGS

if TYPE_CHECKING:
    from psyrun.scheduler import Scheduler


_HEAD = '''\
"""What this task is about."""

{imports}

pspace = Param(x=range(10)) * Param(repetition=range(3))


def execute(x, repetition):
    """Evaluate one assignment; return a dict of named values."""
    return {{"y": x**2 + repetition}}


# Settings. Remove the # to change one; what all tasks share may stand in psy-conf.py, in this folder.
'''
# Values to begin with.
_EXAMPLES = {
    "file_dep": '["data.csv"]',
    "resultfile": '"../results/{name}.npz"',
    "store": "NpzStore()  # from psyrun import NpzStore",
    "exclude_from_result": '["big"]',
    "max_jobs": "100",
    "min_items": "1",
    "pool_size": "4",
    "timeout": "3600",
    "backend": "LoadBalancingBackend()  # from psyrun import LoadBalancingBackend",
    "workdir": '"psy-work"',
    "python": '".venv/bin/python"',
    "overwrite_dirty": "False",
    "allow_failed": "0.05",
    "untracked": '["scratch/*"]',
    "stateless": "True",
    "track_inputs": "False",
    "prologue": '"env.sh"',
    "merge_args": "{}",
    "name": '"{name}"',
}


_DEFAULT = (
    "# scheduler = Local()  # from psyrun import Local",
    f"#     {SETTINGS['scheduler'].meaning}",
    "# scheduler_args = {}",
    "#     options for it; psy new-task --scheduler S lists those of S",
)


def write_template(name: str, scheduler: str) -> str:
    """Return the text of a new task file.

    Parameters
    ----------
    name
        The task's name.
    scheduler
        Class name of the scheduler.

    Raises
    ------
    LookupError
        If there is no such scheduler.
    """
    found = create_scheduler(scheduler)
    default = type(found) is Local
    imports = "from psyrun import Param" if default else f"from psyrun import Param, {scheduler}"
    lines = [_HEAD.format(imports=imports)]
    for setting, example in _EXAMPLES.items():
        lines.append(f"# {setting} = " + example.replace("{name}", name))
        lines.append(f"#     {SETTINGS[setting].meaning}")
    lines += ["# setup = None", f"#     {SETTINGS['setup'].meaning}; what it returns is passed to execute"]
    lines += _DEFAULT if default else _scheduler_lines(scheduler, found)
    return "\n".join(lines) + "\n"


def _scheduler_lines(name: str, scheduler: Scheduler) -> list[str]:
    lines = ["", f"scheduler = {name}()"]
    if not scheduler.options:
        return lines
    required = scheduler.required
    options = [
        f"    {name!r}: {required[name]!r},  # {meaning}"
        if name in required
        else f"    # {name!r}: ...,  # {meaning}"
        for name, meaning in scheduler.options.items()
    ]
    return [*lines, "scheduler_args = {", *options, "}"]
