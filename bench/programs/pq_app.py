"""python-pq.

Settings: ``concurrency`` of ``run_worker``. There is no call for many jobs, so bulk is the same as
one after the other. Each job runs in a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from loguru import logger
from pq import PQ
from protocol import PAUSE, PAYLOAD, Producer, Shared, answer, go_blocking, main

noted = cache(Shared)


def connect(request: dict[str, Any]) -> PQ:
    # By the driver that the library brings: SQLAlchemy's own choice is another one by now. And
    # without anything to escape in it, which its migrations would take for a reference.
    parts = urlsplit(request["dsn"])
    for name, value in parse_qsl(parts.query):
        os.environ[f"PG{name.upper()}"] = value
    return PQ(urlunsplit(parts._replace(scheme="postgresql+psycopg2", query="")))


def bench(number: int, text: str) -> None:
    noted().append(number)


async def install(request: dict[str, Any]) -> None:
    connect(request).run_db_migrations()


@asynccontextmanager
async def producer(request: dict[str, Any]) -> AsyncIterator[Producer]:
    client = connect(request)

    def enqueue(numbers: range) -> None:
        for number in numbers:
            client.enqueue(bench, number=number, text=PAYLOAD)

    # As many at once as the client has connections.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(15))
    yield Producer(
        lambda number: asyncio.to_thread(enqueue, range(number, number + 1)),
        lambda numbers: asyncio.to_thread(enqueue, numbers),
        1000,
    )
    client.close()


def work(request: dict[str, Any], ran: Shared) -> None:
    logger.remove()
    client = connect(request)
    stopped = threading.Event()

    def read() -> None:
        sys.stdin.readline()
        stopped.set()

    def report() -> None:
        told = 0
        while not stopped.wait(PAUSE):
            if (count := len(ran)) != told:
                told = count
                answer(count=told, at=time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    go_blocking()
    for target in (read, report):
        threading.Thread(target=target, daemon=True).start()
    client.run_worker(**request["settings"].get("run", {}))


if __name__ == "__main__":
    # What a job names has to be importable under that name where it runs.
    sys.modules["pq_app"] = sys.modules["__main__"]
    bench.__module__ = "pq_app"
    main(install, producer, work, shared=True)
