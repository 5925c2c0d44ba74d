"""Getting back to a usable connection: delays between attempts, clean-up that runs to its end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterator
from typing import Any, Final, TypeVar

__all__ = [
    "CLEANUP_TIMEOUT",
    "RECONNECT_DELAY",
    "RECONNECT_DELAY_LIMIT",
    "cancelled_once",
    "reconnect_delays",
    "to_its_end",
]

T = TypeVar("T")

# Seconds. A restart of PostgreSQL takes about a second; the limit keeps a fleet that waits for a
# server from becoming its main load.
RECONNECT_DELAY: Final = 0.05
RECONNECT_DELAY_LIMIT: Final = 5.0

# Seconds that a ROLLBACK or an UNLISTEN may take.
CLEANUP_TIMEOUT: Final = 10.0


def reconnect_delays() -> Iterator[float]:
    """Seconds to wait before each attempt to connect: growing, and different in each process."""
    ceiling = RECONNECT_DELAY
    while True:
        yield random.uniform(ceiling / 2, ceiling)
        ceiling = min(2 * ceiling, RECONNECT_DELAY_LIMIT)


async def cancelled_once(work: Coroutine[Any, Any, T]) -> T:
    """Await *work*, which sees the first cancellation of the caller and no further one.

    It is waited for all the same: what it does about a cancellation takes its time.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as request:
            if cancelled is None:
                task.cancel()
            cancelled = request
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # retrieved: the cancellation counts more
        raise cancelled
    return task.result()


async def to_its_end(work: Coroutine[Any, Any, None], timeout: float = CLEANUP_TIMEOUT) -> None:
    """Run *work* to its end even if the caller is cancelled, which takes effect afterwards.

    Raises:
        TimeoutError: It took longer than *timeout* seconds and was cancelled.
    """

    async def bounded() -> None:
        async with asyncio.timeout(timeout):
            await work

    task = asyncio.ensure_future(bounded())
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as request:
            cancelled = request
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # retrieved: the cancellation counts more
        raise cancelled
    task.result()
