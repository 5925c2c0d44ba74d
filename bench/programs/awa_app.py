"""awa-pg.

Settings: ``max_workers``, ``claim_batch_size`` and ``claimers`` of a queue, the size of the
client's pool, and ``PartitionedQueue``, in its documentation of ``start``; bulk is
``enqueue_many_copy``.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from awa import AsyncClient, PartitionedQueue
from protocol import PAYLOAD, Producer, Ran, go, main, until_told


@dataclass
class Bench:
    number: int
    text: str


def connect(request: dict[str, Any]) -> AsyncClient:
    # A host has to be named, also where another one follows, the folder of a socket.
    dsn = request["dsn"].replace("@/", "@localhost/", 1)
    return AsyncClient(dsn, **request["settings"].get("client", {}))


def partitions(request: dict[str, Any]) -> PartitionedQueue | None:
    count = request["settings"].get("partitions")
    return PartitionedQueue("bench", count) if count else None


async def install(request: dict[str, Any]) -> None:
    async with connect(request) as client:
        await client.migrate()
        # What a new installation is to have, and what enqueue_many_copy needs.
        await client.install_queue_storage()


@asynccontextmanager
async def producer(request: dict[str, Any]) -> AsyncIterator[Producer]:
    queue = partitions(request)
    turn = itertools.count()

    def route() -> dict[str, Any]:
        return queue.route_by_index(next(turn)) if queue else {"queue": "bench"}

    async with connect(request) as client:
        yield Producer(
            lambda number: client.insert(Bench(number, PAYLOAD), **route()),
            lambda numbers: client.enqueue_many_copy(
                [Bench(number, PAYLOAD) for number in numbers],
                **({"opts": [route() for _ in numbers]} if queue else route()),
            ),
            5000,
        )


async def work(request: dict[str, Any], ran: Ran) -> None:
    settings = request["settings"]
    queue = partitions(request)
    async with connect(request) as client:

        @client.task(Bench, queue=queue.physical_queues[0] if queue else "bench")
        async def bench(job: Any) -> None:
            ran.append(job.args.number)

        await go()
        if queue:
            await client.start(queue.queue_configs(**settings["queue"]))
        elif "queue" in settings:
            await client.start([{"name": "bench", **settings["queue"]}])
        else:
            await client.start()
        await until_told(ran)
        await client.shutdown()


main(install, producer, work)
