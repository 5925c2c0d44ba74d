"""Samples of what a queue is doing: figures, bounds, and plans that do not read long tables."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgq_fast import activity
from pgq_fast.activity import Activity, Monitor, Number
from pgq_fast.models import Job
from pgq_fast.queries import EntrypointExecutionParameter, Queries
from pgq_fast.settings import DBSettings, JobLog, Layout
from pgq_fast.sql import layout_statement
from pgq_fast.types import QueueEntrypoint, QueueManagerId
from support.drivers import MakeDriver
from support.layouts import queries_of

pytestmark = pytest.mark.layouts

WORKER = QueueManagerId(uuid.UUID(int=3))


@pytest.fixture
async def queries(make_driver: MakeDriver, queue_dsn: str, queue_settings: DBSettings) -> Queries:
    return queries_of(await make_driver("asyncpg", queue_dsn), queue_settings)


@pytest.fixture
async def monitor(
    make_driver: MakeDriver,
    queue_dsn: str,
    queue_settings: DBSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> Monitor:
    """One that sees at once what has been committed."""
    monkeypatch.setattr(activity, "LAG", timedelta(0))
    return Monitor(await make_driver("psycopg", queue_dsn), queue_settings)


async def claim(queries: Queries, count: int, *entrypoints: str) -> list[Job]:
    wanted = {QueueEntrypoint(name): EntrypointExecutionParameter(0) for name in entrypoints}
    jobs = await queries.dequeue(count, wanted, WORKER, None, timedelta(minutes=1))
    assert len(jobs) == count
    return jobs


def counts(rates: dict[str, float], seconds: float) -> dict[str, int]:
    return {name: round(rate * seconds) for name, rate in rates.items()}


async def test_an_empty_queue(monitor: Monitor) -> None:
    await monitor.begin()
    found = await monitor.sample()
    nothing = Number(0, True)
    assert found.depth == activity.Depth(nothing, nothing, nothing, None)
    assert (found.enqueued, found.ended, found.estimated) == (0.0, {}, False)
    assert (found.entrypoints, found.workers, found.oldest_seconds) == ((), (), None)
    assert found.notifications is None


async def test_what_happens_between_two_samples(
    monitor: Monitor, queries: Queries, layout: Layout
) -> None:
    await queries.enqueue(["before"] * 2, [None] * 2, [0] * 2)
    await queries.log_jobs([(job, "successful", None) for job in await claim(queries, 2, "before")])
    await monitor.begin()
    await queries.enqueue(
        ["mail"] * 7 + ["report"] * 2,
        [None] * 9,
        [0, 0, 0, 0, 5, 5, 5, 0, 0],
        [None] * 8 + [timedelta(hours=1)],
    )
    jobs = await claim(queries, 6, "mail")
    await queries.log_jobs([(job, "successful", None) for job in jobs[:3]])
    await queries.log_jobs([(jobs[3], "exception", None), (jobs[4], "failed", None)])

    found = await monitor.sample()
    assert found.layout is layout
    assert round((found.enqueued or 0) * found.seconds) == 9
    assert counts(dict(found.ended), found.seconds) == {
        "successful": 3,
        "exception": 1,
        "failed": 1,
    }
    assert found.depth == activity.Depth(Number(2, True), Number(1, True), Number(1, True), None)
    mail, report = found.entrypoints
    assert (mail.name, report.name) == ("mail", "report")
    assert counts(dict(mail.ended), found.seconds) == {"successful": 3, "exception": 1, "failed": 1}
    assert report.ended == {}
    assert mail.oldest_seconds is not None
    assert found.oldest_seconds == max(mail.oldest_seconds, report.oldest_seconds or 0)
    (worker,) = found.workers
    assert (worker.id, worker.jobs) == (WORKER, 1)
    assert worker.leases == (1 if layout is Layout.lease else None)
    assert worker.silent_seconds >= 0
    assert found.sleeping_workers == (0 if layout is Layout.lease else None)

    # Nothing is counted again.
    again = await monitor.sample()
    assert (again.enqueued, again.ended) == (0.0, {})
    assert again.depth == found.depth


async def test_jobs_that_the_log_does_not_keep_are_counted(
    make_driver: MakeDriver, queue_dsn: str, layout: Layout, monitor: Monitor
) -> None:
    settings = DBSettings(layout=layout, job_log=JobLog.none)
    queries = queries_of(await make_driver("asyncpg", queue_dsn), settings)
    await monitor.begin()
    await queries.enqueue(["mail"] * 4, [None] * 4, [0] * 4)
    await queries.log_jobs([(job, "successful", None) for job in await claim(queries, 4, "mail")])
    found = await monitor.sample()
    assert counts(dict(found.ended), found.seconds) == {"successful": 4}


async def test_counts_stop_and_rates_are_estimated(
    monitor: Monitor, queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "COUNTED", 5)
    monkeypatch.setattr(activity, "LOGGED", 6)
    await queries.enqueue(["mail"] * 50, [None] * 50, [0] * 50)
    await monitor.begin()
    for _ in range(20):
        # Each an entry, or several, at a time of its own.
        (job,) = await claim(queries, 1, "mail")
        await queries.log_jobs([(job, "exception", None)])
    found = await monitor.sample()
    assert found.depth.waiting == Number(5, False)
    assert found.depth.estimated is not None
    assert found.estimated
    assert found.ended["exception"] > 0


def test_the_latest_entries_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "LOGGED", 100)
    start = datetime(2030, 1, 1, tzinfo=UTC)

    def row(source: str, status: str, entries: int, jobs: int, since: float) -> dict[str, Any]:
        at = start + timedelta(seconds=since)
        return {
            "source": source,
            "entrypoint": "mail",
            "status": status,
            "entries": entries,
            "jobs": jobs,
            "since": at,
        }

    end = start + timedelta(seconds=10)
    # The hundred latest entries begin two seconds before the end; there are few batches.
    rows = [
        row("entries", "picked", 60, 60, 8.0),
        row("entries", "exception", 40, 40, 8.5),
        row("batches", "successful", 3, 1000, 1.0),
    ]
    totals, estimated = activity._ended(rows, start, end)
    assert estimated
    assert totals == {("mail", "exception"): 200.0, ("mail", "successful"): 1000.0}
    totals, estimated = activity._ended(rows[1:], start, end)
    assert not estimated
    assert totals == {("mail", "exception"): 40.0, ("mail", "successful"): 1000.0}


async def test_notifications_are_counted_by_kind(
    monitor: Monitor, queries: Queries, layout: Layout
) -> None:
    await monitor.listen(queries.driver)
    await monitor.begin()
    (job_id,) = await queries.enqueue("mail", None)
    await queries.mark_job_as_cancelled([job_id])
    await queries.driver.notify("ch_pgqueuer", "nonsense")
    total: dict[str, int] = {}
    expected = {"cancellation_event": 1, "other": 1}
    if layout is Layout.compat:
        expected |= {"insert": 1, "delete": 1}
    async with asyncio.timeout(30):
        while total != expected:
            found: Activity = await monitor.sample()
            for kind, rate in (found.notifications or {}).items():
                total[kind] = total.get(kind, 0) + round(rate * found.seconds)


async def test_the_oldest_of_many_entrypoints_and_priorities(
    monitor: Monitor, queries: Queries
) -> None:
    names = [f"e{number % 7}" for number in range(70)]
    await queries.enqueue(names, [None] * 70, [number % 10 for number in range(70)])
    await monitor.begin()
    found = await monitor.sample()
    assert [each.name for each in found.entrypoints] == sorted(set(names))
    rows = await queries.queue_age()
    for each, age in zip(found.entrypoints, rows, strict=True):
        assert each.oldest_seconds == pytest.approx(age.oldest_age_seconds, abs=5)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


async def test_long_tables_are_not_read(
    queries: Queries, queue_settings: DBSettings, layout: Layout
) -> None:
    """Whatever the statistics say: here, that every table is empty."""
    execute = queries.driver.execute
    await execute("ANALYZE")
    many = 40_000
    table = "pgqueuer_ready" if layout is Layout.lease else "pgqueuer"
    status = "" if layout is Layout.lease else ", status"
    value = (
        ""
        if layout is Layout.lease
        else ", (ARRAY['queued', 'picked', 'failed'])[1 + n % 3]::pgqueuer_status"
    )
    await execute(
        f"INSERT INTO {table} (priority, entrypoint{status})"
        f" SELECT n % 3, 'e' || n % 2{value} FROM generate_series(1, {many}) AS n"
    )
    log = "pgqueuer_log_entries" if layout is Layout.lease else "pgqueuer_log"
    await execute(
        f"INSERT INTO {log} (created, job_id, status, priority, entrypoint)"
        " SELECT now() - n * interval '1 ms', n, 'successful', 0, 'e'"
        f" FROM generate_series(1, {many}) AS n"
    )
    bound = 100
    window = "'2000-01-01', 'infinity'"
    for name, literals in {
        "activity_depth": f"{bound}",
        "activity_oldest": f"{bound}",
        "activity_workers": f"{bound}",
        "activity_ended": f"{window}, {bound}",
    }.items():
        plans = await explained(queries, layout_statement(name, queue_settings), literals)
        for plan in plans:
            read = [
                node["Actual Rows"] * node["Actual Loops"]
                for node in nodes(plan)
                if "Relation Name" in node and str(node["Relation Name"]).startswith("pgqueuer")
            ]
            assert max(read) <= bound, (name, plan)


async def explained(queries: Queries, query: str, literals: str) -> list[dict[str, Any]]:
    """The plans of the first and the seventh execution, with what they read."""
    found = []
    driver: Any = queries.driver
    async with driver.transaction() as transaction:
        await transaction.execute(activity.SETUP.replace("READ ONLY", ""))
        await transaction.execute(f"PREPARE query AS {query}")
        for _ in range(7):
            (row,) = await transaction.fetch(
                f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE query ({literals})"
            )
            plan = row["QUERY PLAN"]
            found.append((plan if isinstance(plan, list) else json.loads(plan))[0]["Plan"])
        await transaction.execute("DEALLOCATE query")
    return [found[0], found[-1]]
