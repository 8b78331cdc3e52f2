"""16 chunks as tasks of doit, and one that joins them; the environment says how many rows."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROWS = os.environ.get("ROWS", "100")
CHUNK = [sys.executable, str(HERE / "chunks.py"), ROWS]
FILES = [f"{chunk}.npy" for chunk in range(16)]


def task_chunk():
    for chunk, file in enumerate(FILES):
        yield {"name": chunk, "actions": [[*CHUNK, str(chunk)]], "targets": [file]}


def task_join():
    return {"actions": [[*CHUNK, "result.npz"]], "file_dep": FILES, "targets": ["result.npz"]}
