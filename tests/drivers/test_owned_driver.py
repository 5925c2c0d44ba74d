"""The driver that opens its own connections, and what it survives."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from drivers.helpers import (
    Administrator,
    RestartableServer,
    copy_stream,
    eventually,
    restartable_server,
)
from pgq_fast.drivers import owned, recovery
from pgq_fast.drivers.failures import is_connection_lost, sqlstate_of
from pgq_fast.drivers.listeners import ReconnectNotifier
from pgq_fast.drivers.owned import DriverClosedError, OwnedDriver
from pgq_fast.errors import ConnectionLostError
from pgq_fast.settings import ConnectionSettings

CREATE = "CREATE TABLE t (n bigint PRIMARY KEY, s text)"


@pytest.fixture(params=["asyncpg", "psycopg"])
def library(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def server() -> Iterator[RestartableServer]:
    with restartable_server() as server:
        yield server


async def _pid(driver: OwnedDriver) -> int:
    pid: int = (await driver.fetch_rows("SELECT pg_backend_pid()"))[0][0]
    return pid


async def test_opens_what_is_used(dsn: str, library: Any, admin: Administrator) -> None:
    async with OwnedDriver(dsn, library) as driver:
        assert await admin.backends() == []
        await driver.fetch("SELECT 1")
        assert len(await admin.backends()) == 1
        await driver.add_listener("ch", print)
        assert len(await admin.backends()) == 2
        await driver.add_listener("other", print)
        assert len(await admin.backends()) == 2
    await eventually(lambda: _none(admin))


async def _none(admin: Administrator) -> bool:
    return await admin.backends() == []


def test_repr_and_errors_hide_the_password(library: Any) -> None:
    driver = OwnedDriver("postgresql://me:hunter2@nowhere.invalid/db", library)
    assert "hunter2" not in repr(driver)
    assert library in repr(driver)


async def test_an_unknown_kind(dsn: str) -> None:
    kind: Any = "libpq"
    with pytest.raises(ValueError, match="libpq"):
        OwnedDriver(dsn, kind)


async def test_settings_are_passed_on(dsn: str, library: Any, admin: Administrator) -> None:
    settings = ConnectionSettings(application_name="pgq test", connect_timeout=5)
    async with OwnedDriver(dsn, library, settings) as driver:
        (row,) = await driver.fetch("SELECT current_setting('application_name') AS name")
        assert row == {"name": "pgq test"}


@pytest.mark.parametrize("listen", [False, True])
async def test_the_first_connection_reports_its_failure(
    library: Any, dsn: str, listen: bool
) -> None:
    for bad in (
        "postgresql://postgres@/db?host=%2Fnowhere",
        dsn.replace("/pgq_test", "/no_such_pgq_test"),
    ):
        async with OwnedDriver(bad, library) as driver:
            with pytest.raises(Exception) as caught:  # noqa: PT011, PT012
                async with asyncio.timeout(10):
                    if listen:
                        await driver.add_listener("ch", print)
                    else:
                        await driver.fetch("SELECT 1")
            assert not isinstance(caught.value, TimeoutError | ConnectionLostError)


async def test_closed_and_used_again(dsn: str, library: Any, admin: Administrator) -> None:
    driver = OwnedDriver(dsn, library)
    got: list[Any] = []
    for _ in range(2):
        async with driver, driver:
            assert not driver.shutdown.is_set()
            await _pid(driver)
            await driver.add_listener("ch", got.append)
            await driver.notify("ch", "x")
            await eventually(lambda: got)
        assert driver.shutdown.is_set()
        await eventually(lambda: _none(admin))
        assert "closed" in repr(driver)
        got.clear()
    await driver.close()  # nothing is open
    await _pid(driver)
    await driver.close()
    await eventually(lambda: _none(admin))


def test_used_again_on_another_loop(dsn: str, library: Any) -> None:
    driver = OwnedDriver(dsn, library)

    async def main() -> None:
        async with driver:
            got: list[Any] = []
            await driver.add_listener("ch", got.append)
            # Contended locks belong to a loop.
            await asyncio.gather(*(driver.notify("ch", "x") for _ in range(5)))
            await eventually(lambda: len(got) == 5)

    for _ in range(2):
        asyncio.run(main())


# Lost connections.


async def test_statements_go_on_after_an_idle_connection_was_lost(
    dsn: str, library: Any, admin: Administrator
) -> None:
    async with OwnedDriver(dsn, library) as driver:
        pid = await _pid(driver)
        for _ in range(3):
            await admin.terminate("SELECT pg_backend_pid()")
            # The last words of the backend have to arrive.
            await asyncio.sleep(0.05)
            pids = await asyncio.gather(*(_pid(driver) for _ in range(10)))
            assert len(set(pids)) == 1
            assert pids[0] != pid
            pid = pids[0]


@pytest.mark.parametrize("method", ["fetch", "fetch_rows", "execute"])
async def test_a_statement_fails_by_name_when_its_connection_is_lost(
    dsn: str, library: Any, admin: Administrator, method: str
) -> None:
    async with OwnedDriver(dsn, library) as driver:
        await driver.execute("CREATE TABLE t (n bigint)")
        task = asyncio.create_task(
            getattr(driver, method)("INSERT INTO t SELECT 1 FROM pg_sleep(600)")
        )
        waiting = [asyncio.create_task(_pid(driver)) for _ in range(5)]
        await eventually(lambda: admin.running("INSERT INTO t%"))
        await admin.terminate("INSERT INTO t%")
        with pytest.raises(ConnectionLostError) as caught:
            await task
        cause = caught.value.__cause__
        assert cause is not None
        assert is_connection_lost(cause)
        assert is_connection_lost(caught.value)
        # Those behind it were never sent: they get the next connection.
        assert len(set(await asyncio.gather(*waiting))) == 1
        # And it was not repeated.
        assert await admin.values("SELECT n FROM t") == []


async def test_other_errors_stay_what_they_are(dsn: str, library: Any) -> None:
    async with OwnedDriver(dsn, library) as driver:
        pid = await _pid(driver)
        with pytest.raises(Exception, match="division by zero") as caught:
            await driver.fetch("SELECT 1/0")
        assert sqlstate_of(caught.value) == "22012"
        with pytest.raises(OSError, match="mine"):
            async with driver.transaction():
                raise OSError("mine")
        assert await _pid(driver) == pid


@pytest.mark.parametrize("moment", ["statement", "copy", "commit", "idle"])
async def test_a_transaction_loses_its_connection(
    dsn: str, library: Any, admin: Administrator, moment: str
) -> None:
    async with OwnedDriver(dsn, library) as driver:
        await driver.execute(CREATE)

        async def run() -> None:
            async with driver.transaction() as transaction:
                await transaction.fetch_rows("INSERT INTO t VALUES (1) /* open */")
                if moment == "statement":
                    await transaction.fetch_rows("SELECT pg_sleep(600)::text /* open */")
                    return
                await admin.terminate("%/* open */")
                if moment == "copy":
                    await transaction.copy_in("t", ["n", "s"], copy_stream([(2, b"")]))
                if moment == "idle":
                    raise KeyError

        task = asyncio.create_task(run())
        if moment == "statement":
            await eventually(lambda: admin.running("SELECT pg_sleep%"))
            await admin.terminate("%/* open */")
        with pytest.raises(KeyError if moment == "idle" else ConnectionLostError):
            await task
        await asyncio.sleep(0.05)
        assert await driver.fetch("SELECT n FROM t") == []


async def test_a_lost_listener_is_replaced_at_once(
    dsn: str, library: Any, admin: Administrator, caplog: pytest.LogCaptureFixture
) -> None:
    async with OwnedDriver(dsn, library) as driver:
        assert isinstance(driver, ReconnectNotifier)
        got: list[Any] = []
        again: list[int] = []
        pid = await _pid(driver)
        await driver.add_listener("ch", got.append)
        await driver.add_listener("Other", got.append)

        def on_reconnect() -> None:
            again.append(1)

        driver.add_reconnect_callback(on_reconnect)
        for round_ in range(1, 4):
            await admin.terminate("LISTEN%")
            await eventually(functools.partial(_has, again, round_))
            got.clear()
            await driver.notify("ch", "1")
            await driver.notify("Other", "2")
            await eventually(lambda: got == ["1", "2"])
        assert await _pid(driver) == pid
        driver.remove_reconnect_callback(on_reconnect)
        driver.remove_reconnect_callback(on_reconnect)
        await admin.terminate("LISTEN%")
        await eventually(lambda: _hears(driver, got))
        assert len(again) == 3
    assert "postgresql://" not in caplog.text


def _has(items: list[Any], count: int) -> bool:
    return len(items) == count


async def _hears(driver: OwnedDriver, got: list[Any]) -> bool:
    """Whether a NOTIFY arrives; those sent while nobody listened are lost."""
    got.clear()
    await driver.notify("ch", "probe")
    await asyncio.sleep(0.02)
    return "probe" in got


async def test_listeners_that_come_and_go_while_the_listener_is_being_replaced(
    dsn: str, library: Any, admin: Administrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned, "reconnect_delays", lambda: iter([0.3, 0.3]))
    async with OwnedDriver(dsn, library) as driver:
        got: list[Any] = []
        again: list[int] = []
        driver.add_reconnect_callback(lambda: again.append(1))
        await driver.add_listener("ch", got.append)
        await driver.add_listener("gone", got.append)
        await admin.terminate("LISTEN%")
        await eventually(lambda: driver._listening is None)
        await driver.remove_listener("gone", got.append)
        await driver.add_listener("new", got.append)
        assert again == []
        await eventually(lambda: again)
        for channel in ("gone", "new", "ch"):
            await driver.notify(channel, channel)
        await eventually(lambda: got == ["new", "ch"])


async def test_a_listener_connection_that_leads_nowhere_is_found(
    dsn: str, library: Any, admin: Administrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned, "LISTENER_CHECK_INTERVAL", 0.05)
    async with OwnedDriver(dsn, library) as driver:
        again: list[int] = []
        driver.add_reconnect_callback(lambda: again.append(1))
        await driver.add_listener("ch", print)
        session: Any = driver._listening
        await eventually(lambda: admin.backends("SELECT 1"))  # it is checked, and stays
        assert driver._listening is session
        assert session is not None

        async def fails(*_: object) -> None:
            raise TimeoutError

        monkeypatch.setattr(session.driver, "execute", fails)
        await eventually(lambda: again)
        assert driver._listening is not session
        assert session.is_closed()


async def test_the_server_restarts(
    server: RestartableServer, library: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pgqueuer")
    async with OwnedDriver(server.dsn, library) as driver:
        got: list[Any] = []
        again: list[int] = []
        driver.add_reconnect_callback(lambda: again.append(1))
        await driver.execute(CREATE)
        await driver.add_listener("ch", got.append)
        running = asyncio.create_task(driver.execute("SELECT pg_sleep(600)"))
        async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as look:
            await eventually(lambda: Administrator(look).running("SELECT pg_sleep(600)"))

        await asyncio.to_thread(server.crash)
        with pytest.raises(ConnectionLostError):
            await running
        # Down: statements wait.
        waiting = [
            asyncio.create_task(driver.execute("INSERT INTO t VALUES ($1::int8)", number))
            for number in range(3)
        ]
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in waiting)
        await asyncio.to_thread(server.start_again)
        assert await asyncio.wait_for(asyncio.gather(*waiting), 30) == ["INSERT 0 1"] * 3
        await eventually(lambda: again)
        assert again == [1]
        await driver.notify("ch", "after")
        await eventually(lambda: got == ["after"])

        # Idle: nobody notices at all.
        await asyncio.to_thread(server.crash)
        await asyncio.to_thread(server.start_again)
        assert len(await driver.fetch_rows("SELECT n FROM t")) == 3
        await eventually(lambda: len(again) == 2)
    assert "lost while it was idle" in caplog.text
    assert "Connected to PostgreSQL again" in caplog.text
    assert server.dsn not in caplog.text


async def test_close_ends_the_wait_for_a_server(server: RestartableServer, library: Any) -> None:
    driver = OwnedDriver(server.dsn, library)
    await driver.add_listener("ch", print)
    await driver.execute("SELECT 1")
    await asyncio.to_thread(server.crash)
    waiting = [asyncio.create_task(driver.execute("SELECT 1")) for _ in range(3)]
    await asyncio.sleep(0.3)
    async with asyncio.timeout(5):
        await driver.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)
    # The first may have been the one to find the connection lost.
    assert isinstance(results[0], DriverClosedError | ConnectionLostError)
    assert [type(result) for result in results[1:]] == [DriverClosedError] * 2
    await asyncio.to_thread(server.start_again)
    assert await driver.execute("SELECT 1") == "SELECT 1"
    await driver.close()


async def test_close_ends_an_attempt_to_connect(library: Any) -> None:
    async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(600)

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    driver = OwnedDriver(f"postgresql://me@127.0.0.1:{port}/db", library)
    task = asyncio.create_task(driver.execute("SELECT 1"))
    await eventually(lambda: driver._attempts)
    await driver.close()
    with pytest.raises(DriverClosedError):
        await asyncio.wait_for(task, 5)
    task = asyncio.create_task(driver.execute("SELECT 1"))
    await eventually(lambda: driver._attempts)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    listener.close()


async def test_close_waits_for_the_running_statement(
    dsn: str, library: Any, admin: Administrator
) -> None:
    driver = OwnedDriver(dsn, library)
    first = asyncio.create_task(driver.execute("SELECT pg_sleep(0.2)"))
    await eventually(lambda: admin.running("SELECT pg_sleep(0.2)"))
    second = asyncio.create_task(driver.execute("SELECT 2"))
    await asyncio.sleep(0)
    await driver.close()
    assert await first == "SELECT 1"
    with pytest.raises(DriverClosedError):
        await second
    await eventually(lambda: _none(admin))


async def test_a_failure_that_waiting_does_not_cure(dsn: str, admin: Administrator) -> None:
    """asyncpg tells why it cannot connect: a database that was dropped does not come back."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other:
        name = other.info.dbname
        await other.execute(f'CREATE DATABASE "{name}_gone"')
        driver = OwnedDriver(dsn.replace(name, f"{name}_gone"), "asyncpg")
        await driver.execute("SELECT 1")
        await other.execute(f'DROP DATABASE "{name}_gone" WITH (FORCE)')
    await asyncio.sleep(0.05)
    with pytest.raises(Exception, match="does not exist") as caught:
        await asyncio.wait_for(driver.execute("SELECT 1"), 10)
    assert sqlstate_of(caught.value) == "3D000"
    await driver.close()


def test_delays_grow_to_a_limit_and_differ() -> None:
    delays = recovery.reconnect_delays()
    first = [next(delays) for _ in range(20)]
    assert recovery.RECONNECT_DELAY / 2 <= first[0] <= recovery.RECONNECT_DELAY
    assert all(delay <= recovery.RECONNECT_DELAY_LIMIT for delay in first)
    assert all(delay >= recovery.RECONNECT_DELAY_LIMIT / 2 for delay in first[10:])
    assert len(set(first[10:])) > 1


async def test_work_runs_to_its_end_or_its_timeout() -> None:
    ended = False

    async def work() -> None:
        nonlocal ended
        await asyncio.sleep(0.05)
        ended = True

    task = asyncio.create_task(recovery.to_its_end(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended

    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        await recovery.to_its_end(asyncio.sleep(600), timeout=0.01)
    assert time.monotonic() - begin < 60
