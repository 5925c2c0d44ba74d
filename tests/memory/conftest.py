"""The queue in memory and on each table layout of PostgreSQL, for tests of what all promise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from pgq_fast.memory import InMemoryDriver, InMemoryQueries
from pgq_fast.settings import Layout
from support.drivers import open_driver
from support.layouts import Templates, queries_of
from support.server import Databases


@pytest.fixture(params=["memory", *(layout.value for layout in Layout)])
def place(request: pytest.FixtureRequest) -> str:
    """Where the queue is kept: ``memory``, or the name of a table layout."""
    name: str = request.param
    return name


@pytest.fixture
def place_dsn(place: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of the test's own with the tables of the layout."""
    if place == "memory":
        yield ""
        return
    databases: Databases = request.getfixturevalue("databases")
    templates: Templates = request.getfixturevalue("queue_templates")
    with databases.temporary(templates.name(Layout(place))) as (_, dsn):
        yield dsn


@pytest_asyncio.fixture
async def queries(place: str, place_dsn: str) -> AsyncIterator[Any]:
    """An empty queue: ``InMemoryQueries``, then ``Queries``, which has the same methods."""
    if place == "memory":
        yield InMemoryQueries(InMemoryDriver())
        return
    async with AsyncExitStack() as stack:
        yield queries_of(await open_driver("asyncpg", place_dsn, stack), Layout(place))
