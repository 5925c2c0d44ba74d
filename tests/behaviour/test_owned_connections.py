"""``PgQueuer.from_dsn``: connections that it opens, replaces and closes."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any, Literal

import psycopg
import pytest

from behaviour.helpers import QUIET, Tables, eventually
from pgq_fast.applications import PgQueuer
from pgq_fast.models import Job, Schedule
from pgq_fast.queries import Queries
from pgq_fast.settings import ConnectionSettings
from pgq_fast.types import QueueExecutionMode
from support.drivers import MakeDriver

# Nothing of this is in a kernel.
pytestmark = [pytest.mark.pg_matrix, pytest.mark.layouts(), pytest.mark.impl_agnostic]

APPLICATION = "the owned one"


@pytest.fixture
def pgq(queue_dsn: str, library: Literal["asyncpg", "psycopg"]) -> PgQueuer:
    return PgQueuer.from_dsn(
        queue_dsn, library, settings=ConnectionSettings(application_name=APPLICATION)
    )


async def test_drains_and_closes(pgq: PgQueuer, tables: Tables) -> None:
    seen: list[int] = []

    @pgq.entrypoint("e")
    async def handler(job: Job) -> None:
        seen.append(job.id)

    assert pgq.queries is not None
    ids = await pgq.queries.enqueue(["e"] * 400, [None] * 400, [0] * 400)
    assert await tables.sessions(APPLICATION) > 0
    await asyncio.wait_for(pgq.run(mode=QueueExecutionMode.drain, **QUIET), 30)
    assert sorted(seen) == ids
    assert await tables.ended() == ids
    await eventually(lambda: no_sessions(tables))


async def no_sessions(tables: Tables) -> bool:
    return await tables.sessions(APPLICATION) == 0


async def test_close_without_a_run(pgq: PgQueuer, tables: Tables) -> None:
    async with pgq:
        assert pgq.queries is not None
        await pgq.queries.enqueue("e", None)
        assert await tables.sessions(APPLICATION) > 0
    await eventually(lambda: no_sessions(tables))


async def test_shutdown_closes(pgq: PgQueuer, tables: Tables) -> None:
    started = asyncio.Event()

    @pgq.entrypoint("e")
    async def handler(job: Job) -> None:
        started.set()

    @pgq.schedule("tick", "0 0 1 1 *")
    async def tick(schedule: Schedule) -> None:
        pass

    task = asyncio.create_task(pgq.run(**QUIET))
    assert pgq.queries is not None
    await pgq.queries.enqueue("e", None)
    await asyncio.wait_for(started.wait(), 20)
    pgq.shutdown.set()
    await asyncio.wait_for(task, 20)
    await eventually(lambda: no_sessions(tables))
    assert len(await tables.ended()) == 1


async def terminate_all(tables: Tables) -> int:
    pids = await tables.rows(
        "SELECT pid FROM pg_stat_activity WHERE application_name = $1", APPLICATION
    )
    for pid in pids:
        await tables.rows("SELECT pg_terminate_backend($1::int, 5000)", pid)
    return len(pids)


async def test_survives_the_loss_of_all_connections(
    pgq: PgQueuer, tables: Tables, make_driver: MakeDriver, queue_dsn: str
) -> None:
    """Again and again, while jobs flow: none is lost, none ends twice, the end is orderly."""
    runs: Counter[int] = Counter()

    @pgq.entrypoint("e")
    async def handler(job: Job) -> None:
        runs[job.id] += 1
        await asyncio.sleep(0.002)

    producer = Queries(await make_driver("asyncpg", queue_dsn))
    task = asyncio.create_task(
        pgq.run(
            batch_size=20,
            heartbeat_timeout=timedelta(seconds=2),
            dequeue_timeout=timedelta(seconds=1),
            **QUIET,
        )
    )
    ids: list[Any] = []
    killed = 0
    for turn in range(8):
        ids += await producer.enqueue(["e"] * 150, [None] * 150, [0] * 150)
        before = len(runs)
        await eventually(lambda least=before + 20: task.done() or len(runs) > least)  # type: ignore[misc]
        assert not task.done()
        await asyncio.sleep(0.003 * turn)
        killed += await terminate_all(tables)
    assert killed >= 8

    async def all_ended() -> bool:
        assert not task.done(), task.exception()
        return await tables.count() == 0

    await eventually(all_ended)
    pgq.shutdown.set()
    await asyncio.wait_for(task, 20)
    assert sorted(runs) == ids
    assert await tables.ended() == ids
    assert await tables.ended("exception") == []
    await eventually(lambda: no_sessions(tables))


async def test_wakes_up_after_a_loss_while_it_was_idle(
    pgq: PgQueuer, tables: Tables, make_driver: MakeDriver, queue_dsn: str
) -> None:
    """What was notified while nobody listened is found without waiting for the poll."""
    seen: list[int] = []

    @pgq.entrypoint("e")
    async def handler(job: Job) -> None:
        seen.append(job.id)

    producer = Queries(await make_driver("asyncpg", queue_dsn))
    task = asyncio.create_task(
        pgq.run(dequeue_timeout=timedelta(hours=1), heartbeat_timeout=timedelta(hours=1), **QUIET)
    )
    for _ in range(3):
        (job_id,) = await producer.enqueue("e", None)
        await eventually(lambda job_id=job_id: job_id in seen)  # type: ignore[misc]
        await asyncio.sleep(0.1)
        await terminate_all(tables)
        (job_id,) = await producer.enqueue("e", None)
        await eventually(lambda job_id=job_id: job_id in seen)  # type: ignore[misc]
    pgq.shutdown.set()
    await asyncio.wait_for(task, 20)
    assert await tables.ended() == sorted(seen)


async def test_a_server_that_cannot_be_reached(library: Literal["asyncpg", "psycopg"]) -> None:
    pgq = PgQueuer.from_dsn("postgresql://u:hidden@127.0.0.1:1/none?connect_timeout=2", library)
    with pytest.raises((OSError, psycopg.OperationalError)) as caught:
        await asyncio.wait_for(pgq.run(mode=QueueExecutionMode.drain), 60)
    assert "hidden" not in str(caught.value)
    await pgq.close()
