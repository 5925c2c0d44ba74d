"""The ``lease`` layout for producers: how jobs get into ``ready`` and ``deferred``.

A module that fits :class:`~pgq_fast.layouts.inserting.Inserter`. A job is one row in one of the two
tables, with a dedupe key one more in ``dedupe``, and nothing is logged. A job that is not due must
not be in ``ready``, where a claim would take it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from datetime import timedelta
from itertools import compress
from operator import not_
from typing import TYPE_CHECKING, Final, NamedTuple

from pgq_fast._impl import codec
from pgq_fast.drivers.base import Row
from pgq_fast.enqueue import NOW, EnqueueBatch, SingleJob, encode_headers, has_headers
from pgq_fast.layouts.base import Statement
from pgq_fast.layouts.inserting import (
    COPY_FROM_BYTES,
    Copy,
    Insertion,
    Steps,
    complete,
    due_times,
    job_ids,
    ordered_ids,
    parts,
    placed_ids,
    total_bytes,
)
from pgq_fast.sql import statement
from pgq_fast.types import JobId, OnConflict

if TYPE_CHECKING:
    from pgq_fast.settings import DBSettings

COPY_FROM_ROWS: Final = 2000
"""Lists at least this long go in by COPY: below, its extra round trips cost more than it saves."""

COPY_EXTRAS_FROM_ROWS: Final = 300
"""The same where jobs have headers or a delay, which a COPY hardly notices and a statement does."""

LOOKS: Final = 2
"""How often a job is looked for whose key got a higher priority. The first look waits for one that
is on its way from one table to the other, and the second one finds it there."""

_COLUMNS: Final[tuple[str, ...]] = ("id", "priority", "entrypoint", "payload", "headers")


def goes_by_copy(batch: EnqueueBatch) -> bool:
    """Whether *batch* is worth a COPY, and can go by it: a conflict has no place in one."""
    if batch.keyed:
        return False
    extras = batch.deferred or has_headers(batch.headers)
    return (
        len(batch) >= (COPY_EXTRAS_FROM_ROWS if extras else COPY_FROM_ROWS)
        or total_bytes(batch.payload) > COPY_FROM_BYTES
    )


def copy_steps(settings: DBSettings, batch: EnqueueBatch) -> Steps:
    """Insert *batch*. The steps belong in one transaction.

    COPY neither returns ids nor computes, so ids and the time of the transaction come first.
    """
    headers = encode_headers(batch.headers)
    rows = yield Statement(statement("lease/reserve_ids", settings), (len(batch),))
    raw_ids, now = rows[0]
    jobs = _Columns(
        raw_ids,
        batch.priority,
        batch.entrypoint,
        batch.payload,
        headers,
        due_times(batch, now),
    )
    names = settings.lease_names
    if not batch.deferred:
        yield from _copies(names.ready_table, jobs)
    else:
        later = [delay > NOW for delay in batch.execute_after]
        yield from _copies(names.ready_table, jobs.chosen([*map(not_, later)]))
        yield from _copies(names.deferred_table, jobs.chosen(later))
    return job_ids(raw_ids)


class _Columns(NamedTuple):
    """Jobs as ``encode_copy_jobs`` takes them."""

    ids: bytes
    priorities: list[int]
    entrypoints: list[str]
    payloads: list[bytes | None]
    headers: list[bytes | None]
    due: list[int] | None

    def chosen(self, flags: list[bool]) -> _Columns:
        """Those that have a true flag."""
        ids = (self.ids[at : at + 8] for at in range(0, len(self.ids), 8))
        return _Columns(
            b"".join(compress(ids, flags)),
            [*compress(self.priorities, flags)],
            [*compress(self.entrypoints, flags)],
            [*compress(self.payloads, flags)],
            [*compress(self.headers, flags)],
            None if self.due is None else [*compress(self.due, flags)],
        )


def _copies(table: str, jobs: _Columns) -> Iterator[Copy]:
    columns = _COLUMNS if jobs.due is None else (*_COLUMNS, "execute_after")
    for part in parts(jobs.payloads, jobs.headers):
        yield Copy(
            table,
            columns,
            codec.encode_copy_jobs(
                jobs.ids[8 * part.start : 8 * part.stop],
                jobs.priorities[part],
                jobs.entrypoints[part],
                jobs.payloads[part],
                jobs.headers[part],
                None if jobs.due is None else jobs.due[part],
                status=False,
            ),
        )


def single_statement(
    settings: DBSettings, job: SingleJob, on_conflict: OnConflict = "raise"
) -> Statement:
    """Insert *job*; a row with its id, or none where it was skipped."""
    table = "later" if job.execute_after > NOW else "now"
    if job.dedupe_key is not None:
        flags = (table,) if on_conflict == "raise" else (table, on_conflict)
        return Statement(statement("lease/enqueue_keyed", settings, *flags), job)
    if job.headers is None and not job.execute_after:
        return Statement(statement("lease/enqueue_one", settings, table), job[:3])
    args = (*job[:4], job.headers)
    return Statement(statement("lease/enqueue_one", settings, table, "extras"), args)


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
    if delays is None:
        return Insertion(
            Statement(
                statement("lease/enqueue_packed", settings),
                codec.pack_jobs(entrypoints, payloads, priorities),
            ),
            # A driver of the user's may have another type for bytea.
            lambda rows: ordered_ids(codec.decode_ids(bytes(rows[0][0] or b"")), count),
        )
    flags = ("deferred",) if any(delays) else ()
    return Insertion(
        Statement(
            statement("lease/enqueue_many", settings, *flags),
            (priorities, entrypoints, payloads, delays, [None] * count, headers),
        ),
        lambda rows: complete(placed_ids(rows, count)),
    )


def keyed_steps(
    settings: DBSettings,
    batch: EnqueueBatch,
    headers: list[str | None],
    on_conflict: OnConflict,
) -> Steps:
    """Insert *batch*, which has dedupe keys, with *headers* as JSON."""
    flags = ["keyed"]
    if batch.deferred:
        flags.append("deferred")
    if on_conflict != "raise":
        flags += ["conflicts", on_conflict]
    rows = yield Statement(
        statement("lease/enqueue_many", settings, *flags),
        (
            batch.priority,
            batch.entrypoint,
            batch.payload,
            batch.execute_after,
            batch.dedupe_key,
            headers,
        ),
    )
    count = len(batch)
    if on_conflict == "raise":
        return complete(placed_ids(rows, count))
    if on_conflict == "skip":
        return placed_ids(rows, count)
    holders: dict[str | None, JobId] = {}
    missed: set[str] = set()
    for place, job_id, key, is_missed in rows:
        if place == 0:
            holders[key] = job_id
            if is_missed:
                missed.add(key)
    yield from _raise_priorities(settings, missed)
    ids = placed_ids([row for row in rows if row[0]], count)
    return complete(
        [
            holders.get(key) if job_id is None else job_id
            for job_id, key in zip(ids, batch.dedupe_key, strict=True)
        ]
    )


def _raise_priorities(settings: DBSettings, keys: set[str]) -> Generator[Statement, Sequence[Row]]:
    """Give the jobs that have *keys* the priority of those, as far as they are queued."""
    for _ in range(LOOKS):
        if not keys:
            break
        found = yield Statement(statement("lease/raise_priority", settings), ([*keys],))
        keys = keys.difference(key for (key,) in found)
