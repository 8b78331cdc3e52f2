"""Captured sources: what a task file and its modules say, digested and loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.source.cache import CACHE_PATH as CACHE_PATH
    from psyrun.source.cache import SourceCache as SourceCache
    from psyrun.source.cache import digest_data as digest_data
    from psyrun.source.capture import Source as Source
    from psyrun.source.capture import digest_with_data as digest_with_data
    from psyrun.source.capture import read_source as read_source
    from psyrun.source.capture import read_zip as read_zip
    from psyrun.source.capture import unread_names as unread_names
    from psyrun.source.capture import write_zip as write_zip
    from psyrun.source.loading import hidden as hidden
    from psyrun.source.loading import loaded as loaded
    from psyrun.source.loading import shown as shown
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        cache="CACHE_PATH SourceCache digest_data",
        capture="Source digest_with_data read_source read_zip unread_names write_zip",
        loading="hidden loaded shown",
    )
