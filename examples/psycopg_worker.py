"""A worker on a psycopg connection: ``python examples/psycopg_worker.py``."""

from __future__ import annotations

import asyncio
import os

import psycopg

from pgq_fast import PgQueuer
from pgq_fast.db import PsycopgDriver
from pgq_fast.models import Job
from pgq_fast.queries import Queries
from pgq_fast.types import QueueExecutionMode


async def main() -> None:
    dsn = os.environ.get("PGDSN", "")
    # Autocommit: what a worker does has to be visible to the others at once.
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        driver = PsycopgDriver(connection)
        pgq = PgQueuer(driver)

        @pgq.entrypoint("resize")
        async def resize(job: Job) -> None:
            # Work that blocks belongs into a thread: all handlers share one event loop.
            size = await asyncio.to_thread(len, job.payload or b"")
            print(f"resized an image of {size} bytes")

        await Queries(driver).enqueue("resize", b"\x89PNG")
        await pgq.run(mode=QueueExecutionMode.drain)


if __name__ == "__main__":
    asyncio.run(main())
