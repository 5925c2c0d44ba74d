"""``pgq web``: the dashboard in the browser."""

from __future__ import annotations

import importlib
from typing import Annotated, Final

import typer

from pgq_fast.cli.context import GlobalOptions
from pgq_fast.cli.errors import CliError

__all__ = ["register"]

NEEDED: Final = frozenset({"fastapi", "jinja2", "uvicorn", "pgq_fast.web"})
"""What the extra installs, and what needs it."""


def register(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(help="Serve the web dashboard, which the extra 'web' installs.")(web)


def web(
    context: typer.Context,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            envvar="PGQUEUER_WEB_HOST",
            help="Address to listen on; 0.0.0.0 is every one of this machine.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", envvar="PGQUEUER_WEB_PORT", help="TCP port to listen on.")
    ] = 8080,
) -> None:
    """Until SIGINT or SIGTERM."""
    try:
        serve = importlib.import_module("pgq_fast.web").serve
        serve(host=host, port=port, dsn=context.ensure_object(GlobalOptions).pg_dsn or None)
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        raise CliError(
            f"the web dashboard is an extra, {error.name} is missing: pip install 'pgq-fast[web]'"
        ) from error
