"""The work folder: every file of a task, and its format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.workdir.frame import INPUTS, RECEIPTS, WHERE, Counts, first_sections
    from psyrun.workdir.inhand import (
        RowsInHand,
        forget_rows_in_hand,
        list_rows_in_hand,
        remove_rows_in_hand,
        write_rows_in_hand,
    )
    from psyrun.workdir.inputs import (
        Inputs,
        create_inputs,
        is_input,
        pack_inputs,
        pack_replicates,
        read_inputs,
    )
    from psyrun.workdir.journal import (
        BatchKey,
        Failure,
        JournalWriter,
        encode_block,
        new_run,
        parse_name,
        write_journal,
    )
    from psyrun.workdir.layout import Layout, create_root
    from psyrun.workdir.lock import find_stale_claims, task_lock
    from psyrun.workdir.plan import (
        FAILURE,
        Batch,
        Plan,
        is_plan_damaged,
        pack_order,
        read_plan,
        require_plan,
        write_plan,
    )
    from psyrun.workdir.progress import (
        BatchProgress,
        PlanProgress,
        find_damaged_inputs,
        find_needed_journals,
        is_receipt_true,
        read_progress,
        verify_progress,
    )
    from psyrun.workdir.reads import Input, ReadsWriter, list_reads, pack_reads, read_reads, unpack_reads
    from psyrun.workdir.receipts import (
        file_digest,
        holds_rows,
        is_current,
        make_receipt,
        read_journal_ends,
        read_receipt,
        refresh_receipt,
        write_receipt,
    )
    from psyrun.workdir.records import (
        JournalFile,
        Records,
        RowCounter,
        find_receipts,
        list_journals,
        read_first_records,
        read_needed,
        read_records,
        read_values,
        up_to_receipt,
    )
    from psyrun.workdir.row_receipts import (
        ReceiptReader,
        Receipts,
        RowReceipt,
        Source,
        block_sources,
        pack_receipts,
        read_receipts,
        unpack_receipts,
        write_receipts,
    )
    from psyrun.workdir.submissions import (
        End,
        Submission,
        find_user,
        forget_submissions,
        list_submissions,
        new_token,
        read_submission,
        remove_submission,
        write_submission,
    )
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        frame="INPUTS RECEIPTS WHERE Counts first_sections",
        inhand="RowsInHand forget_rows_in_hand list_rows_in_hand remove_rows_in_hand write_rows_in_hand",
        inputs="Inputs create_inputs is_input pack_inputs pack_replicates read_inputs",
        journal="BatchKey Failure JournalWriter encode_block new_run parse_name write_journal",
        layout="Layout create_root",
        lock="find_stale_claims task_lock",
        plan="FAILURE Batch Plan is_plan_damaged pack_order read_plan require_plan write_plan",
        progress="BatchProgress PlanProgress find_damaged_inputs find_needed_journals "
        "is_receipt_true read_progress verify_progress",
        reads="Input ReadsWriter list_reads pack_reads read_reads unpack_reads",
        receipts="file_digest holds_rows is_current make_receipt "
        "read_journal_ends read_receipt refresh_receipt write_receipt",
        records="JournalFile Records RowCounter find_receipts list_journals read_first_records "
        "read_needed read_records read_values up_to_receipt",
        row_receipts="ReceiptReader Receipts RowReceipt Source block_sources pack_receipts "
        "read_receipts unpack_receipts write_receipts",
        submissions="End Submission find_user forget_submissions list_submissions "
        "new_token read_submission remove_submission write_submission",
    )
