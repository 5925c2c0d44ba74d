"""Processes that faults are done to: ``python -m faults.programs ROLE OPTIONS-AS-JSON``.

ROLE is ``work`` or ``produce``. Both run until SIGTERM and keep a journal: a line for each thing
that happened, written at once, so that it is there however the process ends. It needs no database,
which is what the faults are about. Times are those of the monotonic clock, which all processes
share.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from faults.pulse import watch
from pgq_fast import supervisor
from pgq_fast.applications import PgQueuer
from pgq_fast.drivers.owned import OwnedDriver
from pgq_fast.errors import RetryRequested
from pgq_fast.logsetup import setup_logging
from pgq_fast.models import Job
from pgq_fast.queries import Queries
from pgq_fast.settings import ConnectionSettings

MIX: Final = {
    "plain": 40,
    "eager": 25,
    "limited": 10,
    "flaky": 8,
    "failing": 5,
    "holding": 4,
    "slow": 4,
    "later": 4,
}
"""Entrypoints of the load, with how often each comes."""

SLOW: Final = 1.0
"""Seconds that a job of ``slow`` takes, so that some run at every moment."""

PADDING: Final = (0, 0, 0, 40, 3000)
"""Bytes that payloads have beside their token, up to more than a network packet takes."""

ROOM: Final = 200 * 2**20
"""Bytes that are left for a handler to exhaust."""

Handler = Callable[[Job], Awaitable[None]]


class Journal:
    """Lines of JSON at the end of a file, one system call each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def note(self, what: str, *facts: object) -> None:
        line = json.dumps([what, time.monotonic(), *facts], separators=(",", ":"))
        if self._file is None:
            # Not before: others wait for it.
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(self._file, line.encode() + b"\n")


def watch_over(journal: Journal, parent: int) -> None:
    """Note pauses of this process, and end it when *parent* is no longer there."""

    def is_orphan() -> bool:
        if os.getppid() != parent:
            os._exit(3)
        return False

    watch(lambda begin, end: journal.note("pause", begin, end), is_orphan)


@contextlib.asynccontextmanager
async def queue_on(options: dict[str, Any]) -> AsyncIterator[PgQueuer]:
    """A worker on the kind of driver that is asked for; the user's connections are closed after."""
    kind, dsn = options["driver"], options["dsn"]
    # Behind a pooler, with a way past it for what listens.
    listen_dsn = options.get("listen_dsn")
    pooling = listen_dsn is not None
    async with contextlib.AsyncExitStack() as stack:
        if kind.startswith("owned-"):
            settings = ConnectionSettings(transaction_pooling=pooling, listen_dsn=listen_dsn)
            yield await stack.enter_async_context(
                PgQueuer.from_dsn(dsn, kind.removeprefix("owned-"), settings=settings)
            )
            return
        listener = OwnedDriver(listen_dsn, "asyncpg") if pooling else None
        arguments: dict[str, Any] = {"transaction_pooling": pooling, "listen_on": listener}
        if kind == "psycopg":
            import psycopg

            from pgq_fast.drivers.psycopg import PsycopgDriver

            threshold = None if pooling else 5
            psycopg_connection = await psycopg.AsyncConnection.connect(
                dsn, autocommit=True, prepare_threshold=threshold
            )
            stack.push_async_callback(psycopg_connection.close)
            yield PgQueuer(PsycopgDriver(psycopg_connection, **arguments))
            return
        import asyncpg

        from pgq_fast.drivers.asyncpg import AsyncpgDriver, AsyncpgPoolDriver

        cache = 0 if pooling else 100
        if kind == "asyncpg-pool":
            pool = await asyncpg.create_pool(
                dsn, min_size=1, max_size=4, statement_cache_size=cache
            )
            stack.callback(pool.terminate)
            yield PgQueuer(AsyncpgPoolDriver(pool, **arguments))
        else:
            connection = await asyncpg.connect(dsn, statement_cache_size=cache)
            stack.callback(connection.terminate)
            yield PgQueuer(AsyncpgDriver(connection, **arguments))


def register(pgq: PgQueuer, journal: Journal, options: dict[str, Any]) -> None:
    """The handlers of the load, those of single kinds of faults, and the probe of this worker."""

    def noted(handler: Handler) -> Handler:
        @functools.wraps(handler)
        async def run(job: Job) -> None:
            token = "" if job.payload is None else job.payload.split(b" ", 1)[0].decode()
            journal.note("start", job.id, job.attempts, job.entrypoint, token)
            try:
                await handler(job)
            except Exception:
                journal.note("end", job.id, job.attempts)
                raise
            journal.note("end", job.id, job.attempts)

        return run

    def add(handler: Handler, name: str | None = None, **arguments: Any) -> None:
        pgq.entrypoint(name or handler.__name__, **arguments)(noted(handler))

    async def plain(job: Job) -> None:
        await asyncio.sleep(random.random() * 0.05)

    async def eager(job: Job) -> None:
        pass

    async def limited(job: Job) -> None:
        await asyncio.sleep(0.01)

    async def flaky(job: Job) -> None:
        if job.attempts == 0:
            raise RetryRequested(timedelta(0), "as it was told to")

    async def failing(job: Job) -> None:
        raise ValueError("as it was told to")

    async def holding(job: Job) -> None:
        raise ValueError("as it was told to")

    async def slow(job: Job) -> None:
        await asyncio.sleep(SLOW)

    def is_first(job: Job) -> bool:
        """Whether this is the first run of *job*, on whatever worker."""
        try:
            Path(options["journal"]).with_name(f"first-{job.id}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    async def blocking(job: Job) -> None:
        # A connection of the user's has no heartbeats meanwhile, so the job is taken over: it
        # would be for ever, if it blocked each time.
        if is_first(job) or options["driver"].startswith("owned-"):
            time.sleep(options["block"])  # noqa: ASYNC251 - that is the fault

    async def hungry(job: Job) -> None:
        # Once: what runs anew must not end the next worker too.
        if is_first(job):
            await exhaust_memory()

    add(plain)
    add(eager)
    add(limited, concurrency_limit=3)
    add(flaky)
    add(failing)
    add(holding, on_failure="hold")
    add(slow)
    add(blocking)
    add(hungry)
    add(eager, f"probe-{options['number']}")


def used_memory() -> int:
    """Bytes of address space."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


async def exhaust_memory() -> None:
    """Take all that the process may have, keep it for a moment beside other jobs, and fail."""
    ceiling = used_memory() + ROOM
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, hard))
    taken = []
    size = 8 * 2**20
    try:
        while size > 1024:
            try:
                taken.append(bytearray(size))
            except MemoryError:
                size //= 2
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)
        raise MemoryError("as it was told to")
    finally:
        taken.clear()
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


async def count_regularly(journal: Journal, interval: float) -> None:
    """Note what this process holds: bytes of memory, objects that Python's collector knows, and
    blocks of its allocator, which those of the kernels are among.
    """
    while True:
        await asyncio.sleep(interval)
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1])  # noqa: ASYNC240
        journal.note(
            "holds",
            resident * resource.getpagesize(),
            len(gc.get_objects()),
            sys.getallocatedblocks(),
        )


async def work(options: dict[str, Any], journal: Journal) -> None:
    @contextlib.asynccontextmanager
    async def worker() -> AsyncIterator[PgQueuer]:
        async with contextlib.AsyncExitStack() as stack:
            if (interval := options.get("count")) is not None:
                counting = asyncio.create_task(count_regularly(journal, interval))
                stack.callback(counting.cancel)
            pgq = await stack.enter_async_context(queue_on(options))
            register(pgq, journal, options)
            yield pgq

    await supervisor.run(
        worker,
        dequeue_timeout=timedelta(seconds=options["poll"]),
        batch_size=options["batch"],
        heartbeat_timeout=timedelta(seconds=options["heartbeat"]),
    )


class Producer:
    """Enqueues the mix, alone and in lists, and notes what it knows of each call."""

    def __init__(self, options: dict[str, Any], journal: Journal) -> None:
        self._random = random.Random(options["seed"])
        self._number = options["number"]
        self._pause = options["pause"]
        self._journal = journal
        self._calls = 0

    async def run(self, queries: Queries, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.gather(*(self._one_call(queries, alone=True) for _ in range(3)))
            await self._one_call(queries, alone=False)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._pause)

    async def _one_call(self, queries: Queries, *, alone: bool) -> None:
        self._calls += 1
        call = f"{self._number}.{self._calls}"
        count = 1 if alone else self._random.randint(2, 12)
        names = self._random.choices(list(MIX), list(MIX.values()), k=count)
        payloads: list[bytes | None] = [
            f"{call}.{place} ".encode() + b"x" * self._random.choice(PADDING)
            for place in range(count)
        ]
        later = [timedelta(hours=1) if name == "later" else None for name in names]
        self._journal.note("ask", call, count)
        try:
            if alone:
                ids = await queries.enqueue(names[0], payloads[0], 0, later[0])
            else:
                priorities = [self._random.randint(0, 2) for _ in names]
                ids = await queries.enqueue(names, payloads, priorities, later)
        except Exception as error:
            # Whether the jobs are there is what the account has to find out.
            self._journal.note("unknown", call, type(error).__name__)
            await asyncio.sleep(0.1)
        else:
            self._journal.note("got", call, ids)


async def produce(options: dict[str, Any], journal: Journal) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    journal.note("ready")
    async with OwnedDriver(options["dsn"], "asyncpg") as driver:
        await Producer(options, journal).run(Queries(driver), stop)


def main() -> None:
    role, options = sys.argv[1], json.loads(sys.argv[2])
    setup_logging("INFO")
    random.seed(options["seed"])
    journal = Journal(Path(options["journal"]))
    watch_over(journal, options["parent"])
    asyncio.run({"work": work, "produce": produce}[role](options, journal))


if __name__ == "__main__":
    main()
