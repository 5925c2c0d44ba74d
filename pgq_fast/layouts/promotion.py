"""When deferred jobs become ready: a worker moves those of its entrypoints before it claims."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from pgq_fast.drivers.base import Driver, row_fetcher
from pgq_fast.settings import DBSettings
from pgq_fast.sql import statement
from pgq_fast.types import QueueEntrypoint

ROWS: Final = 5000
"""Jobs of an entrypoint that become ready at a time."""

PAUSE: Final = 0.05
"""Seconds between looks of a worker that claims all the time."""

SHARE: Final = 20
"""These looks take at most about one part in so many of a worker's time."""


class Promotion:
    """Knows when the next deferred job is due, and moves it then.

    A worker that rests knows it from its look at the queue, and is told of jobs that are deferred
    afterwards. One that does not rest looks from time to time.

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

    async def promote_due(self, entrypoints: Sequence[QueueEntrypoint]) -> None:
        """Move jobs of *entrypoints* if it is time."""
        began = time.monotonic()
        if began < self._due:
            return
        names = list(entrypoints)
        rows = await self._rows(statement("lease/any_due", self._settings), names)
        moved = 0
        if rows[0][0]:
            rows = await self._rows(statement("lease/promote", self._settings), names, ROWS)
            moved = rows[0][0]
        now = time.monotonic()
        self._next_look = now + max(PAUSE, SHARE * (now - began))
        # As many as could be moved: there may be more.
        self._due = now if moved >= ROWS else float("inf")

    def comes_in(self, delay: timedelta | None) -> None:
        """The next one known is due after *delay*; None: none is known."""
        if delay is not None:
            self._due = min(self._due, time.monotonic() + delay.total_seconds())

    def goes_on(self) -> None:
        """The worker does not rest."""
        self._due = min(self._due, self._next_look)
