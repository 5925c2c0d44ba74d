"""One measurement, in a process of its own that loads one library: ``python bench/measure.py``.

The request is a line of JSON on standard input, the answer one on standard output; ``compare.py``
writes the one and reads the other. Both libraries go through the same lines here. Only
``bare_round`` knows more of pgq_fast than its public API.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import random
import sys
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID, uuid4

ENTRYPOINT: Final = "bench"
# Bytes of a payload, unless a trial has another size: a reference to something.
PAYLOAD_BYTES: Final = 32
# Bytes of one call at most where jobs are enqueued in lists: as much as a program may hold at once.
LIST_BYTES: Final = 16_000_000
# Jobs of one call where jobs are enqueued in lists, unless a trial has another number.
LIST: Final = 1000
# What a handler that waits for something else waits for.
WAIT: Final = 0.020

# Single jobs that warm connections and caches before waits are measured.
LATENCY_WARM_UP: Final = 20
# Seconds between a job's start and the next job, at random, so that no timer of a library falls
# into step with them.
LATENCY_PAUSE: Final = (0.005, 0.015)
# The entrypoint of a load, and its rate, as a part of what the worker can do.
LOAD: Final = "load"
LOADS: Final = {"half": 0.5, "full": 1.25}
# Seconds that a full load is ahead of the worker when waits begin to be measured.
LOAD_BEHIND: Final = 0.5
# Jobs to find out what the worker can do, more if that takes less time than this, in seconds.
LOAD_TRIAL: Final = 2_000
LOAD_LONG_ENOUGH: Final = 1.0
# Every so many jobs of a load the worker says so. LOAD_TRIAL is a multiple.
LOAD_STEP: Final = 500
LOAD_PAUSE: Final = 0.01
# Jobs of the worker that is busy while others enqueue, and how long each waits.
BUSY_JOBS: Final = 40_000
BUSY_SECONDS: Final = 0.1
# Seconds without a sign of life after which a measurement gives up.
PATIENCE: Final = 60.0

Handler = Callable[[Any], Awaitable[None]]
Figures = dict[str, float]


class MeasurementError(RuntimeError):
    """The measurement did not see what it should."""


@dataclass(frozen=True)
class Trial:
    """What is measured, and with which settings."""

    task: str
    """One of ``TASKS``."""
    package: str
    """``pgqueuer`` or ``pgq_fast``."""
    jobs: int
    handler: str = "no-op"
    consumers: int = 1
    """Workers in the process, each on its own connection."""
    batch_size: int | None = None
    """None: not passed, which leaves it to the library."""
    producers: int = 1
    """Tasks that enqueue one by one, on one driver."""
    connections: bool = False
    """Whether each of the producers has a driver of its own, and a worker is busy meanwhile."""
    list_size: int = LIST
    """Jobs of one call where jobs are enqueued in lists."""
    layout: str = "compat"
    """Of pgq_fast's tables."""
    old_transaction: bool = False
    """Whether another session holds a snapshot from before the workers began."""
    driver: str = "asyncpg"
    implementation: str = "c"
    """Of pgq_fast's kernels: ``c`` or ``python``."""
    payload: int = PAYLOAD_BYTES
    """Bytes a job."""
    entrypoints: int = 1
    """Over which jobs are spread evenly, and which each worker has."""
    left: int = 0
    """Jobs that stay in the queue behind those that are drained."""
    load: str = "none"
    """Of the worker whose jobs' waits are measured: ``none``, ``half`` or ``full``."""
    rounds: int = 1
    """Of filling and draining the same tables, the jobs spread evenly over them."""

    def settings(self) -> str:
        """The settings in words."""
        parts = []
        if self.task in ("drain", "part", "churn", "sustained", "latency"):
            parts.append(f"{self.consumers} consumer{'s' * (self.consumers > 1)}")
        if self.task in ("drain", "part", "churn", "sustained", "bare"):
            parts.append("defaults" if self.batch_size is None else f"batch {self.batch_size}")
        if self.task == "producers":
            parts.append(f"{self.producers} producer{'s' * (self.producers > 1)}")
        if self.connections:
            parts.append("a connection each, a busy worker")
        if self.task == "lists":
            parts.append(f"lists of {self.list_size:,}")
        if self.driver != "asyncpg":
            parts.append(self.driver)
        if self.layout != "compat":
            parts.append(self.layout)
        if self.old_transaction:
            parts.append("an old transaction")
        if self.implementation == "python":
            parts.append("pure Python")
        if self.payload != PAYLOAD_BYTES:
            parts.append(f"payload {self.payload:,} bytes")
        if self.entrypoints != 1:
            parts.append(f"{self.entrypoints:,} entrypoints")
        if self.left:
            parts.append(f"{self.left:,} jobs behind")
        if self.load != "none":
            parts.append(f"{self.load} load")
        if self.rounds != 1:
            parts.append(f"{self.rounds} rounds")
        return ", ".join(parts)

    def names(self) -> list[str]:
        """The entrypoints."""
        if self.entrypoints == 1:
            return [ENTRYPOINT]
        return [f"{ENTRYPOINT}_{number}" for number in range(self.entrypoints)]

    def content(self) -> bytes:
        """The payload of each job, which no server can compress, and the same each time."""
        return random.Random(self.payload).randbytes(self.payload)


@dataclass(frozen=True)
class Database:
    """Where: an empty database that the measurement may fill."""

    dsn: str
    name: str


# ------------------------------------------------------------------------------ connections


async def connect(database: Database) -> Any:
    """An asyncpg connection."""
    import asyncpg

    return await asyncpg.connect(database.dsn, database=database.name)


@asynccontextmanager
async def open_driver(trial: Trial, database: Database, kind: str) -> AsyncIterator[Any]:
    """The library's driver of that *kind* on a connection of its own."""
    library = importlib.import_module(trial.package)
    if kind == "asyncpg":
        connection = await connect(database)
        try:
            yield library.AsyncpgDriver(connection)
        finally:
            await connection.close()
    else:
        import psycopg

        async with await psycopg.AsyncConnection.connect(
            database.dsn, dbname=database.name, autocommit=True
        ) as psycopg_connection:
            yield library.PsycopgDriver(psycopg_connection)


@dataclass
class Bench:
    """What every task needs: the queue, and a connection that only watches."""

    trial: Trial
    database: Database
    queries: Any
    """The library's, on a connection of the trial's kind that no worker uses."""
    watch: Any

    @property
    def names(self) -> Any:
        """The settings that name the tables."""
        return self.queries.qbe.settings

    async def fill(self, jobs: int | None = None) -> Sequence[int]:
        """Enqueue *jobs*, by default the trial's, in lists, through the library; their ids."""
        trial = self.trial
        jobs = trial.jobs if jobs is None else jobs
        # Some trials have millions.
        ids = array("q")
        size = min(trial.list_size, max(1, LIST_BYTES // max(trial.payload, 1)))
        names, content = trial.names(), trial.content()
        for start in range(0, jobs, size):
            count = min(size, jobs - start)
            chosen = [names[number % len(names)] for number in range(start, start + count)]
            ids.extend(await self.queries.enqueue(chosen, [content] * count, [0] * count))
        return ids

    async def fill_load(self, jobs: int) -> int:
        """Enqueue so many jobs of a load, rounded up to lists that a worker reports; how many."""
        count = -(-jobs // LOAD_STEP) * LOAD_STEP
        await self.queries.enqueue([LOAD] * count, [None] * count, [0] * count)
        return count

    async def has_load(self) -> bool:
        """Whether jobs of a load wait in the queue."""
        return bool(
            await self.watch.fetchval(
                f"SELECT EXISTS (SELECT FROM {self.names.queue_table}"
                " WHERE entrypoint = $1 AND status = 'queued')",
                LOAD,
            )
        )

    async def until_empty(self) -> None:
        """Wait until all jobs have run."""
        empty = f"SELECT NOT EXISTS (SELECT FROM {self.names.queue_table})"
        async with asyncio.timeout(PATIENCE):
            # Asked of the server: no handler knows which was the last.
            while not await self.watch.fetchval(empty):  # noqa: ASYNC110
                await asyncio.sleep(Marks.PAUSE * 10)

    async def settle(self) -> None:
        """Bring the server to the same state before every measurement.

        Statistics of a table that was just filled are stale, and whether autovacuum gets to it in
        time is chance: neither library is to suffer from that.
        """
        await self.watch.execute("ANALYZE")
        await self.watch.execute("CHECKPOINT")
        gc.collect()

    async def server_cpu(self) -> float | None:
        """Seconds of CPU time that all processes of the server have used; None if it is elsewhere.

        From /proc, see proc(5): the children of the postmaster, and of those that have ended what
        it has collected.
        """
        backend = await self.watch.fetchval("SELECT pg_backend_pid()")
        try:
            status, _ = process_times(backend)
            if status[0] != "(postgres)":
                return None
            postmaster = int(status[2])
            ticks = sum(process_times(postmaster)[1])
            for entry in os.listdir("/proc"):
                if entry.isdigit():
                    try:
                        status, times = process_times(int(entry))
                    except OSError:
                        # It has ended meanwhile.
                        continue
                    if int(status[2]) == postmaster:
                        ticks += times[0] + times[1]
        except OSError:
            return None
        return ticks / os.sysconf("SC_CLK_TCK")

    async def log_bytes(self) -> int:
        """Size of the log on disk, with its indexes."""
        log = self.names.queue_table_log
        size = await self.watch.fetchval(
            "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class"
            " WHERE relkind = 'r' AND relname = ANY($1::text[])",
            [log, f"{log}_batches", f"{log}_entries"],
        )
        return int(size)

    async def troubles(self) -> tuple[int, int]:
        """Deadlocks in this database, and MultiXacts that the server has made, so far."""
        await self.watch.execute("CHECKPOINT")
        row = await self.watch.fetchrow(
            "SELECT deadlocks, next_multixact_id::text::bigint"
            " FROM pg_stat_database, pg_control_checkpoint()"
            " WHERE datname = current_database()"
        )
        return row[0], row[1]

    async def queue_bytes(self) -> int:
        """Size of the tables on disk, with their indexes: all but the log and the statistics."""
        names = self.names
        size = await self.watch.fetchval(
            "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            " AND relname <> $1 AND NOT starts_with(relname, $2)",
            names.statistics_table,
            names.queue_table_log,
        )
        return int(size)

    async def wal_position(self) -> int:
        """Bytes of WAL that the server has written in its life."""
        position = await self.watch.fetchval(
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
        )
        return int(position)

    async def timed(
        self, work: Callable[[], Awaitable[Any]], done: Callable[[], int] | None = None
    ) -> Figures:
        """Run *work*; its figures for a job, of which there were *done*, by default all."""
        await self.settle()
        wal, server = await self.wal_position(), await self.server_cpu()
        wall, cpu = time.perf_counter(), time.process_time()
        await work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        jobs = done() if done else self.trial.jobs
        wal, server_after = await self.wal_position() - wal, await self.server_cpu()
        figures = {
            "rate": jobs / wall,
            "cpu": cpu / jobs * 1e6,
            "wal": wal / jobs,
            "seconds": wall,
        }
        if server is not None and server_after is not None:
            figures["all_cpu"] = (cpu + server_after - server) / jobs * 1e6
        return figures

    async def check_ended(self, ended: Sequence[int], left: int = 0) -> None:
        """See that the log has each job as successful, once, and the queue *left* others."""
        log = await self.watch.fetch(
            f"SELECT job_id FROM {self.names.queue_table_log}"
            " WHERE status = 'successful' AND entrypoint <> $1",
            LOAD,
        )
        require_same("jobs logged as successful", [row[0] for row in log], ended)
        queued = await self.watch.fetchval(f"SELECT count(*) FROM {self.names.queue_table}")
        if queued != left:
            raise MeasurementError(f"{queued} jobs are still in the queue, {left} expected")

    async def check_load(self, jobs: int) -> None:
        """See that the log has each job of a load as successful, once."""
        row = await self.watch.fetchrow(
            f"SELECT count(*), count(DISTINCT job_id) FROM {self.names.queue_table_log}"
            " WHERE status = 'successful' AND entrypoint = $1",
            LOAD,
        )
        if tuple(row) != (jobs, jobs):
            raise MeasurementError(
                f"{jobs} jobs of load, and {tuple(row)} logged, of them distinct"
            )

    async def check_queued(self, enqueued: Sequence[int]) -> None:
        """See that each job is in the queue, and in the log, once, as it was enqueued."""
        queue = await self.watch.fetch(
            f"SELECT id FROM {self.names.queue_table} "
            "WHERE status = 'queued' AND entrypoint = ANY($1::text[]) AND payload = $2",
            self.trial.names(),
            self.trial.content(),
        )
        require_same("queued jobs", [row[0] for row in queue], enqueued)
        log = await self.watch.fetch(
            f"SELECT job_id FROM {self.names.queue_table_log}"
            " WHERE status = 'queued' AND entrypoint = ANY($1::text[])",
            self.trial.names(),
        )
        require_same("jobs logged as queued", [row[0] for row in log], enqueued)
        if len(enqueued) != self.trial.jobs:
            raise MeasurementError(f"{len(enqueued)} of {self.trial.jobs} jobs were enqueued")


def process_times(pid: int) -> tuple[list[str], list[int]]:
    """Name, state and parent of a process, and its user, system, and children's clock ticks."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        name, rest = file.read().rsplit(")", 1)
    fields = rest.split()
    return ["(" + name.partition("(")[2] + ")", *fields[:2]], [int(tick) for tick in fields[11:15]]


def require_same(what: str, found: Sequence[int], expected: Sequence[int]) -> None:
    """Raise unless *found* has exactly the ids of *expected*, each once, in any order."""
    if sorted(found) == sorted(expected):
        return
    repeated = len(found) - len(set(found))
    missing = len(set(expected) - set(found))
    foreign = len(set(found) - set(expected))
    raise MeasurementError(
        f"{what}: {len(expected)} expected, {missing} missing, {repeated} repeated, "
        f"{foreign} that are not ours"
    )


def require_part(what: str, found: Sequence[int], expected: Sequence[int]) -> None:
    """Raise unless each id that was *found* was so once, and is one of *expected*."""
    once = set(found)
    lowest, highest = min(expected), max(expected)
    if highest - lowest + 1 == len(expected):
        # As of one sequence, and of so many that a set is not made lightly.
        foreign = sum(not lowest <= number <= highest for number in once)
    else:
        foreign = len(once - set(expected))
    if foreign or len(once) != len(found):
        raise MeasurementError(
            f"{what}: {len(found) - len(once)} repeated, {foreign} that are not ours"
        )


# ------------------------------------------------------------------------------ workers


def make_handler(kind: str, ran: list[int]) -> Handler:
    """A handler that notes the id of each job."""

    async def noop(job: Any) -> None:
        ran.append(job.id)

    async def yielding(job: Any) -> None:
        await asyncio.sleep(0)
        ran.append(job.id)

    async def waiting(job: Any) -> None:
        await asyncio.sleep(WAIT)
        ran.append(job.id)

    return {"no-op": noop, "sleep(0)": yielding, "sleep(20 ms)": waiting}[kind]


@asynccontextmanager
async def open_workers(bench: Bench, ran: list[int]) -> AsyncIterator[list[Any]]:
    """The workers of the trial, each on a connection of its own; they note what ran."""
    trial = bench.trial
    library = importlib.import_module(trial.package)
    async with AsyncExitStack() as stack:
        workers = []
        for _ in range(trial.consumers):
            driver = await stack.enter_async_context(
                open_driver(trial, bench.database, trial.driver)
            )
            worker = library.PgQueuer(driver)
            for name in trial.names():
                worker.entrypoint(name)(make_handler(trial.handler, ran))
            workers.append(worker)
        yield workers


def run_all(trial: Trial, workers: Sequence[Any], until: str) -> list[Awaitable[Any]]:
    """Calls of ``run``, in a mode of ``QueueExecutionMode``."""
    modes = importlib.import_module(f"{trial.package}.types").QueueExecutionMode
    options: dict[str, Any] = {} if trial.batch_size is None else {"batch_size": trial.batch_size}
    return [worker.run(mode=modes[until], **options) for worker in workers]


async def drain(bench: Bench) -> Figures:
    """Workers empty a full queue, from the calls of ``run`` to the last one's return."""
    trial = bench.trial
    await bench.settle()
    began = time.perf_counter()
    enqueued = await bench.fill()
    filling = time.perf_counter() - began
    ran: list[int] = []
    marks = Marks(trial.jobs)
    deadlocks, multixacts = await bench.troubles()
    async with open_workers(bench, ran) as workers, AsyncExitStack() as stack:
        if trial.old_transaction:
            session = await connect(bench.database)
            stack.push_async_callback(session.close)
            # With an id and a snapshot: nothing that is deleted from now on is dead to all.
            await session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            await session.execute("SELECT pg_current_xact_id()")
        watching = asyncio.create_task(marks.watch(ran))
        figures = await bench.timed(lambda: asyncio.gather(*run_all(trial, workers, "drain")))
        await watching
    require_same("runs of jobs", ran, enqueued)
    await bench.check_ended(enqueued)
    figures["enqueue"] = trial.jobs / filling
    figures["log"] = await bench.log_bytes() / trial.jobs
    figures["last"] = marks.last_to_first()
    figures.update(marks.tenths())
    deadlocks_after, multixacts_after = await bench.troubles()
    figures["deadlocks"] = deadlocks_after - deadlocks
    figures["multixacts"] = (multixacts_after - multixacts) / trial.jobs
    return figures


async def part(bench: Bench) -> Figures:
    """Workers take the first jobs of a queue in which many others stay."""
    trial = bench.trial
    enqueued = await bench.fill(trial.jobs + trial.left)
    ran: list[int] = []
    counted = 0

    async def until_done() -> None:
        nonlocal counted
        while len(ran) < trial.jobs:
            if ended := [run for run in runs if run.done()]:
                await asyncio.gather(*ended)
                raise MeasurementError("a worker ended before it was told to")
            await asyncio.sleep(Marks.PAUSE)
        # With the rest of a batch, perhaps.
        counted = len(ran)

    async def work() -> None:
        runs.extend(map(asyncio.ensure_future, run_all(trial, workers, "continuous")))
        await asyncio.wait_for(until_done(), 10 * PATIENCE)

    runs: list[asyncio.Future[Any]] = []
    async with open_workers(bench, ran) as workers:
        figures = await bench.timed(work, lambda: counted)
        for worker in workers:
            worker.shutdown.set()
        await asyncio.gather(*runs)
    require_part("runs of jobs", ran, enqueued)
    await bench.check_ended(ran, len(enqueued) - len(ran))
    return figures


async def churn(bench: Bench) -> Figures:
    """The same tables are filled and drained again and again, with autovacuum as it is.

    Nothing is done for them between the rounds. The worker of each round is new, so that each warms
    up as the others did.
    """
    trial = bench.trial
    enqueued: list[int] = []
    ran: list[int] = []
    figures: Figures = {}
    await bench.settle()
    for number in range(1, trial.rounds + 1):
        share = trial.jobs * number // trial.rounds - trial.jobs * (number - 1) // trial.rounds
        enqueued.extend(await bench.fill(share))
        async with open_workers(bench, ran) as workers:
            began = time.perf_counter()
            await asyncio.gather(*run_all(trial, workers, "drain"))
            seconds = time.perf_counter() - began
        figures[f"rate_{number}"] = share / seconds
        figures[f"bytes_{number}"] = await bench.queue_bytes()
    require_same("runs of jobs", ran, enqueued)
    await bench.check_ended(enqueued)
    return figures


class Marks:
    """When each tenth of the jobs had run."""

    PAUSE: Final = 0.002

    def __init__(self, jobs: int) -> None:
        self.counts = [jobs * tenth // 10 for tenth in range(11)]
        self.times: list[float] = []

    async def watch(self, ran: Sequence[int]) -> None:
        """Note the times; *ran* grows meanwhile."""
        for count in self.counts:
            # Not an event that handlers set: that would be part of what is measured.
            while len(ran) < max(count, 1):  # noqa: ASYNC110
                await asyncio.sleep(self.PAUSE)
            self.times.append(time.perf_counter())

    def last_to_first(self) -> float:
        """The rate of the last tenth, as a part of that of the first."""
        first, last = self.times[1] - self.times[0], self.times[10] - self.times[9]
        return first / max(last, self.PAUSE)

    def tenths(self) -> Figures:
        """The rate in each tenth."""
        return {
            f"rate_{number}": (self.counts[number] - self.counts[number - 1])
            / max(self.times[number] - self.times[number - 1], self.PAUSE)
            for number in range(1, 11)
        }


async def sustained(bench: Bench) -> Figures:
    """A producer enqueues lists while workers run, until all jobs have run."""
    trial = bench.trial
    enqueued: list[int] = []
    ran: list[int] = []
    async with open_workers(bench, ran) as workers:
        runs = [asyncio.ensure_future(run) for run in run_all(trial, workers, "continuous")]

        async def produce_and_wait() -> None:
            enqueued.extend(await bench.fill())
            while len(ran) < trial.jobs:  # noqa: ASYNC110
                await asyncio.sleep(Marks.PAUSE)

        # Workers that have looked at their empty queue.
        await asyncio.sleep(0.5)
        figures = await asyncio.wait_for(bench.timed(produce_and_wait), 10 * PATIENCE)
        for worker in workers:
            worker.shutdown.set()
        await asyncio.gather(*runs)
    require_same("runs of jobs", ran, enqueued)
    await bench.check_ended(enqueued)
    return figures


async def bare_round(
    connection: Any, settings: Any, owner: UUID, batch_size: int, ending: list[int]
) -> list[int]:
    """End jobs and claim a batch by the statement that a worker uses, and nothing else; the ids.

    The one place here that knows what a claim takes and returns.
    """
    from pgq_fast import Job
    from pgq_fast._impl import codec
    from pgq_fast.layouts import compat
    from pgq_fast.models import parse_headers
    from pgq_fast.types import QueueEntrypoint, QueueManagerId
    from pgq_fast.worker.pace import CLAIM_BYTES

    claim = compat.claim_statement(
        settings,
        batch_size,
        compat.wanted({QueueEntrypoint(ENTRYPOINT): 0}),
        QueueManagerId(owner),
        None,
        CLAIM_BYTES,
        ending=ending,
        relaxed=not ending,
    )
    raw = await connection.fetchval(claim.query, *claim.args)
    jobs = [] if raw is None else codec.build_jobs(Job, raw, owner, parse_headers)[0]
    return [job.id for job in jobs]


async def bare(bench: Bench) -> Figures:
    """The statements of a drain one after the other on one connection, without any handler."""
    batch_size = bench.trial.batch_size
    assert batch_size is not None
    enqueued = await bench.fill()
    connection = await connect(bench.database)
    owner = uuid4()
    ended: list[int] = []

    async def loop() -> None:
        ids: list[int] = []
        while ids := await bare_round(connection, bench.names, owner, batch_size, ids):
            ended.extend(ids)

    try:
        figures = await bench.timed(loop)
    finally:
        await connection.close()
    require_same("claimed jobs", ended, enqueued)
    await bench.check_ended(enqueued)
    return figures


# ------------------------------------------------------------------------------ producers


async def producers(bench: Bench) -> Figures:
    """Tasks enqueue single jobs, each the next one when the last is committed."""
    trial = bench.trial
    library = importlib.import_module(trial.package)
    enqueued: list[int] = []

    async def produce(queries: Any, count: int) -> None:
        for _ in range(count):
            enqueued.extend(await queries.enqueue(ENTRYPOINT, content))

    content = trial.content()
    share, rest = divmod(trial.jobs, trial.producers)
    counts = [share + (number < rest) for number in range(trial.producers)]
    async with AsyncExitStack() as stack:
        queues = [bench.queries] * trial.producers
        if trial.connections:
            queues = [
                library.Queries(
                    await stack.enter_async_context(
                        open_driver(trial, bench.database, trial.driver)
                    )
                )
                for _ in counts
            ]
            await stack.enter_async_context(busy_worker(bench))
        figures = await bench.timed(lambda: asyncio.gather(*map(produce, queues, counts)))
    await bench.check_queued(enqueued)
    return figures


@asynccontextmanager
async def busy_worker(bench: Bench) -> AsyncIterator[None]:
    """A worker that always has jobs, of another entrypoint, which take little CPU time."""
    library = importlib.import_module(bench.trial.package)
    count = BUSY_JOBS
    await bench.queries.enqueue(["busy"] * count, [None] * count, [0] * count)
    async with open_driver(bench.trial, bench.database, "asyncpg") as driver:
        worker = library.PgQueuer(driver)

        @worker.entrypoint("busy")
        async def handler(job: Any) -> None:
            await asyncio.sleep(BUSY_SECONDS)

        run = asyncio.create_task(worker.run(max_concurrent_tasks=20))
        # It has claimed several times by then.
        await asyncio.sleep(10 * BUSY_SECONDS)
        yield
        left = await bench.watch.fetchval(
            f"SELECT count(*) FROM {bench.names.queue_table}"
            " WHERE entrypoint = 'busy' AND status = 'queued'"
        )
        worker.shutdown.set()
        await run
        if not left:
            raise MeasurementError("the worker had nothing to do any more")
        await bench.queries.clear_queue("busy")


async def lists(bench: Bench) -> Figures:
    """One producer enqueues lists of jobs."""
    enqueued: list[int] = []

    async def fill() -> None:
        enqueued.extend(await bench.fill())

    figures = await bench.timed(fill)
    await bench.check_queued(enqueued)
    return figures


# ------------------------------------------------------------------------------ latency


async def latency(bench: Bench) -> Figures:
    """Single jobs for a worker in another process, all at its defaults; it is idle, or has a load.

    The wait is that from just before ``enqueue`` is called to the first line of the handler. All
    processes read CLOCK_MONOTONIC, which is one clock for the whole system.

    A load is jobs of another entrypoint and a lower priority, from a third process: half of what
    the worker does in a second when nobody enqueues, or more than it can do, so that it always has
    some.
    """
    trial = bench.trial
    content = trial.content()
    generator = random.Random(1)
    enqueued: list[int] = []
    waits: list[float] = []
    figures: Figures = {}
    await bench.settle()
    async with other_process("worker", trial, bench.database) as worker:
        watcher = Watcher(worker)
        loads = 0
        if trial.load != "none":
            capacity, loads = await watcher.capacity(bench)
            figures["capacity"] = capacity
        async with AsyncExitStack() as stack:
            if trial.load != "none":
                rate = capacity * LOADS[trial.load]
                if trial.load == "full":
                    loads += await bench.fill_load(round(capacity * LOAD_BEHIND))
                producer = await stack.enter_async_context(
                    other_process("load", trial, bench.database, rate)
                )
            for number in range(-LATENCY_WARM_UP, trial.jobs):
                await asyncio.sleep(generator.uniform(*LATENCY_PAUSE))
                began = time.monotonic()
                enqueued.extend(await bench.queries.enqueue(ENTRYPOINT, content, 1))
                job_id, started = await watcher.started()
                if job_id != enqueued[-1]:
                    raise MeasurementError(f"job {job_id} ran where {enqueued[-1]} was expected")
                if number >= 0:
                    waits.append(started - began)
            if trial.load == "full" and not await bench.has_load():
                raise MeasurementError("the worker had nothing to do any more")
            if trial.load != "none":
                loads += int(await ended(producer))
        await bench.until_empty()
        last = json.loads(await ended(worker))
    if last != ["load", loads]:
        raise MeasurementError(f"{loads} jobs of load were enqueued, and the worker says {last}")
    await bench.check_load(loads)
    await bench.check_ended(enqueued)
    waits.sort()
    figures["p50"], figures["p99"] = quantile(waits, 0.50) * 1e3, quantile(waits, 0.99) * 1e3
    return figures


@asynccontextmanager
async def other_process(
    role: str, trial: Trial, database: Database, rate: float | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process like this one in another role; the end of its input is its sign to stop."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    try:
        process.stdin.write(request_line(role, trial, database, rate))
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process: asyncio.subprocess.Process) -> bytes:
    """Tell a process to stop; what it says last."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    rest = await asyncio.wait_for(process.stdout.read(), PATIENCE)
    if await asyncio.wait_for(process.wait(), PATIENCE):
        raise MeasurementError("a process did not end as it should")
    lines = rest.splitlines()
    if any(not line.startswith(b'["load"') for line in lines[:-1]):
        raise MeasurementError("the worker ran a job again")
    return lines[-1]


class Watcher:
    """What a worker process says: the start of each single job, and how much of a load is done."""

    def __init__(self, worker: asyncio.subprocess.Process) -> None:
        assert worker.stdout is not None
        self._lines = worker.stdout

    async def _next(self) -> tuple[Any, Any]:
        line = await asyncio.wait_for(self._lines.readline(), PATIENCE)
        if not line:
            raise MeasurementError("the worker ended before its jobs")
        first, second = json.loads(line)
        return first, second

    async def started(self) -> tuple[int, float]:
        """Id of the next single job, and when it started."""
        while True:
            job_id, when = await self._next()
            if job_id != "load":
                return job_id, when

    async def capacity(self, bench: Bench) -> tuple[float, int]:
        """Jobs of a load that the worker does in a second, and how many there were to find out."""
        total, count = 0, LOAD_TRIAL
        while True:
            began = time.monotonic()
            count = await bench.fill_load(count)
            total += count
            while (await self._next())[1] < total:
                pass
            seconds = time.monotonic() - began
            if seconds >= LOAD_LONG_ENOUGH:
                return count / seconds, total
            # As many as should take a little longer than that.
            count = max(2 * count, round(1.2 * LOAD_LONG_ENOUGH * count / seconds))


def quantile(values: Sequence[float], share: float) -> float:
    """The value that *share* of the sorted *values* do not exceed."""
    return values[min(len(values) - 1, round(share * (len(values) - 1)))]


async def work(trial: Trial, database: Database) -> None:
    """A worker that writes id and start of each job as a line, until standard input ends.

    Of a load it writes how many have run, now and then, and at the end.
    """
    library = importlib.import_module(trial.package)
    done = 0
    async with open_driver(trial, database, trial.driver) as driver:
        worker = library.PgQueuer(driver)

        async def handler(job: Any) -> None:
            started = time.monotonic()
            print(json.dumps([job.id, started]), flush=True)

        async def load_handler(job: Any) -> None:
            nonlocal done
            done += 1
            if not done % LOAD_STEP:
                print(json.dumps(["load", done]), flush=True)

        worker.entrypoint(ENTRYPOINT)(handler)
        worker.entrypoint(LOAD)(load_handler)
        at_end_of_input(worker.shutdown.set)
        await worker.run()
    print(json.dumps(["load", done]), flush=True)


def at_end_of_input(stop: Callable[[], None]) -> None:
    """Call *stop* when standard input ends, also as the process at its other end has died."""
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(sys.stdin.fileno())
        stop()

    loop.add_reader(sys.stdin.fileno(), ended)


async def load(trial: Trial, database: Database, rate: float) -> None:
    """Enqueue *rate* jobs a second until standard input ends; then write how many there were."""
    library = importlib.import_module(trial.package)
    stopped = asyncio.Event()
    at_end_of_input(stopped.set)
    async with open_driver(trial, database, trial.driver) as driver:
        queries = library.Queries(driver)
        began, total = time.monotonic(), 0
        while not stopped.is_set():
            due = min(round((time.monotonic() - began) * rate) - total, LIST)
            if due > 0:
                await queries.enqueue([LOAD] * due, [None] * due, [0] * due)
                total += due
            if due < LIST:
                await asyncio.sleep(LOAD_PAUSE)
    print(total, flush=True)


# ------------------------------------------------------------------------------ the process

TASKS: Final[dict[str, Callable[[Bench], Awaitable[Figures]]]] = {
    "drain": drain,
    "part": part,
    "churn": churn,
    "bare": bare,
    "sustained": sustained,
    "producers": producers,
    "lists": lists,
    "latency": latency,
}


async def measure(trial: Trial, database: Database) -> Figures:
    """Install the library's tables in an empty database, and measure."""
    library = importlib.import_module(trial.package)
    watch = await connect(database)
    try:
        async with open_driver(trial, database, trial.driver) as driver:
            queries = library.Queries(driver)
            await queries.install()
            return await TASKS[trial.task](Bench(trial, database, queries, watch))
    finally:
        await watch.close()


def request_line(role: str, trial: Trial, database: Database, rate: float | None = None) -> bytes:
    """What a process like this one reads; not its arguments, which everybody can see."""
    request = {"role": role, "trial": asdict(trial), "database": asdict(database), "rate": rate}
    return json.dumps(request).encode() + b"\n"


def main() -> int:
    """Read the request, and do it."""
    import uvloop

    request = json.loads(sys.stdin.readline())
    trial, database = Trial(**request["trial"]), Database(**request["database"])
    try:
        if request["role"] == "worker":
            uvloop.run(work(trial, database))
        elif request["role"] == "load":
            uvloop.run(load(trial, database, request["rate"]))
        else:
            print(json.dumps(uvloop.run(measure(trial, database))))
    except MeasurementError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
