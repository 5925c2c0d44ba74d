"""What workers, schedulers and front ends expect of the place where jobs are kept.

``Queries`` (PostgreSQL) and ``InMemoryQueries`` (no database) both have these methods; any class
that has them will do.
"""

from __future__ import annotations

import dataclasses
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, Protocol, overload, runtime_checkable

from pgq_fast import models, types
from pgq_fast.drivers.base import Driver
from pgq_fast.types import (
    CronEntrypoint,
    HealthCheckId,
    OnConflict,
    QueueEntrypoint,
    QueueManagerId,
    SortOrder,
)

if TYPE_CHECKING:
    from pgq_fast.settings import DBSettings

__all__ = [
    "EndsPort",
    "EntrypointExecutionParameter",
    "InsightsRepositoryPort",
    "NotificationPort",
    "QueryBuilderEnvironmentPort",
    "QueueRepositoryPort",
    "RepositoryPort",
    "ScheduleRepositoryPort",
    "SchemaManagementPort",
]


class QueryBuilderEnvironmentPort(Protocol):
    """Whatever knows the names of the queue's database objects."""

    settings: DBSettings


@dataclasses.dataclass
class EntrypointExecutionParameter:
    """How a worker asks for the jobs of an entrypoint.

    Attributes:
        concurrency_limit: How many of its jobs all workers together may hold; 0 for no limit.
    """

    concurrency_limit: int


class QueueRepositoryPort(Protocol):
    """The jobs and their log."""

    async def dequeue(
        self,
        batch_size: int,
        entrypoints: dict[QueueEntrypoint, EntrypointExecutionParameter],
        queue_manager_id: QueueManagerId,
        global_concurrency_limit: int | None,
        heartbeat_timeout: timedelta,
    ) -> list[models.Job]:
        """Claim jobs: due ones, and picked ones whose heartbeat is older than the timeout.

        Args:
            batch_size: The most jobs to claim, at least 1.
            entrypoints: What the worker can run, with the limit of each.
            queue_manager_id: The worker; the claimed jobs are its own from now on.
            global_concurrency_limit: The most jobs the worker may hold at a time; None for any
                number.
            heartbeat_timeout: Silence after which a picked job counts as abandoned.

        Raises:
            ValueError: *batch_size* is below 1.
        """
        ...

    @overload
    async def enqueue(
        self,
        entrypoint: str,
        payload: bytes | None,
        priority: int = 0,
        execute_after: timedelta | None = None,
        dedupe_key: str | None = None,
        headers: dict[str, str] | None = None,
        *,
        on_conflict: Literal["raise", "update_priority"] = "raise",
    ) -> list[types.JobId]: ...

    @overload
    async def enqueue(
        self,
        entrypoint: str,
        payload: bytes | None,
        priority: int = 0,
        execute_after: timedelta | None = None,
        dedupe_key: str | None = None,
        headers: dict[str, str] | None = None,
        *,
        on_conflict: Literal["skip"],
    ) -> list[types.JobId | None]: ...

    @overload
    async def enqueue(
        self,
        entrypoint: list[str],
        payload: list[bytes | None],
        priority: list[int],
        execute_after: list[timedelta | None] | None = None,
        dedupe_key: list[str | None] | None = None,
        headers: list[dict[str, str] | None] | None = None,
        *,
        on_conflict: Literal["raise", "update_priority"] = "raise",
    ) -> list[types.JobId]: ...

    @overload
    async def enqueue(
        self,
        entrypoint: list[str],
        payload: list[bytes | None],
        priority: list[int],
        execute_after: list[timedelta | None] | None = None,
        dedupe_key: list[str | None] | None = None,
        headers: list[dict[str, str] | None] | None = None,
        *,
        on_conflict: Literal["skip"],
    ) -> list[types.JobId | None]: ...

    async def enqueue(
        self,
        entrypoint: str | list[str],
        payload: bytes | list[bytes | None] | None,
        priority: int | list[int] = 0,
        execute_after: timedelta | list[timedelta | None] | None = None,
        dedupe_key: str | list[str | None] | None = None,
        headers: dict[str, str] | list[dict[str, str] | None] | None = None,
        *,
        on_conflict: OnConflict = "raise",
    ) -> list[types.JobId] | list[types.JobId | None]:
        """Add jobs and return their ids in order; None where ``"skip"`` left one out.

        Raises:
            DuplicateJobError: A dedupe key is taken, and *on_conflict* is ``"raise"``.
            ValueError: The arguments do not describe jobs.
        """
        ...

    async def log_jobs(
        self,
        job_status: list[
            tuple[
                models.Job,
                types.JOB_STATUS,
                models.TracebackRecord | None,
            ]
        ],
    ) -> None:
        """End jobs: each leaves the queue for the log; ``failed`` ones stay, held."""
        ...

    async def retry_job(
        self,
        job: models.Job,
        delay: timedelta,
        traceback_record: models.TracebackRecord | None,
    ) -> None:
        """Put a picked job back, due after *delay*, with ``attempts`` one higher."""
        ...

    async def requeue_jobs(self, ids: list[types.JobId]) -> None:
        """Make held ``failed`` jobs due again with ``attempts`` 0; leave all others alone."""
        ...

    async def list_failed_jobs(
        self, limit: int = 100, order: SortOrder = "DESC"
    ) -> list[models.Job]:
        """Held jobs by creation time."""
        ...

    async def clear_queue(self, entrypoint: str | list[str] | None = None) -> None:
        """Delete the jobs of *entrypoint*, logged as ``deleted``; without one all, unlogged."""
        ...

    async def queue_size(self) -> list[models.QueueStatistics]:
        """Number of jobs by entrypoint, priority and status."""
        ...

    async def mark_job_as_cancelled(self, ids: list[types.JobId]) -> None:
        """Take jobs off the queue as ``canceled`` and tell the workers that run them."""
        ...

    async def update_heartbeat(self, job_ids: list[types.JobId]) -> None:
        """Say that the jobs are still being worked on."""
        ...

    async def queued_work(self, entrypoints: list[QueueEntrypoint]) -> int:
        """Number of queued jobs, due or not."""
        ...

    async def eligible_queued_work(self, entrypoints: list[QueueEntrypoint]) -> int:
        """Number of queued jobs that are due."""
        ...

    async def queue_log(self) -> list[models.Log]:
        """The whole log."""
        ...

    async def aggregate_logs(self) -> None:
        """Count new log rows into the statistics."""
        ...

    async def log_statistics(
        self,
        limit: int | None,
        last: timedelta | None = None,
    ) -> list[models.LogStatistics]:
        """Count new log rows, then return the newest *limit* statistics of the *last* time."""
        ...

    async def job_status(
        self,
        ids: list[types.JobId],
    ) -> list[tuple[types.JobId, types.JOB_STATUS]]:
        """The latest logged status of each job that the log knows."""
        ...

    @property
    def driver(self) -> Driver:
        """The connection underneath."""
        ...

    async def clear_statistics_log(self, entrypoint: str | list[str] | None = None) -> None:
        """Delete the statistics of *entrypoint*, without one all of them."""
        ...

    async def next_deferred_eta(self, entrypoints: list[QueueEntrypoint]) -> timedelta | None:
        """Time until the next deferred job is due; None if there is none."""
        ...


class InsightsRepositoryPort(Protocol):
    """Read-only views for dashboards and monitoring."""

    async def queue_size(self) -> list[models.QueueStatistics]:
        """Number of jobs by entrypoint, priority and status."""
        ...

    async def queue_age(self) -> list[models.QueueAgeStats]:
        """Age of the queued jobs, by entrypoint."""
        ...

    async def job_duration_percentiles(
        self,
        last: timedelta,
    ) -> list[models.JobDurationStats]:
        """Run times of jobs that were picked and ended within the *last* time, slowest first."""
        ...

    async def throughput_summary(
        self,
        last: timedelta | None = None,
    ) -> list[models.ThroughputStats]:
        """Status changes by entrypoint and status; None looks back to the beginning."""
        ...

    async def throughput_timeseries(
        self,
        last: timedelta,
    ) -> list[models.ThroughputBucket]:
        """Status changes by minute, entrypoint and status."""
        ...

    async def log_statistics(
        self,
        limit: int | None,
        last: timedelta | None = None,
    ) -> list[models.LogStatistics]:
        """Count new log rows, then return the newest *limit* statistics of the *last* time."""
        ...

    async def active_workers(self) -> list[models.ActiveWorker]:
        """Workers that hold picked jobs."""
        ...

    async def stale_jobs(
        self,
        threshold: timedelta,
        limit: int = 100,
    ) -> list[models.StaleJob]:
        """Picked jobs without a heartbeat for longer than *threshold*, oldest first."""
        ...

    async def exception_logs(self, limit: int = 100) -> list[models.Log]:
        """The newest log rows with status ``exception``."""
        ...

    async def list_failed_jobs(
        self, limit: int = 100, order: SortOrder = "DESC"
    ) -> list[models.Job]:
        """Held jobs by creation time."""
        ...

    async def browse_queue(
        self,
        limit: int = 50,
        offset: int = 0,
        statuses: list[types.JOB_STATUS] | None = None,
        entrypoints: list[str] | None = None,
    ) -> list[models.Job]:
        """A page of the queue, highest priority first, then oldest."""
        ...

    async def queue_job_by_id(self, id: types.JobId) -> models.Job | None:
        """The job, if it is still on the queue."""
        ...

    async def job_log_history(
        self,
        id: types.JobId,
        limit: int = 100,
    ) -> list[models.Log]:
        """The job's status changes, oldest first."""
        ...

    async def unaggregated_log_count(self) -> int:
        """Number of log rows that the statistics do not count yet."""
        ...

    async def schema_info(self) -> list[models.TableInfo]:
        """Size of each of the queue's tables."""
        ...

    async def peek_schedule(self) -> list[models.Schedule]:
        """All schedules, untouched."""
        ...


class ScheduleRepositoryPort(Protocol):
    """The cron schedules."""

    async def insert_schedule(
        self,
        schedules: dict[models.CronExpressionEntrypoint, timedelta],
    ) -> None:
        """Register schedules with the time until their first run; known ones stay as they are."""
        ...

    async def fetch_schedule(
        self,
        entrypoints: dict[models.CronExpressionEntrypoint, timedelta],
    ) -> list[models.Schedule]:
        """Claim due schedules; each value is the time until the run after this one."""
        ...

    async def set_schedule_queued(self, ids: set[types.ScheduleId]) -> None:
        """Give schedules back after a run."""
        ...

    async def update_schedule_heartbeat(self, ids: set[types.ScheduleId]) -> None:
        """Say that the schedules' runs are still going on."""
        ...

    async def peek_schedule(self) -> list[models.Schedule]:
        """All schedules, untouched."""
        ...

    async def delete_schedule(
        self,
        ids: set[types.ScheduleId],
        entrypoints: set[CronEntrypoint],
    ) -> None:
        """Forget the schedules with one of *ids* or one of *entrypoints*."""
        ...

    async def clear_schedule(self) -> None:
        """Forget all schedules."""
        ...


class NotificationPort(Protocol):
    """Messages between the processes that share a queue."""

    async def notify_job_cancellation(self, ids: list[types.JobId]) -> None:
        """Ask the workers that run the jobs to cancel them."""
        ...

    async def notify_health_check(self, health_check_event_id: HealthCheckId) -> None:
        """Send a message that comes back to every listener, the sender included."""
        ...


@runtime_checkable
class EndsPort(Protocol):
    """A repository that does not tell of ends of jobs unless somebody wants to know."""

    async def watch_ends(
        self, watcher: uuid.UUID, for_: timedelta, since: int | None = None
    ) -> int | None:
        """Have the ends of jobs notified for the time *for_*; to be repeated before that is over.

        Args:
            watcher: Any id.
            for_: So long from now.
            since: What the call before returned.

        Returns:
            None: every end is notified from now on. Else some that are under way may still go by in
            silence: look at the jobs, and call again soon. If the first call returns None, every
            end is notified anyway, and there is nothing to repeat.
        """
        ...

    async def unwatch_ends(self, watcher: uuid.UUID) -> None:
        """Take that back."""
        ...


class SchemaManagementPort(Protocol):
    """The database objects underneath."""

    @property
    def qbe(self) -> QueryBuilderEnvironmentPort:
        """Where the objects' names come from."""
        ...

    async def install(self) -> None:
        """Create them."""
        ...

    async def uninstall(self) -> None:
        """Drop them with everything in them."""
        ...

    async def upgrade(self) -> None:
        """Bring those of an older version up to date."""
        ...

    async def has_table(self, table: str) -> bool:
        """Whether the table is there."""
        ...

    async def table_has_column(self, table: str, column: str) -> bool:
        """Whether the table has the column."""
        ...

    async def table_has_index(self, table: str, index: str) -> bool:
        """Whether the table has the index."""
        ...

    async def has_user_defined_enum(self, key: str, enum: str) -> bool:
        """Whether *key* is a label of the enum type *enum*."""
        ...

    async def has_function(self, function: str) -> bool:
        """Whether the function is there."""
        ...

    async def has_trigger(self, trigger: str) -> bool:
        """Whether the trigger is there."""
        ...


class RepositoryPort(
    QueueRepositoryPort,
    ScheduleRepositoryPort,
    NotificationPort,
    SchemaManagementPort,
    Protocol,
):
    """Everything that a ``PgQueuer`` needs."""
