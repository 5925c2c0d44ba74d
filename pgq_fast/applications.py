"""``PgQueuer``: handlers and schedules on one connection, run together."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, MutableMapping
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, Self

from pgq_fast.builders import (
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
    default_settings,
)
from pgq_fast.drivers.base import Driver
from pgq_fast.executors import (
    AbstractEntrypointExecutor,
    AbstractScheduleExecutor,
    EntrypointExecutorParameters,
    EntrypointTypeVar,
    ScheduleCrontab,
    ScheduleExecutorFactoryParameters,
)
from pgq_fast.logconfig import logger
from pgq_fast.qm import QueueManager, reject_enqueue_only
from pgq_fast.queries import Queries
from pgq_fast.repository import RepositoryPort
from pgq_fast.sm import SchedulerManager
from pgq_fast.types import Channel, OnFailure, QueueExecutionMode

if TYPE_CHECKING:
    import asyncpg
    import psycopg

    from pgq_fast.settings import ConnectionSettings

__all__ = ["PgQueuer"]


@dataclasses.dataclass
class PgQueuer:
    """A worker: a :class:`QueueManager` for jobs, a :class:`SchedulerManager` for schedules.

    Attributes:
        connection: The driver.
        channel: Where the queue's notifications arrive.
        resources: Given to every handler that takes a context.
        queries: The queue; made from *connection* by default.
        shutdown: Set it to stop the worker; what is running ends first.
        qm: The jobs.
        sm: The schedules.
    """

    connection: Driver
    channel: Channel = dataclasses.field(
        default_factory=lambda: Channel(default_settings().channel)
    )
    resources: MutableMapping[str, object] = dataclasses.field(default_factory=dict)
    queries: RepositoryPort | None = dataclasses.field(default=None)
    shutdown: asyncio.Event = dataclasses.field(init=False, default_factory=asyncio.Event)
    qm: QueueManager = dataclasses.field(init=False)
    sm: SchedulerManager = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        reject_enqueue_only(self.connection)
        queries: RepositoryPort = self.queries or Queries(self.connection)
        self.queries = queries
        self.qm = QueueManager(queries, self.channel, resources=self.resources)
        self.sm = SchedulerManager(queries, resources=self.resources)
        self.qm.shutdown = self.shutdown
        self.sm.shutdown = self.shutdown

    @classmethod
    def from_asyncpg_connection(
        cls,
        connection: asyncpg.Connection,
        channel: Channel | None = None,
        resources: MutableMapping[str, object] | None = None,
    ) -> PgQueuer:
        """On an asyncpg connection, which stays the caller's."""
        from pgq_fast.drivers.asyncpg import AsyncpgDriver

        return cls._on(AsyncpgDriver(connection), channel, resources)

    @classmethod
    def from_asyncpg_pool(
        cls,
        pool: asyncpg.Pool,
        channel: Channel | None = None,
        resources: MutableMapping[str, object] | None = None,
    ) -> PgQueuer:
        """On an asyncpg pool of at least two connections, which stays the caller's."""
        from pgq_fast.drivers.asyncpg import AsyncpgPoolDriver

        return cls._on(AsyncpgPoolDriver(pool), channel, resources)

    @classmethod
    def from_psycopg_connection(
        cls,
        connection: psycopg.AsyncConnection,
        channel: Channel | None = None,
        resources: MutableMapping[str, object] | None = None,
    ) -> PgQueuer:
        """On an asynchronous psycopg connection in autocommit mode, which stays the caller's."""
        from pgq_fast.drivers.psycopg import PsycopgDriver

        return cls._on(PsycopgDriver(connection), channel, resources)

    @classmethod
    def from_dsn(
        cls,
        dsn: str | None = None,
        driver: Literal["asyncpg", "psycopg"] = "asyncpg",
        channel: Channel | None = None,
        resources: MutableMapping[str, object] | None = None,
        *,
        settings: ConnectionSettings | None = None,
    ) -> PgQueuer:
        """With connections of its own.

        They are opened when first needed, replaced with backoff when they are lost (a restart of
        the server is a pause, not an end), and closed when ``run`` ends or by ``close``.

        Args:
            dsn: Where to connect; None for what the environment says.
            driver: The library to connect with.
            channel: As for the constructor.
            resources: As for the constructor.
            settings: Connection parameters; None for what the environment says.
        """
        from pgq_fast.drivers.owned import OwnedDriver

        return cls._on(OwnedDriver(dsn, driver, settings), channel, resources)

    @classmethod
    def in_memory(
        cls,
        channel: Channel | None = None,
        resources: MutableMapping[str, object] | None = None,
    ) -> PgQueuer:
        """Without a database: the jobs live in this process. For tests and trials."""
        from pgq_fast.memory import InMemoryDriver, InMemoryQueries

        driver = InMemoryDriver()
        settings = default_settings()
        if channel is not None:
            # No database has a trigger here: the queue itself notifies where the worker listens.
            settings = settings.model_copy(update={"channel": channel})
        queries = InMemoryQueries(
            driver,
            QueryBuilderEnvironment(settings),
            QueryQueueBuilder(settings),
            QuerySchedulerBuilder(settings),
        )
        return cls._on(driver, channel, resources, queries)

    @classmethod
    def _on(
        cls,
        driver: Driver,
        channel: Channel | None,
        resources: MutableMapping[str, object] | None,
        queries: RepositoryPort | None = None,
    ) -> Self:
        return cls(
            connection=driver,
            channel=channel or Channel(default_settings().channel),
            # Not "or": an empty mapping is the caller's too.
            resources={} if resources is None else resources,
            queries=queries,
        )

    async def close(self) -> None:
        """Close the connections that ``from_dsn`` opened; those of others stay open."""
        close = getattr(self.connection, "close", None)
        if close is not None and getattr(self.connection, "owns_connections", False):
            await close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def run(
        self,
        dequeue_timeout: timedelta = timedelta(seconds=30),
        batch_size: int | None = None,
        mode: QueueExecutionMode = QueueExecutionMode.continuous,
        max_concurrent_tasks: int | None = None,
        shutdown_on_listener_failure: bool = False,
        heartbeat_timeout: timedelta = timedelta(seconds=30),
        log_aggregation_interval: timedelta = timedelta(seconds=30),
    ) -> None:
        """Run jobs and schedules until ``shutdown`` is set or, in drain mode, the queue is empty.

        Arguments and errors are those of :meth:`QueueManager.run`. When one of the two ends, the
        other is stopped.
        """
        tasks = [
            asyncio.create_task(
                self.qm.run(
                    dequeue_timeout=dequeue_timeout,
                    batch_size=batch_size,
                    mode=mode,
                    max_concurrent_tasks=max_concurrent_tasks,
                    shutdown_on_listener_failure=shutdown_on_listener_failure,
                    heartbeat_timeout=heartbeat_timeout,
                    log_aggregation_interval=log_aggregation_interval,
                ),
                name="pgq_fast jobs",
            ),
            asyncio.create_task(self.sm.run(), name="pgq_fast schedules"),
        ]
        first: BaseException | None = None
        try:
            await asyncio.gather(*tasks)
        except BaseException as error:
            first = error
            raise
        finally:
            self.shutdown.set()
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception) and outcome is not first:
                    logger.error("A manager failed while it was stopped", exc_info=outcome)

    def entrypoint(
        self,
        name: str,
        *,
        concurrency_limit: int = 0,
        accepts_context: bool | None = None,
        on_failure: OnFailure = "delete",
        executor_factory: Callable[[EntrypointExecutorParameters], AbstractEntrypointExecutor]
        | None = None,
    ) -> Callable[[EntrypointTypeVar], EntrypointTypeVar]:
        """Register a handler; see :meth:`QueueManager.entrypoint`."""
        return self.qm.entrypoint(
            name,
            concurrency_limit=concurrency_limit,
            accepts_context=accepts_context,
            on_failure=on_failure,
            executor_factory=executor_factory,
        )

    def schedule(
        self,
        entrypoint: str,
        expression: str,
        executor_factory: Callable[[ScheduleExecutorFactoryParameters], AbstractScheduleExecutor]
        | None = None,
        clean_old: bool = False,
        accepts_context: bool | None = None,
    ) -> Callable[[ScheduleCrontab], ScheduleCrontab]:
        """Register a scheduled function; see :meth:`SchedulerManager.schedule`."""
        return self.sm.schedule(
            entrypoint,
            expression,
            executor_factory=executor_factory,
            clean_old=clean_old,
            accepts_context=accepts_context,
        )
