"""procrastinate 3.

Settings: the worker's ``concurrency`` and the size of the connector's pool; bulk is
``batch_defer_async``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from procrastinate import App, PsycopgConnector
from protocol import PAYLOAD, Producer, Ran, go, main, until_told


def make(request: dict[str, Any], ran: Ran) -> Any:
    pool = request["settings"].get("pool", {})
    app = App(connector=PsycopgConnector(conninfo=request["dsn"], **pool))

    @app.task(name="bench")
    async def bench(number: int, text: str) -> None:
        ran.append(number)

    return app, bench


async def install(request: dict[str, Any]) -> None:
    app, _ = make(request, Ran())
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


@asynccontextmanager
async def producer(request: dict[str, Any]) -> AsyncIterator[Producer]:
    app, bench = make(request, Ran())
    async with app.open_async():
        yield Producer(
            lambda number: bench.defer_async(number=number, text=PAYLOAD),
            lambda numbers: bench.batch_defer_async(
                *({"number": number, "text": PAYLOAD} for number in numbers)
            ),
            1000,
        )


async def work(request: dict[str, Any], ran: Ran) -> None:
    logging.disable(logging.INFO)
    app, _ = make(request, ran)
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


main(install, producer, work)
