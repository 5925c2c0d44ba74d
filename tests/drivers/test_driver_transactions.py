"""Transactions and COPY on every driver, with and without a transaction of the caller."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import psycopg
import pytest

from drivers.helpers import Administrator, background, copy_stream, eventually
from pgq_fast.db import AsyncpgDriver, AsyncpgPoolDriver, PsycopgDriver
from pgq_fast.drivers.failures import TransactionAbortedError, sqlstate_of

CREATE = "CREATE TABLE t (n bigint PRIMARY KEY, s text)"
COLUMNS = ["n", "s"]


async def _numbers(admin: Administrator) -> list[int]:
    return await admin.values("SELECT n FROM t ORDER BY n")


async def _usable(driver: Any) -> None:
    async with asyncio.timeout(10):
        assert [row[0] for row in await driver.fetch_rows("SELECT 1")] == [1]
    assert not driver.in_transaction()


async def test_commits_at_the_end(driver: Any, admin: Administrator) -> None:
    await driver.execute(CREATE)
    async with driver.transaction() as transaction:
        rows = await transaction.fetch_rows("INSERT INTO t VALUES ($1::int8) RETURNING n", 1)
        assert [row[0] for row in rows] == [1]
        await transaction.copy_in("t", COLUMNS, copy_stream([(2, b"two"), (3, None)]))
        assert not await _numbers(admin)
        # The caller has none open: this one is the driver's.
        assert not driver.in_transaction()
    assert await _numbers(admin) == [1, 2, 3]
    assert await admin.values("SELECT s FROM t WHERE n > 1 ORDER BY n") == ["two", None]
    await _usable(driver)


async def test_an_exception_rolls_back(driver: Any, admin: Administrator) -> None:
    await driver.execute(CREATE)
    with pytest.raises(KeyError, match="mine"):  # noqa: PT012
        async with driver.transaction() as transaction:
            await transaction.copy_in("t", COLUMNS, copy_stream([(1, b"")]))
            raise KeyError("mine")
    assert await _numbers(admin) == []
    await _usable(driver)


async def test_a_failed_statement_rolls_back(driver: Any, admin: Administrator) -> None:
    await driver.execute(CREATE)
    with pytest.raises(Exception, match="duplicate key") as caught:  # noqa: PT012
        async with driver.transaction() as transaction:
            await transaction.fetch_rows("INSERT INTO t VALUES (1)")
            await transaction.fetch_rows("INSERT INTO t VALUES (1)")
    assert sqlstate_of(caught.value) == "23505"
    assert await _numbers(admin) == []
    await _usable(driver)


async def test_a_swallowed_failure_is_no_success(driver: Any, admin: Administrator) -> None:
    await driver.execute(CREATE)
    with pytest.raises(TransactionAbortedError, match="rolled it back"):  # noqa: PT012
        async with driver.transaction() as transaction:
            await transaction.fetch_rows("INSERT INTO t VALUES (1)")
            with contextlib.suppress(Exception):
                await transaction.fetch_rows("INSERT INTO t VALUES (1)")
    assert await _numbers(admin) == []
    await _usable(driver)


async def test_a_failure_at_commit_leaves_a_usable_driver(
    driver: Any, admin: Administrator
) -> None:
    await driver.execute("CREATE TABLE t (n int8 UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(Exception, match="duplicate key"):
        async with driver.transaction() as transaction:
            await transaction.fetch_rows("INSERT INTO t VALUES (1), (1)")
    assert await _numbers(admin) == []
    await _usable(driver)


@pytest.mark.parametrize(
    "data",
    [
        copy_stream([(1, b"a"), (1, b"again")]),
        copy_stream([(1, b"a")])[:-2],
        copy_stream([(1, b"a")])[:-5],
        b"no copy stream at all",
        b"",
        copy_stream([(1, b"\xff")]),
    ],
    ids=["duplicate", "no trailer", "cut", "nonsense", "empty", "no utf-8"],
)
async def test_a_failed_copy_rolls_back(driver: Any, admin: Administrator, data: bytes) -> None:
    await driver.execute(CREATE)

    async def attempt() -> None:
        async with driver.transaction() as transaction:
            await transaction.fetch_rows("INSERT INTO t VALUES (7)")
            await transaction.copy_in("t", COLUMNS, data)

    if data == copy_stream([(1, b"a")])[:-2]:
        # PostgreSQL takes the end of the stream for the end of the data.
        await attempt()
        assert await _numbers(admin) == [1, 7]
    else:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has its own
            await attempt()
        assert (sqlstate_of(caught.value) or "")[:2] in ("22", "23")
        assert await _numbers(admin) == []
    await _usable(driver)


async def test_a_copy_of_many_messages(driver: Any, admin: Administrator) -> None:
    await driver.execute(CREATE)
    data = copy_stream((number, b"x" * 1000) for number in range(5000))
    async with driver.transaction() as transaction:
        await transaction.copy_in("t", COLUMNS, data)
    assert await admin.values("SELECT count(*) FROM t WHERE length(s) = 1000") == [5000]
    await _usable(driver)


@pytest.mark.parametrize(
    ("created", "used"),
    [
        ("Acme_t", "Acme_t"),
        ("acme_t", "ACME_T"),
        ("Depot.Acme_t", "depot.acme_T"),
    ],
)
async def test_copy_folds_names_as_statements_do(
    driver: Any, admin: Administrator, created: str, used: str
) -> None:
    await driver.execute("CREATE SCHEMA Depot")
    await driver.execute(f"CREATE TABLE {created} (n bigint, s text)")
    async with driver.transaction() as transaction:
        await transaction.fetch_rows(f"INSERT INTO {used} VALUES (1)")
        await transaction.copy_in(used, COLUMNS, copy_stream([(2, b"")]))
    assert await admin.values(f"SELECT n FROM {created} ORDER BY n") == [1, 2]


async def test_other_tasks_stay_out(driver: Any, admin: Administrator) -> None:
    await driver.execute(CREATE)
    entered = asyncio.Event()
    leave = asyncio.Event()

    async def fails_in_the_end() -> None:
        async with driver.transaction() as transaction:
            await transaction.fetch_rows("INSERT INTO t VALUES (1)")
            entered.set()
            await leave.wait()
            raise KeyError

    first = asyncio.create_task(fails_in_the_end())
    await entered.wait()
    second = asyncio.create_task(driver.fetch_rows("INSERT INTO t VALUES (2)"))
    await asyncio.sleep(0)
    leave.set()
    await asyncio.gather(first, second, return_exceptions=True)
    assert isinstance(first.exception(), KeyError)
    assert second.exception() is None
    # Had it run within the transaction, it would have been rolled back.
    assert await _numbers(admin) == [2]


@pytest.mark.parametrize("cancellations", [1, 2, 50])
async def test_cancelled_within(driver: Any, admin: Administrator, cancellations: int) -> None:
    await driver.execute(CREATE)

    async def run() -> None:
        async with driver.transaction() as transaction:
            await transaction.fetch_rows("INSERT INTO t VALUES (1)")
            await transaction.fetch_rows("SELECT pg_sleep(600)::text")

    task = asyncio.create_task(run())
    await eventually(lambda: admin.running("%pg_sleep(600)%"))
    for _ in range(cancellations):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    await _usable(driver)
    assert await _numbers(admin) == []
    assert await admin.backends(state="idle in transaction%") == []


@pytest.mark.parametrize("cancellations", [1, 30])
async def test_cancelled_during_a_copy(
    driver: Any, admin: Administrator, cancellations: int
) -> None:
    await driver.execute(CREATE)
    # COPY waits for the lock of the table.
    async with background(_hold_the_table(admin)) as holder:
        await eventually(lambda: admin.values("SELECT 1 FROM pg_locks WHERE mode = 'ShareLock'"))

        async def run() -> None:
            async with driver.transaction() as transaction:
                await transaction.copy_in(
                    "t", COLUMNS, copy_stream((n, b"x" * 1000) for n in range(3000))
                )

        task = asyncio.create_task(run())
        await eventually(lambda: admin.values("SELECT 1 FROM pg_locks WHERE NOT granted"))
        for _ in range(cancellations):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        holder.cancel()
    await _usable(driver)
    assert await _numbers(admin) == []


async def _hold_the_table(admin: Administrator) -> None:
    async with admin._connection.transaction():
        await admin.execute("LOCK TABLE t IN SHARE MODE")
        await asyncio.sleep(600)


# The caller's own transaction.


@contextlib.asynccontextmanager
async def _with_transaction(kind: str, dsn: str) -> AsyncIterator[tuple[Any, Any]]:
    """A driver whose connection has a transaction open, and the block that ends it."""
    if kind == "asyncpg":
        connection = await asyncpg.connect(dsn)
        try:
            yield AsyncpgDriver(connection), connection.transaction
        finally:
            await connection.close()
    else:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other:
            yield PsycopgDriver(other), other.transaction


@pytest.mark.parametrize("kind", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("commit", [True, False])
async def test_uses_the_callers_transaction(
    kind: str, dsn: str, admin: Administrator, commit: bool
) -> None:
    async with _with_transaction(kind, dsn) as (driver, block):
        await driver.execute(CREATE)
        assert not driver.in_transaction()
        with contextlib.suppress(KeyError):
            async with block():
                await driver.fetch_rows("INSERT INTO t VALUES (1)")
                assert driver.in_transaction()
                async with driver.transaction() as transaction:
                    await transaction.fetch_rows("INSERT INTO t VALUES (2)")
                    await transaction.copy_in("t", COLUMNS, copy_stream([(3, b"")]))
                    assert driver.in_transaction()
                # Still the caller's: nothing is committed yet, and no savepoint was made.
                assert driver.in_transaction()
                assert await _numbers(admin) == []
                if not commit:
                    raise KeyError
        assert not driver.in_transaction()
        assert await _numbers(admin) == ([1, 2, 3] if commit else [])
        await _usable(driver)


@pytest.mark.parametrize("kind", ["asyncpg", "psycopg"])
async def test_an_exception_leaves_the_callers_transaction_to_the_caller(
    kind: str, dsn: str, admin: Administrator
) -> None:
    async with _with_transaction(kind, dsn) as (driver, block):
        await driver.execute(CREATE)
        async with block():
            await driver.fetch_rows("INSERT INTO t VALUES (1)")
            with pytest.raises(KeyError):  # noqa: PT012
                async with driver.transaction() as transaction:
                    await transaction.fetch_rows("INSERT INTO t VALUES (2)")
                    raise KeyError
        assert await _numbers(admin) == [1, 2]


@pytest.mark.parametrize("kind", ["asyncpg", "psycopg"])
async def test_in_transaction_while_a_statement_runs(
    kind: str, dsn: str, admin: Administrator
) -> None:
    async with _with_transaction(kind, dsn) as (driver, block):
        for expected in (False, True):
            async with contextlib.AsyncExitStack() as stack:
                if expected:
                    await stack.enter_async_context(block())
                    await driver.execute("SELECT 1")
                task = asyncio.create_task(driver.execute("SELECT pg_sleep(0.2)"))
                await eventually(lambda: admin.running("SELECT pg_sleep(0.2)"))
                assert driver.in_transaction() is expected
                await task
                assert driver.in_transaction() is expected


async def test_a_pool_gets_its_connection_back(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
        driver = AsyncpgPoolDriver(pool)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                with pytest.raises(KeyError):  # noqa: PT012
                    async with driver.transaction() as transaction:
                        await transaction.fetch_rows("SELECT 1")
                        raise KeyError
        assert pool.get_idle_size() == 1
        assert caplog.records == []
