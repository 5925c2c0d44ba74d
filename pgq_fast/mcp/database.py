"""How the MCP server asks the database."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final

from mcp.server.mcpserver.exceptions import ToolError

from pgq_fast.builders import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgq_fast.cached import Cached
from pgq_fast.drivers.asyncpg import AsyncpgDriver
from pgq_fast.drivers.failures import is_connection_lost, sqlstate_of
from pgq_fast.errors import PgqException
from pgq_fast.logconfig import logger
from pgq_fast.mcp.settings import McpSettings
from pgq_fast.models import QueueAgeStats, QueueStatistics
from pgq_fast.queries import Queries
from pgq_fast.settings import DBSettings
from pgq_fast.sql import layout_statement

if TYPE_CHECKING:
    import asyncpg

_TOO_LONG: Final = "57014"

_LEFT_TO_WORKERS: Final = frozenset({"42501", "25006", _TOO_LONG})
"""SQLSTATEs of what the role or a standby server may not do, or has no time for."""

_EXPLAINED: Final = {
    _TOO_LONG: "the statement took too long and was stopped: ask for less, or set "
    "PGQUEUER_MCP_STATEMENT_TIMEOUT",
    "42P01": "the queue's tables are not there: run 'pgq install', or see whether "
    "PGQUEUER_LAYOUT, PGQUEUER_SCHEMA and PGQUEUER_PREFIX are those of the queue",
    "42501": "the database role may not do this: grant it the right, or connect as another one",
    "25006": "this server is a standby and cannot be written to",
}
"""What to do, by SQLSTATE."""


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """A block whose failures the model is told in words, and without details of the connection.

    Raises:
        ToolError: Instead of an error that can be explained.
    """
    try:
        yield
    except PgqException as error:
        raise ToolError(str(error)) from error
    except Exception as error:
        text = _EXPLAINED.get(sqlstate_of(error) or "")
        if text is None and (is_connection_lost(error) or isinstance(error, OSError)):
            text = "the database cannot be reached at the moment"
        if text is None:
            raise
        raise ToolError(text) from error


class PgQueuerDatabase:
    """A pool of connections, and the names of a queue.

    Args:
        pool: Of asyncpg.
        settings: The names, and the layout.
        options: What is allowed.
    """

    def __init__(self, pool: asyncpg.Pool, settings: DBSettings, options: McpSettings) -> None:
        self.pool = pool
        self.settings = settings
        self.options = options
        # What counts the whole queue: a model in a hurry must not keep the server busy with it.
        self.queue_size = Cached[list[QueueStatistics]](self._queue_size)
        self.queue_age = Cached[list[QueueAgeStats]](self._queue_age)

    @contextlib.asynccontextmanager
    async def _transaction(self, *, readonly: bool) -> AsyncIterator[Queries]:
        timeout = round(self.options.statement_timeout * 1000)
        with explained():
            async with (
                self.pool.acquire() as connection,
                connection.transaction(readonly=readonly),
            ):
                await connection.execute(
                    "SELECT set_config('statement_timeout', $1, true)", str(max(timeout, 1))
                )
                yield Queries(
                    AsyncpgDriver(connection),  # type: ignore[arg-type]
                    qbe=QueryBuilderEnvironment(self.settings),
                    qbq=QueryQueueBuilder(self.settings),
                    qbs=QuerySchedulerBuilder(self.settings),
                )

    def reading(self) -> contextlib.AbstractAsyncContextManager[Queries]:
        """The queue, in a transaction in which PostgreSQL itself refuses every change."""
        return self._transaction(readonly=True)

    def writing(self) -> contextlib.AbstractAsyncContextManager[Queries]:
        """The queue, to be changed."""
        return self._transaction(readonly=False)

    async def fetch(self, name: str, *args: object) -> list[dict[str, Any]]:
        """The rows of the statement *name*, read only."""
        async with self.reading() as queries:
            return await queries.driver.fetch(layout_statement(name, self.settings), *args)

    async def bring_statistics_up_to_date(self) -> None:
        """Count new log entries, if the role may and they are not too many; else workers will."""
        try:
            async with self.writing() as queries:
                await queries.aggregate_logs()
        except ToolError as error:
            if sqlstate_of(error.__cause__ or error) not in _LEFT_TO_WORKERS:
                raise
            logger.debug("The statistics are shown as they are: %s", error)

    async def _queue_size(self) -> list[QueueStatistics]:
        async with self.reading() as queries:
            return await queries.queue_size()

    async def _queue_age(self) -> list[QueueAgeStats]:
        async with self.reading() as queries:
            return await queries.queue_age()
