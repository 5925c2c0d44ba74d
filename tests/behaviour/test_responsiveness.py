"""Whoever shares the event loop with a busy worker gets their turn in time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from behaviour.helpers import block, drain
from pgq_fast.models import Job
from pgq_fast.qm import QueueManager

# Nothing of this is in a kernel.
pytestmark = [pytest.mark.layouts, pytest.mark.impl_agnostic]

PERIOD: Final = 0.010
LATE: Final = 0.015
"""Seconds that a timer may be late."""

SELDOM: Final = 0.1
"""Share of the timers that may be late all the same: rows are read by the batch, and garbage is
collected when it suits. Handlers that are run a batch at a time make it twice as many."""


@pytest.fixture(params=["asyncpg", "psycopg"])
def kind(request: pytest.FixtureRequest) -> str:
    """Rows are read in their libraries, which is work on the event loop too."""
    name: str = request.param
    return name


@contextlib.asynccontextmanager
async def timers() -> AsyncIterator[list[float]]:
    """Sleep and sleep again beside the block; by how much each sleep was too long.

    Counted in time that this thread worked: what the machine gave to other processes meanwhile is
    not the worker's fault.
    """
    lateness: list[float] = []

    async def tick() -> None:
        while True:
            due = time.perf_counter() + PERIOD
            worked = time.thread_time()
            await asyncio.sleep(PERIOD)
            late = time.perf_counter() - due
            lateness.append(min(late, time.thread_time() - worked - PERIOD))

    task = asyncio.create_task(tick())
    try:
        yield lateness
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.mark.parametrize(
    ("seconds", "count", "arguments"),
    [
        (0.0, 20_000, {}),
        (0.0, 20_000, {"batch_size": 1000}),
        # A batch of these takes 50 ms.
        (0.000_05, 6_000, {"batch_size": 1000}),
    ],
    ids=["default", "large batches", "large batches of some work"],
)
async def test_timers_are_in_time_beside_a_busy_worker(
    manager: QueueManager, seconds: float, count: int, arguments: dict[str, Any]
) -> None:
    ended = 0

    @manager.entrypoint("e")
    async def handler(job: Job) -> None:
        nonlocal ended
        if seconds:
            block(seconds)
        ended += 1

    await manager.queries.enqueue(["e"] * count, [None] * count, [0] * count)
    async with timers() as lateness:
        await drain(manager, **arguments)
    assert ended == count
    assert len(lateness) >= 10
    late = [each for each in lateness if each > LATE]
    assert len(late) <= max(1, SELDOM * len(lateness)), f"{sorted(late)} of {len(lateness)}"
