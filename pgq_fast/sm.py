"""The scheduler: runs functions on cron expressions, each tick once over all its copies.

A schedule is a row, ``queued`` until a scheduler claims it at its tick and ``picked`` while the
function runs. The claim moves ``next_run`` on to the following tick, the end of the run makes the
row ``queued`` again. A run keeps its row by a heartbeat a second; a row without one for 30 seconds
is claimed anew. While a function blocks the event loop, a thread sends the heartbeats, where the
driver has connections of its own. A run that outlasts its own next tick delays it; ticks missed
altogether collapse into one run.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Callable, MutableMapping
from datetime import timedelta
from typing import Any, Final

from pgq_fast import arguments
from pgq_fast.drivers.failures import described, is_connection_lost, is_passing
from pgq_fast.errors import PgqException
from pgq_fast.executors import (
    AbstractScheduleExecutor,
    ScheduleCrontab,
    ScheduleExecutor,
    ScheduleExecutorFactoryParameters,
    wants_context,
)
from pgq_fast.layouts.base import Statement
from pgq_fast.layouts.renewal import schedule_renewal
from pgq_fast.logconfig import logger
from pgq_fast.models import CronExpressionEntrypoint, Schedule, ScheduleContext
from pgq_fast.repository import RepositoryPort
from pgq_fast.tasks import TaskManager, cancel_and_wait, wait_for_event
from pgq_fast.types import CronEntrypoint, CronExpression, ScheduleId
from pgq_fast.watchdog import Culprit, Unanswered, Watchdog, start_watchdog

__all__ = ["SchedulerManager"]

HEARTBEAT_INTERVAL: Final = 1.0
"""Seconds between two heartbeats of the running schedules."""

AFTER_TICK: Final = 0.05
"""Seconds from a tick to the claim: the clocks of a network differ by some milliseconds."""

SECOND_LOOK: Final = 1.0
"""Seconds until a claim that found nothing is repeated, for a server whose clock is behind."""

LONGEST_WAIT: Final = 30.0
"""Seconds between two claims at the most: the time after which a silent run is given up, so that
a schedule whose scheduler died is noticed even if its next tick is a year away."""

ROUNDING: Final = timedelta(milliseconds=500)
"""Added to the time until a next tick. The server adds that to its own clock and cuts off the
fraction of a second, which ends on the tick's second only if its clock is not behind at all;
with this it rounds instead. A tick stored a second early would run twice."""

FAILURE_PAUSE: Final = 1.0
"""Seconds between attempts while the server fails, or the driver replaces a lost connection."""

CANCEL_GRACE: Final = 5.0
"""Seconds that a statement gets to its end after the scheduler was cancelled: a claim or a release
that is cut off may have taken effect or not, and nobody would know."""


class InvalidCronExpressionError(PgqException, ValueError):
    """A schedule's expression is no cron expression."""

    def __init__(self, entrypoint: str, expression: str) -> None:
        super().__init__(
            f"{expression!r} of schedule {entrypoint!r} is not a cron expression: give minute, "
            "hour, day of month, month and day of week, and as a sixth field seconds if needed"
        )


class DuplicateScheduleError(PgqException, RuntimeError):
    """Two functions are registered for one name and expression."""

    def __init__(self, key: CronExpressionEntrypoint) -> None:
        super().__init__(
            f"schedule {key.entrypoint!r} with expression {key.expression!r} is already "
            "registered: give one of the two another name"
        )


class MissingTableError(PgqException, RuntimeError):
    """A table that the scheduler needs does not exist."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"table {table} is missing: run 'pgq install' on a new database, 'pgq upgrade' on one "
            "of an older version"
        )


@dataclasses.dataclass
class SchedulerManager:
    """Runs the functions registered by :meth:`schedule`. Any number of copies may run at once.

    Attributes:
        queries: Where the schedules are kept.
        resources: What functions get as ``context.resources``.
        shutdown: Set it to end :meth:`run`; running functions are awaited.
        registry: What is registered, by name and normalised expression.
        active_heartbeat_ids: Schedules that this scheduler is running.
    """

    queries: RepositoryPort
    resources: MutableMapping[str, object] = dataclasses.field(default_factory=dict)
    shutdown: asyncio.Event = dataclasses.field(init=False, default_factory=asyncio.Event)
    registry: dict[CronExpressionEntrypoint, AbstractScheduleExecutor] = dataclasses.field(
        init=False, default_factory=dict
    )
    active_heartbeat_ids: set[ScheduleId] = dataclasses.field(init=False, default_factory=set)
    # What was claimed, by the task that runs it or is about to.
    _claimed: dict[asyncio.Task[Any], Schedule] = dataclasses.field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    _unanswered: Unanswered = dataclasses.field(
        init=False, repr=False, compare=False, default_factory=Unanswered
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
        """Register the decorated function; do so before :meth:`run`.

        Args:
            entrypoint: Name of the schedule.
            expression: Cron expression in UTC: five fields, or six with the seconds last.
            executor_factory: Makes what runs the function; default ``ScheduleExecutor``.
            clean_old: Delete what earlier runs stored under this name, whatever the expression.
            accepts_context: Whether the function takes a ``ScheduleContext`` after the schedule;
                by default that is read off its annotations.

        Raises:
            InvalidArgumentError: A ``ValueError``; the two cannot be stored.
            InvalidCronExpressionError: A ``ValueError``; *expression* means nothing.
            DuplicateScheduleError: A ``RuntimeError``; the two are already registered.
        """
        # Only schedulers need croniter, and it takes a while to import.
        from croniter import croniter

        if not croniter.is_valid(expression):
            raise InvalidCronExpressionError(entrypoint, expression)

        # The stored spelling, by which all schedulers of a database know the schedule.
        normal = CronExpression(" ".join(croniter(expression).expressions))
        key = CronExpressionEntrypoint(CronEntrypoint(entrypoint), normal)
        arguments.schedule_key(*key)
        if key in self.registry:
            raise DuplicateScheduleError(key)

        def register(func: ScheduleCrontab) -> ScheduleCrontab:
            parameters = ScheduleExecutorFactoryParameters(
                entrypoint=key.entrypoint,
                expression=key.expression,
                func=func,
                clean_old=clean_old,
                accepts_context=(
                    wants_context(func, ScheduleContext)
                    if accepts_context is None
                    else accepts_context
                ),
            )
            self.registry[key] = (executor_factory or ScheduleExecutor)(parameters)
            return func

        return register

    async def run(self) -> None:
        """Run due schedules until :attr:`shutdown` is set or the task is cancelled.

        Either way functions that are running are awaited and their schedules given back; a second
        cancellation cancels them. A scheduler without schedules only waits.

        A statement that fails ends the run with its error, unless the driver has connections of its
        own and the error is one that passes, as does the loss of a connection: then it is logged,
        and the statement is tried again.

        Raises:
            MissingTableError: A ``RuntimeError``; the schema is not installed or too old.
        """
        await self._verify_structure()
        async with self.queries.driver:
            if not self.registry:
                await self.shutdown.wait()
                return
            if not await self._registered():
                return
            running = TaskManager()
            async with self._heartbeats() as heartbeats:
                try:
                    await self._claim_until_shutdown(running, heartbeats)
                finally:
                    await _finish(running)

    async def dispatch(self, executor: AbstractScheduleExecutor, schedule: Schedule) -> None:
        """Run one claimed tick and give the schedule back, whatever becomes of the function.

        An error of the function is logged, and so is one of giving back.
        """
        name = f"{schedule.entrypoint} ({schedule.expression})"
        logger.debug("Schedule %s starts", name)
        self.active_heartbeat_ids.add(schedule.id)
        try:
            try:
                await executor.execute(schedule, ScheduleContext(resources=self.resources))
                logger.debug("Schedule %s succeeded", name)
            except Exception:
                logger.exception("Schedule %s failed; its next tick comes as planned", name)
            finally:
                await _see_through(asyncio.create_task(self._release(schedule)))
        finally:
            # Only now: while a release is being repeated, the row must not look abandoned.
            self.active_heartbeat_ids.discard(schedule.id)

    async def _verify_structure(self) -> None:
        settings = self.queries.qbe.settings
        for table in (settings.schedules_table, settings.queue_table_log):
            if not await self.queries.has_table(table):
                raise MissingTableError(table)

    async def _registered(self) -> bool:
        """As ``_register_stored``, in as many attempts as it takes; False if the end is first."""
        while True:
            try:
                await self._register_stored()
            except Exception as error:
                if not self._passes(error):
                    raise
                logger.warning(
                    "Could not register schedules, next attempt in %g s: %s",
                    FAILURE_PAUSE,
                    described(error),
                )
                if await wait_for_event(self.shutdown, FAILURE_PAUSE):
                    return False
            else:
                return True

    async def _register_stored(self) -> None:
        """Make the rows of the registered schedules exist; known ones keep their next run."""
        outdated = {
            key.entrypoint
            for key, executor in self.registry.items()
            if executor.parameters.clean_old
        }
        if outdated:
            await self.queries.delete_schedule(ids=set(), entrypoints=outdated)
        await self.queries.insert_schedule(self._next_ticks())

    def _next_ticks(self) -> dict[CronExpressionEntrypoint, timedelta]:
        return {key: executor.next_in() + ROUNDING for key, executor in self.registry.items()}

    async def _claim_until_shutdown(
        self, running: TaskManager, heartbeats: asyncio.Task[None]
    ) -> None:
        """Claim at each tick and start what is due.

        A claim comes back empty where another scheduler was first, and also where the server's
        clock is behind: therefore one more look after an empty one.
        """
        second_look = True
        while not self.shutdown.is_set():
            try:
                found = await self._claim(running)
            except Exception as error:
                if not self._passes(error):
                    raise
                logger.warning(
                    "Could not claim schedules, next attempt in %g s: %s",
                    FAILURE_PAUSE,
                    described(error),
                )
                await self._pause(FAILURE_PAUSE, heartbeats)
                continue
            next_tick = min(executor.next_in() for executor in self.registry.values())
            pause = next_tick.total_seconds() + AFTER_TICK
            if found or second_look:
                second_look = False
                pause = min(pause, LONGEST_WAIT)
            else:
                second_look = True
                pause = min(pause, SECOND_LOOK)
            await self._pause(pause, heartbeats)

    async def _claim(self, running: TaskManager) -> int:
        """Start every schedule that is due; how many those are."""
        claim = asyncio.create_task(self.queries.fetch_schedule(self._next_ticks()))
        try:
            await _see_through(claim)
        finally:
            # What was claimed runs even if this task is cancelled: no other scheduler will.
            found = claim.done() and not claim.cancelled() and claim.exception() is None
            due = claim.result() if found else []
            for schedule in due:
                key = CronExpressionEntrypoint(schedule.entrypoint, schedule.expression)
                run = self.dispatch(self.registry[key], schedule)
                task = asyncio.create_task(run, name=f"schedule {schedule.entrypoint}")
                self._claimed[task] = schedule
                task.add_done_callback(self._claimed.pop)
                running.add(task)
        claim.result()
        return len(due)

    async def _pause(self, seconds: float, heartbeats: asyncio.Task[None]) -> None:
        """Wait; cut short by shutdown, and by heartbeats that ended, whose error it raises."""
        stop = asyncio.create_task(self.shutdown.wait())
        try:
            await asyncio.wait(
                {stop, heartbeats}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            await cancel_and_wait(stop)
        if heartbeats.done():
            heartbeats.result()

    @contextlib.asynccontextmanager
    async def _heartbeats(self) -> AsyncGenerator[asyncio.Task[None], None]:
        """Heartbeats for the length of the block; the last one is sent to its end."""
        done = asyncio.Event()
        task = asyncio.create_task(self._heartbeat_until(done))
        watchdog = self._start_watchdog()
        try:
            yield task
        finally:
            done.set()
            try:
                await asyncio.wait({task})
            finally:
                await cancel_and_wait(task)
                if watchdog is not None:
                    await watchdog.stop()

    def _start_watchdog(self) -> Watchdog | None:
        from pgq_fast.settings import DBSettings

        settings = self.queries.qbe.settings
        if not isinstance(settings, DBSettings):
            return None

        def renewal() -> Statement | None:
            # Copied in one step: another thread may ask.
            claimed = list(self._claimed.values())
            return schedule_renewal(settings, [each.id for each in claimed]) if claimed else None

        return start_watchdog(
            self.queries.driver, renewal, LONGEST_WAIT, self._unanswered, self._culprit
        )

    def _culprit(self, task: asyncio.Task[object] | None) -> Culprit | None:
        """The schedule whose function runs in *task*; another thread may ask."""
        schedule = None if task is None else self._claimed.get(task)
        if schedule is None:
            return None
        return Culprit(f"schedule {schedule.entrypoint}", {"schedule": schedule.entrypoint})

    async def _heartbeat_until(self, done: asyncio.Event) -> None:
        while not await wait_for_event(done, HEARTBEAT_INTERVAL):
            if not self.active_heartbeat_ids:
                continue
            try:
                with self._unanswered.asking():
                    await self.queries.update_schedule_heartbeat(set(self.active_heartbeat_ids))
            except Exception as error:
                if is_connection_lost(error) and not self._passes(error):
                    raise
                logger.exception(
                    "Schedule heartbeats failed, next attempt in %g s", HEARTBEAT_INTERVAL
                )

    async def _release(self, schedule: Schedule) -> None:
        """Make the row ``queued`` again; whatever prevents that for good is logged."""
        deadline = asyncio.get_running_loop().time() + LONGEST_WAIT
        while True:
            try:
                await self.queries.set_schedule_queued({schedule.id})
            except Exception as error:
                if self._passes(error) and asyncio.get_running_loop().time() < deadline:
                    await asyncio.sleep(FAILURE_PAUSE)
                    continue
                logger.exception(
                    "Schedule %s could not be given back: it counts as running until it had no "
                    "heartbeat for %g seconds, and then runs again",
                    schedule.entrypoint,
                    LONGEST_WAIT,
                )
            return

    def _passes(self, error: Exception) -> bool:
        """Whether to wait until *error* is over: on connections of the scheduler's own."""
        owned = getattr(self.queries.driver, "owns_connections", False)
        return bool(owned) and is_passing(error)


async def _see_through(task: asyncio.Task[Any]) -> None:
    """Wait for *task* and leave its outcome in it.

    If the caller is cancelled, *task* gets some seconds to its end before the cancellation goes on.
    """
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        try:
            await asyncio.wait({task}, timeout=CANCEL_GRACE)
        finally:
            await cancel_and_wait(task)
        raise


async def _finish(running: TaskManager) -> None:
    """Await the running schedules; cancelled meanwhile, cancel them and await their release."""
    if not running.tasks:
        return
    try:
        await asyncio.wait(running.tasks)
    except asyncio.CancelledError:
        for task in list(running.tasks):
            task.cancel()
        if running.tasks:
            await asyncio.wait(running.tasks)
        raise
