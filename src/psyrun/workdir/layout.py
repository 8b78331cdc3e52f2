"""The layout of a work folder: the paths that a task owns; `journal` names those of journals."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psyrun.disk import make_folders, share_folder, write_atomic

if TYPE_CHECKING:
    from pathlib import Path


def create_root(folder: Path) -> None:
    """Create the folder of all work folders, so that version control ignores its content."""
    if not folder.is_dir():
        make_folders(folder)
        share_folder(folder)
        with suppress(OSError):  # Nothing rests on it.
            write_atomic(folder / ".gitignore", b"*\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The paths of one task.

    Parameters
    ----------
    root
        The project root, absolute.
    folder
        The task's own folder, ``<workdir>/<task>``.
    result
        Its result file.
    """

    root: Path
    folder: Path
    result: Path

    @property
    def plan(self) -> Path:
        """``plan.json``: target of split."""
        return self.folder / "plan.json"

    @property
    def plan_copy(self) -> Path:
        """``plan.json.bak``: the copy of the plan, read where the plan was removed."""
        return self.folder / "plan.json.bak"

    @property
    def process(self) -> Path:
        """``process.json``: the receipt of process."""
        return self.folder / "process.json"

    @property
    def row_receipts(self) -> Path:
        """``receipts.rows``: the receipts of the rows of the result."""
        return self.folder / "receipts.rows"

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the work folder that every task has."""
        return (self.plan, self.plan_copy, self.process, self.row_receipts, self.lock)

    @property
    def receipt(self) -> Path:
        """The receipt of merge, beside the result."""
        return self.result.with_name(self.result.name + ".receipt")

    @property
    def inputs(self) -> Path:
        """Folder of the batches' assignments."""
        return self.folder / "in"

    @property
    def out(self) -> Path:
        """Folder of the journals."""
        return self.folder / "out"

    @property
    def reads(self) -> Path:
        """Folder of what rows read; it may outlive the journals."""
        return self.folder / "reads"

    @property
    def log(self) -> Path:
        """Folder of the logs of jobs."""
        return self.folder / "log"

    @property
    def jobs(self) -> Path:
        """Folder of the submissions."""
        return self.folder / "jobs"

    @property
    def lock(self) -> Path:
        """The lock, which names the psy at work."""
        return self.folder / "lock"

    def input(self, batch: int) -> Path:
        """Return the path of the assignments of a batch."""
        return self.inputs / f"{batch}.pkl"

    def code(self, digest: str) -> Path:
        """Return the path of the captured sources of a code digest."""
        return self.folder / "code" / f"{digest}.zip"

    def relative(self, path: Path) -> str:
        """Return a path relative to the root, in the one form that the graph compares."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
