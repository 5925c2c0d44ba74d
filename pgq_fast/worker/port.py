"""Any repository as the place where a worker's jobs are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Protocol, runtime_checkable

from pgq_fast.builders import settings_of
from pgq_fast.choices import Layout
from pgq_fast.layouts.base import Claim, Outcome, Rest, Retry, WorkerLayout
from pgq_fast.models import Job
from pgq_fast.repository import EntrypointExecutionParameter, QueueRepositoryPort
from pgq_fast.types import JobId, QueueEntrypoint, QueueManagerId

LONG_AGO = timedelta(days=36500)

UNHEARD = timedelta(milliseconds=250)
"""Between two looks at a queue that need not tell of its jobs."""


@runtime_checkable
class HasWorkerLayout(Protocol):
    """A repository that knows a quicker way than the methods of its port."""

    def worker_layout(self) -> WorkerLayout | None:
        """That way; None where it would pass something by that the user changed."""
        ...


class PortLayout:
    """:class:`~pgq_fast.layouts.base.WorkerLayout` in terms of the public repository protocol.

    The port cannot give a job back as it was, so ``can_release`` is False and a worker runs what it
    has claimed.
    """

    can_release = False
    can_end_in_claim = False

    def __init__(self, queries: QueueRepositoryPort, *, gated: bool) -> None:
        self.queries = queries
        # Whether notifications are sent only to those who wait, which the port cannot say.
        self.gated = gated
        # The port wants to see the job that ended, so it is kept from claim to end.
        self._claimed: dict[JobId, Job] = {}

    async def claim(
        self,
        batch_size: int,
        limits: Mapping[QueueEntrypoint, int],
        owner: QueueManagerId,
        stale_after: timedelta | None,
        max_bytes: int,
        ending: Sequence[JobId] = (),
    ) -> Claim:
        """One ``dequeue``; it always looks for stale jobs, so "not this time" is "very stale".

        The port knows nothing of sizes: *max_bytes* is not heeded.
        """
        if ending:
            await self.finish(ending, owner)
        jobs = await self.queries.dequeue(
            batch_size=batch_size,
            entrypoints={
                name: EntrypointExecutionParameter(concurrency_limit=limit)
                for name, limit in limits.items()
            },
            queue_manager_id=owner,
            global_concurrency_limit=None,
            heartbeat_timeout=LONG_AGO if stale_after is None else stale_after,
        )
        self._claimed.update((job.id, job) for job in jobs)
        # Where another worker's rescue queues jobs again, any claim may bring them back.
        return Claim(jobs, known=True)

    async def finish(self, ids: Sequence[JobId], owner: QueueManagerId) -> None:
        """One ``log_jobs``."""
        await self.queries.log_jobs([(self._claimed[id_], "successful", None) for id_ in ids])
        self._forget(ids)

    async def acknowledge(self, outcomes: Sequence[Outcome], owner: QueueManagerId) -> None:
        """One ``log_jobs``."""
        await self.queries.log_jobs([(job, status, record) for job, status, record in outcomes])
        self._forget([outcome.job.id for outcome in outcomes])

    def _forget(self, ids: Sequence[JobId]) -> None:
        for job_id in ids:
            self._claimed.pop(job_id, None)

    async def retry(self, retries: Sequence[Retry], owner: QueueManagerId) -> None:
        """A ``retry_job`` each."""
        for job, delay, record in retries:
            # First: once it is queued again, another claim may bring it back.
            self._forget([job.id])
            await self.queries.retry_job(job, delay, record)

    async def heartbeat(self, ids: Sequence[JobId], owner: QueueManagerId) -> set[JobId]:
        """One ``update_heartbeat``; the port does not tell which jobs changed hands."""
        await self.queries.update_heartbeat(list(ids))
        return set(ids)

    async def release(self, owner: QueueManagerId, keep: Sequence[JobId]) -> None:
        """Nothing: see the class."""

    async def rest(
        self,
        entrypoints: Sequence[QueueEntrypoint],
        owner: QueueManagerId,
        seats: bool,
        last: bool = False,
    ) -> Rest:
        """Three probes; the last one closes the gap in which a job becomes due between them."""
        names = list(entrypoints)
        due: timedelta | None = timedelta(0)
        if not await self.queries.eligible_queued_work(names):
            due = await self.queries.next_deferred_eta(names)
            if due is None and await self.queries.queued_work(names):
                due = timedelta(0)
        return Rest(due, UNHEARD if self.gated else None)

    async def leave(self, owner: QueueManagerId) -> None:
        """Nothing to do."""

    def whole(self, ids: Sequence[JobId]) -> tuple[list[JobId], list[JobId]]:
        """All of *ids*."""
        return [*ids], []


def worker_layout(queries: QueueRepositoryPort) -> WorkerLayout:
    """The quickest way to *queries* that a worker can take."""
    layout = queries.worker_layout() if isinstance(queries, HasWorkerLayout) else None
    if layout is not None:
        return layout
    settings = settings_of(queries)
    gated = settings is not None and settings.layout is Layout.lease
    return PortLayout(queries, gated=gated)
