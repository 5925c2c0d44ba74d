"""``QueueManager``: the registry of handlers, and the worker that runs them."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncGenerator, Callable, MutableMapping
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, get_args

from pgq_fast import arguments, executors, models, tracing, types
from pgq_fast.builders import default_settings
from pgq_fast.drivers.pooling import poll_interval_of
from pgq_fast.errors import EnqueueOnlyDriverError, FailingListenerError
from pgq_fast.logconfig import logger
from pgq_fast.observer import WorkerObserver
from pgq_fast.repository import EntrypointExecutionParameter, RepositoryPort
from pgq_fast.worker.context import JobContexts
from pgq_fast.worker.pace import BYTES_IN_FLIGHT, CLAIM_BYTES, HELD_WORK, JOBS_IN_FLIGHT

if TYPE_CHECKING:
    from pgq_fast.schema.required import Requirement

__all__ = ["QueueManager"]


class OutcomeSink(Protocol):
    """Takes how a job ended."""

    async def add(
        self, item: tuple[models.Job, types.JOB_STATUS, models.TracebackRecord | None]
    ) -> None: ...


def reject_enqueue_only(driver: object) -> None:
    """Refuse a driver that cannot run jobs.

    Raises:
        EnqueueOnlyDriverError: *driver* is a blocking one.
    """
    if not hasattr(driver, "add_listener"):
        raise EnqueueOnlyDriverError(driver)


@dataclasses.dataclass
class QueueManager:
    """Claims jobs and runs the handlers registered for them.

    Attributes:
        queries: The queue.
        channel: Where the queue's notifications arrive.
        resources: Given to every job in its context.
        tracer: Used instead of the tracer of the process.
        observer: Told what the worker does, from the next ``run`` on.
        shutdown: Set it to stop the worker; started jobs end first.
        entrypoint_registry: Executors by entrypoint.
        queue_manager_id: Who this worker is, in the queue table.
        job_context: Contexts of the jobs that are running here.
        pending_health_check: Messages to itself that the worker waits for.
        jobs_logged: Jobs run since the log was last aggregated.
        min_dequeue_poll_interval: Shortest pause before a look at a queue in which a job is due
            that could not be claimed.
        held_work: Jobs that are claimed and not started yet, in time that it takes to start them:
            what the size of a batch is tuned to.
        claim_bytes: Payloads and headers that are claimed at a time; one job is always claimed.
        max_jobs_in_flight: Jobs that run here at a time where ``max_concurrent_tasks`` is not
            given. It bounds the memory for handlers that wait.
        max_bytes_in_flight: Payloads of waiting handlers from which no more jobs are claimed.
    """

    queries: RepositoryPort
    channel: types.Channel = dataclasses.field(
        default_factory=lambda: types.Channel(default_settings().channel)
    )
    shutdown: asyncio.Event = dataclasses.field(init=False, default_factory=asyncio.Event)
    entrypoint_registry: dict[types.QueueEntrypoint, executors.AbstractEntrypointExecutor] = (
        dataclasses.field(init=False, default_factory=dict)
    )
    queue_manager_id: types.QueueManagerId = dataclasses.field(
        init=False, default_factory=lambda: types.QueueManagerId(uuid.uuid4())
    )
    resources: MutableMapping[str, object] = dataclasses.field(default_factory=dict)
    tracer: tracing.TracingProtocol | None = None
    observer: WorkerObserver | None = dataclasses.field(init=False, default=None)
    job_context: JobContexts = dataclasses.field(init=False, default_factory=JobContexts)
    pending_health_check: dict[types.HealthCheckId, asyncio.Future[models.HealthCheckEvent]] = (
        dataclasses.field(init=False, default_factory=dict)
    )
    jobs_logged: int = dataclasses.field(init=False, default=0)
    min_dequeue_poll_interval: timedelta = dataclasses.field(
        init=False, default=timedelta(milliseconds=100)
    )
    held_work: timedelta = dataclasses.field(init=False, default=HELD_WORK)
    claim_bytes: int = dataclasses.field(init=False, default=CLAIM_BYTES)
    max_jobs_in_flight: int = dataclasses.field(init=False, default=JOBS_IN_FLIGHT)
    max_bytes_in_flight: int = dataclasses.field(init=False, default=BYTES_IN_FLIGHT)

    def __post_init__(self) -> None:
        reject_enqueue_only(self.queries.driver)

    # -- Handlers -----------------------------------------------------------------------------

    def register_executor(self, name: str, executor: executors.AbstractEntrypointExecutor) -> None:
        """Have *executor* run the jobs of entrypoint *name*.

        Raises:
            RuntimeError: The name is taken.
            InvalidArgumentError: A ``ValueError``; no job can have the name.
        """
        self._require_free(name)
        self.entrypoint_registry[types.QueueEntrypoint(name)] = executor

    def _require_free(self, name: str) -> None:
        arguments.text("name", name)
        if name in self.entrypoint_registry:
            raise RuntimeError(f"{name} already in registry: an entrypoint has one handler")

    def entrypoint(
        self,
        name: str,
        *,
        concurrency_limit: int = 0,
        accepts_context: bool | None = None,
        on_failure: types.OnFailure = "delete",
        executor_factory: Callable[
            [executors.EntrypointExecutorParameters], executors.AbstractEntrypointExecutor
        ]
        | None = None,
    ) -> Callable[[executors.EntrypointTypeVar], executors.EntrypointTypeVar]:
        """Register the decorated async function as the handler of entrypoint *name*.

        Args:
            name: As producers call it.
            concurrency_limit: How many of its jobs may run at a time, over all workers; 0 for any
                number. All workers must give the same limit.
            accepts_context: Whether the handler takes a :class:`~pgq_fast.models.Context` too;
                None: it does if a parameter is annotated so.
            on_failure: What a failed job becomes: deleted, or held for requeueing.
            executor_factory: Makes the executor; :class:`~pgq_fast.executors.EntrypointExecutor`
                by default.

        Raises:
            RuntimeError: The name is taken.
            ValueError: An argument is out of its range.
        """
        self._require_free(name)
        if isinstance(concurrency_limit, bool) or not isinstance(concurrency_limit, int):
            raise ValueError(
                f"concurrency_limit is a {type(concurrency_limit).__name__}, must be an int"
            )
        if concurrency_limit < 0:
            raise ValueError(f"concurrency_limit is {concurrency_limit}, must be at least 0")
        if accepts_context is not None and not isinstance(accepts_context, bool):
            raise ValueError("accepts_context must be True, False or None")
        if on_failure not in get_args(types.OnFailure):
            raise ValueError(f"on_failure is {on_failure!r}, must be 'delete' or 'hold'")
        factory = executor_factory or executors.EntrypointExecutor

        def register(func: executors.EntrypointTypeVar) -> executors.EntrypointTypeVar:
            wants_context = accepts_context
            if wants_context is None:
                wants_context = executors.wants_context(func, models.Context)
            parameters = executors.EntrypointExecutorParameters(
                concurrency_limit=concurrency_limit,
                func=func,
                accepts_context=wants_context,
                on_failure=on_failure,
            )
            self.register_executor(name, factory(parameters))
            return func

        return register

    def entrypoints_below_capacity_limits(self) -> set[types.QueueEntrypoint]:
        """The entrypoints to claim from: all, since the claim itself applies their limits."""
        return set(self.entrypoint_registry)

    # -- Running jobs -------------------------------------------------------------------------

    def get_context(self, job_id: types.JobId) -> models.Context:
        """The context of a job that is running here.

        Raises:
            KeyError: It is not.
        """
        return self.job_context[job_id]

    def forget_job(
        self, job_id: types.JobId, context: models.Context, task: asyncio.Task[None]
    ) -> None:
        """Drop *context* when its job is over; a later run of the same job has another one."""
        if self.job_context.get(job_id) is context:
            del self.job_context[job_id]

    async def log_failure(
        self,
        job: models.Job,
        executor: executors.AbstractEntrypointExecutor,
        exc: Exception,
        jbuff: OutcomeSink,
    ) -> None:
        """Report that *job* ended with *exc*: to the log of the process, and to *jbuff*."""
        logger.error(
            "Exception while processing entrypoint/job-id: %s/%s",
            job.entrypoint,
            job.id,
            exc_info=exc,
            extra={
                "job_id": job.id,
                "entrypoint": job.entrypoint,
                "attempts": job.attempts,
                "queue_manager_id": str(self.queue_manager_id),
            },
        )
        record = models.TracebackRecord.from_exception(
            exc,
            job.id,
            {"entrypoint": job.entrypoint, "queue_manager_id": self.queue_manager_id},
        )
        held = executor.parameters.on_failure == "hold"
        await jbuff.add((job, "failed" if held else "exception", record))

    def take_jobs_logged(self) -> int:
        """``jobs_logged``, which starts at 0 again."""
        count, self.jobs_logged = self.jobs_logged, 0
        return count

    def put_back_jobs_logged(self, count: int) -> None:
        """Undo ``take_jobs_logged``."""
        self.jobs_logged += count

    async def fetch_jobs(
        self,
        batch_size: int,
        global_concurrency_limit: int | None,
        heartbeat_timeout: timedelta,
    ) -> AsyncGenerator[models.Job, None]:
        """Pick jobs batch by batch and yield them, until none is found or at shutdown."""
        while not self.shutdown.is_set():
            jobs = await self.queries.dequeue(
                batch_size=batch_size,
                entrypoints={
                    name: EntrypointExecutionParameter(
                        self.entrypoint_registry[name].parameters.concurrency_limit
                    )
                    for name in self.entrypoints_below_capacity_limits()
                },
                queue_manager_id=self.queue_manager_id,
                global_concurrency_limit=global_concurrency_limit,
                heartbeat_timeout=heartbeat_timeout,
            )
            if not jobs:
                return
            for job in jobs:
                yield job

    # -- Checks -------------------------------------------------------------------------------

    async def listener_healthy(
        self, timeout: timedelta = timedelta(seconds=10)
    ) -> models.HealthCheckEvent:
        """Send a notification to this worker and wait for it.

        Raises:
            FailingListenerError: It did not arrive within *timeout*, or nothing listens.
        """
        interval = poll_interval_of(self.queries.driver)
        if interval is not None:
            raise FailingListenerError(
                f"nothing listens on channel {self.channel}: the driver is behind a pooler, and "
                f"the worker polls every {interval}. Set listen_dsn, or give the driver listen_on"
            )
        token = types.HealthCheckId(uuid.uuid4())
        arrival: asyncio.Future[models.HealthCheckEvent] = (
            asyncio.get_running_loop().create_future()
        )
        self.pending_health_check[token] = arrival
        try:
            await self.queries.notify_health_check(token)
            async with asyncio.timeout(timeout.total_seconds()):
                return await arrival
        except TimeoutError:
            raise FailingListenerError(
                f"a notification on channel {self.channel} did not come back within {timeout}: "
                "see whether the connection can LISTEN, which a pooler in transaction mode cannot"
            ) from None
        finally:
            del self.pending_health_check[token]

    async def verify_structure(self) -> None:
        """See that the tables are there, of the layout of the settings, and recent enough.

        Raises:
            LayoutMismatchError: They are of the other layout.
            RuntimeError: They are not there, or not recent enough; the message says what is missing
                and what to run.
        """
        # Other repositories have no layouts.
        require_layout = getattr(self.queries, "require_layout", None)
        if require_layout is not None:
            await require_layout()
        missing = await self._first_missing()
        if missing is not None:
            raise RuntimeError(missing.problem)

    async def _first_missing(self) -> Requirement | None:
        """The first thing that the worker needs and does not find."""
        from pgq_fast.schema.required import required

        # Of a repository that offers it, one statement instead of one for each.
        at_once = getattr(self.queries, "first_missing", None)
        if at_once is not None:
            missing: Requirement | None = await at_once()
            return missing
        for each in required(self.queries.qbe.settings):
            match each.kind:
                case "table":
                    there = await self.queries.has_table(each.owner)
                case "column":
                    there = await self.queries.table_has_column(each.owner, each.name)
                case "index":
                    there = await self.queries.table_has_index(each.owner, each.name)
                case "label":
                    there = await self.queries.has_user_defined_enum(each.name, each.owner)
            if not there:
                return each
        return None

    # -- Run ----------------------------------------------------------------------------------

    async def run(
        self,
        dequeue_timeout: timedelta = timedelta(seconds=30),
        batch_size: int | None = None,
        mode: types.QueueExecutionMode = types.QueueExecutionMode.continuous,
        max_concurrent_tasks: int | None = None,
        shutdown_on_listener_failure: bool = False,
        heartbeat_timeout: timedelta = timedelta(seconds=30),
        log_aggregation_interval: timedelta = timedelta(seconds=30),
    ) -> None:
        """Run jobs until ``shutdown`` is set or, in drain mode, until the queue is empty.

        At the end, started jobs finish, their outcomes are sent, and jobs that were claimed and not
        started go back to the queue. Cancelling the call does the same; cancelling it again cancels
        the jobs, which go back too.

        Args:
            dequeue_timeout: Longest time without a look at the queue.
            batch_size: Jobs claimed at a time; None: as many as suit the handlers, see
                ``held_work``.
            mode: Whether an empty queue ends the run.
            max_concurrent_tasks: Most jobs that run here at a time; None or 0 for any number.
            shutdown_on_listener_failure: Whether to stop when notifications do not arrive.
            heartbeat_timeout: Silence after which a worker counts as dead and its jobs are run by
                others.
            log_aggregation_interval: Time between updates of the statistics; zero for none.

        Raises:
            RuntimeError: The tables are missing or too old, or *max_concurrent_tasks* is less than
                twice the *batch_size*.
            FailingListenerError: Under *shutdown_on_listener_failure*, when that is why it ended.
            OpenTransactionError: The connection has a transaction open.
        """
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, must be at least 1")
        most = max_concurrent_tasks or None
        if most is not None and batch_size is not None and most < 2 * batch_size:
            raise RuntimeError(
                f"max_concurrent_tasks must be at least twice the batch size: {most} is less than "
                f"2 * {batch_size}"
            )
        # Not for producers, which import this module as well.
        from pgq_fast.worker.loop import Worker

        await self.verify_structure()
        async with self.queries.driver:
            await Worker(
                self,
                dequeue_timeout=dequeue_timeout,
                batch_size=batch_size,
                mode=mode,
                max_concurrent_tasks=most,
                shutdown_on_listener_failure=shutdown_on_listener_failure,
                heartbeat_timeout=heartbeat_timeout,
                log_aggregation_interval=log_aggregation_interval,
            ).run()
