"""Small tools for background asyncio tasks."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator
from typing import TypeVar

from pgq_fast.logconfig import logger

T = TypeVar("T")


async def cancel_and_wait(task: asyncio.Task[T]) -> None:
    """Cancel *task*, wait for its end, drop its outcome.

    A cancellation of the caller meanwhile is the caller's own and still propagates.
    """
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


@contextlib.asynccontextmanager
async def cancel_on_exit(task: asyncio.Task[T]) -> AsyncGenerator[asyncio.Task[T], None]:
    """Own *task* for the length of the block; its outcome is dropped at the end."""
    try:
        yield task
    finally:
        await cancel_and_wait(task)


async def wait_for_event(event: asyncio.Event, timeout: float) -> bool:
    """Wait up to *timeout* seconds for *event*; True if it is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await event.wait()
    return event.is_set()


@dataclasses.dataclass
class TaskManager:
    """A set of background tasks: failures are logged, leaving the block awaits them all."""

    tasks: set[asyncio.Task[object]] = dataclasses.field(default_factory=set, init=False)

    def add(self, task: asyncio.Task[object]) -> None:
        """Keep a reference to *task* until it is done."""
        self.tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[object]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("Background task %s failed", task.get_name(), exc_info=error)

    async def gather_tasks(self, return_exceptions: bool = True) -> list[object]:
        """Wait for the tasks that are running now; their results or exceptions."""
        return list(await asyncio.gather(*self.tasks, return_exceptions=return_exceptions))

    async def __aenter__(self) -> TaskManager:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.gather_tasks()
