"""Queues with jobs in every state, on each layout."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack

import pytest

from migrate.helpers import fill
from pgq_fast.settings import Layout
from support.drivers import open_driver
from support.layouts import Templates, queries_of
from support.pg_programs import schema_dump
from support.server import Databases


class Filled:
    """Copies of a database with a queue that has something of everything."""

    def __init__(self, databases: Databases, templates: Templates, stack: ExitStack) -> None:
        self._databases = databases
        self._templates = templates
        self._stack = stack
        self._names: dict[Layout, str] = {}

    def database(self, layout: Layout, stack: ExitStack) -> str:
        """DSN of a database of the caller's own, as long as *stack*."""
        if layout not in self._names:
            name, dsn = self._stack.enter_context(
                self._databases.temporary(self._templates.name(layout))
            )
            asyncio.run(_fill(dsn, layout))
            self._names[layout] = name
        _, dsn = stack.enter_context(self._databases.temporary(self._names[layout]))
        return dsn


async def _fill(dsn: str, layout: Layout) -> None:
    async with AsyncExitStack() as stack:
        await fill(queries_of(await open_driver("asyncpg", dsn, stack), layout))


@pytest.fixture(scope="session")
def filled(databases: Databases, queue_templates: Templates) -> Iterator[Filled]:
    """Makes such databases."""
    with ExitStack() as stack:
        yield Filled(databases, queue_templates, stack)


@pytest.fixture(scope="session")
def fresh_dumps(databases: Databases, queue_templates: Templates) -> dict[Layout, str]:
    """The schema of a new installation of each layout."""
    dumps = {}
    for layout in Layout:
        with databases.temporary(queue_templates.name(layout)) as (_, dsn):
            dumps[layout] = schema_dump(dsn)
    return dumps


@pytest.fixture(params=list(Layout), ids=[f"from {layout.value}" for layout in Layout])
def source(request: pytest.FixtureRequest) -> Layout:
    """The layout that the queue is to leave."""
    layout: Layout = request.param
    return layout


@pytest.fixture
def filled_dsn(filled: Filled, source: Layout) -> Iterator[str]:
    """A database with a filled queue in the layout *source*."""
    with ExitStack() as stack:
        yield filled.database(source, stack)
