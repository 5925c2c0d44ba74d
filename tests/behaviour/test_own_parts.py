"""Parts that users bring: drivers, repositories, names, tracers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Generator
from datetime import timedelta
from typing import Any

import asyncpg
import psycopg
import pytest

from behaviour.helpers import Recorder, Tables, drain, eventually, working
from pgq_fast import tracing
from pgq_fast.applications import PgQueuer
from pgq_fast.builders import (
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgq_fast.db import SyncPsycopgDriver
from pgq_fast.errors import DuplicateJobError, EnqueueOnlyDriverError, RetryRequested
from pgq_fast.memory import InMemoryDriver, InMemoryQueries
from pgq_fast.models import Context, Job
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries, SyncQueries
from pgq_fast.settings import DBSettings
from pgq_fast.tasks import TaskManager
from pgq_fast.types import Channel
from support.drivers import MakeDriver

pytestmark = pytest.mark.layouts

# -- Drivers ----------------------------------------------------------------------------------


class OwnDriver:
    """What the protocol asks for, and nothing else."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._lock = asyncio.Lock()
        self._shutdown = asyncio.Event()
        self._tm = TaskManager()

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        async with self._lock:
            return [dict(row) for row in await self._connection.fetch(query, *args)]

    async def execute(self, query: str, *args: object) -> str:
        async with self._lock:
            return str(await self._connection.execute(query, *args))

    async def add_listener(
        self, channel: str, callback: Callable[[str | bytes | bytearray], None]
    ) -> None:
        async with self._lock:
            await self._connection.add_listener(
                channel, lambda connection, pid, channel, payload: callback(payload)
            )

    async def notify(self, channel: str, payload: str) -> None:
        await self.execute("SELECT pg_notify($1, $2)", channel, payload)

    @property
    def shutdown(self) -> asyncio.Event:
        return self._shutdown

    @property
    def tm(self) -> TaskManager:
        return self._tm

    async def __aenter__(self) -> OwnDriver:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


@contextlib.asynccontextmanager
async def own_driver(dsn: str) -> AsyncIterator[OwnDriver]:
    connection = await asyncpg.connect(dsn)
    try:
        yield OwnDriver(connection)
    finally:
        await connection.close()


async def test_a_driver_with_only_the_protocols_methods(queue_dsn: str, tables: Tables) -> None:
    async with own_driver(queue_dsn) as driver:
        queries = Queries(driver)
        ids = [
            *await queries.enqueue("e", b"one", headers={"a": "b"}),
            *await queries.enqueue(["e"] * 3, [b"x"] * 3, [1, 2, 3]),
            *await queries.enqueue(["e"] * 300, [None] * 300, [0] * 300),
        ]
        assert ids == sorted(set(ids))
        await queries.enqueue("e", None, dedupe_key="a")
        with pytest.raises(DuplicateJobError):
            await queries.enqueue("e", None, dedupe_key="a")
        assert await queries.enqueue("e", None, dedupe_key="a", on_conflict="skip") == [None]
        manager = QueueManager(queries)
        handler = Recorder()
        failed: list[int] = []
        manager.entrypoint("e", concurrency_limit=20)(handler)

        @manager.entrypoint("f")
        async def fails(job: Job) -> None:
            failed.append(job.attempts)
            if job.attempts:
                raise ValueError("broken")
            raise RetryRequested

        async with working(manager):
            await queries.enqueue("f", None)
            await eventually(lambda: len(failed) == 2 and len(handler.jobs) == 305)
            assert (await manager.listener_healthy()).type == "health_check_event"
        assert handler.jobs[0].created.tzinfo is not None
        assert await tables.count() == 0
        assert len(await tables.ended()) == 305
        assert len(await queries.exception_logs()) == 1
        assert sum(entry.count for entry in await queries.log_statistics(None)) > 900


async def test_a_blocking_driver_runs_no_worker(queue_dsn: str) -> None:
    with psycopg.connect(queue_dsn, autocommit=True) as connection:
        driver: Any = SyncPsycopgDriver(connection)
        with pytest.raises(EnqueueOnlyDriverError, match="SyncPsycopgDriver"):
            PgQueuer(driver)
        with pytest.raises(EnqueueOnlyDriverError, match="PsycopgDriver"):
            QueueManager(Queries(driver))
        assert len(SyncQueries(driver).enqueue("e", None)) == 1


# -- Repositories -----------------------------------------------------------------------------


async def test_queries_that_want_to_see_every_job(
    make_driver: MakeDriver, queue_dsn: str, tables: Tables
) -> None:
    class Watching(Queries):
        seen: list[tuple[int, str]]

        async def log_jobs(self, job_status: Any) -> None:
            self.seen += [(job.id, status) for job, status, _ in job_status]
            await super().log_jobs(job_status)

    queries = Watching(await make_driver("asyncpg", queue_dsn))
    queries.seen = []
    manager = QueueManager(queries)

    @manager.entrypoint("e", concurrency_limit=5, on_failure="hold")
    async def handler(job: Job) -> None:
        if job.id % 3 == 0:
            raise ValueError("broken")
        if job.id % 3 == 1 and job.attempts == 0:
            raise RetryRequested(timedelta(milliseconds=5))

    ids = await queries.enqueue(["e"] * 30, [None] * 30, [0] * 30)
    await drain(manager)
    assert sorted(queries.seen) == [
        (job_id, "failed" if job_id % 3 == 0 else "successful") for job_id in ids
    ]
    assert await tables.ended("failed") == [job_id for job_id in ids if job_id % 3 == 0]
    assert await tables.ended() == [job_id for job_id in ids if job_id % 3]
    assert await tables.count("picked") == 0


async def test_dequeue_of_the_users(
    make_driver: MakeDriver, queue_dsn: str, tables: Tables
) -> None:
    class Choosy(Queries):
        async def dequeue(self, *args: Any, **more: Any) -> list[Job]:
            jobs = await super().dequeue(*args, **more)
            for job in jobs:
                job.payload = b"changed"
            return jobs

    manager = QueueManager(Choosy(await make_driver("psycopg", queue_dsn)))
    handler = Recorder()
    manager.entrypoint("e")(handler)
    await manager.queries.enqueue(["e"] * 5, [b"as it was"] * 5, [0] * 5)
    await drain(manager)
    assert handler.payloads == [b"changed"] * 5
    assert len(await tables.ended()) == 5


async def test_the_queue_in_memory() -> None:
    driver = InMemoryDriver()
    queries = InMemoryQueries(driver)
    manager = QueueManager(queries)
    handler = Recorder(pause=0.001)
    manager.entrypoint("e", concurrency_limit=4)(handler)
    ids = await queries.enqueue(["e"] * 50, [None] * 50, [0] * 50)
    await drain(manager)
    assert sorted(handler.ids) == ids
    assert handler.most == 4
    manager.shutdown.clear()
    async with working(manager):
        (late,) = await queries.enqueue("e", None)
        await eventually(lambda: late in handler.ids)
        await eventually(lambda: not manager.job_context)


# -- Names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["asyncpg", "asyncpg-pool", "psycopg"])
async def test_prefix_and_schema(kind: str, make_driver: MakeDriver, dsn: str) -> None:
    settings = DBSettings(prefix="Acme_", db_schema="billing")
    driver = await make_driver(kind, dsn)
    queries = Queries(
        driver,
        qbe=QueryBuilderEnvironment(settings),
        qbq=QueryQueueBuilder(settings),
        qbs=QuerySchedulerBuilder(settings),
    )
    await queries.install()
    assert await queries.verify() == []
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        tables = Tables(connection, "billing.acme_")
        manager = QueueManager(queries, Channel(queries.qbq.settings.channel))
        handler = Recorder(pause=0.002)
        manager.entrypoint("limited", concurrency_limit=2)(handler)
        manager.entrypoint("e")(handler)

        @manager.entrypoint("cancelled")
        async def cancelled(job: Job, context: Context) -> None:
            handler.jobs.append(job)
            with context.cancellation:
                await asyncio.sleep(60)

        async with working(manager, dequeue_timeout=timedelta(hours=1)):
            await queries.enqueue(["limited"] * 20, [None] * 20, [0] * 20)
            await queries.enqueue(["e"] * 250, [None] * 250, [0] * 250)
            await queries.enqueue("e", None, dedupe_key="a", on_conflict="skip")
            ids = await queries.enqueue("cancelled", None)
            await eventually(lambda: len(handler.jobs) == 272)
            await queries.mark_job_as_cancelled(ids)
            assert (await manager.listener_healthy()).channel == "Acme_ch_pgqueuer"
        assert len(await tables.ended()) == 271
        assert await tables.ended("canceled") == ids
        assert await tables.count() == 0
    assert [table.table_name for table in await queries.schema_info()] == [
        "acme_pgqueuer",
        "acme_pgqueuer_log",
        "acme_pgqueuer_schedules",
        "acme_pgqueuer_statistics",
    ]
    assert {entry.entrypoint for entry in await queries.log_statistics(None)} == {
        "limited",
        "e",
        "cancelled",
    }
    await queries.uninstall()
    assert await queries.verify("absent") == []


async def test_two_queues_in_one_database(make_driver: MakeDriver, dsn: str) -> None:
    """Neither jobs nor notifications of one reach the other."""
    managers, handlers = [], []
    for prefix in ("one_", "two_"):
        settings = DBSettings(prefix=prefix)
        queries = Queries(
            await make_driver("asyncpg", dsn),
            QueryBuilderEnvironment(settings),
            QueryQueueBuilder(settings),
            QuerySchedulerBuilder(settings),
        )
        await queries.install()
        managers.append(QueueManager(queries, Channel(settings.channel)))
        handlers.append(Recorder())
        managers[-1].entrypoint("e")(handlers[-1])
    async with working(managers[0]), working(managers[1]):
        await managers[0].queries.enqueue(["e"] * 3, [b"one"] * 3, [0] * 3)
        await managers[1].queries.enqueue(["e"] * 4, [b"two"] * 4, [0] * 4)
        await eventually(lambda: len(handlers[0].jobs) == 3 and len(handlers[1].jobs) == 4)
    assert set(handlers[0].payloads) == {b"one"}
    assert set(handlers[1].payloads) == {b"two"}


# -- Tracers ----------------------------------------------------------------------------------


class Tracer:
    """Numbers what is published, and notes what happens to it."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.published = 0
        self.events: list[tuple[str, str]] = []

    def trace_publish(self, entrypoints: list[str]) -> Generator[dict[str, object], None, None]:
        for _ in entrypoints:
            self.published += 1
            yield {"otel": {"span": str(self.published)}}

    @contextlib.asynccontextmanager
    async def trace_process(self, job: Job) -> AsyncIterator[None]:
        if self.broken == "enter":
            raise RuntimeError("the tracer is broken")
        headers = job.otel_headers() or {}
        span = str(headers.get("span"))
        self.events.append(("start", span))
        yield
        if self.broken == "exit":
            raise RuntimeError("the tracer is broken")
        self.events.append(("end", span))


async def traced(manager: QueueManager) -> Recorder:
    handler = Recorder()
    manager.entrypoint("e")(handler)

    @manager.entrypoint("fail")
    async def fail(job: Job) -> None:
        handler.jobs.append(job)
        raise ValueError("broken")

    await manager.queries.enqueue("e", None, headers={"own": "kept", "otel": "replaced"})
    await manager.queries.enqueue(["e"] * 2, [None] * 2, [0] * 2)
    await manager.queries.enqueue("fail", None)
    await drain(manager)
    return handler


async def test_a_tracer(make_driver: MakeDriver, queue_dsn: str, tables: Tables) -> None:
    tracer = Tracer()
    queries = Queries(await make_driver("asyncpg", queue_dsn), tracer=tracer)
    handler = await traced(QueueManager(queries, tracer=tracer))
    assert handler.jobs[0].headers == {"own": "kept", "otel": {"span": "1"}}
    spans = [str(number) for number in range(1, 5)]
    assert sorted(span for event, span in tracer.events if event == "start") == spans
    assert len(await tables.ended()) == 3
    assert len(await tables.ended("exception")) == 1


async def test_the_tracer_of_the_process(
    make_driver: MakeDriver,
    queue_dsn: str,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing.TRACER, "tracer", None)
    tracer = Tracer()
    tracing.set_tracing_class(tracer)
    await traced(QueueManager(Queries(await make_driver("psycopg", queue_dsn))))
    assert len(tracer.events) >= 7
    assert len(await tables.ended()) == 3
    with psycopg.connect(queue_dsn, autocommit=True) as connection:
        SyncQueries(SyncPsycopgDriver(connection)).enqueue("e", None)
    assert await tables.rows("SELECT headers FROM pgqueuer") == [{"otel": {"span": "5"}}]


@pytest.mark.parametrize("broken", ["enter", "exit"])
async def test_a_tracer_that_fails_costs_no_job(
    make_driver: MakeDriver,
    queue_dsn: str,
    tables: Tables,
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    tracer = Tracer(broken)
    queries = Queries(await make_driver("asyncpg", queue_dsn), tracer=tracer)
    handler = await traced(QueueManager(queries, tracer=tracer))
    assert len(handler.jobs) == 4
    assert len(await tables.ended()) == 3
    assert len(await tables.ended("exception")) == 1
    assert await tables.count() == 0
    assert "The tracer failed" in caplog.text


async def test_a_tracer_that_yields_too_little(make_driver: MakeDriver, queue_dsn: str) -> None:
    class Short(Tracer):
        def trace_publish(self, entrypoints: list[str]) -> Generator[dict[str, object], None, None]:
            yield {}

    queries = Queries(await make_driver("asyncpg", queue_dsn), tracer=Short())
    with pytest.raises(ValueError, match="trace_publish"):
        await queries.enqueue(["e"] * 2, [None] * 2, [0] * 2)
