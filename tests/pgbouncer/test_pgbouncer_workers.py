"""Workers through PgBouncer in transaction mode: by polling, or with LISTEN past it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from behaviour.helpers import QUIET, Tables, eventually, working
from pgbouncer.helpers import Library, Ways, open_pooled
from pgq_fast.applications import PgQueuer
from pgq_fast.db import PsycopgDriver
from pgq_fast.drivers.owned import OwnedDriver
from pgq_fast.errors import FailingListenerError, RetryRequested
from pgq_fast.models import Context, Job, Schedule
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries
from pgq_fast.settings import POLL_INTERVAL, ConnectionSettings, Layout
from pgq_fast.types import QueueExecutionMode
from pgq_fast.worker import loop
from support.drivers import MakeDriver
from support.pgbouncer import PgBouncer

pytestmark = pytest.mark.layouts

Open = Callable[..., Awaitable[Any]]

# Nothing but what a test is about may wake a worker.
PATIENT: dict[str, Any] = {
    "dequeue_timeout": timedelta(hours=1),
    "heartbeat_timeout": timedelta(hours=1),
    **QUIET,
}


@pytest.fixture
def listener_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers look after their listener all the time."""
    monkeypatch.setattr(loop, "LISTENER_CHECK", timedelta(seconds=0.3))


def from_dsn(queue: Ways, library: Library, **settings: Any) -> PgQueuer:
    return PgQueuer.from_dsn(
        queue.pooled, library, settings=ConnectionSettings(transaction_pooling=True, **settings)
    )


def queries_of(pgq: PgQueuer) -> Queries:
    assert isinstance(pgq.queries, Queries)
    return pgq.queries


async def stop(pgq: PgQueuer, task: asyncio.Task[None]) -> None:
    pgq.shutdown.set()
    async with asyncio.timeout(20):
        await task


@pytest.mark.parametrize("batch_size", [1, 10, 200])
async def test_drains(library: Library, batch_size: int, queue: Ways, tables: Tables) -> None:
    pgq = from_dsn(queue, library)
    seen: list[int] = []

    @pgq.entrypoint("e")
    async def handler(job: Job) -> None:
        seen.append(job.id)
        if job.payload == b"again" and job.attempts == 0:
            raise RetryRequested
        if job.payload == b"fail":
            raise ValueError

    queries = queries_of(pgq)
    ids = await queries.enqueue(["e"] * 400, [b"x"] * 400, [0] * 400)
    (again,) = await queries.enqueue("e", b"again")
    (failed,) = await queries.enqueue("e", b"fail")
    async with asyncio.timeout(60):
        await pgq.run(mode=QueueExecutionMode.drain, batch_size=batch_size, **QUIET)
    assert sorted(seen) == sorted([*ids, again, again, failed])
    assert await tables.ended() == [*ids, again]
    assert await tables.ended("exception") == [failed]
    assert await tables.count() == 0


async def test_polls_where_nothing_listens(
    library: Library,
    layout: Layout,
    queue: Ways,
    tables: Tables,
    caplog: pytest.LogCaptureFixture,
    listener_checks: None,
) -> None:
    caplog.set_level(logging.INFO, logger="pgqueuer")
    pgq = from_dsn(queue, library, poll_interval=0.1)
    seen: list[int] = []

    @pgq.entrypoint("e")
    async def handler(job: Job) -> None:
        seen.append(job.id)

    ticks: list[str] = []

    @pgq.schedule("tick", "* * * * * *")
    async def tick(schedule: Schedule) -> None:
        ticks.append(schedule.entrypoint)

    # A listener that nobody has cannot fail.
    task = asyncio.create_task(pgq.run(**PATIENT, shutdown_on_listener_failure=True))
    for _ in range(3):
        await asyncio.sleep(0.3)
        (job_id,) = await queries_of(pgq).enqueue("e", None)
        await eventually(lambda job_id=job_id: job_id in seen)  # type: ignore[misc]
    await eventually(lambda: ticks)
    with pytest.raises(FailingListenerError, match="nothing listens"):
        await pgq.qm.listener_healthy()
    listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
    assert await tables.value(listening) == 0
    if layout is Layout.lease:
        # So nobody needs to be notified.
        assert await tables.value("SELECT count(*) FROM pgqueuer_waiting") == 0
    await stop(pgq, task)
    (message,) = [each.message for each in caplog.records if "listens" in each.message]
    assert "every 0.1 s" in message
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


async def test_listens_past_the_pooler(
    library: Library,
    queue: Ways,
    tables: Tables,
    caplog: pytest.LogCaptureFixture,
    listener_checks: None,
) -> None:
    pgq = from_dsn(
        queue, library, listen_dsn=queue.direct, poll_interval=3600, application_name="mine"
    )
    seen: list[int] = []

    @pgq.entrypoint("e")
    async def handler(job: Job) -> None:
        seen.append(job.id)

    cancelled = asyncio.Event()

    @pgq.entrypoint("long")
    async def long(job: Job, context: Context) -> None:
        seen.append(job.id)
        await eventually(lambda: context.cancellation.cancel_called)
        cancelled.set()

    task = asyncio.create_task(pgq.run(**PATIENT, shutdown_on_listener_failure=True))
    for _ in range(3):
        await asyncio.sleep(0.3)
        (job_id,) = await queries_of(pgq).enqueue("e", None)
        await eventually(lambda job_id=job_id: job_id in seen)  # type: ignore[misc]
    (job_id,) = await queries_of(pgq).enqueue("long", None)
    await eventually(lambda: job_id in seen)
    await queries_of(pgq).mark_job_as_cancelled([job_id])
    await asyncio.wait_for(cancelled.wait(), 20)
    await pgq.qm.listener_healthy()
    # The loss of that connection is got over.
    listening = (
        "FROM pg_stat_activity WHERE application_name = 'mine' AND query ~ 'LISTEN|SELECT 1'"
    )
    await tables.rows(f"SELECT pg_terminate_backend(pid, 5000) {listening}")
    (job_id,) = await queries_of(pgq).enqueue("e", None)
    await eventually(lambda: job_id in seen)
    await stop(pgq, task)
    assert "No notification" not in caplog.text


@pytest.mark.parametrize("turns", [0, 1, 5])
async def test_a_seat_that_gets_free_is_taken_without_notification(
    turns: int, library: Library, queue: Ways
) -> None:
    """Not at the pace of the polls: the end of a job announces it."""
    pgq = from_dsn(queue, library, poll_interval=3600)
    pgq.qm.min_dequeue_poll_interval = timedelta(hours=1)
    seen: list[int] = []

    @pgq.entrypoint("e", concurrency_limit=1)
    async def handler(job: Job) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        seen.append(job.id)

    ids = await queries_of(pgq).enqueue(["e"] * 30, [None] * 30, [0] * 30)
    task = asyncio.create_task(pgq.run(**PATIENT))
    await eventually(lambda: len(seen) == len(ids))
    await stop(pgq, task)
    assert seen == ids


@pytest.mark.parametrize("user_kind", ["asyncpg", "asyncpg-pool", "psycopg"])
async def test_a_driver_that_listens_on_another_one(
    user_kind: str, queue: Ways, open_through: Open
) -> None:
    """What was notified while the other one had no connection is found, too."""
    listener = OwnedDriver(queue.direct, "asyncpg", ConnectionSettings(application_name="ear"))
    driver = await open_through(user_kind, queue.pooled, listen_on=listener)
    assert driver.poll_interval is None
    queries = Queries(driver)
    manager = QueueManager(queries)
    seen: list[int] = []

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        seen.append(job.id)

    async with working(manager, **PATIENT):
        for _ in range(2):
            await asyncio.sleep(0.2)
            (job_id,) = await queries.enqueue("e", None)
            await eventually(lambda job_id=job_id: job_id in seen)  # type: ignore[misc]
            async with await psycopg.AsyncConnection.connect(queue.direct) as other:
                await other.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE application_name = 'ear'"
                )
                (job_id,) = await queries.enqueue("e", None)
            await eventually(lambda job_id=job_id: job_id in seen)  # type: ignore[misc]
    assert "closed" in repr(listener)


@pytest.mark.parametrize("user_kind", ["asyncpg", "asyncpg-pool", "psycopg"])
async def test_a_driver_that_polls(user_kind: str, queue: Ways, open_through: Open) -> None:
    interval = timedelta(milliseconds=100)
    driver = await open_through(user_kind, queue.pooled, poll_interval=interval)
    assert driver.poll_interval == interval
    queries = Queries(driver)
    manager = QueueManager(queries)
    seen: list[int] = []

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        seen.append(job.id)

    async with working(manager, **PATIENT):
        await asyncio.sleep(0.3)
        (job_id,) = await queries.enqueue("e", None)
        await eventually(lambda: job_id in seen)


# No queue is in here.
@pytest.mark.layouts("compat")
async def test_listeners_of_other_drivers(queue: Ways, open_through: Open) -> None:
    """They are put on the other driver, and taken off when this one is left."""
    heard: list[Any] = []
    async with await psycopg.AsyncConnection.connect(queue.direct, autocommit=True) as connection:
        listener = PsycopgDriver(connection)
        for user_kind in ("asyncpg", "asyncpg-pool", "psycopg"):
            driver = await open_through(user_kind, queue.pooled, listen_on=listener)
            heard.clear()
            async with driver:
                await driver.add_listener("a", heard.append)
                await driver.add_listener("b", heard.append)
                await driver.notify("a", "1")
                await eventually(lambda: heard == ["1"])
                await driver.remove_listener("a", heard.append)
                await driver.notify("a", "2")
                await driver.notify("b", "3")
                await eventually(lambda: heard == ["1", "3"])
            await driver.notify("b", "4")
            cursor = await connection.execute("SELECT pg_listening_channels()")
            assert await cursor.fetchall() == []
        assert heard == ["1", "3"]


# No queue is in here.
@pytest.mark.layouts("compat")
async def test_a_poll_interval_has_to_be_positive(queue: Ways) -> None:
    async with AsyncExitStack() as stack:
        for user_kind in ("asyncpg", "psycopg"):
            with pytest.raises(ValueError, match="poll_interval"):
                await open_pooled(user_kind, queue.pooled, stack, poll_interval=timedelta(0))
    with pytest.raises(ValueError, match="poll_interval"):
        ConnectionSettings(poll_interval=0)


# No queue is in here.
@pytest.mark.layouts("compat")
def test_the_environment_says_it_too(
    library: Library, queue: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver: Any = PgQueuer.from_dsn(queue.pooled, library).connection
    assert driver.poll_interval is None
    monkeypatch.setenv("PGQUEUER_TRANSACTION_POOLING", "1")
    assert driver.poll_interval == timedelta(seconds=POLL_INTERVAL)
    monkeypatch.setenv("PGQUEUER_POLL_INTERVAL", "0.25")
    assert driver.poll_interval == timedelta(seconds=0.25)
    monkeypatch.setenv("PGQUEUER_LISTEN_DSN", queue.direct)
    assert driver.poll_interval is None
    assert queue.direct not in repr(ConnectionSettings())


@pytest.mark.parametrize("listens", [True, False])
async def test_survives_the_loss_of_the_pooler_and_of_its_sessions(
    listens: bool, library: Library, pgbouncer: PgBouncer, queue: Ways, tables: Tables
) -> None:
    pgq = from_dsn(queue, library, poll_interval=0.1, listen_dsn=queue.direct if listens else None)
    runs: Counter[int] = Counter()

    @pgq.entrypoint("e")
    async def handler(job: Job) -> None:
        runs[job.id] += 1
        await asyncio.sleep(0.001)

    async with await psycopg.AsyncConnection.connect(queue.direct, autocommit=True) as connection:
        producer = Queries(PsycopgDriver(connection))
        task = asyncio.create_task(
            pgq.run(batch_size=20, heartbeat_timeout=timedelta(seconds=2), **QUIET)
        )
        ids: list[Any] = []
        for turn in range(6):
            ids += await producer.enqueue(["e"] * 150, [None] * 150, [0] * 150)
            before = len(runs)
            await eventually(lambda least=before + 20: task.done() or len(runs) > least)  # type: ignore[misc]
            assert not task.done(), task.exception()
            if turn % 2:
                await asyncio.to_thread(pgbouncer.restart)
            else:
                await tables.rows(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND query ~ 'pgqueuer'"
                    " AND pid NOT IN (pg_backend_pid(), $1)",
                    connection.info.backend_pid,
                )

        async def all_ended() -> bool:
            assert not task.done(), task.exception()
            return await tables.count() == 0

        await eventually(all_ended)
    await stop(pgq, task)
    assert sorted(runs) == ids
    assert await tables.ended() == ids


async def test_a_fleet_runs_each_job_once(
    queue: Ways, tables: Tables, open_through: Open, make_driver: MakeDriver
) -> None:
    """Producers and workers of all kinds, one of them without the pooler, on two sessions."""
    runs: Counter[int] = Counter()

    async def handler(job: Job) -> None:
        runs[job.id] += 1
        await asyncio.sleep(0)

    managers = [
        QueueManager(Queries(driver))
        for driver in (
            await open_through("asyncpg", queue.pooled, poll_interval=timedelta(seconds=0.1)),
            await open_through("asyncpg-pool", queue.pooled, poll_interval=timedelta(seconds=0.1)),
            await open_through(
                "psycopg", queue.pooled, listen_on=await make_driver("psycopg", queue.direct)
            ),
            await open_through("owned-asyncpg", queue.pooled),
            await open_through("owned-psycopg", queue.pooled),
            await make_driver("asyncpg", queue.direct),
        )
    ]
    for manager in managers:
        manager.entrypoint("e")(handler)
        manager.entrypoint("limited", concurrency_limit=3)(handler)

    async def produce(kind: str) -> list[Any]:
        queries = Queries(await open_through(kind, queue.pooled))
        ids: list[Any] = []
        for n in range(20):
            size = (1, 7, 150)[n % 3]
            ids += await queries.enqueue(["e"] * size, [b"x"] * size, [n] * size)
            ids += await queries.enqueue("limited", None)
        return ids

    async with AsyncExitStack() as stack:
        for manager in managers:
            await stack.enter_async_context(working(manager, batch_size=20))
        kinds = ("asyncpg", "asyncpg-pool", "psycopg", "owned-asyncpg", "owned-psycopg")
        produced = await asyncio.gather(*(produce(kind) for kind in kinds))
        ids = sorted(job_id for each in produced for job_id in each)
        await eventually(lambda: len(runs) == len(ids))

        async def empty() -> bool:
            return await tables.count() == 0

        await eventually(empty)
    assert runs == Counter(ids)
    assert await tables.ended() == ids
