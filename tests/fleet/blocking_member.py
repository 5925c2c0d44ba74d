"""A worker whose handlers block: ``python blocking_member.py DSN OPTIONS-AS-JSON``.

It owns its connections, runs until SIGTERM, and notes in the table ``blocked`` what its handlers
do. Blocking, as they are: what they await would not go on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from datetime import timedelta
from typing import Any

import psycopg

from pgq_fast.applications import PgQueuer
from pgq_fast.models import Job


async def work(dsn: str, options: dict[str, Any]) -> None:
    notes = psycopg.connect(dsn, autocommit=True)
    seconds = options["seconds"]
    pgq = PgQueuer.from_dsn(dsn, options["library"])

    def note(job: Job, event: str) -> None:
        notes.execute(
            "INSERT INTO blocked (job_id, worker, event) VALUES (%s, %s, %s)",
            (job.id, os.getpid(), event),
        )

    @pgq.entrypoint("at-once")
    async def at_once(job: Job) -> None:
        note(job, "start")
        time.sleep(seconds)  # noqa: ASYNC251
        note(job, "end")

    @pgq.entrypoint("later")
    async def later(job: Job) -> None:
        note(job, "start")
        await asyncio.sleep(0.01)
        time.sleep(seconds)  # noqa: ASYNC251
        note(job, "end")

    @pgq.entrypoint("quick")
    async def quick(job: Job) -> None:
        note(job, "start")
        note(job, "end")

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, pgq.shutdown.set)
    await pgq.run(
        dequeue_timeout=timedelta(seconds=0.3),
        batch_size=options["batch"],
        heartbeat_timeout=timedelta(seconds=options["heartbeat"]),
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    asyncio.run(work(sys.argv[1], json.loads(sys.argv[2])))
