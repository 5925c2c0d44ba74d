"""``pgq schedules``: what runs by the clock."""

from __future__ import annotations

from typing import Annotated

import typer

from pgq_fast.cli.context import open_queries
from pgq_fast.cli.output import print_table
from pgq_fast.loops import run_in_loop
from pgq_fast.models import Schedule
from pgq_fast.settings import db_settings
from pgq_fast.types import CronEntrypoint, ScheduleId

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(help="List the schedules, after removing those that are named.")(schedules)


def schedules(
    context: typer.Context,
    remove: Annotated[
        list[str],
        # What has digits only is an id.
        typer.Option("-r", "--remove", help="Id or entrypoint of a schedule; can be repeated."),
    ] = [],  # noqa: B006 - typer copies it
) -> None:
    """The one that ran longest ago first; times in the local time zone."""
    ids = {ScheduleId(int(name)) for name in remove if name.isdecimal()}
    entrypoints = {CronEntrypoint(name) for name in remove if not name.isdecimal()}

    async def asking() -> list[Schedule]:
        async with open_queries(context, db_settings()) as queries:
            if remove:
                await queries.delete_schedule(ids, entrypoints)
            return await queries.peek_schedule()

    print_table(
        [
            "id",
            "expression",
            "heartbeat",
            "created",
            "updated",
            "next_run",
            "last_run",
            "status",
            "entrypoint",
        ],
        [
            (
                schedule.id,
                schedule.expression,
                schedule.heartbeat.astimezone(),
                schedule.created.astimezone(),
                schedule.updated.astimezone(),
                schedule.next_run.astimezone(),
                schedule.last_run.astimezone() if schedule.last_run else "",
                schedule.status,
                schedule.entrypoint,
            )
            for schedule in run_in_loop(asking())
        ],
    )
