"""What `BatchSystem` makes of the answers of its dialects."""

from __future__ import annotations

import pytest

from psyrun.errors import NoAnswerError, SchedulerError
from psyrun.scheduler import STOPPED, BatchSystem, JobState, QueueEntry


class Dialect(BatchSystem):
    """Answers what it is given; an error is raised."""

    option_table = {}

    def __init__(self, ends=(), queue=()):
        self.ends, self.queue = ends, queue

    def array_limit(self):
        return 1

    def submit_argv(self, spec):
        return ["true"]

    def read_id(self, spec, printed):
        return "1"

    def cancel_argv(self, job_ids):
        return ["true"]

    def list_queue(self, job_ids):
        if isinstance(self.queue, Exception):
            raise self.queue
        yield from self.queue

    def explain_ends(self, job_ids):
        if isinstance(self.ends, Exception):
            raise self.ends
        return dict(self.ends)


def entry(state, reason="", element=-1):
    return QueueEntry(job="1", element=element, state=state, reason=reason)


@pytest.mark.parametrize("error", [SchedulerError(["acct"], 1, "none"), NoAnswerError(["acct"], 1, "down")])
def test_accounting_that_does_not_answer_tells_nothing_and_the_queue_tells_the_rest(error):
    assert Dialect(error).explain(["1"]) == {}
    assert Dialect(error, [entry(JobState.STUCK, "held")]).explain(["1"]) == {("1", -1): "held"}


def test_queue_that_does_not_answer_leaves_what_accounting_tells():
    assert Dialect({("1", 0): "TIMEOUT"}, NoAnswerError(["q"], 1, "")).explain(["1"]) == {("1", 0): "TIMEOUT"}


@pytest.mark.parametrize("state", [each for each in JobState if each is not JobState.STUCK])
def test_reason_of_an_element_that_is_not_stuck_is_not_told(state):
    system = Dialect(queue=[entry(state, "Priority", 0), entry(JobState.STUCK, "held", 1)])
    assert system.explain(["1"]) == {("1", 1): "held"}


def test_exit_codes_become_words_and_that_of_a_job_that_stopped_is_no_failure():
    codes = dict(enumerate((0, 3, -9, STOPPED, None, "TIMEOUT")))
    system = Dialect({("1", element): code for element, code in codes.items()})
    told = {1: "exit 3", 2: "signal 9", 3: "stopped near its time limit", 5: "TIMEOUT"}
    assert system.explain(["1"]) == {("1", element): why for element, why in told.items()}
    system.warns = False
    assert system.explain(["1"])["1", 3] == "stopped"
