"""The psy command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.cli.commands import main
else:
    __getattr__, __dir__, __all__ = open_door(__name__, commands="main")
