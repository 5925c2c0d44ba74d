"""Trial runs on a server of the user's: a queue of their own, and how fast jobs go through it.

Everything is in a schema that is removed afterwards, and done through the public API, as any
program would use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Final, Literal, TypeAlias

from pgq_fast.applications import PgQueuer
from pgq_fast.builders import (
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgq_fast.choices import Layout
from pgq_fast.connections import connect_asyncpg, connect_psycopg
from pgq_fast.db import AsyncpgDriver, PsycopgDriver
from pgq_fast.drivers.base import Driver
from pgq_fast.errors import PgqException
from pgq_fast.logconfig import logger
from pgq_fast.loops import run_in_loop
from pgq_fast.models import Job
from pgq_fast.queries import Queries
from pgq_fast.settings import ConnectionSettings, DBSettings
from pgq_fast.types import Channel, QueueExecutionMode

__all__ = [
    "DriverName",
    "TrialError",
    "cheap_commits",
    "connect",
    "drain",
    "enqueue_all",
    "queries_on",
    "temporary_schema",
    "worker_on",
]

DriverName: TypeAlias = Literal["asyncpg", "psycopg"]

Counted: TypeAlias = Callable[[int], None]
"""Gets how many jobs have been done so far."""

ENTRYPOINT: Final = "trial"

ENQUEUE_CHUNK: Final = 5_000
"""Jobs of one call to enqueue: few enough for a progress bar to move."""

PAYLOAD_BYTES: Final = 32
"""A job's payload is its number, at a size that is ordinary for a reference to something."""

DURABILITY: Final = ("fsync", "synchronous_commit", "full_page_writes")
"""Settings of the server that make commits cheaper when they are off."""

REFRESH: Final = 0.1
"""Seconds between two looks at how many jobs have run."""


class TrialError(PgqException, RuntimeError):
    """Jobs did not run once each."""


def cheap_commits(settings: Mapping[str, object]) -> list[str]:
    """What is to be held against figures of a server with these *settings*."""
    return [
        f"{name} is off: commits are cheaper here than where data must survive a crash"
        for name in DURABILITY
        if settings[name] == "off"
    ]


@contextlib.asynccontextmanager
async def connect(kind: DriverName, dsn: str | None) -> AsyncIterator[Driver]:
    """A driver on a connection of its own.

    Args:
        kind: The library.
        dsn: Where to connect; None: as the environment says.
    """
    pooling = ConnectionSettings().transaction_pooling
    if kind == "asyncpg":
        async with (
            connect_asyncpg(dsn) as connection,
            AsyncpgDriver(connection, transaction_pooling=pooling) as driver,
        ):
            yield driver
    else:
        async with (
            connect_psycopg(dsn) as psycopg_connection,
            PsycopgDriver(psycopg_connection, transaction_pooling=pooling) as psycopg_driver,
        ):
            yield psycopg_driver


def queries_on(driver: Driver, settings: DBSettings) -> Queries:
    """Queries whose tables are those of *settings*, whatever the environment says."""
    return Queries(
        driver,
        qbe=QueryBuilderEnvironment(settings),
        qbq=QueryQueueBuilder(settings),
        qbs=QuerySchedulerBuilder(settings),
    )


def worker_on(driver: Driver, settings: DBSettings) -> PgQueuer:
    """A worker on the tables and the channel of *settings*."""
    return PgQueuer(driver, channel=settings.channel, queries=queries_on(driver, settings))


@contextlib.contextmanager
def temporary_schema(
    stem: str, kind: DriverName, dsn: str | None, layout: Layout
) -> Iterator[DBSettings]:
    """An installation in a schema of its own, which is dropped when the block ends.

    Args:
        stem: How the schema's name begins.
        kind: The library to connect with.
        dsn: Where; None: as the environment says.
        layout: The tables to install.

    Yields:
        The settings of everything in there.
    """
    name = f"{stem}_{secrets.token_hex(4)}"
    # The channel is the database's, not the schema's: its own name wakes no other workers.
    settings = DBSettings(db_schema=name, channel=Channel(name), layout=layout)

    async def install() -> None:
        async with connect(kind, dsn) as driver:
            await queries_on(driver, settings).install()

    async def drop() -> None:
        async with connect(kind, dsn) as driver:
            await driver.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")

    try:
        run_in_loop(install())
        yield settings
        run_in_loop(drop())
    except BaseException:
        # In a loop and a connection of its own: an interrupt may have cut off the others.
        try:
            run_in_loop(drop())
        except BaseException:
            # What happened first matters more.
            logger.warning("The schema %s may be left over: drop it", name)
        raise


async def enqueue_all(driver: Driver, settings: DBSettings, jobs: int, counted: Counted) -> float:
    """Enqueue the numbers below *jobs* in lists; seconds."""
    queries = queries_on(driver, settings)
    began = time.perf_counter()
    for first in range(0, jobs, ENQUEUE_CHUNK):
        numbers = range(first, min(first + ENQUEUE_CHUNK, jobs))
        payloads: list[bytes | None] = [b"%0*d" % (PAYLOAD_BYTES, n) for n in numbers]
        await queries.enqueue([ENTRYPOINT] * len(numbers), payloads, [0] * len(numbers))
        counted(numbers.stop)
    return time.perf_counter() - began


async def drain(
    driver: Driver, settings: DBSettings, jobs: int, batch_size: int | None, counted: Counted
) -> float:
    """Run what :func:`enqueue_all` has enqueued until nothing is left; seconds.

    Args:
        driver: The worker's.
        settings: Those of the queue.
        jobs: How many there are.
        batch_size: Jobs claimed at a time; None: as many as suit the handlers.
        counted: Called now and then.

    Raises:
        TrialError: Some did not run, or not only once.
    """
    runs = [0] * jobs
    total = 0
    worker = worker_on(driver, settings)

    @worker.entrypoint(ENTRYPOINT)
    async def run(job: Job) -> None:
        nonlocal total
        assert job.payload is not None
        runs[int(job.payload)] += 1
        total += 1

    began = time.perf_counter()
    # Beside the handlers, which only count.
    async with _telling(counted, lambda: total):
        await worker.run(mode=QueueExecutionMode.drain, batch_size=batch_size)
    seconds = time.perf_counter() - began

    if any(count != 1 for count in runs):
        raise TrialError(
            f"of {jobs} jobs {runs.count(0)} never ran and {sum(count > 1 for count in runs)} ran "
            "more than once: run it again, and if that repeats, report it"
        )
    return seconds


@contextlib.asynccontextmanager
async def _telling(counted: Counted, count: Callable[[], int]) -> AsyncIterator[None]:
    async def follow() -> None:
        while True:
            counted(count())
            await asyncio.sleep(REFRESH)

    follower = asyncio.create_task(follow())
    try:
        yield
    finally:
        follower.cancel()
        counted(count())
