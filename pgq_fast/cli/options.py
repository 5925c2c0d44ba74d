"""Options that more than one command takes."""

from __future__ import annotations

from typing import Annotated

import typer

from pgq_fast.settings import Durability

DurabilityOption = Annotated[
    Durability,
    typer.Option("--durability", "-d", help="What a crash of the server may lose."),
]

DurabilityArgument = Annotated[
    Durability,
    typer.Argument(
        help=(
            "volatile: all tables are unlogged; balanced: log and statistics are unlogged; "
            "durable: all tables are logged."
        ),
    ),
]

CreateSchemaOption = Annotated[
    bool,
    typer.Option(
        "--create-schema/--no-create-schema",
        help=(
            "Whether to create the schema that --schema names. Without it the schema must "
            "exist, and the role needs no right to create one."
        ),
    ),
]

WidenIdOption = Annotated[
    bool,
    typer.Option(
        "--widen-id/--no-widen-id",
        help=(
            "Whether to turn 32-bit ids of old installations into 64-bit ones. That rewrites "
            "each table, and nobody can use it meanwhile."
        ),
    ),
]

RollbackOption = Annotated[
    bool,
    typer.Option(help="Go back to the server's defaults instead."),
]
