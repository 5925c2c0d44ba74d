"""Who is told: a worker of the lease layout registers while it has nothing to do.

A NOTIFY takes a lock that the whole database shares, so the triggers send one only while somebody
is registered. The order of steps is what loses no job: register, and look at the queue afterwards.
A statement that inserts jobs looks for registrations after it has got its transaction id. If it saw
none, it got that id before the registration was committed. The first look takes a transaction id of
its own after that, so the id of every such statement is lower. As long as one of them is in
progress a worker polls; after that it can rely on being told.

A snapshot alone does not tell: it calls everything "in progress" that has a higher id than the
latest transaction that has ended, whether it has begun or not.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from pgq_fast.drivers.base import Driver, row_fetcher
from pgq_fast.sql import statement
from pgq_fast.types import QueueManagerId

if TYPE_CHECKING:
    from pgq_fast.settings import DBSettings

REGISTERED_FOR: Final = timedelta(seconds=30)
"""A worker that died is told for no longer than this."""

RENEWED_AFTER: Final = REGISTERED_FOR / 3

FIRST_POLL: Final = timedelta(milliseconds=5)
LONGEST_POLL: Final = timedelta(milliseconds=250)
"""Between looks at the queue while an older transaction is in progress: the pause doubles."""


class Waiting:
    """The registration of one worker.

    States: not registered -> registered, with older transactions in progress -> registered, with
    none -> not registered.

    Args:
        driver: Where to register.
        settings: Names of the tables.
    """

    def __init__(self, driver: Driver, settings: DBSettings) -> None:
        self._driver = driver
        self._rows = row_fetcher(driver)
        self._settings = settings
        # When and with which wish; None while not registered.
        self._since: float | None = None
        self._seats = False
        # The transaction of the first look; None before it.
        self._horizon: int | None = None
        self._poll = FIRST_POLL

    async def begin(self, owner: QueueManagerId, seats: bool) -> None:
        """Have *owner* told of new jobs, and with *seats* of the ends of jobs."""
        now = time.monotonic()
        if (
            self._since is not None
            and self._seats == seats
            and now < self._since + RENEWED_AFTER.total_seconds()
        ):
            return
        ((news,),) = await self._rows(
            statement("lease/wait", self._settings), owner, True, seats, REGISTERED_FOR
        )
        if news:
            self._horizon = None
            self._poll = FIRST_POLL
        self._since, self._seats = now, seats

    async def end(self, owner: QueueManagerId) -> None:
        """*owner* has enough to do, or stops."""
        if self._since is not None:
            self._since = None
            await self._driver.execute(statement("lease/wait_no_more", self._settings), owner)

    @property
    def look(self) -> str:
        """Which look at the queue is next: the flag of ``next_due``."""
        return "first" if self._horizon is None else "again"

    def look_again(self, oldest: int, own: int | None) -> timedelta:
        """When to look at the queue again, whatever is heard.

        Args:
            oldest: No transaction below was in progress at this look.
            own: The transaction of the look, if it was the first.
        """
        if self._horizon is None:
            self._horizon = own
        if self._horizon is not None and oldest >= self._horizon:
            return RENEWED_AFTER
        poll = self._poll
        self._poll = min(2 * poll, LONGEST_POLL)
        return poll
