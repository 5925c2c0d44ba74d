"""Retry failed jobs: ``python examples/retry.py``.

The wait between two attempts is spent in the database: it outlives the worker, and any worker may
make the next attempt.
"""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

import asyncpg

from pgq_fast import PgQueuer
from pgq_fast.errors import RetryRequested
from pgq_fast.executors import DatabaseRetryEntrypointExecutor, EntrypointExecutorParameters
from pgq_fast.models import Job
from pgq_fast.queries import Queries
from pgq_fast.types import QueueExecutionMode


def patient(parameters: EntrypointExecutorParameters) -> DatabaseRetryEntrypointExecutor:
    """Up to four retries, after 50, 100, 200 and 400 ms; the fifth failure is final."""
    return DatabaseRetryEntrypointExecutor(
        parameters, max_attempts=4, initial_delay=timedelta(milliseconds=50)
    )


async def main() -> None:
    async with asyncpg.create_pool(os.environ.get("PGDSN"), min_size=2) as pool:
        pgq = PgQueuer.from_asyncpg_pool(pool)
        queries = Queries.from_asyncpg_pool(pool)

        # Any failure is a reason to try again.
        @pgq.entrypoint("fetch", executor_factory=patient)
        async def fetch(job: Job) -> None:
            if job.attempts < 2:
                raise ConnectionError("the other side is down")
            print(f"fetched after {job.attempts} retries")

        # The handler knows by itself when to come back.
        @pgq.entrypoint("poll")
        async def poll(job: Job) -> None:
            if job.attempts < 1:
                raise RetryRequested(timedelta(milliseconds=100), "not ready yet")
            print(f"ready after {job.attempts} retry")

        await queries.enqueue(["fetch", "poll"], [None, None], [0, 0])
        await pgq.run(mode=QueueExecutionMode.drain)


if __name__ == "__main__":
    asyncio.run(main())
