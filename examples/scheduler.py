"""Functions on cron expressions: ``python examples/scheduler.py [TICKS]``.

Start it several times: each tick still runs once. It ends after some ticks; a real one would be
run by ``pgq run`` and never end.
"""

from __future__ import annotations

import asyncio
import os
import sys

import asyncpg

from pgq_fast.db import AsyncpgDriver
from pgq_fast.models import Schedule, ScheduleContext
from pgq_fast.queries import Queries
from pgq_fast.sm import SchedulerManager


async def main(ticks: int) -> None:
    connection = await asyncpg.connect(os.environ.get("PGDSN"))
    try:
        queries = Queries(AsyncpgDriver(connection))
        manager = SchedulerManager(queries, resources={"left": ticks})

        # Five fields, in UTC. What the name stood for in earlier versions is forgotten.
        @manager.schedule("clean up", "30 3 * * *", clean_old=True)
        async def clean_up(schedule: Schedule) -> None:
            print("cleaned up")

        # The sixth field counts seconds.
        @manager.schedule("watch", "* * * * * */2")
        async def watch(schedule: Schedule, context: ScheduleContext) -> None:
            left = context.resources["left"]
            assert isinstance(left, int)
            print(f"watching, last time at {schedule.last_run}")
            context.resources["left"] = left - 1
            if left == 1:
                manager.shutdown.set()

        await manager.run()
    finally:
        await connection.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
