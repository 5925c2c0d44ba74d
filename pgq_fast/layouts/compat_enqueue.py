"""The ``compat`` layout for producers: how jobs get into pgqueuer's tables.

What has to be sent is worked out here, by generators without I/O, so that the asynchronous and
the blocking API are the same but for the waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from datetime import timedelta
from typing import Final, NamedTuple, TypeAlias, cast

from pgq_fast._impl import codec
from pgq_fast.drivers.base import (
    Row,
    RowDriver,
    SyncDriver,
    SyncRowDriver,
    SyncTransaction,
    Transaction,
    rows_of_sync,
)
from pgq_fast.enqueue import EnqueueBatch, SingleJob, encode_headers, has_headers, only_job
from pgq_fast.errors import JobsDroppedError
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


class Insertion(NamedTuple):
    """A statement that inserts jobs, and how its rows become their ids."""

    statement: Statement
    ids: Callable[[Sequence[Row]], list[JobId | None]]
    """In the order of the jobs; None for one that was skipped."""


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
    # They are JobIds, whose type is int; to say so of each would take longer than to decode it.
    return cast("list[JobId]", codec.decode_ids(raw_ids))


def single_statement(
    settings: DBSettings, job: SingleJob, on_conflict: OnConflict = "raise"
) -> Statement:
    """Insert *job*; a row with its id, or none where it was skipped.

    *on_conflict* is ``raise`` or ``skip``: what the other mode returns is not the new job's id.
    """
    if job.dedupe_key is None and job.headers is None and not job.execute_after:
        return Statement(statement("compat/enqueue_one", settings), job[:3])
    flags = ("extras",) if on_conflict == "raise" else ("extras", on_conflict)
    return Statement(statement("compat/enqueue_one", settings, *flags), job)


def plain_statement(
    settings: DBSettings,
    entrypoints: list[str],
    payloads: list[bytes | None],
    priorities: list[int],
    delays: list[timedelta] | None = None,
    headers: list[str | None] | None = None,
) -> Statement:
    """Insert jobs without dedupe keys; a row with the id of each, in any order.

    *delays* and *headers* are both given or both not.
    """
    if delays is None:
        return Statement(
            statement("compat/enqueue_plain", settings), (entrypoints, payloads, priorities)
        )
    return Statement(
        statement("compat/enqueue_plain", settings, "extras"),
        (entrypoints, payloads, priorities, delays, headers),
    )


def ordered_ids(rows: Sequence[Row], count: int) -> list[JobId]:
    """The ids that :func:`plain_statement` returned, in the order of its *count* jobs.

    Raises:
        JobsDroppedError: There are fewer.
    """
    ids: list[JobId] = [row[0] for row in rows]
    if len(ids) != count:
        raise JobsDroppedError(count, len(ids))
    ids.sort()
    return ids


def _keyed_statement(
    settings: DBSettings, batch: EnqueueBatch, on_conflict: OnConflict
) -> Statement:
    """Insert *batch*; a row for each job that is in the queue now: place, from 1, and id."""
    flags = () if on_conflict == "raise" else (on_conflict,)
    return Statement(
        statement("compat/enqueue_many", settings, *flags),
        (
            batch.priority,
            batch.entrypoint,
            batch.payload,
            batch.execute_after,
            batch.dedupe_key,
            _header_texts(batch),
        ),
    )


def _header_texts(batch: EnqueueBatch) -> list[str | None]:
    return [None if text is None else text.decode() for text in encode_headers(batch.headers)]


def _placed_ids(rows: Sequence[Row], count: int) -> list[JobId | None]:
    """The ids at the places of their jobs; None where a job was skipped."""
    ids: list[JobId | None] = [None] * count
    for place, job_id in rows:
        ids[place - 1] = job_id
    return ids


def insertion(settings: DBSettings, batch: EnqueueBatch, on_conflict: OnConflict) -> Insertion:
    """Insert *batch*, which is not empty, in one statement."""
    count = len(batch)
    if batch.keyed and (count > 1 or on_conflict == "update_priority"):
        return Insertion(
            _keyed_statement(settings, batch, on_conflict), lambda rows: _placed_ids(rows, count)
        )
    if count == 1:
        return Insertion(
            single_statement(settings, only_job(batch), on_conflict),
            lambda rows: [rows[0][0] if rows else None],
        )
    extras = batch.deferred or has_headers(batch.headers)
    return Insertion(
        plain_statement(
            settings,
            batch.entrypoint,
            batch.payload,
            batch.priority,
            batch.execute_after if extras else None,
            _header_texts(batch) if extras else None,
        ),
        lambda rows: [*ordered_ids(rows, count)],
    )


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


async def copy(driver: RowDriver, settings: DBSettings, batch: EnqueueBatch) -> list[JobId]:
    """Insert *batch* by COPY; its ids in order."""
    async with driver.transaction() as transaction:
        return await _run(copy_steps(settings, batch), transaction)


def enqueue_sync(
    driver: SyncDriver, settings: DBSettings, batch: EnqueueBatch, on_conflict: OnConflict
) -> list[JobId | None]:
    """Insert *batch*: all of it or, where an error is raised, nothing.

    Returns:
        The ids in the order of the batch, None for a skipped job.
    """
    if not len(batch):
        return []
    if goes_by_copy(batch) and isinstance(driver, SyncRowDriver):
        with driver.transaction() as transaction:
            return [*_run_sync(copy_steps(settings, batch), transaction)]
    (query, args), ids = insertion(settings, batch, on_conflict)
    return ids(rows_of_sync(driver, query, *args))
