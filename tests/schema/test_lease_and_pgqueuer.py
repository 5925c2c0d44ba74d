"""pgqueuer 1.6.0 itself on the lease layout: it fails, and nothing is lost."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import psycopg
import pytest
from pgqueuer.core.qm import QueueManager
from pgqueuer.domain.models import Job
from pgqueuer.domain.types import QueueExecutionMode
from pgqueuer.ports.repository import EntrypointExecutionParameter

from pgq_fast.db import SyncPsycopgDriver
from pgq_fast.schema import manage
from pgq_fast.schema.statements import run_sync
from pgq_fast.settings import DBSettings, Layout
from support.layouts import Templates
from support.original import pgqueuer_queries
from support.pg_programs import psql, schema_dump
from support.server import Databases

pytestmark = [pytest.mark.impl_agnostic, pytest.mark.pg_matrix]

JOBS = """
    INSERT INTO pgqueuer_ready (priority, entrypoint, payload) VALUES (1, 'e', 'a'), (2, 'e', 'b');
    INSERT INTO pgqueuer_deferred (priority, entrypoint, execute_after)
    VALUES (0, 'e', now() + interval '1 hour');
    INSERT INTO pgqueuer_lease (worker, entrypoint, done, ids, priorities, attempts, created,
        execute_after, heartbeat, payloads)
    SELECT gen_random_uuid(), 'e', B'10', array_agg(id), array_agg(0), array_agg(0),
        array_agg(now()), array_agg(now()), now() - interval '1 hour', array_agg('p'::bytea)
    FROM (SELECT nextval('pgqueuer_ids') AS id FROM generate_series(1, 2)) AS taken;
    INSERT INTO pgqueuer_held (id, priority, attempts, created, execute_after, entrypoint)
    VALUES (nextval('pgqueuer_ids'), 0, 1, now(), now(), 'e');
    INSERT INTO pgqueuer_log_entries (job_id, status, priority, entrypoint)
    VALUES (100, 'exception', 0, 'e');
"""


@pytest.fixture
def dsn(queue_templates: Templates, databases: Databases) -> Iterator[str]:
    """A database with the lease layout and a job in each place."""
    with databases.temporary(queue_templates.name(Layout.lease)) as (_, dsn):
        psql(dsn, JOBS)
        yield dsn


def state(dsn: str) -> list[Any]:
    """The schema, and all rows of both views."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return [
            schema_dump(dsn),
            connection.execute("SELECT * FROM pgqueuer ORDER BY id").fetchall(),
            connection.execute(
                "SELECT * FROM pgqueuer_log ORDER BY job_id, created, status"
            ).fetchall(),
            connection.execute("SELECT count(*) FROM pgqueuer_statistics").fetchall(),
        ]


def _job() -> Job:
    now = "2024-01-01T00:00:00Z"
    return Job.model_validate(
        {
            **dict.fromkeys(("created", "updated", "heartbeat", "execute_after"), now),
            "id": 1,
            "priority": 0,
            "status": "picked",
            "entrypoint": "e",
            "payload": None,
            "queue_manager_id": uuid.uuid4(),
            "headers": None,
            "attempts": 0,
        }
    )


CALLS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "enqueue": lambda queries: queries.enqueue("e", b"x"),
    "enqueue several": lambda queries: queries.enqueue(["e"] * 300, [b"x"] * 300, [0] * 300),
    "enqueue with a key": lambda queries: queries.enqueue("e", b"x", dedupe_key="k"),
    "dequeue": lambda queries: queries.dequeue(
        batch_size=10,
        entrypoints={"e": EntrypointExecutionParameter(0)},
        queue_manager_id=uuid.uuid4(),
        global_concurrency_limit=None,
        heartbeat_timeout=timedelta(seconds=30),
    ),
    "clear": lambda queries: queries.clear_queue(),
    "clear one": lambda queries: queries.clear_queue("e"),
    "cancel": lambda queries: queries.mark_job_as_cancelled([1, 2, 3, 4, 5, 6]),
    "end": lambda queries: queries.log_jobs([(_job(), "successful", None)]),
    "retry": lambda queries: queries.retry_job(_job(), timedelta(0), None),
    "requeue": lambda queries: queries.requeue_jobs([1, 2, 3, 4, 5, 6]),
    "heartbeat": lambda queries: queries.update_heartbeat([1, 2, 3]),
    "clear log": lambda queries: queries.clear_queue_log(),
    "aggregate": lambda queries: queries.aggregate_logs(),
    "upgrade": lambda queries: queries.upgrade(),
    "durability": lambda queries: queries.alter_durability(),
    "autovacuum": lambda queries: queries.optimize_autovacuum(),
    "install": lambda queries: queries.install(),
    "uninstall": lambda queries: queries.uninstall(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_what_writes_fails_and_changes_nothing(
    call: Callable[[Any], Awaitable[Any]], dsn: str
) -> None:
    before = state(dsn)
    async with pgqueuer_queries(dsn) as queries:
        with pytest.raises(asyncpg.PostgresError):
            await call(queries)
    assert state(dsn) == before
    with psycopg.connect(dsn, autocommit=True) as connection:
        settings = DBSettings(layout=Layout.lease)
        assert run_sync(SyncPsycopgDriver(connection), manage.verify(settings)) == []


async def test_worker_does_not_start(dsn: str) -> None:
    before = state(dsn)
    async with pgqueuer_queries(dsn) as queries:
        manager = QueueManager(queries)

        @manager.entrypoint("e")
        async def handler(job: Job) -> None:
            raise AssertionError("a job was run")

        with pytest.raises(RuntimeError, match="upgrade"):
            await manager.run(mode=QueueExecutionMode.drain)
    assert state(dsn) == before


async def test_what_reads_works(dsn: str) -> None:
    async with pgqueuer_queries(dsn) as queries:
        assert {
            (row.status, row.count) for row in await queries.queue_size() if row.priority == 0
        } == {("queued", 1), ("picked", 1), ("failed", 1)}
        assert len(await queries.browse_queue()) == 5
        assert len(await queries.queue_log()) == 7
        assert [job.status for job in await queries.list_failed_jobs()] == ["failed"]
