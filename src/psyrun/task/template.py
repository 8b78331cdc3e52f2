"""Template of a new task file, which runs as it is and has a line about each setting."""

from __future__ import annotations

from importlib import import_module

from psyrun.scheduler import BUILT_IN, Local, Scheduler, create_scheduler
from psyrun.task.settings import SETTINGS

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
        Class name of the scheduler, or its module and class name with dots.

    Raises
    ------
    LookupError
        If there is no such scheduler.
    """
    found = _import_scheduler(scheduler) if "." in scheduler else create_scheduler(scheduler)
    kind, default = type(found).__name__, type(found) is Local
    imports = "from psyrun import Param"
    if kind not in BUILT_IN:
        imports += f"\nfrom {type(found).__module__} import {kind}"
    elif not default:
        imports += f", {kind}"
    lines = [_HEAD.format(imports=imports)]
    for setting, example in _EXAMPLES.items():
        lines.append(f"# {setting} = " + example.replace("{name}", name))
        lines.append(f"#     {SETTINGS[setting].meaning}")
    lines += ["# setup = None", f"#     {SETTINGS['setup'].meaning}; what it returns is passed to execute"]
    lines += _DEFAULT if default else _scheduler_lines(kind, found)
    return "\n".join(lines) + "\n"


def _import_scheduler(name: str) -> Scheduler:
    module, _, kind = name.rpartition(".")
    try:
        found = getattr(import_module(module), kind)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise LookupError(f"no scheduler {name!r} ({error}); there are {', '.join(BUILT_IN)}") from error
    if isinstance(found, Scheduler):
        return found
    raise LookupError(f"{name!r} is no scheduler; there are {', '.join(BUILT_IN)}")


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
