"""A worker on a connection of the user's ends with it, by an error that says what to do."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from behaviour.helpers import QUIET, Tables
from pgq_fast.drivers.failures import is_connection_lost
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries
from support.drivers import MakeDriver

pytestmark = [pytest.mark.impl_agnostic, pytest.mark.parametrize("kind", ["asyncpg", "psycopg"])]


async def failure_of_a_worker(queries: Queries, tables: Tables, fault: str) -> BaseException:
    """What a worker raises after the statement *fault*, which may name the worker's session."""
    manager = QueueManager(queries)

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        pass

    [session] = await queries.driver.fetch("SELECT pg_backend_pid() AS pid")
    run = asyncio.create_task(manager.run(dequeue_timeout=timedelta(seconds=0.1), **QUIET))
    await asyncio.sleep(0.2)
    await tables.rows(fault.format(session["pid"]))
    async with asyncio.timeout(30):
        await asyncio.wait([run])
    error = run.exception()
    assert error is not None
    return error


async def test_the_loss_of_the_connection(
    kind: str, make_driver: MakeDriver, queue_dsn: str, tables: Tables
) -> None:
    queries = Queries(await make_driver(kind, queue_dsn))
    error = await failure_of_a_worker(queries, tables, "SELECT pg_terminate_backend({}, 5000)")
    assert is_connection_lost(error)
    [note] = error.__notes__
    assert "PgQueuer.from_dsn" in note


async def test_another_failure(
    kind: str, make_driver: MakeDriver, queue_dsn: str, tables: Tables
) -> None:
    queries = Queries(await make_driver(kind, queue_dsn))
    error = await failure_of_a_worker(queries, tables, "ALTER TABLE pgqueuer RENAME TO gone")
    assert not is_connection_lost(error)
    assert getattr(error, "__notes__", []) == []
