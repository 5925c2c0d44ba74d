"""When deferred jobs become ready: a worker moves those of its entrypoints before it claims."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from pgq_fast.drivers.base import Driver, row_fetcher
from pgq_fast.sql import sized_statement, statement
from pgq_fast.types import QueueEntrypoint

if TYPE_CHECKING:
    from pgq_fast.settings import DBSettings

ROWS: Final = 5000
"""Jobs of an entrypoint that become ready at a time."""

PAUSE: Final = 0.05
"""Seconds between looks of a worker that claims all the time."""

SHARE: Final = 20
"""These looks take at most about one part in so many of a worker's time."""


class Promotion:
    """Knows when the next deferred job is due, and moves it then.

    A worker that rests knows it from its look at the queue, and is told of jobs that are deferred
    afterwards. One that does not rest, because its claims are full or because it is told of further
    jobs all the time, looks from time to time.

    Args:
        driver: Where the queue is.
        settings: Names of the tables.
    """

    def __init__(self, driver: Driver, settings: DBSettings) -> None:
        self._rows = row_fetcher(driver)
        self._settings = settings
        # On this process's monotonic clock: when something may be due, and from when on to look
        # without knowing of anything.
        self._due = 0.0
        self._next_look = 0.0

    async def promote_due(self, entrypoints: Sequence[QueueEntrypoint], size: int) -> None:
        """Move jobs of *entrypoints* if it is time; *size* is the class of the tables."""
        began = time.monotonic()
        if began < self._due:
            # Should there be no look at the queue before the next claim.
            self._due = min(self._due, self._next_look)
            return
        names = list(entrypoints)
        rows = await self._rows(statement("lease/any_due", self._settings), names)
        moved = 0
        if rows[0][0]:
            rows = await self._rows(
                sized_statement(size, "lease/promote", self._settings), names, ROWS
            )
            moved = rows[0][0]
        now = time.monotonic()
        self._next_look = now + max(PAUSE, SHARE * (now - began))
        # As many as could be moved: there may be more.
        self._due = now if moved >= ROWS else self._next_look

    def comes_in(self, delay: timedelta) -> None:
        """One more is due after *delay*."""
        self._due = min(self._due, time.monotonic() + delay.total_seconds())

    def looked(self, due: timedelta | None) -> None:
        """By a look at the queue, the next one is due after *due*; None: there is none."""
        self._due = float("inf")
        if due is not None:
            self.comes_in(due)
