"""Live drivers of each kind, for tests that run over all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeAlias

KINDS = ("asyncpg", "asyncpg-pool", "psycopg")

MakeDriver: TypeAlias = Callable[[str, str], Awaitable[Any]]
"""``await make_driver(kind, dsn)``: a driver that is closed when the test ends."""


async def open_driver(kind: str, dsn: str, stack: AsyncExitStack) -> Any:
    """A driver on connections of its own; *stack* leaves the driver, then closes them."""
    if kind == "asyncpg":
        import asyncpg

        from pgq_fast.drivers.asyncpg import AsyncpgDriver

        connection = await asyncpg.connect(dsn)
        stack.push_async_callback(connection.close)
        return await stack.enter_async_context(AsyncpgDriver(connection))
    if kind == "asyncpg-pool":
        import asyncpg

        from pgq_fast.drivers.asyncpg import AsyncpgPoolDriver

        pool = await stack.enter_async_context(asyncpg.create_pool(dsn, min_size=1, max_size=5))
        return await stack.enter_async_context(AsyncpgPoolDriver(pool))
    if kind == "psycopg":
        import psycopg

        from pgq_fast.drivers.psycopg import PsycopgDriver

        psycopg_connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        stack.push_async_callback(psycopg_connection.close)
        return await stack.enter_async_context(PsycopgDriver(psycopg_connection))
    raise ValueError(f"unknown kind of driver {kind!r}: take one of {', '.join(KINDS)}")
