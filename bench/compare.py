"""pgqueuer and pgq_fast side by side: one script, one server, the same public API and settings.

    python bench/compare.py [--jobs 20000] [--repeat 3] [--dsn DSN]

Each measurement runs in a process of its own, on a freshly installed schema, the two libraries in
turn. It reports jobs a second and the client's CPU time a job, medians over the repeats with the
spread between the slowest and the fastest, and the ratios. Without a DSN an embedded PostgreSQL is
used, at its defaults: fsync and synchronous_commit are on.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any

PACKAGES = ("pgqueuer", "pgq_fast")
PAYLOAD = b"x" * 32
ENQUEUE_LIST = 1000


async def measure(package: str, dsn: str, jobs: int, batch_size: int, handler: str) -> None:
    """Enqueue and drain with *package*; print the figures as JSON."""
    import asyncpg

    library = importlib.import_module(package)
    types = importlib.import_module(f"{package}.types")
    connection = await asyncpg.connect(dsn)
    try:
        pgq = library.PgQueuer.from_asyncpg_connection(connection)
        if await pgq.queries.has_table(pgq.queries.qbe.settings.queue_table):
            await pgq.queries.uninstall()
        await pgq.queries.install()
        await connection.execute("CHECKPOINT")
        runs: dict[int, int] = {}

        async def noop(job: Any) -> None:
            runs[job.id] = runs.get(job.id, 0) + 1

        async def yielding(job: Any) -> None:
            await asyncio.sleep(0)
            runs[job.id] = runs.get(job.id, 0) + 1

        pgq.entrypoint("bench")({"noop": noop, "sleep(0)": yielding}[handler])

        wall, cpu = time.perf_counter(), time.process_time()
        for start in range(0, jobs, ENQUEUE_LIST):
            count = min(ENQUEUE_LIST, jobs - start)
            await pgq.queries.enqueue(["bench"] * count, [PAYLOAD] * count, [0] * count)
        enqueue_wall, enqueue_cpu = time.perf_counter() - wall, time.process_time() - cpu

        wall, cpu = time.perf_counter(), time.process_time()
        await pgq.run(mode=types.QueueExecutionMode.drain, batch_size=batch_size)
        drain_wall, drain_cpu = time.perf_counter() - wall, time.process_time() - cpu

        if len(runs) != jobs or set(runs.values()) != {1}:
            raise SystemExit(f"{package}: {len(runs)} of {jobs} jobs ran, not each exactly once")
        done = await connection.fetchval(
            "SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'"
        )
        if done != jobs:
            raise SystemExit(f"{package}: the log has {done} of {jobs} jobs as successful")
        print(
            json.dumps(
                {
                    "enqueue rate": jobs / enqueue_wall,
                    "enqueue cpu": enqueue_cpu / jobs * 1e6,
                    "drain rate": jobs / drain_wall,
                    "drain cpu": drain_cpu / jobs * 1e6,
                }
            )
        )
    finally:
        await connection.close()


def in_process(
    package: str, dsn: str, jobs: int, batch_size: int, handler: str
) -> dict[str, float]:
    """One measurement, in a process that loads only *package*."""
    command = [sys.executable, os.path.abspath(__file__), "--measure", package, "--dsn", dsn]
    command += ["--jobs", str(jobs), "--batch-size", str(batch_size), "--handler", handler]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{package}: {done.stderr.strip()[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


async def server_settings(dsn: str) -> str:
    """Version and durability of the server."""
    import asyncpg

    connection = await asyncpg.connect(dsn)
    try:
        names = ("server_version", "fsync", "synchronous_commit", "shared_buffers")
        values = [await connection.fetchval("SELECT current_setting($1)", name) for name in names]
        return ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
    finally:
        await connection.close()


def spread(values: list[float]) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):10,.1f} ({min(values):,.1f} to {max(values):,.1f})"


def report(dsn: str, jobs: int, repeat: int) -> None:
    """Measure and print everything."""
    from importlib.metadata import version

    from pgq_fast import __impl__

    print(f"Python {platform.python_version()}, uvloop {version('uvloop')}, {os.cpu_count()} CPUs")
    print(f"pgqueuer {version('pgqueuer')}, asyncpg {version('asyncpg')}, pgq_fast: {__impl__}")
    print(f"PostgreSQL: {asyncio.run(server_settings(dsn))}")
    print(f"{jobs:,} jobs of {len(PAYLOAD)} bytes, one connection, {repeat} repeats in turn\n")
    for batch_size, handler in ((10, "noop"), (50, "noop"), (200, "noop"), (200, "sleep(0)")):
        found: dict[str, list[dict[str, float]]] = {package: [] for package in PACKAGES}
        for _ in range(repeat):
            for package in PACKAGES:
                found[package].append(in_process(package, dsn, jobs, batch_size, handler))
        print(f"batch_size={batch_size}, handler {handler}")
        for figure, unit in (
            ("enqueue rate", "jobs/s"),
            ("enqueue cpu", "us/job"),
            ("drain rate", "jobs/s"),
            ("drain cpu", "us/job"),
        ):
            columns = {package: [run[figure] for run in found[package]] for package in PACKAGES}
            old, new = (statistics.median(columns[package]) for package in PACKAGES)
            shown = "  ".join(f"{package} {spread(columns[package])}" for package in PACKAGES)
            print(f"  {figure:12} {unit}  {shown}  ratio {new / old:.2f}")
        print()


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--dsn")
    parser.add_argument("--measure", choices=PACKAGES, help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, default=10, help=argparse.SUPPRESS)
    parser.add_argument("--handler", default="noop", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        import uvloop

        uvloop.run(
            measure(options.measure, options.dsn, options.jobs, options.batch_size, options.handler)
        )
        return
    with ExitStack() as stack:
        dsn = options.dsn
        if dsn is None:
            from pgq_fast.embedded import embedded_postgres

            dsn = stack.enter_context(embedded_postgres())
        report(dsn, options.jobs, options.repeat)


if __name__ == "__main__":
    main()
