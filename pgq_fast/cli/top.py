"""``pgq top``: what the queue is doing just now."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pgq_fast.activity import Activity, Depth, Monitor, Number
from pgq_fast.cli.context import open_listener, open_queries
from pgq_fast.cli.output import format_table, print_json
from pgq_fast.loops import run_in_loop
from pgq_fast.settings import db_settings

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["register"]

ROWS: Final = 15
"""Entrypoints and workers that are shown; the JSON has more."""


def register(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(
        help=(
            "Show rates, depth, the oldest job, workers and wake-ups, refreshed in place. The cost "
            "does not grow with the queue: counts stop at 10,000 and are estimates beyond."
        )
    )(top)


def top(
    context: typer.Context,
    interval: Annotated[
        float, typer.Option("-i", "--interval", min=0.1, help="Seconds between two samples.")
    ] = 1.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print what happens within one interval, and end.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a sample, each on a line.")
    ] = False,
) -> None:
    """In place on a terminal, else one sample below the other."""

    async def show() -> None:
        async with open_queries(context, db_settings()) as queries:
            # Through the views of the other layout it would be neither right nor cheap.
            await queries.require_layout()
            monitor = Monitor(queries.driver, queries.qbq.settings)
            async with (
                open_listener(context, queries.driver) as listener,
                contextlib.aclosing(_samples(monitor, interval)) as samples,
            ):
                if listener is not None:
                    await monitor.listen(listener)
                if sys.stdout.isatty() and not once and not as_json:
                    await _refresh(samples)
                    return
                async for activity in samples:
                    if as_json:
                        print_json(as_data(activity))
                    else:
                        typer.echo(as_text(activity))
                    if once:
                        return

    run_in_loop(show())


async def _samples(monitor: Monitor, interval: float) -> AsyncGenerator[Activity, None]:
    await monitor.begin()
    while True:
        await asyncio.sleep(interval)
        yield await monitor.sample()


def as_data(activity: Activity) -> dict[str, object]:
    """*activity* for programs."""
    data = dataclasses.asdict(activity)
    data["layout"] = activity.layout.value
    data["oldest_seconds"] = activity.oldest_seconds
    return data


# ------------------------------------------------------------------------------ for people


def _number(number: Number) -> str:
    return f"{number.count:,}" if number.exact else f"{number.count:,} or more"


def _queued(depth: Depth) -> str:
    if depth.estimated is None:
        return _number(depth.waiting)
    return f"{_number(depth.waiting)}, about {depth.estimated:,} rows by PostgreSQL's statistics"


def _rate(rate: float | None) -> str:
    return "unknown" if rate is None else f"{rate:,.1f}/s"


def _rates(rates: Mapping[str, float] | None) -> str:
    if rates is None:
        return "unknown: the pooler passes none on, set PGQUEUER_LISTEN_DSN"
    return ", ".join(f"{name} {_rate(rate)}" for name, rate in sorted(rates.items())) or "none"


def _age(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:,.1f} s"


def _facts(activity: Activity) -> list[tuple[str, str]]:
    depth = activity.depth
    about = "about " if activity.estimated else ""
    facts = [
        ("layout", activity.layout.value),
        ("enqueued", _rate(activity.enqueued)),
        ("ended", f"{about}{_rates(activity.ended)}"),
        ("waiting", _queued(depth)),
        ("deferred", _number(depth.deferred)),
        ("running", _number(depth.running)),
        ("oldest waiting", _age(activity.oldest_seconds) or "none"),
        ("workers with jobs", f"{len(activity.workers):,}"),
    ]
    if activity.sleeping_workers is not None:
        facts.append(("workers asleep", f"{activity.sleeping_workers:,}"))
        leases = sum(worker.leases or 0 for worker in activity.workers)
        facts.append(("leases", f"{leases:,}"))
    facts.append(("notifications", _rates(activity.notifications)))
    return facts


ENTRYPOINT_HEADERS: Final = ("Entrypoint", "Oldest waiting", "Ended")
WORKER_HEADERS: Final = ("Worker", "Jobs", "Leases", "Silent for")


def _entrypoint_rows(activity: Activity) -> list[tuple[str, ...]]:
    return [
        (each.name, _age(each.oldest_seconds), _rates(each.ended))
        for each in activity.entrypoints[:ROWS]
    ]


def _worker_rows(activity: Activity) -> list[tuple[str, ...]]:
    return [
        (
            str(worker.id),
            f"{worker.jobs:,}",
            "" if worker.leases is None else f"{worker.leases:,}",
            _age(worker.silent_seconds),
        )
        for worker in activity.workers[:ROWS]
    ]


def as_text(activity: Activity) -> str:
    """*activity* for people, without a terminal."""
    parts = [f"{activity.at.astimezone():%Y-%m-%d %H:%M:%S}"]
    parts += [f"{name:>17}: {value}" for name, value in _facts(activity)]
    if activity.entrypoints:
        parts.append(format_table(ENTRYPOINT_HEADERS, _entrypoint_rows(activity)))
    if activity.workers:
        parts.append(format_table(WORKER_HEADERS, _worker_rows(activity)))
    return "\n".join(parts)


async def _refresh(samples: AsyncIterator[Activity]) -> None:
    from rich.live import Live

    with Live(screen=True, auto_refresh=False) as live:
        live.update("taking the first sample ...", refresh=True)
        async for activity in samples:
            live.update(_as_screen(activity), refresh=True)


def _as_screen(activity: Activity) -> RenderableType:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column()
    for name, value in _facts(activity):
        facts.add_row(name, value)
    parts: list[RenderableType] = [
        f"[bold]pgq top[/bold]  {activity.at.astimezone():%H:%M:%S}  Ctrl-C ends",
        facts,
    ]
    for headers, rows in (
        (ENTRYPOINT_HEADERS, _entrypoint_rows(activity)),
        (WORKER_HEADERS, _worker_rows(activity)),
    ):
        if rows:
            table = Table(*headers)
            for row in rows:
                table.add_row(*map(escape, row))
            parts.append(table)
    return Group(*parts)
