"""Backends: how rows are shared out into batches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun.backend import Backend, DistributeBackend, LoadBalancingBackend

ROWS = st.integers(0, 5000) | st.integers(0, 20)
JOBS = st.integers(1, 300) | st.integers(1, 5)
ITEMS = st.integers(1, 300) | st.integers(1, 5)


@pytest.fixture(scope="module", params=[DistributeBackend, LoadBalancingBackend])
def backend(request):
    return request.param()


@given(rows=ROWS, max_jobs=JOBS, min_items=ITEMS)
def test_every_row_is_in_one_batch_and_no_batch_is_empty(backend, rows, max_jobs, min_items):
    sizes = backend.partition(rows, max_jobs, min_items)
    assert sum(sizes) == rows
    assert all(size >= 1 for size in sizes)


@given(rows=ROWS, max_jobs=JOBS, min_items=ITEMS)
def test_only_the_last_batch_may_be_smaller_than_asked_for(backend, rows, max_jobs, min_items):
    sizes = backend.partition(rows, max_jobs, min_items)
    assert all(size >= min_items for size in sizes[:-1])


def test_backends_keep_to_the_protocol(backend):
    assert isinstance(backend, Backend)


@given(rows=ROWS, max_jobs=JOBS, min_items=ITEMS)
def test_distributed_batches_are_no_more_than_jobs_and_of_one_size(rows, max_jobs, min_items):
    sizes = DistributeBackend().partition(rows, max_jobs, min_items)
    assert len(sizes) <= max_jobs
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert not sizes or min(sizes) >= min(rows, min_items)
    fewer = min(max_jobs, rows // min_items)
    assert len(sizes) >= fewer


@given(rows=ROWS, max_jobs=JOBS, min_items=ITEMS)
def test_balanced_batches_shrink(rows, max_jobs, min_items):
    sizes = LoadBalancingBackend().partition(rows, max_jobs, min_items)
    assert sizes == sorted(sizes, reverse=True)
    assert not sizes or sizes[0] <= max(min_items, -(-rows // (2 * max_jobs)))


@given(rows=ROWS, max_jobs=JOBS, min_items=ITEMS)
def test_balanced_batches_are_more_than_jobs_where_there_are_rows_enough(rows, max_jobs, min_items):
    sizes = LoadBalancingBackend().partition(rows, max_jobs, min_items)
    if rows > 2 * max_jobs * min_items:
        assert len(sizes) > max_jobs


@given(max_jobs=JOBS)
def test_only_balanced_batches_are_throttled(max_jobs):
    assert LoadBalancingBackend().throttle(max_jobs) == max_jobs
    assert DistributeBackend().throttle(max_jobs) is None


def test_number_of_balanced_batches_grows_slowly():
    sizes = LoadBalancingBackend().partition(10**9, 100, 1)
    assert sum(sizes) == 10**9
    assert len(sizes) < 4000
