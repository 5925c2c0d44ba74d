"""Measuring a worker for its observer.

Nothing of this is in the way of a worker without one: statements are timed by a layer around the
worker's layout, and runs by a layer around the handlers.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from pgq_fast.errors import retry_request
from pgq_fast.layouts.base import Claim, Outcome, Rest, Retry, WorkerLayout
from pgq_fast.logconfig import logger
from pgq_fast.models import Context, Job
from pgq_fast.observer import RunOutcome, WorkerObserver
from pgq_fast.types import JobId, QueueEntrypoint, QueueManagerId


class RunEnds(Protocol):
    """What a dispatcher knows of the end of a run."""

    def cancels(self, error: BaseException) -> bool:
        """Whether *error*, which no handler should hold back, is the job's end as canceled."""
        ...

    def is_canceled(self, job: Job) -> bool:
        """Whether *job*, whose handler has returned, was canceled all the same."""
        ...


class Observation:
    """Tells *observer* what happens in one run of a worker, a batch at a time.

    Args:
        observer: Whom; when it raises it is told no more.
    """

    def __init__(self, observer: WorkerObserver) -> None:
        self._observer = observer
        self._failed = False
        # Run times that the observer has not been told. The lists stay the same ones.
        self._seconds: dict[tuple[QueueEntrypoint, RunOutcome], list[float]] = {}

    def timed(
        self,
        entrypoint: QueueEntrypoint,
        call: Callable[..., Awaitable[None]],
        takes_context: bool,
        contexts: Mapping[JobId, Context],
        ends: RunEnds,
    ) -> Callable[..., Awaitable[None]]:
        """*call*, which runs a job of *entrypoint*, with its time taken.

        Args:
            entrypoint: Of the jobs.
            call: What is called with a job, and with its context if *takes_context* says so.
            takes_context: See *call*.
            contexts: Empty where no job waits: then none can have been canceled.
            ends: Knows of canceled jobs.
        """
        clock = time.perf_counter
        ended_well = self._seconds_of(entrypoint, "successful").append

        def failed(error: BaseException, began: float) -> None:
            if isinstance(error, Exception):
                outcome: RunOutcome = "exception" if retry_request(error) is None else "retried"
            else:
                outcome = "canceled" if ends.cancels(error) else "released"
            self._seconds_of(entrypoint, outcome).append(clock() - began)

        def returned(job: Job, began: float) -> None:
            outcome: RunOutcome = "canceled" if ends.is_canceled(job) else "successful"
            self._seconds_of(entrypoint, outcome).append(clock() - began)

        # Twice the same, as packing arguments would be a good part of the costs.
        async def run(job: Job) -> None:
            began = clock()
            try:
                await call(job)
            except BaseException as error:
                failed(error, began)
                raise
            if contexts:
                returned(job, began)
            else:
                ended_well(clock() - began)

        async def run_with_context(job: Job, context: Context) -> None:
            began = clock()
            try:
                await call(job, context)
            except BaseException as error:
                failed(error, began)
                raise
            returned(job, began)

        return run_with_context if takes_context else run

    def _seconds_of(self, entrypoint: QueueEntrypoint, outcome: RunOutcome) -> list[float]:
        return self._seconds.setdefault((entrypoint, outcome), [])

    def claimed(self, jobs: Sequence[Job], seconds: float) -> None:
        """A claim was answered."""
        self._tell(self._observer.claimed, jobs, seconds)

    def acknowledged(self, jobs: int, seconds: float) -> None:
        """Outcomes were taken; the runs that they are of are told too."""
        self._tell(self._observer.acknowledged, jobs, seconds)
        self.tell_runs()

    def tell_runs(self) -> None:
        """Tell of the runs that have ended since the last time."""
        for (entrypoint, outcome), waiting in self._seconds.items():
            if waiting:
                seconds = waiting.copy()
                waiting.clear()
                self._tell(self._observer.ran, entrypoint, outcome, seconds)

    def _tell(self, event: Callable[..., None], *arguments: object) -> None:
        if self._failed:
            return
        try:
            event(*arguments)
        except Exception as error:
            self._failed = True
            logger.error(
                "%s failed; it is not called again in this run of the worker",
                type(self._observer).__name__,
                exc_info=error,
            )


class ObservedLayout:
    """*layout*, with the statements that a worker waits for timed; see ``WorkerLayout``."""

    def __init__(self, layout: WorkerLayout, observation: Observation) -> None:
        self._layout = layout
        self._observation = observation
        self.can_release = layout.can_release
        self.can_end_in_claim = layout.can_end_in_claim

    async def claim(
        self,
        batch_size: int,
        limits: Mapping[QueueEntrypoint, int],
        owner: QueueManagerId,
        stale_after: timedelta | None,
        max_bytes: int,
        ending: Sequence[JobId] = (),
    ) -> Claim:
        """Told as a claim, and as an acknowledgement where it was one too."""
        began = time.perf_counter()
        claim = await self._layout.claim(batch_size, limits, owner, stale_after, max_bytes, ending)
        seconds = time.perf_counter() - began
        self._observation.claimed(claim.jobs, seconds)
        if ending:
            self._observation.acknowledged(len(ending), seconds)
        return claim

    async def finish(self, ids: Sequence[JobId], owner: QueueManagerId) -> None:
        """Told as an acknowledgement."""
        await self._acknowledge(len(ids), self._layout.finish(ids, owner))

    async def acknowledge(self, outcomes: Sequence[Outcome], owner: QueueManagerId) -> None:
        """Told as an acknowledgement."""
        await self._acknowledge(len(outcomes), self._layout.acknowledge(outcomes, owner))

    async def retry(self, retries: Sequence[Retry], owner: QueueManagerId) -> None:
        """Told as an acknowledgement."""
        await self._acknowledge(len(retries), self._layout.retry(retries, owner))

    async def _acknowledge(self, jobs: int, statement: Awaitable[None]) -> None:
        began = time.perf_counter()
        await statement
        self._observation.acknowledged(jobs, time.perf_counter() - began)

    async def heartbeat(self, ids: Sequence[JobId], owner: QueueManagerId) -> set[JobId]:
        """Not told."""
        return await self._layout.heartbeat(ids, owner)

    async def release(self, owner: QueueManagerId, keep: Sequence[JobId]) -> None:
        """Not told; but jobs that are given back have run, and nothing else ends them."""
        self._observation.tell_runs()
        await self._layout.release(owner, keep)

    async def rest(
        self,
        entrypoints: Sequence[QueueEntrypoint],
        owner: QueueManagerId,
        seats: bool,
        last: bool = False,
    ) -> Rest:
        """Not told."""
        return await self._layout.rest(entrypoints, owner, seats, last)

    async def leave(self, owner: QueueManagerId) -> None:
        """Not told."""
        await self._layout.leave(owner)

    def whole(self, ids: Sequence[JobId]) -> tuple[list[JobId], list[JobId]]:
        """As of the layout."""
        return self._layout.whole(ids)
