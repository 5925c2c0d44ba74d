"""What people and single jobs ask of a table layout, as far as it takes more than a statement."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from pgq_fast.layouts.base import Outcome, Retry
from pgq_fast.types import JobId


class JobCalls(Protocol):
    """The layout's part of ``Queries``."""

    async def end(self, outcomes: Sequence[Outcome]) -> None:
        """End jobs of any owners: ``failed`` ones are held, the others leave the queue.

        Fenced: a job that has another owner by now stays as it is.
        """
        ...

    async def retry(self, retry: Retry) -> None:
        """Queue a job again; fenced, by its attempts too."""
        ...

    async def cancel(self, ids: Sequence[JobId]) -> None:
        """Take jobs out of the queue as ``canceled``, whoever holds them."""
        ...

    async def requeue(self, ids: Sequence[JobId]) -> None:
        """Queue held jobs again, as if never tried."""
        ...

    async def clear(self, entrypoints: Sequence[str]) -> None:
        """Delete the jobs of *entrypoints*, logged as ``deleted``."""
        ...

    async def watch_ends(self, watcher: UUID, for_: timedelta, since: int | None) -> int | None:
        """Have ends of jobs notified for a while. See ``Queries.watch_ends``."""
        ...

    async def unwatch_ends(self, watcher: UUID) -> None:
        """Take that back."""
        ...

    async def aggregate(self, turns: str) -> None:
        """Count what was logged into the statistics.

        Args:
            turns: ``locked`` leaves it to another worker that is at it, ``unlocked`` does not.
        """
        ...

    def log_parts(self) -> Sequence[str]:
        """The statements that prune the log, one a table."""
        ...

    def tables(self) -> list[str]:
        """Names of the tables, without their schema, as the catalog has them."""
        ...
