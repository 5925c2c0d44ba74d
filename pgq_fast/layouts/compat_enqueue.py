"""The ``compat`` layout for producers: how jobs get into pgqueuer's tables.

A module that fits :class:`~pgq_fast.layouts.inserting.Inserter`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from pgq_fast._impl import codec
from pgq_fast.enqueue import EnqueueBatch, SingleJob, encode_headers
from pgq_fast.layouts.base import Statement
from pgq_fast.layouts.inserting import (
    COPY_FROM_BYTES,
    Copy,
    Insertion,
    Steps,
    due_times,
    job_ids,
    ordered_ids,
    parts,
    placed_ids,
    total_bytes,
)
from pgq_fast.sql import statement
from pgq_fast.types import OnConflict

if TYPE_CHECKING:
    from pgq_fast.settings import DBSettings

COPY_FROM_ROWS: Final = 200
"""Lists at least this long go in by COPY: below, its extra round trips cost more than it saves."""

_JOB_COLUMNS: Final[tuple[str, ...]] = (
    "id",
    "priority",
    "status",
    "entrypoint",
    "payload",
    "headers",
)
_LOG_COLUMNS: Final = ("job_id", "status", "priority", "entrypoint")


def goes_by_copy(batch: EnqueueBatch) -> bool:
    """Whether *batch* is worth a COPY, and can go by it: a conflict has no place in one."""
    if batch.keyed:
        return False
    return len(batch) >= COPY_FROM_ROWS or total_bytes(batch.payload) > COPY_FROM_BYTES


def copy_steps(settings: DBSettings, batch: EnqueueBatch) -> Steps:
    """Insert *batch*. The steps belong in one transaction.

    COPY neither returns ids nor computes, so ids and the time of the transaction come first.
    """
    headers = encode_headers(batch.headers)
    rows = yield Statement(statement("compat/reserve_ids", settings), (len(batch),))
    raw_ids, now = rows[0]
    due = due_times(batch, now)
    columns = _JOB_COLUMNS if due is None else (*_JOB_COLUMNS, "execute_after")
    for part in parts(batch.payload, headers):
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
    return job_ids(raw_ids)


def single_statement(
    settings: DBSettings, job: SingleJob, on_conflict: OnConflict = "raise"
) -> Statement:
    """Insert *job*; a row with its id, or none where it was skipped."""
    if job.dedupe_key is None and job.headers is None and not job.execute_after:
        return Statement(statement("compat/enqueue_one", settings), job[:3])
    flags = ("extras",) if on_conflict == "raise" else ("extras", on_conflict)
    return Statement(statement("compat/enqueue_one", settings, *flags), job)


def plain_insertion(
    settings: DBSettings,
    entrypoints: list[str],
    payloads: list[bytes | None],
    priorities: list[int],
    delays: list[timedelta] | None = None,
    headers: list[str | None] | None = None,
) -> Insertion:
    """Insert jobs without dedupe keys. *delays* and *headers* are both given or both not."""
    count = len(entrypoints)
    flags: tuple[str, ...] = ()
    args: tuple[object, ...] = (entrypoints, payloads, priorities)
    if delays is not None:
        flags, args = ("extras",), (*args, delays, headers)
    return Insertion(
        Statement(statement("compat/enqueue_plain", settings, *flags), args),
        lambda rows: ordered_ids([row[0] for row in rows], count),
    )


def keyed_steps(
    settings: DBSettings,
    batch: EnqueueBatch,
    headers: list[str | None],
    on_conflict: OnConflict,
) -> Steps:
    """Insert *batch*, which has dedupe keys, with *headers* as JSON."""
    flags = () if on_conflict == "raise" else (on_conflict,)
    rows = yield Statement(
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
    return placed_ids(rows, len(batch))
