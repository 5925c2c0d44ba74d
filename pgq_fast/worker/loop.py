"""A worker's run: claim jobs, start them, and at the end leave nothing behind.

States of a job that this worker has claimed:

    claimed -> started -> ended -> acknowledged
       |          |
       +----------+--> released (given back, as it was before the claim)

Started jobs are in ``manager.job_context``; ended ones that the server may not know of are with
the :class:`~pgq_fast.worker.acks.Acknowledger`; what is in neither and still picked by this worker
on the server is released when the run ends, or after a claim whose answer got lost.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from pgq_fast import models, tracing
from pgq_fast._impl import notify
from pgq_fast.drivers.base import ListenerRemover
from pgq_fast.drivers.failures import is_connection_lost
from pgq_fast.drivers.listeners import ReconnectNotifier
from pgq_fast.drivers.pooling import poll_interval_of
from pgq_fast.errors import MalformedRowError, retry_request
from pgq_fast.executors import EntrypointExecutor
from pgq_fast.layouts.base import Claim, Outcome, Rejected, Retry
from pgq_fast.logconfig import logger
from pgq_fast.tasks import cancel_and_wait, wait_for_event
from pgq_fast.types import JobId, QueueEntrypoint, QueueExecutionMode
from pgq_fast.worker import upkeep
from pgq_fast.worker.acks import Acknowledger
from pgq_fast.worker.context import JobContext
from pgq_fast.worker.port import worker_layout

if TYPE_CHECKING:
    from pgq_fast.qm import QueueManager

DISPATCH_SLICE: Final = 0.005
"""Seconds that jobs are started in a row before timers and other tasks get their turn."""

CLAIM_AHEAD_FROM: Final = 50
"""Batch size from which the next claim is under way while a batch is started. Starting a smaller
one takes less than the claim's turn on the loop."""

LISTENER_CHECK: Final = timedelta(seconds=10)
"""Between two looks at whether notifications arrive, and how long one may take."""

RECONNECT_PAUSE: Final = 0.2
"""Seconds before the next claim after a lost connection; the driver has a backoff of its own."""

STARTS_A_TURN: Final = 10
"""Jobs started per turn of the loop before Python 3.12, where a task does not run when it is made:
the slice cannot be measured until it is too late."""

RENEWALS: Final = 4
"""Heartbeats within a heartbeat timeout for claimed jobs that wait to be started."""

RESCUES: Final = 4
"""Claims within a heartbeat timeout that also look for stale jobs while the queue is full. A worker
with nothing better to do looks every time."""

_EAGER: Final = sys.version_info >= (3, 12)


class Worker:
    """One call of ``QueueManager.run``."""

    def __init__(
        self,
        manager: QueueManager,
        *,
        dequeue_timeout: timedelta,
        batch_size: int,
        mode: QueueExecutionMode,
        max_concurrent_tasks: int | None,
        shutdown_on_listener_failure: bool,
        heartbeat_timeout: timedelta,
        log_aggregation_interval: timedelta,
    ) -> None:
        self.manager = manager
        self.dequeue_timeout = dequeue_timeout
        self.batch_size = batch_size
        self.mode = mode
        self.max_concurrent_tasks = max_concurrent_tasks
        self.shutdown_on_listener_failure = shutdown_on_listener_failure
        self.heartbeat_timeout = heartbeat_timeout
        self.log_aggregation_interval = log_aggregation_interval
        self.loop = asyncio.get_running_loop()
        self.owner = manager.queue_manager_id
        self.layout = worker_layout(manager.queries)
        # None where notifications arrive.
        self.poll_interval = poll_interval_of(manager.queries.driver)
        self.ended_before_claim = 0
        self.acks = Acknowledger(self.layout, self.owner, self._wake_in)
        self.tasks: set[asyncio.Task[None]] = set()
        self.upcoming: asyncio.Task[Claim | None] | None = None
        # Set whenever another look at the queue may find more than the last one.
        self.wake = asyncio.Event()
        self.wake_at_job_end = False
        self.wake_at_delete = False
        self.orphans_possible = False
        self.aborting = False
        self.next_rescue = 0.0
        self.renew_after = (
            heartbeat_timeout.total_seconds() / RENEWALS
            if heartbeat_timeout > timedelta(0)
            else float("inf")
        )
        self._calls: dict[QueueEntrypoint, Callable[..., Awaitable[None]]] = {}
        self._limits: dict[QueueEntrypoint, int] = {}

    # -- Run ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Claim and run jobs until shutdown or, in drain mode, until there are none."""
        manager = self.manager
        driver = manager.queries.driver
        await driver.add_listener(manager.channel, self.heard)
        stop = asyncio.create_task(manager.shutdown.wait(), name="pgq_fast shutdown")
        stop.add_done_callback(lambda _: self.wake.set())
        if isinstance(driver, ReconnectNotifier):
            # Whatever was notified while nobody listened is lost: look for it.
            driver.add_reconnect_callback(self.wake.set)
        background = [
            asyncio.create_task(task, name=f"pgq_fast {name}")
            for name, task in self._background().items()
        ]
        try:
            await self._claim_and_start()
        finally:
            await self._protect(self._close())
            for task in (stop, *background):
                await cancel_and_wait(task)
            if isinstance(driver, ReconnectNotifier):
                driver.remove_reconnect_callback(self.wake.set)
            if isinstance(driver, ListenerRemover):
                await self._quietly(
                    driver.remove_listener(manager.channel, self.heard), "stop listening"
                )
        self._raise_listener_failure(background)

    def _background(self) -> dict[str, Coroutine[Any, Any, None]]:
        manager = self.manager
        tasks: dict[str, Coroutine[Any, Any, None]] = {
            "acknowledge": self.acks.run(),
            "heartbeat": upkeep.beat(
                self.layout, self.owner, manager.job_context, self.heartbeat_timeout
            ),
        }
        # Where nothing listens there is nothing to check: the worker polls.
        if self.mode is not QueueExecutionMode.drain and self.poll_interval is None:
            tasks["listener check"] = self._watch_listener()
        if self.log_aggregation_interval > timedelta(0):
            tasks["aggregation"] = upkeep.aggregate(
                manager.queries.aggregate_logs,
                manager.take_jobs_logged,
                manager.put_back_jobs_logged,
                self.log_aggregation_interval,
            )
        return tasks

    async def _watch_listener(self) -> None:
        try:
            await upkeep.watch_listener(
                self.manager.listener_healthy, LISTENER_CHECK, self.shutdown_on_listener_failure
            )
        except Exception:
            self.manager.shutdown.set()
            raise

    @staticmethod
    def _raise_listener_failure(background: list[asyncio.Task[None]]) -> None:
        for task in background:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    @property
    def stopping(self) -> bool:
        """Whether no more jobs are to be claimed."""
        return self.manager.shutdown.is_set()

    async def _claim_and_start(self) -> None:
        while not self.stopping:
            if self.upcoming is None:
                room = self._room()
                if room <= 0:
                    await self._wait_for_room()
                    continue
                wanted = min(self.batch_size, room)
                # Before the claim: what is notified from here on may be missing in its answer.
                self.wake.clear()
                self.ended_before_claim = self.manager.jobs_logged
                claim = await self._claim(wanted)
            else:
                wanted = self.batch_size
                claim = await self.upcoming
                self.upcoming = None
            if claim is None:
                await wait_for_event(self.wake, RECONNECT_PAUSE)
                continue
            full = len(claim.jobs) + len(claim.rejected) >= wanted
            self.acks.set_patient(full and not self.wake_at_delete)
            if full and self._may_claim_ahead(len(claim.jobs)):
                self.wake.clear()
                self.upcoming = self.loop.create_task(self._claim(self.batch_size))
                # The first turn runs the task, the second sends what it wrote.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            await self._start_all(claim)
            if not full:
                self.next_rescue = 0.0
                await self._rest()

    def _may_claim_ahead(self, starting: int) -> bool:
        """Whether the server may look for the next jobs while *starting* ones are started.

        Not where they could wait for room, nor where they would sit on seats meanwhile.
        """
        if self.batch_size < CLAIM_AHEAD_FROM or self.wake_at_delete or self.stopping:
            return False
        return self.max_concurrent_tasks is None or self._room() - starting >= self.batch_size

    def _room(self) -> int:
        """How many more jobs may run here."""
        if self.max_concurrent_tasks is None:
            return self.batch_size
        return self.max_concurrent_tasks - len(self.manager.job_context)

    async def _wait_for_room(self) -> None:
        self.acks.set_patient(False)
        self.wake_at_job_end = True
        try:
            self.wake.clear()
            if self._room() <= 0 and not self.stopping:
                await self.wake.wait()
        finally:
            self.wake_at_job_end = False

    async def _claim(self, wanted: int) -> Claim | None:
        """The next jobs; None where the connection was lost and the driver is replacing it."""
        now = time.monotonic()
        stale_after = None
        if now >= self.next_rescue and self.heartbeat_timeout > timedelta(0):
            stale_after = self.heartbeat_timeout
            self.next_rescue = now + self.heartbeat_timeout.total_seconds() / RESCUES
        try:
            if self.orphans_possible:
                await self._release()
            claim = await self.layout.claim(wanted, self.limits(), self.owner, stale_after)
        except Exception as error:
            if not self._replaces(error):
                raise
            logger.warning("Lost the connection while claiming jobs: %s", error)
            self.orphans_possible = True
            self.next_rescue = 0.0
            return None
        claim.since = now
        if stale_after is not None and claim.jobs:
            claim.jobs = self._without_own(claim.jobs)
        return claim

    def _replaces(self, error: BaseException) -> bool:
        """Whether the driver gets over *error* by itself."""
        driver = self.manager.queries.driver
        return bool(getattr(driver, "owns_connections", False)) and is_connection_lost(error)

    def _without_own(self, jobs: list[models.Job]) -> list[models.Job]:
        """*jobs* less those that run here: a late heartbeat makes a worker its own rescuer."""
        ending = self.acks.runs()
        others = []
        for job in jobs:
            context = self.manager.job_context.get(job.id)
            if isinstance(context, JobContext):
                # Its own again, should it have been another worker's meanwhile: heartbeats go on.
                context.last_beat = time.monotonic()
            elif ending.get(job.id, -1) < job.attempts:
                others.append(job)
        return others

    def limits(self) -> dict[QueueEntrypoint, int]:
        """The entrypoints to claim from, with their concurrency limits."""
        registry = self.manager.entrypoint_registry
        wanted = self.manager.entrypoints_below_capacity_limits()
        if self._limits.keys() != wanted:
            self._limits = {
                name: registry[name].parameters.concurrency_limit for name in sorted(wanted)
            }
            # The end of a job of a limited entrypoint makes room for another one.
            self.wake_at_delete = any(limit > 0 for limit in self._limits.values())
        return self._limits

    async def _rest(self) -> None:
        """Wait until there may be something to claim, or end the run of a drained queue.

        A notification since the claim was sent ends the wait before it begins. The probe is for
        what no notification announces: deferred jobs, retries, jobs that another worker held.
        """
        draining = self.mode is QueueExecutionMode.drain
        # Where no notification of the DELETE arrives, the end of a job announces the free seat.
        polls_for_seats = self.poll_interval is not None and self.wake_at_delete
        if polls_for_seats and self.manager.jobs_logged != self.ended_before_claim:
            # The seat is free once the server knows.
            await self._flush_acks()
            if not len(self.acks):
                return
        self.wake_at_job_end = draining or polls_for_seats
        try:
            idle = False
            if draining:
                # Tasks that are about to end get to it, and what they ask for is in the queue.
                await asyncio.sleep(0)
                # A job that ends after this may bring another one that the probe does not see.
                running = bool(self.manager.job_context)
                await self._flush_acks()
                idle = not running and not len(self.acks)
            if self.wake.is_set() or self.stopping:
                return
            try:
                due = await self.layout.next_due(list(self.limits()))
            except Exception as error:
                if not self._replaces(error):
                    raise
                logger.warning("Lost the connection while probing the queue: %s", error)
                await wait_for_event(self.wake, RECONNECT_PAUSE)
                return
            if idle and due is None and not self.wake.is_set():
                self.manager.shutdown.set()
                return
            timeout = self._rest_time(due)
            if draining and len(self.acks):
                # A retry may be among what the server has not taken yet.
                timeout = min(timeout, RECONNECT_PAUSE)
            await wait_for_event(self.wake, timeout)
        finally:
            self.wake_at_job_end = False

    def _wake_in(self, delay: timedelta) -> None:
        """Look at the queue after *delay*: a retry is an UPDATE, which notifies nobody."""
        self.loop.call_later(max(delay.total_seconds(), 0), self.wake.set)

    async def _flush_acks(self) -> None:
        try:
            await self.acks.flush()
        except Exception as error:
            # The acknowledger reports it and tries again.
            logger.debug("Outcomes wait for the server: %s", error)

    def _rest_time(self, due: timedelta | None) -> float:
        """Seconds to rest at most. Stale jobs announce themselves to nobody."""
        longest = self.dequeue_timeout
        if timedelta(0) < self.heartbeat_timeout < longest:
            longest = self.heartbeat_timeout
        if due is not None:
            longest = min(longest, max(due, self.manager.min_dequeue_poll_interval))
        if self.poll_interval is not None:
            longest = min(longest, self.poll_interval)
        return longest.total_seconds()

    # -- Jobs ---------------------------------------------------------------------------------

    async def _start_all(self, claim: Claim) -> None:
        for rejected in claim.rejected:
            self._refuse(rejected)
        shutdown = self.manager.shutdown
        last_beat = claim.since
        now = time.monotonic()
        slice_end = now + DISPATCH_SLICE
        jobs = claim.jobs
        lost: set[JobId] = set()
        for position, job in enumerate(jobs):
            if now >= last_beat + self.renew_after:
                last_beat = now
                lost = await self._lost(jobs[position:])
            if shutdown.is_set() and self.layout.can_release:
                return
            if job.id not in lost:
                self._start(job, last_beat)
            now = time.monotonic()
            if now >= slice_end or (not _EAGER and position % STARTS_A_TURN == 0):
                await asyncio.sleep(0)
                now = time.monotonic()
                slice_end = now + DISPATCH_SLICE

    async def _lost(self, jobs: list[models.Job]) -> set[JobId]:
        """Renew the heartbeat of *jobs*, which wait to be started; those that others have now."""
        ids = [job.id for job in jobs]
        try:
            alive = await self.layout.heartbeat(ids, self.owner)
        except Exception as error:
            logger.warning("Could not send the heartbeat of %d job(s): %s", len(ids), error)
            return set()
        lost = set(ids) - alive
        if lost:
            logger.warning(
                "%d job(s) that waited here to be started are no longer this worker's", len(lost)
            )
        return lost

    def _refuse(self, rejected: Rejected) -> None:
        """A row that is no job cannot run; it ends as an exception, or it would come again."""
        if rejected.id is None:
            return
        error = MalformedRowError(
            f"the row of job {rejected.id} cannot be read: {rejected.reason}; "
            "see what wrote it, and enqueue the job again"
        )
        now = models.utc_now()
        # Stands in for the job in its outcome, which needs no more than id and owner.
        job = models.Job.model_construct(
            id=rejected.id,
            priority=0,
            created=now,
            updated=now,
            heartbeat=now,
            execute_after=now,
            status="picked",
            entrypoint=QueueEntrypoint(""),
            payload=None,
            queue_manager_id=self.owner,
            headers=None,
        )
        record = models.TracebackRecord.from_exception(
            error, rejected.id, {"queue_manager_id": self.owner}
        )
        self.acks.put(Outcome(job, "exception", record))

    def _start(self, job: models.Job, now: float) -> None:
        context = JobContext(self.manager.resources, now)
        job_id = job.id
        self.manager.job_context[job_id] = context
        coroutine = self._run_job(job, job_id, context)
        if _EAGER:
            # Runs until the handler first waits; most of the cheap ones are done by then. Not
            # through the loop, whose factory is the user's and which may not pass the argument.
            task = asyncio.Task(  # type: ignore[call-arg, unused-ignore]
                coroutine, loop=self.loop, eager_start=True
            )
            if task.done():
                return
        else:
            task = self.loop.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _call_of(self, entrypoint: QueueEntrypoint) -> Callable[..., Awaitable[None]]:
        """What runs a job: the handler itself where the executor would only pass it on."""
        executor = self.manager.entrypoint_registry[entrypoint]
        if type(executor) is not EntrypointExecutor:
            return executor.execute
        handler: Callable[..., Awaitable[None]] = executor.parameters.func
        if executor.parameters.accepts_context:
            return handler
        return lambda job, _: handler(job)

    async def _run_job(self, job: models.Job, job_id: JobId, context: JobContext) -> None:
        """Run the handler and put down how it ended."""
        manager = self.manager
        try:
            call = self._calls.get(job.entrypoint)
            if call is None:
                call = self._calls[job.entrypoint] = self._call_of(job.entrypoint)
            tracer = manager.tracer or tracing.TRACER.tracer
            if context.canceled:
                pass
            elif tracer is None:
                await call(job, context)
            else:
                await self._run_traced(tracer, call, job, context)
        except asyncio.CancelledError:
            # A worker that is made to stop gives its jobs back; any other cancellation of the
            # task is the job's end.
            if not self.aborting:
                self.acks.put(Outcome(job, "canceled", None))
            raise
        except Exception as error:
            await self._failed(job, error)
        else:
            if context.cancel_called:
                self.acks.put(Outcome(job, "canceled", None))
            else:
                self.acks.succeeded(job_id)
        finally:
            manager.jobs_logged += 1
            if manager.job_context.get(job_id) is context:
                del manager.job_context[job_id]
            if self.wake_at_job_end:
                self.wake.set()

    async def _run_traced(
        self,
        tracer: tracing.TracingProtocol,
        call: Callable[..., Awaitable[None]],
        job: models.Job,
        context: JobContext,
    ) -> None:
        """Run the handler in the tracer's block. A tracer that fails does not fail the job."""
        started = False
        failure: Exception | None = None
        try:
            async with tracer.trace_process(job):
                started = True
                try:
                    await call(job, context)
                except Exception as error:
                    failure = error
        except Exception as error:
            logger.error("The tracer failed for job %s", job.id, exc_info=error)
        if failure is not None:
            raise failure
        if not started:
            await call(job, context)

    async def _failed(self, job: models.Job, error: Exception) -> None:
        """Retry the job if *error* asks for it, else record the failure."""
        retry = retry_request(error)
        if retry is None:
            executor = self.manager.entrypoint_registry[job.entrypoint]
            await self.manager.log_failure(job, executor, error, self.acks)
            return
        if retry is not error:
            retry.__cause__ = error
        logger.info(
            "Job %s of %s is retried in %s (attempt %d)",
            job.id,
            job.entrypoint,
            retry.delay,
            job.attempts,
        )
        record = models.TracebackRecord.from_exception(
            retry,
            job.id,
            {
                "entrypoint": job.entrypoint,
                "queue_manager_id": self.owner,
                "attempt": job.attempts,
                "retry_delay": str(retry.delay),
                "reason": retry.reason,
            },
        )
        self.acks.put(Retry(job, retry.delay, record))

    # -- Notifications ------------------------------------------------------------------------

    def heard(self, payload: str | bytes | bytearray) -> None:
        """Take a NOTIFY of the queue's channel; one that makes no sense is reported and ignored."""
        try:
            kind, detail = notify.parse_event(payload)
            if kind == "table_changed_event":
                # Nothing to claim comes of a DELETE, unless it frees a seat.
                if detail != "delete" or self.wake_at_delete:
                    self.wake.set()
            elif kind == "cancellation_event":
                for job_id in detail["ids"]:
                    context = self.manager.job_context.get(job_id)
                    if isinstance(context, JobContext):
                        context.cancel()
            else:
                event = models.HealthCheckEvent.model_validate(detail)
                future = self.manager.pending_health_check.get(event.id)
                if future is not None and not future.done():
                    future.set_result(event)
        except ValueError as error:
            logger.warning(
                "Ignored a notification of %d characters on channel %s: %s",
                len(payload),
                self.manager.channel,
                type(error).__name__,
            )

    # -- End ----------------------------------------------------------------------------------

    async def _close(self) -> None:
        """Let started jobs end, send what became of them, give back the rest."""
        if self.upcoming is not None:
            # What it brings is given back below.
            await asyncio.wait({self.upcoming})
            if not self.upcoming.cancelled() and (error := self.upcoming.exception()) is not None:
                logger.warning("The last claim of the run failed: %s", error)
        while self.tasks:
            await asyncio.wait(set(self.tasks))
        if not await self.acks.close():
            # Releasing now would run jobs again that have ended. Others rescue what is left.
            logger.error("The server could not be told how the last jobs of this worker ended")
            return
        await self._quietly(self._release(), "give back claimed jobs")

    async def _release(self) -> None:
        await self.layout.release(self.owner, [*self.manager.job_context, *self.acks.runs()])
        self.orphans_possible = False

    async def _protect(self, closing: Coroutine[Any, Any, None]) -> None:
        """Run *closing* to its end, whatever is cancelled meanwhile.

        The first cancellation of a run has started the closing; a further one is the demand to be
        quick, and cancels the jobs that are still running.
        """
        task = asyncio.create_task(closing, name="pgq_fast close")
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                cancelled = error
                self.aborting = True
                for job in self.tasks:
                    job.cancel()
        task.result()
        if cancelled is not None:
            raise cancelled

    async def _quietly(self, step: Awaitable[object], purpose: str) -> None:
        try:
            await step
        except Exception as error:
            logger.warning("Could not %s at the end of the run: %s", purpose, error)
