"""Members of a queue on the lease layout, each on a connection of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeAlias

import asyncpg
import pytest_asyncio

from lease_protocol.members import Member
from pgq_fast.settings import DBSettings
from support.drivers import open_driver

Join: TypeAlias = Callable[[], Awaitable[Member]]
"""``await join()``: a worker, producer and operator in one, on a connection of its own."""

Session: TypeAlias = Callable[[], Awaitable[asyncpg.Connection]]
"""``await session()``: a bare connection, for transactions that stay open."""


@pytest_asyncio.fixture
async def join(queue_dsn: str, queue_settings: DBSettings) -> AsyncIterator[Join]:
    async with AsyncExitStack() as stack:

        async def make() -> Member:
            return Member(await open_driver("asyncpg", queue_dsn, stack), queue_settings)

        yield make


@pytest_asyncio.fixture
async def session(queue_dsn: str) -> AsyncIterator[Session]:
    async with AsyncExitStack() as stack:

        async def connect() -> asyncpg.Connection:
            connection = await asyncpg.connect(queue_dsn)
            stack.push_async_callback(connection.close)
            return connection

        yield connect
