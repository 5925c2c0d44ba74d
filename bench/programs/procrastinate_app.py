"""procrastinate 3.

Settings: the worker's ``concurrency`` and the size of the connector's pool; bulk is
``batch_defer_async``.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from procrastinate import App, PsycopgConnector
from protocol import PAYLOAD, answer, go, main, timed, until_told

LIST = 1000
ran: list[int] = []


def make(request: dict[str, Any]) -> Any:
    pool = request["settings"].get("pool", {})
    app = App(connector=PsycopgConnector(conninfo=request["dsn"], **pool))

    @app.task(name="bench")
    async def bench(number: int, text: str) -> None:
        ran.append(number)

    return app, bench


async def install(request: dict[str, Any]) -> None:
    app, _ = make(request)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
    answer(installed=True)


async def bulk(request: dict[str, Any]) -> None:
    app, bench = make(request)

    async def work() -> None:
        for start in range(0, request["jobs"], LIST):
            numbers = range(start, min(request["jobs"], start + LIST))
            await bench.batch_defer_async(*({"number": n, "text": PAYLOAD} for n in numbers))

    async with app.open_async():
        await timed(work)


async def work(request: dict[str, Any]) -> None:
    logging.disable(logging.INFO)
    app, _ = make(request)
    async with app.open_async():
        await go()
        run = asyncio.create_task(
            app.run_worker_async(
                install_signal_handlers=False, **request["settings"].get("run", {})
            )
        )
        await until_told(ran)
        run.cancel()
        await asyncio.wait([run])
    answer(ran=ran)


main({"install": install, "bulk": bulk, "work": work})
