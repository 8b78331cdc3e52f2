"""Parameter spaces, tables, and keys of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.errors import AmbiguousOperationError as AmbiguousOperationError
    from psyrun.pspace.algebra import missing as missing
    from psyrun.pspace.html import show_table as show_table
    from psyrun.pspace.keys import MANY as MANY
    from psyrun.pspace.keys import identity as identity
    from psyrun.pspace.keys import row_keys as row_keys
    from psyrun.pspace.keys import stored_key as stored_key
    from psyrun.pspace.keys import unbox as unbox
    from psyrun.pspace.keys import value_key as value_key
    from psyrun.pspace.labels import label_rows as label_rows
    from psyrun.pspace.replicates import RNG as RNG
    from psyrun.pspace.replicates import make_rng as make_rng
    from psyrun.pspace.replicates import number_equals as number_equals
    from psyrun.pspace.replicates import takes_rng as takes_rng
    from psyrun.pspace.space import Param as Param
    from psyrun.pspace.space import ParameterSpace as ParameterSpace
    from psyrun.pspace.space import check_space as check_space
    from psyrun.pspace.space import iterate_rows as iterate_rows
    from psyrun.pspace.table import ABSENT as ABSENT
    from psyrun.pspace.table import Table as Table
    from psyrun.pspace.table import fill as fill
    from psyrun.pspace.table import stack as stack
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        algebra="missing",
        html="show_table",
        keys="MANY identity row_keys stored_key unbox value_key",
        labels="label_rows",
        replicates="RNG make_rng number_equals takes_rng",
        space="AmbiguousOperationError Param ParameterSpace check_space iterate_rows",
        table="ABSENT Table fill stack",
    )
