"""What the roles of docs/guides/roles.md may do, and what they may not."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Final

import httpx
import psycopg
import pytest
import pytest_asyncio
from fastapi import FastAPI
from psycopg.conninfo import make_conninfo

from behaviour.helpers import drain
from pgq_fast.db import PsycopgDriver
from pgq_fast.errors import DuplicateJobError, RetryRequested
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries
from pgq_fast.settings import DBSettings, Layout
from pgq_fast.web import create_web_router
from pgq_fast.web.settings import WebSettings
from support.doc_pages import blocks_of
from support.layouts import queries_of

pytestmark = [pytest.mark.impl_agnostic, pytest.mark.pg_matrix, pytest.mark.layouts]

SCHEMAS: Final = {Layout.compat: "jobs", Layout.lease: "volume"}
ROLES: Final = ("producer", "worker", "viewer")


class Roles:
    """The queue as each of the roles has it."""

    def __init__(self, dsn: str, layout: Layout, stack: AsyncExitStack) -> None:
        self.schema = SCHEMAS[layout]
        self.settings = DBSettings(layout=layout, db_schema=self.schema)
        self._dsn = dsn
        self._stack = stack
        # Roles are the server's, which tests of other processes use as well.
        self._ending = secrets.token_hex(4)

    def named(self, sql: str) -> str:
        """*sql* with names of roles that are this test's own."""
        return re.sub(rf"\b({'|'.join(ROLES)})\b", rf"\1_{self._ending}", sql)

    async def connect(self, role: str | None = None) -> psycopg.AsyncConnection[Any]:
        """A connection that has no more rights than *role*."""
        options = "" if role is None else f"-c role={self.named(role)}"
        connection = await psycopg.AsyncConnection.connect(
            make_conninfo(self._dsn, options=options), autocommit=True
        )
        self._stack.push_async_callback(connection.close)
        return connection

    async def queries(self, role: str | None = None) -> Queries:
        """The queue over such a connection."""
        driver = PsycopgDriver(await self.connect(role))
        return queries_of(await self._stack.enter_async_context(driver), self.settings)


@pytest_asyncio.fixture
async def roles(dsn: str, layout: Layout) -> AsyncIterator[Roles]:
    """Both queues of the page, and what it grants on them."""
    async with AsyncExitStack() as stack:
        found = Roles(dsn, layout, stack)
        for each, schema in SCHEMAS.items():
            queries = queries_of(
                PsycopgDriver(await found.connect()), DBSettings(layout=each, db_schema=schema)
            )
            await queries.install()
        owner = await found.connect()
        for block in blocks_of("docs/guides/roles.md"):
            if block.kind == "sql":
                await owner.execute(found.named(block.code).encode())
        yield found
        names = found.named(", ".join(ROLES))
        await owner.execute(f"DROP OWNED BY {names}; DROP ROLE {names}".encode())


async def forbidden(*calls: Awaitable[Any]) -> None:
    for call in calls:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await call


async def test_a_producer_adds_jobs_and_does_nothing_else(roles: Roles) -> None:
    producer = await roles.queries("producer")
    owner = await roles.queries()
    hour = timedelta(hours=1)
    ids: list[Any] = [
        *await producer.enqueue("e", b"secret"),
        *await producer.enqueue("e", b"secret", 1, hour, headers={"h": "1"}),
        *await producer.enqueue("e", b"secret", dedupe_key="k"),
        *await producer.enqueue("e", b"secret", dedupe_key="later", execute_after=hour),
    ]
    for count in (3, 2500):
        names: Any = ["e"] * count
        nothing: list[Any] = [None] * count
        priorities = [0] * count
        ids += await producer.enqueue(names, nothing, priorities)
        ids += await producer.enqueue(names, nothing, priorities, execute_after=[hour] * count)
        ids += await producer.enqueue(
            names, nothing, priorities, dedupe_key=[f"{count} {number}" for number in range(count)]
        )
    with pytest.raises(DuplicateJobError):
        await producer.enqueue("e", None, dedupe_key="k")
    assert await producer.enqueue("e", None, dedupe_key="k", on_conflict="skip") == [None]
    skipped, added = await producer.enqueue(
        ["e"] * 2, [None] * 2, [0] * 2, dedupe_key=["k", None], on_conflict="skip"
    )
    assert skipped is None
    assert added is not None
    assert sum(group.count for group in await owner.queue_size()) == len(ids) + 1

    await forbidden(
        producer.browse_queue(),
        producer.queue_log(),
        producer.log_statistics(None),
        producer.clear_queue(),
        producer.clear_queue("e"),
        producer.mark_job_as_cancelled(ids[:1]),
        producer.insert_schedule({}),
        producer.uninstall(),
    )
    connection = await roles.connect("producer")
    for table in ("pgqueuer", "pgqueuer_log", "pgqueuer_statistics", "pgqueuer_schedules"):
        for statement in (
            f"SELECT * FROM {roles.schema}.{table}",
            f"DELETE FROM {roles.schema}.{table}",
            f"TRUNCATE {roles.schema}.{table}",
            f"DROP TABLE {roles.schema}.{table}",
        ):
            with pytest.raises(psycopg.Error) as caught:
                await connection.execute(statement.encode())
            # Of the views of the lease layout: they are no tables.
            assert caught.value.sqlstate in ("42501", "42809", "55000"), statement
    where = "pgqueuer" if roles.settings.layout is Layout.compat else "pgqueuer_ready"
    for column in ("payload", "headers"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute(f"SELECT {column} FROM {roles.schema}.{where}".encode())


async def test_a_worker_does_all_that_workers_do(roles: Roles) -> None:
    worker = await roles.queries("worker")
    manager = QueueManager(worker)
    seen: list[int] = []

    @manager.entrypoint("good", concurrency_limit=2)
    async def good(job: Job) -> None:
        seen.append(job.id)

    @manager.entrypoint("bad", on_failure="hold")
    async def bad(job: Job) -> None:
        if not job.attempts:
            raise RetryRequested(timedelta(milliseconds=1))
        raise ValueError

    await worker.enqueue(["good"] * 5, [None] * 5, [0] * 5)
    await worker.enqueue("bad", None, dedupe_key="k")
    await worker.enqueue("bad", None, 7, dedupe_key="k", on_conflict="update_priority")
    await drain(manager)
    assert len(seen) == 5
    held = await worker.list_failed_jobs()
    await worker.requeue_jobs([job.id for job in held])
    await worker.mark_job_as_cancelled([job.id for job in held])
    assert await worker.queue_size() == []
    assert await worker.throughput_summary()
    await worker.clear_queue("good")
    await forbidden(worker.clear_queue(), worker.clear_queue_log(), worker.clear_statistics_log())
    await forbidden(worker.uninstall())
    connection = await roles.connect("worker")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await connection.execute(f"CREATE TABLE {roles.schema}.mine ()".encode())


async def test_a_viewer_looks_and_changes_nothing(roles: Roles) -> None:
    owner = await roles.queries()
    (job_id,) = await owner.enqueue("e", b"payload")
    viewer = await roles.queries("viewer")
    assert [job.id for job in await viewer.browse_queue()] == [job_id]
    await viewer.queue_size()
    await viewer.queue_age()
    await viewer.queue_log()
    await viewer.active_workers()
    await viewer.stale_jobs(timedelta(0))
    await viewer.peek_schedule()
    await viewer.schema_info()
    await viewer.job_duration_percentiles(timedelta(days=1))
    await forbidden(
        viewer.enqueue("e", None),
        viewer.clear_queue("e"),
        viewer.clear_queue(),
        viewer.mark_job_as_cancelled([job_id]),
        viewer.requeue_jobs([job_id]),
        viewer.throughput_summary(),
        viewer.uninstall(),
    )
    app = FastAPI()
    app.state.pgq_queries = viewer
    settings = WebSettings(read_only=True)
    app.include_router(create_web_router(include_sse=False, settings=settings))
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 5000))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        routes: list[Any] = app.routes
        pages = [route.path for route in routes if getattr(route, "methods", None) == {"GET"}]
        for page in pages:
            answer = await client.get(page.replace("{job_id}", str(job_id)))
            assert answer.status_code in (200, 404), (page, answer.status_code, answer.text[:300])
        assert (await client.get("/jobs")).status_code == 200
    assert [job.id for job in await owner.browse_queue()] == [job_id]
