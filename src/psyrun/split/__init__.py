"""The split step: a task and what is on disk become a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.split.adoption import is_unmanaged_result as is_unmanaged_result
    from psyrun.split.adoption import refuse_folder as refuse_folder
    from psyrun.split.adoption import refuse_unmanaged_result as refuse_unmanaged_result
    from psyrun.split.changes import changed_definitions as changed_definitions
    from psyrun.split.changes import count_kept as count_kept
    from psyrun.split.changes import count_reevaluated as count_reevaluated
    from psyrun.split.draft import Digests as Digests
    from psyrun.split.draft import compute_digests as compute_digests
    from psyrun.split.draft import draft_plan as draft_plan
    from psyrun.split.step import encode_assignments as encode_assignments
    from psyrun.split.step import ensure_work_folder as ensure_work_folder
    from psyrun.split.step import report_lock_owner as report_lock_owner
    from psyrun.split.step import restore_journals as restore_journals
    from psyrun.split.step import split as split
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        adoption="is_unmanaged_result refuse_folder refuse_unmanaged_result",
        changes="changed_definitions count_kept count_reevaluated",
        draft="Digests compute_digests draft_plan",
        step="encode_assignments ensure_work_folder report_lock_owner restore_journals split",
    )
