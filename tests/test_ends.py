"""Why elements of jobs ended early, from what the batch system, the log and the rows say."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from psyrun.jobs.ends import Evidence, classify, read_last_error
from psyrun.workdir import End, Layout, Submission

BATCH = SimpleNamespace(detached=True, grace=90.0)
LOCAL = SimpleNamespace(detached=False, grace=0.0)


@pytest.mark.parametrize(
    ("known", "scheduler", "reason"),
    [
        ({"reported": "TIMEOUT"}, BATCH, "TIMEOUT"),
        ({"reported": "FAILED", "printed": "no such file"}, BATCH, "FAILED (no such file)"),
        ({"reported": "FAILED (no such file)", "printed": "no such file"}, BATCH, "FAILED (no such file)"),
        ({"reported": "FAILED", "error": "no space"}, BATCH, "no space"),
        ({}, BATCH, "left the queue without its rows"),
        ({"printed": "killed"}, BATCH, "left the queue without its rows (killed)"),
        ({"lost": False}, BATCH, None),
        ({"lost": False, "printed": "killed"}, BATCH, None),
        ({"lost": False, "error": "no space"}, BATCH, "no space"),
        ({}, LOCAL, None),
        ({"reported": "ended by signal 9", "printed": "row 3"}, LOCAL, "ended by signal 9"),
    ],
)
def test_error_of_the_worker_explains_an_end_before_the_batch_system_does(known, scheduler, reason):
    evidence = Evidence(**{"lost": True, "since": 0.0} | known)
    assert classify(evidence, scheduler, now=100.0) == End(since=0.0, reason=reason, final=True)


@pytest.mark.parametrize(
    ("lost", "now", "final"),
    [(True, 89.0, False), (True, 90.0, True), (False, 0.0, True), (True, -1.0, True)],
    ids=["within the grace", "after it", "rows failed", "clock was set back"],
)
def test_missing_rows_are_waited_for_within_the_grace(lost, now, final):
    assert classify(Evidence(lost=lost, since=0.0), BATCH, now).final == final


@pytest.mark.parametrize("known", [{"reported": "CANCELLED"}, {"error": "no space"}])
def test_end_with_a_reason_needs_no_grace(known):
    assert classify(Evidence(lost=True, since=0.0, **known), BATCH, now=1.0).final


def test_end_without_a_reason_has_none_within_the_grace():
    assert classify(Evidence(lost=True, since=0.0, printed="killed"), BATCH, now=1.0) == End(since=0.0)


@pytest.mark.parametrize(
    ("own", "common", "found"),
    [
        (None, "", (None, None)),
        (None, "starting\nno module psyrun\n", (None, "no module psyrun")),
        (None, "psyrun: error: no space\nleft\n", ("no space\nleft", None)),
        ("submission p1\npsyrun: error: damaged\n", "later\n", ("damaged", None)),
        ("submission p1\n3 rows\n", "later\n", (None, None)),
        ("submission p0\npsyrun: error: of another\n", "later\n", (None, "later")),
    ],
)
def test_last_error_is_looked_for_in_the_log_of_the_element_first(tmp_path, own, common, found):
    layout = Layout(root=tmp_path, folder=tmp_path, result=tmp_path / "result.pkl")
    layout.log.mkdir()
    (layout.log / "p1.log").write_text(common)
    if own is not None:
        (layout.log / "4.log").write_text(own)
    submission = Submission(
        token="p1", task="a", code="", scheduler="X", batches=((4, "0" * 16, None),), retry=True
    )
    assert read_last_error(layout, submission, 0) == found
