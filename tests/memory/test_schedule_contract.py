"""What cron schedules promise, wherever they are kept: in memory and on PostgreSQL."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pgq_fast.memory import InMemoryQueries
from pgq_fast.memory.schedules import ScheduleStore
from pgq_fast.models import CronExpressionEntrypoint, Schedule, utc_now
from pgq_fast.types import CronEntrypoint, CronExpression

PAST = -timedelta(minutes=1)
HOUR = timedelta(hours=1)


def key(name: str, expression: str = "* * * * *") -> CronExpressionEntrypoint:
    return CronExpressionEntrypoint(CronEntrypoint(name), CronExpression(expression))


def names(schedules: list[Schedule]) -> list[str]:
    return sorted(schedule.entrypoint for schedule in schedules)


async def test_a_schedule_is_registered_once(queries: InMemoryQueries) -> None:
    await queries.insert_schedule({key("a"): HOUR})
    (first,) = await queries.peek_schedule()
    await queries.insert_schedule({key("a"): PAST, key("a", "0 * * * *"): HOUR, key("b"): HOUR})
    schedules = await queries.peek_schedule()
    assert names(schedules) == ["a", "a", "b"]
    assert first in schedules
    assert (first.status, first.last_run) == ("queued", None)
    assert first.next_run.microsecond == 0
    assert abs(first.next_run - first.created - HOUR) <= timedelta(seconds=1)


async def test_a_due_schedule_is_claimed_once_and_moves_on(queries: InMemoryQueries) -> None:
    await queries.insert_schedule({key("due"): PAST, key("later"): HOUR, key("unasked"): PAST})
    asked = {key("due"): HOUR, key("later"): HOUR, key("unknown"): HOUR}
    (claimed,) = await queries.fetch_schedule(asked)
    assert (claimed.entrypoint, claimed.status) == ("due", "picked")
    assert claimed.next_run > claimed.updated
    assert await queries.fetch_schedule(asked) == []


async def test_a_finished_schedule_runs_again_when_it_is_due(queries: InMemoryQueries) -> None:
    await queries.insert_schedule({key("a"): PAST})
    (claimed,) = await queries.fetch_schedule({key("a"): HOUR})
    await queries.set_schedule_queued({claimed.id})
    (done,) = await queries.peek_schedule()
    assert done.status == "queued"
    assert done.last_run is not None
    assert await queries.fetch_schedule({key("a"): HOUR}) == []

    await queries.clear_schedule()
    await queries.insert_schedule({key("a"): PAST})
    (claimed,) = await queries.fetch_schedule({key("a"): PAST})
    await queries.set_schedule_queued({claimed.id})
    assert names(await queries.fetch_schedule({key("a"): HOUR})) == ["a"]


async def test_a_heartbeat_shows(queries: InMemoryQueries) -> None:
    await queries.insert_schedule({key("a"): PAST})
    (claimed,) = await queries.fetch_schedule({key("a"): HOUR})
    await queries.update_schedule_heartbeat({claimed.id})
    (seen,) = await queries.peek_schedule()
    assert seen.heartbeat > claimed.heartbeat
    assert seen.status == "picked"


async def test_schedules_that_ran_come_first_the_longest_idle_before(
    queries: InMemoryQueries,
) -> None:
    await queries.insert_schedule({key("a"): PAST, key("b"): PAST, key("c"): PAST})
    ids = {schedule.entrypoint: schedule.id for schedule in await queries.peek_schedule()}
    await queries.set_schedule_queued({ids[CronEntrypoint("c")]})
    await queries.set_schedule_queued({ids[CronEntrypoint("b")]})
    assert [schedule.entrypoint for schedule in await queries.peek_schedule()] == ["c", "b", "a"]


async def test_schedules_are_forgotten_by_id_by_name_or_all(queries: InMemoryQueries) -> None:
    await queries.insert_schedule({key(name): HOUR for name in "abcd"})
    ids = {schedule.entrypoint: schedule.id for schedule in await queries.peek_schedule()}
    await queries.delete_schedule({ids[CronEntrypoint("a")]}, {CronEntrypoint("b")})
    assert names(await queries.peek_schedule()) == ["c", "d"]
    await queries.delete_schedule(set(), set())
    assert names(await queries.peek_schedule()) == ["c", "d"]
    await queries.clear_schedule()
    assert await queries.peek_schedule() == []


@pytest.mark.impl_agnostic
def test_an_abandoned_schedule_is_taken_over() -> None:
    store, now = ScheduleStore(), utc_now()
    store.insert({key("a"): PAST}, now)
    (first,) = store.claim({key("a"): HOUR}, now)
    assert store.claim({key("a"): HOUR}, now + timedelta(seconds=30)) == []
    store.beat({first.id}, now + timedelta(seconds=20))
    assert store.claim({key("a"): HOUR}, now + timedelta(seconds=50)) == []
    (again,) = store.claim({key("a"): HOUR}, now + timedelta(seconds=51))
    assert again.id == first.id


@pytest.mark.impl_agnostic
def test_what_is_handed_out_does_not_change_the_schedule() -> None:
    store, now = ScheduleStore(), utc_now()
    store.insert({key("a"): PAST}, now)
    (claimed,) = store.claim({key("a"): HOUR}, now)
    claimed.status = "failed"
    (seen,) = store.listing()
    seen.next_run = now
    assert [(row.status, row.next_run > now) for row in store.listing()] == [("picked", True)]
