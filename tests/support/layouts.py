"""Queues on each table layout, for tests that run over both."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack
from typing import Any, Final

from pgq_fast.builders import (
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgq_fast.queries import Queries
from pgq_fast.settings import DBSettings, Layout
from support.drivers import open_driver
from support.server import Databases

LAYOUT_VARIABLE: Final = "PGQUEUER_LAYOUT"


def queries_of(driver: Any, layout: Layout | DBSettings) -> Queries:
    """The queue on *layout*, or with these settings, whatever the environment says."""
    settings = layout if isinstance(layout, DBSettings) else DBSettings(layout=layout)
    return Queries(
        driver,
        QueryBuilderEnvironment(settings),
        QueryQueueBuilder(settings),
        QuerySchedulerBuilder(settings),
    )


class Templates:
    """A database with the schema of each layout, to be copied; made when it is first asked for."""

    def __init__(self, databases: Databases, stack: ExitStack) -> None:
        self._databases = databases
        self._stack = stack
        self._names: dict[Layout, str] = {}

    def name(self, layout: Layout) -> str:
        """Name of the database with that layout."""
        if layout not in self._names:
            name, dsn = self._stack.enter_context(self._databases.temporary())
            asyncio.run(_install(dsn, layout))
            self._names[layout] = name
        return self._names[layout]


async def _install(dsn: str, layout: Layout) -> None:
    async with AsyncExitStack() as stack:
        await queries_of(await open_driver("asyncpg", dsn, stack), layout).install()
