"""The commands that try a queue out: bench on the user's server, demo on any."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pgq_fast._impl import __impl__
from pgq_fast.choices import Layout
from pgq_fast.cli.context import GlobalOptions, cannot_connect
from pgq_fast.cli.errors import CliError
from pgq_fast.cli.output import print_json, print_table
from pgq_fast.cli.progress import Report, progress
from pgq_fast.loops import run_in_loop
from pgq_fast.settings import DBSettings

if TYPE_CHECKING:
    from pgq_fast.drivers.base import Driver
    from pgq_fast.trial import DriverName

__all__ = ["register"]

SETTINGS: Final = ("fsync", "synchronous_commit", "full_page_writes", "wal_level")
"""Settings of the server without which the figures mean nothing."""

ROUND_TRIPS: Final = 50

STEPS: Final = {"enqueue": "enqueue, in lists", "drain": "drain"}
"""What is measured, and how tables call it."""


class DriverChoice(Enum):
    """The library that connects."""

    asyncpg = "asyncpg"
    psycopg = "psycopg"


DriverOption = Annotated[
    DriverChoice | None,
    typer.Option("--driver", help="By default asyncpg if it is installed, else psycopg."),
]

BatchSizeOption = Annotated[
    int | None,
    typer.Option(min=1, help="Jobs claimed at a time; by default as many as suit the handlers."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    app.command(
        help=(
            "Measure how fast jobs that do nothing go through a queue on your server: in a schema "
            "of its own, which is removed afterwards. On both layouts, or on that of --layout."
        )
    )(bench)
    app.command(
        help=(
            "Show a queue at work on an embedded PostgreSQL, which the extra 'demo' installs, or "
            "with --dsn on a server of yours, in schemas that are removed afterwards."
        )
    )(demo)


@dataclass(frozen=True)
class Figures:
    """Jobs a second, a number a round."""

    enqueue: list[float]
    drain: list[float]

    def by_step(self) -> dict[str, list[float]]:
        """The same under the names of ``STEPS``."""
        return {"enqueue": self.enqueue, "drain": self.drain}


def bench(
    context: typer.Context,
    jobs: Annotated[int, typer.Option(min=1, help="Jobs of a round.")] = 20_000,
    rounds: Annotated[int, typer.Option(min=1, help="Repetitions, to see the spread.")] = 3,
    batch_size: BatchSizeOption = None,
    driver: DriverOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of tables.")
    ] = False,
    compare: Annotated[
        Path | None,
        typer.Option(help="What --json printed earlier: ratios to its medians are shown as well."),
    ] = None,
) -> None:
    """One producer, then one worker, on this machine; progress and warnings go to stderr."""
    from pgq_fast.signals import sigterm_as_exit
    from pgq_fast.trial import cheap_commits

    # Before time is spent on what it cannot be compared with.
    earlier = _read_earlier(compare) if compare else {}
    options: GlobalOptions = context.ensure_object(GlobalOptions)
    library = _library(driver)
    dsn = options.pg_dsn or None
    layouts = list(Layout) if options.layout is None else [options.layout]
    # SIGTERM, too, leaves nothing behind.
    with progress() as report, sigterm_as_exit():
        server = run_in_loop(_server(library, dsn))
        warnings = cheap_commits(server)
        for warning in warnings:
            typer.echo(f"warning: {warning}", err=True)
        found = {
            layout: _measure(report, library, dsn, layout, jobs, rounds, batch_size)
            for layout in layouts
        }
    ratios = _ratios(found, earlier)
    setup: dict[str, object] = {
        "date": datetime.now(UTC).date().isoformat(),
        "pgq_fast": version("pgq-fast"),
        "implementation": "compiled" if __impl__ == "c" else "pure Python",
        "python": platform.python_version(),
        "driver": f"{library} {version(library)}",
        "cpus": os.cpu_count(),
        "system": platform.platform(),
        **server,
        "jobs": jobs,
        "rounds": rounds,
        "batch_size": batch_size,
    }
    if as_json:
        rates = {layout.value: figures.by_step() for layout, figures in found.items()}
        more = {"ratio_to_earlier": ratios} if compare else {}
        print_json({**setup, "warnings": warnings, "jobs_per_second": rates, **more})
        return
    print_table(
        [
            "Layout",
            "Jobs a second",
            "Lowest",
            "Median",
            "Highest",
            *(["To earlier"] * bool(compare)),
        ],
        [
            (
                layout.value,
                STEPS[step],
                *(f"{rate:,.0f}" for rate in _spread(rates)),
                *([_ratio_shown(ratios.get(layout.value, {}).get(step))] * bool(compare)),
            )
            for layout, figures in found.items()
            for step, rates in figures.by_step().items()
        ],
    )
    print_table(["Measured with", ""], [(name, _shown(value)) for name, value in setup.items()])


def _library(wanted: DriverChoice | None) -> DriverName:
    names: Sequence[DriverName] = ("asyncpg", "psycopg") if wanted is None else (wanted.value,)
    for name in names:
        if find_spec(name) is not None:
            return name
    raise CliError(f"{names[0]} is not installed: pip install 'pgq-fast[{names[0]}]'")


def _spread(rates: Sequence[float]) -> tuple[float, float, float]:
    return min(rates), statistics.median(rates), max(rates)


def _read_earlier(path: Path) -> dict[str, dict[str, float]]:
    """Median rates of an earlier run, by layout and step."""
    try:
        rates = json.loads(path.read_text(encoding="utf-8"))["jobs_per_second"]
        return {
            layout: {step: statistics.median(steps[step]) for step in STEPS}
            for layout, steps in rates.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CliError(
            f"--compare takes a file of what 'pgq bench --json' prints: {error}"
        ) from error


def _ratios(
    found: Mapping[Layout, Figures], earlier: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Medians as multiples of those before, of the layouts that both have."""
    return {
        layout.value: {
            step: round(statistics.median(rates) / earlier[layout.value][step], 3)
            for step, rates in figures.by_step().items()
            if earlier[layout.value][step] > 0
        }
        for layout, figures in found.items()
        if layout.value in earlier
    }


def _ratio_shown(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _shown(value: object) -> str:
    return "as suits the handlers" if value is None else str(value)


async def _server(library: DriverName, dsn: str | None) -> dict[str, object]:
    from pgq_fast.trial import connect

    try:
        async with connect(library, dsn):
            pass
    except Exception as error:
        raise cannot_connect(error) from error
    async with connect(library, dsn) as driver:
        columns = "".join(f", current_setting('{name}') AS {name}" for name in SETTINGS)
        (row,) = await driver.fetch(
            f"SELECT current_setting('server_version') AS postgresql{columns}"
        )
        return {**row, "round_trip_ms": round(await _round_trip(driver) * 1e3, 3)}


async def _round_trip(driver: Driver) -> float:
    """Median seconds of a statement that does nothing."""
    times = []
    for _ in range(ROUND_TRIPS):
        began = time.perf_counter()
        await driver.fetch("SELECT 1")
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _measure(
    report: Report,
    library: DriverName,
    dsn: str | None,
    layout: Layout,
    jobs: int,
    rounds: int,
    batch_size: int | None,
) -> Figures:
    from pgq_fast.trial import connect, drain, enqueue_all, temporary_schema

    async def one_round(settings: DBSettings, number: int) -> tuple[float, float]:
        def counted(step: str) -> Callable[[int], None]:
            return lambda done: report(f"{layout.value}, round {number}, {step}", done, jobs)

        async with connect(library, dsn) as producer:
            enqueueing = await enqueue_all(producer, settings, jobs, counted("enqueue"))
        async with connect(library, dsn) as worker:
            draining = await drain(worker, settings, jobs, batch_size, counted("drain"))
        return round(jobs / enqueueing, 1), round(jobs / draining, 1)

    with temporary_schema("pgq_fast_bench", library, dsn, layout) as settings:
        found = [run_in_loop(one_round(settings, number + 1)) for number in range(rounds)]
    return Figures([enqueue for enqueue, _ in found], [drain for _, drain in found])


def demo(
    context: typer.Context,
    jobs: Annotated[int, typer.Option(min=1, help="Jobs on each layout.")] = 100_000,
    dsn: Annotated[
        str | None, typer.Option(help="A server of yours; by default one that is started for it.")
    ] = None,
    driver: DriverOption = None,
    batch_size: BatchSizeOption = None,
) -> None:
    """On both layouts, or on that of --layout."""
    from pgq_fast import demo as demonstration

    options: GlobalOptions = context.ensure_object(GlobalOptions)
    library = _library(driver)
    demonstration.show(
        demonstration.Options(
            jobs=jobs, dsn=dsn, driver=library, batch_size=batch_size, layout=options.layout
        )
    )
