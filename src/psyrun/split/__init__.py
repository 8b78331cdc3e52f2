"""The split step: a task and what is on disk become a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.split.adoption import is_foreign as is_foreign
    from psyrun.split.adoption import refuse_folder as refuse_folder
    from psyrun.split.adoption import refuse_foreign as refuse_foreign
    from psyrun.split.changes import count_again as count_again
    from psyrun.split.changes import count_kept as count_kept
    from psyrun.split.changes import name_changes as name_changes
    from psyrun.split.draft import Digests as Digests
    from psyrun.split.draft import draft_plan as draft_plan
    from psyrun.split.draft import take_digests as take_digests
    from psyrun.split.step import attend as attend
    from psyrun.split.step import encode_assignments as encode_assignments
    from psyrun.split.step import furnish as furnish
    from psyrun.split.step import restore_journals as restore_journals
    from psyrun.split.step import split as split
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        adoption="is_foreign refuse_folder refuse_foreign",
        changes="count_again count_kept name_changes",
        draft="Digests draft_plan take_digests",
        step="attend encode_assignments furnish restore_journals split",
    )
