"""What the tests of behaviour share: waiting, workers beside the test, a look into the tables."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any

import psycopg

from pgq_fast.models import Job
from pgq_fast.qm import QueueManager
from pgq_fast.types import QueueExecutionMode

DEADLINE = 30.0
"""Seconds that anything may take which a test waits for."""

QUIET: dict[str, Any] = {"log_aggregation_interval": timedelta(0)}


async def eventually(check: Callable[[], object | Awaitable[object]]) -> Any:
    """Wait until *check* gives something true; that."""
    async with asyncio.timeout(DEADLINE):
        while True:
            result = check()
            if inspect.isawaitable(result):
                result = await result
            if result:
                return result
            await asyncio.sleep(0.01)


class Tables:
    """The queue's tables, from outside."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], prefix: str = "") -> None:
        self._connection = connection
        self._prefix = prefix

    async def rows(self, query: str, *args: object) -> list[Any]:
        """What *query* returns; a list of values where it is one column."""
        cursor = psycopg.AsyncRawCursor(self._connection)
        await cursor.execute(query, args or None)
        if cursor.description is None:
            return []
        rows = await cursor.fetchall()
        return [row[0] for row in rows] if len(cursor.description) == 1 else rows

    async def value(self, query: str, *args: object) -> Any:
        """The one value that *query* returns."""
        (value,) = await self.rows(query, *args)
        return value

    async def count(self, status: str | None = None) -> int:
        """Number of rows in the queue table."""
        number: int = await self.value(
            f"SELECT count(*) FROM {self._prefix}pgqueuer"
            " WHERE $1::text IS NULL OR status::text = $1",
            status,
        )
        return number

    async def statuses(self, job_id: int) -> list[str]:
        """What the log says about a job, in order."""
        return await self.rows(
            f"SELECT status::text FROM {self._prefix}pgqueuer_log WHERE job_id = $1 ORDER BY id",
            job_id,
        )

    async def ended(self, status: str = "successful") -> list[int]:
        """Ids in the log with *status*, as often as they are there."""
        return await self.rows(
            f"SELECT job_id FROM {self._prefix}pgqueuer_log WHERE status::text = $1"
            " ORDER BY job_id",
            status,
        )

    async def sessions(self, application: str) -> int:
        """Number of sessions with that ``application_name``."""
        number: int = await self.value(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", application
        )
        return number


async def drain(manager: QueueManager, **arguments: Any) -> None:
    """Run *manager* until its queue is empty."""
    async with asyncio.timeout(DEADLINE):
        await manager.run(mode=QueueExecutionMode.drain, **{**QUIET, **arguments})


@contextlib.asynccontextmanager
async def working(manager: QueueManager, **arguments: Any) -> AsyncIterator[asyncio.Task[None]]:
    """Run *manager* beside the block, shut it down at its end and see that it ended well."""
    task = asyncio.create_task(manager.run(**{**QUIET, **arguments}))
    try:
        yield task
        manager.shutdown.set()
        async with asyncio.timeout(DEADLINE):
            await task
    finally:
        # A test that failed must not wait for handlers that never end.
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.wait({task}, timeout=0.2)


class Recorder:
    """A handler that remembers which jobs it ran, and how many at a time."""

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause
        self.jobs: list[Job] = []
        self.running = 0
        self.most = 0

    async def __call__(self, job: Job) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            self.jobs.append(job)
            if self.pause:
                await asyncio.sleep(self.pause)
        finally:
            self.running -= 1

    @property
    def ids(self) -> list[int]:
        return [job.id for job in self.jobs]

    @property
    def payloads(self) -> list[bytes | None]:
        return [job.payload for job in self.jobs]


class Gate:
    """A handler that blocks each job until it is let through."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.started: list[int] = []
        self.ended: list[int] = []

    async def __call__(self, job: Job) -> None:
        self.started.append(job.id)
        await self.open.wait()
        self.ended.append(job.id)


def payloads(texts: Iterable[str]) -> list[bytes | None]:
    return [text.encode() for text in texts]
