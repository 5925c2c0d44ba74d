"""oban for Python.

Settings: a queue's limit and the size of the pool, in its documentation of ``Oban(queues=...)`` and
``Oban.create_pool``; bulk is ``enqueue_many``.
"""

from __future__ import annotations

from typing import Any

from oban import Oban, worker
from oban.schema import install as install_schema
from protocol import PAYLOAD, answer, go, main, timed, until_told

LIST = 1000
ran: list[int] = []


@worker(queue="bench")
class Bench:
    async def process(self, job: Any) -> None:
        ran.append(job.args["number"])


async def install(request: dict[str, Any]) -> None:
    pool = await Oban.create_pool(request["dsn"])
    await install_schema(pool)
    await pool.close()
    answer(installed=True)


async def bulk(request: dict[str, Any]) -> None:
    pool = await Oban.create_pool(request["dsn"])
    oban = Oban(pool=pool)

    async def work() -> None:
        for start in range(0, request["jobs"], LIST):
            numbers = range(start, min(request["jobs"], start + LIST))
            await oban.enqueue_many(Bench.new({"number": n, "text": PAYLOAD}) for n in numbers)

    await timed(work)
    await pool.close()


async def work(request: dict[str, Any]) -> None:
    pool = await Oban.create_pool(request["dsn"])
    await go()
    async with Oban(pool=pool, queues={"bench": request["settings"].get("limit", 10)}):
        await until_told(ran)
    await pool.close()
    answer(ran=ran)


main({"install": install, "bulk": bulk, "work": work})
