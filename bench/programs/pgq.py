"""pgqueuer, or pgq_fast, whose API is the same.

Settings: workers in one process, and ``batch_size`` of ``run``; bulk is ``enqueue`` with lists.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
from protocol import PAYLOAD, Producer, Ran, go, main, until_told


async def install(request: dict[str, Any]) -> None:
    library = importlib.import_module(request["package"])
    connection = await asyncpg.connect(request["dsn"])
    await library.Queries(library.AsyncpgDriver(connection)).install()
    await connection.close()


@asynccontextmanager
async def producer(request: dict[str, Any]) -> AsyncIterator[Producer]:
    library = importlib.import_module(request["package"])
    connection = await asyncpg.connect(request["dsn"])
    queries = library.Queries(library.AsyncpgDriver(connection))

    async def many(numbers: range) -> None:
        count = len(numbers)
        await queries.enqueue(["bench"] * count, list(map(payload, numbers)), [0] * count)

    yield Producer(lambda number: queries.enqueue("bench", payload(number)), many, 5000)
    await connection.close()


def payload(number: int) -> bytes:
    return f"{number:<{len(PAYLOAD)}}".encode()


async def work(request: dict[str, Any], ran: Ran) -> None:
    library = importlib.import_module(request["package"])
    settings = request["settings"]

    async def handler(job: Any) -> None:
        ran.append(int(job.payload))

    async with AsyncExitStack() as stack:
        workers = []
        for _ in range(settings.get("consumers", 1)):
            connection = await asyncpg.connect(request["dsn"])
            stack.push_async_callback(connection.close)
            worker = library.PgQueuer(library.AsyncpgDriver(connection))
            worker.entrypoint("bench")(handler)
            workers.append(worker)
        await go()
        runs = [asyncio.create_task(each.run(**settings.get("run", {}))) for each in workers]
        await until_told(ran)
        for each in workers:
            each.shutdown.set()
        await asyncio.gather(*runs)


main(install, producer, work)
