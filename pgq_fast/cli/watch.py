"""The commands that go on until Ctrl-C: dashboard and listen."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer
from pydantic import ValidationError

from pgq_fast.cli.context import open_listener, open_queries
from pgq_fast.cli.errors import CliError
from pgq_fast.cli.output import format_table
from pgq_fast.drivers.base import Driver
from pgq_fast.loops import run_in_loop
from pgq_fast.models import AnyEvent, LogStatistics
from pgq_fast.queries import Queries
from pgq_fast.settings import db_settings
from pgq_fast.types import Channel

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["register"]

DEFAULT_CHANNEL: Final = "ch_pgqueuer"

ALIVE: Final = 10.0
"""Seconds between two looks at whether the connection that listens is still there."""

HEADERS: Final = ("Created", "Count", "Entrypoint", "Status", "Priority")

COLOURS: Final = {
    "successful": "green",
    "exception": "red",
    "failed": "bold red",
    "canceled": "yellow",
    "deleted": "yellow",
}


def register(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    app.command(help="Show how many jobs reached which status in the last seconds.")(dashboard)
    app.command(help="Print the notifications of a channel as they arrive.")(listen)


def dashboard(
    context: typer.Context,
    interval: Annotated[
        float | None,
        typer.Option(
            "-i", "--interval", min=0.1, help="Refresh after so many seconds; without it, once."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("-n", "--limit", min=0, help="Show so many rows at most, newest first.")
    ] = 25,
) -> None:
    """In place on a terminal, else one table below the other."""

    async def show() -> None:
        async with open_queries(context, db_settings()) as queries:
            if interval is not None and sys.stdout.isatty():
                await _refresh(queries, interval, limit)
                return
            while True:
                typer.echo(format_table(HEADERS, map(_row, await queries.log_statistics(limit))))
                if interval is None:
                    return
                await asyncio.sleep(interval)

    run_in_loop(show())


def _row(statistics: LogStatistics) -> tuple[object, ...]:
    return (
        statistics.created.astimezone(),
        statistics.count,
        statistics.entrypoint,
        statistics.status,
        statistics.priority,
    )


async def _refresh(queries: Queries, interval: float, limit: int) -> None:
    from rich.live import Live

    with Live(screen=True, auto_refresh=False) as live:
        while True:
            live.update(_as_screen(await queries.log_statistics(limit)), refresh=True)
            await asyncio.sleep(interval)


def _as_screen(statistics: list[LogStatistics]) -> RenderableType:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Jobs by second, entrypoint and status", caption="Ctrl-C ends")
    for header in HEADERS:
        table.add_column(header, justify="right" if header in ("Count", "Priority") else "left")
    for entry in statistics:
        cells = [escape(str(cell)) for cell in _row(entry)]
        table.add_row(*cells, style=COLOURS.get(entry.status, ""))
    return table


def listen(
    context: typer.Context,
    channel: Annotated[
        str, typer.Option("--channel", help="By default the one that the settings name.")
    ] = DEFAULT_CHANNEL,
) -> None:
    """One line an event."""
    source = context.get_parameter_source("channel")
    if source is not None and source.name == "DEFAULT":
        # With the prefix, if there is one.
        channel = db_settings().channel

    async def show() -> None:
        async with (
            open_queries(context, db_settings()) as queries,
            open_listener(context, queries.driver) as driver,
        ):
            if driver is None:
                raise CliError(
                    "a pooler in transaction mode passes no notifications on: set "
                    "PGQUEUER_LISTEN_DSN to where PostgreSQL itself is"
                )
            await _print_events(driver, Channel(channel))

    run_in_loop(show())


async def _print_events(driver: Driver, channel: Channel) -> None:
    heard = asyncio.Queue[str | bytes | bytearray]()
    await driver.add_listener(channel, heard.put_nowait)
    typer.echo(f"Listening on {channel}; Ctrl-C ends.", err=True)
    while True:
        try:
            async with asyncio.timeout(ALIVE):
                payload = await heard.get()
        except TimeoutError:
            # A lost connection would be silent for ever.
            await driver.execute("SELECT 1")
            continue
        try:
            typer.echo(repr(AnyEvent.model_validate_json(payload).root))
        except ValidationError:
            # Anybody may notify on a channel. What it says is not shown: it may be private.
            typer.echo(f"not an event of the queue: {len(payload)} characters", err=True)
