"""The work folder: every file of a task, and its format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.workdir.inputs import encode_inputs as encode_inputs
    from psyrun.workdir.inputs import is_input as is_input
    from psyrun.workdir.inputs import read_input_header as read_input_header
    from psyrun.workdir.inputs import read_inputs as read_inputs
    from psyrun.workdir.journal import Failure as Failure
    from psyrun.workdir.journal import JournalWriter as JournalWriter
    from psyrun.workdir.journal import encode_block as encode_block
    from psyrun.workdir.journal import read_blocks as read_blocks
    from psyrun.workdir.layout import Layout as Layout
    from psyrun.workdir.lock import find_stale_claims as find_stale_claims
    from psyrun.workdir.lock import task_lock as task_lock
    from psyrun.workdir.plan import Batch as Batch
    from psyrun.workdir.plan import Plan as Plan
    from psyrun.workdir.plan import read_plan as read_plan
    from psyrun.workdir.plan import write_plan as write_plan
    from psyrun.workdir.progress import BatchProgress as BatchProgress
    from psyrun.workdir.progress import PlanProgress as PlanProgress
    from psyrun.workdir.progress import has_inputs as has_inputs
    from psyrun.workdir.progress import is_receipt_true as is_receipt_true
    from psyrun.workdir.progress import read_progress as read_progress
    from psyrun.workdir.progress import verify_progress as verify_progress
    from psyrun.workdir.receipts import file_digest as file_digest
    from psyrun.workdir.receipts import is_current as is_current
    from psyrun.workdir.receipts import make_receipt as make_receipt
    from psyrun.workdir.receipts import read_journal_ends as read_journal_ends
    from psyrun.workdir.receipts import read_receipt as read_receipt
    from psyrun.workdir.receipts import refresh_receipt as refresh_receipt
    from psyrun.workdir.receipts import write_receipt as write_receipt
    from psyrun.workdir.records import JournalFile as JournalFile
    from psyrun.workdir.records import RowCounter as RowCounter
    from psyrun.workdir.records import list_journals as list_journals
    from psyrun.workdir.records import read_records as read_records
    from psyrun.workdir.records import read_values as read_values
    from psyrun.workdir.records import up_to_receipt as up_to_receipt
    from psyrun.workdir.submissions import Submission as Submission
    from psyrun.workdir.submissions import forget_submissions as forget_submissions
    from psyrun.workdir.submissions import list_submissions as list_submissions
    from psyrun.workdir.submissions import new_token as new_token
    from psyrun.workdir.submissions import read_submission as read_submission
    from psyrun.workdir.submissions import write_submission as write_submission
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        inputs="encode_inputs is_input read_input_header read_inputs",
        journal="Failure JournalWriter encode_block read_blocks",
        layout="Layout",
        lock="find_stale_claims task_lock",
        plan="Batch Plan read_plan write_plan",
        progress="BatchProgress PlanProgress has_inputs is_receipt_true read_progress verify_progress",
        receipts="file_digest is_current make_receipt "
        "read_journal_ends read_receipt refresh_receipt write_receipt",
        records="JournalFile RowCounter list_journals read_records read_values up_to_receipt",
        submissions="Submission forget_submissions list_submissions "
        "new_token read_submission write_submission",
    )
