"""The dashboard as an application of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

from fastapi import Depends, FastAPI

from pgq_fast.builders import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgq_fast.connections import create_asyncpg_pool, listener_source
from pgq_fast.drivers.base import Driver
from pgq_fast.drivers.owned import OwnedDriver
from pgq_fast.logconfig import logger
from pgq_fast.queries import Queries
from pgq_fast.settings import ConnectionSettings, DBSettings, db_settings
from pgq_fast.types import Channel
from pgq_fast.web.auth import guard
from pgq_fast.web.reads import Reads
from pgq_fast.web.routes import build_router
from pgq_fast.web.settings import WebSettings
from pgq_fast.web.sse import Broadcaster
from pgq_fast.web.views import Sampler, Views

__all__ = ["create_web_app", "open_queries"]

DEBOUNCE: Final = timedelta(seconds=1)
"""A busy queue tells pages once a second that it has changed."""


def create_web_app(
    dsn: str | None = None,
    connection_settings: ConnectionSettings | None = None,
    *,
    settings: WebSettings | None = None,
    queries: Queries | None = None,
) -> FastAPI:
    """The dashboard with connections of its own, to be served by any ASGI server.

    An application that mounts it has to run its lifespan, as servers do:
    ``async with dashboard.router.lifespan_context(dashboard)``.

    Args:
        dsn: Where to connect; by default what the settings say, then libpq's variables.
        connection_settings: By default those of the environment.
        settings: Who gets in, and what is allowed; by default what the environment says. Without a
            login only this machine gets in.
        queries: The queue, on connections of the caller's; *dsn* and *connection_settings* are not
            used then.

    Raises:
        IncompleteLoginError: *settings* have a user without a password or the reverse.
    """
    settings = settings or WebSettings()
    views = Views()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            opened = queries
            if opened is None:
                opened = await stack.enter_async_context(open_queries(dsn, connection_settings))
            app.state.pgq_queries = opened
            broadcaster = Broadcaster(
                opened.driver, Channel(opened.qbq.settings.channel), debounce=DEBOUNCE
            )
            if await _starts(broadcaster):
                stack.push_async_callback(broadcaster.stop)
                app.state.pgq_broadcaster = broadcaster
            sampler = asyncio.create_task(
                Sampler(views, Reads(opened)).run(_sampling_failed), name="pgq_fast samples"
            )
            try:
                yield
            finally:
                sampler.cancel()
                await asyncio.gather(sampler, return_exceptions=True)

    # Without its pages of documentation, which load scripts from elsewhere.
    app = FastAPI(
        title="pgq_fast dashboard", lifespan=lifespan, docs_url=None, redoc_url=None,
        openapi_url=None,
    )  # fmt: skip
    app.include_router(build_router(views, settings, [Depends(guard(settings))], include_sse=True))
    return app


async def _starts(broadcaster: Broadcaster) -> bool:
    """Whether *broadcaster* listens now; if not, pages look for news at intervals."""
    try:
        await broadcaster.start()
    except Exception:
        logger.warning(
            "The dashboard does not listen for changes, so its pages look for them at intervals",
            exc_info=True,
        )
        return False
    return True


def _sampling_failed(error: Exception) -> None:
    logger.debug("The numbers of jobs could not be read for the chart", exc_info=error)


@contextlib.asynccontextmanager
async def open_queries(
    dsn: str | None = None,
    connection_settings: ConnectionSettings | None = None,
    settings: DBSettings | None = None,
) -> AsyncIterator[Queries]:
    """The queue on connections that are closed when the block ends.

    A pool of asyncpg's where it is installed, else a connection of psycopg's.

    Args:
        dsn: Where to connect; by default what the settings say, then libpq's variables.
        connection_settings: By default those of the environment.
        settings: Names and layout of the tables; by default those of the environment.
    """
    connection_settings = connection_settings or ConnectionSettings()
    settings = settings or db_settings()
    async with contextlib.AsyncExitStack() as stack:
        yield Queries(
            await _open_driver(dsn, connection_settings, stack),
            QueryBuilderEnvironment(settings),
            QueryQueueBuilder(settings),
            QuerySchedulerBuilder(settings),
        )


async def _open_driver(
    dsn: str | None, settings: ConnectionSettings, stack: contextlib.AsyncExitStack
) -> Driver:
    try:
        from pgq_fast.drivers.asyncpg import AsyncpgPoolDriver
    except ModuleNotFoundError as missing:
        if missing.name != "asyncpg":
            raise
        return await stack.enter_async_context(OwnedDriver(dsn, "psycopg", settings))
    # One more than is asked for at least: the listener keeps one.
    sized = settings.model_copy(update={"pool_max_size": max(settings.pool_max_size, 2)})
    pool = await stack.enter_async_context(create_asyncpg_pool(dsn, sized))
    if not settings.transaction_pooling:
        return await stack.enter_async_context(AsyncpgPoolDriver(pool))
    source = listener_source(dsn, settings)
    listen_on = None
    if source is not None:
        listen_on = await stack.enter_async_context(OwnedDriver(source[0], "asyncpg", source[1]))
    return await stack.enter_async_context(
        AsyncpgPoolDriver(pool, transaction_pooling=True, listen_on=listen_on)
    )
