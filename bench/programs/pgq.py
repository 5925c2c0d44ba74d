"""pgqueuer, or pgq_fast, whose API is the same."""

from __future__ import annotations

import asyncio
import importlib
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
from protocol import PAYLOAD, answer, go, main, timed, until_told

LIST = 5000


async def install(request: dict[str, Any]) -> None:
    library = importlib.import_module(request["package"])
    connection = await asyncpg.connect(request["dsn"])
    await library.Queries(library.AsyncpgDriver(connection)).install()
    await connection.close()
    answer(installed=True)


async def bulk(request: dict[str, Any]) -> None:
    library = importlib.import_module(request["package"])
    connection = await asyncpg.connect(request["dsn"])
    queries = library.Queries(library.AsyncpgDriver(connection))

    async def work() -> None:
        for start in range(0, request["jobs"], LIST):
            numbers = range(start, min(request["jobs"], start + LIST))
            payloads = [f"{number:<32}".encode() for number in numbers]
            count = len(payloads)
            await queries.enqueue(["bench"] * count, payloads, [0] * count)

    await timed(work)
    await connection.close()


async def work(request: dict[str, Any]) -> None:
    library = importlib.import_module(request["package"])
    settings = request["settings"]
    ran: list[int] = []

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
    answer(ran=ran)


assert len(PAYLOAD) == len(f"{0:<32}")
main({"install": install, "bulk": bulk, "work": work})
