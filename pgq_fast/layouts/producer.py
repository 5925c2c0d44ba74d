"""Producers on any layout: which way each job takes.

A single job without a dedupe key goes through a :class:`Coalescer`. One with a key goes by itself:
what becomes of it depends on what is in the queue, and on no neighbour in a statement. The driver
lets it have its turn after the statement that is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from pgq_fast.choices import Layout
from pgq_fast.drivers.base import (
    Driver,
    Row,
    RowDriver,
    SyncDriver,
    SyncRowDriver,
    rows_of_sync,
)
from pgq_fast.drivers.failures import is_connection_lost, sqlstate_of
from pgq_fast.enqueue import EnqueueBatch, SingleJob, only_job
from pgq_fast.layouts import compat_enqueue, lease_enqueue
from pgq_fast.layouts.coalescing import Coalescer
from pgq_fast.layouts.inserting import Inserter, insertion_steps, run, run_sync
from pgq_fast.types import JobId, OnConflict

if TYPE_CHECKING:
    from pgq_fast.settings import DBSettings, QualifiedNames


def inserter_for(settings: DBSettings) -> Inserter:
    """What knows about new jobs in the layout of *settings*."""
    return lease_enqueue if settings.layout is Layout.lease else compat_enqueue


class _Statements:
    """Single jobs without dedupe keys as statements; see :class:`coalescing.Sender`."""

    __slots__ = ("_driver", "_inserter", "_settings")

    def __init__(self, driver: RowDriver, inserter: Inserter, settings: DBSettings) -> None:
        self._driver = driver
        self._inserter = inserter
        self._settings = settings

    def may_go_together(self) -> bool:
        return not self._driver.in_transaction()

    def size(self, job: SingleJob) -> int:
        return len(job.payload or b"") + len(job.headers or "")

    async def send_alone(self, job: SingleJob) -> JobId | None:
        query, args = self._inserter.single_statement(self._settings, job)
        rows = await self._driver.fetch_rows(query, *args)
        return rows[0][0] if rows else None

    async def send_together(self, jobs: Sequence[SingleJob]) -> Sequence[JobId | None]:
        entrypoints, payloads, priorities, delays, _, headers = map(list, zip(*jobs, strict=True))
        extras = any(delays) or any(text is not None for text in headers)
        (query, args), ids = self._inserter.plain_insertion(
            self._settings,
            entrypoints,
            payloads,
            priorities,
            delays if extras else None,
            headers if extras else None,
        )
        return ids(await self._driver.fetch_rows(query, *args))

    def had_no_effect(self, error: Exception) -> bool:
        # With an SQLSTATE it is the server's answer to the statement. Without one, after a timeout
        # for example, the statement may have been committed.
        return sqlstate_of(error) is not None and not is_connection_lost(error)


class Producer:
    """Enqueues over one driver into the tables of one set of names.

    Single jobs of concurrent callers go to the server together, unless the caller has a transaction
    open; over a driver that cannot tell they never do, as it may take its connection from the
    caller's context.
    """

    __slots__ = ("__weakref__", "_coalescer", "_driver", "_inserter", "_row_driver", "_settings")

    def __init__(self, driver: Driver, settings: DBSettings) -> None:
        self._driver = driver
        self._row_driver = driver if isinstance(driver, RowDriver) else None
        self._settings = settings
        self._inserter = inserter_for(settings)
        self._coalescer: Coalescer[SingleJob, JobId | None] | None = None

    async def enqueue(self, batch: EnqueueBatch, on_conflict: OnConflict) -> list[JobId | None]:
        """Insert *batch*: all of it or, where an error is raised, nothing.

        Returns:
            The ids in the order of the batch, None for a skipped job.
        """
        if not len(batch):
            return []
        if self._row_driver is not None:
            if len(batch) == 1 and not batch.keyed:
                return [await self.enqueue_single(only_job(batch))]
            if self._inserter.goes_by_copy(batch):
                steps = self._inserter.copy_steps(self._settings, batch)
                async with self._row_driver.transaction() as transaction:
                    return await run(steps, transaction.fetch_rows, transaction.copy_in)
        steps = insertion_steps(self._inserter, self._settings, batch, on_conflict)
        return await run(steps, self._fetch_rows)

    def enqueue_single(self, job: SingleJob) -> Awaitable[JobId | None]:
        """Insert *job*, which has no dedupe key; its id."""
        if self._row_driver is None:
            return self._send_alone(job)
        coalescer = self._coalescer
        loop = asyncio.get_running_loop()
        if coalescer is None or coalescer.loop is not loop:
            # What waits on another loop goes on there.
            statements = _Statements(self._row_driver, self._inserter, self._settings)
            coalescer = self._coalescer = Coalescer(statements, loop)
        return coalescer.send(job)

    async def _send_alone(self, job: SingleJob) -> JobId | None:
        query, args = self._inserter.single_statement(self._settings, job)
        rows = await self._fetch_rows(query, *args)
        return rows[0][0] if rows else None

    async def _fetch_rows(self, query: str, *args: object) -> Sequence[Row]:
        # As rows_of() does, without another look at what kind of driver it is.
        if self._row_driver is not None:
            return await self._row_driver.fetch_rows(query, *args)
        return [tuple(row.values()) for row in await self._driver.fetch(query, *args)]


# A producer keeps its driver alive, so the id of that is no other's while the producer is here.
_producers: Final[WeakValueDictionary[tuple[int, Layout, QualifiedNames], Producer]] = (
    WeakValueDictionary()
)


def producer_for(driver: Driver, settings: DBSettings) -> Producer:
    """The producer that all users of *driver* and the same tables share."""
    key = (id(driver), settings.layout, settings.qualified)
    producer = _producers.get(key)
    if producer is None:
        producer = _producers[key] = Producer(driver, settings)
    return producer


def enqueue_sync(
    driver: SyncDriver, settings: DBSettings, batch: EnqueueBatch, on_conflict: OnConflict
) -> list[JobId | None]:
    """Insert *batch*: all of it or, where an error is raised, nothing.

    Returns:
        The ids in the order of the batch, None for a skipped job.
    """
    if not len(batch):
        return []
    inserter = inserter_for(settings)
    if isinstance(driver, SyncRowDriver) and inserter.goes_by_copy(batch):
        with driver.transaction() as transaction:
            steps = inserter.copy_steps(settings, batch)
            return run_sync(steps, transaction.fetch_rows, transaction.copy_in)
    steps = insertion_steps(inserter, settings, batch, on_conflict)
    return run_sync(steps, partial(rows_of_sync, driver))
