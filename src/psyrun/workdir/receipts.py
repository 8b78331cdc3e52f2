"""Receipts: what process and merge were finished from, and whether a result is current."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from psyrun.disk import open_file, write_atomic
from psyrun.errors import FormatError
from psyrun.workdir.journal import parse_name
from psyrun.workdir.jsonfile import COUNT, check_shape, encode_json, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from psyrun.workdir.journal import BatchKey
    from psyrun.workdir.layout import Layout
    from psyrun.workdir.plan import Plan
    from psyrun.workdir.records import Records


FORMAT = 2
_SHAPE = {
    "failed": COUNT,
    "generators": [str],
    "reads": [[str, COUNT, COUNT]],
}


def make_receipt(plan: Plan, records: Mapping[int, Records]) -> bytes:
    """Name the journals that hold the rows of a plan: a function of their content alone."""
    journals = [list(end) for batch in plan.batches for end in records[batch.number].ends]
    generators = sorted({name for each in records.values() for name in each.generators})
    more: dict[str, Any] = {"generators": generators} if generators else {}
    wanted = plan.wanted_rows()
    failed = sum(each.count(wanted.get(number)).failed for number, each in records.items())
    more |= {"failed": failed} if failed else {}
    reads: dict[tuple[str, int], int] = {}
    for key, number in (item for each in records.values() for item in each.reads.items()):
        reads[key] = max(number, reads.get(key, 0))
    if reads:
        more["reads"] = sorted([*key, number] for key, number in reads.items())
    return encode_json(FORMAT, {"table": plan.table_digest, "journals": journals, **more})


def read_receipt(path: Path) -> dict[str, Any] | None:
    """Read a receipt; None where there is none that can be used."""
    with suppress(OSError, FormatError):
        return read_json(path, FORMAT, _check, cure="delete it")
    return None


def _check(content: dict[str, Any]) -> dict[str, Any]:
    """Raise ValueError where the content is not what psyrun says of journals and their rows."""
    check_shape({name: value for name, value in content.items() if name in _SHAPE}, _SHAPE)
    for name, end, checksum in content.get("journals", ()):
        if [type(name), type(end), type(checksum)] != [str, int, int] or parse_name(name) is None:
            raise ValueError("an entry is of another kind than psyrun writes")
    return content


def read_journal_ends(path: Path) -> dict[BatchKey, list[tuple[str, int]]]:
    """Read process.json: batch -> (journal without its suffix, bytes of it that count)."""
    ends: dict[BatchKey, list[tuple[str, int]]] = {}
    for name, end, _ in (read_receipt(path) or {}).get("journals", ()):
        if (named := parse_name(name)) is not None:
            ends.setdefault(named[0], []).append((name, end))
    return ends


def file_digest(path: Path) -> str | None:
    """Return the digest of a file's content; None where there is no such file."""
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def is_current(layout: Layout, plan: Plan | None) -> bool:
    """Whether the result file is there, whole, made from what process.json says now, and as is allowed."""
    receipt = read_receipt(layout.receipt)
    if receipt is None or plan is None or not holds_rows(layout, plan):
        return False
    failed = receipt.get("failed")
    return (failed is not None) == bool(plan.allowance) and plan.allowance.covers(failed or 0, plan.total)


def holds_rows(layout: Layout, plan: Plan) -> bool:
    """Whether the result file is whole and has the rows of a plan, failed ones among them."""
    receipt = read_receipt(layout.receipt)
    if receipt is None or receipt.get("table") != plan.table_digest:
        return False
    process = file_digest(layout.process)
    return process in (None, receipt.get("process")) and _is_whole(layout.result, receipt)


def _is_whole(result: Path, receipt: Mapping[str, Any]) -> bool:
    """Whether a result is what its receipt says; it is read only where it was touched or copied since."""
    try:
        status = result.stat()
    except OSError:
        return False
    if status.st_size != receipt.get("size"):
        return False
    return status.st_mtime_ns == receipt.get("mtime") or file_digest(result) == receipt.get("sha256")


def refresh_receipt(layout: Layout) -> None:
    """Note when a result that is current was touched or copied, so that its content is not read each time."""
    receipt = read_receipt(layout.receipt) or {}
    status = layout.result.stat()
    if receipt.get("mtime") != status.st_mtime_ns and file_digest(layout.result) == receipt.get("sha256"):
        write_receipt(layout, {**receipt, "mtime": status.st_mtime_ns})


def write_receipt(layout: Layout, content: Mapping[str, Any]) -> None:
    """Write the receipt of a result."""
    write_atomic(layout.receipt, encode_json(FORMAT, content))
