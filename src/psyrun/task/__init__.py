"""Tasks: what a task file says, checked and frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.task.project import Project as Project
    from psyrun.task.project import Selection as Selection
    from psyrun.task.project import find_dependencies as find_dependencies
    from psyrun.task.project import read_outlines as read_outlines
    from psyrun.task.task import Outline as Outline
    from psyrun.task.task import Task as Task
    from psyrun.task.task import check_name as check_name
    from psyrun.task.task import find_names as find_names
    from psyrun.task.task import open_task as open_task
    from psyrun.task.task import prefix_store_errors as prefix_store_errors
    from psyrun.task.task import read_outline as read_outline
    from psyrun.task.template import write_template as write_template
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        project="Project Selection find_dependencies read_outlines",
        task="Outline Task check_name find_names open_task prefix_store_errors read_outline",
        template="write_template",
    )
