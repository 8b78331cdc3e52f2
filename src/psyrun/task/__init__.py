"""Tasks: what a task file says, checked and frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.task.outline import Outline, check_name, prefix_store_errors, read_outline
    from psyrun.task.project import Project, Selection, find_dependencies, find_names, read_outlines
    from psyrun.task.task import Task, open_task
    from psyrun.task.template import write_template
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        outline="Outline check_name prefix_store_errors read_outline",
        project="Project Selection find_dependencies find_names read_outlines",
        task="Task open_task",
        template="write_template",
    )
