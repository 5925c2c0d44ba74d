"""Enqueue jobs: ``python examples/producer.py [NUMBER]``."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta

import asyncpg

from pgq_fast.errors import DuplicateJobError
from pgq_fast.queries import Queries


async def produce(number: int) -> None:
    connection = await asyncpg.connect(os.environ.get("PGDSN"))
    try:
        queries = Queries.from_asyncpg_connection(connection)

        # One job: a name that some worker knows, and whatever bytes its handler understands.
        [job_id] = await queries.enqueue("greet", b"world")
        print(f"enqueued job {job_id}")

        # Many at once are one statement, and the fastest way in.
        names: list[bytes | None] = [f"guest {i}".encode() for i in range(number)]
        job_ids = await queries.enqueue(["greet"] * number, names, [0] * number)
        print(f"enqueued {len(job_ids)} more")

        # Urgent ones go first, deferred ones wait.
        await queries.enqueue("greet", b"boss", priority=10)
        await queries.enqueue("greet", b"latecomer", execute_after=timedelta(seconds=1))

        # Of jobs with the same key, one can be queued or running at a time.
        await queries.enqueue("report", None, dedupe_key="report of today")
        try:
            await queries.enqueue("report", None, dedupe_key="report of today")
        except DuplicateJobError:
            print("today's report is already on the queue")
        await queries.enqueue("report", None, dedupe_key="report of today", on_conflict="skip")
    finally:
        await connection.close()


if __name__ == "__main__":
    asyncio.run(produce(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
