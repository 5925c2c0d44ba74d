"""What dashboards, the command line and the MCP server ask of a queue, and do to it.

Both services work on anything with the repository's methods: ``Queries``, ``InMemoryQueries``.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from pgq_fast import models, types
from pgq_fast.repository import InsightsRepositoryPort, QueueRepositoryPort

__all__ = ["InsightsService", "QueueManagementService"]

DEFAULT_WINDOW: Final = timedelta(hours=1)
"""How far back to look where nothing is said."""

MAX_WINDOW: Final = timedelta(hours=24)
"""How far back to look at most: a dashboard must not scan the whole log."""

MIN_WINDOW: Final = timedelta(seconds=1)

DEFAULT_STALE_THRESHOLD: Final = timedelta(minutes=5)
"""Silence after which a picked job is worth a look."""

SPARKLINE_SLOTS: Final = 30

_ENDED: Final = frozenset({"successful", "exception", "canceled", "failed"})
_FAILED: Final = frozenset({"exception", "failed"})


def clamp_window(last: timedelta | None) -> timedelta:
    """*last* within one second and one day; one hour for None."""
    return DEFAULT_WINDOW if last is None else max(MIN_WINDOW, min(last, MAX_WINDOW))


@dataclasses.dataclass
class InsightsService:
    """Read-only views of a queue.

    ``last`` is everywhere the time to look back, one hour by default, one day at most.

    Attributes:
        repository: ``Queries``, ``InMemoryQueries`` or the like.
    """

    repository: InsightsRepositoryPort

    async def queue_size(self) -> list[models.QueueStatistics]:
        """Number of jobs by entrypoint, priority and status."""
        return await self.repository.queue_size()

    async def queue_age(self) -> list[models.QueueAgeStats]:
        """Age of the queued jobs, by entrypoint."""
        return await self.repository.queue_age()

    async def job_durations(self, last: timedelta | None = None) -> list[models.JobDurationStats]:
        """Percentiles of the run times, by entrypoint, slowest first."""
        return await self.repository.job_duration_percentiles(clamp_window(last))

    async def throughput(self, last: timedelta | None = None) -> list[models.ThroughputStats]:
        """Status changes by entrypoint and status."""
        return await self.repository.throughput_summary(clamp_window(last))

    async def throughput_timeseries(
        self, last: timedelta | None = None
    ) -> list[models.ThroughputBucket]:
        """Status changes by minute, entrypoint and status."""
        return await self.repository.throughput_timeseries(clamp_window(last))

    async def active_workers(self) -> list[models.ActiveWorker]:
        """Workers that hold picked jobs."""
        return await self.repository.active_workers()

    async def stale_jobs(
        self, threshold: timedelta | None = None, limit: int = 100
    ) -> list[models.StaleJob]:
        """Picked jobs without a heartbeat for *threshold*, by default five minutes."""
        if threshold is None:
            threshold = DEFAULT_STALE_THRESHOLD
        return await self.repository.stale_jobs(threshold, limit)

    async def exception_logs(self, limit: int = 100) -> list[models.Log]:
        """The newest log rows with status ``exception``."""
        return await self.repository.exception_logs(limit)

    async def failed_jobs(self, limit: int = 100) -> list[models.Job]:
        """Held jobs, the newest first."""
        return await self.repository.list_failed_jobs(limit)

    async def browse_queue(
        self,
        limit: int = 50,
        offset: int = 0,
        statuses: list[types.JOB_STATUS] | None = None,
        entrypoints: list[str] | None = None,
    ) -> list[models.Job]:
        """A page of the queue, highest priority first, then oldest."""
        return await self.repository.browse_queue(limit, offset, statuses, entrypoints)

    async def job(self, id: types.JobId) -> models.Job | None:
        """The job, if it is still on the queue."""
        return await self.repository.queue_job_by_id(id)

    async def job_history(self, id: types.JobId) -> list[models.Log]:
        """The job's status changes, oldest first."""
        return await self.repository.job_log_history(id)

    async def schedules(self) -> list[models.Schedule]:
        """All schedules."""
        return await self.repository.peek_schedule()

    async def schema_info(self) -> list[models.TableInfo]:
        """Size of each of the queue's tables."""
        return await self.repository.schema_info()

    async def unaggregated_log_count(self) -> int:
        """Number of log rows that the statistics do not count yet."""
        return await self.repository.unaggregated_log_count()

    async def overview(self, last: timedelta | None = None) -> models.OverviewSnapshot:
        """The queue in six numbers; only ``exceptions_recent`` depends on *last*."""
        by_status: Counter[types.JOB_STATUS] = Counter()
        for group in await self.repository.queue_size():
            by_status[group.status] += group.count
        ages = await self.repository.queue_age()
        workers = await self.repository.active_workers()
        throughput = await self.repository.throughput_summary(clamp_window(last))
        return models.OverviewSnapshot(
            queued_total=by_status["queued"],
            picked_total=by_status["picked"],
            failed_total=by_status["failed"],
            active_workers=len(workers),
            oldest_queued_age_seconds=max((age.oldest_age_seconds for age in ages), default=None),
            exceptions_recent=sum(
                change.total_count for change in throughput if change.status == "exception"
            ),
        )

    async def entrypoint_stats(self, last: timedelta | None = None) -> list[models.EntrypointStat]:
        """One row for each entrypoint that the queue or the recent past knows, by name.

        ``failure_rate`` is the part of ended jobs that raised or are held; None if none ended.
        ``sparkline`` counts ended jobs in 30 equal parts of the window, the last of which ends
        with the newest minute that saw any.
        """
        window = clamp_window(last)
        depth: Counter[tuple[str, types.JOB_STATUS]] = Counter()
        for group in await self.repository.queue_size():
            depth[group.entrypoint, group.status] += group.count
        ages = {age.entrypoint: age for age in await self.repository.queue_age()}
        durations = {
            duration.entrypoint: duration
            for duration in await self.repository.job_duration_percentiles(window)
        }
        changes: Counter[tuple[str, types.JOB_STATUS]] = Counter()
        for change in await self.repository.throughput_summary(window):
            changes[change.entrypoint, change.status] += change.total_count
        minutes: defaultdict[str, list[models.ThroughputBucket]] = defaultdict(list)
        for minute in await self.repository.throughput_timeseries(window):
            if minute.status in _ENDED:
                minutes[minute.entrypoint].append(minute)

        known = {entrypoint for entrypoint, _ in (*depth, *changes)} | {*ages, *durations}
        stats: list[models.EntrypointStat] = []
        for entrypoint in sorted(known):
            age = ages.get(types.QueueEntrypoint(entrypoint))
            duration = durations.get(types.QueueEntrypoint(entrypoint))
            ended = _total(changes, entrypoint, _ENDED)
            stats.append(
                models.EntrypointStat(
                    entrypoint=types.QueueEntrypoint(entrypoint),
                    queued=depth[entrypoint, "queued"],
                    picked=depth[entrypoint, "picked"],
                    oldest_age_seconds=None if age is None else age.oldest_age_seconds,
                    p50_seconds=None if duration is None else duration.p50_seconds,
                    p95_seconds=None if duration is None else duration.p95_seconds,
                    p99_seconds=None if duration is None else duration.p99_seconds,
                    completed=0 if duration is None else duration.completed,
                    failure_rate=_total(changes, entrypoint, _FAILED) / ended if ended else None,
                    sparkline=sparkline(minutes[entrypoint], window),
                )
            )
        return stats


def _total(
    changes: Counter[tuple[str, types.JOB_STATUS]], entrypoint: str, statuses: Iterable[str]
) -> int:
    return sum(
        count
        for (name, status), count in changes.items()
        if name == entrypoint and status in statuses
    )


def sparkline(
    minutes: list[models.ThroughputBucket], window: timedelta, slots: int = SPARKLINE_SLOTS
) -> list[int]:
    """Counts of *minutes* in *slots* equal parts of the *window* that ends with the newest one."""
    counts = [0] * slots
    if not minutes:
        return counts
    start = max(minute.bucket for minute in minutes) - window
    for minute in minutes:
        # The newest minute falls on the end. One that began before the window did, because it is
        # cut to the minute, belongs to the first part.
        place = int((minute.bucket - start) / window * slots)
        counts[min(max(place, 0), slots - 1)] += minute.count
    return counts


@dataclasses.dataclass
class QueueManagementService:
    """What people do to jobs by hand.

    Attributes:
        repository: ``Queries``, ``InMemoryQueries`` or the like.
    """

    repository: QueueRepositoryPort

    async def requeue(self, ids: list[types.JobId]) -> None:
        """Make held ``failed`` jobs due again; leave all others alone."""
        await self.repository.requeue_jobs(ids)

    async def cancel(self, ids: list[types.JobId]) -> None:
        """Take jobs off the queue as ``canceled`` and tell the workers that run them."""
        await self.repository.mark_job_as_cancelled(ids)
