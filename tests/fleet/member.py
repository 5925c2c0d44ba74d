"""A process of the fleet: ``python member.py PACKAGE ROLE DSN OPTIONS-AS-JSON``.

PACKAGE is ``pgqueuer`` or ``pgq_fast``; both take the same code. ROLE is ``work`` or ``produce``.
A worker runs until SIGTERM and notes in the table ``fleet`` what its handlers do.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import signal
import sys
from datetime import timedelta
from typing import Any

import asyncpg


async def work(package: str, dsn: str, options: dict[str, Any]) -> None:
    applications = importlib.import_module(f"{package}.applications")
    db = importlib.import_module(f"{package}.db")
    connection = await asyncpg.connect(dsn)
    notes = await asyncpg.create_pool(dsn, min_size=1, max_size=4)
    pgq: Any = applications.PgQueuer(db.AsyncpgDriver(connection))

    async def note(job: Any, event: str) -> None:
        await notes.execute(
            "INSERT INTO fleet (job_id, kind, event) VALUES ($1, $2, $3)", job.id, package, event
        )

    async def once(job: Any) -> None:
        await note(job, "run")

    async def quick(job: Any) -> None:
        pass

    async def limited(job: Any) -> None:
        await note(job, "start")
        await asyncio.sleep(0.005)
        await note(job, "end")

    async def scope(job: Any, context: Any) -> None:
        await note(job, "start")
        with context.cancellation:
            await asyncio.sleep(120)
        await note(job, "cancelled" if context.cancellation.cancel_called else "slept")

    async def only(job: Any) -> None:
        await note(job, "run")
        if job.payload == b"fail":
            raise ValueError("as it was told to")

    async def first_blocks(job: Any) -> None:
        await note(job, "start")
        if options.get("block"):
            await asyncio.sleep(120)
        await note(job, "end")

    # Not as decorators: those have another type in each package.
    pgq.entrypoint("once")(once)
    pgq.entrypoint("quick")(quick)
    pgq.entrypoint("limited", concurrency_limit=3)(limited)
    pgq.entrypoint(f"scope-{package}", accepts_context=True)(scope)
    pgq.entrypoint(f"only-{package}")(only)
    pgq.entrypoint("first-blocks")(first_blocks)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, pgq.shutdown.set)
    await pgq.run(
        dequeue_timeout=timedelta(seconds=options.get("poll", 1)),
        batch_size=options.get("batch", 10),
        heartbeat_timeout=timedelta(seconds=options.get("heartbeat", 30)),
    )
    await notes.close()
    await connection.close()


async def produce(package: str, dsn: str, options: dict[str, Any]) -> None:
    """Enqueue ``count`` jobs: some alone, some in short lists, some in one long one."""
    queries_module = importlib.import_module(f"{package}.queries")
    db = importlib.import_module(f"{package}.db")
    connection = await asyncpg.connect(dsn)
    queries = queries_module.Queries(db.AsyncpgDriver(connection))
    name, count = options["name"], options["count"]
    alone = min(20, count)
    for _ in range(alone):
        await queries.enqueue(name, package.encode())
    rest = count - alone
    for size in (5, 5, rest - 10):
        if size > 0:
            await queries.enqueue([name] * size, [package.encode()] * size, [0] * size)
    await connection.close()


if __name__ == "__main__":
    _, package, role, dsn, options = sys.argv
    asyncio.run({"work": work, "produce": produce}[role](package, dsn, json.loads(options)))
