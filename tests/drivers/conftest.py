"""Drivers of every kind on an empty database, and an administrator beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from drivers.helpers import Administrator
from pgq_fast.drivers.owned import OwnedDriver
from support.drivers import KINDS, open_driver

ALL_KINDS = (*KINDS, "owned-asyncpg", "owned-psycopg")


async def _open(kind: str, dsn: str, stack: AsyncExitStack) -> Any:
    if kind.startswith("owned-"):
        library: Any = kind.removeprefix("owned-")
        return await stack.enter_async_context(OwnedDriver(dsn, library))
    return await open_driver(kind, dsn, stack)


@pytest_asyncio.fixture
async def open_any(dsn: str) -> AsyncIterator[Callable[[str], Awaitable[Any]]]:
    """``await open_any(kind)``: a driver on the test's database, closed when the test ends."""
    async with AsyncExitStack() as stack:

        async def opener(kind: str) -> Any:
            return await _open(kind, dsn, stack)

        yield opener


@pytest.fixture(params=ALL_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest_asyncio.fixture
async def driver(kind: str, open_any: Callable[[str], Awaitable[Any]]) -> Any:
    """A driver; the test runs once for each kind."""
    return await open_any(kind)


@pytest_asyncio.fixture
async def admin(dsn: str) -> AsyncIterator[Administrator]:
    """Another session on the test's database."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        yield Administrator(connection)
