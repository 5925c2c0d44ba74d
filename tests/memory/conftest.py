"""The queue in memory and the queue on PostgreSQL, for tests of what both promise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from pgq_fast.memory import InMemoryDriver, InMemoryQueries
from support.drivers import open_driver


@pytest_asyncio.fixture(params=["memory", "postgres"])
async def queries(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """An empty queue: ``InMemoryQueries``, then ``Queries``, which has the same methods."""
    if request.param == "memory":
        yield InMemoryQueries(InMemoryDriver())
        return
    from pgq_fast.queries import Queries

    async with AsyncExitStack() as stack:
        driver = await open_driver("asyncpg", request.getfixturevalue("queue_dsn"), stack)
        yield Queries(driver)
