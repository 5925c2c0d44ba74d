"""Queues over each driver, and another session that looks at their tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import psycopg
import pytest
import pytest_asyncio
import uvloop

from behaviour.helpers import LayoutSpy, Tables
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries
from pgq_fast.settings import Layout
from support.drivers import KINDS, MakeDriver

EVENT_LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def pytest_asyncio_loop_factories(
    item: pytest.Function,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loops that a test runs on: those that its module lists in ``EVENT_LOOPS``."""
    names = getattr(item.module, "EVENT_LOOPS", ("asyncio",))
    return {name: EVENT_LOOPS[name] for name in names}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The test runs once for each kind of driver."""
    name: str = request.param
    return name


@pytest_asyncio.fixture
async def driver(kind: str, make_driver: MakeDriver, queue_dsn: str) -> Any:
    """A driver of that kind on a database with the schema."""
    return await make_driver(kind, queue_dsn)


@pytest.fixture
def queries(driver: Any) -> Queries:
    """The queue."""
    return Queries(driver)


@pytest.fixture
def manager(queries: Queries) -> QueueManager:
    """A worker without handlers."""
    return QueueManager(queries)


@pytest_asyncio.fixture
async def another(
    kind: str, make_driver: MakeDriver, queue_dsn: str
) -> Callable[[], Awaitable[QueueManager]]:
    """``await another()``: a further worker, on connections of its own."""

    async def make() -> QueueManager:
        return QueueManager(Queries(await make_driver(kind, queue_dsn)))

    return make


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> LayoutSpy:
    """What the workers of the test ask of their layout."""
    return LayoutSpy(monkeypatch)


@pytest_asyncio.fixture
async def tables(queue_dsn: str, layout: Layout) -> AsyncIterator[Tables]:
    """The tables, through a session of the test's own."""
    async with await psycopg.AsyncConnection.connect(queue_dsn, autocommit=True) as connection:
        yield Tables(connection, layout=layout)
