"""The work folder: every file of a task, and its format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.workdir.inputs import encode_inputs, is_input, read_input_header, read_inputs
    from psyrun.workdir.journal import (
        Failure,
        JournalWriter,
        batch_of,
        encode_block,
        new_journal,
        read_blocks,
        write_journal,
    )
    from psyrun.workdir.layout import Layout
    from psyrun.workdir.lock import find_stale_claims, task_lock
    from psyrun.workdir.plan import Batch, Plan, pack_order, read_plan, require_plan, write_plan
    from psyrun.workdir.progress import (
        BatchProgress,
        PlanProgress,
        has_inputs,
        is_receipt_true,
        read_progress,
        verify_progress,
    )
    from psyrun.workdir.receipts import (
        file_digest,
        is_current,
        make_receipt,
        read_journal_ends,
        read_receipt,
        refresh_receipt,
        write_receipt,
    )
    from psyrun.workdir.records import (
        JournalFile,
        RowCounter,
        list_journals,
        read_records,
        read_values,
        up_to_receipt,
    )
    from psyrun.workdir.submissions import (
        End,
        Submission,
        forget_submissions,
        list_submissions,
        new_token,
        read_submission,
        write_submission,
    )
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        inputs="encode_inputs is_input read_input_header read_inputs",
        journal="Failure JournalWriter batch_of encode_block new_journal read_blocks write_journal",
        layout="Layout",
        lock="find_stale_claims task_lock",
        plan="Batch Plan pack_order read_plan require_plan write_plan",
        progress="BatchProgress PlanProgress has_inputs is_receipt_true read_progress verify_progress",
        receipts="file_digest is_current make_receipt "
        "read_journal_ends read_receipt refresh_receipt write_receipt",
        records="JournalFile RowCounter list_journals read_records read_values up_to_receipt",
        submissions="End Submission forget_submissions list_submissions "
        "new_token read_submission write_submission",
    )
