"""Databases behind a PgBouncer in transaction mode that has two sessions for each.

PGQ_TEST_REQUIRE_PGBOUNCER=1   has these tests fail, not be skipped, where it is not installed
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from behaviour.helpers import Tables
from pgbouncer.helpers import POOLED_KINDS, Library, Ways, open_pooled
from pgq_fast.settings import Layout
from support.pgbouncer import (
    REQUIRE_VARIABLE,
    PgBouncer,
    find_pgbouncer,
    open_all_sessions,
    running_pgbouncer,
)


@pytest.fixture(scope="session")
def pgbouncer(pg_dsn: str) -> Iterator[PgBouncer]:
    """PgBouncer in front of the run's server."""
    program = find_pgbouncer()
    if program is None:
        missing = "PgBouncer is not installed (Debian: apt-get install pgbouncer)"
        if os.environ.get(REQUIRE_VARIABLE) == "1":
            pytest.fail(f"{missing}, and {REQUIRE_VARIABLE}=1 asks for it")
        pytest.skip(missing)
    with running_pgbouncer(program, pg_dsn) as pgbouncer:
        yield pgbouncer


@pytest.fixture
def empty(pgbouncer: PgBouncer, dsn: str) -> Ways:
    """An empty database of the test's own."""
    ways = Ways(dsn, pgbouncer.dsn(dsn))
    open_all_sessions(ways.pooled)
    return ways


@pytest.fixture
def queue(pgbouncer: PgBouncer, queue_dsn: str) -> Ways:
    """A database of the test's own, with the schema of its layout."""
    ways = Ways(queue_dsn, pgbouncer.dsn(queue_dsn))
    open_all_sessions(ways.pooled)
    return ways


@pytest_asyncio.fixture
async def open_through() -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """``await open_through(kind, dsn)``: a driver whose connections are closed with the test."""
    async with AsyncExitStack() as stack:

        async def opener(kind: str, dsn: str, **arguments: Any) -> Any:
            return await open_pooled(kind, dsn, stack, **arguments)

        yield opener


@pytest.fixture(params=POOLED_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest_asyncio.fixture
async def driver(kind: str, queue: Ways, open_through: Callable[..., Awaitable[Any]]) -> Any:
    """A driver of that kind through PgBouncer."""
    return await open_through(kind, queue.pooled)


@pytest.fixture(params=["asyncpg", "psycopg"])
def library(request: pytest.FixtureRequest) -> Library:
    name: Library = request.param
    return name


@pytest_asyncio.fixture
async def tables(queue: Ways, layout: Layout) -> AsyncIterator[Tables]:
    """The tables, through a session of the test's own that passes PgBouncer by."""
    async with await psycopg.AsyncConnection.connect(queue.direct, autocommit=True) as connection:
        yield Tables(connection, layout=layout)
