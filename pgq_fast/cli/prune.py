"""``pgq prune``: delete what is old of the log and the statistics."""

from __future__ import annotations

import functools
import re
from datetime import timedelta
from enum import Enum
from typing import Annotated, Final

import typer

from pgq_fast.cli.context import open_queries
from pgq_fast.cli.progress import Report, progress
from pgq_fast.loops import run_in_loop
from pgq_fast.settings import db_settings

__all__ = ["register"]

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Kept(Enum):
    """What grows until somebody prunes it."""

    log = "log"
    statistics = "statistics"


def register(app: typer.Typer) -> None:
    """Add the command to *app*."""
    app.command(
        help=(
            "Delete what is old of the log or the statistics, in small transactions, while the "
            "queue is in use. The statistics keep what the log said."
        )
    )(prune)


def duration(text: str) -> timedelta:
    """The time that *text* means: numbers with units, such as ``30d`` or ``1h30m``.

    Raises:
        typer.BadParameter: It has another form, or is too long.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise typer.BadParameter(
            f"{text!r} is no time: give numbers with units (s, m, h, d, w), such as 30d or 1h30m"
        )
    try:
        return sum(
            (timedelta(**{_UNITS[unit]: float(number)}) for number, unit in parts), timedelta()
        )
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is longer than any calendar") from None


def prune(
    context: typer.Context,
    what: Annotated[list[Kept], typer.Argument(help="What to prune: log, statistics, or both.")],
    older_than: Annotated[
        timedelta,
        typer.Option(parser=duration, metavar="AGE", help="Such as 30d, 12h or 1h30m."),
    ],
    batch_size: Annotated[
        int, typer.Option(min=1, help="Rows that one transaction looks at.")
    ] = 10_000,
) -> None:
    """Print how much was deleted."""

    async def delete(report: Report) -> dict[Kept, int]:
        removed: dict[Kept, int] = {}
        async with open_queries(context, db_settings()) as queries:
            for part in dict.fromkeys(what):
                call = queries.prune_log if part is Kept.log else queries.prune_statistics
                removed[part] = await call(
                    older_than,
                    batch_size=batch_size,
                    on_progress=functools.partial(report, f"{part.value}: deleted"),
                )
        return removed

    with progress() as report:
        done = run_in_loop(delete(report))
    for part, count in done.items():
        noun = "entries" if part is Kept.log else "rows"
        typer.echo(f"Deleted {count} {noun} of the {part.value}.")
