"""A queue in memory and on each layout, over each library, for what comes in from outside."""

from __future__ import annotations

import random
import string
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, Final

import psycopg
import pytest
import pytest_asyncio

from behaviour.helpers import Enqueue, Tables, awaitable_enqueue
from pgq_fast.db import SyncPsycopgDriver
from pgq_fast.memory import InMemoryDriver, InMemoryQueries
from pgq_fast.qm import QueueManager
from pgq_fast.queries import SyncQueries
from pgq_fast.settings import Layout
from support.drivers import open_driver
from support.layouts import queries_of
from support.reuse import ReusedDatabases

PLACES: Final = [
    "memory",
    *(f"{layout.value}-{library}" for layout in Layout for library in ("asyncpg", "psycopg")),
]
"""Where the queue is, and the library through which it is reached."""

PRODUCERS: Final = [*PLACES, *(f"{layout.value}-sync" for layout in Layout)]
"""The same for ``enqueue``, with ``SyncQueries``."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of ``enqueue`` once for each of ``PRODUCERS``, others for each of ``PLACES``.

    What uses ``tables`` has nothing to do in memory, and with ``any_library`` one will do.
    """
    if "place" in metafunc.fixturenames:
        places = PRODUCERS if "enqueue" in metafunc.fixturenames else PLACES
        if "tables" in metafunc.fixturenames:
            places = [name for name in places if name != "memory"]
        if "any_library" in metafunc.fixturenames:
            places = [name for name in places if not name.endswith("psycopg")]
        metafunc.parametrize("place", places, indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    """Where the queue is."""
    name: str = request.param
    return name


@pytest.fixture
def place_dsn(place: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of the test's own with the tables of the layout."""
    layout = place.partition("-")[0]
    if layout == "memory":
        yield ""
        return
    reused: ReusedDatabases = request.getfixturevalue("reused_databases")
    template = request.getfixturevalue("queue_templates").name(Layout(layout))
    with reused.lent(template) as dsn:
        yield dsn


@pytest_asyncio.fixture
async def queries(place: str, place_dsn: str) -> AsyncIterator[Any]:
    """The queue: ``InMemoryQueries``, or ``Queries``, which has the same methods."""
    layout, _, library = place.partition("-")
    if layout == "memory":
        yield InMemoryQueries(InMemoryDriver())
        return
    async with AsyncExitStack() as stack:
        kind = "psycopg" if library == "sync" else library
        yield queries_of(await open_driver(kind, place_dsn, stack), Layout(layout))


@pytest.fixture
def enqueue(place: str, place_dsn: str, queries: Any) -> Iterator[Enqueue]:
    """``enqueue`` of the queue, or of ``SyncQueries`` on the same tables."""
    if not place.endswith("-sync"):
        yield queries.enqueue
        return
    with psycopg.connect(place_dsn, autocommit=True) as connection:
        yield awaitable_enqueue(SyncQueries(SyncPsycopgDriver(connection), queries.qbq))


@pytest.fixture
def manager(queries: Any) -> QueueManager:
    """A worker without handlers."""
    return QueueManager(queries)


@pytest_asyncio.fixture
async def tables(place: str, place_dsn: str) -> AsyncIterator[Tables]:
    """The tables, through a session of somebody else's."""
    layout = Layout(place.partition("-")[0])
    async with await psycopg.AsyncConnection.connect(place_dsn, autocommit=True) as connection:
        yield Tables(connection, layout=layout)


@pytest.fixture
def any_library() -> None:
    """Marks a test of statements that are the same through all libraries, and take long."""


@pytest.fixture
def noise() -> Callable[[int], str]:
    """``noise(n)``: text of *n* bytes that does not get smaller when it is compressed."""
    chooser = random.Random(7)
    letters = string.ascii_letters + string.digits

    def make(size: int) -> str:
        return "".join(chooser.choices(letters, k=size))

    return make
