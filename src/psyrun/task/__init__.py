"""Tasks: what a task file says, checked and frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.task.project import Project, Selection, find_dependencies, read_outlines
    from psyrun.task.task import (
        Outline,
        Task,
        check_name,
        find_names,
        open_task,
        prefix_store_errors,
        read_outline,
    )
    from psyrun.task.template import write_template
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        project="Project Selection find_dependencies read_outlines",
        task="Outline Task check_name find_names open_task prefix_store_errors read_outline",
        template="write_template",
    )
