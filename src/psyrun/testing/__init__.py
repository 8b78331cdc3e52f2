"""Contract tests for authors of plug-ins: what psyrun relies on, as classes of tests for pytest to collect.

A subclass provides a fixture with the object to test, and says what it can do::

    from psyrun.testing import ArrayContract, ExplainContract, StoreContract

    class TestMySystem(ArrayContract, ExplainContract):
        options = {"timelimit": 1}

        @pytest.fixture
        def scheduler(self):
            return MySystem()

    class TestMyStore(StoreContract):
        kinds = ("integer", "real")

        @pytest.fixture
        def store(self):
            return MyStore()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.testing.scheduler import GATED as GATED
    from psyrun.testing.scheduler import ArrayContract as ArrayContract
    from psyrun.testing.scheduler import DetachedContract as DetachedContract
    from psyrun.testing.scheduler import ExplainContract as ExplainContract
    from psyrun.testing.scheduler import QueueContract as QueueContract
    from psyrun.testing.scheduler import SchedulerContract as SchedulerContract
    from psyrun.testing.scheduler import Trial as Trial
    from psyrun.testing.store import KINDS as KINDS
    from psyrun.testing.store import ChunkContract as ChunkContract
    from psyrun.testing.store import StoreContract as StoreContract
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        scheduler=(
            "ArrayContract DetachedContract ExplainContract GATED QueueContract SchedulerContract Trial"
        ),
        store="KINDS ChunkContract StoreContract",
    )
