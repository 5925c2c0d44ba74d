"""The ``lease`` layout for workers: tables built for volume.

A claim moves jobs of ``ready`` into a row of ``lease``, whose id is the fence of all that follows.
The statements are in ``sql/lease``; here is which of them are sent, and when.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, cast

from pgq_fast import models
from pgq_fast._impl import codec
from pgq_fast.choices import JobLog, SynchronousCommit
from pgq_fast.drivers.base import Driver, Row, RowDriver, row_fetcher
from pgq_fast.drivers.failures import UNIQUE_VIOLATION, constraint_of, sqlstate_of
from pgq_fast.drivers.pooling import poll_interval_of
from pgq_fast.errors import MalformedRowError, OpenTransactionError
from pgq_fast.layouts.base import LARGEST_CLAIM, Claim, Outcome, Rest, Retry
from pgq_fast.layouts.lease_log import log_modes
from pgq_fast.layouts.leases import Lease, Leases, Place
from pgq_fast.layouts.looks import Looks
from pgq_fast.layouts.promotion import Promotion
from pgq_fast.layouts.waiting import Waiting
from pgq_fast.logconfig import logger
from pgq_fast.sql import size_class, sized_statement, statement
from pgq_fast.types import JOB_STATUS, JobId, QueueEntrypoint, QueueManagerId

if TYPE_CHECKING:
    from pgq_fast.settings import DBSettings

CLAIMS_WAIT: Final = "PGQ05"
"""What a claim fails with while a migration waits for running jobs; see sql/migrate."""

DEADLOCK_DETECTED: Final = "40P01"

FRONT: Final = (-(2**31), -(2**63))
"""Before every job in the order of claims: the complement of a priority, and an id."""

ONWARD_FROM: Final = 1_000
"""Jobs that this worker claims from the front of the line until it goes on from where the last
claim ended: to pass over about so many dead index entries costs next to nothing."""

SLOW_CLAIM: Final = 0.05
"""Seconds of a claim from the front after which the same holds whatever their number: others have
claimed, or an old transaction keeps the dead from being forgotten."""

FRONT_SHARE: Final = 10
"""Claims from the front, which alone see what has come back or is more urgent, take at most about
one part in so many of a worker's time."""

LEASE_COLUMNS: Final = 11
"""Columns of a claim's answer with a lease and its jobs; the others are about the claim."""

TURNS_FROM: Final = 200
"""Jobs of a claim that takes turns with those of other workers: the server lets a few of these run
at the same time."""

FIRST_PAUSE: Final = 0.002
"""Seconds between the first attempts to get a turn. Pauses double, and are at least as long as the
last turn took to come; a random part of up to a half is taken off."""

LONGEST_PAUSE: Final = 0.25
"""Seconds of a pause at most."""

PATIENCE: Final = 2.0
"""Seconds of waiting for a turn after which a worker claims without one: who has it may hang."""

RESCUES: Final = 4
"""Looks for stale leases within a heartbeat timeout of a worker that always has a little to do."""

BUSY_CLAIMS: Final = 2
"""Full claims in a row after which a worker does not wait to be told any more."""


class LeaseLayout:
    """:class:`~pgq_fast.layouts.base.WorkerLayout` on the tables of the lease layout.

    Args:
        driver: Any driver; the package's own are asked for rows by position.
        settings: Names of the tables, and which commits wait for the disk.
    """

    can_release = True
    # One commit for both, on however many connections.
    can_end_in_claim = True

    def __init__(self, driver: Driver, settings: DBSettings) -> None:
        self._driver = driver
        self._settings = settings
        self._rows = row_fetcher(driver)
        # Of a driver that is not ours we cannot know whether the user has a transaction open.
        self._in_transaction = driver.in_transaction if isinstance(driver, RowDriver) else None
        # Where no notification arrives, none needs to be sent: the worker polls.
        self._can_be_told = poll_interval_of(driver) is None
        self._leases = Leases()
        # With the further arguments that the statements take then, where not everything is logged.
        self._logs_all = settings.job_log is JobLog.all and not settings.job_log_of
        self._log_flag = "unselective" if self._logs_all else "selective"
        self._log_modes: tuple[str, ...] = () if self._logs_all else log_modes(settings)
        self._promotion = Promotion(driver, settings)
        self._waiting = Waiting(driver, settings)
        self._limits: Mapping[QueueEntrypoint, int] = {}
        self._names: list[QueueEntrypoint] = []
        self._seats: str | None = None
        # Where the last claim of each entrypoint ended, as in FRONT.
        self._places: dict[QueueEntrypoint, tuple[int, int]] = {}
        self._claimed_from_front = 0
        self._front_is_slow = False
        self._next_from_front = 0.0
        self._full_claims = 0
        # Whether others are likely to be claiming from a long line, too.
        self._takes_turns = True
        self._looks = Looks()
        # Of the last claim: seconds that its statement took, whether (with limits) there were fewer
        # jobs than it could have taken, and the class of the tables' size.
        self._took = 0.0
        self._short = False
        self._size = 0
        # Seconds until the last claim had its turn, its own time included.
        self._turn_took = 0.0
        # What the last claim put off until the worker rests, and from when on no longer.
        self._put_off: timedelta | None = None
        self._next_rescue = 0.0

    # -- Claim --------------------------------------------------------------------------------

    async def claim(
        self,
        batch_size: int,
        limits: Mapping[QueueEntrypoint, int],
        owner: QueueManagerId,
        stale_after: timedelta | None,
        max_bytes: int,
        ending: Sequence[JobId] = (),
        budget: int | None = None,
    ) -> Claim:
        """Pick up to *batch_size* jobs for *owner*, and end *ending* in the same statement.

        Where there are limits, in one before: what lost a seat must not lose what it was to end.
        Leases without a heartbeat for *stale_after* are looked for where the worker finds nothing
        better to do, or so much that it does not matter; otherwise before it rests.

        *budget* is the most jobs that the worker may hold; the rest is as in the protocol.

        Raises:
            OpenTransactionError: The connection has a transaction open.
        """
        if self._in_transaction is not None and self._in_transaction():
            raise OpenTransactionError("Claiming jobs")
        if limits is not self._limits:
            # A worker passes the same mapping until an entrypoint is added.
            self._limits = limits
            self._names = list(limits)
            limited = budget is not None or any(limit > 0 for limit in limits.values())
            self._seats = codec.encode_ids(list(limits.values())) if limited else None
        await self._promotion.promote_due(self._names, self._size)
        claim = await self._next(batch_size, owner, max_bytes, ending, budget)
        full = claim.found >= batch_size or claim.more
        # Jobs that are there need not wait for this, unless the worker never comes to rest.
        at_once = not claim.found or full or time.monotonic() >= self._next_rescue
        if stale_after is not None and not at_once:
            self._put_off = stale_after
        elif stale_after is not None:
            rescued = await self._look_for_stale(stale_after, self._names)
            if rescued and not claim.found:
                claim = await self._next(batch_size, owner, max_bytes, (), budget)
                full = claim.found >= batch_size or claim.more
        self._takes_turns = full and claim.ahead
        if not full:
            self._full_claims = 0
        else:
            self._full_claims += 1
            if self._full_claims >= BUSY_CLAIMS:
                await self._waiting.end(owner)
        return claim

    async def _look_for_stale(
        self, stale_after: timedelta, entrypoints: Sequence[QueueEntrypoint]
    ) -> int:
        """As ``rescue``, and what was put off is done with that."""
        self._put_off = None
        self._next_rescue = time.monotonic() + stale_after.total_seconds() / RESCUES
        return await self.rescue(stale_after, entrypoints)

    async def _next(
        self,
        batch_size: int,
        owner: QueueManagerId,
        max_bytes: int,
        ending: Sequence[JobId],
        budget: int | None,
    ) -> Claim:
        """A claim from the front of the line, or from where the last one ended.

        What has been claimed stays in the index as dead entries until vacuum comes, and as long as
        an older transaction might want to see it. So the way from the front gets longer with every
        claim. What is behind the place all the same, because it came back, was committed late or is
        more urgent, is found by claims from the front in between.
        """
        began = time.monotonic()
        onward = began < self._next_from_front and (
            self._claimed_from_front >= ONWARD_FROM or self._front_is_slow
        )
        claim = await self._claim_from(onward, batch_size, owner, max_bytes, ending, budget)
        full = claim.found >= batch_size or claim.more
        # All seats are taken now: that so few jobs came does not mean that the line has ended.
        seated = self._seats is not None and not self._short
        if not onward:
            if claim.found or not seated:
                self._front_is_slow = self._took > SLOW_CLAIM
            self._next_from_front = began + FRONT_SHARE * self._took
        if full or seated:
            self._claimed_from_front += claim.found
        elif onward:
            # The end of the line. Whatever is left is at its front.
            self._next_from_front = 0.0
            self._takes_turns = False
            if not claim.found:
                return await self._next(batch_size, owner, max_bytes, (), budget)
            claim.more = True
            claim.ahead = False
        elif not self._front_is_slow:
            self._claimed_from_front = 0
        return claim

    async def _claim_from(
        self,
        onward: bool,
        batch_size: int,
        owner: QueueManagerId,
        max_bytes: int,
        ending: Sequence[JobId],
        budget: int | None,
    ) -> Claim:
        ended: list[Lease] = []
        if ending:
            ended, some = self._leases.split(ending)
            if some or self._seats is not None:
                await self.finish(ending, owner)
                ended = []
        places = [self._places.get(name, FRONT) if onward else FRONT for name in self._names]
        size = min(batch_size, LARGEST_CLAIM)
        args: list[object] = [
            size,
            self._names,
            owner,
            max_bytes,
            codec.encode_ids([rank for rank, _ in places]),
            codec.encode_ids([number for _, number in places]),
            False,
            size if budget is not None else self._looks.at(size, len(self._names)),
        ]
        if self._seats is not None:
            args.append(self._seats)
        if budget is not None:
            args.append(budget)
        asked = time.monotonic()
        pause = FIRST_PAUSE
        takes_turn = self._takes_turns and batch_size >= TURNS_FROM
        while True:
            args[6] = takes_turn and time.monotonic() - asked < PATIENCE
            rows = await self._send_claim(args, owner, ended, budget is not None)
            if rows is None:
                break
            for lease in ended:
                self._leases.end(lease)
            ended = []
            no_turn = rows[0][-1]
            if not no_turn:
                break
            while no_turn and time.monotonic() - asked < PATIENCE:
                await asyncio.sleep(random.uniform(0.5, 1) * max(pause, self._turn_took))
                pause = min(2 * pause, LONGEST_PAUSE)
                # Costs a fifth of what a claim does that has no turn.
                ((free,),) = await self._rows(statement("lease/turn", self._settings))
                no_turn = not free
        self._turn_took = min(time.monotonic() - asked, LONGEST_PAUSE)
        if rows is None:
            return Claim([])
        claim = self._look_at(rows, owner)
        claim.exhausted = not claim.found and not onward and self._seats is None
        return claim

    async def _send_claim(
        self,
        args: Sequence[object],
        owner: QueueManagerId,
        ended: Sequence[Lease],
        has_budget: bool,
    ) -> Sequence[Row] | None:
        """The rows of a claim; None where another worker was quicker, or nobody may claim."""
        flags = ["budget" if has_budget else "fixed"]
        if self._seats is not None:
            flags += ("limited", "several")
        else:
            flags += ("unlimited", "single" if len(self._names) == 1 else "several")
        if ended:
            flags += ("ending", self._log_flag)
            numbers = codec.encode_ids([lease.id for lease in ended])
            args = (*args, numbers, *self._log_modes)
        if self._relaxes(acknowledges=bool(ended)):
            flags.append("relaxed")
        began = time.monotonic()
        try:
            return await self._rows(self._statement("claim", *flags), *args)
        except Exception as error:
            if sqlstate_of(error) == CLAIMS_WAIT:
                # Until the queue has moved to the other layout, or stays. Nothing was done.
                await self._finish_whole(ended, owner)
                return None
            if self._lost_seat(error):
                return None
            raise
        finally:
            self._took = time.monotonic() - began

    def _statement(self, name: str, *flags: str) -> str:
        return sized_statement(self._size, f"lease/{name}", self._settings, *flags)

    def _relaxes(self, *, acknowledges: bool) -> bool:
        """Whether a commit need not wait for the disk; never one that the user has open."""
        if self._in_transaction is None or self._in_transaction():
            return False
        wait = self._settings.synchronous_commit
        if acknowledges:
            return wait is SynchronousCommit.enqueues
        return wait is not SynchronousCommit.all

    def _lost_seat(self, error: BaseException) -> bool:
        """Whether a claim failed because another worker took the seat that it wanted.

        Two claims over several limited entrypoints can also wait for each other. Either way nothing
        was claimed, and the next claim sees how things stand.
        """
        state = sqlstate_of(error)
        if state == UNIQUE_VIOLATION:
            # PostgreSQL folds the case of names, and cuts what is longer than 63 bytes.
            index = self._settings.lease_names.lease_seat_index.lower()[:63]
            return constraint_of(error) == index
        return state == DEADLOCK_DETECTED and self._seats is not None

    def _look_at(self, rows: Sequence[Row], owner: QueueManagerId) -> Claim:
        """The claim of *rows*, whose jobs are made when they are asked for."""
        found, large, cut = 0, False, False
        counts: Counter[QueueEntrypoint] = Counter()
        places: dict[QueueEntrypoint, tuple[int, int]] = {}
        for row in rows:
            large, cut, size, short, count, rank, last_id, _ = row[LEASE_COLUMNS:]
            self._size = size_class(size)
            self._short = short
            if count:
                found += count
                # Of a limited entrypoint each job is a lease of its own.
                name = QueueEntrypoint(bytes(row[1]).decode(errors="replace"))
                counts[name] += count
                places[name] = max((rank, last_id), places.get(name, FRONT))
        self._places.update(places)
        self._looks.brought(counts.values())
        claim = Claim.unread(
            found,
            large or cut or found >= LARGEST_CLAIM,
            functools.partial(self._read, rows, owner),
        )
        claim.large = bool(large)
        return claim

    def _read(self, rows: Sequence[Row], owner: QueueManagerId, claim: Claim) -> list[models.Job]:
        """The jobs of *rows*, of whose leases this takes note.

        Raises:
            MalformedRowError: The driver did not return what the statement selects.
        """
        everything: list[models.Job] = []
        for number, entrypoint, slot, *columns, due, payloads, headers in (
            row[:LEASE_COLUMNS] for row in rows
        ):
            if number is None:
                break
            try:
                picked_at, ids, priorities, attempts, created = map(bytes, columns)
                jobs, job_ids = codec.build_leased_jobs(
                    models.Job,
                    owner,
                    models.parse_headers,
                    bytes(entrypoint),
                    slot,
                    picked_at,
                    ids,
                    priorities,
                    attempts,
                    created,
                    None if due is None else bytes(due),
                    bytes(payloads),
                    None if headers is None else bytes(headers),
                )
            except ValueError as error:
                raise MalformedRowError(
                    f"the answer to a claim cannot be read: {error}; see whether the driver "
                    "returns bytea unchanged"
                ) from error
            lease = Lease(number, jobs[-1].entrypoint, cast("list[JobId]", job_ids), attempts)
            if self._leases.add(lease):
                claim.known = True
            everything += jobs
        if len(rows) > 1:
            everything.sort(key=lambda job: (-job.priority, job.id))
        return everything

    async def rescue(self, stale_after: timedelta, entrypoints: Sequence[QueueEntrypoint]) -> int:
        """Put back the jobs of leases without a heartbeat for *stale_after*; how many."""
        args = (stale_after, list(entrypoints))
        rows = await self._rows(self._statement("any_stale"), *args)
        if rows[0][0]:
            rows = await self._rows(
                self._statement("rescue", self._log_flag),
                *args,
                *self._log_modes,
            )
            if rows[0][1] is not None:
                logger.error(
                    "Jobs that were picked cannot be read and end as exceptions, see what changed "
                    "the rows of their leases: %s",
                    rows[0][1],
                )
        return int(rows[0][0])

    # -- Ends ---------------------------------------------------------------------------------

    def whole(self, ids: Sequence[JobId]) -> tuple[list[JobId], list[JobId]]:
        """Those of *ids* with which a lease is through, and those that have company coming."""
        some = self._leases.split(ids).some
        if not some:
            return [*ids], []
        rest = {lease.ids[index] for lease, places in some.items() for index in places}
        return (
            [job_id for job_id in ids if job_id not in rest],
            [job_id for job_id in ids if job_id in rest],
        )

    async def finish(self, ids: Sequence[JobId], owner: QueueManagerId) -> None:
        """End jobs of *owner* that were successful: a statement for leases, one for parts."""
        returns = self._leases.returns
        whole, some = self._leases.split(ids)
        await self._finish_whole(whole, owner)
        if some:
            bitmaps = []
            for lease, places in some.items():
                bits = bytearray(b"0" * len(lease.ids))
                for index in places:
                    bits[index] = 0x31
                bitmaps.append(bits.decode())
            await self._driver.execute(
                self._statement("finish_some", *self._ending_flags()),
                codec.encode_ids([lease.id for lease in some]),
                bitmaps,
                owner,
                *self._log_modes,
            )
            for lease, places in some.items():
                self._leases.end(lease, places)
        if self._leases.returns != returns:
            # Some may have been in a new lease by then.
            await self.finish(ids, owner)

    async def _finish_whole(self, leases: Sequence[Lease], owner: QueueManagerId) -> None:
        if leases:
            await self._driver.execute(
                self._statement("finish", *self._ending_flags()),
                codec.encode_ids([lease.id for lease in leases]),
                owner,
                *self._log_modes,
            )
            for lease in leases:
                self._leases.end(lease)

    def _ending_flags(self) -> list[str]:
        """The variant of a statement that ends jobs, and no more."""
        flags = [self._log_flag]
        if self._relaxes(acknowledges=True):
            flags.append("relaxed")
        return flags

    async def acknowledge(self, outcomes: Sequence[Outcome], owner: QueueManagerId) -> None:
        """End jobs of *owner* in any way, in one statement."""
        await self._settle([(item.job, item.status, item.record, None) for item in outcomes], owner)

    async def retry(self, retries: Sequence[Retry], owner: QueueManagerId) -> None:
        """Queue jobs of *owner* again, in one statement."""
        await self._settle(
            [(item.job, "queued", item.record, item.delay) for item in retries], owner
        )
        self._promotion.comes_in(min(item.delay for item in retries))

    async def _settle(
        self,
        items: Sequence[
            tuple[models.Job, JOB_STATUS, models.TracebackRecord | None, timedelta | None]
        ],
        owner: QueueManagerId,
    ) -> None:
        returns = self._leases.returns
        # Not what is told again of an earlier run, for want of the first answer: a job that was put
        # back may be here anew.
        # Of one that is told of twice here, the first counts.
        found: dict[Place, tuple[JOB_STATUS, models.TracebackRecord | None, timedelta | None]] = {}
        for job, status, record, delay in items:
            place = self._leases.place(job.id)
            if place is not None and place.lease.attempts_at(place.position) == job.attempts:
                found.setdefault(place, (status, record, delay))
        if not found:
            return
        flags = self._ending_flags()
        if any(status in ("queued", "failed") for status, _, _ in found.values()):
            flags.append("payloads")
        await self._driver.execute(
            self._statement("settle", *flags),
            codec.encode_ids([place.lease.id for place in found]),
            codec.encode_ids([place.position + 1 for place in found]),
            owner,
            [status for status, _, _ in found.values()],
            [
                None if record is None else record.model_dump_json()
                for _, record, _ in found.values()
            ],
            [delay or timedelta(0) for _, _, delay in found.values()],
            *self._log_modes,
        )
        for place in found:
            self._leases.end(place.lease, [place.position])
        if self._leases.returns != returns:
            await self._settle(items, owner)

    # -- Life ---------------------------------------------------------------------------------

    async def heartbeat(self, ids: Sequence[JobId], owner: QueueManagerId) -> set[JobId]:
        """Say that *owner* is at work on *ids*; those of them that are still its own."""
        places = {job_id: self._leases.place(job_id) for job_id in ids}
        leases = {place.lease.id for place in places.values() if place is not None}
        flags = ("relaxed",) if self._relaxes(acknowledges=False) else ()
        rows = await self._rows(
            self._statement("heartbeat", *flags),
            codec.encode_ids(sorted(leases)),
            owner,
        )
        alive: dict[int, str] = dict(map(tuple, rows))
        return {
            job_id
            for job_id, place in places.items()
            if place is not None
            and place.lease.id in alive
            # Not by the index: somebody may have cut it short.
            and alive[place.lease.id].startswith("0", place.position)
        }

    async def release(self, owner: QueueManagerId, keep: Sequence[JobId]) -> None:
        """Queue again what *owner* has claimed, except *keep*."""
        await self._driver.execute(
            self._statement("release", self._log_flag),
            owner,
            codec.encode_ids(keep),
            *self._log_modes,
        )
        self._leases.keep_only(keep)

    async def rest(
        self,
        entrypoints: Sequence[QueueEntrypoint],
        owner: QueueManagerId,
        seats: bool,
        last: bool = False,
    ) -> Rest:
        """Look when there will be something to claim of *entrypoints*, registered to be told.

        See :mod:`~pgq_fast.layouts.waiting` for the order of these two.
        """
        if last:
            # Not at the front of the line again: to pass over all that has been claimed is dear.
            ((due,),) = await self._rows(
                statement("lease/next_deferred", self._settings), list(entrypoints)
            )
            if due is None:
                return Rest(None)
        if self._can_be_told:
            await self._waiting.begin(owner, seats)
        if self._put_off is not None:
            await self._look_for_stale(self._put_off, entrypoints)
        look = self._waiting.look if self._can_be_told else "again"
        ((due, oldest, own),) = await self._rows(
            statement("lease/next_due", self._settings, look), list(entrypoints)
        )
        self._promotion.looked(due)
        return Rest(due, self._waiting.look_again(oldest, own) if self._can_be_told else None)

    async def leave(self, owner: QueueManagerId) -> None:
        """*owner* waits for nothing any more."""
        await self._waiting.end(owner)
