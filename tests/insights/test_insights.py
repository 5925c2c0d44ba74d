"""Views and actions of dashboards."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgq_fast.insights import InsightsService, QueueManagementService, clamp_window, sparkline
from pgq_fast.memory import InMemoryDriver, InMemoryQueries
from pgq_fast.models import CronExpressionEntrypoint, Job, ThroughputBucket
from pgq_fast.repository import EntrypointExecutionParameter
from pgq_fast.types import (
    JOB_STATUS,
    CronEntrypoint,
    CronExpression,
    JobId,
    QueueEntrypoint,
    QueueManagerId,
)

pytestmark = pytest.mark.impl_agnostic

WORKER = QueueManagerId(uuid.UUID(int=1))
HOUR = timedelta(hours=1)
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def queries() -> InMemoryQueries:
    return InMemoryQueries(InMemoryDriver())


@pytest.fixture
def service(queries: InMemoryQueries) -> InsightsService:
    return InsightsService(queries)


async def claim(queries: InMemoryQueries, name: str, count: int = 1) -> list[Job]:
    parameters = {QueueEntrypoint(name): EntrypointExecutionParameter(0)}
    return await queries.dequeue(count, parameters, WORKER, None, timedelta(days=1))


async def finish(queries: InMemoryQueries, name: str, *statuses: JOB_STATUS) -> None:
    await queries.enqueue([name] * len(statuses), [None] * len(statuses), [0] * len(statuses))
    jobs = await claim(queries, name, len(statuses))
    await queries.log_jobs(
        [(job, status, None) for job, status in zip(jobs, statuses, strict=True)]
    )


@pytest.mark.parametrize(
    ("last", "window"),
    [
        (None, HOUR),
        (timedelta(minutes=5), timedelta(minutes=5)),
        (timedelta(days=30), timedelta(days=1)),
        (timedelta(0), timedelta(seconds=1)),
        (-HOUR, timedelta(seconds=1)),
    ],
)
def test_the_window_is_clamped(last: timedelta | None, window: timedelta) -> None:
    assert clamp_window(last) == window


class Spy:
    """Notes how it is called, and answers with what it is."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[object, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        async def call(*args: object) -> str:
            self.calls.append((name, args))
            return name

        return call


@pytest.mark.parametrize(
    ("method", "arguments", "expected"),
    [
        ("queue_size", (), ("queue_size", ())),
        ("queue_age", (), ("queue_age", ())),
        ("job_durations", (), ("job_duration_percentiles", (HOUR,))),
        ("job_durations", (timedelta(days=9),), ("job_duration_percentiles", (24 * HOUR,))),
        ("throughput", (), ("throughput_summary", (HOUR,))),
        ("throughput_timeseries", (2 * HOUR,), ("throughput_timeseries", (2 * HOUR,))),
        ("active_workers", (), ("active_workers", ())),
        ("stale_jobs", (), ("stale_jobs", (timedelta(minutes=5), 100))),
        ("stale_jobs", (timedelta(0), 3), ("stale_jobs", (timedelta(0), 3))),
        ("exception_logs", (7,), ("exception_logs", (7,))),
        ("failed_jobs", (), ("list_failed_jobs", (100,))),
        ("browse_queue", (), ("browse_queue", (50, 0, None, None))),
        ("browse_queue", (1, 2, ["picked"], ["a"]), ("browse_queue", (1, 2, ["picked"], ["a"]))),
        ("job", (5,), ("queue_job_by_id", (5,))),
        ("job_history", (5,), ("job_log_history", (5,))),
        ("schedules", (), ("peek_schedule", ())),
        ("schema_info", (), ("schema_info", ())),
        ("unaggregated_log_count", (), ("unaggregated_log_count", ())),
    ],
)
async def test_each_view_asks_the_repository(
    method: str, arguments: tuple[Any, ...], expected: tuple[str, tuple[Any, ...]]
) -> None:
    spy = Spy()
    service = InsightsService(spy)
    assert await getattr(service, method)(*arguments) == expected[0]
    assert spy.calls == [expected]


async def test_the_actions_ask_the_repository() -> None:
    spy = Spy()
    service = QueueManagementService(spy)
    await service.requeue([JobId(1)])
    await service.cancel([JobId(2)])
    assert spy.calls == [("requeue_jobs", ([1],)), ("mark_job_as_cancelled", ([2],))]


async def test_the_overview_of_an_empty_queue(service: InsightsService) -> None:
    overview = await service.overview()
    assert overview.model_dump() == {
        "queued_total": 0,
        "picked_total": 0,
        "failed_total": 0,
        "active_workers": 0,
        "oldest_queued_age_seconds": None,
        "exceptions_recent": 0,
    }
    assert await service.entrypoint_stats() == []


async def test_the_overview_adds_up(queries: InMemoryQueries, service: InsightsService) -> None:
    await finish(queries, "a", "failed", "exception", "exception", "successful")
    await queries.enqueue(["a", "b", "b"], [None] * 3, [0, 1, 2])
    await claim(queries, "b")
    overview = await service.overview()
    assert overview.oldest_queued_age_seconds is not None
    assert overview.oldest_queued_age_seconds >= 0
    assert overview.model_dump(exclude={"oldest_queued_age_seconds"}) == {
        "queued_total": 2,
        "picked_total": 1,
        "failed_total": 1,
        "active_workers": 1,
        "exceptions_recent": 2,
    }


async def test_a_row_for_each_entrypoint(
    queries: InMemoryQueries, service: InsightsService
) -> None:
    await finish(queries, "b", "successful", "failed", "exception", "canceled", "deleted")
    await queries.enqueue(["a", "a", "a"], [None] * 3, [0, 1, 1])
    await claim(queries, "a")
    a, b = await service.entrypoint_stats()
    assert (a.entrypoint, a.queued, a.picked, a.completed) == ("a", 2, 1, 0)
    assert a.oldest_age_seconds is not None
    assert (a.p50_seconds, a.p95_seconds, a.p99_seconds, a.failure_rate) == (None,) * 4
    assert a.sparkline == [0] * 30
    assert (b.entrypoint, b.queued, b.picked, b.completed) == ("b", 0, 0, 4)
    assert b.oldest_age_seconds is None
    assert b.p50_seconds is not None
    assert b.p95_seconds is not None
    assert b.p99_seconds is not None
    assert 0 <= b.p50_seconds <= b.p95_seconds <= b.p99_seconds
    # A job that was deleted did not end by itself.
    assert b.failure_rate == pytest.approx(2 / 4)
    assert (sum(b.sparkline), len(b.sparkline)) == (4, 30)


def minute(offset: int, count: int = 1) -> ThroughputBucket:
    return ThroughputBucket(
        bucket=NOON - timedelta(minutes=offset),
        entrypoint=QueueEntrypoint("ep"),
        status="successful",
        count=count,
    )


def test_a_sparkline_ends_with_the_newest_minute() -> None:
    line = sparkline(
        [minute(60, 1), minute(59, 2), minute(30, 4), minute(1, 8), minute(0, 16)], HOUR
    )
    assert len(line) == 30
    assert {place: count for place, count in enumerate(line) if count} == {0: 3, 15: 4, 29: 24}


def test_a_short_window_keeps_its_oldest_minute_at_the_start() -> None:
    # The minute began before the window did.
    assert sparkline([minute(1, 5), minute(0, 7)], timedelta(seconds=30)) == [5] + [0] * 28 + [7]


def test_a_sparkline_of_nothing() -> None:
    assert sparkline([], HOUR, slots=3) == [0, 0, 0]


async def test_schedules_and_tables(queries: InMemoryQueries, service: InsightsService) -> None:
    key = CronExpressionEntrypoint(CronEntrypoint("cron"), CronExpression("* * * * *"))
    await queries.insert_schedule({key: HOUR})
    (schedule,) = await service.schedules()
    assert (schedule.entrypoint, schedule.status) == ("cron", "queued")
    tables = {table.table_name: table.estimated_rows for table in await service.schema_info()}
    assert tables[queries.qbe.settings.schedules_table] == 1
    assert len(tables) == 4


async def test_failed_jobs_can_be_requeued_and_cancelled(
    queries: InMemoryQueries, service: InsightsService
) -> None:
    management = QueueManagementService(queries)
    await finish(queries, "a", "failed", "failed")
    one, two = await service.failed_jobs()
    await management.requeue([one.id])
    await management.cancel([two.id])
    assert await service.failed_jobs() == []
    assert [entry.status for entry in await service.job_history(one.id)][-1] == "queued"
    assert [entry.status for entry in await service.job_history(two.id)][-1] == "canceled"
    assert (await service.overview()).queued_total == 1
