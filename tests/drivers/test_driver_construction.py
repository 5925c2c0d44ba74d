"""What is imported when, what is refused, how connections are made from settings."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import asyncpg
import psycopg
import psycopg_pool
import pytest

import pgq_fast.db
from drivers.helpers import Administrator
from pgq_fast.connections import (
    asyncpg_arguments,
    connect_asyncpg,
    connect_psycopg,
    create_asyncpg_pool,
    create_psycopg_pool,
    listener_source,
    psycopg_arguments,
)
from pgq_fast.db import PsycopgDriver, SyncPsycopgDriver
from pgq_fast.settings import ConnectionSettings


def test_public_names() -> None:
    assert pgq_fast.db.__all__ == [
        "AsyncpgDriver",
        "AsyncpgPoolDriver",
        "Driver",
        "PsycopgDriver",
        "SyncDriver",
        "SyncPsycopgDriver",
    ]
    assert all(hasattr(pgq_fast.db, name) for name in pgq_fast.db.__all__)


@pytest.mark.parametrize(
    "module", ["pgq_fast.db", "pgq_fast.connections", "pgq_fast.drivers.owned"]
)
def test_no_library_is_imported_before_it_is_used(module: str) -> None:
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('asyncpg', 'psycopg', 'psycopg_pool', 'psycopg_c'):\n"
        "            raise ImportError(f'{name} is not here')\n"
        "sys.meta_path.insert(0, Missing())\n"
        f"import {module}\n"
        "from pgq_fast.drivers.owned import OwnedDriver\n"
        "OwnedDriver('postgresql://nowhere', 'asyncpg'), OwnedDriver(None, 'psycopg')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def test_psycopg_has_to_commit_by_itself(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        with pytest.raises(RuntimeError, match="autocommit=True"):
            PsycopgDriver(connection)
        assert not connection.autocommit
        await connection.set_autocommit(True)
        assert await PsycopgDriver(connection).fetch("SELECT 1 AS n") == [{"n": 1}]


def test_blocking_psycopg_has_to_commit_by_itself(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        with pytest.raises(RuntimeError, match="autocommit=True"):
            SyncPsycopgDriver(connection)
        connection.autocommit = True
        assert SyncPsycopgDriver(connection).fetch("SELECT 1 AS n") == [{"n": 1}]


# Connections from settings.

SETTINGS = ConnectionSettings(
    dsn="postgresql://settings", connect_timeout=2.5, application_name="app"
)


@pytest.fixture(autouse=True)
def _no_timeout_in_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGCONNECT_TIMEOUT", raising=False)


def test_only_what_was_set_is_passed_on() -> None:
    assert asyncpg_arguments("any text", ConnectionSettings()) == {"dsn": "any text"}
    assert asyncpg_arguments(None, None) == {"dsn": None}
    assert psycopg_arguments("any text", ConnectionSettings()) == (
        "any text",
        {"autocommit": True},
    )
    assert psycopg_arguments(None, None) == ("", {"autocommit": True})


def test_an_argument_outweighs_the_settings() -> None:
    assert asyncpg_arguments(None, SETTINGS) == {
        "dsn": "postgresql://settings",
        "timeout": 2.5,
        "server_settings": {"application_name": "app"},
    }
    assert asyncpg_arguments("mine", SETTINGS)["dsn"] == "mine"
    assert asyncpg_arguments("", SETTINGS)["dsn"] == ""
    dsn, arguments = psycopg_arguments(None, SETTINGS)
    assert dsn == "postgresql://settings"
    # libpq takes whole seconds: never less than was asked for.
    assert arguments == {"autocommit": True, "connect_timeout": 3, "application_name": "app"}
    assert psycopg_arguments("mine", SETTINGS)[0] == "mine"


def test_behind_a_pooler_nothing_is_prepared_by_name() -> None:
    settings = ConnectionSettings(transaction_pooling=True)
    assert asyncpg_arguments("any text", settings) == {"dsn": "any text", "statement_cache_size": 0}
    assert psycopg_arguments("any text", settings) == (
        "any text",
        {"autocommit": True, "prepare_threshold": None},
    )


def test_where_to_listen() -> None:
    """Next to the statements, past the pooler, or nowhere."""
    plain = ConnectionSettings()
    assert listener_source("mine", plain) == ("mine", plain)
    assert listener_source("mine", ConnectionSettings(transaction_pooling=True)) is None
    # Also for a pooler that keeps track of prepared statements by itself.
    for pooling in (True, False):
        settings = ConnectionSettings(
            transaction_pooling=pooling, listen_dsn="direct", application_name="app"
        )
        source = listener_source("mine", settings)
        assert source is not None
        assert source[0] == "direct"
        assert asyncpg_arguments(*source) == {
            "dsn": "direct",
            "server_settings": {"application_name": "app"},
        }
        assert psycopg_arguments(*source) == (
            "direct",
            {"autocommit": True, "application_name": "app"},
        )
        assert "direct" not in repr(settings)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGQUEUER_DSN", "postgresql://env")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "7")
    assert asyncpg_arguments(None, None) == {"dsn": "postgresql://env", "timeout": 7.0}
    # libpq reads its own variable.
    assert psycopg_arguments(None, None) == ("postgresql://env", {"autocommit": True})
    assert asyncpg_arguments(None, SETTINGS)["timeout"] == 2.5
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "0")
    assert "timeout" not in asyncpg_arguments(None, None)
    monkeypatch.setenv("PGQUEUER_CONNECT_TIMEOUT", "3")
    assert asyncpg_arguments(None, None)["timeout"] == 3.0


async def test_connections_live_as_long_as_the_block(dsn: str) -> None:
    settings = ConnectionSettings(dsn=dsn, application_name="app")
    async with connect_asyncpg(settings=settings) as one:
        assert await one.fetchval("SELECT current_setting('application_name')") == "app"
    assert one.is_closed()
    with pytest.raises(KeyError):
        async with connect_asyncpg(dsn) as one:
            raise KeyError
    assert one.is_closed()
    async with connect_psycopg(settings=settings) as other:
        assert other.autocommit
        assert other.info.parameter_status("application_name") == "app"
    assert other.closed


async def test_pools_live_as_long_as_the_block(dsn: str, admin: Administrator) -> None:
    settings = ConnectionSettings(dsn=dsn, pool_min_size=2, pool_max_size=3)
    pool: Any
    async with create_asyncpg_pool(settings=settings) as pool:
        assert isinstance(pool, asyncpg.Pool)
        assert (pool.get_min_size(), pool.get_max_size()) == (2, 3)
        assert await pool.fetchval("SELECT 1") == 1
    assert pool.is_closing()
    async with create_psycopg_pool(settings=settings) as pool:
        assert isinstance(pool, psycopg_pool.AsyncConnectionPool)
        assert (pool.min_size, pool.max_size) == (2, 3)
        async with pool.connection() as connection:
            assert connection.autocommit
    assert pool.closed
