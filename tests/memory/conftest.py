"""The queue in memory and the queue on PostgreSQL, for tests of what both promise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from pgq_fast.memory import InMemoryDriver, InMemoryQueries
from support.drivers import open_driver


@pytest.fixture(params=["memory", "postgres"])
def place(request: pytest.FixtureRequest) -> str:
    """Where the queue is to be kept: ``memory``, or the DSN of a database."""
    if request.param == "memory":
        return "memory"
    dsn: str = request.getfixturevalue("queue_dsn")
    return dsn


@pytest_asyncio.fixture
async def queries(place: str) -> AsyncIterator[Any]:
    """An empty queue: ``InMemoryQueries``, then ``Queries``, which has the same methods."""
    if place == "memory":
        yield InMemoryQueries(InMemoryDriver())
        return
    from pgq_fast.queries import Queries

    async with AsyncExitStack() as stack:
        driver = await open_driver("asyncpg", place, stack)
        yield Queries(driver)
