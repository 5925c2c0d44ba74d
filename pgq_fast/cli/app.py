"""The program: global options, and the commands of each module."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from pgq_fast.choices import Layout
from pgq_fast.cli import (
    jobs,
    measure,
    migrate,
    prune,
    run as run_command,
    schedules,
    schema as schema_commands,
    sql as sql_commands,
    top,
    watch,
    web,
)
from pgq_fast.cli.context import GlobalOptions
from pgq_fast.cli.errors import TRACEBACK_VARIABLE

__all__ = ["app"]

app = typer.Typer(
    name="pgqueuer",
    help="Run and manage a job queue on PostgreSQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def main(
    context: typer.Context,
    prefix: Annotated[
        str,
        typer.Option(envvar="PGQUEUER_PREFIX", help="Stands before the name of every object."),
    ] = "",
    schema: Annotated[
        str,
        typer.Option(
            envvar="PGQUEUER_SCHEMA",
            help="PostgreSQL schema of all objects; by default the search_path decides.",
        ),
    ] = "",
    layout: Annotated[
        Layout | None,
        typer.Option(
            envvar="PGQUEUER_LAYOUT",
            help=(
                "Tables of the queue: compat are those of pgqueuer 1.6.0, lease is built for "
                "volume. By default compat."
            ),
        ),
    ] = None,
    pg_dsn: Annotated[
        str,
        typer.Option(
            envvar="PGDSN",
            help=(
                "Where to connect, as postgresql://user@host/database. Without it PGQUEUER_DSN, "
                "then libpq's variables (PGHOST, PGUSER, ...) are used."
            ),
        ),
    ] = "",
    factory: Annotated[
        str | None,
        typer.Option(help="module:function that returns an async context manager of a Queries."),
    ] = None,
    show_traceback: Annotated[
        bool,
        typer.Option(
            "--traceback",
            help=f"Show where a failure comes from; the variable {TRACEBACK_VARIABLE}=1 as well.",
        ),
    ] = False,
) -> None:
    """Run and manage a job queue on PostgreSQL."""
    if show_traceback:
        # Where it is reported this is over, and processes of this one are to do the same.
        os.environ[TRACEBACK_VARIABLE] = "1"
    options = GlobalOptions(prefix, schema, layout, pg_dsn, factory)
    # By name: typer has an enum of its own or click's, depending on its version.
    source = context.get_parameter_source("schema")
    typed = source is not None and source.name == "COMMANDLINE"
    options.apply_to_environment(schema_was_typed=typed and bool(schema))
    context.obj = options


for commands in (
    run_command,
    jobs,
    schedules,
    watch,
    top,
    web,
    schema_commands,
    migrate,
    prune,
    measure,
    sql_commands,
):
    commands.register(app)
