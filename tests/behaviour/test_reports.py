"""Log, statistics and insights: the numbers, on a queue whose story is known."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from behaviour.helpers import Gate, Recorder, Tables, drain, eventually, working
from pgq_fast.completion import CompletionWatcher
from pgq_fast.insights import InsightsService, QueueManagementService
from pgq_fast.layouts import compat_jobs
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries
from pgq_fast.repository import EntrypointExecutionParameter
from pgq_fast.settings import Layout
from pgq_fast.types import QueueEntrypoint, QueueManagerId
from pgq_fast.worker import upkeep

pytestmark = [pytest.mark.pg_matrix, pytest.mark.layouts]

ME = QueueManagerId(uuid.UUID(int=1))
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def claim(queries: Queries, count: int, *names: str) -> list[Job]:
    limits = {QueueEntrypoint(name): EntrypointExecutionParameter(0) for name in names}
    return await queries.dequeue(count, limits, ME, None, DAY)


async def test_queue_size(queries: Queries) -> None:
    await queries.enqueue(["a", "a", "a", "b"], [None] * 4, [0, 0, 1, 0])
    await claim(queries, 1, "b")
    found = {
        (entry.entrypoint, entry.priority, entry.status): entry.count
        for entry in await queries.queue_size()
    }
    assert found == {("a", 0, "queued"): 2, ("a", 1, "queued"): 1, ("b", 0, "picked"): 1}


async def test_queue_age(queries: Queries, tables: Tables, layout: Layout) -> None:
    ids = await queries.enqueue(["a", "a", "b"], [None] * 3, [0] * 3)
    table = "pgqueuer" if layout is Layout.compat else "pgqueuer_ready"
    for job_id, age in ((ids[0], "100 s"), (ids[1], "50 s")):
        await tables.rows(
            f"UPDATE {table} SET created = now() - $2::text::interval WHERE id = $1", job_id, age
        )
    await claim(queries, 1, "b")
    (age,) = await queries.queue_age()
    assert (age.entrypoint, age.queued_count) == ("a", 2)
    assert age.oldest_age_seconds == pytest.approx(100, abs=5)
    assert age.avg_age_seconds == pytest.approx(75, abs=5)
    assert age.oldest_created == await tables.value("SELECT min(created) FROM pgqueuer")


async def shift_log(tables: Tables, layout: Layout, by: str) -> None:
    """Have everything in the log have happened earlier."""
    changes = (
        ["pgqueuer_log SET created = created - $1::text::interval"]
        if layout is Layout.compat
        else [
            "pgqueuer_log_entries SET created = created - $1::text::interval",
            "pgqueuer_log_batches SET created = created - $1::text::interval,"
            " picked_at = picked_at - $1::text::interval",
        ]
    )
    for change in changes:
        await tables.rows(f"UPDATE {change}", by)


async def ended(queries: Queries, tables: Tables, layout: Layout) -> list[int]:
    """Ten jobs of ``a`` that took 1 to 10 s, of which two failed, and one of ``b``."""
    ids: list[int] = list(await queries.enqueue(["a"] * 10 + ["b"], [None] * 11, [0] * 11))
    jobs = await claim(queries, 11, "a", "b")
    outcomes: Any = ["exception" if place < 2 else "successful" for place in range(11)]
    for job, outcome in zip(jobs, outcomes, strict=True):
        await queries.log_jobs([(job, outcome, None)])
    table = "pgqueuer_log" if layout is Layout.compat else "pgqueuer_log_entries"
    await tables.rows(
        f"UPDATE {table} AS log SET created ="
        f" (SELECT created FROM {table} WHERE job_id = log.job_id AND status = 'picked')"
        " + (job_id - $1::bigint + 1) * interval '1 second'"
        " WHERE status IN ('successful', 'exception')",
        ids[0],
    )
    if layout is Layout.lease:
        await tables.rows(
            "UPDATE pgqueuer_log_batches SET created ="
            " picked_at + (first_id - $1::bigint + 1) * interval '1 second'",
            ids[0],
        )
    return ids


async def test_durations(queries: Queries, tables: Tables, layout: Layout) -> None:
    await ended(queries, tables, layout)
    slow, fast = await queries.job_duration_percentiles(HOUR)
    assert (slow.entrypoint, slow.completed) == ("b", 1)
    assert slow.p50_seconds == slow.max_seconds == 11
    assert (fast.entrypoint, fast.completed) == ("a", 10)
    assert [fast.p50_seconds, fast.p95_seconds, fast.p99_seconds] == pytest.approx(
        [5.5, 9.55, 9.91]
    )
    assert fast.max_seconds == 10
    await shift_log(tables, layout, "2 hours")
    assert await queries.job_duration_percentiles(HOUR) == []


async def test_statistics(queries: Queries, tables: Tables, layout: Layout) -> None:
    await ended(queries, tables, layout)
    assert await queries.unaggregated_log_count() == 33
    await queries.aggregate_logs()
    assert await queries.unaggregated_log_count() == 0

    def totals(entries: Any) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for entry in entries:
            key = (entry.entrypoint, entry.status)
            found[key] = found.get(key, 0) + entry.count
        return found

    expected = {
        ("a", "queued"): 10,
        ("b", "queued"): 1,
        ("a", "picked"): 10,
        ("b", "picked"): 1,
        ("a", "successful"): 8,
        ("b", "successful"): 1,
        ("a", "exception"): 2,
    }
    assert totals(await queries.log_statistics(None)) == expected
    assert totals(await queries.log_statistics(None, HOUR)) == expected
    assert len(await queries.log_statistics(2)) == 2
    assert {
        (entry.entrypoint, entry.status): entry.total_count
        for entry in await queries.throughput_summary()
    } == expected
    assert totals(await queries.throughput_timeseries(HOUR)) == expected
    for bucket in await queries.throughput_timeseries(HOUR):
        assert (bucket.bucket.second, bucket.bucket.microsecond) == (0, 0)
    # Once counted, never counted again; a second of the log may be added to later.
    await queries.aggregate_logs()
    await queries.enqueue("a", None)
    assert totals(await queries.log_statistics(None)) == expected | {("a", "queued"): 11}
    await queries.clear_queue()
    await tables.rows("UPDATE pgqueuer_statistics SET created = created - interval '2 hours'")
    assert await queries.log_statistics(None, HOUR) == []
    assert await queries.throughput_summary(HOUR) == []
    assert await queries.throughput_timeseries(HOUR) == []


async def test_pruning_spares_what_is_younger(
    queries: Queries, tables: Tables, layout: Layout
) -> None:
    old = await ended(queries, tables, layout)
    await queries.aggregate_logs()
    await shift_log(tables, layout, "2 hours")
    young = await ended(queries, tables, layout)
    before = await queries.throughput_summary()
    assert await queries.prune_log(HOUR, batch_size=4) > 0
    assert await queries.job_status(old) == []
    assert len(await queries.job_status(young)) == 11
    assert await queries.throughput_summary() == before
    await tables.rows(
        "UPDATE pgqueuer_statistics SET created = created - interval '2 hours'"
        " WHERE status = 'picked'"
    )
    assert await queries.prune_statistics(HOUR, batch_size=1) > 0
    assert await queries.throughput_summary() == [
        entry for entry in before if entry.status != "picked"
    ]


async def test_the_log(queries: Queries, tables: Tables) -> None:
    (job_id,) = await queries.enqueue("a", None, 3)
    entries = await queries.queue_log()
    assert [(entry.job_id, entry.status, entry.priority) for entry in entries] == [
        (job_id, "queued", 3)
    ]
    assert entries[0].aggregated is False
    assert entries[0].traceback is None
    assert abs(entries[0].created - datetime.now(UTC)) < timedelta(minutes=1)
    (job,) = await claim(queries, 1, "a")
    await queries.log_jobs([(job, "successful", None)])
    history = await queries.job_log_history(job_id)
    assert [entry.status for entry in history] == ["queued", "picked", "successful"]
    assert len(await queries.job_log_history(job_id, 2)) == 2
    assert await queries.job_status([job_id]) == [(job_id, "successful")]
    assert await queries.job_status([]) == []
    assert await queries.exception_logs() == []


async def test_workers_and_stale_jobs(queries: Queries, tables: Tables, layout: Layout) -> None:
    ids = await queries.enqueue(["b", "a", "a", "a"], [None] * 4, [0] * 4)
    for name in ("b", "a", "a"):
        await claim(queries, 1, name)
    await tables.rows(
        "UPDATE pgqueuer SET heartbeat = now() - id * interval '10 s' WHERE status = 'picked'"
        if layout is Layout.compat
        else "UPDATE pgqueuer_lease SET heartbeat = now() - ids[1] * interval '10 s'"
    )
    (worker,) = await queries.active_workers()
    assert (worker.queue_manager_id, worker.active_jobs) == (ME, 3)
    assert worker.entrypoints == ["a", "b"]
    assert worker.newest_heartbeat - worker.oldest_heartbeat == timedelta(seconds=20)
    stale = await queries.stale_jobs(timedelta(seconds=15))
    assert [job.id for job in stale] == [ids[2], ids[1]]
    assert stale[0].seconds_since_heartbeat == pytest.approx(30, abs=5)
    assert (stale[0].queue_manager_id, stale[0].status) == (ME, "picked")
    assert [job.id for job in await queries.stale_jobs(timedelta(seconds=5), 1)] == [ids[2]]
    assert await queries.stale_jobs(HOUR) == []


async def test_browsing(queries: Queries) -> None:
    ids = await queries.enqueue(
        ["a", "b", "a", "b"], [b"1", b"2", b"3", b"4"], [0, 5, 1, 0], headers=[{"n": "1"}] * 4
    )
    order = [ids[1], ids[2], ids[0], ids[3]]
    assert [job.id for job in await queries.browse_queue()] == order
    assert [job.id for job in await queries.browse_queue(2, 1)] == order[1:3]
    (picked,) = await claim(queries, 1, "b")
    assert [job.id for job in await queries.browse_queue(statuses=["picked"])] == [picked.id]
    assert [job.id for job in await queries.browse_queue(entrypoints=["a"])] == [ids[2], ids[0]]
    assert await queries.browse_queue(statuses=["failed"]) == []
    job = await queries.queue_job_by_id(ids[2])
    assert job is not None
    assert (job.payload, job.headers, job.priority) == (b"3", {"n": "1"}, 1)
    assert await queries.queue_job_by_id(ids[3] + 1000) is None  # type: ignore[arg-type]


TABLES = {
    Layout.compat: ["", "_log", "_schedules", "_statistics"],
    Layout.lease: [
        "_dedupe",
        "_deferred",
        "_held",
        "_lease",
        "_log_batches",
        "_log_entries",
        "_ready",
        "_schedules",
        "_statistics",
        "_waiting",
    ],
}


async def test_schema_info(queries: Queries, layout: Layout) -> None:
    tables = await queries.schema_info()
    assert [table.table_name for table in tables] == [f"pgqueuer{name}" for name in TABLES[layout]]
    assert {table.persistence for table in tables if table.table_name != "pgqueuer_waiting"} == {
        "LOGGED"
    }
    assert all(table.total_size for table in tables)


async def test_insights_service(queries: Queries, tables: Tables, layout: Layout) -> None:
    await ended(queries, tables, layout)
    await queries.enqueue(["a", "b"], [None] * 2, [0] * 2)
    await claim(queries, 1, "b")
    service = InsightsService(queries)
    overview = await service.overview(HOUR)
    assert (overview.queued_total, overview.picked_total, overview.failed_total) == (1, 1, 0)
    assert (overview.active_workers, overview.exceptions_recent) == (1, 2)
    (stats,) = [entry for entry in await service.entrypoint_stats(HOUR) if entry.entrypoint == "a"]
    assert (stats.queued, stats.picked, stats.completed) == (1, 0, 10)
    assert stats.failure_rate == pytest.approx(0.2)
    assert sum(stats.sparkline) == 10
    management = QueueManagementService(queries)
    (waiting,) = await service.browse_queue(statuses=["queued"])
    await management.cancel([waiting.id])
    assert await service.job(waiting.id) is None
    assert [entry.status for entry in await service.job_history(waiting.id)] == [
        "queued",
        "canceled",
    ]


@pytest.mark.parametrize("early", [False, True])
async def test_a_worker_counts_what_it_has_done(
    manager: QueueManager, tables: Tables, early: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is time to, or when it has done much."""
    interval = HOUR if early else timedelta(milliseconds=100)
    monkeypatch.setattr(upkeep, "MANY_LOGGED", 20 if early else 1_000)
    monkeypatch.setattr(upkeep, "COUNT_LOOK", 0.05)
    manager.entrypoint("e")(Recorder())
    enqueued = 0

    async def counted() -> int:
        return int(
            await tables.value(
                "SELECT coalesce(sum(count), 0) FROM pgqueuer_statistics"
                " WHERE status = 'successful'"
            )
        )

    async def counted_by_the_worker() -> bool:
        # What has ended a moment ago may not be logged yet when the log is counted. It is counted
        # with the next jobs.
        nonlocal enqueued
        await manager.queries.enqueue(["e"] * 20, [None] * 20, [0] * 20)
        enqueued += 20
        return await counted() >= 20

    async def all_ended() -> bool:
        return len(await tables.ended()) == enqueued

    async with working(manager, log_aggregation_interval=interval):
        await eventually(counted_by_the_worker)
        await eventually(all_ended)
    await manager.queries.aggregate_logs()
    assert await counted() == enqueued


async def test_workers_that_count_together_count_once(queries: Queries, tables: Tables) -> None:
    await queries.enqueue(["e"] * 300, [None] * 300, [0] * 300)
    outcomes: Any = ["exception", "successful"] * 150
    await queries.log_jobs(
        [
            (job, outcome, None)
            for job, outcome in zip(await claim(queries, 300, "e"), outcomes, strict=True)
        ]
    )
    await asyncio.gather(
        *[queries.aggregate_logs() for _ in range(5)],
        *[queries.log_statistics(None) for _ in range(3)],
    )
    await queries.aggregate_logs()
    assert await tables.value("SELECT sum(count) FROM pgqueuer_statistics") == 900


@pytest.mark.layouts("compat")
async def test_the_log_is_counted_a_few_entries_at_a_time(
    queries: Queries, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a worker's connection is free again soon, also where many have the same time."""
    monkeypatch.setattr(compat_jobs, "AGGREGATED_AT_ONCE", 7)
    await queries.enqueue(["e"] * 30, [None] * 30, [0] * 30)
    for _ in range(10):
        await queries.enqueue("f", None)
    await tables.rows("UPDATE pgqueuer_log SET created = '-infinity' WHERE job_id = 1")
    await queries.aggregate_logs()
    # What one statement marks has the number of its transaction.
    marked = "SELECT count(*) FROM pgqueuer_log WHERE aggregated GROUP BY xmin ORDER BY 1"
    assert await tables.rows(marked) == [4, 7, 7, 7, 7, 7]
    assert await tables.value("SELECT sum(count) FROM pgqueuer_statistics") == 39
    await queries.aggregate_logs()
    assert await tables.value("SELECT sum(count) FROM pgqueuer_statistics") == 39


async def test_completion_watcher(manager: QueueManager, queries: Queries) -> None:
    gate = Gate()

    @manager.entrypoint("fail")
    async def fail(job: Job) -> None:
        raise ValueError("broken")

    manager.entrypoint("wait")(gate)
    names = ["wait", "fail", "wait", "other"]
    ids = await queries.enqueue(names, [None] * 4, [0] * 4)
    async with working(manager):
        await eventually(lambda: len(gate.started) == 2)
        async with CompletionWatcher(
            queries.driver, queries=queries, refresh_interval=None
        ) as watcher:
            futures = [watcher.wait_for(job_id) for job_id in ids]
            again = watcher.wait_for(ids[0])
            assert await asyncio.wait_for(futures[1], 20) == "exception"
            assert not futures[0].done()
            await queries.mark_job_as_cancelled([ids[2]])
            assert await asyncio.wait_for(futures[2], 20) == "canceled"
            await queries.clear_queue("other")
            assert await asyncio.wait_for(futures[3], 20) == "deleted"
            gate.open.set()
            assert await asyncio.wait_for(futures[0], 20) == "successful"
            assert await asyncio.wait_for(again, 20) == "successful"


async def test_held_jobs_in_the_reports(manager: QueueManager, queries: Queries) -> None:
    @manager.entrypoint("e", on_failure="hold")
    async def handler(job: Job) -> None:
        raise ValueError("broken")

    await manager.queries.enqueue("e", None)
    await drain(manager)
    service = InsightsService(queries)
    assert (await service.overview(HOUR)).failed_total == 1
    assert len(await service.failed_jobs()) == 1
