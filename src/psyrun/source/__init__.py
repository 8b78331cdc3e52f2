"""Captured sources of a task file and its modules: digests, archives, loading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyrun._door import open_door

if TYPE_CHECKING:
    from psyrun.source.archive import SCHEME, Source, read_zip, write_zip
    from psyrun.source.cache import CACHE_PATH, SourceCache, digest_data
    from psyrun.source.capture import read_scripts, read_source
    from psyrun.source.digests import Analysis, digest_sources
    from psyrun.source.explanation import Explanation, Verdict, explain, find_parts
    from psyrun.source.loading import imported_modules, loaded, replaced_modules
    from psyrun.source.observe import Observer, Reading
    from psyrun.source.syntax import parse, read_statements
    from psyrun.source.tracked import TrackedPaths, describe_existence
else:
    __getattr__, __dir__, __all__ = open_door(
        __name__,
        archive="SCHEME Source read_zip write_zip",
        cache="CACHE_PATH SourceCache digest_data",
        capture="read_scripts read_source",
        digests="Analysis digest_sources",
        explanation="Explanation Verdict explain find_parts",
        loading="imported_modules loaded replaced_modules",
        observe="Observer Reading",
        syntax="parse read_statements",
        tracked="TrackedPaths describe_existence",
    )
