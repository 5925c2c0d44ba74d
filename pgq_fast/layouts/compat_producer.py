"""The ``compat`` layout for asynchronous producers: which way each job takes.

A single job without a dedupe key goes through a :class:`Coalescer`. One with a key goes by itself:
what becomes of it depends on what is in the queue, and on no neighbour in a statement. The driver
lets it have its turn after the statement that is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final
from weakref import WeakValueDictionary

from pgq_fast.drivers.base import Driver, Row, RowDriver
from pgq_fast.drivers.failures import is_connection_lost, sqlstate_of
from pgq_fast.enqueue import EnqueueBatch, SingleJob, only_job
from pgq_fast.layouts import compat_enqueue
from pgq_fast.layouts.coalescing import Coalescer
from pgq_fast.settings import DBSettings, QualifiedNames
from pgq_fast.types import JobId, OnConflict


class _Statements:
    """Single jobs without dedupe keys as statements; see :class:`coalescing.Sender`."""

    __slots__ = ("_driver", "_settings")

    def __init__(self, driver: RowDriver, settings: DBSettings) -> None:
        self._driver = driver
        self._settings = settings

    def may_go_together(self) -> bool:
        return not self._driver.in_transaction()

    def size(self, job: SingleJob) -> int:
        return len(job.payload or b"") + len(job.headers or "")

    async def send_alone(self, job: SingleJob) -> JobId | None:
        query, args = compat_enqueue.single_statement(self._settings, job)
        rows = await self._driver.fetch_rows(query, *args)
        return rows[0][0] if rows else None

    async def send_together(self, jobs: Sequence[SingleJob]) -> Sequence[JobId]:
        entrypoints, payloads, priorities, delays, _, headers = map(list, zip(*jobs, strict=True))
        extras = any(delays) or any(text is not None for text in headers)
        query, args = compat_enqueue.plain_statement(
            self._settings,
            entrypoints,
            payloads,
            priorities,
            delays if extras else None,
            headers if extras else None,
        )
        return compat_enqueue.ordered_ids(await self._driver.fetch_rows(query, *args), len(jobs))

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

    __slots__ = ("__weakref__", "_coalescer", "_driver", "_row_driver", "_settings")

    def __init__(self, driver: Driver, settings: DBSettings) -> None:
        self._driver = driver
        self._row_driver = driver if isinstance(driver, RowDriver) else None
        self._settings = settings
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
            if compat_enqueue.goes_by_copy(batch):
                return [*await compat_enqueue.copy(self._row_driver, self._settings, batch)]
        (query, args), ids = compat_enqueue.insertion(self._settings, batch, on_conflict)
        return ids(await self._rows(query, args))

    def enqueue_single(self, job: SingleJob) -> Awaitable[JobId | None]:
        """Insert *job*, which has no dedupe key; its id."""
        if self._row_driver is None:
            return self._send_alone(job)
        coalescer = self._coalescer
        loop = asyncio.get_running_loop()
        if coalescer is None or coalescer.loop is not loop:
            # What waits on another loop goes on there.
            coalescer = Coalescer(_Statements(self._row_driver, self._settings), loop)
            self._coalescer = coalescer
        return coalescer.send(job)

    async def _send_alone(self, job: SingleJob) -> JobId | None:
        query, args = compat_enqueue.single_statement(self._settings, job)
        rows = await self._rows(query, args)
        return rows[0][0] if rows else None

    async def _rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]:
        # As rows_of() does, without another look at what kind of driver it is.
        if self._row_driver is not None:
            return await self._row_driver.fetch_rows(query, *args)
        return [tuple(row.values()) for row in await self._driver.fetch(query, *args)]


# A producer keeps its driver alive, so the id of that is no other's while the producer is here.
_producers: Final[WeakValueDictionary[tuple[int, QualifiedNames], Producer]] = WeakValueDictionary()


def producer_for(driver: Driver, settings: DBSettings) -> Producer:
    """The producer that all users of *driver* and the same names share."""
    key = (id(driver), settings.qualified)
    producer = _producers.get(key)
    if producer is None:
        producer = _producers[key] = Producer(driver, settings)
    return producer
