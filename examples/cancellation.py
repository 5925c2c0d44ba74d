"""Cancel a job while it runs: ``python examples/cancellation.py``."""

from __future__ import annotations

import asyncio
import os

import asyncpg

from pgq_fast import PgQueuer
from pgq_fast.models import Context, Job
from pgq_fast.queries import Queries


async def main() -> None:
    async with asyncpg.create_pool(os.environ.get("PGDSN"), min_size=2) as pool:
        queries = Queries.from_asyncpg_pool(pool)
        pgq = PgQueuer.from_asyncpg_pool(pool)
        started, ended = asyncio.Event(), asyncio.Event()

        @pgq.entrypoint("render")
        async def render(job: Job, context: Context) -> None:
            # Only what happens inside the scope is cancelled; what is outside always runs.
            with context.cancellation:
                started.set()
                await asyncio.sleep(3600)
            if context.cancellation.cancel_called:
                print("cancelled, tidying up")
            ended.set()

        worker = asyncio.create_task(pgq.run())
        [job_id] = await queries.enqueue("render", b"a long film")
        await started.wait()

        # Any process may do this; the worker that runs the job hears of it.
        await queries.mark_job_as_cancelled([job_id])
        await ended.wait()
        [(_, status)] = await queries.job_status([job_id])
        print(f"the log says {status}")

        pgq.shutdown.set()
        await worker


if __name__ == "__main__":
    asyncio.run(main())
