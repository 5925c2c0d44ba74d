"""Waiting for jobs to end, from outside the worker.

The log says how a job ended; the watcher asks it. When to ask, it learns from the notifications
that changes of the queue send, and from a timer, since notifications can get lost. However many
of these arrive, one query at a time asks about all jobs together, and no sooner than a debounce
time after the first reason for it.

Some queues tell of ends only while somebody wants to know. There the watcher registers before it
asks for the first time, and renews that while its block is open.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import uuid
from collections import defaultdict
from datetime import timedelta
from typing import Final

from pgq_fast._impl import notify
from pgq_fast.builders import default_settings, settings_of
from pgq_fast.drivers.base import Driver, ListenerRemover
from pgq_fast.drivers.pooling import poll_interval_of
from pgq_fast.errors import PgqException
from pgq_fast.logconfig import logger
from pgq_fast.repository import EndsPort, QueueRepositoryPort
from pgq_fast.tasks import TaskManager, wait_for_event
from pgq_fast.types import JOB_STATUS, Channel, JobId

__all__ = ["CompletionWatcher", "WatcherClosedError"]

_TERMINAL: Final[frozenset[JOB_STATUS]] = frozenset(
    {"canceled", "deleted", "exception", "successful"}
)
# A database that is restarting must not be asked at the pace of the debounce.
_PAUSE_AFTER_FAILURE: Final = timedelta(seconds=1)

REGISTERED_FOR: Final = timedelta(seconds=30)
"""A watcher whose process died is told of ends for no longer than this."""
RENEWED_AFTER: Final = timedelta(seconds=5)
"""A server that crashed has forgotten who watches; that is noticed within this time."""

# Between questions while ends are under way that nobody tells of; the pause doubles.
_FIRST_LOOK: Final = timedelta(milliseconds=10)
_LAST_LOOK: Final = timedelta(milliseconds=250)


class WatcherClosedError(PgqException, RuntimeError):
    """A job was to be waited for after the watcher's block had ended."""

    def __init__(self) -> None:
        super().__init__(
            "the CompletionWatcher has ended and asks for no status any more: "
            "call wait_for inside its 'async with' block"
        )


@dataclasses.dataclass
class CompletionWatcher:
    """Futures that resolve to the final status of jobs.

    Final are ``canceled``, ``deleted``, ``exception`` and ``successful``. A ``failed`` job is held
    and may run again, so it is not final. Of a job that ended without a trace in the log
    (``DBSettings.job_log``) nobody can tell how, and its future stays open. ::

        async with CompletionWatcher(driver, queries=queries) as watcher:
            status = await watcher.wait_for(job_id)

    Leaving the block waits for the futures that are still open; leaving it by an exception cancels
    them.

    Attributes:
        driver: Where to listen for changes of the queue.
        queries: Whom to ask for the status of jobs.
        refresh_interval: Time between questions while no notification comes; None to rely on
            notifications alone.
        debounce: Time in which notifications are collected before the question.
        waiters: The open futures, by job.
        task_manager: The watcher's background tasks.
        shutdown: Set when the block has ended.
        lock: Held while the status is asked for.
        debounce_task: The task that is to ask next; None while there is no reason to.
        refresh_requested: Whether something happened since the last question.
        id: What the watcher is registered as, where the queue keeps book.
    """

    driver: Driver
    queries: QueueRepositoryPort = dataclasses.field(kw_only=True)
    refresh_interval: timedelta | None = dataclasses.field(
        default_factory=lambda: timedelta(seconds=5)
    )
    debounce: timedelta = dataclasses.field(
        default_factory=lambda: timedelta(milliseconds=50), repr=False
    )
    waiters: defaultdict[JobId, list[asyncio.Future[JOB_STATUS]]] = dataclasses.field(
        default_factory=lambda: defaultdict(list), init=False, repr=False
    )
    task_manager: TaskManager = dataclasses.field(
        default_factory=TaskManager, init=False, repr=False
    )
    shutdown: asyncio.Event = dataclasses.field(
        default_factory=asyncio.Event, init=False, repr=False
    )
    lock: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock, init=False, repr=False)
    debounce_task: asyncio.Task[None] | None = dataclasses.field(
        default=None, init=False, repr=False
    )
    refresh_requested: bool = dataclasses.field(default=False, init=False, repr=False)
    id: uuid.UUID = dataclasses.field(default_factory=uuid.uuid4, init=False, repr=False)
    _registered: EndsPort | None = dataclasses.field(default=None, init=False, repr=False)

    async def __aenter__(self) -> CompletionWatcher:
        await self.driver.add_listener(self._channel, self._on_notification)
        try:
            await self._register()
        except BaseException:
            await self._stop_listening()
            raise
        interval = self.refresh_interval
        if (wanted := poll_interval_of(self.driver)) is not None:
            # No notification will come.
            interval = wanted if interval is None else min(interval, wanted)
        if interval is not None:
            self.task_manager.add(asyncio.create_task(self._poll(interval)))
        # Jobs waited for since before the listener was there.
        self._request_refresh()
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> bool:
        try:
            if exc_type is None:
                self._request_refresh()
                # Other tasks may still add to them.
                while waiters := self._open_waiters():
                    await asyncio.wait(waiters)
        finally:
            for waiter in self._open_waiters():
                waiter.cancel()
            # Not before: while a future is open, its notification may be lost.
            self.shutdown.set()
            await self.task_manager.gather_tasks()
            await self._unregister()
            await self._stop_listening()
        return False

    def wait_for(self, jid: JobId) -> asyncio.Future[JOB_STATUS]:
        """A future that resolves to the status in which job *jid* ends.

        The future may be cancelled, for one by ``asyncio.wait_for``, without harm to others.

        Raises:
            WatcherClosedError: The watcher's block has ended.
        """
        if self.shutdown.is_set():
            raise WatcherClosedError
        waiter: asyncio.Future[JOB_STATUS] = asyncio.get_running_loop().create_future()
        waiter.add_done_callback(functools.partial(self._forget, jid))
        self.waiters[jid].append(waiter)
        self._request_refresh()
        return waiter

    @property
    def _channel(self) -> Channel:
        """Where the queue of ``queries`` notifies, as far as it tells."""
        return (settings_of(self.queries) or default_settings()).channel

    async def _stop_listening(self) -> None:
        if isinstance(self.driver, ListenerRemover):
            await self.driver.remove_listener(self._channel, self._on_notification)

    async def _register(self) -> None:
        """Be told of ends, where nobody is unless he asks for it."""
        if not isinstance(self.queries, EndsPort) or poll_interval_of(self.driver) is not None:
            return
        since = await self.queries.watch_ends(self.id, REGISTERED_FOR)
        if since is not None:
            self._registered = self.queries
            self.task_manager.add(asyncio.create_task(self._stay_registered(self.queries, since)))

    async def _stay_registered(self, queries: EndsPort, since: int | None) -> None:
        """Renew the registration; ask about the jobs as long as not every end is told."""
        pause = _FIRST_LOOK
        while not await wait_for_event(self.shutdown, pause.total_seconds()):
            before = since
            try:
                since = await queries.watch_ends(self.id, REGISTERED_FOR, since)
            except Exception:
                logger.exception(
                    "Could not renew the registration for ends of jobs; trying again in %s",
                    RENEWED_AFTER,
                )
                pause = RENEWED_AFTER
                continue
            if since is not None:
                pause = min(2 * pause, _LAST_LOOK) if before == since else _FIRST_LOOK
            else:
                pause = RENEWED_AFTER
            if before is not None or since is not None:
                self._request_refresh()

    async def _unregister(self) -> None:
        queries, self._registered = self._registered, None
        if queries is None:
            return
        try:
            await queries.unwatch_ends(self.id)
        except Exception as error:
            # It is over by itself before long.
            logger.debug("Could not take back the registration for ends of jobs: %s", error)

    def _open_waiters(self) -> list[asyncio.Future[JOB_STATUS]]:
        return [
            waiter for waiters in self.waiters.values() for waiter in waiters if not waiter.done()
        ]

    def _forget(self, jid: JobId, waiter: asyncio.Future[JOB_STATUS]) -> None:
        """Ask no more on behalf of a future that is done."""
        waiters = self.waiters.get(jid, [])
        if waiter in waiters:
            waiters.remove(waiter)
        if not waiters:
            self.waiters.pop(jid, None)

    def _on_notification(self, payload: str | bytes | bytearray) -> None:
        try:
            kind, _ = notify.parse_event(payload)
        except ValueError as error:
            logger.debug("Ignored a notification on %s: %s", self._channel, error)
            return
        if kind == "table_changed_event":
            self._request_refresh()

    def _request_refresh(self) -> None:
        self.refresh_requested = True
        if self.debounce_task is None or self.debounce_task.done():
            self.debounce_task = asyncio.create_task(self._refresh_while_requested())
            self.task_manager.add(self.debounce_task)

    async def _refresh_while_requested(self) -> None:
        """Ask, and ask again if there was a reason to meanwhile.

        Invariant: while a future is open and something happened since the last answer, a task is
        in here. So a failing question is repeated, and the futures stay open until it is answered.
        """
        pause = self.debounce
        while self.refresh_requested:
            await wait_for_event(self.shutdown, pause.total_seconds())
            self.refresh_requested = False
            pause = self.debounce
            try:
                await self._refresh()
            except Exception:
                if self.shutdown.is_set():
                    return
                logger.exception(
                    "Could not ask for the status of %d job(s); trying again in %s",
                    len(self.waiters),
                    _PAUSE_AFTER_FAILURE,
                )
                self.refresh_requested = True
                pause = max(self.debounce, _PAUSE_AFTER_FAILURE)

    async def _poll(self, interval: timedelta) -> None:
        while not await wait_for_event(self.shutdown, interval.total_seconds()):
            self._request_refresh()

    async def _refresh(self) -> None:
        """Resolve the futures of jobs that have ended."""
        async with self.lock:
            if not self.waiters:
                return
            for jid, status in await self.queries.job_status(list(self.waiters)):
                if status in _TERMINAL:
                    for waiter in self.waiters.pop(jid, []):
                        if not waiter.done():
                            waiter.set_result(status)
