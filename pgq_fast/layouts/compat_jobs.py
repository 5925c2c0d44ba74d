"""The ``compat`` layout for people and single jobs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from pgq_fast.drivers.base import Driver, Int8Array, rows_of
from pgq_fast.layouts import compat
from pgq_fast.layouts.base import Outcome, Retry
from pgq_fast.sql import statement
from pgq_fast.types import JobId

if TYPE_CHECKING:
    from pgq_fast.settings import DBSettings

AGGREGATED_AT_ONCE: Final = 2_000
"""Log entries that a statement counts: to mark one takes as long as to acknowledge a job."""


class CompatJobs:
    """:class:`~pgq_fast.layouts.jobs.JobCalls` on pgqueuer's tables: one statement each.

    Args:
        driver: Any driver.
        settings: Names of the tables.
    """

    __slots__ = ("_driver", "_settings")

    def __init__(self, driver: Driver, settings: DBSettings) -> None:
        self._driver = driver
        self._settings = settings

    async def _run(self, name: str, *args: object) -> None:
        await self._driver.execute(statement(f"compat/{name}", self._settings), *args)

    async def end(self, outcomes: Sequence[Outcome]) -> None:
        """End jobs of any owners."""
        query, args = compat.log_jobs_statement(self._settings, outcomes)
        await self._driver.execute(query, *args)

    async def retry(self, retry: Retry) -> None:
        """Queue a job again."""
        query, args = compat.retry_statement(self._settings, [retry])
        await self._driver.execute(query, *args)

    async def cancel(self, ids: Sequence[JobId]) -> None:
        """Take jobs out of the queue as ``canceled``."""
        await self._run("cancel", Int8Array(ids))

    async def requeue(self, ids: Sequence[JobId]) -> None:
        """Queue held jobs again."""
        await self._run("requeue", Int8Array(ids))

    async def clear(self, entrypoints: Sequence[str]) -> None:
        """Delete the jobs of *entrypoints*."""
        await self._run("clear_queue", list(entrypoints))

    async def watch_ends(self, watcher: UUID, for_: timedelta, since: int | None) -> int | None:
        """Do nothing: every end is notified."""
        return None

    async def unwatch_ends(self, watcher: UUID) -> None:
        """Do nothing."""

    async def aggregate(self, turns: str) -> None:
        """Count a few entries at a time: workers wait for each statement on their connection."""
        count = statement("compat/aggregate_logs", self._settings, turns)
        ((since, until),) = await rows_of(
            self._driver, statement("compat/uncounted_span", self._settings)
        )
        while since is not None:
            ((marked, last),) = await rows_of(self._driver, count, since, until, AGGREGATED_AT_ONCE)
            if last == since and not marked:
                # Others count these, or something keeps them from being marked.
                return
            since = last

    def log_parts(self) -> Sequence[str]:
        """One: the log is one table."""
        return ("prune_entries",)

    def tables(self) -> list[str]:
        """The four of pgqueuer."""
        names = self._settings
        return [
            name.lower()
            for name in (
                names.queue_table,
                names.queue_table_log,
                names.statistics_table,
                names.schedules_table,
            )
        ]
