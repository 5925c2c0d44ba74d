"""What the tests through PgBouncer share: drivers of each kind that know of it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, Literal, NamedTuple, TypeAlias

import asyncpg
import psycopg

from pgq_fast.drivers.asyncpg import AsyncpgDriver, AsyncpgPoolDriver
from pgq_fast.drivers.owned import OwnedDriver
from pgq_fast.drivers.psycopg import PsycopgDriver
from pgq_fast.settings import ConnectionSettings

POOLED_KINDS = ("asyncpg", "asyncpg-pool", "psycopg", "owned-asyncpg", "owned-psycopg")

Library: TypeAlias = Literal["asyncpg", "psycopg"]


class Ways(NamedTuple):
    """Two DSNs of one database."""

    direct: str
    pooled: str


async def open_pooled(kind: str, dsn: str, stack: AsyncExitStack, **arguments: Any) -> Any:
    """A driver through the pooler at *dsn*; *arguments* go to the drivers on users' connections.

    psycopg's connection keeps its own ``prepare_threshold``: the driver has to see to itself.
    """
    if kind == "asyncpg":
        connection = await asyncpg.connect(dsn, statement_cache_size=0)
        stack.push_async_callback(connection.close)
        return AsyncpgDriver(connection, transaction_pooling=True, **arguments)
    if kind == "asyncpg-pool":
        pool = await stack.enter_async_context(
            asyncpg.create_pool(dsn, min_size=1, max_size=4, statement_cache_size=0)
        )
        return AsyncpgPoolDriver(pool, transaction_pooling=True, **arguments)
    if kind == "psycopg":
        other = await psycopg.AsyncConnection.connect(dsn, autocommit=True, prepare_threshold=0)
        stack.push_async_callback(other.close)
        return PsycopgDriver(other, transaction_pooling=True, **arguments)
    library: Any = kind.removeprefix("owned-")
    driver = OwnedDriver(dsn, library, ConnectionSettings(transaction_pooling=True))
    stack.push_async_callback(driver.close)
    return driver
