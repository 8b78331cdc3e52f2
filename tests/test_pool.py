"""The pool: whatever a child does, every row ends in one block or failure, and nothing stays behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import pytest

from psyrun.errors import ExecuteError
from psyrun.worker import pool
from psyrun.worker.chunks import Work
from psyrun.worker.pool import StopRequest, evaluate
from psyrun.worker.process import PoolConfig

CHILD = """
import ctypes, json, os, signal, subprocess, sys, time
from pathlib import Path
from psyrun.worker.protocol import ERROR, connect, serve

acts = json.loads(sys.argv[1])
connection = connect(sys.argv[-7:])
exec(acts.get("setup", ""))

def answer(request):
    rows = []
    for row in connection.iter_rows(request):
        exec(acts.get(str(row), acts.get("each", "")))
        rows.append(row)
    exec(acts.get("after", ""))
    return len(rows), json.dumps([request.batch, connection.slot, rows]).encode() + b" " * acts.get("bulk", 0)

serve(connection, answer)
"""


class Ledger:
    """A sink that checks that blocks are about the rows that they are said to be about."""

    def __init__(self):
        self.done = []
        self.failed = {}
        self.reasons = {}
        self.slots = defaultdict(set)
        self.bytes = 0

    def block(self, child, batch, rows, data):
        number, slot, sent = json.loads(data)
        assert (number, sent) == (batch, list(rows))
        self.done += [(batch, row) for row in rows]
        self.slots[slot].update(rows)
        self.bytes += len(data)

    def fail(self, child, batch, row, reason, seconds):
        assert seconds >= 0
        assert (batch, row) not in self.failed
        self.failed[batch, row] = reason
        self.reasons[row] = reason

    def check(self, n, batch=0):
        ended = sorted([*self.done, *self.failed])
        assert ended == [(batch, row) for row in range(n)]


@pytest.fixture
def toy(tmp_path):
    """Return a function that makes a pool of toy children, which do as their acts say."""
    script = tmp_path / "toy.py"
    script.write_text(CHILD)

    def make(acts=None, size=2, **settings):
        argv = [sys.executable, "-P", str(script), json.dumps(acts or {})]
        return PoolConfig(argv=argv, size=size, **settings)

    return make


@pytest.fixture(autouse=True)
def started(monkeypatch):
    """Record the children, and check afterwards that they are gone, and that no descriptor is left open."""
    children = []
    start = pool.start_child

    def record(*args):
        children.append(start(*args))
        return children[-1]

    monkeypatch.setattr(pool, "start_child", record)
    before = count_descriptors()
    yield children
    assert [child.process.pid for child in children if child.process.returncode is None] == []
    assert count_descriptors() == before


def assert_done(toy, act):
    """A row that does this has values, as its neighbours have."""
    ledger = Ledger()
    assert evaluate(rows(3), ledger, toy({"1": act}))
    ledger.check(3)
    assert ledger.failed == {}


def stop_when(condition):
    return lambda: StopRequest.STOP if condition() else StopRequest.NONE


def rows(n, batch=0):
    return [Work(batch=batch, rows=range(n))]


def count_descriptors():
    return sum(1 for _ in Path("/dev/fd").iterdir())


def is_alive(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(state.strip()) and not state.strip().startswith("Z")


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def read_pids(folder):
    return [int(path.name) for path in Path(folder).iterdir()]


# ---------------------------------------------------------------------- rows


def test_every_row_of_every_batch_ends_once(toy):
    ledger = Ledger()
    work = [Work(batch=7, rows=range(1000)), Work(batch=9, rows=[]), Work(batch=8, rows=[5, 3, 900])]
    assert evaluate(work, ledger, toy())
    assert sorted(ledger.done) == [*((7, row) for row in range(1000)), (8, 3), (8, 5), (8, 900)]
    assert ledger.failed == {}


def test_no_rows_need_no_child(toy, started):
    assert evaluate([], Ledger(), toy())
    assert started == []


def test_no_more_children_than_rows_are_started(toy, started):
    assert evaluate(rows(2), Ledger(), toy(size=8))
    assert len(started) == 2


def test_rows_of_microseconds_travel_in_few_messages(toy):
    blocks = []
    ledger = Ledger()
    ledger.block = lambda child, batch, rows, data: blocks.append(len(rows))
    assert evaluate(rows(100_000), ledger, toy())
    assert sum(blocks) == 100_000
    assert len(blocks) < 2000


def test_row_numbers_longer_than_a_pipe_arrive(toy):
    ledger = Ledger()
    numbers = list(range(0, 400_000, 2))
    assert evaluate([Work(batch=0, rows=numbers)], ledger, toy())
    assert sorted(row for _, row in ledger.done) == numbers


def test_a_child_gives_back_what_it_has_no_time_for(toy):
    acts = {"each": "if row >= 3000: time.sleep(0.05)"}
    ledger = Ledger()
    assert evaluate(rows(3020), ledger, toy(acts))
    ledger.check(3020)
    slow = [sum(row >= 3000 for row in ledger.slots[slot]) for slot in (0, 1)]
    assert min(slow) >= 3


def test_a_result_of_50_megabytes_arrives(toy):
    ledger = Ledger()
    assert evaluate(rows(2), ledger, toy({"bulk": 50_000_000}))
    ledger.check(2)
    assert ledger.bytes > 100_000_000


def test_megabytes_of_print_block_nobody(toy, capfd):
    ledger = Ledger()
    assert evaluate(rows(4), ledger, toy({"each": "print('x' * 3_000_000)"}))
    ledger.check(4)
    assert len(capfd.readouterr().out) == 4 * 3_000_001


# ---------------------------------------------------------------------- deaths


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ("os._exit(137)", "exit 137"),
        ("os._exit(0)", "exit 0"),
        ("ctypes.string_at(0)", "signal 11 (SIGSEGV)"),
        ("os.abort()", "signal 6 (SIGABRT)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal 9 (SIGKILL)"),
    ],
)
def test_a_death_fails_exactly_the_row_that_died(toy, act, reason, capfd):
    ledger = Ledger()
    assert evaluate(rows(200), ledger, toy({"0": act, "70": act, "71": act, "199": act}))
    ledger.check(200)
    assert ledger.reasons == dict.fromkeys([0, 70, 71, 199], reason)


@pytest.mark.parametrize(
    "act",
    [
        "while True: pass",
        "ctypes.PyDLL(None).sleep(1000)",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)",
        "os.setpgid(0, os.getpgid(os.getppid())); time.sleep(1000)",
    ],
    ids=["python loop", "C call holding the GIL", "sleep deaf to SIGTERM", "sleep in another group"],
)
def test_a_row_that_takes_too_long_is_killed(toy, act):
    ledger = Ledger()
    began = time.monotonic()
    assert evaluate(rows(50), ledger, toy({"20": act}, timeout=0.4))
    assert time.monotonic() - began < 10
    ledger.check(50)
    assert ledger.reasons == {20: "timeout (0.4 s)"}


def test_rows_within_the_timeout_may_take_longer_together(toy):
    ledger = Ledger()
    assert evaluate(rows(12), ledger, toy({"each": "time.sleep(0.1)"}, timeout=0.5))
    ledger.check(12)
    assert ledger.failed == {}


def test_setup_may_take_longer_than_the_timeout(toy):
    ledger = Ledger()
    assert evaluate(rows(3), ledger, toy({"setup": "time.sleep(0.6)"}, timeout=0.2))
    assert ledger.failed == {}


@pytest.mark.parametrize(
    "act",
    [
        "os.closerange(0, 5000)",
        "os.closerange(0, 5000); time.sleep(3)",
        "os.write(connection._messages, b'not a message of psyrun\\n' * 9)",
    ],
    ids=["closed", "closed and alive", "garbage"],
)
def test_a_row_that_cuts_its_child_off_is_found_and_its_neighbours_are_not_blamed(toy, act):
    ledger = Ledger()
    assert evaluate(rows(30), ledger, toy({"20": act}))
    ledger.check(30)
    assert ledger.reasons == {20: "closed the pipes to psyrun"}


def test_closing_low_descriptors_does_not_disturb(toy):
    ledger = Ledger()
    assert evaluate(rows(30), ledger, toy({"each": "os.closerange(3, 200)"}))
    ledger.check(30)
    assert ledger.failed == {}


def test_a_row_after_which_its_child_dies_is_found_among_its_neighbours(toy):
    ledger = Ledger()
    assert evaluate(rows(30), ledger, toy({"after": "if 20 in rows: os._exit(3)"}))
    ledger.check(30)
    assert ledger.reasons == {20: "exit 3"}


def test_a_replacement_takes_the_slot_of_the_dead(toy):
    ledger = Ledger()
    acts = {str(row): "os._exit(1)" for row in range(0, 40, 4)}
    assert evaluate(rows(40), ledger, toy(acts))
    assert set(ledger.slots) <= {0, 1}


def test_a_copy_that_a_row_forks_ends_with_the_row(toy):
    ledger = Ledger()
    assert evaluate(rows(40), ledger, toy({"10": "os.fork()", "11": "os.fork()"}))
    ledger.check(40)
    assert ledger.failed == {}


@pytest.mark.parametrize(
    "leave",
    [
        "pid = subprocess.Popen(['sleep', '1000'], stdout=subprocess.DEVNULL).pid",
        "pid = os.fork()\nif pid == 0: time.sleep(1000)",
    ],
    ids=["exec", "fork"],
)
@pytest.mark.parametrize("end", ["", "os._exit(1)"], ids=["child lives", "child dies"])
def test_what_a_row_leaves_running_is_killed(toy, tmp_path, leave, end):
    ledger = Ledger()
    note = tmp_path / "pid"
    assert evaluate(rows(5), ledger, toy({"2": f"{leave}\nPath({str(note)!r}).write_text(str(pid))\n{end}"}))
    ledger.check(5)
    assert len(ledger.failed) == (1 if end else 0)
    wait_until(lambda: not is_alive(int(note.read_text())))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_row_that_takes_too_long_is_killed_with_all_that_it_started(toy, tmp_path):
    note = tmp_path / "pid"
    leave = "subprocess.Popen(['sleep', '1000'], stdout=subprocess.DEVNULL, start_new_session=True)"
    ledger = Ledger()
    acts = {"2": f"process = {leave}\nPath({str(note)!r}).write_text(str(process.pid))\nprocess.wait()"}
    assert evaluate(rows(5), ledger, toy(acts, timeout=0.5))
    assert ledger.reasons == {2: "timeout (0.5 s)"}
    wait_until(lambda: not is_alive(int(note.read_text())))


@pytest.mark.slow
def test_many_deaths_in_a_row_cost_a_row_each_and_no_memory(toy, started):
    ledger = Ledger()
    held = []
    tracemalloc.start()
    try:
        for batch, n in enumerate((20, 80)):
            assert evaluate(rows(n, batch), ledger, toy({"each": "os._exit(1)"}))
            started.clear()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert len(ledger.failed) == 100
    assert held[1] - held[0] < 50_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_kills_from_outside_cost_at_most_a_row_each(toy, started, seed):
    draw = random.Random(seed)
    ledger = Ledger()
    kills = 0
    due = time.monotonic()

    def kill_now_and_then():
        nonlocal kills, due
        living = [c.process for c in started if c.ready and c.process.returncode is None]
        if kills < 12 and living and time.monotonic() > due:
            with suppress(ProcessLookupError):
                os.kill(draw.choice(living).pid, signal.SIGKILL)
            kills += 1
            due = time.monotonic() + draw.random() * 0.1
        return False

    acts = {"each": "time.sleep(0.0005)", "bulk": 300_000}
    assert evaluate(rows(3000), ledger, toy(acts), stop=stop_when(kill_now_and_then))
    ledger.check(3000)
    assert kills == 12
    assert len(ledger.failed) <= kills
    assert set(ledger.reasons.values()) <= {"signal 9 (SIGKILL)"}


# ---------------------------------------------------------------------- setup


def test_what_a_child_reports_is_raised_at_once(toy, started):
    acts = {"setup": "connection.send(ERROR, b'no such model')"}
    with pytest.raises(ExecuteError, match="no such model"):
        evaluate(rows(10), Ledger(), toy(acts, size=1))
    assert len(started) == 1


def test_three_deaths_before_a_child_was_ready_are_an_error_of_setup(toy, started):
    with pytest.raises(ExecuteError, match=r"died before it was ready, 3 times .* \(exit 9\)"):
        evaluate(rows(10), Ledger(), toy({"setup": "os._exit(9)"}, size=1))
    assert len(started) == 3


def test_a_command_that_does_not_exist_is_an_error(toy):
    with pytest.raises(FileNotFoundError):
        evaluate(rows(1), Ledger(), PoolConfig(argv=["/nonexistent/python"], size=1))


# ---------------------------------------------------------------------- the end


def test_stop_gives_up_what_is_not_finished_within_the_grace(toy):
    ledger = Ledger()
    began = time.monotonic()
    stop = stop_when(lambda: len(ledger.done) >= 5)
    acts = {str(row): "time.sleep(100)" for row in (20, 30)}
    assert not evaluate(rows(10_000), ledger, toy(acts, grace=0.2), stop=stop)
    assert time.monotonic() - began < 10
    assert 5 <= len(ledger.done) < 10_000


def test_stop_keeps_what_is_finished_within_the_grace(toy, started):
    ledger = Ledger()
    stop = stop_when(lambda: any(child.pending for child in started))
    assert not evaluate(rows(50), ledger, toy({"each": "time.sleep(0.3)"}, size=1, grace=10), stop=stop)
    assert ledger.done == [(0, 0)]


def test_finish_waits_for_rows_that_were_begun_and_begins_no_others(toy, started):
    ledger = Ledger()
    begun = []

    def finish():
        begun.extend(child for child in started if child.pending)
        return StopRequest.FINISH if begun else StopRequest.NONE

    assert not evaluate(rows(50), ledger, toy({"each": "time.sleep(0.8)"}, size=1, grace=0), stop=finish)
    assert ledger.done == [(0, 0)]


def test_sigterm_to_all_processes_of_a_job_is_no_fault_of_the_rows(toy, started, tmp_path):
    ledger = Ledger()
    sent = []
    enough = tmp_path / "enough"

    def terminate():
        at_work = [child.process for child in started if child.pending and child.marker.marks[0]]
        if len(sent) < 20 and at_work:
            sent.append(at_work[0])
            sent[-1].send_signal(signal.SIGTERM)
        elif len(sent) == 20:
            enough.touch()
        return StopRequest.NONE

    acts = {"each": "time.sleep(0.002)", "39": f"while not os.path.exists({str(enough)!r}): time.sleep(0.01)"}
    assert evaluate(rows(40), ledger, toy(acts), stop=terminate)
    ledger.check(40)
    assert ledger.failed == {}
    assert len(sent) == 20


def test_what_execute_starts_ends_with_sigterm(toy):
    act = (
        "import multiprocessing; fork = multiprocessing.get_context('fork'); "
        "p = fork.Process(target=time.sleep, args=(60,)); p.start(); p.terminate(); p.join(20); "
        "assert p.exitcode == -signal.SIGTERM; "
        "q = subprocess.Popen(['sleep', '60']); q.terminate(); assert q.wait(20) == -signal.SIGTERM"
    )
    assert_done(toy, act)


def test_a_fork_leaves_blocked_signals_as_they_are(toy):
    act = (
        "import multiprocessing; fork = multiprocessing.get_context('fork'); "
        "before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR2]); "
        "p = fork.Process(target=print); p.start(); p.join(20); "
        "assert signal.pthread_sigmask(signal.SIG_SETMASK, before) == {signal.SIGTERM, signal.SIGUSR2}; "
        "p = fork.Process(target=print); p.start(); p.join(20); "
        "assert signal.pthread_sigmask(signal.SIG_SETMASK, before) == before"
    )
    assert_done(toy, act)


def test_a_child_may_tidy_up_at_the_end(toy, tmp_path):
    note = tmp_path / "note"
    setup = f"import atexit; atexit.register(lambda: Path({str(note)!r}).write_text('done'))"
    assert evaluate(rows(3), Ledger(), toy({"setup": setup}, size=1, grace=5))
    assert note.read_text() == "done"


def test_a_child_that_does_not_end_is_killed(toy):
    setup = "import threading; threading.Thread(target=time.sleep, args=(1000,)).start()"
    began = time.monotonic()
    assert evaluate(rows(3), Ledger(), toy({"setup": setup}, grace=0.1))
    assert time.monotonic() - began < 10


def test_an_error_of_the_sink_stops_everything(toy):
    class Full(Ledger):
        def block(self, *args):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        evaluate(rows(1000), Full(), toy({"each": "time.sleep(0.01)"}))


PARENT = """
import json, sys
from psyrun.worker.process import PoolConfig
from psyrun.worker.chunks import Work
from psyrun.worker.pool import evaluate
argv, act = sys.argv[1:-1], sys.argv[-1]
evaluate([Work(batch=0, rows=range(8))], None, PoolConfig(argv=argv, size=2))
"""


@pytest.mark.parametrize(
    "act",
    [
        pytest.param("while True: pass", id="python loop"),
        pytest.param(
            "ctypes.PyDLL(None).sleep(1000)",
            id="C call holding the GIL",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel kills for us"),
        ),
        pytest.param("os.closerange(3, 5000); time.sleep(1000)", id="closed pipes"),
    ],
)
def test_children_go_with_their_parent(toy, tmp_path, act):
    pids = tmp_path / "pids"
    pids.mkdir()
    each = f"Path({str(pids)!r}, str(os.getpid())).touch()\n{act}"
    argv = toy({"each": each}).argv
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *argv, act])
    try:
        wait_until(lambda: len(read_pids(pids)) == 2)
    finally:
        parent.kill()
        parent.wait()
    try:
        wait_until(lambda: not any(map(is_alive, read_pids(pids))))
    finally:
        for pid in filter(is_alive, read_pids(pids)):
            os.kill(pid, signal.SIGKILL)
