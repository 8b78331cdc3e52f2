"""Results in hand: loaded by name, as tables of other libraries, written as files of other formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.results.loading import load as load
    from psyrun.results.loading import load_task as load_task
    from psyrun.results.provenance import describe_provenance as describe_provenance
    from psyrun.results.provenance import find_receipts as find_receipts
    from psyrun.results.table import Results as Results
    from psyrun.results.writing import export as export
    from psyrun.results.writing import find_writer as find_writer
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        loading="load load_task",
        provenance="describe_provenance find_receipts",
        table="Results",
        writing="export find_writer",
    )
