"""What commands print to stdout: tables for people, JSON for programs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import typer
from pydantic_core import to_json

__all__ = ["format_table", "instant", "print_json", "print_table"]


def format_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in the format of tabulate that the environment names.

    ``PGQUEUER_TABLEFMT`` outweighs ``TABLEFMT``; without both it is ``pretty``.
    """
    # Only commands that print a table pay for the import.
    from tabulate import tabulate

    name = os.environ.get("PGQUEUER_TABLEFMT", os.environ.get("TABLEFMT", "pretty"))
    return tabulate(list(rows), headers=headers, tablefmt=name)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print :func:`format_table`."""
    typer.echo(format_table(headers, rows))


def print_json(value: object) -> None:
    """Print *value*, models included, as one line of JSON."""
    typer.echo(to_json(value).decode())


def instant(moment: datetime) -> str:
    """*moment* in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
