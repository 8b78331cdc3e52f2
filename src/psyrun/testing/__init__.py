"""Contract tests for authors of plug-ins: what psyrun relies on, as classes of tests for pytest to collect.

A subclass provides a fixture with the object to test, and says what it can do::

    from psyrun.testing import ArrayContract, DependencyContract, ExplainContract, StoreContract

    class TestMySystem(DependencyContract, ExplainContract, ArrayContract):
        options = {"timelimit": 1}

        @pytest.fixture
        def scheduler(self):
            return MySystem()

        @pytest.fixture
        def unreachable(self, monkeypatch): ...

    class TestMyStore(StoreContract):
        kinds = ("integer", "real")

        @pytest.fixture
        def store(self):
            return MyStore()
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from psyrun._door import open_door

with suppress(ImportError):  # Assertions of the tests then show values, as those of a conftest.py do.
    import pytest

    pytest.register_assert_rewrite(
        *(f"{__name__}.{name}" for name in ("abilities", "scheduler", "store", "trial"))
    )

if TYPE_CHECKING:
    from psyrun.testing.abilities import ArrayContract as ArrayContract
    from psyrun.testing.abilities import DependencyContract as DependencyContract
    from psyrun.testing.abilities import ExplainContract as ExplainContract
    from psyrun.testing.abilities import ThrottleContract as ThrottleContract
    from psyrun.testing.abilities import WarningContract as WarningContract
    from psyrun.testing.scheduler import ABILITIES as ABILITIES
    from psyrun.testing.scheduler import DetachedContract as DetachedContract
    from psyrun.testing.scheduler import QueueContract as QueueContract
    from psyrun.testing.scheduler import SchedulerContract as SchedulerContract
    from psyrun.testing.store import KINDS as KINDS
    from psyrun.testing.store import ChunkContract as ChunkContract
    from psyrun.testing.store import StoreContract as StoreContract
    from psyrun.testing.trial import GATED as GATED
    from psyrun.testing.trial import Trial as Trial
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        abilities="ArrayContract DependencyContract ExplainContract ThrottleContract WarningContract",
        scheduler="ABILITIES DetachedContract QueueContract SchedulerContract",
        store="KINDS ChunkContract StoreContract",
        trial="GATED Trial",
    )
