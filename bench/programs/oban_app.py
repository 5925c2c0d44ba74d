"""oban for Python.

Settings: a queue's limit and the size of the pool, in its documentation of ``Oban(queues=...)`` and
``Oban.create_pool``; bulk is ``enqueue_many``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from oban import Oban, worker
from oban.schema import install as install_schema
from protocol import PAYLOAD, Producer, Ran, go, main, until_told

# Jobs of a worker are made by the library, which finds what they note here.
noted = Ran()


@worker(queue="bench")
class Bench:
    async def process(self, job: Any) -> None:
        noted.append(job.args["number"])


async def install(request: dict[str, Any]) -> None:
    pool = await Oban.create_pool(request["dsn"])
    await install_schema(pool)
    await pool.close()


@asynccontextmanager
async def producer(request: dict[str, Any]) -> AsyncIterator[Producer]:
    pool = await Oban.create_pool(request["dsn"], **request["settings"].get("pool", {}))
    oban = Oban(pool=pool)

    def job(number: int) -> Any:
        return Bench.new({"number": number, "text": PAYLOAD})

    yield Producer(
        lambda number: oban.enqueue(job(number)),
        lambda numbers: oban.enqueue_many(map(job, numbers)),
        1000,
    )
    await pool.close()


async def work(request: dict[str, Any], ran: Ran) -> None:
    global noted
    noted = ran
    settings = request["settings"]
    pool = await Oban.create_pool(request["dsn"], **settings.get("pool", {}))
    await go()
    async with Oban(pool=pool, queues={"bench": settings.get("limit", 10)}):
        await until_told(ran)
    await pool.close()


main(install, producer, work)
