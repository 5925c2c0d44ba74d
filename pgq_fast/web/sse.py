"""Changes of the queue, passed on to browsers as server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Final

from pydantic import ValidationError

from pgq_fast import models, types
from pgq_fast.drivers.base import Driver, ListenerRemover
from pgq_fast.logconfig import logger

__all__ = ["Broadcaster"]

KEEPALIVE: Final = 15.0
"""Seconds of silence after which a comment goes out, so that nobody on the way hangs up."""

_END: Final = ""

WAITING_EVENTS: Final = 8
"""Events that may wait for a slow reader; more say nothing new."""


@dataclasses.dataclass
class Broadcaster:
    """Tells subscribers that the queue has changed, not more often than the debounce says.

    On the lease layout the queue notifies only while somebody waits for jobs, and the dashboard
    does not have it notify for its own sake: there the pages' own interval is what counts.

    Attributes:
        driver: Listens.
        channel: The channel of the queue.
        debounce: Time in which changes become one event.
        subscribers: A queue of events for each open stream.
        flush_task: The event that is under way.
    """

    driver: Driver
    channel: types.Channel
    debounce: timedelta = timedelta(milliseconds=250)
    subscribers: set[asyncio.Queue[str]] = dataclasses.field(default_factory=set, init=False)
    flush_task: asyncio.Task[None] | None = dataclasses.field(default=None, init=False)

    async def start(self) -> None:
        """Listen."""
        await self.driver.add_listener(self.channel, self._on_notification)

    async def stop(self) -> None:
        """Stop listening, and drop the event that is under way."""
        if isinstance(self.driver, ListenerRemover):
            await self.driver.remove_listener(self.channel, self._on_notification)
        task, self.flush_task = self.flush_task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def end_streams(self) -> None:
        """Have all streams end: a server that is to end waits for them."""
        for queue in self.subscribers:
            while True:
                try:
                    queue.put_nowait(_END)
                except asyncio.QueueFull:
                    # What a slow reader has not read says nothing any more.
                    queue.get_nowait()
                else:
                    break

    def _on_notification(self, payload: str | bytes | bytearray) -> None:
        try:
            event = models.AnyEvent.model_validate_json(payload)
        except ValidationError:
            logger.debug("A notification on %s is no event of the queue", self.channel)
            return
        self.route_event(event)

    def route_event(self, envelope: models.AnyEvent) -> None:
        """Have an event sent soon if *envelope* says that jobs have changed."""
        changes = (models.TableChangedEvent, models.CancellationEvent)
        if isinstance(envelope.root, changes) and (
            self.flush_task is None or self.flush_task.done()
        ):
            self.flush_task = asyncio.create_task(
                self.flush_after_debounce(), name="pgq_fast dashboard event"
            )

    async def flush_after_debounce(self) -> None:
        """Wait, then send one event to all."""
        await asyncio.sleep(self.debounce.total_seconds())
        for queue in self.subscribers:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait("queue-change")

    async def stream(self) -> AsyncGenerator[str, None]:
        """The events for one subscriber, as text of ``text/event-stream``."""
        queue = asyncio.Queue[str](maxsize=WAITING_EVENTS)
        self.subscribers.add(queue)
        try:
            yield "retry: 3000\n\n"
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), timeout=KEEPALIVE)
                except TimeoutError:
                    yield ": keepalive\n\n"
                else:
                    if event == _END:
                        return
                    yield f"event: {event}\ndata: {{}}\n\n"
        finally:
            self.subscribers.discard(queue)
