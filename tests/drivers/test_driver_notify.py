"""LISTEN and NOTIFY on every driver."""

from __future__ import annotations

import asyncio
import functools
import logging
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import psycopg
import pytest
import uvloop

from drivers.helpers import Administrator, eventually
from pgq_fast.db import AsyncpgDriver, AsyncpgPoolDriver, PsycopgDriver
from pgq_fast.drivers.listeners import ReconnectNotifier
from pgq_fast.drivers.owned import OwnedDriver
from pgq_fast.errors import ConnectionLostError, OpenTransactionError

CHANNELS = ["ch_pgqueuer", "MixedCase", "with-dash", "with.dot", "0starts_with_a_digit", 'a"quote']


async def _listening(driver: Any) -> set[str]:
    """What the driver's listener connection listens to, as the server says."""
    query = "SELECT c FROM pg_listening_channels() AS c"
    if isinstance(driver, AsyncpgPoolDriver):
        listener: Any = driver._listener
        return {row[0] for row in await listener.fetch(query)}
    if isinstance(driver, OwnedDriver):
        assert driver._listening is not None
        return {row[0] for row in await driver._listening.driver.fetch_rows(query)}
    return {row[0] for row in await driver.fetch_rows(query)}


def _has(items: list[Any], count: int) -> bool:
    return len(items) == count


async def test_an_idle_connection_delivers(driver: Any, admin: Administrator) -> None:
    got: list[Any] = []
    await driver.add_listener("ch", got.append)
    for number in range(3):
        await admin.notify("ch", str(number))
        await eventually(functools.partial(_has, got, number + 1))
    assert got == ["0", "1", "2"]


async def test_one_driver_to_itself(driver: Any) -> None:
    got: list[Any] = []
    await driver.add_listener("ch", got.append)
    await driver.notify("ch", "{}")
    await eventually(lambda: got == ["{}"])


@pytest.mark.parametrize("channel", CHANNELS)
async def test_names_of_channels(driver: Any, admin: Administrator, channel: str) -> None:
    got: list[Any] = []
    others: list[Any] = []
    await driver.add_listener(channel, got.append)
    await driver.add_listener(channel.swapcase() + "x", others.append)
    await admin.notify(channel, "mine")
    await eventually(lambda: got == ["mine"])
    await admin.notify(channel.swapcase() + "x", "other")
    await eventually(lambda: others == ["other"])
    assert got == ["mine"]
    await driver.remove_listener(channel, got.append)
    assert await _listening(driver) == {channel.swapcase() + "x"}


async def test_several_callbacks_of_a_channel(driver: Any, admin: Administrator) -> None:
    first: list[Any] = []
    second: list[Any] = []
    add_first, add_second = first.append, second.append
    await driver.add_listener("ch", add_first)
    await driver.add_listener("ch", add_second)
    await admin.notify("ch", "1")
    await eventually(lambda: first == second == ["1"])
    await driver.remove_listener("ch", add_first)
    await driver.remove_listener("ch", add_first)  # it is not on any more
    await driver.remove_listener("nowhere", add_first)
    await admin.notify("ch", "2")
    await eventually(lambda: second == ["1", "2"])
    assert first == ["1"]
    await driver.remove_listener("ch", add_second)
    await driver.add_listener("other", add_first)
    assert await _listening(driver) == {"other"}
    await admin.notify("ch", "3")
    await admin.notify("other", "4")
    await eventually(lambda: first == ["1", "4"])
    assert second == ["1", "2"]


async def test_a_callback_that_raises(
    driver: Any, admin: Administrator, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[Any] = []

    def raises(payload: Any) -> None:
        raise ValueError(f"cannot read {payload}")

    for callback in (raises, got.append):
        await driver.add_listener("ch", callback)
    with caplog.at_level(logging.DEBUG):
        await admin.notify("ch", "top secret")
        await eventually(lambda: got == ["top secret"])
    (record,) = [record for record in caplog.records if record.name == "pgqueuer"]
    assert "ValueError" in record.getMessage()
    assert "in raises" in record.getMessage()
    assert "top secret" not in caplog.text
    await driver.remove_listener("ch", raises)
    await admin.notify("ch", "again")
    await eventually(lambda: got == ["top secret", "again"])


async def test_a_notify_during_a_statement(driver: Any, admin: Administrator) -> None:
    got: list[Any] = []
    await driver.add_listener("ch", got.append)
    task = asyncio.create_task(driver.fetch_rows("SELECT 1, pg_sleep(0.3)::text"))
    await eventually(lambda: admin.running("SELECT 1, pg_sleep(0.3)%"))
    await admin.notify("ch", "meanwhile")
    (row,) = await task
    assert row[0] == 1
    await eventually(lambda: got == ["meanwhile"])


async def test_nothing_is_lost_between_statements(driver: Any, admin: Administrator) -> None:
    """NOTIFYs that arrive with, before and after the results of other statements."""
    got: list[Any] = []
    await driver.add_listener("ch", got.append)

    async def statements() -> None:
        while len(got) < 600:
            await asyncio.gather(*(driver.fetch_rows("SELECT 1") for _ in range(5)))
            await driver.execute("SELECT pg_notify('ch', 'own')")

    async with asyncio.timeout(60):
        task = asyncio.create_task(statements())
        for number in range(500):
            await admin.notify("ch", str(number))
        await eventually(lambda: len([one for one in got if one != "own"]) >= 500)
        await eventually(lambda: len(got) >= 600)
        await task
    assert [int(one) for one in got if one != "own"] == list(range(500))


async def test_a_notify_in_a_transaction_arrives_after_it(
    driver: Any, admin: Administrator
) -> None:
    got: list[Any] = []
    await driver.add_listener("ch", got.append)
    async with driver.transaction() as transaction:
        await transaction.fetch_rows("SELECT pg_notify('ch', 'inside')::text")
        await admin.notify("ch", "outside")
    await eventually(lambda: sorted(got) == ["inside", "outside"])


async def test_listening_ends_when_the_last_manager_leaves(
    kind: str, open_any: Callable[[str], Awaitable[Any]], admin: Administrator
) -> None:
    driver = await open_any(kind)  # entered once
    got: list[Any] = []
    async with driver as same:
        assert same is driver
        await driver.add_listener("ch", got.append)
    await admin.notify("ch", "1")
    await eventually(lambda: got == ["1"])

    await driver.__aexit__(None, None, None)
    if kind not in ("owned-asyncpg", "owned-psycopg", "asyncpg-pool"):
        assert await _listening(driver) == set()
    await admin.notify("ch", "2")

    async with driver:
        assert not driver.shutdown.is_set()
        await driver.add_listener("ch", got.append)
        await admin.notify("ch", "3")
        await eventually(lambda: got == ["1", "3"])
    await driver.__aenter__()  # for the fixture


async def test_a_cancelled_listen(driver: Any, admin: Administrator) -> None:
    got: list[Any] = []
    for _ in range(20):
        task = asyncio.create_task(driver.add_listener("ch", got.append))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            await driver.remove_listener("ch", got.append)
    await driver.add_listener("ch", got.append)
    await admin.notify("ch", "1")
    await eventually(lambda: got)
    assert got == ["1"]


# A transaction of the caller.


async def test_asyncpg_refuses_to_listen_in_a_transaction(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    driver = AsyncpgDriver(connection)
    async with connection.transaction():
        with pytest.raises(OpenTransactionError, match="LISTEN"):
            await driver.add_listener("ch", print)
    assert await _listening(driver) == set()
    await driver.add_listener("ch", print)
    assert await _listening(driver) == {"ch"}
    await connection.close()


async def test_psycopg_refuses_to_listen_in_a_transaction(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        driver = PsycopgDriver(connection)
        async with connection.transaction():
            with pytest.raises(OpenTransactionError, match="LISTEN"):
                await driver.add_listener("ch", print)
        assert await _listening(driver) == set()
        # One that begins while the LISTEN waits for the connection.
        async with connection.lock:
            task = asyncio.create_task(driver.add_listener("ch", print))
            await eventually(lambda: connection._notify_handlers)
            begin = asyncio.create_task(connection.execute("BEGIN"))
            await asyncio.sleep(0)
            begin_first = connection.lock._waiters
            assert begin_first is not None
            begin_first.reverse()
        with pytest.raises(OpenTransactionError, match="LISTEN"):
            await task
        await begin
        await connection.execute("COMMIT")
        assert await _listening(driver) == set()
        assert connection._notify_handlers == []
        await driver.add_listener("ch", print)
        assert await _listening(driver) == {"ch"}
        await driver.remove_listener("ch", print)


# psycopg: statements of the caller on the same connection.


async def test_psycopg_delivers_beside_the_callers_statements(
    dsn: str, admin: Administrator
) -> None:
    async with (
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection,
        PsycopgDriver(connection) as driver,
    ):
        got: list[Any] = []
        theirs: list[Any] = []
        connection.add_notify_handler(lambda note: theirs.append(note.payload))
        await driver.add_listener("ch", got.append)
        for number in range(50):
            rows, _ = await asyncio.gather(
                connection.execute("SELECT 1, pg_sleep(0.002)"),
                admin.notify("ch", str(number)),
            )
            assert await rows.fetchall() != []
        await eventually(lambda: got == [str(number) for number in range(50)])
        assert theirs == got
        assert not connection.lock.locked()


async def test_psycopg_does_not_spin_while_the_caller_holds_the_connection(
    dsn: str, admin: Administrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pgq_fast.drivers.notify_watch import NotifyWatch

    calls = 0
    original = NotifyWatch._readable

    def counting(self: NotifyWatch) -> None:
        nonlocal calls
        calls += 1
        original(self)

    monkeypatch.setattr(NotifyWatch, "_readable", counting)
    async with (
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection,
        PsycopgDriver(connection) as driver,
    ):
        got: list[Any] = []
        await driver.add_listener("ch", got.append)
        # The socket stays readable all the time: nobody reads what COPY sends.
        async with connection.cursor().copy(
            "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 20000)) TO STDOUT"
        ) as copy:
            await copy.read()
            await admin.notify("ch", "meanwhile")
            for _ in range(200):
                await asyncio.sleep(0.001)
            async for _ in copy:
                pass
        await eventually(lambda: got == ["meanwhile"])
    assert calls < 10


async def test_psycopg_leaves_a_failing_handler_of_the_caller_alone(
    dsn: str, admin: Administrator, caplog: pytest.LogCaptureFixture
) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:

        def theirs(note: psycopg.Notify) -> None:
            raise ValueError(note.payload)

        async with PsycopgDriver(connection) as driver:
            got: list[Any] = []
            await driver.add_listener("ch", got.append)
            connection.add_notify_handler(theirs)
            await admin.notify("ch", "secret 1")
            await admin.notify("ch", "secret 2")
            await eventually(lambda: got == ["secret 1", "secret 2"])
            assert "ValueError" in caplog.text
            assert "secret" not in caplog.text


async def test_psycopg_watch_notifies_ends_with_the_driver(dsn: str, admin: Administrator) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        async with PsycopgDriver(connection) as driver:
            got: list[Any] = []
            await driver.add_listener("ch", got.append)
            task = asyncio.create_task(driver.watch_notifies())
            await admin.notify("ch", "1")
            await eventually(lambda: got == ["1"])
            assert not task.done()
        await asyncio.wait_for(task, 10)
        assert driver.shutdown.is_set()


async def test_psycopg_tells_once_that_the_connection_is_lost(
    dsn: str, admin: Administrator, caplog: pytest.LogCaptureFixture
) -> None:
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    async with PsycopgDriver(connection) as driver:
        await driver.add_listener("ch", print)
        task = asyncio.create_task(driver.watch_notifies())
        await admin.terminate("LISTEN%")
        with pytest.raises(ConnectionLostError):
            await asyncio.wait_for(task, 10)
        assert connection.closed
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        with pytest.raises(psycopg.OperationalError):
            await driver.execute("SELECT 1")
    await connection.close()


async def test_psycopg_says_nothing_when_the_caller_closes_the_connection(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    async with PsycopgDriver(connection) as driver:
        await driver.add_listener("ch", print)
        await connection.close()
        await eventually(lambda: not driver._watch.started)
    assert caplog.records == []


@pytest.mark.parametrize("library", ["asyncpg", "psycopg"])
def test_on_uvloop(dsn: str, library: Any) -> None:
    async def main() -> list[Any]:
        got: list[Any] = []
        async with OwnedDriver(dsn, library) as driver:
            await driver.add_listener("ch", got.append)
            assert driver._listening is not None
            listener: Any = driver._listening.driver
            for number in range(20):
                await driver.notify("ch", str(number))
                await asyncio.gather(*(listener.fetch_rows("SELECT 1") for _ in range(3)))
            await eventually(lambda: len(got) == 20)
        return got

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == [str(number) for number in range(20)]


# Pools.


async def test_a_pool_of_one_is_refused(dsn: str) -> None:
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
        driver = AsyncpgPoolDriver(pool)
        with pytest.raises(RuntimeError, match="max_size=2"):
            await driver.add_listener("ch", print)
        assert pool.get_idle_size() == 1


async def test_a_pool_gets_its_listener_back(
    dsn: str, admin: Administrator, recwarn: pytest.WarningsRecorder
) -> None:
    async with asyncpg.create_pool(dsn, min_size=2, max_size=2) as pool:
        driver = AsyncpgPoolDriver(pool)
        async with driver, driver:
            for channel in ("a", "b"):
                await driver.add_listener(channel, print)
            assert pool.get_idle_size() == 1
            await driver.execute("SELECT 1")
        assert pool.get_idle_size() == 2
        for _ in range(2):
            async with pool.acquire() as one, pool.acquire() as other:
                for connection in (one, other):
                    assert await connection.fetch("SELECT pg_listening_channels()") == []
        # Without ``async with``: the last callback that goes gives it back.
        await driver.add_listener("a", print)
        await driver.add_listener("b", print)
        await driver.remove_listener("a", print)
        assert pool.get_idle_size() == 1
        await driver.remove_listener("b", print)
        assert pool.get_idle_size() == 2
    assert [w for w in recwarn if issubclass(w.category, asyncpg.InterfaceWarning)] == []


async def test_a_pool_replaces_a_lost_listener(
    dsn: str, admin: Administrator, caplog: pytest.LogCaptureFixture
) -> None:
    async with asyncpg.create_pool(dsn, min_size=1, max_size=3) as pool:
        async with AsyncpgPoolDriver(pool) as driver:
            assert isinstance(driver, ReconnectNotifier)
            got: list[Any] = []
            again: list[int] = []
            await driver.add_listener("ch", got.append)
            await driver.add_listener("Other", got.append)
            driver.add_reconnect_callback(lambda: again.append(1))
            driver.add_reconnect_callback(lambda: again.append(1 // 0))
            for round_ in range(1, 4):
                await admin.terminate("LISTEN%")
                await eventually(functools.partial(_has, again, round_))
                got.clear()
                await admin.notify("ch", "1")
                await admin.notify("Other", "2")
                await eventually(lambda: got == ["1", "2"])
            assert "ZeroDivisionError" in caplog.text
            assert await _listening(driver) == {"ch", "Other"}
        assert pool.get_idle_size() == pool.get_size()


async def test_a_pool_driver_may_be_left_while_it_replaces(
    dsn: str, admin: Administrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgq_fast.drivers.asyncpg.reconnect_delays", lambda: iter([600]))
    async with asyncpg.create_pool(dsn, min_size=1, max_size=3) as pool:
        async with AsyncpgPoolDriver(pool) as driver:
            await driver.add_listener("ch", print)
            await admin.terminate("LISTEN%")
            await eventually(lambda: driver._replacing is not None)
        assert driver._replacing is None
        assert driver._listener is None


async def test_a_pool_that_is_closed_gets_no_listener(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=3)
    driver = AsyncpgPoolDriver(pool)
    await driver.add_listener("ch", print)
    pool.terminate()
    await eventually(lambda: "The pool is closed" in caplog.text)
    assert driver._replacing is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await driver.remove_listener("ch", print)
