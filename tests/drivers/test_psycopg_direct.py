"""Statements that the psycopg driver runs without a cursor."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from drivers.helpers import Administrator, eventually
from pgq_fast.db import PsycopgDriver
from pgq_fast.drivers.base import Int8Array

Connection = psycopg.AsyncConnection[Any]

OURS = "SELECT statement FROM pg_prepared_statements WHERE name LIKE '\\_pgq\\_fast\\_%'"


@pytest_asyncio.fixture
async def connection(dsn: str) -> AsyncIterator[Connection]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        yield connection


async def prepared(connection: Connection) -> list[str]:
    cursor = await connection.execute(OURS, prepare=False)
    return [row[0] for row in await cursor.fetchall()]


async def test_the_threshold_of_the_connection_counts(connection: Connection) -> None:
    query = "SELECT $1::bigint"
    for runs in range(1, 9):
        # Also where each use has a driver of its own.
        assert await PsycopgDriver(connection).fetch_rows(query, runs) == [(runs,)]
        assert await prepared(connection) == ([query] if runs > 5 else [])
    connection.prepare_threshold = 0
    await PsycopgDriver(connection).fetch_rows("SELECT 0")
    assert len(await prepared(connection)) == 2
    connection.prepare_threshold = None
    for _ in range(8):
        await PsycopgDriver(connection).fetch_rows("SELECT 1")
    assert len(await prepared(connection)) == 2


async def test_no_more_than_the_connection_allows(connection: Connection) -> None:
    connection.prepare_threshold = 0
    connection.prepared_max = 3
    driver = PsycopgDriver(connection)
    for n in range(10):
        assert await driver.fetch_rows(f"SELECT {n}") == [(n,)]
    assert len(await prepared(connection)) == 3
    assert await driver.fetch_rows("SELECT 0") == [(0,)]


async def test_statements_that_are_run_once_leave_room(connection: Connection) -> None:
    connection.prepare_threshold = 1
    connection.prepared_max = 3
    driver = PsycopgDriver(connection)
    for n in range(10):
        await driver.fetch_rows(f"SELECT {n}")
    for _ in range(2):
        await driver.fetch_rows("SELECT 'often'")
    assert await prepared(connection) == ["SELECT 'often'"]


@pytest.mark.parametrize("forget", ["DISCARD ALL", "DEALLOCATE ALL"])
async def test_a_session_that_was_reset(forget: str, connection: Connection) -> None:
    connection.prepare_threshold = 0
    driver = PsycopgDriver(connection)
    for n in range(3):
        assert await driver.fetch_rows("SELECT $1::bigint", n) == [(n,)]
        assert await driver.execute("SELECT unnest($1::bigint[])", Int8Array([n])) == "SELECT 1"
        await connection.execute(forget)
    for n in range(2):
        await driver.fetch_rows("SELECT $1::bigint", n)
    await connection.execute(forget)
    # A transaction is lost with its statement, and cannot be had back here.
    with pytest.raises(psycopg.errors.InvalidSqlStatementName):
        async with connection.transaction():
            await driver.fetch_rows("SELECT $1::bigint", 9)
    assert await driver.fetch_rows("SELECT $1::bigint", 10) == [(10,)]


async def test_a_result_that_changed_its_type(connection: Connection) -> None:
    connection.prepare_threshold = 0
    driver = PsycopgDriver(connection)
    await driver.execute("CREATE TABLE t AS SELECT 1::int AS n")
    assert await driver.fetch_rows("SELECT * FROM t") == [(1,)]
    await driver.execute("ALTER TABLE t ALTER n TYPE text, ADD m bool")
    assert await driver.fetch_rows("SELECT * FROM t") == [("1", None)]
    assert await driver.fetch_rows("SELECT * FROM t") == [("1", None)]


async def test_parameters_of_other_types_are_another_statement(connection: Connection) -> None:
    connection.prepare_threshold = 0
    driver = PsycopgDriver(connection)
    query = "SELECT $1::text"
    token = uuid.uuid4()
    for _ in range(2):
        assert await driver.fetch_rows(query, "x") == [("x",)]
        assert await driver.fetch_rows(query, None) == [(None,)]
        assert await driver.fetch_rows(query, 5) == [("5",)]
        assert await driver.fetch_rows(query, token) == [(str(token),)]
        assert await driver.fetch_rows(query, timedelta(seconds=1)) == [("00:00:01",)]


async def test_errors_are_those_of_psycopg(connection: Connection) -> None:
    connection.prepare_threshold = 0
    driver = PsycopgDriver(connection)
    for _ in range(2):
        with pytest.raises(psycopg.errors.DivisionByZero):
            await driver.fetch_rows("SELECT 1 / $1::int", 0)
        with pytest.raises(psycopg.errors.UndefinedTable) as caught:
            await driver.execute("SELECT $1::bigint[] FROM nowhere", Int8Array())
        assert "nowhere" in str(caught.value)
        with pytest.raises(psycopg.ProgrammingError, match="adapt"):
            await driver.fetch_rows("SELECT $1", object())
        with pytest.raises(psycopg.errors.SyntaxError):
            await driver.fetch_rows("SELECT 1; SELECT 2")
    assert await driver.fetch_rows("SELECT 1") == [(1,)]
    assert await driver.fetch_rows("SET application_name = 'x'") == []
    assert await driver.fetch_rows("") == []


async def test_copy_is_refused(connection: Connection) -> None:
    driver = PsycopgDriver(connection)
    await driver.execute("CREATE TABLE t (n int)")
    with pytest.raises(psycopg.ProgrammingError, match="copy_in"):
        await driver.fetch_rows("COPY t FROM STDIN")
    assert await driver.fetch_rows("SELECT count(*) FROM t") == [(0,)]


async def test_a_pipeline_of_the_users(connection: Connection) -> None:
    driver = PsycopgDriver(connection)
    async with connection.pipeline():
        with pytest.raises(psycopg.NotSupportedError, match="pipeline"):
            await driver.fetch_rows("SELECT $1::bigint", 1)
        with pytest.raises(psycopg.NotSupportedError, match="pipeline"):
            await driver.execute("SELECT $1::bigint[]", Int8Array([1]))
    assert await driver.fetch_rows("SELECT $1::bigint", 2) == [(2,)]


async def test_statements_of_the_users_in_between(connection: Connection) -> None:
    connection.prepare_threshold = 0
    driver = PsycopgDriver(connection)

    async def ours(n: int) -> None:
        assert await driver.fetch_rows("SELECT $1::bigint, pg_sleep(0.001)", n) == [(n, b"")]

    async def theirs(n: int) -> None:
        cursor = await connection.execute("SELECT %s::bigint, pg_sleep(0.001)", [n])
        assert await cursor.fetchone() == (n, "")

    await asyncio.gather(*(work(n) for n in range(50) for work in (ours, theirs)))


@pytest.mark.parametrize("threshold", [0, None])
async def test_cancellation_at_any_moment(
    threshold: int | None, connection: Connection, admin: Administrator
) -> None:
    """Each statement is another one, so that its preparation is cut off too."""
    connection.prepare_threshold = threshold
    connection.prepared_max = None
    driver = PsycopgDriver(connection)
    for n in range(150):
        task = asyncio.create_task(driver.fetch_rows(f"SELECT {n % 40}, pg_sleep(0.002)"))
        for _ in range(n % 15):
            await asyncio.sleep(0)
        if n % 3 == 0:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait({task})
        assert await driver.fetch_rows("SELECT $1::bigint", n) == [(n,)]
    task = asyncio.create_task(driver.fetch_rows("SELECT pg_sleep(600)"))
    await eventually(lambda: admin.sleeping("SELECT pg_sleep(600)"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await admin.running("SELECT pg_sleep(600)")


async def test_another_encoding(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        driver = PsycopgDriver(connection)
        for encoding in ("LATIN1", "UTF8", "LATIN1"):
            await driver.execute(f"SET client_encoding = '{encoding}'")
            assert await driver.fetch_rows("SELECT $1::text, 'é', length($1::text)", "ü") == [
                ("ü", "é", 1)
            ]


async def test_large_values(connection: Connection) -> None:
    """More than a socket takes at once, both ways."""
    driver = PsycopgDriver(connection)
    data = bytes(range(256)) * 40_000
    for _ in range(2):
        ((same,),) = await driver.fetch_rows("SELECT $1::bytea", data)
        assert same == data
