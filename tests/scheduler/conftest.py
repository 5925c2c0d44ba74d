"""Tools for tests that wait for a scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import pytest

from pgq_fast.sm import SchedulerManager

Eventually: TypeAlias = Callable[[Callable[[], bool | Awaitable[bool]]], Awaitable[None]]
Running: TypeAlias = Callable[[SchedulerManager], AbstractAsyncContextManager["asyncio.Task[None]"]]


@pytest.fixture
def eventually() -> Eventually:
    """``await eventually(condition)``: poll until it holds, fail after half a minute."""

    async def wait(condition: Callable[[], bool | Awaitable[bool]]) -> None:
        deadline = time.monotonic() + 30
        while True:
            held = condition()
            if held if isinstance(held, bool) else await held:
                return
            assert time.monotonic() < deadline, "the condition did not come true"
            await asyncio.sleep(0.02)

    return wait


@pytest.fixture
def running() -> Running:
    """``async with running(manager)``: the scheduler runs in the block, and ends well after it."""

    @contextlib.asynccontextmanager
    async def run(manager: SchedulerManager) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(manager.run())
        try:
            yield task
        finally:
            manager.shutdown.set()
            await asyncio.wait({task})
        await task

    return run
