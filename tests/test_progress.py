"""What a run prints while it is at work."""

from functools import partial

import terminals
from psyrun.progressbar import Pace


def test_steady_rows_end_when_their_rate_says():
    pace = Pace(100, now=50.0)
    for second in range(1, 11):
        pace.look(100 + 10 * second, 50.0 + second)
    assert pace.describe(500) == ["10 rows/s", "about 30 s left"]
    assert pace.describe(200) == ["10 rows/s"]


def test_rows_that_ended_before_the_run_do_not_count_for_the_rate():
    pace = Pace(1000, now=0.0)
    assert pace.describe(2000) == []
    pace.look(1000, 10.0)
    assert pace.describe(2000) == []
    pace.look(1001, 20.0)
    assert pace.describe(2000)[0] == "0.05 rows/s"


def test_time_left_knows_stragglers():
    """999 rows of 0.1 s on one process, and one that takes ten minutes."""
    pace = Pace(0, now=0.0)
    for row in range(1000):
        pace.look(row, 0.1 * row)
    assert pace.describe(1000)[1] == "under 1 s left"
    for waited in (100.0, 300.0):
        pace.look(999, 99.9 + waited)
        assert "no row ended for about" in pace.describe(1000)[1]
    assert pace.describe(1000)[1] == "no row ended for about 5 min, perhaps about 5 min left"


def test_terminal_that_can_not_move_gets_lines(project):
    project.task("t", "from psyrun import Param\npspace = Param(x=[1])\ndef execute(x):\n    return {}\n")
    start = partial(project.start, "run", env=project.env(TERM="dumb"))
    code, said = terminals.talk(start)
    assert code == 0
    assert "t: finished, 1 row" in said
    assert "\x1b" not in said
