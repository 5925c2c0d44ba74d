"""What became of the jobs, on its way to the server.

The batcher does nothing but batch: whatever waits is sent in one go, one go at a time, and what
could not be sent waits again. Every statement is fenced and may be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from typing import Final, TypeGuard

from pgq_fast.drivers.failures import described, is_unsendable, sqlstate_of
from pgq_fast.errors import UnrecordableOutcomeError
from pgq_fast.layouts.base import Outcome, Retry, WorkerLayout
from pgq_fast.logconfig import logger
from pgq_fast.models import Job, TracebackRecord, utc_now
from pgq_fast.tasks import wait_for_event
from pgq_fast.types import JOB_STATUS, JobId, QueueEntrypoint, QueueManagerId
from pgq_fast.watchdog import Unanswered

ACK_ROWS: Final = 1000
"""Outcomes that are sent without further delay: beyond, a statement costs what its rows cost."""

RIDE_ROWS: Final = 10_000
"""The same where claims take outcomes along: more than these wait only if no claim comes."""

ACK_DELAY: Final = 0.1
"""Seconds that outcomes wait for company while claims come back full; nobody is idle then."""

COMPANY_DELAY: Final = 0.05
"""Seconds that outcomes wait for those of the same claim, where they share a row and nobody is in
a hurry: a claim with one slow job is written at most so often."""

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
"""Seconds between attempts while the server does not take outcomes."""

NEVER_AGAIN: Final = 2**31
"""More attempts than a job can have."""

PORTION_CHARACTERS: Final = 2**23
"""Of the tracebacks that one statement stores: all values of a statement together have less than a
gigabyte."""

CLOSING_ATTEMPTS: Final = 5
"""Attempts to send the last outcomes of a worker that stops."""


def _is_refusal(error: Exception) -> bool:
    """Whether a value cannot be stored, however often it is sent: it has no form that the driver
    could send, the server refuses it (SQLSTATE class 22), or it exceeds a limit of the server's
    (class 54).
    """
    code = sqlstate_of(error)
    return is_unsendable(error) if code is None else code.startswith(("22", "54"))


def is_attempts(value: object) -> TypeGuard[int]:
    """Whether the column can say that a job has had *value* attempts."""
    return isinstance(value, int) and -NEVER_AGAIN <= value < NEVER_AGAIN


def stand_in(job_id: JobId, owner: QueueManagerId, job: Job | None = None) -> Job:
    """What can take the place of a job in its outcome: of *job*, only what makes sense is kept."""
    known = {} if job is None else vars(job)
    attempts, entrypoint = known.get("attempts"), known.get("entrypoint")
    now = utc_now()
    return Job.model_construct(
        id=job_id,
        priority=0,
        created=now,
        updated=now,
        heartbeat=now,
        execute_after=now,
        status="picked",
        entrypoint=QueueEntrypoint(entrypoint if isinstance(entrypoint, str) else ""),
        payload=None,
        attempts=attempts if is_attempts(attempts) else 0,
        queue_manager_id=owner,
        headers=None,
    )


def _portions(items: Sequence[Outcome | Retry]) -> Iterator[list[Outcome | Retry]]:
    """*items* in statements' worth, as their tracebacks may be long."""
    portion: list[Outcome | Retry] = []
    characters = 0
    for item in items:
        size = 0
        if isinstance(item.record, TracebackRecord):
            size = len(item.record.exception_message) + len(item.record.traceback)
        if portion and characters + size > PORTION_CHARACTERS:
            yield portion
            portion, characters = [], 0
        characters += size
        portion.append(item)
    yield portion


class Acknowledger:
    """Collects outcomes and sends them in batches.

    Attributes:
        successes: Where whoever runs jobs puts the ids of those that were successful, followed by
            one ``notice`` for any number of them.
        noticed: Whether the last ones have been taken note of.

    Args:
        layout: Where they go.
        owner: The worker, which is the fence of every statement.
        retried: Called with the delay after which a job that was queued again may run.
        unanswered: Where those that are being sent are noted.
    """

    def __init__(
        self,
        layout: WorkerLayout,
        owner: QueueManagerId,
        retried: Callable[[timedelta], None],
        unanswered: Unanswered,
    ) -> None:
        self._layout = layout
        # Where claims take successes along, a statement of their own would only be in the way.
        self._rows_enough = RIDE_ROWS if layout.can_end_in_claim else ACK_ROWS
        self._owner = owner
        self._retried = retried
        self._unanswered = unanswered
        # Invariant: an outcome waits or is being sent until the server has it, never both. Of the
        # successful jobs, most of all, the ids suffice.
        self._waiting: list[Outcome | Retry] = []
        self.successes: list[JobId] = []
        self.noticed = False
        self._sending: list[Outcome | Retry] = []
        self._sending_ids: list[JobId] = []
        self._work = asyncio.Event()
        self._enough = asyncio.Event()
        self._turn = asyncio.Lock()
        self._patient = False
        self._rides = 0
        # Whether the last ride left outcomes behind that wait for others of their claim.
        self._left_behind = False

    def __len__(self) -> int:
        """Jobs whose outcomes wait."""
        return len(self._waiting) + len(self.successes)

    @property
    def only_successes(self) -> bool:
        """Whether nothing that the server does not know yet can queue a job again."""
        return not self._waiting and not self._sending

    def notice(self) -> None:
        """Take note of what was put into ``successes``; needless while ``noticed``, unless it is
        many.
        """
        count = len(self.successes)
        if count:
            self.noticed = True
            self._work.set()
            if count >= self._rows_enough:
                self._enough.set()

    def put(self, item: Outcome | Retry) -> None:
        """Take over an outcome; never blocks."""
        self._waiting.append(item)
        count = len(self._waiting)
        if count == 1:
            self._work.set()
        elif count == self._rows_enough:
            self._enough.set()

    async def add(self, item: tuple[Job, JOB_STATUS, TracebackRecord | None]) -> None:
        """As ``put``, for callers that bring a plain triple."""
        self.put(Outcome(*item))

    def set_patient(self, patient: bool) -> None:
        """Whether more outcomes are sure to come soon; if not, nothing waits."""
        self._patient = patient
        if not patient:
            self._enough.set()

    def runs(self) -> dict[JobId, int]:
        """The runs whose end is on its way: job and attempts.

        After a retry the id runs anew, with more attempts; after a success never again.
        """
        runs = dict.fromkeys((*self.successes, *self._sending_ids), NEVER_AGAIN)
        for item in (*self._waiting, *self._sending):
            runs[item.job.id] = item.job.attempts
        return runs

    async def run(self) -> None:
        """Send until cancelled."""
        pause = FIRST_PAUSE
        while True:
            await self._work.wait()
            if self._patient and len(self) < self._rows_enough:
                self._enough.clear()
                rides = self._rides
                if (
                    not await wait_for_event(self._enough, ACK_DELAY)
                    and self._rides > rides
                    and not self._waiting
                    and not self._left_behind
                ):
                    # Claims take the successes along; what waits now waits for the next one.
                    continue
            elif not self._waiting and not self._layout.whole(self.successes)[0]:
                self._enough.clear()
                await wait_for_event(self._enough, COMPANY_DELAY)
            try:
                await self._send_waiting()
                pause = FIRST_PAUSE
            except Exception as error:
                logger.error(
                    "Could not acknowledge %d job(s), next attempt in %.1f s: %s",
                    len(self),
                    pause,
                    described(error),
                )
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def flush(self) -> None:
        """Send what waits, and what comes meanwhile; what cannot be sent waits again.

        Raises:
            Exception: What the driver raised.
        """
        while len(self) or self._turn.locked():
            await self._send_waiting()

    async def _send_waiting(self) -> None:
        async with self._turn:
            self._sending, self._waiting = self._waiting, []
            self._take_successes()
            self._work.clear()
            try:
                with self._unanswered.asking():
                    if self._sending_ids:
                        await self._layout.finish(self._sending_ids, self._owner)
                        self._sending_ids = []
                    if self._sending:
                        await self._send()
            except BaseException:
                self._waiting[:0] = self._sending
                self.successes[:0] = self._sending_ids
                self._work.set()
                raise
            finally:
                self._sending = []
                self._sending_ids = []

    @contextlib.asynccontextmanager
    async def riding(self) -> AsyncIterator[Sequence[JobId]]:
        """The successes that wait, for a statement in the block that ends them on its way.

        None where they had better go by themselves: others are being sent right now, or the layout
        has no such statement. Where the block fails, they wait again.
        """
        if not (self.successes and self._layout.can_end_in_claim) or self._turn.locked():
            yield ()
            return
        async with self._turn:
            self._rides += 1
            self._sending_ids, rest = self._layout.whole(self.successes)
            self._left_behind = bool(rest)
            # Not another list: the present one is known elsewhere.
            self.successes[:] = rest
            self.noticed = self._left_behind
            if not self._waiting and not rest:
                self._work.clear()
            try:
                with self._unanswered.asking():
                    yield self._sending_ids
            except BaseException:
                self.successes[:0] = self._sending_ids
                self._work.set()
                raise
            finally:
                self._sending_ids = []

    def _take_successes(self) -> None:
        # Not another list: the present one is known elsewhere.
        self._sending_ids = self.successes.copy()
        self.successes.clear()
        self.noticed = False

    async def close(self) -> bool:
        """Send the last outcomes; False if the server did not take them."""
        for attempt in range(CLOSING_ATTEMPTS):
            try:
                await self.flush()
            except Exception as error:
                logger.warning("Could not acknowledge %d job(s): %s", len(self), described(error))
                await asyncio.sleep(FIRST_PAUSE * 2**attempt)
            else:
                return True
        return False

    async def _send(self) -> None:
        """Send what is being sent; what the server has is no longer in it."""
        waiting: list[Outcome | Retry] = []
        failure: Exception | None = None
        for portion in list(_portions(self._sending)):
            try:
                await self._send_together(portion)
            except Exception as error:
                if not _is_refusal(error):
                    raise
                # The others must not wait for one that cannot be stored.
                for item in portion:
                    try:
                        await self._send_alone(item)
                    except Exception as problem:
                        if not _is_refusal(problem):
                            raise
                        waiting.append(item)
                        failure = problem
        self._sending = waiting
        if failure is not None:
            raise failure

    async def _send_together(self, items: Sequence[Outcome | Retry]) -> None:
        outcomes = [item for item in items if isinstance(item, Outcome)]
        if outcomes:
            await self._layout.acknowledge(outcomes, self._owner)
        if len(outcomes) < len(items):
            retries = [item for item in items if isinstance(item, Retry)]
            await self._layout.retry(retries, self._owner)
            self._retried(min(retry.delay for retry in retries))

    async def _send_alone(self, item: Outcome | Retry) -> None:
        """Send *item* in the first of these forms that can be stored: as it is, without its record,
        as the failure that it cannot be recorded.
        """
        job = item.job
        facts = {"job_id": job.id, "entrypoint": job.entrypoint}
        try:
            await self._send_together([item])
            return
        except Exception as error:
            if not _is_refusal(error):
                raise
            problem = error
        if item.record is not None:
            try:
                await self._send_together([item._replace(record=None)])
            except Exception as error:
                if not _is_refusal(error):
                    raise
                problem = error
            else:
                logger.error(
                    "The traceback record of job %s cannot be stored, it is logged without: %s",
                    job.id,
                    described(problem),
                    extra=facts,
                )
                return
        logger.error(
            "How job %s ended cannot be stored, it ends as an exception: %s",
            job.id,
            described(problem),
            extra=facts,
        )
        record = TracebackRecord.from_exception(
            UnrecordableOutcomeError(type(problem).__name__), job.id
        )
        plain = Outcome(stand_in(job.id, self._owner, job), "exception", record)
        await self._send_together([plain])
