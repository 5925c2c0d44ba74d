"""A hundred thousand jobs through a queue, and how long one waits: ``python -m pgq_fast.demo``.

On each of the two table layouts. Runs on an embedded PostgreSQL (extra ``demo``), or with
``--dsn`` on a server of yours, where it keeps to schemas of its own that it removes at the end.
Everything here is the public API, used as any program would use it. ``pgq demo`` is the same.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pgq_fast import __impl__
from pgq_fast.choices import Layout
from pgq_fast.embedded import EmbeddedPostgresError, embedded_postgres
from pgq_fast.errors import PgqException
from pgq_fast.loops import run_in_loop
from pgq_fast.models import Job
from pgq_fast.settings import DBSettings
from pgq_fast.signals import sigterm_as_exit
from pgq_fast.trial import (
    DriverName,
    TrialError,
    connect,
    drain,
    enqueue_all,
    queries_on,
    temporary_schema,
    worker_on,
)

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["DEFAULT_JOBS", "DemoError", "Options", "main", "show"]

DEFAULT_JOBS: Final = 100_000
# Single jobs whose wait is measured, after a few that warm connections and caches.
LATENCY_JOBS: Final = 200
LATENCY_WARM_UP: Final = 20
# Seconds between them, so that each finds an idle worker.
LATENCY_PAUSE: Final = 0.005

# Seconds without any progress after which the demo gives up.
PATIENCE: Final = 60.0


class DemoError(PgqException, RuntimeError):
    """The demo could not run, or did not see what it should."""


@dataclass(frozen=True)
class Options:
    """The command line."""

    jobs: int
    dsn: str | None
    driver: DriverName
    batch_size: int | None
    layout: Layout | None
    """None: one after the other."""

    @property
    def layouts(self) -> Sequence[Layout]:
        """Those to run on."""
        return list(Layout) if self.layout is None else [self.layout]


@dataclass(frozen=True)
class Measurements:
    """What a run showed. Times in seconds."""

    jobs: int
    enqueue_time: float
    drain_time: float
    latencies: Sequence[float]
    """Sorted."""

    def latency(self, quantile: float) -> float:
        """The wait that *quantile* of the jobs did not exceed."""
        last = len(self.latencies) - 1
        return self.latencies[min(last, round(quantile * last))]


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line; DSN in the environment stands in for ``--dsn``."""
    parser = argparse.ArgumentParser(prog="python -m pgq_fast.demo", description=__doc__)
    parser.add_argument("--jobs", type=_positive, default=DEFAULT_JOBS, help="default: %(default)s")
    parser.add_argument(
        "--dsn",
        default=os.environ.get("DSN") or None,
        help="a server of yours instead of an embedded one; default: the variable DSN",
    )
    parser.add_argument("--driver", choices=("asyncpg", "psycopg"), default="asyncpg")
    parser.add_argument(
        "--batch-size",
        type=_positive,
        help="jobs claimed at a time; default: as many as suit the handlers",
    )
    parser.add_argument(
        "--layout",
        type=Layout,
        choices=list(Layout),
        metavar="{compat,lease}",
        help="default: both",
    )
    return Options(**vars(parser.parse_args(arguments)))


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


# ------------------------------------------------------------------------------ the three parts


async def run_jobs(
    options: Options, dsn: str, settings: DBSettings, progress: Progress
) -> tuple[float, float]:
    """Enqueue the jobs and run them; seconds of each."""
    async with connect(options.driver, dsn) as driver:
        bar = progress.add_task(f"{settings.layout.value}: enqueue", total=options.jobs)
        enqueueing = await enqueue_all(
            driver, settings, options.jobs, lambda done: progress.update(bar, completed=done)
        )
    async with connect(options.driver, dsn) as driver:
        second = progress.add_task(f"{settings.layout.value}: drain", total=options.jobs)
        draining = await drain(
            driver,
            settings,
            options.jobs,
            options.batch_size,
            lambda done: progress.update(second, completed=done),
        )
    return enqueueing, draining


async def measure_latencies(
    options: Options, dsn: str, settings: DBSettings, progress: Progress
) -> list[float]:
    """Enqueue jobs one at a time for an idle worker.

    Returns:
        Seconds from the call of ``enqueue`` to the start of the handler, sorted.
    """
    started: asyncio.Queue[tuple[int, float]] = asyncio.Queue()
    latencies = []
    async with (
        connect(options.driver, dsn) as worker_driver,
        connect(options.driver, dsn) as producer_driver,
    ):
        pgq = worker_on(worker_driver, settings)
        queries = queries_on(producer_driver, settings)

        @pgq.entrypoint("demo-latency")
        async def run(job: Job) -> None:
            assert job.payload is not None
            started.put_nowait((int(job.payload), time.perf_counter()))

        bar = progress.add_task(f"{settings.layout.value}: latency", total=LATENCY_JOBS)
        worker = asyncio.create_task(pgq.run())
        try:
            for number in range(-LATENCY_WARM_UP, LATENCY_JOBS):
                await asyncio.sleep(LATENCY_PAUSE)
                began = time.perf_counter()
                await queries.enqueue("demo-latency", str(number).encode())
                ran, at = await next_start(started, worker)
                if ran != number:
                    raise DemoError(f"job {ran} ran where job {number} was expected")
                if number >= 0:
                    latencies.append(at - began)
                    progress.advance(bar)
        finally:
            pgq.shutdown.set()
            await worker
    return sorted(latencies)


async def next_start(
    started: asyncio.Queue[tuple[int, float]], worker: asyncio.Task[None]
) -> tuple[int, float]:
    """The next job that starts; an error where the worker ended or nothing starts."""
    start = asyncio.ensure_future(started.get())
    await asyncio.wait({start, worker}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    if start.done():
        return start.result()
    start.cancel()
    if worker.done():
        worker.result()
        raise DemoError("the worker ended before its jobs")
    raise DemoError(f"no job started within {PATIENCE:.0f} s")


# ------------------------------------------------------------------------------ the run


async def server_version(options: Options, dsn: str) -> str:
    """PostgreSQL's version; an error where nobody answers."""
    try:
        async with connect(options.driver, dsn) as driver:
            row = (await driver.fetch("SELECT current_setting('server_version') AS version"))[0]
    except Exception as error:
        raise DemoError(f"cannot use the server: {error}") from error
    return str(row["version"])


async def measure(options: Options, dsn: str, settings: DBSettings) -> Measurements:
    """Run the parts one after the other."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        TextColumn("{task.description:15}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as progress:
        enqueueing, draining = await run_jobs(options, dsn, settings, progress)
        return Measurements(
            jobs=options.jobs,
            enqueue_time=enqueueing,
            drain_time=draining,
            latencies=await measure_latencies(options, dsn, settings, progress),
        )


def report(options: Options, postgres: str, found: Mapping[Layout, Measurements]) -> None:
    """Print the result as a table, a column a layout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"pgq_fast: {options.jobs:,} jobs, each ran once")
    table.add_column("table layout", style="bold")
    for layout in found:
        table.add_column(layout.value, justify="right")

    def row(title: str, figure: Callable[[Measurements], str]) -> None:
        table.add_row(title, *map(figure, found.values()))

    row("enqueue, in lists", lambda run: f"{run.jobs / run.enqueue_time:,.0f} jobs/s")
    size = "" if options.batch_size is None else f", {options.batch_size:,} at a time"
    row(f"drain{size}", lambda run: f"{run.jobs / run.drain_time:,.0f} jobs/s")
    waits = "enqueue to handler, idle worker"
    row(f"{waits}, p50", lambda run: f"{run.latency(0.50) * 1e3:.2f} ms")
    row(f"{waits}, p99", lambda run: f"{run.latency(0.99) * 1e3:.2f} ms")
    table.add_section()
    table.add_row("implementation", "compiled" if __impl__ == "c" else "pure Python")
    table.add_row("driver", options.driver)
    table.add_row("Python", platform.python_version())
    table.add_row("PostgreSQL", postgres)
    Console().print(table)


def run(options: Options, dsn: str) -> None:
    """Measure on the server at *dsn* and leave nothing there."""
    postgres = run_in_loop(server_version(options, dsn))
    found = {}
    for layout in options.layouts:
        with temporary_schema("pgq_fast_demo", options.driver, dsn, layout) as settings:
            found[layout] = run_in_loop(measure(options, dsn, settings))
    report(options, postgres, found)


@contextlib.contextmanager
def server(options: Options) -> Iterator[str]:
    """The DSN of the user's server or of an embedded one."""
    if options.dsn:
        with sigterm_as_exit():
            yield options.dsn
        return
    # With PostgreSQL's own settings: the figures include writing to disk.
    with embedded_postgres() as dsn:
        yield dsn


def check_requirements(options: Options) -> None:
    """Say what to install before anything starts."""
    from importlib.util import find_spec

    if find_spec(options.driver) is None:
        raise DemoError(
            f"{options.driver} is not installed: pip install 'pgq-fast[{options.driver}]'"
        )


def show(options: Options) -> None:
    """Run the demo.

    Raises:
        DemoError: The server or the driver cannot be used.
        EmbeddedPostgresError: The embedded server cannot.
        TrialError: Jobs did not run once each.
    """
    check_requirements(options)
    with server(options) as dsn:
        run(options, dsn)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0, 1 for an error that is explained, 130 for Ctrl-C."""
    options = parse(arguments)
    try:
        show(options)
    except (DemoError, EmbeddedPostgresError, TrialError) as error:
        print(f"pgq_fast.demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
