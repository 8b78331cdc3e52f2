"""The split step: a task and what is on disk become a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.split.adoption import count_adopted
    from psyrun.split.changes import changed_definitions, count_orphaned, count_reevaluated
    from psyrun.split.draft import Digests, compute_digests, draft_plan
    from psyrun.split.staleness import Changes, count_stale_rows, find_changes, is_stale
    from psyrun.split.states import KINDS, name_input
    from psyrun.split.step import (
        ensure_work_folder,
        hold_task,
        is_planned,
        pack_assignments,
        restore_journals,
        split,
    )
    from psyrun.split.unmanaged import describe_unmanaged, refuse_folder, refuse_unmanaged
    from psyrun.split.words import (
        count_readers,
        describe_gone,
        describe_meanwhile,
        describe_stale,
        list_read_files,
    )
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        adoption="count_adopted",
        changes="changed_definitions count_orphaned count_reevaluated",
        draft="Digests compute_digests draft_plan",
        staleness="Changes count_stale_rows find_changes is_stale",
        states="KINDS name_input",
        step="ensure_work_folder is_planned hold_task pack_assignments restore_journals split",
        unmanaged="describe_unmanaged refuse_folder refuse_unmanaged",
        words="count_readers describe_gone describe_meanwhile describe_stale list_read_files",
    )
