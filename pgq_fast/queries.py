"""``Queries`` and ``SyncQueries``: what producers, workers and tools call.

Each method is one statement, or hands over to the layout and the schema modules. What manages the
schema is imported when it is called: most processes never do. The layouts' side of workers is, too:
producers never do.
"""

from __future__ import annotations

import dataclasses
import functools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, cast, overload

from pydantic import BaseModel, ValidationError

from pgq_fast import arguments, enqueue as enqueueing, messages, models, tracing, types
from pgq_fast.builders import (
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgq_fast.choices import Layout
from pgq_fast.drivers.base import Driver, Int8Array, RowDriver, SyncDriver, rows_of
from pgq_fast.drivers.failures import UNIQUE_VIOLATION, is_beyond_python, sqlstate_of
from pgq_fast.enqueue import EnqueueBatch
from pgq_fast.errors import DuplicateJobError, MalformedRowError, OpenTransactionError
from pgq_fast.layouts.base import Outcome, Retry, WorkerLayout
from pgq_fast.layouts.jobs import JobCalls
from pgq_fast.layouts.producer import Producer, enqueue_sync, producer_for
from pgq_fast.logconfig import logger
from pgq_fast.repository import EntrypointExecutionParameter
from pgq_fast.schema.statements import run_async, run_sync
from pgq_fast.sql import layout_statement
from pgq_fast.tracing import TracingProtocol
from pgq_fast.types import CronEntrypoint, HealthCheckId, QueueEntrypoint, QueueManagerId

if TYPE_CHECKING:
    import asyncpg
    import psycopg

    from pgq_fast.schema.migrate import MigrationProgress, MigrationReport
    from pgq_fast.schema.planning import Plan
    from pgq_fast.schema.required import Requirement
    from pgq_fast.settings import DBSettings

__all__ = ["EntrypointExecutionParameter", "Queries", "SyncQueries", "is_unique_violation"]

ModelT = TypeVar("ModelT", bound=BaseModel)
ResultT = TypeVar("ResultT")
Parameters = ParamSpec("Parameters")


def is_unique_violation(exc: Exception) -> bool:
    """Whether *exc*, of whatever driver, is PostgreSQL's ``unique_violation``."""
    return sqlstate_of(exc) == UNIQUE_VIOLATION


def _explains_layout(
    method: Callable[Concatenate[Queries, Parameters], Awaitable[ResultT]],
) -> Callable[Concatenate[Queries, Parameters], Coroutine[Any, Any, ResultT]]:
    """*method*, whose statements fail with ``LayoutMismatchError`` where that is the reason."""

    @functools.wraps(method)
    async def explaining(
        self: Queries, /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> ResultT:
        try:
            return await method(self, *args, **kwargs)
        except Exception as error:
            await self._raise_layout_mismatch(error)
            raise

    return explaining


def _batch(
    entrypoint: str | list[str],
    payload: bytes | None | list[bytes | None],
    priority: int | list[int],
    execute_after: timedelta | None | list[timedelta | None],
    dedupe_key: str | list[str | None] | None,
    headers: dict[str, str] | list[dict[str, str] | None] | None,
    on_conflict: types.OnConflict,
    tracer: TracingProtocol | None,
) -> EnqueueBatch:
    """The arguments of ``enqueue``, checked, with the tracer's headers."""
    batch = enqueueing.normalize(entrypoint, payload, priority, execute_after, dedupe_key, headers)
    enqueueing.check_on_conflict(on_conflict, batch)
    active = tracer or tracing.TRACER.tracer
    return batch if active is None else enqueueing.trace_headers(batch, active)


def _readable(model: type[ModelT], rows: list[dict[str, object]]) -> list[ModelT]:
    """*rows* as *model*; one that somebody else wrote badly is logged and left out."""
    items = []
    for row in rows:
        try:
            items.append(model.model_validate(row))
        except ValidationError as error:
            # Not the error itself, which quotes values.
            faults = error.errors(include_url=False, include_context=False, include_input=False)
            logger.error(
                "The row with id %s cannot be read as a %s and is left out: see its %s",
                row.get("id"),
                model.__name__,
                ", ".join(sorted({str(fault["loc"][0]) for fault in faults if fault["loc"]})),
            )
    return items


def _names(entrypoint: str | list[str]) -> list[str]:
    return arguments.names(
        "entrypoint", [entrypoint] if isinstance(entrypoint, str) else entrypoint
    )


def _job_ids(ids: Iterable[int]) -> list[types.JobId]:
    return [*map(types.JobId, arguments.identities("ids", ids))]


def _ids(ids: Iterable[int], name: str = "ids") -> Int8Array:
    return Int8Array(arguments.identities(name, ids))


@dataclasses.dataclass
class Queries:
    """The queue over an asynchronous driver.

    Attributes:
        driver: Any object with the methods of :class:`~pgq_fast.db.Driver`.
        qbe: Settings of what manages the schema.
        qbq: Settings of the queue.
        qbs: Settings of the schedules.
        tracer: Used instead of the tracer of the process.
    """

    driver: Driver
    qbe: QueryBuilderEnvironment = dataclasses.field(default_factory=QueryBuilderEnvironment)
    qbq: QueryQueueBuilder = dataclasses.field(default_factory=QueryQueueBuilder)
    qbs: QuerySchedulerBuilder = dataclasses.field(default_factory=QuerySchedulerBuilder)
    tracer: TracingProtocol | None = None

    _made: tuple[Driver, DBSettings, Producer] | None = dataclasses.field(
        default=None, init=False, repr=False, compare=False
    )

    @classmethod
    def from_asyncpg_connection(cls, connection: asyncpg.Connection) -> Queries:
        """On an asyncpg connection, which stays the caller's."""
        from pgq_fast.drivers.asyncpg import AsyncpgDriver

        return cls(AsyncpgDriver(connection))

    @classmethod
    def from_asyncpg_pool(cls, pool: asyncpg.Pool) -> Queries:
        """On an asyncpg pool, which stays the caller's."""
        from pgq_fast.drivers.asyncpg import AsyncpgPoolDriver

        return cls(AsyncpgPoolDriver(pool))

    @classmethod
    def from_psycopg_connection(cls, connection: psycopg.AsyncConnection) -> Queries:
        """On an asynchronous psycopg connection in autocommit mode, which stays the caller's."""
        from pgq_fast.drivers.psycopg import PsycopgDriver

        return cls(PsycopgDriver(connection))

    def worker_layout(self) -> WorkerLayout | None:
        """What a worker calls instead of the per-job methods; None where a subclass changed them.

        A subclass that overrides ``dequeue`` and the like expects to see every job.
        """
        for name in ("dequeue", "log_jobs", "retry_job", "update_heartbeat"):
            if getattr(type(self), name) is not getattr(Queries, name):
                return None
        settings = self.qbq.settings
        if settings.layout is Layout.lease:
            from pgq_fast.layouts.lease import LeaseLayout

            return LeaseLayout(self.driver, settings)
        from pgq_fast.layouts.compat import CompatLayout

        return CompatLayout(self.driver, settings)

    def _producer(self) -> Producer:
        """The producer for the driver and the settings of now."""
        made, settings = self._made, self.qbq.settings
        if made is None or made[0] is not self.driver or made[1] is not settings:
            made = self._made = (self.driver, settings, producer_for(self.driver, settings))
        return made[2]

    async def _raise_layout_mismatch(self, error: Exception) -> None:
        """Raise ``LayoutMismatchError`` if that is why a statement failed with *error*."""
        from pgq_fast.schema import layout as layouts

        mismatch = await layouts.mismatch_behind(error, self.driver, self.qbq.settings)
        if mismatch is not None:
            raise mismatch from error

    def _jobs(self) -> JobCalls:
        """What the layout of the settings does in more than a statement of the same name."""
        settings = self.qbq.settings
        if settings.layout is Layout.lease:
            from pgq_fast.layouts.lease_jobs import LeaseJobs

            return LeaseJobs(self.driver, settings)
        from pgq_fast.layouts.compat_jobs import CompatJobs

        return CompatJobs(self.driver, settings)

    @_explains_layout
    async def _models(
        self, model: type[ModelT], name: str, settings: DBSettings, *args: object, flag: str = ""
    ) -> list[ModelT]:
        try:
            rows = await self.driver.fetch(layout_statement(name, settings, flag), *args)
        except Exception as error:
            # The arguments were checked, so it is the data.
            if is_beyond_python(error):
                raise MalformedRowError(
                    f"a row of the queue has a time that no {model.__name__} can have, which is "
                    "infinite or outside the years 1 to 9999: correct it in the table"
                ) from error
            raise
        return _readable(model, rows)

    @_explains_layout
    async def _queue(self, name: str, *args: object) -> None:
        await self.driver.execute(layout_statement(name, self.qbq.settings), *args)

    async def _schedule(self, name: str, *args: object) -> None:
        await self.driver.execute(layout_statement(name, self.qbs.settings), *args)

    @_explains_layout
    async def _number(self, name: str, *args: object, flag: str = "") -> int:
        rows = await rows_of(self.driver, layout_statement(name, self.qbq.settings, flag), *args)
        return int(rows[0][0])

    # -- Schema -------------------------------------------------------------------------------

    async def install(self, create_schema: bool = True) -> None:
        """Create the tables and what belongs to them, and with *create_schema* their schema too.

        Raises:
            LayoutMismatchError: The tables of the other layout are there; nothing was created.
        """
        from pgq_fast.schema import manage

        await run_async(self.driver, manage.install(self.qbe.settings, create_schema))

    async def uninstall(self) -> None:
        """Drop everything that ``install`` creates, with all jobs.

        Raises:
            LayoutMismatchError: The tables of the other layout are there; nothing was dropped.
        """
        from pgq_fast.schema import manage

        await run_async(self.driver, manage.uninstall(self.qbe.settings))

    async def schema_is_installed(self) -> bool:
        """Whether anything of an installation is there, be it incomplete."""
        from pgq_fast.schema import manage

        return await run_async(self.driver, manage.schema_is_installed(self.qbe.settings))

    async def installed_layout(self) -> Layout | None:
        """The layout whose tables are there, whatever the settings ask for; None: there are none.

        Raises:
            LayoutMismatchError: Those of both are there: a migration is under way.
        """
        from pgq_fast.schema import layout as layouts

        return await run_async(self.driver, layouts.installed_layout(self.qbe.settings))

    async def require_layout(self) -> None:
        """See that the tables that are there, if any, are of the layout that the settings ask for.

        Raises:
            LayoutMismatchError: They are not.
        """
        from pgq_fast.schema import layout as layouts

        await run_async(self.driver, layouts.require_layout(self.qbe.settings))

    async def plan_upgrade(self) -> Plan:
        """What ``upgrade`` would do now."""
        from pgq_fast.schema import manage

        return await run_async(self.driver, manage.plan_upgrade(self.qbe.settings))

    @asynccontextmanager
    async def schema_lock(self) -> AsyncIterator[None]:
        """Keep others from upgrading this installation meanwhile.

        The lock belongs to a connection: over a pool it protects nothing.
        """
        from pgq_fast.schema import manage

        lock, unlock = manage.lock(self.qbe.settings), manage.unlock(self.qbe.settings)
        await self.driver.execute(lock.sql, *lock.args)
        try:
            yield
        finally:
            await self.driver.execute(unlock.sql, *unlock.args)

    async def apply_upgrade(self) -> Plan:
        """Bring an installation of any release up to date; what was done.

        Raises:
            SchemaDriftError: A column has a type that no release gave it.
            LayoutMismatchError: The tables of the other layout are there; nothing was changed.
        """
        from pgq_fast.schema import manage

        return await run_async(self.driver, manage.apply_upgrade(self.qbe.settings))

    async def upgrade(self) -> None:
        """As ``apply_upgrade``."""
        await self.apply_upgrade()

    async def verify(self, expect: Literal["present", "absent"] = "present") -> list[str]:
        """What is wrong with an installation, or left of one; empty if all is well.

        Args:
            expect: Whether there should be an installation.
        """
        from pgq_fast.schema import manage

        return await run_async(self.driver, manage.verify(self.qbe.settings, expect))

    async def migrate(
        self,
        to: Layout | Literal["compat", "lease"],
        *,
        batch_size: int = 10_000,
        patience: timedelta = timedelta(minutes=1),
        heartbeat_timeout: timedelta = timedelta(seconds=30),
        requeue_picked: bool = False,
        on_progress: Callable[[MigrationProgress], None] | None = None,
    ) -> MigrationReport:
        """Move the queue to other tables, while it is in use, with all jobs, log and statistics.

        Workers, producers and everybody else go on with the old layout until the switch at the end.
        Just before it no more jobs are claimed, and those that run are waited for. Behind it, who
        still has the old layout in the settings fails with ``LayoutMismatchError`` or an error of
        the server's: stop them, and start them again with the new one.

        If it fails, the queue stays where it was; jobs are claimed again at once, or soon after the
        process was killed. Call it again then. With the present layout it only removes what is left
        of a migration that was killed, or finishes what one had to do behind its switch.

        Several migrations of a queue take turns. Changes of the schema need a moment in which
        nobody has the tables locked, so an open transaction of a producer delays them, and a
        ``pg_dump`` too.

        Args:
            to: The layout to have. The settings of this object do not change.
            batch_size: Jobs that one statement copies.
            patience: How long at most no jobs are claimed while running ones come to an end, or
                locks are waited for.
            heartbeat_timeout: Silence after which a worker counts as dead; its jobs run again.
            requeue_picked: Whether after *patience* jobs are taken from the workers that still run
                them, which makes them run again, instead of giving up.
            on_progress: Called after each batch.

        Returns:
            What was done; nothing but clean-up where the queue had the layout already.

        Raises:
            MigrationBlockedError: Jobs did not end in time, or the tables were locked by others.
            MigrationRefusedError: There is no installation, it is not up to date, or something was
                added to its tables that would be lost.
            MigrationUnderWayError: Another migration did not end in time.
            MigrationLapsedError: This one was held up for too long.
            OpenTransactionError: The connection has a transaction open.
        """
        from pgq_fast.schema.migrate import migrate

        if isinstance(self.driver, RowDriver) and self.driver.in_transaction():
            raise OpenTransactionError("A migration")
        return await run_async(
            self.driver,
            migrate(
                self.qbe.settings,
                Layout(to),
                batch_size=batch_size,
                patience=patience,
                heartbeat_timeout=heartbeat_timeout,
                requeue_picked=requeue_picked,
                on_progress=on_progress,
            ),
        )

    async def alter_durability(self) -> None:
        """Give the installed tables the durability of the settings. Rewrites what changes."""
        from pgq_fast.schema import manage

        await run_async(self.driver, manage.alter_durability(self.qbe.settings))

    async def optimize_autovacuum(self) -> None:
        """Have autovacuum follow a busy queue."""
        from pgq_fast.schema import manage

        await run_async(self.driver, manage.optimize_autovacuum(self.qbe.settings))

    async def optimize_autovacuum_rollback(self) -> None:
        """Leave autovacuum to the server's settings again."""
        from pgq_fast.schema import manage

        await run_async(self.driver, manage.optimize_autovacuum_rollback(self.qbe.settings))

    async def first_missing(self) -> Requirement | None:
        """The first thing that a worker needs and this database does not have."""
        from pgq_fast.schema.required import first_missing

        return await run_async(self.driver, first_missing(self.qbe.settings))

    async def table_has_column(self, table: str, column: str) -> bool:
        """Whether *table* is there and has *column*."""
        from pgq_fast.schema import manage

        return await run_async(
            self.driver, manage.table_has_column(self.qbe.settings, table, column)
        )

    async def table_has_index(self, table: str, index: str) -> bool:
        """Whether *table* is there and has *index*."""
        from pgq_fast.schema import manage

        return await run_async(self.driver, manage.table_has_index(self.qbe.settings, table, index))

    async def has_user_defined_enum(self, key: str, enum: str) -> bool:
        """Whether the enum type *enum* is there and has the label *key*."""
        from pgq_fast.schema import manage

        return await run_async(
            self.driver, manage.has_user_defined_enum(self.qbe.settings, key, enum)
        )

    async def has_table(self, table: str) -> bool:
        """Whether *table* is there."""
        from pgq_fast.schema import manage

        return await run_async(self.driver, manage.has_table(self.qbe.settings, table))

    async def has_function(self, function: str) -> bool:
        """Whether *function* is there."""
        from pgq_fast.schema import manage

        return await run_async(self.driver, manage.has_function(self.qbe.settings, function))

    async def has_trigger(self, trigger: str) -> bool:
        """Whether *trigger* is there."""
        from pgq_fast.schema import manage

        return await run_async(self.driver, manage.has_trigger(self.qbe.settings, trigger))

    # -- Jobs ---------------------------------------------------------------------------------

    @_explains_layout
    async def dequeue(
        self,
        batch_size: int,
        entrypoints: dict[QueueEntrypoint, EntrypointExecutionParameter],
        queue_manager_id: QueueManagerId,
        global_concurrency_limit: int | None,
        heartbeat_timeout: timedelta,
    ) -> list[models.Job]:
        """Pick jobs: queued ones, and picked ones whose worker has fallen silent.

        Args:
            batch_size: How many at most; at least 1. Fewer where they have more than 450 MB in all.
            entrypoints: Of which entrypoints, with the limit of each.
            queue_manager_id: Who picks them; only this owner can end them.
            global_concurrency_limit: How many jobs the owner may hold in all; None: any number.
            heartbeat_timeout: Silence after which a worker counts as dead.

        Returns:
            The jobs, highest priority first, the oldest first within a priority.

        Raises:
            InvalidArgumentError: A ``ValueError``; *batch_size* is below 1, or something else is
                not what it should be.
            OpenTransactionError: The connection has a transaction open.
        """
        from pgq_fast.layouts import compat

        batch_size = arguments.integer("batch_size", batch_size, 1)
        heartbeat_timeout = arguments.span("heartbeat_timeout", heartbeat_timeout)
        if global_concurrency_limit is not None:
            global_concurrency_limit = arguments.integer(
                "global_concurrency_limit", global_concurrency_limit, -arguments.INT8_MAX
            )
        limits = {
            QueueEntrypoint(name): arguments.integer(
                "concurrency_limit",
                entrypoints[QueueEntrypoint(name)].concurrency_limit,
                -arguments.INT8_MAX,
            )
            for name in arguments.names("entrypoints", entrypoints)
        }
        settings = self.qbq.settings
        if settings.layout is Layout.lease:
            from pgq_fast.layouts.lease import LeaseLayout

            leases = LeaseLayout(self.driver, settings)
            # First, so that what comes back competes with the rest.
            await leases.rescue(heartbeat_timeout, list(limits))
            answer = await leases.claim(
                batch_size,
                limits,
                queue_manager_id,
                None,
                compat.DEQUEUE_BYTES,
                budget=global_concurrency_limit,
            )
            return answer.jobs
        claim = compat.claim_statement(
            self.qbq.settings,
            batch_size,
            compat.wanted(limits),
            queue_manager_id,
            heartbeat_timeout,
            compat.DEQUEUE_BYTES,
            budget=global_concurrency_limit,
        )
        layout = compat.CompatLayout(self.driver, self.qbq.settings)
        found = await layout.fetch_claim(claim, queue_manager_id)
        return [] if found is None else found.jobs

    @overload
    async def enqueue(
        self,
        entrypoint: str,
        payload: bytes | None,
        priority: int = 0,
        execute_after: timedelta | None = None,
        dedupe_key: str | None = None,
        headers: dict[str, str] | None = None,
        *,
        on_conflict: Literal["raise", "update_priority"] = "raise",
    ) -> list[types.JobId]: ...

    @overload
    async def enqueue(
        self,
        entrypoint: str,
        payload: bytes | None,
        priority: int = 0,
        execute_after: timedelta | None = None,
        dedupe_key: str | None = None,
        headers: dict[str, str] | None = None,
        *,
        on_conflict: Literal["skip"],
    ) -> list[types.JobId | None]: ...

    @overload
    async def enqueue(
        self,
        entrypoint: list[str],
        payload: list[bytes | None],
        priority: list[int],
        execute_after: list[timedelta | None] | None = None,
        dedupe_key: list[str | None] | None = None,
        headers: list[dict[str, str] | None] | None = None,
        *,
        on_conflict: Literal["raise", "update_priority"] = "raise",
    ) -> list[types.JobId]: ...

    @overload
    async def enqueue(
        self,
        entrypoint: list[str],
        payload: list[bytes | None],
        priority: list[int],
        execute_after: list[timedelta | None] | None = None,
        dedupe_key: list[str | None] | None = None,
        headers: list[dict[str, str] | None] | None = None,
        *,
        on_conflict: Literal["skip"],
    ) -> list[types.JobId | None]: ...

    async def enqueue(
        self,
        entrypoint: str | list[str],
        payload: bytes | None | list[bytes | None],
        priority: int | list[int] = 0,
        execute_after: timedelta | None | list[timedelta | None] = None,
        dedupe_key: str | list[str | None] | None = None,
        headers: dict[str, str] | list[dict[str, str] | None] | None = None,
        *,
        on_conflict: types.OnConflict = "raise",
    ) -> list[types.JobId] | list[types.JobId | None]:
        """Put one job into the queue, or with lists one a position.

        All of them or, where an error is raised, none. On a connection with an open transaction
        they become visible when the caller commits.

        Single jobs that are enqueued at the same time, outside of a transaction and without dedupe
        keys, go to the server in one statement. Each caller still gets the outcome of its own job,
        after the commit. One that is cancelled while it waits for the statement before takes its
        job along.

        Args:
            entrypoint: Which handler runs it.
            payload: Anything; the handler gets these bytes.
            priority: Higher runs first; 32 bits.
            execute_after: Time from now before which it does not run.
            dedupe_key: While a queued or running job has this key, no other one may.
            headers: Stored as JSON with the job.
            on_conflict: What a taken dedupe key does: ``raise`` refuses the whole call, ``skip``
                leaves that job out, ``update_priority`` raises the priority of the one there.

        Returns:
            An id for each position; with ``skip``, None where the job was left out.

        Raises:
            InvalidJobError: An argument cannot be a job's; nothing was sent.
            DuplicateJobError: A dedupe key is taken, under ``raise``.
            LayoutMismatchError: The queue has another layout than the settings ask for.
        """
        keys: list[str | None] = [None]
        try:
            if execute_after is None and dedupe_key is None and headers is None:
                job = enqueueing.plain_job(entrypoint, payload, priority)
                if job is not None and (self.tracer or tracing.TRACER.tracer) is None:
                    enqueueing.check_conflict_mode(on_conflict)
                    return [await self._producer().enqueue_single(job)]
            batch = _batch(
                entrypoint,
                payload,
                priority,
                execute_after,
                dedupe_key,
                headers,
                on_conflict,
                self.tracer,
            )
            keys = batch.dedupe_key
            return await self._producer().enqueue(batch, on_conflict)
        except Exception as error:
            if is_unique_violation(error):
                raise DuplicateJobError(keys) from error
            await self._raise_layout_mismatch(error)
            raise

    async def queued_work(self, entrypoints: list[QueueEntrypoint]) -> int:
        """1 if a job of *entrypoints* is queued, deferred or not; else 0."""
        return await self._number("queued_work", arguments.names("entrypoints", entrypoints))

    async def eligible_queued_work(self, entrypoints: list[QueueEntrypoint]) -> int:
        """1 if a job of *entrypoints* is queued and due; else 0."""
        return await self._number(
            "queued_work", arguments.names("entrypoints", entrypoints), flag="eligible"
        )

    @_explains_layout
    async def clear_queue(self, entrypoint: str | list[str] | None = None) -> None:
        """Delete the jobs of *entrypoint*, logged as deleted; without one, all, unlogged."""
        if entrypoint:
            await self._jobs().clear(_names(entrypoint))
        else:
            await self._queue("truncate_queue")

    @_explains_layout
    async def mark_job_as_cancelled(self, ids: list[types.JobId]) -> None:
        """Take *ids* out of the queue, logged as canceled, and tell the workers that run them."""
        await self._jobs().cancel(_job_ids(ids))
        await self.notify_job_cancellation(ids)

    async def queue_size(self) -> list[models.QueueStatistics]:
        """Number of jobs by entrypoint, priority and status. Reads the whole queue."""
        return await self._models(models.QueueStatistics, "queue_size", self.qbq.settings)

    @_explains_layout
    async def log_jobs(
        self,
        job_status: list[tuple[models.Job, types.JOB_STATUS, models.TracebackRecord | None]],
    ) -> None:
        """End jobs: ``failed`` holds them in the queue, any other status takes them out.

        A job that has another owner by now than the :class:`Job` says stays as it is.
        """
        if job_status:
            arguments.statuses("job_status", [status for _, status, _ in job_status])
            await self._jobs().end([Outcome(*item) for item in job_status])

    @_explains_layout
    async def retry_job(
        self,
        job: models.Job,
        delay: timedelta,
        traceback_record: models.TracebackRecord | None,
    ) -> None:
        """Queue *job* again to run after *delay*, ``attempts`` one higher.

        A job that has another owner by now than *job* says stays as it is.
        """
        await self._jobs().retry(Retry(job, arguments.delay("delay", delay), traceback_record))

    @_explains_layout
    async def requeue_jobs(self, ids: list[types.JobId]) -> None:
        """Queue held jobs again, to run now, as if never tried; other jobs stay as they are."""
        await self._jobs().requeue(_job_ids(ids))

    async def list_failed_jobs(
        self, limit: int = 100, order: types.SortOrder = "DESC"
    ) -> list[models.Job]:
        """Held jobs by the time at which they were enqueued."""
        if order not in ("ASC", "DESC"):
            raise ValueError(f"order is {order!r}, must be 'ASC' or 'DESC'")
        return await self._models(
            models.Job,
            "list_failed_jobs",
            self.qbq.settings,
            arguments.row_limit(limit),
            flag="descending" if order == "DESC" else "ascending",
        )

    async def update_heartbeat(self, job_ids: list[types.JobId]) -> None:
        """Vouch for *job_ids*, whoever holds them."""
        await self._queue("update_heartbeat", _ids(set(job_ids), "job_ids"))

    @_explains_layout
    async def next_deferred_eta(self, entrypoints: list[QueueEntrypoint]) -> timedelta | None:
        """Time until the next deferred job of *entrypoints* is due; None: there is none."""
        rows = await rows_of(
            self.driver,
            layout_statement("next_deferred_eta", self.qbq.settings),
            arguments.names("entrypoints", entrypoints),
        )
        return rows[0][0] if rows else None

    # -- Log and statistics -------------------------------------------------------------------

    async def clear_statistics_log(self, entrypoint: str | list[str] | None = None) -> None:
        """Delete the statistics of *entrypoint*; without one, all."""
        if entrypoint:
            await self._queue("clear_statistics", _names(entrypoint))
        else:
            await self._queue("truncate_statistics")

    async def clear_queue_log(self, entrypoint: str | list[str] | None = None) -> None:
        """Delete the log of *entrypoint*; without one, all."""
        if entrypoint:
            await self._queue("clear_log", _names(entrypoint))
        else:
            await self._queue("truncate_log")

    async def aggregate_logs(self) -> None:
        """Count new log entries into the statistics, unless another worker is doing it."""
        await self._aggregate("locked")

    @_explains_layout
    async def _aggregate(self, flag: str) -> None:
        await self._jobs().aggregate(flag)

    async def log_statistics(
        self, limit: int | None, last: timedelta | None = None
    ) -> list[models.LogStatistics]:
        """Statistics, up to date, newest first: *limit* rows of the time *last*, None for all."""
        rows, since = arguments.row_limit(limit), _since(last)
        await self._aggregate("unlocked")
        return await self._models(
            models.LogStatistics, "log_statistics", self.qbq.settings, rows, since
        )

    async def queue_log(self) -> list[models.Log]:
        """The whole log."""
        return await self._models(models.Log, "queue_log", self.qbq.settings)

    @_explains_layout
    async def job_status(
        self, ids: list[types.JobId]
    ) -> list[tuple[types.JobId, types.JOB_STATUS]]:
        """The latest status of each of *ids* that the log knows."""
        rows = await rows_of(
            self.driver, layout_statement("job_status", self.qbq.settings), _ids(ids)
        )
        return [(job_id, status) for job_id, status in rows]

    async def job_log_history(self, id: types.JobId, limit: int = 100) -> list[models.Log]:
        """What happened to a job, oldest first."""
        return await self._models(
            models.Log,
            "job_log_history",
            self.qbq.settings,
            arguments.identity("id", id),
            arguments.row_limit(limit),
        )

    async def exception_logs(self, limit: int = 100) -> list[models.Log]:
        """The latest failures, with their tracebacks."""
        return await self._models(
            models.Log, "exception_logs", self.qbq.settings, arguments.row_limit(limit)
        )

    async def unaggregated_log_count(self) -> int:
        """Number of log entries that no statistics contain yet."""
        return await self._number("unaggregated_log_count")

    async def prune_log(
        self,
        older_than: timedelta,
        *,
        batch_size: int = 10_000,
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """Delete what the log says of more than *older_than* ago; how many entries that was.

        The statistics keep it: what they do not count yet is counted first. Nothing is deleted
        without this call.

        Args:
            older_than: Age of the entries; on the lease layout, of the end of a batch.
            batch_size: Rows that are deleted at a time, each time in a transaction of its own.
            on_progress: Called after each batch with how many entries have been deleted so far.

        Raises:
            InvalidArgumentError: A ``ValueError``; *batch_size* is below 1, or *older_than*
                negative.
        """
        age, rows = arguments.pruning(older_than, batch_size)
        cutoff = await self._cutoff(age)
        await self._aggregate("unlocked")
        removed = 0
        for part in self._jobs().log_parts():
            removed = await self._prune(part, cutoff, rows, None, on_progress, removed)
        return removed

    async def prune_statistics(
        self,
        older_than: timedelta,
        *,
        batch_size: int = 10_000,
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """Delete the statistics of more than *older_than* ago; how many rows that was.

        Args:
            older_than: Age of the counts.
            batch_size: Rows that are looked at at a time, each time in a transaction of its own.
            on_progress: Called after each batch with how many rows have been deleted so far.

        Raises:
            InvalidArgumentError: A ``ValueError``; *batch_size* is below 1, or *older_than*
                negative.
        """
        age, rows = arguments.pruning(older_than, batch_size)
        cutoff = await self._cutoff(age)
        return await self._prune("prune_statistics", cutoff, rows, 0, on_progress)

    async def _cutoff(self, older_than: timedelta) -> object:
        """The instant before which to prune: one for all batches, or they would never end."""
        (row,) = await self.driver.fetch(layout_statement("cutoff", self.qbq.settings), older_than)
        return row["cutoff"]

    @_explains_layout
    async def _prune(
        self,
        name: str,
        cutoff: object,
        batch_size: int,
        start: object,
        on_progress: Callable[[int], None] | None,
        removed: int = 0,
    ) -> int:
        """Run a statement for batch after batch, each from where the one before ended.

        What it removes is counted on from *removed*.
        """
        query = layout_statement(name, self.qbq.settings)
        while True:
            (row,) = await self.driver.fetch(query, cutoff, batch_size, start)
            removed += cast("int", row["removed"])
            if on_progress is not None:
                on_progress(removed)
            if cast("int", row["seen"]) < batch_size:
                return removed
            start = row["reached"]

    # -- Messages to workers ------------------------------------------------------------------

    async def notify_job_cancellation(self, ids: list[types.JobId]) -> None:
        """Ask the workers that run *ids* to cancel them, in as many messages as it takes."""
        channel = types.Channel(self.qbq.settings.channel)
        for message in messages.cancellations(channel, arguments.identities("ids", ids)):
            await self.driver.notify(channel, message)

    async def notify_health_check(self, health_check_event_id: HealthCheckId) -> None:
        """Send the message by which a worker sees that it hears."""
        channel = types.Channel(self.qbq.settings.channel)
        await self.driver.notify(channel, messages.health_check(channel, health_check_event_id))

    @_explains_layout
    async def watch_ends(
        self, watcher: uuid.UUID, for_: timedelta, since: int | None = None
    ) -> int | None:
        """Have the ends of jobs notified on the channel for the time *for_* from now.

        The lease layout notifies of ends only while somebody wants to know; pgqueuer's tables
        always do, and there this does nothing.

        Args:
            watcher: Any id; the same one again prolongs the time.
            for_: So long from now. The server forgets it in a crash: prolong it often.
            since: What the call before returned.

        Returns:
            None: every end is notified from now on. Else some that are under way may still go by in
            silence: look at the jobs, and call again soon, with this number. The first call of a
            watcher returns None only where there is nothing to prolong.
        """
        return await self._jobs().watch_ends(watcher, arguments.delay("for_", for_), since)

    @_explains_layout
    async def unwatch_ends(self, watcher: uuid.UUID) -> None:
        """Take :meth:`watch_ends` back."""
        await self._jobs().unwatch_ends(watcher)

    # -- Schedules ----------------------------------------------------------------------------

    async def insert_schedule(
        self, schedules: dict[models.CronExpressionEntrypoint, timedelta]
    ) -> None:
        """Make *schedules* known, each to run first after its delay; known ones stay."""
        await self._schedule("insert_schedule", *_schedule_columns(schedules))

    async def fetch_schedule(
        self, entrypoints: dict[models.CronExpressionEntrypoint, timedelta]
    ) -> list[models.Schedule]:
        """Pick those of *entrypoints* that are due; their next run is the given delay from now."""
        return await self._models(
            models.Schedule,
            "fetch_schedule",
            self.qbs.settings,
            *_schedule_columns(entrypoints),
        )

    async def set_schedule_queued(self, ids: set[types.ScheduleId]) -> None:
        """Give picked schedules back; their run is over."""
        await self._schedule("set_schedule_queued", _ids(ids))

    async def update_schedule_heartbeat(self, ids: set[types.ScheduleId]) -> None:
        """Say that the runs of *ids* are going on."""
        await self._schedule("update_schedule_heartbeat", _ids(ids))

    async def peek_schedule(self) -> list[models.Schedule]:
        """All schedules, the one that ran longest ago first."""
        return await self._models(models.Schedule, "peek_schedule", self.qbs.settings)

    async def delete_schedule(
        self, ids: set[types.ScheduleId], entrypoints: set[CronEntrypoint]
    ) -> None:
        """Delete schedules by id or entrypoint."""
        await self._schedule(
            "delete_schedule", _ids(ids), arguments.names("entrypoints", entrypoints)
        )

    async def clear_schedule(self) -> None:
        """Delete all schedules."""
        await self._schedule("truncate_schedule")

    # -- Insight ------------------------------------------------------------------------------

    async def queue_age(self) -> list[models.QueueAgeStats]:
        """How long the queued jobs of each entrypoint have waited."""
        return await self._models(models.QueueAgeStats, "queue_age", self.qbq.settings)

    async def job_duration_percentiles(self, last: timedelta) -> list[models.JobDurationStats]:
        """Run times of the jobs that ended within *last*, by entrypoint, slowest first."""
        return await self._models(
            models.JobDurationStats,
            "job_duration_percentiles",
            self.qbq.settings,
            arguments.span("last", last),
        )

    async def throughput_summary(
        self, last: timedelta | None = None
    ) -> list[models.ThroughputStats]:
        """Jobs by entrypoint and status, up to date, within *last* or ever."""
        since = _since(last)
        await self._aggregate("unlocked")
        return await self._models(
            models.ThroughputStats, "throughput_summary", self.qbq.settings, since
        )

    async def throughput_timeseries(self, last: timedelta) -> list[models.ThroughputBucket]:
        """Jobs by minute, entrypoint and status, up to date, within *last*."""
        since = arguments.span("last", last)
        await self._aggregate("unlocked")
        return await self._models(
            models.ThroughputBucket, "throughput_timeseries", self.qbq.settings, since
        )

    async def active_workers(self) -> list[models.ActiveWorker]:
        """Workers that hold picked jobs."""
        return await self._models(models.ActiveWorker, "active_workers", self.qbq.settings)

    async def stale_jobs(self, threshold: timedelta, limit: int = 100) -> list[models.StaleJob]:
        """Picked jobs without a heartbeat for *threshold*, the longest silent first."""
        return await self._models(
            models.StaleJob,
            "stale_jobs",
            self.qbq.settings,
            arguments.span("threshold", threshold),
            arguments.row_limit(limit),
        )

    async def browse_queue(
        self,
        limit: int = 50,
        offset: int = 0,
        statuses: list[types.JOB_STATUS] | None = None,
        entrypoints: list[str] | None = None,
    ) -> list[models.Job]:
        """A page of the queue in the order of claims, of some statuses and entrypoints or all."""
        return await self._models(
            models.Job,
            "browse_queue",
            self.qbq.settings,
            arguments.row_limit(limit),
            arguments.integer("offset", offset, 0),
            arguments.statuses("statuses", statuses) if statuses else None,
            arguments.names("entrypoints", entrypoints) if entrypoints else None,
        )

    async def queue_job_by_id(self, id: types.JobId) -> models.Job | None:
        """A job that is in the queue, else None."""
        jobs = await self._models(
            models.Job, "queue_job_by_id", self.qbq.settings, arguments.identity("id", id)
        )
        return jobs[0] if jobs else None

    async def schema_info(self) -> list[models.TableInfo]:
        """Size and persistence of the queue's tables."""
        return await self._models(
            models.TableInfo, "schema_info", self.qbq.settings, self._jobs().tables()
        )


def _since(last: timedelta | None) -> timedelta | None:
    return None if last is None else arguments.span("last", last)


def _schedule_columns(
    schedules: dict[models.CronExpressionEntrypoint, timedelta],
) -> tuple[list[str], list[str], list[timedelta]]:
    arguments.schedules(schedules)
    return (
        [key.expression for key in schedules],
        [key.entrypoint for key in schedules],
        list(schedules.values()),
    )


@dataclasses.dataclass
class SyncQueries:
    """The producer's part of the queue, and its schema, over a blocking driver.

    Attributes:
        driver: Any object with the methods of :class:`~pgq_fast.db.SyncDriver`.
        qbq: Settings of the queue.
        tracer: Used instead of the tracer of the process.
    """

    driver: SyncDriver
    qbq: QueryQueueBuilder = dataclasses.field(default_factory=QueryQueueBuilder)
    tracer: TracingProtocol | None = None

    def install(self, create_schema: bool = True) -> None:
        """As :meth:`Queries.install`."""
        from pgq_fast.schema import manage

        run_sync(self.driver, manage.install(self.qbq.settings, create_schema))

    def uninstall(self) -> None:
        """As :meth:`Queries.uninstall`."""
        from pgq_fast.schema import manage

        run_sync(self.driver, manage.uninstall(self.qbq.settings))

    def upgrade(self) -> None:
        """As :meth:`Queries.upgrade`."""
        from pgq_fast.schema import manage

        run_sync(self.driver, manage.apply_upgrade(self.qbq.settings))

    def verify(self, expect: Literal["present", "absent"] = "present") -> list[str]:
        """As :meth:`Queries.verify`."""
        from pgq_fast.schema import manage

        return run_sync(self.driver, manage.verify(self.qbq.settings, expect))

    def installed_layout(self) -> Layout | None:
        """As :meth:`Queries.installed_layout`."""
        from pgq_fast.schema import layout as layouts

        return run_sync(self.driver, layouts.installed_layout(self.qbq.settings))

    def _raise_layout_mismatch(self, error: Exception) -> None:
        from pgq_fast.schema import layout as layouts

        mismatch = layouts.mismatch_behind_sync(error, self.driver, self.qbq.settings)
        if mismatch is not None:
            raise mismatch from error

    @overload
    def enqueue(
        self,
        entrypoint: str,
        payload: bytes | None,
        priority: int = 0,
        execute_after: timedelta | None = None,
        dedupe_key: str | None = None,
        headers: dict[str, str] | None = None,
        *,
        on_conflict: Literal["raise", "update_priority"] = "raise",
    ) -> list[types.JobId]: ...

    @overload
    def enqueue(
        self,
        entrypoint: str,
        payload: bytes | None,
        priority: int = 0,
        execute_after: timedelta | None = None,
        dedupe_key: str | None = None,
        headers: dict[str, str] | None = None,
        *,
        on_conflict: Literal["skip"],
    ) -> list[types.JobId | None]: ...

    @overload
    def enqueue(
        self,
        entrypoint: list[str],
        payload: list[bytes | None],
        priority: list[int],
        execute_after: list[timedelta | None] | None = None,
        dedupe_key: list[str | None] | None = None,
        headers: list[dict[str, str] | None] | None = None,
        *,
        on_conflict: Literal["raise", "update_priority"] = "raise",
    ) -> list[types.JobId]: ...

    @overload
    def enqueue(
        self,
        entrypoint: list[str],
        payload: list[bytes | None],
        priority: list[int],
        execute_after: list[timedelta | None] | None = None,
        dedupe_key: list[str | None] | None = None,
        headers: list[dict[str, str] | None] | None = None,
        *,
        on_conflict: Literal["skip"],
    ) -> list[types.JobId | None]: ...

    def enqueue(
        self,
        entrypoint: str | list[str],
        payload: bytes | None | list[bytes | None],
        priority: int | list[int] = 0,
        execute_after: timedelta | None | list[timedelta | None] = None,
        dedupe_key: str | list[str | None] | None = None,
        headers: dict[str, str] | list[dict[str, str] | None] | None = None,
        *,
        on_conflict: types.OnConflict = "raise",
    ) -> list[types.JobId] | list[types.JobId | None]:
        """Put one job into the queue, or with lists one a position.

        Arguments, result and errors are those of :meth:`Queries.enqueue`.
        """
        batch = _batch(
            entrypoint,
            payload,
            priority,
            execute_after,
            dedupe_key,
            headers,
            on_conflict,
            self.tracer,
        )
        try:
            return enqueue_sync(self.driver, self.qbq.settings, batch, on_conflict)
        except Exception as error:
            if is_unique_violation(error):
                raise DuplicateJobError(batch.dedupe_key) from error
            self._raise_layout_mismatch(error)
            raise

    def queue_size(self) -> list[models.QueueStatistics]:
        """Number of jobs by entrypoint, priority and status. Reads the whole queue."""
        try:
            rows = self.driver.fetch(layout_statement("queue_size", self.qbq.settings))
        except Exception as error:
            self._raise_layout_mismatch(error)
            raise
        return [models.QueueStatistics.model_validate(row) for row in rows]
