"""The commands that manage the tables: install, verify, uninstall, upgrade, durability, autovac.

Results go to stdout, everything said to the operator to stderr.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Annotated, TypeVar

import typer

from pgq_fast.cli.context import open_queries
from pgq_fast.cli.options import (
    CreateSchemaOption,
    DurabilityArgument,
    DurabilityOption,
    RollbackOption,
    WidenIdOption,
)
from pgq_fast.cli.progress import working
from pgq_fast.cli.sql import autovacuum_text, durability_text
from pgq_fast.loops import run_in_loop
from pgq_fast.queries import Queries
from pgq_fast.schema import Plan, ddl
from pgq_fast.schema.offline import upgrade_script
from pgq_fast.settings import DBSettings, Durability, db_settings

__all__ = ["register"]

T = TypeVar("T")

DryRunOption = Annotated[
    bool, typer.Option("--dry-run", hidden=True, help="Deprecated: 'pgq sql' prints the SQL.")
]


class Expectation(Enum):
    """What ``verify`` is to find."""

    PRESENT = "present"
    ABSENT = "absent"


def register(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    app.command(help="Create all tables and what belongs to them.")(install)
    app.command(help="Check that all objects are there, or that none is.")(verify)
    app.command(help="Drop all objects and every job in them.")(uninstall)
    app.command(
        help=(
            "Bring an older installation up to date. "
            "With --plan, print the SQL that it needs and change nothing."
        )
    )(upgrade)
    app.command(help="Make tables logged or unlogged; rows stay.")(durability)
    app.command(help="Set storage parameters for autovacuum that suit a queue.")(autovac)


def _tell(message: str) -> None:
    typer.echo(message, err=True)


def _warn(message: str) -> None:
    typer.secho(f"Warning: {message}", err=True, fg=typer.colors.YELLOW)


def _print_instead(context: typer.Context, sql: str) -> None:
    _warn(f"--dry-run is deprecated: use 'pgq sql {context.info_name}'.")
    typer.echo(sql)


async def _carry_out(
    context: typer.Context,
    settings: DBSettings,
    operation: Callable[[Queries], Awaitable[T]],
) -> T:
    async with open_queries(context, settings) as queries:
        return await operation(queries)


def install(
    context: typer.Context,
    dry_run: DryRunOption = False,
    durability: DurabilityOption = Durability.durable,
    create_schema: CreateSchemaOption = True,
) -> None:
    """Create all objects; exit code 1 where some exist."""
    settings = DBSettings(durability=durability)
    if dry_run:
        _print_instead(context, ddl.install_sql(settings, create_schema=create_schema))
        return

    async def operation(queries: Queries) -> bool:
        await queries.require_layout()
        if await queries.schema_is_installed():
            return False
        await queries.install(create_schema)
        return True

    if not run_in_loop(_carry_out(context, settings, operation)):
        where = settings.db_schema or "the search_path's"
        _tell(
            f"error: there is an installation already (prefix {settings.prefix!r}, schema {where})."
            " Run 'pgq upgrade' to bring it up to date."
        )
        raise typer.Exit(1)
    _tell(f"Installed, durability {durability.value}.")


def verify(
    context: typer.Context,
    expect: Annotated[Expectation, typer.Option(help="What should be found.")],
) -> None:
    """Print what is not as expected; exit code 1 if there is anything."""
    problems = run_in_loop(
        _carry_out(context, db_settings(), lambda queries: queries.verify(expect.value))
    )
    if problems:
        typer.echo("\n".join(problems))
        raise typer.Exit(1)
    # Scripts look for these two lines.
    if expect is Expectation.PRESENT:
        typer.echo("All required PgQueuer database objects are present.")
    else:
        typer.echo("No PgQueuer database objects found")


def uninstall(context: typer.Context, dry_run: DryRunOption = False) -> None:
    """Drop everything."""
    if dry_run:
        _print_instead(context, ddl.uninstall_sql(db_settings()))
        return
    run_in_loop(_carry_out(context, db_settings(), lambda queries: queries.uninstall()))
    _tell("Uninstalled.")


def upgrade(
    context: typer.Context,
    dry_run: DryRunOption = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the SQL this database needs; change nothing.")
    ] = False,
    widen_id: WidenIdOption = True,
    durability: Annotated[
        Durability | None,
        typer.Option("--durability", "-d", hidden=True, help="Deprecated and ignored."),
    ] = None,
) -> None:
    """Apply what is missing, or print it; notes and a summary go to stderr."""
    if durability is not None:
        _warn("upgrade never changes durability: use 'pgq durability' instead of --durability.")
    settings = DBSettings(widen_id=widen_id)
    if dry_run:
        _print_instead(context, upgrade_script(settings))
        return

    async def operation(queries: Queries) -> Plan:
        return await (queries.plan_upgrade() if plan else queries.apply_upgrade())

    with working("Looking at the catalog" if plan else "Upgrading; a table may be rewritten"):
        done = run_in_loop(_carry_out(context, settings, operation))
    if plan and done.statements:
        typer.echo(_plan_as_script(done, settings))
    for note in done.notes:
        _tell(f"note: {note}")
    count = len(done.statements)
    if count == 0:
        _tell("Up to date.")
    else:
        verb = "Would apply" if plan else "Applied"
        _tell(f"{verb} {count} statement{'' if count == 1 else 's'}.")


def _plan_as_script(plan: Plan, settings: DBSettings) -> str:
    return "\n\n".join(
        [
            f"{ddl.header(settings)}\n"
            "-- What one database needed when this was printed; 'pgq sql upgrade' suits any.",
            *plan.statements,
        ]
    )


def durability(
    context: typer.Context, durability: DurabilityArgument, dry_run: DryRunOption = False
) -> None:
    """Rewrite the tables that change."""
    settings = DBSettings(durability=durability)
    if dry_run:
        _print_instead(context, durability_text(settings))
        return
    with working("Rewriting the tables that change"):
        run_in_loop(_carry_out(context, settings, lambda queries: queries.alter_durability()))
    _tell(f"Durability is {durability.value} now.")


def autovac(
    context: typer.Context, dry_run: DryRunOption = False, rollback: RollbackOption = False
) -> None:
    """Set or reset the storage parameters."""
    settings = db_settings()
    if dry_run:
        _print_instead(context, autovacuum_text(settings, rollback=rollback))
        return

    async def operation(queries: Queries) -> None:
        if rollback:
            await queries.optimize_autovacuum_rollback()
        else:
            await queries.optimize_autovacuum()

    run_in_loop(_carry_out(context, settings, operation))
    _tell("Reset storage parameters." if rollback else "Set storage parameters for autovacuum.")
