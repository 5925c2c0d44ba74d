"""Queues over each driver, and another session that looks at their tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final, Literal

import psycopg
import pytest
import pytest_asyncio
import uvloop

from behaviour.helpers import Enqueue, LayoutSpy, Tables, awaitable_enqueue
from pgq_fast.db import SyncPsycopgDriver
from pgq_fast.qm import QueueManager
from pgq_fast.queries import Queries, SyncQueries
from pgq_fast.settings import Layout
from support.drivers import KINDS, MakeDriver, open_driver

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


@pytest_asyncio.fixture(params=[*KINDS, "sync-psycopg"])
async def enqueue(request: pytest.FixtureRequest, queue_dsn: str) -> AsyncIterator[Enqueue]:
    """``Queries.enqueue`` over each driver, and ``SyncQueries.enqueue``."""
    async with AsyncExitStack() as stack:
        if request.param == "sync-psycopg":
            connection = stack.enter_context(psycopg.connect(queue_dsn, autocommit=True))
            yield awaitable_enqueue(SyncQueries(SyncPsycopgDriver(connection)))
        else:
            yield Queries(await open_driver(request.param, queue_dsn, stack)).enqueue


@pytest.fixture(params=["asyncpg", "psycopg"])
def library(request: pytest.FixtureRequest) -> Literal["asyncpg", "psycopg"]:
    """The library of connections that a worker owns."""
    name: Literal["asyncpg", "psycopg"] = request.param
    return name


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
