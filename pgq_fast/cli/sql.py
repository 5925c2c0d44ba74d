"""``pgq sql``: the SQL of the schema commands on stdout, without a connection."""

from __future__ import annotations

import typer

from pgq_fast.cli.options import (
    CreateSchemaOption,
    DurabilityArgument,
    DurabilityOption,
    RollbackOption,
    WidenIdOption,
)
from pgq_fast.schema import ddl
from pgq_fast.schema.offline import upgrade_script
from pgq_fast.settings import DBSettings, Durability, db_settings

__all__ = ["autovacuum_text", "durability_text", "register"]


def durability_text(settings: DBSettings) -> str:
    """The SQL of ``pgq durability``."""
    return "\n\n".join(ddl.alter_durability_sql(settings))


def autovacuum_text(settings: DBSettings, *, rollback: bool) -> str:
    """The SQL of ``pgq autovac``."""
    if rollback:
        return ddl.optimize_autovacuum_rollback_sql(settings)
    return ddl.optimize_autovacuum_sql(settings)


def register(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    group = typer.Typer(
        help=(
            "Print SQL instead of running it, for psql or as a migration file. "
            "The same options give the same text."
        ),
        no_args_is_help=True,
    )
    group.command(help="SQL that creates all objects.")(install)
    group.command(help="SQL that drops all objects.")(uninstall)
    group.command(
        help=(
            "SQL that brings any earlier installation up to date; every statement checks what "
            "is there. 'pgq upgrade --plan' prints what one database needs."
        )
    )(upgrade)
    group.command(help="SQL that makes tables logged or unlogged.")(durability)
    group.command(help="SQL that sets the storage parameters for autovacuum.")(autovac)
    app.add_typer(group, name="sql")


def install(
    durability: DurabilityOption = Durability.durable,
    create_schema: CreateSchemaOption = True,
) -> None:
    """Print what creates all objects."""
    typer.echo(ddl.install_sql(DBSettings(durability=durability), create_schema=create_schema))


def uninstall() -> None:
    """Print what drops all objects."""
    typer.echo(ddl.uninstall_sql(db_settings()))


def upgrade(
    durability: DurabilityOption = Durability.durable,
    widen_id: WidenIdOption = True,
) -> None:
    """Print what brings any earlier installation up to date."""
    typer.echo(upgrade_script(DBSettings(durability=durability, widen_id=widen_id)))


def durability(durability: DurabilityArgument) -> None:
    """Print what makes the tables logged or unlogged."""
    typer.echo(durability_text(DBSettings(durability=durability)))


def autovac(rollback: RollbackOption = False) -> None:
    """Print what sets or resets the storage parameters."""
    typer.echo(autovacuum_text(db_settings(), rollback=rollback))
