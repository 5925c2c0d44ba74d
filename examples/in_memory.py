"""The queue without a database: ``python examples/in_memory.py``.

Meant for tests, and for batches that one process works through: nothing outlives the process.
"""

from __future__ import annotations

import asyncio

from pgq_fast import PgQueuer
from pgq_fast.models import Job
from pgq_fast.types import QueueExecutionMode


async def main() -> None:
    pgq = PgQueuer.in_memory()
    total = 0

    @pgq.entrypoint("add")
    async def add(job: Job) -> None:
        nonlocal total
        total += int(job.payload or b"0")

    assert pgq.queries is not None
    numbers = range(1, 101)
    await pgq.queries.enqueue(
        ["add"] * len(numbers), [str(n).encode() for n in numbers], [0] * len(numbers)
    )
    await pgq.run(mode=QueueExecutionMode.drain)
    print(f"the sum is {total}")


if __name__ == "__main__":
    asyncio.run(main())
