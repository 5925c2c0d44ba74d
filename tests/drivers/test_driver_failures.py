"""What errors say about the connection, on the drivers that do not own it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import psycopg
import pytest

from drivers.helpers import Administrator, eventually
from pgq_fast.drivers.failures import (
    constraint_of,
    described,
    is_connection_lost,
    is_passing,
    is_server_unavailable,
    is_unsendable,
    sqlstate_of,
)
from pgq_fast.errors import ConnectionLostError
from support.drivers import KINDS

OpenAny = Callable[[str], Awaitable[Any]]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_session_that_is_terminated_during_a_statement(
    kind: str, open_any: OpenAny, admin: Administrator
) -> None:
    driver = await open_any(kind)
    task = asyncio.create_task(driver.execute("SELECT pg_sleep(600)"))
    await eventually(lambda: admin.running("SELECT pg_sleep(600)"))
    await admin.terminate("SELECT pg_sleep(600)")
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has its own
        await task
    assert is_connection_lost(caught.value)


@pytest.mark.parametrize("kind", ["asyncpg", "psycopg"])
async def test_a_session_that_was_terminated_before(
    kind: str, open_any: OpenAny, admin: Administrator
) -> None:
    driver = await open_any(kind)
    await driver.execute("SELECT 1")
    await admin.terminate("SELECT 1")
    for use in (driver.execute, driver.fetch, driver.fetch_rows):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has its own
            await use("SELECT 2")
        assert is_connection_lost(caught.value)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has its own
        async with driver.transaction() as transaction:
            await transaction.fetch_rows("SELECT 1")
    assert is_connection_lost(caught.value)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has its own
        await driver.add_listener("ch", print)
    assert is_connection_lost(caught.value)
    assert not driver.in_transaction()


@pytest.mark.parametrize("kind", ["asyncpg", "psycopg"])
async def test_a_connection_that_was_closed(kind: str, open_any: OpenAny) -> None:
    driver = await open_any(kind)
    await driver._connection.close()
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has its own
        await driver.execute("SELECT 1")
    assert is_connection_lost(caught.value)


async def _refused(library: str, dsn: str) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011, PT012
        if library == "asyncpg":
            await asyncpg.connect(dsn)
        else:
            await psycopg.AsyncConnection.connect(dsn)
    return caught.value


@pytest.mark.parametrize("library", ["asyncpg", "psycopg"])
async def test_a_server_that_is_not_there(library: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for host in (f"127.0.0.1:{port}", "/db?host=%2Fnowhere"):
        error = await _refused(library, f"postgresql://me@{host}")
        assert is_server_unavailable(error)


async def test_a_database_that_is_not_there(dsn: str) -> None:
    error = await _refused("asyncpg", dsn.replace("/pgq_test", "/no_such_pgq_test"))
    assert sqlstate_of(error) == "3D000"
    assert not is_server_unavailable(error)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (ConnectionLostError(), True),
        (ConnectionResetError(), True),
        (BrokenPipeError(), True),
        (OSError("wire"), True),
        (TimeoutError(110, "of the kernel"), True),
        (TimeoutError(), False),
        (asyncpg.ConnectionDoesNotExistError(""), True),
        (asyncpg.AdminShutdownError(""), True),
        (asyncpg.CannotConnectNowError(""), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (asyncpg.InterfaceError("pool is closing"), False),
        (asyncpg.InterfaceError("another operation is in progress"), False),
        # When the session ends just as a statement is being sent.
        (asyncpg.InternalClientError("cannot switch to state 15; another operation (2)"), True),
        (asyncpg.InternalClientError("no description for OID 1"), False),
        (asyncpg.QueryCanceledError(""), False),
        (asyncpg.UniqueViolationError(""), False),
        (psycopg.OperationalError("the connection is closed"), True),
        (psycopg.OperationalError("consuming input failed: whatever libpq says"), True),
        (psycopg.OperationalError("sending query failed: another command is running"), False),
        (psycopg.errors.AdminShutdown(), True),
        (psycopg.errors.CrashShutdown(), True),
        (psycopg.errors.ConnectionTimeout("connection timeout expired"), True),
        (psycopg.errors.QueryCanceled(), False),
        (psycopg.errors.DeadlockDetected(), False),
        (psycopg.InterfaceError("the cursor is closed"), False),
        (ValueError("the connection is closed"), False),
        (asyncio.CancelledError(), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_which_errors_mean_a_lost_connection(error: BaseException, lost: bool) -> None:
    assert is_connection_lost(error) is lost


def test_which_errors_to_connect_may_pass() -> None:
    assert is_server_unavailable(asyncpg.TooManyConnectionsError(""))
    assert is_server_unavailable(TimeoutError())
    assert not is_server_unavailable(asyncpg.InvalidPasswordError(""))
    assert not is_server_unavailable(psycopg.ProgrammingError("no such option"))


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionLostError(), True),
        (TimeoutError(), True),
        (asyncpg.DeadlockDetectedError(""), True),
        (asyncpg.SerializationError(""), True),
        (asyncpg.DiskFullError(""), True),
        (asyncpg.LockNotAvailableError(""), True),
        (asyncpg.QueryCanceledError(""), True),
        (asyncpg.CannotConnectNowError(""), True),
        (asyncpg.IdleSessionTimeoutError(""), True),
        (asyncpg.ReadOnlySQLTransactionError(""), True),
        (psycopg.errors.OutOfMemory(), True),
        (psycopg.errors.IoError(), True),
        (asyncpg.InsufficientPrivilegeError(""), False),
        (asyncpg.UndefinedTableError(""), False),
        (asyncpg.InvalidCatalogNameError(""), False),
        (psycopg.errors.UniqueViolation(), False),
        (psycopg.errors.UndefinedFile(), False),
        (psycopg.errors.NumericValueOutOfRange(), False),
        (psycopg.ProgrammingError("cannot adapt type"), False),
        (ValueError(), False),
        (asyncio.CancelledError(), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_which_errors_pass(error: BaseException, passes: bool) -> None:
    assert is_passing(error) is passes


async def test_values_that_cannot_be_sent(anydriver: Any) -> None:
    """The errors that each library has for them; a statement that failed on the server was sent."""
    for cast, value in {"int": "x", "text": "a\0b", "uuid": 5, "interval": object()}.items():
        with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has its own
            await anydriver.fetch_rows(f"SELECT $1::{cast}", value)
        refused = (sqlstate_of(caught.value) or "").startswith("22")
        assert is_unsendable(caught.value) or refused, caught.value
        assert not is_passing(caught.value)
    for query in ("SELECT nothing_of_this_name", "SELECT 1 / 0"):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has its own
            await anydriver.fetch_rows(query)
        assert not is_unsendable(caught.value)


def test_what_an_error_says() -> None:
    assert described(ValueError("a", 5)) == "ValueError: a, 5"
    assert described(asyncpg.QueryCanceledError("too long")) == "QueryCanceledError: too long"
    assert described(asyncpg.QueryCanceledError()) == "QueryCanceledError"


def test_codes_of_what_is_no_database_error() -> None:
    assert sqlstate_of(ValueError()) is None
    assert constraint_of(ValueError()) is None
    assert sqlstate_of(psycopg.OperationalError()) is None
    assert constraint_of(psycopg.OperationalError()) is None
