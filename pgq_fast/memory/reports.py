"""Views of the queue and its log for dashboards: what PostgreSQL computes with GROUP BY.

Functions of the stores and the current time; none changes anything.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, get_args

from pgq_fast import models
from pgq_fast.memory.journal import Bucket, Entry, Journal
from pgq_fast.memory.lane import JobRow
from pgq_fast.types import JOB_STATUS, JobId, QueueEntrypoint, QueueManagerId

_ENDED: Final = frozenset({"successful", "exception", "canceled", "failed"})
# PostgreSQL sorts an enum by the order of its labels.
_STATUS_ORDER: Final = {status: place for place, status in enumerate(get_args(JOB_STATUS))}


def queue_size(rows: Iterable[JobRow]) -> list[models.QueueStatistics]:
    """Number of jobs by entrypoint, priority and status; the smallest groups first."""
    counts = Counter((row.entrypoint, row.priority, row.status) for row in rows)
    return sorted(
        (
            models.QueueStatistics(
                count=count, entrypoint=entrypoint, priority=priority, status=status
            )
            for (entrypoint, priority, status), count in counts.items()
        ),
        key=lambda group: (
            group.count,
            group.entrypoint,
            group.priority,
            _STATUS_ORDER[group.status],
        ),
    )


def queue_age(rows: Iterable[JobRow], now: datetime) -> list[models.QueueAgeStats]:
    """Age of the queued jobs, by entrypoint."""
    created: defaultdict[QueueEntrypoint, list[datetime]] = defaultdict(list)
    for row in rows:
        if row.status == "queued":
            created[row.entrypoint].append(row.created)
    return [
        models.QueueAgeStats(
            entrypoint=entrypoint,
            queued_count=len(times),
            oldest_created=min(times),
            oldest_age_seconds=(now - min(times)).total_seconds(),
            avg_age_seconds=sum((now - time).total_seconds() for time in times) / len(times),
        )
        for entrypoint, times in sorted(created.items())
    ]


def durations(journal: Journal, since: datetime) -> list[models.JobDurationStats]:
    """Run times of jobs that were picked and ended after *since*, slowest entrypoint first."""
    seconds: defaultdict[QueueEntrypoint, list[float]] = defaultdict(list)
    for history in journal.by_job.values():
        recent = [entry for entry in history if entry.created > since]
        for before, after in itertools.pairwise(recent):
            if before.status == "picked" and after.status in _ENDED:
                seconds[after.entrypoint].append((after.created - before.created).total_seconds())
    return sorted(
        (
            models.JobDurationStats(
                entrypoint=entrypoint,
                completed=len(values),
                p50_seconds=percentile(sorted(values), 0.5),
                p95_seconds=percentile(sorted(values), 0.95),
                p99_seconds=percentile(sorted(values), 0.99),
                max_seconds=max(values),
            )
            for entrypoint, values in seconds.items()
        ),
        key=lambda stats: stats.p95_seconds,
        reverse=True,
    )


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The value at *fraction* (0 to 1) of sorted values, interpolated between neighbours."""
    place = (len(ordered) - 1) * fraction
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def throughput_summary(
    statistics: Counter[Bucket], since: datetime | None
) -> list[models.ThroughputStats]:
    """Status changes after *since* by entrypoint and status."""
    totals: Counter[tuple[QueueEntrypoint, JOB_STATUS]] = Counter()
    for bucket, count in statistics.items():
        if since is None or bucket.created > since:
            totals[bucket.entrypoint, bucket.status] += count
    return [
        models.ThroughputStats(entrypoint=entrypoint, status=status, total_count=count)
        for (entrypoint, status), count in sorted(totals.items())
    ]


def throughput_timeseries(
    statistics: Counter[Bucket], since: datetime
) -> list[models.ThroughputBucket]:
    """Status changes after *since* by minute, entrypoint and status."""
    counts: Counter[tuple[datetime, QueueEntrypoint, JOB_STATUS]] = Counter()
    for bucket, count in statistics.items():
        if bucket.created > since:
            minute = bucket.created.replace(second=0)
            counts[minute, bucket.entrypoint, bucket.status] += count
    return [
        models.ThroughputBucket(bucket=minute, entrypoint=entrypoint, status=status, count=count)
        for (minute, entrypoint, status), count in sorted(counts.items())
    ]


def log_statistics(
    statistics: Counter[Bucket], since: datetime | None, limit: int | None
) -> list[models.LogStatistics]:
    """The counts after *since*, the latest bucket first."""
    newest = [
        models.LogStatistics(
            count=count,
            created=bucket.created,
            entrypoint=bucket.entrypoint,
            priority=bucket.priority,
            status=bucket.status,
        )
        for bucket, count in reversed(statistics.items())
        if since is None or bucket.created > since
    ]
    return newest[:limit]


def active_workers(rows: Iterable[JobRow]) -> list[models.ActiveWorker]:
    """Workers that hold picked jobs."""
    held: defaultdict[QueueManagerId, list[JobRow]] = defaultdict(list)
    for row in rows:
        if row.status == "picked" and row.queue_manager_id is not None:
            held[row.queue_manager_id].append(row)
    return [
        models.ActiveWorker(
            queue_manager_id=worker,
            active_jobs=len(jobs),
            oldest_heartbeat=min(job.heartbeat for job in jobs),
            newest_heartbeat=max(job.heartbeat for job in jobs),
            entrypoints=sorted({job.entrypoint for job in jobs}),
        )
        for worker, jobs in sorted(held.items())
    ]


def stale_jobs(
    rows: Iterable[JobRow], threshold: timedelta, limit: int | None, now: datetime
) -> list[models.StaleJob]:
    """Picked jobs without a heartbeat for longer than *threshold*, the most silent first."""
    cutoff = now - threshold
    stale = [row for row in rows if row.status == "picked" and row.heartbeat < cutoff]
    stale.sort(key=lambda row: row.heartbeat)
    return [
        models.StaleJob(
            id=JobId(row.id),
            priority=row.priority,
            queue_manager_id=row.queue_manager_id,
            created=row.created,
            updated=row.updated,
            heartbeat=row.heartbeat,
            execute_after=row.execute_after,
            status=row.status,
            entrypoint=row.entrypoint,
            seconds_since_heartbeat=(now - row.heartbeat).total_seconds(),
        )
        for row in stale[:limit]
    ]


def newest_exceptions(entries: Sequence[Entry], limit: int | None) -> list[models.Log]:
    """The latest *limit* log rows with status ``exception``."""
    found: list[models.Log] = []
    for entry in reversed(entries):
        if limit is not None and len(found) >= limit:
            break
        if entry.status == "exception":
            found.append(entry.to_model())
    return found


def browse(
    rows: Iterable[JobRow],
    limit: int | None,
    offset: int,
    statuses: Collection[JOB_STATUS] | None,
    entrypoints: Collection[str] | None,
) -> list[JobRow]:
    """A page of jobs, highest priority first, then oldest; an empty filter lets all through."""
    chosen = [
        row
        for row in rows
        if (not statuses or row.status in statuses)
        and (not entrypoints or row.entrypoint in entrypoints)
    ]
    chosen.sort(key=lambda row: row.rank)
    return chosen[offset:][:limit]
