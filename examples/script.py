"""A script for a batch of work that may be broken off: ``python examples/script.py FILE...``.

It counts lines, a job for each file. Break it off, and start it again: it goes on with the files
that are left. Start it in several terminals, and they share the work.
"""

from __future__ import annotations

import asyncio
import os
import sys

import asyncpg

from pgq_fast import PgQueuer
from pgq_fast.models import Job
from pgq_fast.queries import Queries
from pgq_fast.types import QueueExecutionMode


def count_lines(path: str) -> int:
    with open(path, "rb") as file:
        return sum(1 for _ in file)


async def main(paths: list[str]) -> None:
    connection = await asyncpg.connect(os.environ.get("PGDSN"))
    try:
        pgq = PgQueuer.from_asyncpg_connection(connection)

        @pgq.entrypoint("count lines")
        async def count(job: Job) -> None:
            path = (job.payload or b"").decode()
            # Reading blocks, so it is done in a thread.
            print(f"{path}: {await asyncio.to_thread(count_lines, path)} lines")

        # By the key, a file that is on the queue from an earlier start is left out.
        ids = await Queries.from_asyncpg_connection(connection).enqueue(
            ["count lines"] * len(paths),
            [path.encode() for path in paths],
            [0] * len(paths),
            dedupe_key=[f"count lines of {path}" for path in paths],
            on_conflict="skip",
        )
        print(f"{sum(job_id is not None for job_id in ids)} of {len(paths)} files are new")
        await pgq.run(mode=QueueExecutionMode.drain)
    finally:
        await connection.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
