"""Wait until jobs are done: ``python examples/completion.py``."""

from __future__ import annotations

import asyncio
import os

import asyncpg

from pgq_fast import PgQueuer
from pgq_fast.core.completion import CompletionWatcher
from pgq_fast.db import AsyncpgPoolDriver
from pgq_fast.models import Job
from pgq_fast.queries import Queries


async def main() -> None:
    async with asyncpg.create_pool(os.environ.get("PGDSN"), min_size=2) as pool:
        driver = AsyncpgPoolDriver(pool)
        queries = Queries(driver)
        pgq = PgQueuer(driver)

        @pgq.entrypoint("divide")
        async def divide(job: Job) -> None:
            100 / int(job.payload or b"0")

        worker = asyncio.create_task(pgq.run())
        divisors = ["5", "4", "0"]
        job_ids = await queries.enqueue(
            ["divide"] * 3, [each.encode() for each in divisors], [0] * 3
        )

        # Listens for changes of the queue, and asks in intervals in case one gets lost.
        async with CompletionWatcher(driver, queries=queries) as watcher:
            statuses = await asyncio.gather(*map(watcher.wait_for, job_ids))

        for divisor, status in zip(divisors, statuses, strict=True):
            print(f"100 / {divisor}: {status}")

        pgq.shutdown.set()
        await worker


if __name__ == "__main__":
    asyncio.run(main())
