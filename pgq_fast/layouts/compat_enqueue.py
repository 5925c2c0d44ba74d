"""The ``compat`` layout for producers: how jobs get into pgqueuer's tables.

What has to be sent is worked out here, by generators without I/O, so that the asynchronous and
the blocking API are the same but for the waiting.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import timedelta
from typing import Final, NamedTuple, TypeAlias

from pgq_fast._impl import codec
from pgq_fast.drivers.base import (
    Driver,
    Row,
    RowDriver,
    SyncDriver,
    SyncRowDriver,
    SyncTransaction,
    Transaction,
    rows_of,
    rows_of_sync,
)
from pgq_fast.enqueue import EnqueueBatch, encode_headers
from pgq_fast.layouts.compat import Statement
from pgq_fast.settings import DBSettings
from pgq_fast.sql import statement
from pgq_fast.types import JobId, OnConflict

COPY_FROM_ROWS: Final = 200
"""Lists at least this long go in by COPY: below, its extra round trips cost more than it saves."""

COPY_CHUNK_ROWS: Final = 10_000
"""Rows encoded at a time, so that a huge list is not in memory twice and the loop not blocked."""

_JOB_COLUMNS: Final[tuple[str, ...]] = (
    "id",
    "priority",
    "status",
    "entrypoint",
    "payload",
    "headers",
)
_LOG_COLUMNS: Final = ("job_id", "status", "priority", "entrypoint")
_MICROSECOND: Final = timedelta(microseconds=1)


class Copy(NamedTuple):
    """A binary COPY stream and where it goes."""

    table: str
    columns: tuple[str, ...]
    data: bytes


Steps: TypeAlias = Generator[Statement | Copy, Sequence[Row], list[JobId]]


def goes_by_copy(batch: EnqueueBatch) -> bool:
    """Whether *batch* is worth a COPY, and can go by it: a conflict has no place in one."""
    return len(batch) >= COPY_FROM_ROWS and not batch.keyed


def copy_steps(settings: DBSettings, batch: EnqueueBatch) -> Steps:
    """Insert *batch*; its ids in order. The steps belong in one transaction.

    COPY neither returns ids nor computes, so ids and the time of the transaction come first.
    ``execute_after`` is that time plus the exact delay; without any delay, the column's default.
    """
    rows = yield Statement(statement("compat/reserve_ids", settings), (len(batch),))
    raw_ids, raw_now = rows[0]
    headers = encode_headers(batch.headers)
    columns = _JOB_COLUMNS
    due: list[int] | None = None
    if batch.deferred:
        columns = (*_JOB_COLUMNS, "execute_after")
        (now,) = codec.decode_ids(raw_now)
        due = [now + delay // _MICROSECOND for delay in batch.execute_after]
    for start in range(0, len(batch), COPY_CHUNK_ROWS):
        part = slice(start, start + COPY_CHUNK_ROWS)
        ids = raw_ids[8 * part.start : 8 * part.stop]
        yield Copy(
            settings.qualified.queue_table,
            columns,
            codec.encode_copy_jobs(
                ids,
                batch.priority[part],
                batch.entrypoint[part],
                batch.payload[part],
                headers[part],
                None if due is None else due[part],
            ),
        )
        yield Copy(
            settings.qualified.queue_table_log,
            _LOG_COLUMNS,
            codec.encode_copy_log(ids, batch.priority[part], batch.entrypoint[part]),
        )
    return [JobId(number) for number in codec.decode_ids(raw_ids)]


def insert_statement(
    settings: DBSettings, batch: EnqueueBatch, on_conflict: OnConflict
) -> Statement:
    """Insert *batch*; a row for each job that is in the queue now: place, from 1, and id."""
    headers = [None if text is None else text.decode() for text in encode_headers(batch.headers)]
    flags = () if on_conflict == "raise" else (on_conflict,)
    if len(batch) == 1 and on_conflict != "update_priority":
        return Statement(
            statement("compat/enqueue_one", settings, *flags),
            (
                batch.priority[0],
                batch.entrypoint[0],
                batch.payload[0],
                batch.execute_after[0],
                batch.dedupe_key[0],
                headers[0],
            ),
        )
    return Statement(
        statement("compat/enqueue_many", settings, *flags),
        (
            batch.priority,
            batch.entrypoint,
            batch.payload,
            batch.execute_after,
            batch.dedupe_key,
            headers,
        ),
    )


def placed_ids(rows: Sequence[Row], count: int) -> list[JobId | None]:
    """The ids at the places of their jobs; None where a job was skipped."""
    ids: list[JobId | None] = [None] * count
    for place, job_id in rows:
        ids[place - 1] = job_id
    return ids


async def _run(steps: Steps, transaction: Transaction) -> list[JobId]:
    rows: Sequence[Row] = ()
    step = next(steps)
    while True:
        if isinstance(step, Statement):
            rows = await transaction.fetch_rows(step.query, *step.args)
        else:
            await transaction.copy_in(step.table, step.columns, step.data)
        try:
            step = steps.send(rows)
        except StopIteration as end:
            ids: list[JobId] = end.value
            return ids


def _run_sync(steps: Steps, transaction: SyncTransaction) -> list[JobId]:
    rows: Sequence[Row] = ()
    step = next(steps)
    while True:
        if isinstance(step, Statement):
            rows = transaction.fetch_rows(step.query, *step.args)
        else:
            transaction.copy_in(step.table, step.columns, step.data)
        try:
            step = steps.send(rows)
        except StopIteration as end:
            ids: list[JobId] = end.value
            return ids


async def enqueue(
    driver: Driver, settings: DBSettings, batch: EnqueueBatch, on_conflict: OnConflict
) -> list[JobId | None]:
    """Insert *batch*: all of it or, where an error is raised, nothing.

    Returns:
        The ids in the order of the batch, None for a skipped job.
    """
    if not len(batch):
        return []
    if goes_by_copy(batch) and isinstance(driver, RowDriver):
        async with driver.transaction() as transaction:
            return [*await _run(copy_steps(settings, batch), transaction)]
    query, args = insert_statement(settings, batch, on_conflict)
    return placed_ids(await rows_of(driver, query, *args), len(batch))


def enqueue_sync(
    driver: SyncDriver, settings: DBSettings, batch: EnqueueBatch, on_conflict: OnConflict
) -> list[JobId | None]:
    """The blocking counterpart of :func:`enqueue`."""
    if not len(batch):
        return []
    if goes_by_copy(batch) and isinstance(driver, SyncRowDriver):
        with driver.transaction() as transaction:
            return [*_run_sync(copy_steps(settings, batch), transaction)]
    query, args = insert_statement(settings, batch, on_conflict)
    return placed_ids(rows_of_sync(driver, query, *args), len(batch))
