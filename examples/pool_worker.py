"""A worker on a pool of connections, with limits: ``python examples/pool_worker.py``."""

from __future__ import annotations

import asyncio

from pgq_fast import PgQueuer
from pgq_fast.adapters.connections import create_asyncpg_pool
from pgq_fast.models import Job
from pgq_fast.queries import Queries
from pgq_fast.types import QueueExecutionMode

IN_PARALLEL = 2


async def main() -> None:
    # PGDSN says where to connect, PGQUEUER_POOL_MAX_SIZE how often.
    async with create_asyncpg_pool() as pool:
        pgq = PgQueuer.from_asyncpg_pool(pool)
        running = most = 0

        # The mail server takes two connections from us, however many workers there are.
        @pgq.entrypoint("send mail", concurrency_limit=IN_PARALLEL)
        async def send_mail(job: Job) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.05)
            running -= 1

        number = 8
        await Queries.from_asyncpg_pool(pool).enqueue(
            ["send mail"] * number, [b"to everyone"] * number, [0] * number
        )
        await pgq.run(mode=QueueExecutionMode.drain)
        print(f"sent {number} mails, never more than {most} at once")


if __name__ == "__main__":
    asyncio.run(main())
