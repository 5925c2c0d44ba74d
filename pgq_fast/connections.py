"""Connections and pools from a DSN and :class:`~pgq_fast.settings.ConnectionSettings`.

The DSN goes to the library as it is: hosts, TLS, options and services are its business. A setting
is passed along only where the user gave it, because an argument outweighs the DSN's parameters and
libpq's environment variables.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from pgq_fast.settings import ConnectionSettings

if TYPE_CHECKING:
    import asyncpg
    import psycopg
    import psycopg_pool

__all__ = [
    "connect_asyncpg",
    "connect_psycopg",
    "create_asyncpg_pool",
    "create_psycopg_pool",
]


def asyncpg_arguments(dsn: str | None, settings: ConnectionSettings | None) -> dict[str, Any]:
    """Arguments of ``asyncpg.connect``; the *dsn* that is given outweighs the settings'."""
    settings = settings or ConnectionSettings()
    arguments: dict[str, Any] = {"dsn": settings.dsn if dsn is None else dsn}
    timeout = settings.connect_timeout
    if timeout is None and (from_libpq := os.environ.get("PGCONNECT_TIMEOUT")):
        # asyncpg reads most of libpq's variables, but not this one. libpq means "no limit" by
        # zero and less; asyncpg would take it by the letter.
        timeout = float(from_libpq) if float(from_libpq) > 0 else None
    if timeout is not None:
        arguments["timeout"] = timeout
    if settings.application_name is not None:
        arguments["server_settings"] = {"application_name": settings.application_name}
    if settings.transaction_pooling:
        # asyncpg prepares by name what it caches, and the next session would not know the name.
        arguments["statement_cache_size"] = 0
    return arguments


def psycopg_arguments(
    dsn: str | None, settings: ConnectionSettings | None
) -> tuple[str, dict[str, Any]]:
    """DSN and arguments of ``psycopg.connect``; the *dsn* that is given outweighs the settings'."""
    settings = settings or ConnectionSettings()
    # The driver needs it, and it is psycopg's own: no DSN can say otherwise.
    arguments: dict[str, Any] = {"autocommit": True}
    if settings.connect_timeout is not None:
        # libpq takes whole seconds.
        arguments["connect_timeout"] = math.ceil(settings.connect_timeout)
    if settings.application_name is not None:
        arguments["application_name"] = settings.application_name
    if settings.transaction_pooling:
        # By default psycopg prepares by name what it runs often.
        arguments["prepare_threshold"] = None
    return (settings.dsn if dsn is None else dsn) or "", arguments


def listener_source(
    dsn: str | None, settings: ConnectionSettings
) -> tuple[str | None, ConnectionSettings] | None:
    """DSN and settings of a connection that listens; None where there is no way to listen."""
    if settings.listen_dsn is not None:
        return settings.listen_dsn, settings.model_copy(update={"transaction_pooling": False})
    return None if settings.transaction_pooling else (dsn, settings)


@contextlib.asynccontextmanager
async def connect_asyncpg(
    dsn: str | None = None, settings: ConnectionSettings | None = None
) -> AsyncIterator[asyncpg.Connection]:
    """An asyncpg connection for the length of the block.

    Args:
        dsn: Where to connect; by default what the settings say, then libpq's variables.
        settings: By default those of the environment.
    """
    import asyncpg

    connection = await asyncpg.connect(**asyncpg_arguments(dsn, settings))
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def connect_psycopg(
    dsn: str | None = None, settings: ConnectionSettings | None = None
) -> AsyncIterator[psycopg.AsyncConnection]:
    """A psycopg connection in autocommit mode for the length of the block.

    Arguments as for :func:`connect_asyncpg`.
    """
    import psycopg

    conninfo, arguments = psycopg_arguments(dsn, settings)
    async with await psycopg.AsyncConnection.connect(conninfo, **arguments) as connection:
        yield connection


@contextlib.asynccontextmanager
async def create_asyncpg_pool(
    dsn: str | None = None, settings: ConnectionSettings | None = None
) -> AsyncIterator[asyncpg.Pool]:
    """An asyncpg pool of the settings' size for the length of the block.

    Arguments as for :func:`connect_asyncpg`.
    """
    import asyncpg

    settings = settings or ConnectionSettings()
    async with asyncpg.create_pool(
        min_size=settings.pool_min_size,
        max_size=settings.pool_max_size,
        **asyncpg_arguments(dsn, settings),
    ) as pool:
        yield pool


@contextlib.asynccontextmanager
async def create_psycopg_pool(
    dsn: str | None = None, settings: ConnectionSettings | None = None
) -> AsyncIterator[psycopg_pool.AsyncConnectionPool]:
    """A pool of psycopg connections in autocommit mode, of the settings' size, for the block.

    Arguments as for :func:`connect_asyncpg`.
    """
    import psycopg_pool

    settings = settings or ConnectionSettings()
    conninfo, arguments = psycopg_arguments(dsn, settings)
    async with psycopg_pool.AsyncConnectionPool(
        conninfo=conninfo,
        min_size=settings.pool_min_size,
        max_size=settings.pool_max_size,
        kwargs=arguments,
        open=False,
    ) as pool:
        yield pool
