"""``pgq migrate``: to the other table layout, while the queue is in use."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

import typer

from pgq_fast.choices import Layout
from pgq_fast.cli.context import open_queries
from pgq_fast.cli.progress import Report, progress
from pgq_fast.loops import run_in_loop
from pgq_fast.schema.migrate import MigrationProgress, MigrationReport, Phase
from pgq_fast.settings import db_settings
from pgq_fast.signals import sigterm_as_exit

__all__ = ["register"]

STEPS: Final[dict[Phase, str]] = {
    "log": "log: entries written out",
    "copy": "copy: jobs copied",
    "drain": "drain: running jobs ended",
    "settle": "settle: jobs whose log followed",
}


def register(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(
        help=(
            "Move the queue to the other table layout with everything in it, while it is in use. "
            "Afterwards, start workers and producers again with the new layout."
        )
    )(migrate)


def migrate(
    context: typer.Context,
    to: Annotated[Layout, typer.Option(help="The layout to have.")],
    batch_size: Annotated[
        int, typer.Option(min=1, help="Jobs that one statement copies.")
    ] = 10_000,
    patience: Annotated[
        float,
        typer.Option(
            min=0,
            help=(
                "Seconds for which at most no jobs are claimed, while running ones end or locks "
                "are waited for."
            ),
        ),
    ] = 60.0,
    heartbeat_timeout: Annotated[
        float,
        typer.Option(min=0, help="Silence in seconds after which a worker counts as dead."),
    ] = 30.0,
    requeue_picked: Annotated[
        bool,
        typer.Option(
            "--requeue-picked",
            help="After the patience, take jobs from those who still run them: they run again.",
        ),
    ] = False,
) -> None:
    """Progress and the result go to stderr; on a failure the queue stays where it was."""

    async def move(report: Report) -> MigrationReport:
        def on_progress(state: MigrationProgress) -> None:
            report(STEPS[state.phase], state.done, state.total)

        async with open_queries(context, db_settings()) as queries:
            return await queries.migrate(
                to,
                batch_size=batch_size,
                patience=timedelta(seconds=patience),
                heartbeat_timeout=timedelta(seconds=heartbeat_timeout),
                requeue_picked=requeue_picked,
                on_progress=on_progress,
            )

    # SIGTERM gives the queue back in good order, as Ctrl-C does.
    with progress() as report, sigterm_as_exit():
        done = run_in_loop(move(report))
    for note in done.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(_summary(done), err=True)


def _summary(done: MigrationReport) -> str:
    if done.source is done.target:
        finished = f"; the log of {done.jobs:,} moved jobs was completed" if done.jobs else ""
        return f"The layout is {done.target.value} already{finished}."
    again = f", {done.requeued:,} of which run again" if done.requeued else ""
    return (
        f"Migrated from {done.source.value} to {done.target.value}: {done.jobs:,} jobs{again}; "
        f"none could be claimed for {done.standstill.total_seconds():.2f} s. Start workers and "
        f"producers again with PGQUEUER_LAYOUT={done.target.value}."
    )
