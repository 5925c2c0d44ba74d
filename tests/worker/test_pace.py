"""How many jobs a worker asks for, from what it saw of the batches before."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, strategies as st

from pgq_fast.worker.pace import (
    FIRST_BATCH,
    FIT,
    GROWTH,
    HELD_BATCHES,
    HELD_WORK,
    LARGEST_BATCH,
    LOOKED_AT,
    Pace,
)

pytestmark = pytest.mark.impl_agnostic

SHARE = HELD_WORK.total_seconds() / HELD_BATCHES


def test_a_given_size_stays() -> None:
    pace = Pace(7)
    for seconds in (0.0, 10.0):
        pace.started(7, seconds, ended=7)
        assert pace.size == 7


def test_quick_jobs_let_the_size_grow_up_to_the_largest() -> None:
    pace = Pace(None)
    sizes = []
    for _ in range(12):
        sizes.append(pace.size)
        pace.started(pace.size, 1e-6 * pace.size, ended=pace.size)
    assert sizes[:3] == [FIRST_BATCH, GROWTH * FIRST_BATCH, GROWTH**2 * FIRST_BATCH]
    assert pace.size == LARGEST_BATCH


def test_large_jobs_are_not_looked_at_in_vain() -> None:
    pace, given_size = Pace(None), Pace(2_000)
    for found, size in ((400, 400 * FIT), (3, LOOKED_AT)):
        while pace.size < LARGEST_BATCH:
            pace.started(pace.size, 1e-6 * pace.size, ended=pace.size)
        pace.cut(found)
        given_size.cut(found)
        assert pace.size == size
    assert given_size.size == 2_000


def test_while_no_job_ends_the_size_stays() -> None:
    pace = Pace(None)
    for _ in range(5):
        pace.started(pace.size, 1e-5, ended=0)
        assert pace.size == FIRST_BATCH
    pace.started(pace.size, 1e-5, ended=FIRST_BATCH)
    assert pace.size == GROWTH * FIRST_BATCH


def test_a_batch_that_was_not_full_is_no_reason_to_grow() -> None:
    pace = Pace(None)
    pace.started(FIRST_BATCH - 1, 0.0, ended=FIRST_BATCH - 1)
    assert pace.size == FIRST_BATCH
    pace.started(0, 0.0, ended=5)
    assert pace.size == FIRST_BATCH


def test_slow_jobs_cut_the_size_to_what_fits() -> None:
    pace = Pace(None)
    pace.started(FIRST_BATCH, FIRST_BATCH * SHARE / 4, ended=FIRST_BATCH)
    assert pace.size == 4
    pace.started(4, 4 * SHARE * 100, ended=4)
    assert pace.size == 1
    # A single one that was not full, too.
    pace = Pace(None)
    pace.started(1, SHARE / 3, ended=1)
    assert pace.size == 3


def test_after_a_slow_batch_it_grows_again() -> None:
    pace = Pace(None)
    pace.started(FIRST_BATCH, 100.0, ended=FIRST_BATCH)
    assert pace.size == 1
    for _ in range(20):
        pace.started(pace.size, 0.0, ended=pace.size)
    assert pace.size == LARGEST_BATCH


@given(
    st.floats(0.001, 10),
    st.lists(st.tuples(st.integers(0, 3000), st.floats(0, 100), st.integers(0, 3000))),
)
def test_whatever_happens_the_next_batch_fits(
    held: float, batches: list[tuple[int, float, int]]
) -> None:
    pace = Pace(None, timedelta(seconds=held))
    for jobs, seconds, ended in batches:
        pace.started(jobs, seconds, ended)
        assert 1 <= pace.size <= LARGEST_BATCH
        if jobs:
            share = timedelta(seconds=held).total_seconds() / HELD_BATCHES
            assert pace.size == 1 or pace.size * seconds / jobs <= share * (1 + 1e-9)
