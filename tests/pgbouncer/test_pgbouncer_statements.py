"""Statements and producers through PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import psycopg
import pytest

from behaviour.helpers import Tables, eventually
from drivers.helpers import background
from pgbouncer.helpers import Library, Ways
from pgq_fast.completion import CompletionWatcher
from pgq_fast.connections import (
    connect_asyncpg,
    connect_psycopg,
    create_asyncpg_pool,
    create_psycopg_pool,
)
from pgq_fast.db import AsyncpgDriver, AsyncpgPoolDriver, PsycopgDriver, SyncPsycopgDriver
from pgq_fast.drivers.base import Int8Array
from pgq_fast.drivers.failures import TransactionAbortedError, sqlstate_of
from pgq_fast.errors import DuplicateJobError, SessionStateError, StatementCacheError
from pgq_fast.queries import Queries, SyncQueries
from pgq_fast.settings import ConnectionSettings
from pgq_fast.types import Channel
from support.pgbouncer import SESSIONS

Open = Callable[..., Awaitable[Any]]

# More than enough for psycopg's prepare_threshold, and for asyncpg's cache to be hit.
OFTEN = 12

SESSION = "SELECT pg_backend_pid() AS pid, $1::bigint AS n"


# What the setting is for.


async def test_without_the_setting_names_of_statements_are_lost(queue: Ways) -> None:
    """The plain use of either library, as a user has it who does not know of the pooler."""
    connection = await asyncpg.connect(queue.pooled)
    queries = Queries(AsyncpgDriver(connection))
    with pytest.raises(asyncpg.InvalidSQLStatementNameError, match="does not exist"):  # noqa: PT012
        for _ in range(OFTEN):
            await queries.enqueue("e", b"x")
    await connection.close()
    async with await psycopg.AsyncConnection.connect(queue.pooled, autocommit=True) as other:
        driver = PsycopgDriver(other)
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):  # noqa: PT012
            for n in range(OFTEN):
                await driver.fetch(SESSION, n)


async def test_a_statement_cache_is_refused(queue: Ways) -> None:
    connection = await asyncpg.connect(queue.pooled)
    with pytest.raises(StatementCacheError, match="statement_cache_size=0"):
        AsyncpgDriver(connection, transaction_pooling=True)
    await connection.close()
    async with asyncpg.create_pool(queue.pooled, min_size=1, max_size=2) as pool:
        driver = AsyncpgPoolDriver(pool, transaction_pooling=True)
        for use in (driver.fetch, driver.fetch_rows, driver.execute):
            with pytest.raises(StatementCacheError):
                await use("SELECT 1")
        with pytest.raises(StatementCacheError):
            async with driver.transaction():
                pass


async def test_the_application_name_goes_through(queue: Ways) -> None:
    settings = ConnectionSettings(
        dsn=queue.pooled, transaction_pooling=True, application_name="mine", connect_timeout=20
    )
    for _ in range(3):
        async with connect_asyncpg(settings=settings) as one:
            assert await one.fetchval("SELECT current_setting('application_name')") == "mine"
        async with connect_psycopg(settings=settings) as other:
            cursor = await other.execute("SELECT current_setting('application_name')")
            assert await cursor.fetchone() == ("mine",)


async def test_a_search_path_in_the_dsn_is_refused(queue: Ways) -> None:
    """By PgBouncer, which says so: see the README for what to do instead."""
    with pytest.raises(asyncpg.PostgresError, match="unsupported startup parameter: search_path"):
        await asyncpg.connect(f"{queue.pooled}&search_path=mine")
    with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter: options"):
        await psycopg.AsyncConnection.connect(f"{queue.pooled}&options=-csearch_path%3Dmine")


# Statements.


async def test_every_statement_may_have_another_session(driver: Any, queue: Ways) -> None:
    pids = set()
    with psycopg.connect(queue.pooled, autocommit=True, prepare_threshold=None) as neighbour:
        for n in range(OFTEN):
            ((pid, same),) = await driver.fetch_rows(SESSION, n)
            assert same == n
            pids.add(pid)
            (row,) = await driver.fetch(SESSION, n)
            assert row["n"] == n
            pids.add(row["pid"])
            tag = await driver.execute("SELECT unnest($1::bigint[])", Int8Array([n, 2]))
            assert tag == "SELECT 2"
            assert await driver.execute("SELECT $1::text", "x") == "SELECT 1"
            assert await driver.execute("SELECT 1; SELECT 2") == "SELECT 1"
            if n % 2:
                # Takes a turn, or a number of statements that happens to be even keeps a session.
                neighbour.execute("SELECT 1")
    assert len(pids) == SESSIONS
    assert not driver.in_transaction()


async def test_statements_of_several_clients_at_once(queue: Ways, open_through: Open) -> None:
    """Each gets the answer to its own question, whichever session answers."""
    drivers = [
        await open_through(kind, queue.pooled)
        for kind in ("asyncpg", "asyncpg-pool", "psycopg", "owned-asyncpg", "owned-psycopg")
        for _ in range(2)
    ]

    async def ask(position: int, driver: Any) -> None:
        # Different statements, so that a mix-up is seen.
        query = f"SELECT $1::bigint + {position}, $2::text, $3::uuid"
        for n in range(40):
            token = uuid.uuid4()
            ((total, text, same),) = await driver.fetch_rows(query, n, f"{n}", token)
            assert (total, text, same) == (n + position, f"{n}", token)

    await asyncio.gather(*(ask(*each) for each in enumerate(drivers)))


@pytest.mark.parametrize("name", ["asyncpg", "asyncpg-pool", "owned-asyncpg"])
@pytest.mark.layouts
async def test_types_that_asyncpg_has_to_ask_about(
    name: str, queue: Ways, open_through: Open, tables: Tables
) -> None:
    """No session keeps the setting that asyncpg changes meanwhile."""
    noise = await open_through("psycopg", queue.pooled)

    async def make_noise() -> None:
        # Takes turns at times that nobody can foresee.
        while True:
            await noise.execute("SELECT 1")

    async with background(make_noise()):
        for n in range(15):
            driver = await open_through(name, queue.pooled)
            (row,) = await driver.fetch("SELECT $1::pgqueuer_status AS status", "queued")
            assert row["status"] == "queued"
            await driver.execute("SELECT $1::interval[]", [])
            await Queries(driver).enqueue(["e"] * 3, [b"x"] * 3, [n] * 3)
    with psycopg.connect(queue.pooled, autocommit=True, prepare_threshold=None) as connection:
        found = [connection.execute("SHOW jit").fetchone() for _ in range(4 * SESSIONS)]
    assert found == [(await tables.value("SHOW jit"),)] * len(found)


async def test_a_transaction_keeps_its_session(driver: Any) -> None:
    async with driver.transaction() as transaction:
        pids = {(await transaction.fetch_rows(SESSION, n))[0][0] for n in range(OFTEN)}
    assert len(pids) == 1


async def test_failures_leave_nothing_behind(driver: Any) -> None:
    for use in (driver.fetch, driver.fetch_rows, driver.execute):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has its own
            await use("SELECT 1 / $1::int", 0)
        assert sqlstate_of(caught.value) == "22012"
        with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has its own
            await use("SELECT $1::int FROM nowhere", 0)
        assert sqlstate_of(caught.value) == "42P01"
        assert not driver.in_transaction()
        assert len(await driver.fetch_rows(SESSION, 1)) == 1
    with pytest.raises(TransactionAbortedError):  # noqa: PT012
        async with driver.transaction() as transaction:
            with pytest.raises(Exception):  # noqa: B017, PT011
                await transaction.fetch_rows("SELECT 1 / $1::int", 0)
    assert len(await driver.fetch_rows(SESSION, 1)) == 1


async def test_a_cancelled_statement_ends_on_the_server(driver: Any, tables: Tables) -> None:
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%$1%'"
    for use in (driver.fetch_rows, driver.execute):
        task = asyncio.create_task(use("SELECT pg_sleep($1::int)", 600))
        await eventually(lambda: tables.value(f"{sleeping} AND wait_event = 'PgSleep'"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Both sessions are to be had.
        async with asyncio.timeout(20):
            for n in range(OFTEN):
                assert (await driver.fetch_rows(SESSION, n))[0][1] == n
        assert await tables.value(f"{sleeping} AND state = 'active'") == 0


async def test_session_locks_are_refused(driver: Any, tables: Tables) -> None:
    with pytest.raises(SessionStateError, match="directly"):
        async with Queries(driver).schema_lock():
            pass
    assert await tables.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


@pytest.mark.parametrize("name", ["asyncpg", "psycopg"])
async def test_a_transaction_of_the_users(name: Library, queue: Ways, tables: Tables) -> None:
    """``enqueue`` takes part in it, as it does without a pooler."""
    driver: Any
    connection: Any
    if name == "asyncpg":
        connection = await asyncpg.connect(queue.pooled, statement_cache_size=0)
        driver = AsyncpgDriver(connection, transaction_pooling=True)
    else:
        connection = await psycopg.AsyncConnection.connect(queue.pooled, autocommit=True)
        driver = PsycopgDriver(connection, transaction_pooling=True)
    queries = Queries(driver)
    for size in (1, 3, 500):
        with pytest.raises(KeyError):  # noqa: PT012
            async with connection.transaction():
                await queries.enqueue(["e"] * size, [b"x"] * size, [0] * size)
                assert driver.in_transaction()
                raise KeyError
        assert await tables.count() == 0
    async with connection.transaction():
        ids = await queries.enqueue(["e"] * 500, [b"x"] * 500, [0] * 500)
    assert await tables.count() == len(ids)
    await connection.close()


async def test_the_connection_of_the_user_stays_as_it_is(queue: Ways) -> None:
    async with await psycopg.AsyncConnection.connect(queue.pooled, autocommit=True) as connection:
        driver = PsycopgDriver(connection, transaction_pooling=True)
        for n in range(OFTEN):
            await driver.fetch_rows(SESSION, n)
        assert connection.prepare_threshold == 5
    with psycopg.connect(queue.pooled, autocommit=True) as blocking:
        sync_driver = SyncPsycopgDriver(blocking, transaction_pooling=True)
        for n in range(OFTEN):
            sync_driver.fetch_rows(SESSION, n)
            sync_driver.execute(SESSION, n)
            sync_driver.fetch(SESSION, n)
        assert blocking.prepare_threshold == 5


@pytest.mark.parametrize("library_pool", [create_asyncpg_pool, create_psycopg_pool])
async def test_pools_from_settings(library_pool: Any, queue: Ways) -> None:
    settings = ConnectionSettings(
        dsn=queue.pooled, transaction_pooling=True, application_name="pooled", pool_max_size=3
    )

    async def ask(pool: Any, n: int) -> None:
        if library_pool is create_asyncpg_pool:
            driver = AsyncpgPoolDriver(pool, transaction_pooling=True)
            assert (await driver.fetch_rows(SESSION, n))[0][1] == n
        else:
            async with pool.connection() as connection:
                cursor = await connection.execute("SELECT %s::bigint", [n])
                assert await cursor.fetchone() == (n,)

    async with library_pool(settings=settings) as pool:
        await asyncio.gather(*(ask(pool, n) for n in range(40)))


# Producers.


@pytest.mark.layouts
async def test_enqueue(driver: Any, tables: Tables) -> None:
    queries = Queries(driver)
    ids = []
    for n in range(OFTEN):
        ids += await queries.enqueue("one", b"%d" % n, n)
        ids += await queries.enqueue(["some"] * 3, [b"%d" % n] * 3, [n] * 3)
    # Enough for COPY, and for many of its messages.
    ids += await queries.enqueue(["many"] * 3000, [b"x" * 1000] * 3000, [0] * 3000)
    assert len(set(ids)) == 4 * OFTEN + 3000
    assert await tables.rows("SELECT id FROM pgqueuer ORDER BY id") == sorted(ids)
    assert await tables.value("SELECT count(*) FROM pgqueuer WHERE length(payload) = 1000") == 3000


@pytest.mark.layouts
async def test_dedupe_keys(driver: Any, tables: Tables) -> None:
    queries = Queries(driver)
    for _ in range(OFTEN):
        await queries.enqueue("e", None, dedupe_key=f"{uuid.uuid4()}")
    await queries.enqueue("e", None, dedupe_key="same")
    for _ in range(OFTEN):
        with pytest.raises(DuplicateJobError):
            await queries.enqueue("e", None, dedupe_key="same")
    assert await tables.count() == OFTEN + 1


@pytest.mark.layouts
def test_enqueue_from_a_blocking_driver(queue: Ways) -> None:
    with psycopg.connect(queue.pooled, autocommit=True, prepare_threshold=0) as connection:
        queries = SyncQueries(SyncPsycopgDriver(connection, transaction_pooling=True))
        for n in range(OFTEN):
            queries.enqueue("one", b"%d" % n, n)
            queries.enqueue(["some"] * 3, [None] * 3, [n] * 3)
        queries.enqueue(["many"] * 2000, [b"x" * 100] * 2000, [0] * 2000)
        assert sum(entry.count for entry in queries.queue_size()) == 4 * OFTEN + 2000


@pytest.mark.layouts
async def test_many_producers_of_all_kinds_at_once(
    queue: Ways, open_through: Open, tables: Tables
) -> None:
    async def produce(kind: str) -> list[int]:
        queries = Queries(await open_through(kind, queue.pooled))
        ids: list[int] = []
        for n in range(10):
            ids += await queries.enqueue("one", b"%d" % n)
            ids += await queries.enqueue(["some"] * 20, [None] * 20, [0] * 20)
            ids += await queries.enqueue(["many"] * 300, [b"x"] * 300, [0] * 300)
        return ids

    kinds = ("asyncpg", "asyncpg-pool", "psycopg", "owned-asyncpg", "owned-psycopg")
    produced = await asyncio.gather(*(produce(kind) for kind in kinds))
    ids = sorted(job_id for each in produced for job_id in each)
    assert len(ids) == 5 * 10 * 321
    assert await tables.rows("SELECT id FROM pgqueuer ORDER BY id") == ids


@pytest.mark.layouts
async def test_reports(driver: Any) -> None:
    queries = Queries(driver)
    ids = await queries.enqueue(["e"] * 5, [None] * 5, [0] * 5)
    for _ in range(OFTEN):
        assert [entry.count for entry in await queries.queue_size()] == [5]
        assert {status for _, status in await queries.job_status(ids)} == {"queued"}
        assert len(await queries.queue_log()) == 5
    await queries.mark_job_as_cancelled(ids[:2])
    assert [entry.count for entry in await queries.queue_size()] == [3]


@pytest.mark.layouts
async def test_waiting_for_completion_without_notifications(
    queue: Ways, open_through: Open
) -> None:
    driver = await open_through("asyncpg", queue.pooled, poll_interval=timedelta(milliseconds=50))
    queries = Queries(driver)
    (job_id,) = await queries.enqueue("e", None)
    async with (
        asyncio.timeout(20),
        CompletionWatcher(driver, queries=queries, refresh_interval=None) as watcher,
    ):
        waiter = watcher.wait_for(job_id)
        await asyncio.sleep(0.2)
        assert not waiter.done()
        await queries.mark_job_as_cancelled([job_id])
        assert await waiter == "canceled"


async def test_notify_goes_through(queue: Ways, driver: Any) -> None:
    heard: list[Any] = []
    async with await psycopg.AsyncConnection.connect(queue.direct, autocommit=True) as connection:
        listener = PsycopgDriver(connection)
        await listener.add_listener(Channel("ch"), heard.append)
        for n in range(3):
            await driver.notify("ch", f"{n}")
        await eventually(lambda: heard == ["0", "1", "2"])
