"""A worker's run: claim jobs, start them, and at the end leave nothing behind.

States of a job that this worker has claimed:

    claimed -> started -> ended -> acknowledged
       |          |
       +----------+--> released (given back, as it was before the claim)

Started jobs are in ``manager.job_context``, see :mod:`~pgq_fast.worker.dispatch`; ended ones that
the server may not know of are with the :class:`~pgq_fast.worker.acks.Acknowledger`; what is in
neither and still picked by this worker on the server is released when the run ends, or after a
claim whose answer got lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from pgq_fast import models
from pgq_fast._impl import notify
from pgq_fast.builders import settings_of
from pgq_fast.drivers.base import ListenerRemover
from pgq_fast.drivers.failures import described, is_connection_lost, is_passing
from pgq_fast.drivers.listeners import ReconnectNotifier
from pgq_fast.drivers.pooling import poll_interval_of
from pgq_fast.layouts.base import Claim
from pgq_fast.layouts.renewal import renewal
from pgq_fast.logconfig import logger
from pgq_fast.tasks import cancel_and_wait, wait_for_event
from pgq_fast.types import JobId, QueueEntrypoint, QueueExecutionMode
from pgq_fast.watchdog import Unanswered, Watchdog, start_watchdog
from pgq_fast.worker import upkeep
from pgq_fast.worker.acks import Acknowledger
from pgq_fast.worker.context import JobContext
from pgq_fast.worker.dispatch import Dispatcher
from pgq_fast.worker.nonsense import Nonsense
from pgq_fast.worker.observing import Observation, ObservedLayout
from pgq_fast.worker.pace import Pace
from pgq_fast.worker.port import worker_layout

if TYPE_CHECKING:
    from pgq_fast.qm import QueueManager

CONNECTION_GONE: Final = (
    "The worker ended because the connection to PostgreSQL that it was given is gone. Open another "
    "one and start it again; or let it have its own with PgQueuer.from_dsn, which replaces them."
)

CLAIMING: Final = "claim jobs"
PROBING: Final = "look at the queue"

DISPATCH_SLICE: Final = 0.005
"""Seconds that jobs are started in a row before timers and other tasks get their turn."""

CLAIM_AHEAD_FROM: Final = 50
"""Size of a batch from which the next claim is under way while a batch is started. Starting a
smaller one takes less than the claim's turn on the loop."""

LISTENER_CHECK: Final = timedelta(seconds=10)
"""Between two looks at whether notifications arrive, and how long one may take."""

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
"""Seconds between attempts while the server fails; each pause is twice as long as the one before.
To lost connections, the driver adds a backoff of its own."""

RELEASES: Final = 4
"""Attempts to give back what was claimed when a run ends."""

RENEWALS: Final = 4
"""Heartbeats within a heartbeat timeout for claimed jobs that wait to be started."""

RESCUES: Final = 4
"""Claims within a heartbeat timeout that also look for stale jobs while the queue is full. A worker
with nothing better to do looks every time."""


class Worker:
    """One call of ``QueueManager.run``."""

    def __init__(
        self,
        manager: QueueManager,
        *,
        dequeue_timeout: timedelta,
        batch_size: int | None,
        mode: QueueExecutionMode,
        max_concurrent_tasks: int | None,
        shutdown_on_listener_failure: bool,
        heartbeat_timeout: timedelta,
        log_aggregation_interval: timedelta,
    ) -> None:
        self.manager = manager
        self.dequeue_timeout = dequeue_timeout
        self.pace = Pace(batch_size, manager.held_work)
        self.mode = mode
        self.max_concurrent_tasks = max_concurrent_tasks
        self.shutdown_on_listener_failure = shutdown_on_listener_failure
        self.heartbeat_timeout = heartbeat_timeout
        self.log_aggregation_interval = log_aggregation_interval
        self.loop = asyncio.get_running_loop()
        self.owner = manager.queue_manager_id
        self.layout = worker_layout(manager.queries)
        observation = None
        if manager.observer is not None:
            observation = Observation(manager.observer)
            self.layout = ObservedLayout(self.layout, observation)
        # None where notifications arrive.
        self.poll_interval = poll_interval_of(manager.queries.driver)
        self.ended_before_claim = 0
        self.unanswered = Unanswered()
        self.acks = Acknowledger(self.layout, self.owner, self._wake_in, self.unanswered)
        self.upcoming: asyncio.Task[Claim | None] | None = None
        # Set whenever another look at the queue may find more than the last one.
        self.wake = asyncio.Event()
        self.dispatcher = Dispatcher(manager, self.acks, self.wake, observation)
        # Of the jobs that have ended: those that the manager's count has, and those that had ended
        # when the last batch was started.
        self.ended_counted = 0
        self.ended_at_batch = 0
        self.wake_at_delete = False
        self.nonsense = Nonsense(manager.channel)
        self.orphans_possible = False
        # By what fails at present: the last pause, in seconds.
        self._pauses: dict[str, float] = {}
        self.next_rescue = 0.0
        self.renew_after = (
            heartbeat_timeout.total_seconds() / RENEWALS
            if heartbeat_timeout > timedelta(0)
            else float("inf")
        )
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
        watchdog = self._start_watchdog()
        try:
            await self._claim_and_start()
        except Exception as error:
            await self._raise_layout_mismatch(error)
            if is_connection_lost(error) and not self._owns_connections():
                # The library's own words do not always say so.
                error.add_note(CONNECTION_GONE)
            raise
        finally:
            await self._protect(self._close(watchdog))
            for task in (stop, *background):
                await cancel_and_wait(task)
            if isinstance(driver, ReconnectNotifier):
                driver.remove_reconnect_callback(self.wake.set)
            if isinstance(driver, ListenerRemover):
                await self._quietly(
                    driver.remove_listener(manager.channel, self.heard), "stop listening"
                )
            self.nonsense.close()
        self._raise_listener_failure(background)

    async def _raise_layout_mismatch(self, error: Exception) -> None:
        """Raise ``LayoutMismatchError`` if the queue has moved, and that is what *error* means."""
        from pgq_fast.schema.layout import mismatch_behind

        queries = self.manager.queries
        settings = settings_of(queries)
        if settings is not None:
            mismatch = await mismatch_behind(error, queries.driver, settings)
            if mismatch is not None:
                raise mismatch from error

    def _start_watchdog(self) -> Watchdog | None:
        queries = self.manager.queries
        settings = settings_of(queries)
        if settings is None:
            return None
        statement = renewal(settings, self.owner)
        return start_watchdog(
            queries.driver,
            lambda: statement,
            self.heartbeat_timeout.total_seconds(),
            self.unanswered,
            self.dispatcher.running,
        )

    def _background(self) -> dict[str, Coroutine[Any, Any, None]]:
        manager = self.manager
        tasks: dict[str, Coroutine[Any, Any, None]] = {
            "acknowledge": self.acks.run(),
            "heartbeat": upkeep.beat(
                self.layout,
                self.owner,
                manager.job_context,
                self.heartbeat_timeout,
                self.unanswered,
            ),
        }
        # Where nothing listens there is nothing to check: the worker polls.
        if self.mode is not QueueExecutionMode.drain and self.poll_interval is None:
            tasks["listener check"] = self._watch_listener()
        if self.log_aggregation_interval > timedelta(0):
            tasks["aggregation"] = upkeep.aggregate(
                manager.queries.aggregate_logs,
                self._count_jobs_logged,
                self._take_jobs_logged,
                manager.put_back_jobs_logged,
                self.log_aggregation_interval,
            )
        return tasks

    def _count_jobs_logged(self) -> int:
        return self.manager.jobs_logged + self.dispatcher.ended - self.ended_counted

    def _take_jobs_logged(self) -> int:
        """As the manager's; the jobs are counted here and not one by one."""
        self.manager.jobs_logged += self.dispatcher.ended - self.ended_counted
        self.ended_counted = self.dispatcher.ended
        return self.manager.take_jobs_logged()

    async def _watch_listener(self) -> None:
        try:
            await upkeep.watch_listener(
                self.manager.listener_healthy,
                LISTENER_CHECK,
                self.shutdown_on_listener_failure,
                self._passes,
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
                wanted = min(self.pace.size, room)
                # Before the claim: what is notified from here on may be missing in its answer.
                self.wake.clear()
                self.ended_before_claim = self.dispatcher.ended
                claim = await self._claim(wanted)
            else:
                claim = await self.upcoming
                self.upcoming = None
            if claim is None:
                # Whatever is notified meanwhile: nothing can be claimed, and nobody is to insist.
                await wait_for_event(self.manager.shutdown, self._pauses[CLAIMING])
                continue
            self.acks.set_patient(claim.full and not self.wake_at_delete)
            if claim.full and claim.ahead and self._may_claim_ahead(claim.found):
                self.wake.clear()
                self.upcoming = self.loop.create_task(self._claim(self.pace.size))
                # The first turn runs the task, the second sends what it wrote.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            await self._start_all(claim)
            if claim.large and claim.found < self.pace.size:
                self.pace.cut(claim.found)
            if not claim.full:
                self.next_rescue = 0.0
                await self._rest(claim)

    def _may_claim_ahead(self, starting: int) -> bool:
        """Whether the server may look for the next jobs while *starting* ones are started.

        Not where they could wait for room, nor where they would sit on seats meanwhile.
        """
        if self.pace.size < CLAIM_AHEAD_FROM or self.wake_at_delete or self.stopping:
            return False
        return self._room() - starting >= self.pace.size

    def _room(self) -> int:
        """How many more jobs may run here."""
        if self.dispatcher.waiting_bytes >= self.manager.max_bytes_in_flight:
            return 0
        most = self.max_concurrent_tasks or self.manager.max_jobs_in_flight
        return most - len(self.manager.job_context)

    async def _wait_for_room(self) -> None:
        self.acks.set_patient(False)
        self.dispatcher.wake_at_end = True
        try:
            self.wake.clear()
            if self._room() <= 0 and not self.stopping:
                await self.wake.wait()
        finally:
            self.dispatcher.wake_at_end = False

    async def _claim(self, wanted: int) -> Claim | None:
        """The next jobs; None where the server failed and is to be asked again after a pause."""
        now = time.monotonic()
        stale_after = None
        if now >= self.next_rescue and self.heartbeat_timeout > timedelta(0):
            stale_after = self.heartbeat_timeout
            self.next_rescue = now + self.heartbeat_timeout.total_seconds() / RESCUES
        # What a job enqueues is there once it has ended.
        idle = not self.manager.job_context and self.acks.only_successes
        try:
            if self.orphans_possible:
                await self._release()
            async with self.acks.riding() as ending:
                claim = await self.layout.claim(
                    wanted,
                    self.limits(),
                    self.owner,
                    stale_after,
                    self.manager.claim_bytes,
                    ending,
                )
        except Exception as error:
            self._must_pass(error, CLAIMING)
            self.orphans_possible = True
            self.next_rescue = 0.0
            return None
        self._pauses.pop(CLAIMING, None)
        claim.since = now
        claim.exhausted = claim.exhausted and idle
        claim.full = claim.found >= wanted or (claim.found > 0 and claim.more)
        return claim

    def _passes(self, error: BaseException) -> bool:
        """Whether to wait until *error* is over: on connections of the worker's own."""
        return self._owns_connections() and is_passing(error)

    def _owns_connections(self) -> bool:
        return bool(getattr(self.manager.queries.driver, "owns_connections", False))

    def _must_pass(self, error: Exception, purpose: str) -> float:
        """Report that *purpose* failed and will be tried again.

        Returns:
            Seconds until then.

        Raises:
            Exception: *error*, which no waiting cures.
        """
        if not self._passes(error):
            raise error
        pause = min(2 * self._pauses.get(purpose, FIRST_PAUSE / 2), LONGEST_PAUSE)
        self._pauses[purpose] = pause
        logger.warning("Could not %s, next attempt in %.1f s: %s", purpose, pause, described(error))
        return pause

    def _without_own(self, jobs: list[models.Job]) -> list[models.Job]:
        """*jobs* less those that run here: a late heartbeat makes a worker its own rescuer."""
        ending = self.acks.runs()
        others = []
        for job in jobs:
            context = self.manager.job_context.get(job.id)
            if isinstance(context, JobContext):
                # Its own again, should it have been another worker's meanwhile: heartbeats go on.
                context.last_beat = time.monotonic()
            elif job.id not in ending or ending[job.id] < job.attempts:
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

    async def _rest(self, claim: Claim) -> None:
        """After *claim*, wait until there may be something more, or end the run of a drained queue.

        A notification since the claim was sent ends the wait before it begins. The probe is for
        what no notification announces: deferred jobs, retries, jobs that another worker held.
        """
        draining = self.mode is QueueExecutionMode.drain
        # Where no notification of the DELETE arrives, the end of a job announces the free seat.
        polls_for_seats = self.poll_interval is not None and self.wake_at_delete
        if polls_for_seats and self.dispatcher.ended != self.ended_before_claim:
            # The seat is free once the server knows.
            await self._flush_acks()
            if not len(self.acks):
                return
        try:
            idle = False
            if draining:
                # Tasks that are about to end get to it, and what they ask for is in the queue.
                await asyncio.sleep(0)
                # A job that ends after this may bring another one that the probe does not see.
                running = bool(self.manager.job_context)
                self.dispatcher.wake_at_end = running or polls_for_seats
                await self._flush_acks()
                idle = not running and not len(self.acks)
            else:
                self.dispatcher.wake_at_end = polls_for_seats
            if self.wake.is_set() or self.stopping:
                return
            try:
                due, look_again = await self.layout.rest(
                    list(self.limits()), self.owner, self.wake_at_delete, idle and claim.exhausted
                )
            except Exception as error:
                pause = self._must_pass(error, PROBING)
                await wait_for_event(self.manager.shutdown, pause)
                return
            self._pauses.pop(PROBING, None)
            if idle and due is None and not self.wake.is_set():
                self.manager.shutdown.set()
                return
            timeout = self._rest_time(due)
            if look_again is not None:
                timeout = min(timeout, look_again.total_seconds())
            if draining and len(self.acks):
                # A retry may be among what the server has not taken yet.
                timeout = min(timeout, FIRST_PAUSE)
            await wait_for_event(self.wake, timeout)
        finally:
            self.dispatcher.wake_at_end = False

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
        jobs = claim.jobs
        if claim.known:
            jobs = claim.jobs = self._without_own(jobs)
        for rejected in claim.rejected:
            self.dispatcher.refuse(rejected)
        began, last_beat = time.monotonic(), claim.since
        self.dispatcher.displace(jobs)
        position = 0
        while position < len(jobs):
            now = time.monotonic()
            if now >= last_beat + self.renew_after:
                last_beat = now
                lost = await self._lost(jobs[position:])
                jobs = [job for job in jobs[position:] if job.id not in lost]
                position = 0
                continue
            if self.stopping and self.layout.can_release:
                return
            position = await self.dispatcher.start(jobs, position, last_beat, now + DISPATCH_SLICE)
            if position < len(jobs):
                await asyncio.sleep(0)
        ended = self.dispatcher.ended
        self.pace.started(len(claim.jobs), time.monotonic() - began, ended - self.ended_at_batch)
        self.ended_at_batch = ended

    async def _lost(self, jobs: list[models.Job]) -> set[JobId]:
        """Renew the heartbeat of *jobs*, which wait to be started; those that others have now."""
        ids = [job.id for job in jobs]
        try:
            with self.unanswered.asking():
                alive = await self.layout.heartbeat(ids, self.owner)
        except Exception as error:
            logger.warning(
                "Could not send the heartbeat of %d job(s), next attempt in %.1f s: %s",
                len(ids),
                self.renew_after,
                described(error),
            )
            return set()
        lost = set(ids) - alive
        if lost:
            logger.warning(
                "%d job(s) that waited here to be started are no longer this worker's", len(lost)
            )
        return lost

    # -- Notifications ------------------------------------------------------------------------

    def heard(self, payload: str | bytes | bytearray) -> None:
        """Take a NOTIFY of the queue's channel; one that makes no sense is ignored."""
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
            self.nonsense.take(payload, error)

    # -- End ----------------------------------------------------------------------------------

    async def _close(self, watchdog: Watchdog | None) -> None:
        """Let started jobs end, send what became of them, give back the rest."""
        try:
            await self._finish()
        finally:
            if watchdog is not None:
                await watchdog.stop()

    async def _finish(self) -> None:
        if self.upcoming is not None:
            # What it brings is given back below.
            await asyncio.wait({self.upcoming})
            if not self.upcoming.cancelled() and (error := self.upcoming.exception()) is not None:
                logger.warning("The last claim of the run failed: %s", described(error))
        await self.dispatcher.close()
        await self._quietly(self.layout.leave(self.owner), "say that this worker waits no more")
        if not await self.acks.close():
            # Releasing now would run jobs again that have ended. Others rescue what is left.
            logger.error("The server could not be told how the last jobs of this worker ended")
            return
        await self._quietly(self._give_back(), "give back claimed jobs")

    async def _give_back(self) -> None:
        for attempt in range(1, RELEASES):
            try:
                await self._release()
            except Exception as error:
                if not self._passes(error):
                    raise
                logger.info("Could not give back claimed jobs yet: %s", described(error))
                await asyncio.sleep(FIRST_PAUSE * attempt)
            else:
                return
        await self._release()

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
                self.dispatcher.abort()
        task.result()
        if cancelled is not None:
            raise cancelled

    async def _quietly(self, step: Awaitable[object], purpose: str) -> None:
        try:
            await step
        except Exception as error:
            logger.warning("Could not %s at the end of the run: %s", purpose, described(error))
