"""How jobs get into the tables of a layout: what a layout knows, and who sends it.

What has to be sent is worked out by generators without I/O, so that the asynchronous and the
blocking API are the same but for the waiting. A layout is a module that fits :class:`Inserter`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias, cast

from pgq_fast._impl import codec
from pgq_fast.drivers.base import Row
from pgq_fast.enqueue import EnqueueBatch, SingleJob, encode_headers, has_headers, only_job
from pgq_fast.errors import InvalidJobError, JobsDroppedError
from pgq_fast.layouts.base import Statement
from pgq_fast.types import JobId, OnConflict

if TYPE_CHECKING:
    from pgq_fast.settings import DBSettings

COPY_CHUNK_ROWS: Final = 10_000
"""Rows encoded at a time, so that a huge list is not in memory twice and the loop not blocked."""

COPY_FROM_BYTES: Final = 16 << 20
"""Payloads of together more than this go in by COPY: a statement has them all in one message."""

COPY_CHUNK_BYTES: Final = COPY_FROM_BYTES
"""The same of payloads and headers. A single larger job goes alone: PostgreSQL takes messages of
less than 1 GB, however much a list has in all."""

MESSAGE_BYTES: Final = 1_020_000_000
"""The most bytes of jobs that must go in one message; a single one always fits."""

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


Steps: TypeAlias = Generator[Statement | Copy, Sequence[Row], list[JobId | None]]
"""What to send, one after the other, each answered with its rows; then the ids of the jobs, in
order, None for one that was skipped."""


class Inserter(Protocol):
    """What a layout knows about new jobs."""

    def goes_by_copy(self, batch: EnqueueBatch) -> bool:
        """Whether *batch* is worth a COPY, and can go by it: a conflict has no place in one."""
        ...

    def copy_steps(self, settings: DBSettings, batch: EnqueueBatch) -> Steps:
        """Insert *batch*. The steps belong in one transaction."""
        ...

    def single_statement(
        self, settings: DBSettings, job: SingleJob, on_conflict: OnConflict = "raise"
    ) -> Statement:
        """Insert *job*; a row with its id, or none where it was skipped.

        *on_conflict* is ``raise`` or ``skip``: what the other mode returns is not the new job's id.
        """
        ...

    def plain_insertion(
        self,
        settings: DBSettings,
        entrypoints: list[str],
        payloads: list[bytes | None],
        priorities: list[int],
        delays: list[timedelta] | None = None,
        headers: list[str | None] | None = None,
    ) -> Insertion:
        """Insert jobs without dedupe keys. *delays* and *headers* are both given or both not."""
        ...

    def keyed_steps(
        self,
        settings: DBSettings,
        batch: EnqueueBatch,
        headers: list[str | None],
        on_conflict: OnConflict,
    ) -> Steps:
        """Insert *batch*, which has dedupe keys, with *headers* as JSON.

        Nothing but the first step may fail for a key.
        """
        ...


def parts(payloads: Sequence[bytes | None], headers: Sequence[bytes | None]) -> Iterator[slice]:
    """Jobs in parts of ``COPY_CHUNK_ROWS`` and ``COPY_CHUNK_BYTES``."""
    for start in range(0, len(payloads), COPY_CHUNK_ROWS):
        part = slice(start, min(start + COPY_CHUNK_ROWS, len(payloads)))
        if total_bytes(payloads[part]) + total_bytes(headers[part]) <= COPY_CHUNK_BYTES:
            yield part
            continue
        size = 0
        for place in range(part.start, part.stop):
            more = len(payloads[place] or b"") + len(headers[place] or b"")
            if place > start and size + more > COPY_CHUNK_BYTES:
                yield slice(start, place)
                start, size = place, 0
            size += more
        yield slice(start, part.stop)


def total_bytes(values: Iterable[bytes | None]) -> int:
    """How many bytes *values* have in all."""
    return sum(map(len, filter(None, values)))


def require_one_message(batch: EnqueueBatch, headers: Sequence[str | None]) -> None:
    """Refuse *batch* if it is too much for one statement.

    Raises:
        InvalidJobError: It is.
    """
    payload_bytes = total_bytes(batch.payload)
    texts = (batch.entrypoint, batch.dedupe_key, headers)
    # A character has 4 bytes at most: where even those fit, nobody needs to count.
    if payload_bytes + 4 * sum(sum(map(len, filter(None, column))) for column in texts) <= (
        MESSAGE_BYTES
    ):
        return
    size = payload_bytes + sum(len(text.encode()) for column in texts for text in column if text)
    if size > MESSAGE_BYTES:
        raise InvalidJobError(
            f"these {len(batch)} jobs have {size} bytes, and {MESSAGE_BYTES} is the most that can "
            "go at a time with dedupe keys, or over a driver that is not this package's: enqueue "
            "them in several lists"
        )


def due_times(batch: EnqueueBatch, raw_now: bytes) -> list[int] | None:
    """When each job may run: the exact delay from *raw_now*, both as the server has a timestamp.

    None where no job has a delay, so that the column's default does.
    """
    if not batch.deferred:
        return None
    (now,) = codec.decode_ids(raw_now)
    return [now + delay // _MICROSECOND for delay in batch.execute_after]


def job_ids(raw_ids: bytes) -> list[JobId | None]:
    """The ids in *raw_ids*, 8 bytes each."""
    # They are JobIds, whose type is int; to say so of each would take longer than to decode it.
    return cast("list[JobId | None]", codec.decode_ids(raw_ids))


def header_texts(batch: EnqueueBatch) -> list[str | None]:
    """The headers of each job as JSON."""
    return [None if text is None else text.decode() for text in encode_headers(batch.headers)]


def ordered_ids(ids: Sequence[int], count: int) -> list[JobId | None]:
    """*ids* of jobs that were numbered in their order, *count* of them, in that order.

    Raises:
        JobsDroppedError: There are fewer.
    """
    if len(ids) != count:
        raise JobsDroppedError(count, len(ids))
    return cast("list[JobId | None]", sorted(ids))


def placed_ids(rows: Sequence[Row], count: int) -> list[JobId | None]:
    """The ids at the places, from 1, that are in *rows* before them; None at others."""
    ids: list[JobId | None] = [None] * count
    for place, job_id, *_ in rows:
        ids[place - 1] = job_id
    return ids


def complete(ids: list[JobId | None]) -> list[JobId | None]:
    """*ids*, none of which may be missing.

    Raises:
        JobsDroppedError: One is.
    """
    if None in ids:
        raise JobsDroppedError(len(ids), len(ids) - ids.count(None))
    return ids


def insertion_steps(
    inserter: Inserter, settings: DBSettings, batch: EnqueueBatch, on_conflict: OnConflict
) -> Steps:
    """Insert *batch*, which is not empty, by statements."""
    count = len(batch)
    if count == 1 and on_conflict != "update_priority":
        rows = yield inserter.single_statement(settings, only_job(batch), on_conflict)
        return [rows[0][0] if rows else None]
    headers = header_texts(batch)
    require_one_message(batch, headers)
    if batch.keyed:
        return (yield from inserter.keyed_steps(settings, batch, headers, on_conflict))
    extras = batch.deferred or has_headers(batch.headers)
    insertion = inserter.plain_insertion(
        settings,
        batch.entrypoint,
        batch.payload,
        batch.priority,
        batch.execute_after if extras else None,
        headers if extras else None,
    )
    return insertion.ids((yield insertion.statement))


async def run(
    steps: Steps,
    fetch_rows: Callable[..., Awaitable[Sequence[Row]]],
    copy_in: Callable[[str, Sequence[str], bytes], Awaitable[None]] | None = None,
) -> list[JobId | None]:
    """Send *steps*; the ids. Without *copy_in* there is no COPY among them."""
    try:
        step = next(steps)
        while True:
            rows: Sequence[Row] = ()
            if isinstance(step, Statement):
                rows = await fetch_rows(step.query, *step.args)
            elif copy_in is not None:
                await copy_in(*step)
            step = steps.send(rows)
    except StopIteration as end:
        ids: list[JobId | None] = end.value
        return ids


def run_sync(
    steps: Steps,
    fetch_rows: Callable[..., Sequence[Row]],
    copy_in: Callable[[str, Sequence[str], bytes], None] | None = None,
) -> list[JobId | None]:
    """The blocking counterpart of :func:`run`."""
    try:
        step = next(steps)
        while True:
            rows: Sequence[Row] = ()
            if isinstance(step, Statement):
                rows = fetch_rows(step.query, *step.args)
            elif copy_in is not None:
                copy_in(*step)
            step = steps.send(rows)
    except StopIteration as end:
        ids: list[JobId | None] = end.value
        return ids
