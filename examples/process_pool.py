"""Jobs that compute, in processes of their own: ``python examples/process_pool.py [NUMBER]``.

A handler that computes for long would hold up all others, and the heartbeats of the worker too. So
it hands the work to a pool of processes, and waits. ``pgq run examples.process_pool:main`` runs
until it is told to stop; then what is being computed comes to its end.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator

import asyncpg

from pgq_fast import PgQueuer
from pgq_fast.models import Context, Job
from pgq_fast.queries import Queries
from pgq_fast.types import QueueExecutionMode


@contextlib.contextmanager
def out_of_reach_of_ctrl_c() -> Iterator[None]:
    """A terminal sends SIGINT to all processes, but those that are started here never see it.

    On POSIX, that is; Windows has no masks of signals.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def count_primes(below: int) -> tuple[int, int]:
    """Runs in the pool, and gets and returns what can be pickled."""
    primes = sum(
        all(number % divisor for divisor in range(2, int(number**0.5) + 1))
        for number in range(2, below)
    )
    return primes, os.getpid()


@contextlib.asynccontextmanager
async def main() -> AsyncIterator[PgQueuer]:
    """A factory: makes the worker and the pool, and ends both."""
    with concurrent.futures.ProcessPoolExecutor(
        # A fork would copy the event loop and the connection.
        mp_context=multiprocessing.get_context("spawn"),
    ) as processes:
        connection = await asyncpg.connect(os.environ.get("PGDSN"))
        try:
            pgq = PgQueuer.from_asyncpg_connection(connection, resources={"processes": processes})

            @pgq.entrypoint("count primes")
            async def count(job: Job, context: Context) -> None:
                pool = context.resources["processes"]
                assert isinstance(pool, concurrent.futures.Executor)
                below = int(job.payload or b"0")
                with out_of_reach_of_ctrl_c():
                    # The pool starts a process when there is none that is idle.
                    future = pool.submit(count_primes, below)
                primes, pid = await asyncio.wrap_future(future)
                where = "here" if pid == os.getpid() else "in the pool"
                print(f"{primes} primes below {below}, counted {where}", flush=True)

            yield pgq
        finally:
            await connection.close()


async def drain(number: int) -> None:
    async with main() as pgq:
        payloads: list[bytes | None] = [str(10 * 10**i).encode() for i in range(number)]
        queries = Queries(pgq.connection)
        await queries.enqueue(["count primes"] * number, payloads, [0] * number)
        await pgq.run(mode=QueueExecutionMode.drain)


if __name__ == "__main__":
    asyncio.run(drain(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
