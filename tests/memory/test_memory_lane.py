"""The order and the counts of one entrypoint's jobs, and the size of what is kept for them."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from pgq_fast.memory.lane import JobRow, Lane
from pgq_fast.types import QueueEntrypoint

pytestmark = pytest.mark.impl_agnostic

START = datetime(2030, 1, 1, tzinfo=UTC)


def job(number: int, priority: int = 0, after: float = 0) -> JobRow:
    return JobRow(
        id=number,
        priority=priority,
        created=START,
        updated=START,
        heartbeat=START,
        execute_after=START + timedelta(seconds=after),
        status="queued",
        entrypoint=QueueEntrypoint("ep"),
        payload=None,
        headers=None,
        dedupe_key=None,
    )


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def drain(lane: Lane, now: datetime) -> list[int]:
    ids = []
    while (row := lane.head(now)) is not None:
        lane.drop(row)
        ids.append(row.id)
    return ids


def test_jobs_become_due_in_time_and_then_go_by_priority() -> None:
    lane = Lane()
    for row in (job(1, 0, 5), job(2, 9, 10), job(3, 1), job(4, 5, 5)):
        lane.put(row, START)
    assert (lane.queued_count, lane.ready_count(START)) == (4, 1)
    assert lane.next_due(START) == at(5)
    assert (lane.queued_count, lane.ready_count(at(5))) == (4, 3)
    assert lane.next_due(at(5)) == at(10)
    assert drain(lane, at(5)) == [4, 3, 1]
    assert (lane.queued_count, lane.ready_count(at(5))) == (1, 0)
    assert drain(lane, at(10)) == [2]
    assert (lane.queued_count, lane.next_due(at(10))) == (0, None)


def test_a_job_that_was_dropped_and_put_again_counts_once() -> None:
    lane = Lane()
    deferred, ready = job(1, after=5), job(2)
    for row in (deferred, ready):
        lane.put(row, START)
        lane.drop(row)
        lane.put(row, START)
    assert lane.queued_count == 2
    assert drain(lane, at(5)) == [1, 2]
    assert lane.queued_count == 0


def test_a_dropped_deferred_job_is_not_the_next_one_due() -> None:
    lane = Lane()
    first, second = job(1, after=5), job(2, after=9)
    lane.put(first, START)
    lane.put(second, START)
    lane.drop(first)
    assert lane.next_due(START) == at(9)


@pytest.mark.parametrize("after", [0, 60])
def test_what_is_kept_does_not_grow_with_the_jobs_that_came_and_went(after: float) -> None:
    lane = Lane()
    staying = [job(number, after=after) for number in range(10)]
    for row in staying:
        lane.put(row, START)
    for number in range(10_000):
        row = job(100 + number, after=after)
        lane.put(row, START)
        lane.drop(row)
    assert lane.queued_count == len(staying)
    assert len(lane._ready) + len(lane._deferred) < 100
    assert drain(lane, at(60)) == list(range(10))


def test_the_most_silent_job_is_found_first() -> None:
    lane = Lane()
    rows = [job(number) for number in range(4)]
    for second, row in enumerate(rows):
        row.heartbeat = at(second)
        lane.pick(row)
    rows[0].heartbeat = at(10)
    lane.heard_of(rows[0])
    assert [row.id for row in lane.silent_since(at(2))] == [1, 2]
    assert [row.id for row in lane.silent_since(at(-1))] == []
    lane.release(rows[1])
    assert [row.id for row in lane.silent_since(at(10))] == [2, 3, 0]
    assert lane.picked_count == 3


def test_the_lowest_free_slot_is_taken() -> None:
    lane = Lane()
    rows = [job(number) for number in range(5)]
    for row in rows:
        lane.pick(row)
        row.slot = lane.take_slot()
    assert [row.slot for row in rows] == [0, 1, 2, 3, 4]
    for row in (rows[3], rows[1]):
        lane.release(row)
        assert row.slot is None
    assert [lane.take_slot() for _ in range(3)] == [1, 3, 5]


def test_random_moves_keep_order_and_counts() -> None:
    chance = random.Random(7)
    lane = Lane()
    expected: dict[int, JobRow] = {}
    now = START
    for number in range(3_000):
        now += timedelta(seconds=chance.random())
        if chance.random() < 0.6:
            row = job(number, chance.randint(0, 3), (now - START).total_seconds())
            row.execute_after += timedelta(seconds=chance.choice([-1, 0, 3]))
            lane.put(row, now)
            expected[row.id] = row
        elif expected and chance.random() < 0.5:
            row = expected.pop(chance.choice(list(expected)))
            lane.drop(row)
        due = [row for row in expected.values() if row.execute_after <= now]
        head = lane.head(now)
        assert head is min(due, key=lambda row: row.rank, default=None)
        assert lane.queued_count == len(expected)
        assert lane.ready_count(now) == len(due)
        later = [row.execute_after for row in expected.values() if row.execute_after > now]
        assert lane.next_due(now) == min(later, default=None)
        if head is not None and chance.random() < 0.3:
            lane.drop(head)
            del expected[head.id]
