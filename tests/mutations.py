"""Mutations: each fault that psyrun must not have is put into a copy of the tree, and a test has to fail.

Run by hand: ``python tests/mutations.py [WORD...]`` tries those whose name contains one of the words, or all.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT_PATH = '{"EVALUATIONS": str(self.evaluations), "PYTHONPATH": elsewhere}'


@dataclass(frozen=True)
class Mutation:
    """A fault: in a file, new text in the place of old; and the tests of which one has to fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str


BY_COLUMN = """\
    seen = {name: set(row_keys({name: taken[name]}, value_key)) for name in taken}
    columns = [[key in seen[name] for key in row_keys({name: table[name]}, value_key)] for name in taken]
    return [not all(row) for row in zip(*columns)]
"""
LAST_WINS = """\
    for journal in journals:
        for block in read_journal(journal, rows):
            yield journal, block, range(len(block.rows))
    return
    seen: set[int] = set()
"""
SYNC = "            _sync_file(temporary)\n"
RENAME = "            temporary.replace(path)\n"

MUTATIONS = [
    Mutation(
        "failures at random have something in common",
        "cli/contrast.py",
        "log_p=self.log_p + math.log(max(1, number))",
        "log_p=self.log_p",
        "test_contrast.py -k random",
    ),
    Mutation(
        "missing rows set failed rows apart",
        "cli/failures.py",
        "if each.missing:",
        "if False:",
        "test_failures.py -k not_evaluated",
    ),
    Mutation(
        "rows compared by column",
        "pspace/algebra.py",
        "    have = Counter(others)\n",
        BY_COLUMN,
        "test_pspace.py -k single_columns",
    ),
    Mutation(
        "integers beyond 53 bits compared as floats",
        "pspace/labels.py",
        "        return None\n    if not exact:",
        "        pass\n    if not exact:",
        "test_pspace.py -k random_spaces",
    ),
    Mutation(
        "a row of a file stands for any of several rows that it may be",
        "split/unmanaged.py",
        "            places[key] = -1",
        "            pass",
        "test_old_tasks.py -k share_a_row",
    ),
    Mutation(
        "checksum of blocks not verified",
        "workdir/frame.py",
        "if zlib.crc32(body, _seed(header.tie, header.start)) != header.checksum:",
        "if False:",
        "test_journal.py",
    ),
    Mutation(
        "blocks of another tie are read",
        "workdir/frame.py",
        '    return zlib.crc32(tie + offset.to_bytes(8, "little"))\n',
        "    return zlib.crc32(bytes(16))\n",
        "test_journal.py",
    ),
    Mutation(
        "journals of another tie counted",
        "workdir/progress.py",
        "counter.count(journals.get(batch.key, ()), wanted",
        "counter.count([j for key, js in journals.items() if key.number == batch.number for j in js], wanted",
        "test_status.py -k another_tie",
    ),
    Mutation(
        "input files written over taken numbers",
        "workdir/inputs.py",
        "os.O_WRONLY | os.O_CREAT | os.O_EXCL",
        "os.O_WRONLY | os.O_CREAT",
        "test_journal.py",
    ),
    Mutation(
        "atomic write: renamed before synced",
        "disk.py",
        SYNC + RENAME,
        RENAME + SYNC.replace("temporary", "path"),
        "test_disk.py",
    ),
    Mutation(
        "journal: renamed before synced",
        "workdir/journal.py",
        """\
        try:
            self.sync()
        finally:
            os.close(self._fd)
        if self.size == 0:
            self.path.unlink()
        else:
            self.path.rename(self.path.with_suffix(".rows"))
""",
        """\
        if self.size == 0:
            self.path.unlink()
        else:
            self.path.rename(self.path.with_suffix(".rows"))
        try:
            self.sync()
        finally:
            os.close(self._fd)
""",
        "test_disk.py test_journal.py",
    ),
    Mutation(
        "imports inside functions not in the digest",
        "source/program.py",
        "return [*self._named_in_imports(statement), *self.named_in_strings(statement)]",
        "return self.named_in_strings(statement)",
        "test_source.py",
    ),
    Mutation(
        "1.0 counted as 1 for reuse",
        "pspace/keys.py",
        'float: "real"',
        'float: "integer"',
        "test_rows.py -k kinds_apart",
    ),
    Mutation(
        "failed rows counted as done",
        "workdir/records.py",
        "                done.update(block.rows)\n",
        "                done.update(block.rows)\n"
        "                done.update(f.row for f in block.failures)\n",
        "test_journal.py",
    ),
    Mutation(
        "last record wins",
        "workdir/records.py",
        "    seen: set[int] = set()\n    for journal in journals:\n",
        LAST_WINS + "    for journal in journals:\n",
        "test_journal.py test_faults.py::test_orphan_and_successor_count_each_row_once",
    ),
    Mutation(
        "rows of older code adopted beside their equals",
        "split/adoption.py",
        "            if named[key] < 0:\n",
        "            if (number, row) not in taken:\n",
        "test_edits.py -k names_each_assignment",
    ),
    Mutation(
        "records count in the order of names, whatever the receipt names",
        "workdir/progress.py",
        "    sizes = dict(ends)\n    return [",
        "    return list(journals)\n    sizes = dict(ends)\n    return [",
        "test_faults.py -k orphan_changes",
    ),
    *[
        Mutation(
            f"veto of {step} always True",
            "graph.py",
            f"    def {predicate}(self, task: Any) -> bool:\n",
            f"    def {predicate}(self, task: Any) -> bool:\n        return True\n",
            tests,
        )
        for step, predicate, tests in (
            ("split", "_is_split", "test_run.py -k force"),
            ("process", "_is_processed", "test_run.py -k loss"),
            ("merge", "_is_merged", "test_run.py -k damaged"),
        )
    ],
    Mutation(
        "no receipt before the result",
        "merge.py",
        "        write_receipt(layout, {})\n",
        "",
        "test_disk.py",
    ),
    Mutation(
        "content of a result not compared",
        "workdir/receipts.py",
        'or file_digest(result) == receipt.get("sha256")',
        "or True",
        "test_bad_input.py -k without_changing",
    ),
    Mutation(
        "--force gives up nothing but the space",
        "split/adoption.py",
        "since = number if options.force else old.since",
        "since = number if options.force else 0",
        "test_run.py -k gave_up",
    ),
]


def swap(path: Path, old: str, new: str) -> None:
    """Replace a text that is there exactly once."""
    text = path.read_text()
    if text.count(old) != 1:
        sys.exit(f"{path.name}: the text to replace occurs {text.count(old)} times: {old!r}")
    path.write_text(text.replace(old, new))


def find_failure(mutation: Mutation) -> str | None:
    """Put a fault into a copy of the tree, and return the test that fails; None where none does.

    The old text in place of the new is no fault: `main` makes sure that no test fails for another reason.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "tree")
        ignored = shutil.ignore_patterns(".*", "psy-work", "__pycache__")
        shutil.copytree(ROOT, copy, ignore=ignored)
        swap(copy / "src/psyrun" / mutation.file, mutation.old, mutation.new)
        # The psy commands of the tests are those of the copy, too.
        both = PROJECT_PATH.replace("elsewhere", f"elsewhere + {os.pathsep + str(copy / 'src')!r}")
        swap(copy / "tests/conftest.py", PROJECT_PATH, both)
        files, *more = mutation.tests.split(" -k ")
        tests = [f"tests/{name}" for name in files.split()]
        argv = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        argv += ["-k", *more] if more else []
        done = subprocess.run(
            argv,
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
        failed = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", done.stdout, re.MULTILINE)
        return failed[1] if failed else None


def main(words: list[str]) -> int:
    """Try the mutations, and print which test fails for each."""
    chosen = [each for each in MUTATIONS if not words or any(word in each.name for word in words)]
    found = {}
    for mutation in chosen:
        found[mutation.name] = failure = find_failure(mutation)
        if failure and find_failure(replace(mutation, new=mutation.old)):
            found[mutation.name] = None
            failure = f"{failure} fails without the fault, too"
        print(f"{mutation.name:45} {failure or 'SURVIVES'}", flush=True)
    return 1 if None in found.values() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
