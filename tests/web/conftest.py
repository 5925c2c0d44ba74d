"""Dashboards on a queue of the test's own, asked without a network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeAlias

import httpx
import psycopg
import pytest
import pytest_asyncio
from fastapi import FastAPI

from behaviour.helpers import Tables
from pgq_fast.queries import Queries
from pgq_fast.settings import DBSettings, Layout
from pgq_fast.web import create_web_router
from pgq_fast.web.settings import WebSettings
from support.drivers import MakeDriver
from support.layouts import queries_of

MakeClient: TypeAlias = Callable[..., httpx.AsyncClient]


@pytest_asyncio.fixture
async def queries(make_driver: MakeDriver, queue_dsn: str, queue_settings: DBSettings) -> Queries:
    """The queue."""
    return queries_of(await make_driver("asyncpg-pool", queue_dsn), queue_settings)


@pytest_asyncio.fixture
async def tables(queue_dsn: str, layout: Layout) -> AsyncIterator[Tables]:
    """The tables, from another session."""
    async with await psycopg.AsyncConnection.connect(queue_dsn, autocommit=True) as connection:
        yield Tables(connection, layout=layout)


@pytest_asyncio.fixture
async def make_client() -> AsyncIterator[MakeClient]:
    """``make_client(app)``: a browser on this machine, more or less, that keeps cookies."""
    async with AsyncExitStack() as stack:
        clients: list[httpx.AsyncClient] = []

        def make(app: Any, *, address: str = "127.0.0.1", **options: Any) -> httpx.AsyncClient:
            options.setdefault("base_url", "http://localhost")
            options.setdefault("headers", {"Accept": "text/html"})
            transport = httpx.ASGITransport(app, client=(address, 5000))
            client = httpx.AsyncClient(transport=transport, **options)
            clients.append(client)
            return client

        yield make
        for client in clients:
            stack.push_async_callback(client.aclose)


@pytest.fixture
def client(queries: Queries, make_client: MakeClient) -> httpx.AsyncClient:
    """A dashboard with default settings."""
    return make_client(dashboard(queries))


def dashboard(queries: object, prefix: str = "", **settings: Any) -> FastAPI:
    """An application with the dashboard in it."""
    app = FastAPI()
    app.state.pgq_queries = queries
    router = create_web_router(include_sse=False, settings=WebSettings(**settings))
    app.include_router(router, prefix=prefix)
    return app
