"""A producer and a worker, each on connections of its own, whose jobs end in every way."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeAlias

import pytest_asyncio

from pgq_fast import PgQueuer, RetryRequested
from pgq_fast.models import Context, Job
from pgq_fast.queries import Queries
from pgq_fast.types import JobId, QueueExecutionMode
from support.drivers import MakeDriver

OUTCOMES = {
    "quick": ["successful"],
    "failing": ["exception"],
    "again": ["retried", "successful"],
    "waiting": ["canceled"],
}
"""How the runs of each entrypoint's job end, in order."""


@dataclasses.dataclass
class Traced:
    """Both ends of a queue."""

    producer: Queries
    worker: PgQueuer

    async def enqueue(self, *entrypoints: str) -> dict[str, JobId]:
        """A job of each of *entrypoints*, one call for all; their ids."""
        ids = await self.producer.enqueue(
            list(entrypoints), [b"payload"] * len(entrypoints), [0] * len(entrypoints)
        )
        return {name: id_ for name, id_ in zip(entrypoints, ids, strict=True) if id_ is not None}

    async def drain(self) -> None:
        """Run what is there."""
        await self.worker.run(mode=QueueExecutionMode.drain)


MakeTraced: TypeAlias = Callable[[Any], Awaitable[Traced]]


@pytest_asyncio.fixture
async def traced(make_driver: MakeDriver, queue_dsn: str) -> MakeTraced:
    """``await traced(tracer)``: a producer and a worker with that tracer."""

    async def make(tracer: Any) -> Traced:
        worker = PgQueuer(await make_driver("asyncpg-pool", queue_dsn))
        worker.qm.tracer = tracer
        both = Traced(Queries(await make_driver("asyncpg-pool", queue_dsn), tracer=tracer), worker)

        @worker.entrypoint("quick")
        async def quick(job: Job) -> None:
            pass

        @worker.entrypoint("failing")
        async def failing(job: Job) -> None:
            await asyncio.sleep(0)
            raise ValueError("broken")

        @worker.entrypoint("again")
        async def again(job: Job) -> None:
            if job.attempts == 0:
                raise RetryRequested(timedelta(0), "not yet")

        @worker.entrypoint("waiting")
        async def waiting(job: Job, context: Context) -> None:
            with context.cancellation:
                await both.producer.mark_job_as_cancelled([job.id])
                await asyncio.Event().wait()

        return both

    return make
