"""Workers: evaluate the rows of batches in child processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.worker.child import call_setup, command
    from psyrun.worker.chunks import Work
    from psyrun.worker.pool import StopRequest, evaluate
    from psyrun.worker.process import ChildProcess, PoolConfig, take_terminal
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        child="call_setup command",
        chunks="Work",
        pool="StopRequest evaluate",
        process="ChildProcess PoolConfig take_terminal",
    )
