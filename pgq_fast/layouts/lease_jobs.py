"""The ``lease`` layout for people and single jobs.

A job moves from table to table, and a statement sees all tables at one instant, at which the job
is in one of them. Where it waits for a row of that one, the job may be in another when the wait is
over, out of the statement's sight. So what is to hold for a job wherever it is, is repeated for
those that were seen and not reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from pgq_fast.drivers.base import Driver, Int8Array, Row, rows_of
from pgq_fast.layouts.base import Outcome, Retry
from pgq_fast.layouts.lease_log import log_modes
from pgq_fast.models import TracebackRecord
from pgq_fast.sql import statement
from pgq_fast.types import JOB_STATUS, JobId

if TYPE_CHECKING:
    from pgq_fast.settings import DBSettings

FRUITLESS_PASSES: Final = 100
"""Passes in a row that see jobs and reach none of them. A few are possible while workers pass jobs
back and forth; so many would mean that something else is wrong with them."""

CANCEL_CHUNK: Final = 10_000
"""Jobs that one statement cancels, so that its locks are short."""


def _json(record: TracebackRecord | None) -> str | None:
    return None if record is None else record.model_dump_json()


class LeaseJobs:
    """:class:`~pgq_fast.layouts.jobs.JobCalls` on the tables of the lease layout.

    Args:
        driver: Any driver.
        settings: Names of the tables, and what is logged.
    """

    __slots__ = ("_driver", "_settings")

    def __init__(self, driver: Driver, settings: DBSettings) -> None:
        self._driver = driver
        self._settings = settings

    def _statement(self, name: str, *flags: str) -> str:
        return statement(f"lease/{name}", self._settings, *flags)

    async def _rows(self, name: str, *args: object) -> Sequence[Row]:
        return await rows_of(self._driver, self._statement(name), *args)

    async def end(self, outcomes: Sequence[Outcome]) -> None:
        """End jobs of any owners."""
        statuses = [outcome.status for outcome in outcomes]
        await self._driver.execute(
            self._statement(
                "log_jobs", "fenced", "keeping" if "failed" in statuses else "dropping"
            ),
            Int8Array(outcome.job.id for outcome in outcomes),
            statuses,
            [_json(outcome.record) for outcome in outcomes],
            [outcome.job.queue_manager_id for outcome in outcomes],
            *log_modes(self._settings),
        )

    async def retry(self, retry: Retry) -> None:
        """Queue a job again."""
        await self._driver.execute(
            self._statement("retry_job", "fenced", "attempts", "keeping"),
            Int8Array([retry.job.id]),
            [retry.delay],
            [_json(retry.record)],
            [retry.job.queue_manager_id],
            [retry.job.attempts],
            *log_modes(self._settings),
        )

    async def cancel(self, ids: Sequence[JobId]) -> None:
        """Take jobs out of the queue as ``canceled``."""
        wanted = list(dict.fromkeys(ids))
        for start in range(0, len(wanted), CANCEL_CHUNK):
            await self._cancel(wanted[start : start + CANCEL_CHUNK])

    async def _cancel(self, ids: Sequence[JobId]) -> None:
        query = self._statement("log_jobs", "anyone", "dropping")
        status: JOB_STATUS = "canceled"
        left = list(ids)
        fruitless = 0
        while left and fruitless < FRUITLESS_PASSES:
            rows = await rows_of(
                self._driver,
                query,
                Int8Array(left),
                [status] * len(left),
                [None] * len(left),
                [None] * len(left),
                *log_modes(self._settings),
            )
            left = [job_id for job_id, ended in rows if not ended]
            fruitless = fruitless + 1 if len(left) == len(rows) else 0

    async def requeue(self, ids: Sequence[JobId]) -> None:
        """Queue held jobs again."""
        await self._driver.execute(
            self._statement("requeue"), Int8Array(ids), *log_modes(self._settings)
        )

    async def clear(self, entrypoints: Sequence[str]) -> None:
        """Delete the jobs of *entrypoints* that are there now; producers may go on."""
        ((last_id,),) = await self._rows("last_id")
        missed, fruitless = True, 0
        while missed and fruitless < FRUITLESS_PASSES:
            ((cleared, missed),) = await self._rows(
                "clear_queue", list(entrypoints), last_id, *log_modes(self._settings)
            )
            fruitless = 0 if cleared else fruitless + 1

    async def watch_ends(self, watcher: UUID, for_: timedelta, since: int | None) -> int | None:
        """Have ends of jobs notified for a while.

        What ends a job looks for watchers after it has got its transaction id. If it saw none, that
        id is lower than one that is taken after the registration; see ``layouts/waiting.py``.
        """
        ((news,),) = await self._rows("wait", watcher, False, True, for_)
        if news:
            ((own,),) = await self._rows("own_transaction")
            return int(own)
        if since is None:
            return None
        ((oldest,),) = await self._rows("oldest_transaction")
        return None if oldest >= since else since

    async def unwatch_ends(self, watcher: UUID) -> None:
        """Take that back."""
        await self._driver.execute(self._statement("wait_no_more"), watcher)

    async def aggregate(self, turns: str) -> None:
        """One statement: the log has a row a batch."""
        await self._driver.execute(self._statement("aggregate_logs", turns))

    def log_parts(self) -> Sequence[str]:
        """Two: single entries and batches."""
        return ("prune_entries", "prune_batches")

    def tables(self) -> list[str]:
        """All tables of the layout; the views have no size."""
        names, shared = self._settings.lease_names, self._settings.qualified
        return [
            name.rpartition(".")[2].lower()
            for name in (
                names.ready_table,
                names.deferred_table,
                names.lease_table,
                names.held_table,
                names.dedupe_table,
                names.waiting_table,
                names.log_batches_table,
                names.log_entries_table,
                shared.statistics_table,
                shared.schedules_table,
            )
        ]
