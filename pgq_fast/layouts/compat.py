"""The ``compat`` layout for workers: exactly the tables of pgqueuer 1.6.0.

The statements are in ``sql/compat``; here is how their parameters are made and their rows read.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from pgq_fast import models
from pgq_fast._impl import codec
from pgq_fast.drivers.base import Driver, Int8Array, Row, RowDriver, row_fetcher
from pgq_fast.drivers.failures import UNIQUE_VIOLATION, constraint_of, sqlstate_of
from pgq_fast.errors import MalformedRowError, OpenTransactionError
from pgq_fast.layouts.base import LARGEST_CLAIM, Claim, Outcome, Rejected, Rest, Retry, Statement
from pgq_fast.layouts.looks import Looks
from pgq_fast.logconfig import logger
from pgq_fast.sql import size_class, sized_statement, statement
from pgq_fast.types import JobId, QueueEntrypoint, QueueManagerId

if TYPE_CHECKING:
    from pgq_fast.settings import DBSettings

DEQUEUE_BYTES: Final = 448 * 2**20
"""The most of one ``dequeue``, less the last job's, which may have as much again: PostgreSQL allows
1 GB for the answer."""

SLOW_SCAN: Final = 0.05
"""Seconds that a claim takes which had to pass over many jobs that are not due yet: the ordered
scan of a full batch takes a tenth of that."""

DEADLOCK_DETECTED: Final = "40P01"


class Wanted(NamedTuple):
    """The entrypoints of a claim as its parameters."""

    names: list[QueueEntrypoint]
    seats: Int8Array | None
    """The concurrency limit of each; None where none has one."""


def wanted(limits: Mapping[QueueEntrypoint, int]) -> Wanted:
    """The parameters for *limits*: entrypoints, each with its ``concurrency_limit`` or 0."""
    limited = any(limit > 0 for limit in limits.values())
    return Wanted(list(limits), Int8Array(limits.values()) if limited else None)


def claim_statement(
    settings: DBSettings,
    batch_size: int,
    entrypoints: Wanted,
    owner: QueueManagerId,
    stale_after: timedelta | None,
    max_bytes: int,
    *,
    budget: int | None = None,
    ending: Sequence[JobId] = (),
    relaxed: bool = False,
    by_due_time: bool = False,
    looks: int | None = None,
    size: int = 0,
) -> Statement:
    """The claim with just the gates that are in use.

    Args:
        settings: Names of the tables.
        batch_size: At least 1.
        entrypoints: The entrypoints to claim from.
        owner: The claiming worker.
        stale_after: Age of the last heartbeat from which a picked job is claimed too.
        max_bytes: Of payloads and headers together, less the last job's.
        budget: The most jobs that the worker may hold; needs *stale_after*.
        ending: Jobs to end in the same statement; not with concurrency limits or *stale_after*.
        relaxed: Whether the commit need not wait for the disk; only for a statement that is a
            transaction of its own, and that ends no jobs.
        by_due_time: Whether to find the jobs that have been due longest, best priority first among
            them, by a scan that does not touch jobs that are not due.
        looks: Jobs of each entrypoint without a limit to look at, at most *batch_size*; None for
            that many. Not with *budget* or *by_due_time*.
        size: The :func:`~pgq_fast.sql.size_class` of the table.
    """
    most = min(batch_size, LARGEST_CLAIM)
    looks = most if looks is None else looks
    flags = [
        "fixed" if budget is None else "budget",
        "due" if by_due_time else "ordered",
        "all" if looks >= most else "some",
    ]
    args: list[object] = [most, entrypoints.names, owner, max_bytes, looks]
    if relaxed:
        flags.append("relaxed")
    if entrypoints.seats is not None:
        args.append(entrypoints.seats)
    if stale_after is not None:
        flags.append("rescue")
        args.append(stale_after)
    if budget is not None:
        args.append(budget)
    if ending:
        flags.append("ending")
        args.append(codec.encode_ids(ending))
    name = "compat/claim" if entrypoints.seats is None else "compat/claim_limited"
    return Statement(sized_statement(size, name, settings, *flags), tuple(args))


def read_claim(rows: Sequence[Row], owner: QueueManagerId) -> Claim:
    """The jobs of a claim's row; one that is none is logged and set aside.

    Raises:
        MalformedRowError: The driver did not return what the statement selects.
    """
    ((raw, large, cut, _),) = rows
    if raw is None:
        return Claim([])
    try:
        jobs, faults = codec.build_jobs(models.Job, bytes(raw), owner, models.parse_headers)
    except ValueError as error:
        raise MalformedRowError(
            f"the answer to a claim cannot be read: {error}; see whether the driver returns bytea "
            "unchanged"
        ) from error
    for job_id, reason in faults:
        logger.error("Job %s cannot be read: %s", job_id, reason, extra={"job_id": job_id})
    rejected = [Rejected(JobId(job_id), reason) for job_id, reason in faults]
    claim = Claim(jobs, rejected)
    claim.large = bool(large)
    claim.more = claim.large or bool(cut) or claim.found >= LARGEST_CLAIM
    return claim


def lost_seat(error: BaseException, settings: DBSettings) -> bool:
    """Whether a claim failed because another worker took the seat that it wanted.

    Two claims over several limited entrypoints can also wait for each other. Either way nothing
    was claimed, and the next claim sees how things stand.
    """
    state = sqlstate_of(error)
    if state == UNIQUE_VIOLATION:
        index = f"{settings.queue_table}_picked_slot_idx"
        # PostgreSQL folds the case of names, a schema is not part of an index's, and it cuts
        # what is longer than 63 bytes.
        return constraint_of(error) == index.rpartition(".")[2].lower()[:63]
    return state == DEADLOCK_DETECTED


def _record_json(record: models.TracebackRecord | None) -> str | None:
    return None if record is None else record.model_dump_json()


def log_jobs_statement(
    settings: DBSettings, outcomes: Sequence[Outcome], size: int = 0
) -> Statement:
    """End jobs of any owners, with any statuses."""
    ids, statuses, records = codec.outcome_columns(
        [(outcome.job, outcome.status, _record_json(outcome.record)) for outcome in outcomes]
    )
    count = len(ids)
    return Statement(
        sized_statement(size, "compat/log_jobs", settings),
        (
            Int8Array(ids),
            ["successful"] * count if statuses is None else statuses,
            [None] * count if records is None else records,
            [outcome.job.queue_manager_id for outcome in outcomes],
        ),
    )


def retry_statement(settings: DBSettings, retries: Sequence[Retry], size: int = 0) -> Statement:
    """Queue jobs of any owners again."""
    return Statement(
        sized_statement(size, "compat/retry", settings),
        (
            Int8Array([retry.job.id for retry in retries]),
            [retry.delay for retry in retries],
            [_record_json(retry.record) for retry in retries],
            [retry.job.queue_manager_id for retry in retries],
            [retry.job.attempts for retry in retries],
        ),
    )


class CompatLayout:
    """:class:`~pgq_fast.layouts.base.WorkerLayout` on pgqueuer's tables.

    Args:
        driver: Any driver; the package's own are asked for rows by position.
        settings: Names of the tables.
    """

    can_release = True

    def __init__(self, driver: Driver, settings: DBSettings) -> None:
        self._driver = driver
        self._settings = settings
        self._rows = row_fetcher(driver)
        self._limits: Mapping[QueueEntrypoint, int] = {}
        self._wanted = wanted(self._limits)
        # Of a driver that is not ours we cannot know whether the user has a transaction open.
        self._in_transaction = driver.in_transaction if isinstance(driver, RowDriver) else None
        self.can_end_in_claim = not (isinstance(driver, RowDriver) and driver.is_concurrent)
        self._by_due_time = False
        self._looks = Looks()
        self._size = 0

    async def fetch_claim(self, claim: Statement, owner: QueueManagerId) -> Claim | None:
        """Run *claim*; None where another worker was quicker.

        Raises:
            OpenTransactionError: The connection has a transaction open.
        """
        if self._in_transaction is not None and self._in_transaction():
            raise OpenTransactionError("Claiming jobs")
        try:
            rows = await self._rows(claim.query, *claim.args)
        except Exception as error:
            if lost_seat(error, self._settings):
                return None
            raise
        found = read_claim(rows, owner)
        self._size = size_class(rows[0][-1])
        return found

    async def claim(
        self,
        batch_size: int,
        limits: Mapping[QueueEntrypoint, int],
        owner: QueueManagerId,
        stale_after: timedelta | None,
        max_bytes: int,
        ending: Sequence[JobId] = (),
    ) -> Claim:
        """Pick up to *batch_size* jobs for *owner*, and end *ending*, in one statement.

        In two, where there are limits or *stale_after*: a statement must not both end a job and
        rescue it, and one that lost a seat must not lose what it was to end.
        """
        if limits is not self._limits:
            # A worker passes the same mapping until an entrypoint is added.
            self._limits, self._wanted = limits, wanted(limits)
        together = stale_after is None and self._wanted.seats is None
        if ending and not together:
            await self.finish(ending, owner)
            ending = ()
        looks: int | None = None
        if not self._by_due_time:
            looks = self._looks.at(min(batch_size, LARGEST_CLAIM), len(limits))
        began = time.monotonic()
        claim = await self.fetch_claim(
            claim_statement(
                self._settings,
                batch_size,
                self._wanted,
                owner,
                stale_after,
                max_bytes,
                ending=ending,
                # What is ended must stay so, or a crash of the server runs it again.
                relaxed=self._in_transaction is not None and not ending,
                by_due_time=self._by_due_time,
                looks=looks,
                size=self._size,
            ),
            owner,
        )
        if claim is None:
            if ending:
                await self.finish(ending, owner)
            return Claim([])
        if len(limits) > 1:
            self._looks.brought(Counter(job.entrypoint for job in claim.jobs).values())
        # Its own too, if it is late with its heartbeats.
        claim.known = stale_after is not None
        full = claim.found >= batch_size or claim.more
        if self._by_due_time:
            # More are due than one claim takes: the order of all of them counts again.
            self._by_due_time = not full
        else:
            self._by_due_time = not full and time.monotonic() - began > SLOW_SCAN
        return claim

    async def finish(self, ids: Sequence[JobId], owner: QueueManagerId) -> None:
        """End jobs of *owner* that were successful, in a statement without values a job."""
        await self._driver.execute(
            sized_statement(self._size, "compat/finish", self._settings),
            codec.encode_ids(ids),
            owner,
        )

    async def acknowledge(self, outcomes: Sequence[Outcome], owner: QueueManagerId) -> None:
        """End jobs of *owner* in any way, in one statement."""
        query, args = log_jobs_statement(self._settings, outcomes, self._size)
        await self._driver.execute(query, *args)

    async def retry(self, retries: Sequence[Retry], owner: QueueManagerId) -> None:
        """Queue jobs of *owner* again, in one statement."""
        query, args = retry_statement(self._settings, retries, self._size)
        await self._driver.execute(query, *args)

    async def heartbeat(self, ids: Sequence[JobId], owner: QueueManagerId) -> set[JobId]:
        """Say that *owner* is at work on *ids*; those of them that are still its own."""
        query = sized_statement(self._size, "compat/heartbeat", self._settings)
        return {row[0] for row in await self._rows(query, codec.encode_ids(ids), owner)}

    async def release(self, owner: QueueManagerId, keep: Sequence[JobId]) -> None:
        """Queue again what *owner* has picked, except *keep*."""
        await self._driver.execute(
            statement("compat/release", self._settings), owner, codec.encode_ids(keep)
        )

    async def rest(
        self,
        entrypoints: Sequence[QueueEntrypoint],
        owner: QueueManagerId,
        seats: bool,
        last: bool = False,
    ) -> Rest:
        """When a job of *entrypoints* is due. The trigger tells everybody of every change."""
        rows = await self._rows(statement("compat/next_due", self._settings), list(entrypoints))
        due = rows[0][0] if rows else None
        return Rest(due if isinstance(due, timedelta) else None)

    async def leave(self, owner: QueueManagerId) -> None:
        """Nothing to do."""

    def whole(self, ids: Sequence[JobId]) -> tuple[list[JobId], list[JobId]]:
        """All of *ids*: each job has a row of its own."""
        return [*ids], []
