"""Time limits in the one notation of all schedulers."""

from __future__ import annotations

import pytest

from psyrun.scheduler.durations import format_duration, parse_duration, warning_seconds
from psyrun.scheduler.slurm import write_limit


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        *[("90", 5400), (90, 5400), (0.5, 30), ("1:30", 90), ("2:00:00", 7200), ("1-0", 86400)],
        *[
            ("1-2:03", 93780),
            ("1-2:03:04", 93784),
            ("2h", 7200),
            ("45s", 45),
            ("1d", 86400),
            (" 1.5 H", 5400),
        ],
    ],
)
def test_time_limits(limit, seconds):
    assert parse_duration(limit) == seconds


@pytest.mark.parametrize("limit", ["UNLIMITED", "", "1:2:3:4", "-5", "2 weeks", None, "1h30m"])
def test_what_is_no_time_limit_is_refused(limit):
    with pytest.raises(ValueError, match="write minutes"):
        parse_duration(limit)


@pytest.mark.parametrize("seconds", [1, 59, 60, 3599, 3600, 86_400, 123_456])
def test_seconds_written_are_read_again(seconds):
    assert parse_duration(format_duration(seconds)) == seconds


def test_warning_comes_in_time():
    assert [warning_seconds(limit) for limit in (None, 30, 600, 86_400)] == [60, 10, 30, 120]


def test_slurm_is_given_its_own_notation_and_words():
    limits = [write_limit(limit) for limit in (7, "2h", "1-12", "unlimited")]
    assert limits == ["0:07:00", "2:00:00", "36:00:00", "unlimited"]
