"""Run the jobs of ``producer.py``.

``python examples/consumer.py`` ends when the queue is empty; ``pgq run examples.consumer:main``
runs until it is told to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import asyncpg

from pgq_fast import PgQueuer
from pgq_fast.models import Job
from pgq_fast.types import QueueExecutionMode


@contextlib.asynccontextmanager
async def main() -> AsyncIterator[PgQueuer]:
    """A factory: makes the worker, and cleans up after it."""
    connection = await asyncpg.connect(os.environ.get("PGDSN"))
    try:
        pgq = PgQueuer.from_asyncpg_connection(connection)

        @pgq.entrypoint("greet")
        async def greet(job: Job) -> None:
            name = job.payload.decode() if job.payload else "nobody"
            print(f"hello, {name}")

        @pgq.entrypoint("report")
        async def report(job: Job) -> None:
            print(f"report written by job {job.id}")

        yield pgq
    finally:
        await connection.close()


async def drain() -> None:
    async with main() as pgq:
        await pgq.run(mode=QueueExecutionMode.drain)


if __name__ == "__main__":
    asyncio.run(drain())
