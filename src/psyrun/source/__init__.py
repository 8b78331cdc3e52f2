"""Captured sources: what a task file and its modules say, digested and loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.source.cache import CACHE_PATH, SourceCache, digest_data
    from psyrun.source.capture import Source, digest_with_data, read_source, read_zip, unread_names, write_zip
    from psyrun.source.loading import hidden, loaded, shown
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        cache="CACHE_PATH SourceCache digest_data",
        capture="Source digest_with_data read_source read_zip unread_names write_zip",
        loading="hidden loaded shown",
    )
