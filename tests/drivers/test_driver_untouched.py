"""A connection that was handed in comes out as it went in, and open."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg.rows import dict_row

from drivers.helpers import copy_stream, eventually
from pgq_fast.db import AsyncpgDriver, AsyncpgPoolDriver, PsycopgDriver, SyncPsycopgDriver
from pgq_fast.drivers.base import Int8Array

SESSION = (
    "SELECT name || '=' || setting FROM pg_settings"
    " WHERE context IN ('user', 'superuser') AND name NOT LIKE 'transaction%' ORDER BY name"
)
ISOLATION = "SHOW transaction_isolation"


async def _use_in_every_way(driver: Any) -> None:
    got: list[Any] = []
    async with driver, driver:
        await driver.execute("CREATE TABLE IF NOT EXISTS t (n bigint, s text)")
        await driver.fetch("SELECT $1::int AS n", 1)
        await driver.fetch_rows("SELECT unnest($1::bigint[])", Int8Array([1, 2]))
        await driver.add_listener("ch", got.append)
        await driver.notify("ch", "x")
        await eventually(lambda: got == ["x"])
        async with driver.transaction() as transaction:
            await transaction.copy_in("t", ["n", "s"], copy_stream([(1, b"")]))
            (row,) = await transaction.fetch_rows(ISOLATION)
            assert row[0] == "repeatable read"
        with pytest.raises(KeyError):  # noqa: PT012
            async with driver.transaction() as transaction:
                await transaction.fetch_rows("SELECT 1")
                raise KeyError
        task = asyncio.create_task(driver.execute("SELECT pg_sleep(600)"))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait({task})


async def test_an_asyncpg_connection(dsn: str) -> None:
    connection = await asyncpg.connect(
        dsn, server_settings={"default_transaction_isolation": "repeatable read"}
    )
    theirs: list[Any] = []

    def on_theirs(*args: Any) -> None:
        theirs.append(args[-1])

    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads
    )
    await connection.add_listener("theirs", on_theirs)
    await connection.add_listener("ch", on_theirs)
    before = await connection.fetch(SESSION)
    await _use_in_every_way(AsyncpgDriver(connection))
    assert not connection.is_closed()
    assert not connection.is_in_transaction()
    assert await connection.fetch(SESSION) == before
    assert await connection.fetchval("""SELECT '{"a": 1}'::jsonb""") == {"a": 1}
    assert await connection.fetchval("SELECT array_agg(c) FROM pg_listening_channels() c") == [
        "theirs",
        "ch",
    ]
    assert theirs == ["x"]
    await connection.execute("NOTIFY theirs, 'y'")
    await eventually(lambda: theirs == ["x", "y"])
    # A codec of theirs applies to the driver's rows as well: it is their connection.
    assert (await AsyncpgDriver(connection).fetch("SELECT '[1]'::jsonb AS j"))[0]["j"] == [1]
    await connection.close()


async def test_an_asyncpg_pool(dsn: str) -> None:
    async with asyncpg.create_pool(
        dsn,
        min_size=2,
        max_size=2,
        server_settings={"default_transaction_isolation": "repeatable read"},
    ) as pool:
        before = await pool.fetch(SESSION)
        await _use_in_every_way(AsyncpgPoolDriver(pool))
        assert pool.get_size() == pool.get_idle_size() == 2
        for _ in range(2):
            assert await pool.fetch(SESSION) == before
            assert await pool.fetch("SELECT pg_listening_channels()") == []


async def test_a_psycopg_connection(dsn: str) -> None:
    connection = await psycopg.AsyncConnection.connect(
        dsn,
        autocommit=True,
        row_factory=dict_row,
        options="-c default_transaction_isolation=repeatable\\ read",
    )
    theirs: list[str] = []

    def on_theirs(note: psycopg.Notify) -> None:
        theirs.append(note.channel)

    await connection.execute("LISTEN theirs")
    before = await (await connection.execute(SESSION)).fetchall()
    state = _psycopg_state(connection)
    await _use_in_every_way(PsycopgDriver(connection))
    assert not connection.closed
    assert connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
    assert not connection.lock.locked()
    assert _psycopg_state(connection) == state
    assert await (await connection.execute(SESSION)).fetchall() == before
    assert await (await connection.execute("SELECT pg_listening_channels() AS c")).fetchall() == [
        {"c": "theirs"}
    ]
    connection.add_notify_handler(on_theirs)
    await connection.execute("NOTIFY theirs")
    assert theirs == ["theirs"]
    connection.remove_notify_handler(on_theirs)
    # Their notifies() works as before.
    await connection.execute("NOTIFY theirs, 'y'")
    async for note in connection.notifies(timeout=5, stop_after=1):
        assert note.payload == "y"
    await connection.close()


def _psycopg_state(connection: Any) -> tuple[Any, ...]:
    maps = connection.adapters
    return (
        connection.autocommit,
        connection.isolation_level,
        connection.read_only,
        connection.deferrable,
        connection.row_factory,
        connection.cursor_factory,
        connection.prepare_threshold,
        connection.prepared_max,
        list(connection._notify_handlers),
        list(connection._notice_handlers),
        [dict(loaders) for loaders in maps._loaders],
        {key: dict(dumpers) for key, dumpers in maps._dumpers.items()},
        [dict(loaders) for loaders in psycopg.adapters._loaders],
        {key: dict(dumpers) for key, dumpers in psycopg.adapters._dumpers.items()},
    )


def test_a_blocking_psycopg_connection(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        state = _psycopg_state(connection)
        driver = SyncPsycopgDriver(connection)
        driver.execute("CREATE TABLE t (n bigint, s text)")
        driver.fetch_rows("SELECT unnest($1::bigint[])", Int8Array([1]))
        with driver.transaction() as transaction:
            transaction.copy_in("t", ["n", "s"], copy_stream([(1, b"")]))
        assert _psycopg_state(connection) == state
        assert not connection.closed
        assert connection.execute("SELECT 1 AS n").fetchone() == {"n": 1}
