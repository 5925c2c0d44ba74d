"""How far long work has come, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol

import typer

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["Report", "progress", "working"]

PAUSE: Final = 5.0
"""Seconds between two lines about the same step."""


class Report(Protocol):
    """Says how far a step has come."""

    def __call__(self, step: str, done: int, total: int | None = None) -> None:
        """Show that *done* of *total* are done in *step*; None: nobody knows how many there are."""
        ...


@contextlib.contextmanager
def progress() -> Iterator[Report]:
    """Show progress for the length of the block."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    tasks: dict[str, TaskID] = {}

    def report(step: str, done: int, total: int | None = None) -> None:
        if step not in tasks:
            tasks[step] = bars.add_task(step, total=total)
        # More may be added while it is under way.
        most = None if total is None else max(done, total)
        bars.update(tasks[step], completed=done, total=most)

    with bars:
        yield report


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal that *what*, of which nobody knows how long it takes, is going on."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


class _Lines:
    def __init__(self) -> None:
        self._step: str | None = None
        self._printed = 0.0

    def __call__(self, step: str, done: int, total: int | None = None) -> None:
        now = time.monotonic()
        if step == self._step and done != total and now - self._printed < PAUSE:
            return
        self._step, self._printed = step, now
        of = "" if total is None else f" of {max(done, total):,}"
        typer.echo(f"{step}: {done:,}{of}", err=True)
