"""chancy.

Settings: the queue's executor, ``concurrency`` and ``eager_polling``, in its documentation of
``Queue`` and of executors; bulk is ``push_many``.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import chancy_jobs
from chancy import Chancy, Job, Queue, Worker
from protocol import PAYLOAD, Producer, Shared, go, main, until_told


def make(request: dict[str, Any]) -> Chancy:
    return Chancy(request["dsn"], **request["settings"].get("app", {}))


async def install(request: dict[str, Any]) -> None:
    async with Chancy(request["dsn"]) as app:
        await app.migrate()


@asynccontextmanager
async def producer(request: dict[str, Any]) -> AsyncIterator[Producer]:
    function = chancy_jobs.waiting if request["settings"].get("async") else chancy_jobs.blocking

    def job(number: int) -> Job:
        return Job.from_func(function, kwargs={"number": number, "text": PAYLOAD})

    async with make(request) as app:

        async def many(numbers: range) -> None:
            async for _ in app.push_many(list(map(job, numbers))):
                pass

        yield Producer(lambda number: app.push(job(number)), many, 5000)


async def work(request: dict[str, Any], ran: Shared) -> None:
    logging.disable(logging.INFO)
    settings = request["settings"]
    options = dict(settings.get("queue", {}))
    if settings.get("async"):
        options["executor"] = Chancy.Executor.Async
    async with make(request) as app:
        await app.declare(Queue("default", **options), upsert=True)
        await go()
        async with Worker(app, register_signal_handlers=False):
            await until_told(ran)


if __name__ == "__main__":
    main(install, producer, work, shared=True)
