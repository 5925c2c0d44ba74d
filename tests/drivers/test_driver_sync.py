"""The blocking driver."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from drivers.helpers import copy_stream
from pgq_fast.db import SyncDriver, SyncPsycopgDriver
from pgq_fast.drivers.base import Int8Array, SyncRowDriver, rows_of_sync
from pgq_fast.drivers.failures import TransactionAbortedError, is_connection_lost

CREATE = "CREATE TABLE t (n bigint PRIMARY KEY, s text)"
SOME_UUID = UUID("12345678-1234-5678-1234-567812345678")


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def driver(connection: psycopg.Connection[Any]) -> SyncPsycopgDriver:
    return SyncPsycopgDriver(connection)


@pytest.fixture
def other(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def _numbers(connection: psycopg.Connection[Any]) -> list[int]:
    return [row[0] for row in connection.execute("SELECT n FROM t ORDER BY n").fetchall()]


def test_is_what_the_rest_of_the_package_expects(driver: SyncPsycopgDriver) -> None:
    assert SyncDriver in type(driver).__mro__
    assert isinstance(driver, SyncRowDriver)
    assert rows_of_sync(driver, "SELECT 1, 2") == [(1, 2)]


def test_statements(driver: SyncPsycopgDriver) -> None:
    assert driver.execute(CREATE) == "CREATE TABLE"
    assert driver.execute("INSERT INTO t VALUES (1); DELETE FROM t") == "DELETE 1"
    assert driver.fetch("INSERT INTO t VALUES ($1::int8, 'x')", 1) == []
    assert driver.fetch("SELECT n, s FROM t") == [{"n": 1, "s": "x"}]
    assert driver.fetch_rows("DELETE FROM t") == []
    row = (1, "a", b"\x00", True, SOME_UUID, timedelta(hours=1), None, "{3,-4}", "{a,NULL}")
    assert driver.fetch_rows(
        "SELECT $1::int, $2::text, $3::bytea, $4::bool, $5::uuid, $6::interval, $7::text,"
        " $8::int8[]::text, $9::text[]::text",
        *row[:7],
        Int8Array([3, -4]),
        ["a", None],
    ) == [row]


def test_transactions(driver: SyncPsycopgDriver, other: psycopg.Connection[Any]) -> None:
    driver.execute(CREATE)
    with driver.transaction() as transaction:
        assert transaction.fetch_rows("INSERT INTO t VALUES (1) RETURNING n") == [(1,)]
        transaction.copy_in("T", ["n", "s"], copy_stream([(2, b"two")]))
        driver.execute("INSERT INTO t VALUES (3)")  # the same thread is within
        assert _numbers(other) == []
    assert _numbers(other) == [1, 2, 3]
    with pytest.raises(KeyError), driver.transaction() as transaction:  # noqa: PT012
        transaction.copy_in("t", ["n", "s"], copy_stream([(4, b"")]))
        raise KeyError
    with pytest.raises(psycopg.errors.UniqueViolation), driver.transaction() as transaction:
        transaction.copy_in("t", ["n", "s"], copy_stream([(5, b""), (1, b"")]))
    with pytest.raises(TransactionAbortedError), driver.transaction() as transaction:  # noqa: PT012
        transaction.fetch_rows("INSERT INTO t VALUES (6)")
        with contextlib.suppress(psycopg.Error):
            transaction.fetch_rows("INSERT INTO t VALUES (1)")
    assert _numbers(other) == [1, 2, 3]
    assert not driver.in_transaction()


@pytest.mark.parametrize("commit", [True, False])
def test_uses_the_callers_transaction(
    driver: SyncPsycopgDriver,
    connection: psycopg.Connection[Any],
    other: psycopg.Connection[Any],
    commit: bool,
) -> None:
    driver.execute(CREATE)
    with contextlib.suppress(KeyError), connection.transaction():
        connection.execute("INSERT INTO t VALUES (1)")
        with driver.transaction() as transaction:
            transaction.copy_in("t", ["n", "s"], copy_stream([(2, b"")]))
        assert driver.in_transaction()
        assert _numbers(other) == []
        if not commit:
            raise KeyError
    assert _numbers(other) == ([1, 2] if commit else [])


@pytest.mark.parametrize("commit", [True, False])
def test_leaves_the_end_of_a_transaction_to_a_caller_who_turned_autocommit_off(
    driver: SyncPsycopgDriver,
    connection: psycopg.Connection[Any],
    other: psycopg.Connection[Any],
    commit: bool,
) -> None:
    """As Django does within ``atomic``, where the driver's may be the first statement."""
    driver.execute(CREATE)
    connection.autocommit = False
    with driver.transaction() as transaction:
        transaction.copy_in("t", ["n", "s"], copy_stream([(1, b"")]))
    assert driver.in_transaction()
    assert _numbers(other) == []
    (connection.commit if commit else connection.rollback)()
    connection.autocommit = True
    assert not driver.in_transaction()
    assert _numbers(other) == ([1] if commit else [])


def test_threads_stay_out_of_each_others_transactions(
    driver: SyncPsycopgDriver, other: psycopg.Connection[Any]
) -> None:
    driver.execute(CREATE)
    inside = threading.Event()

    def outsider() -> None:
        inside.wait()
        driver.execute("INSERT INTO t VALUES (2)")

    thread = threading.Thread(target=outsider)
    thread.start()
    with pytest.raises(KeyError), driver.transaction() as transaction:  # noqa: PT012
        transaction.fetch_rows("INSERT INTO t VALUES (1)")
        inside.set()
        transaction.fetch_rows("SELECT pg_sleep(0.1)::text")
        raise KeyError
    thread.join()
    assert _numbers(other) == [2]


def test_a_lost_connection(
    driver: SyncPsycopgDriver,
    connection: psycopg.Connection[Any],
    other: psycopg.Connection[Any],
) -> None:
    driver.execute(CREATE)
    with pytest.raises(psycopg.OperationalError) as caught, driver.transaction() as transaction:  # noqa: PT012
        transaction.fetch_rows("INSERT INTO t VALUES (1)")
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
        transaction.fetch_rows("INSERT INTO t VALUES (2)")
    assert is_connection_lost(caught.value)
    with pytest.raises(psycopg.OperationalError) as caught:
        driver.fetch("SELECT 1")
    assert is_connection_lost(caught.value)
    assert _numbers(other) == []
