"""``Queries`` without a database."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Literal, overload

from pydantic_core import from_json, to_json

from pgq_fast import arguments, enqueue as enqueue_parameters, messages, models, types
from pgq_fast.builders import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgq_fast.memory import reports
from pgq_fast.memory.driver import InMemoryDriver
from pgq_fast.memory.jobs import JobStore
from pgq_fast.memory.journal import Journal
from pgq_fast.memory.lane import JobRow
from pgq_fast.memory.schedules import ScheduleStore
from pgq_fast.models import utc_now
from pgq_fast.repository import EntrypointExecutionParameter
from pgq_fast.tracing import TRACER, TracingProtocol
from pgq_fast.types import (
    CronEntrypoint,
    HealthCheckId,
    JobId,
    OnConflict,
    QueueEntrypoint,
    QueueManagerId,
    ScheduleId,
    SortOrder,
)


@dataclasses.dataclass
class InMemoryQueries:
    """The methods of ``Queries`` on data kept in this object.

    Each call is one step that no other task can see half-done, and notifies listeners on the
    driver as the database would. Two differences: a retry and a requeue notify, too, and
    :meth:`queued_work` and :meth:`eligible_queued_work` count exactly.

    Attributes:
        driver: Carries the notifications.
        qbe: Names of the database objects; of use here is only the channel.
        qbq: The same.
        qbs: The same.
        tracer: Adds headers to enqueued jobs; None for the one set by ``set_tracing_class``.
    """

    driver: InMemoryDriver
    qbe: QueryBuilderEnvironment = dataclasses.field(default_factory=QueryBuilderEnvironment)
    qbq: QueryQueueBuilder = dataclasses.field(default_factory=QueryQueueBuilder)
    qbs: QuerySchedulerBuilder = dataclasses.field(default_factory=QuerySchedulerBuilder)
    tracer: TracingProtocol | None = None

    _jobs: JobStore = dataclasses.field(default_factory=JobStore, init=False, repr=False)
    _journal: Journal = dataclasses.field(default_factory=Journal, init=False, repr=False)
    _schedules: ScheduleStore = dataclasses.field(
        default_factory=ScheduleStore, init=False, repr=False
    )

    # --- Schema: there is none, so everything that is asked for is there.

    async def install(self, create_schema: bool = True) -> None:
        """Do nothing: there is nothing to create."""

    async def upgrade(self) -> None:
        """Do nothing: there is nothing to upgrade."""

    async def uninstall(self) -> None:
        """Forget everything."""
        self._jobs.truncate()
        self._journal.clear_log(None)
        self._journal.clear_statistics(None)
        self._schedules.truncate()

    async def has_table(self, table: str) -> bool:
        """Return True."""
        return True

    async def table_has_column(self, table: str, column: str) -> bool:
        """Return True."""
        return True

    async def table_has_index(self, table: str, index: str) -> bool:
        """Return True."""
        return True

    async def has_user_defined_enum(self, key: str, enum: str) -> bool:
        """Return True."""
        return True

    async def has_function(self, function: str) -> bool:
        """Return True."""
        return True

    async def has_trigger(self, trigger: str) -> bool:
        """Return True."""
        return True

    async def schema_info(self) -> list[models.TableInfo]:
        """Number of rows that each of the tables would have."""
        settings = self.qbq.settings
        sizes = {
            settings.queue_table: len(self._jobs.rows),
            settings.queue_table_log: len(self._journal.entries),
            settings.statistics_table: len(self._journal.statistics),
            settings.schedules_table: len(self._schedules),
        }
        return [
            models.TableInfo(
                table_name=name, persistence="IN-MEMORY", estimated_rows=rows, total_size="-"
            )
            for name, rows in sorted(sizes.items())
        ]

    # --- Producers

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
    ) -> list[JobId]: ...

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
    ) -> list[JobId | None]: ...

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
    ) -> list[JobId]: ...

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
    ) -> list[JobId | None]: ...

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
    ) -> list[JobId] | list[JobId | None]:
        """Add one job, or one for each element of the lists.

        Args:
            entrypoint: Name of the handler.
            payload: The job's data.
            priority: Higher runs first; 32 bits.
            execute_after: Delay from now.
            dedupe_key: At most one queued or running job has the key.
            headers: What travels along with the job.
            on_conflict: If a key is taken: ``"raise"``; ``"skip"`` that job; or
                ``"update_priority"`` of the job that has it, which is only ever raised.

        Returns:
            The ids, in order; None where a job was skipped.

        Raises:
            DuplicateJobError: A key is taken, and *on_conflict* is ``"raise"``.
            InvalidJobError: The arguments do not describe jobs.
        """
        batch = enqueue_parameters.normalize(
            entrypoint, payload, priority, execute_after, dedupe_key, headers
        )
        enqueue_parameters.check_on_conflict(on_conflict, batch)
        tracer = self.tracer or TRACER.tracer
        if tracer is not None:
            batch = enqueue_parameters.trace_headers(batch, tracer)
        now = utc_now()
        ids, added = self._jobs.add(
            batch, enqueue_parameters.encode_headers(batch.headers), on_conflict, now
        )
        for row in added:
            self._journal.write(row, "queued", now)
        await self.emit_table_changed("insert")
        return [None if job_id is None else JobId(job_id) for job_id in ids]

    # --- Workers

    async def dequeue(
        self,
        batch_size: int,
        entrypoints: dict[QueueEntrypoint, EntrypointExecutionParameter],
        queue_manager_id: QueueManagerId,
        global_concurrency_limit: int | None,
        heartbeat_timeout: timedelta,
    ) -> list[models.Job]:
        """Claim jobs: due ones, and picked ones that were silent for the timeout.

        Args:
            batch_size: The most jobs to claim, at least 1.
            entrypoints: What the worker can run, with the limit of each.
            queue_manager_id: The worker; the claimed jobs are its own from now on.
            global_concurrency_limit: The most jobs the worker may hold; None for any number.
            heartbeat_timeout: Silence after which a picked job counts as abandoned.

        Raises:
            InvalidArgumentError: A ``ValueError``; *batch_size* is below 1, or something else is
                not what it should be.
        """
        batch_size = arguments.integer("batch_size", batch_size, 1)
        heartbeat_timeout = arguments.span("heartbeat_timeout", heartbeat_timeout)
        arguments.names("entrypoints", entrypoints)
        # A database would suspend here; without that, a worker that claims in a loop would let
        # no timer or signal through. Before the claim, so that a cancellation loses no job.
        await asyncio.sleep(0)
        now = utc_now()
        rows = self._jobs.claim(
            batch_size,
            entrypoints,
            queue_manager_id,
            global_concurrency_limit,
            heartbeat_timeout,
            now,
        )
        for row in rows:
            self._journal.write(row, "picked", now)
        return [_job(row) for row in rows]

    async def log_jobs(
        self,
        job_status: list[tuple[models.Job, types.JOB_STATUS, models.TracebackRecord | None]],
    ) -> None:
        """End jobs: each leaves the queue for the log; ``failed`` ones stay, held.

        A job that is gone, or that another worker has taken over, is left alone.
        """
        arguments.statuses("job_status", [status for _, status, _ in job_status])
        # First, as it fails on a record that has no JSON form: all or none.
        tracebacks = [_json(record) for _, _, record in job_status]
        now = utc_now()
        for (job, status, _), traceback in zip(job_status, tracebacks, strict=True):
            row = self._jobs.owned(job.id, job.queue_manager_id)
            if row is None:
                continue
            if status == "failed":
                self._jobs.hold(row, now)
            else:
                self._jobs.remove(row)
            self._journal.write(row, status, now, traceback)
        await self.emit_table_changed("delete")

    async def retry_job(
        self,
        job: models.Job,
        delay: timedelta,
        traceback_record: models.TracebackRecord | None,
    ) -> None:
        """Put a job back, due after *delay*, with ``attempts`` one higher.

        A job that is gone, that another worker has taken over, or that was put back before, is left
        alone.

        Raises:
            DuplicateJobError: The job was held, and its dedupe key is taken by now.
        """
        delay = arguments.delay("delay", delay)
        row = self._jobs.owned(job.id, job.queue_manager_id)
        if row is None or row.attempts != job.attempts:
            return
        traceback = _json(traceback_record)
        now = utc_now()
        self._jobs.requeue([row], delay, now, retry=True)
        self._journal.write(row, "queued", now, traceback)
        await self.emit_table_changed("update")

    async def update_heartbeat(self, job_ids: list[JobId]) -> None:
        """Say that the jobs are still being worked on."""
        self._jobs.beat(arguments.identities("job_ids", job_ids), utc_now())

    async def queued_work(self, entrypoints: list[QueueEntrypoint]) -> int:
        """Number of queued jobs, due or not."""
        return self._jobs.queued_count(arguments.names("entrypoints", entrypoints))

    async def eligible_queued_work(self, entrypoints: list[QueueEntrypoint]) -> int:
        """Number of queued jobs that are due."""
        return self._jobs.ready_count(arguments.names("entrypoints", entrypoints), utc_now())

    async def next_deferred_eta(self, entrypoints: list[QueueEntrypoint]) -> timedelta | None:
        """Time until the next deferred job is due; None if there is none."""
        now = utc_now()
        due = self._jobs.next_due(arguments.names("entrypoints", entrypoints), now)
        return None if due is None else due - now

    # --- Management

    async def requeue_jobs(self, ids: list[JobId]) -> None:
        """Make held ``failed`` jobs due again with ``attempts`` 0; leave all others alone.

        Raises:
            DuplicateJobError: The dedupe key of one is taken by now; none was requeued.
        """
        rows = [
            row
            for job_id in dict.fromkeys(arguments.identities("ids", ids))
            if (row := self._jobs.rows.get(job_id)) is not None and row.status == "failed"
        ]
        if not rows:
            return
        now = utc_now()
        self._jobs.requeue(rows, timedelta(0), now, retry=False)
        for row in rows:
            self._journal.write(row, "queued", now)
        await self.emit_table_changed("update")

    async def mark_job_as_cancelled(self, ids: list[JobId]) -> None:
        """Take jobs off the queue as ``canceled`` and tell the workers that run them."""
        now = utc_now()
        for job_id in arguments.identities("ids", ids):
            row = self._jobs.rows.get(job_id)
            if row is not None:
                self._jobs.remove(row)
                self._journal.write(row, "canceled", now)
        await self.emit_table_changed("delete")
        await self.notify_job_cancellation(ids)

    async def clear_queue(self, entrypoint: str | list[str] | None = None) -> None:
        """Delete the jobs of *entrypoint*, logged as ``deleted``; without one all, unlogged."""
        wanted = _names(entrypoint)
        if wanted is None:
            self._jobs.truncate()
            await self.emit_table_changed("truncate")
            return
        now = utc_now()
        for row in [row for row in self._jobs.rows.values() if row.entrypoint in wanted]:
            self._jobs.remove(row)
            self._journal.write(row, "deleted", now)
        await self.emit_table_changed("delete")

    async def clear_queue_log(self, entrypoint: str | list[str] | None = None) -> None:
        """Delete the log of *entrypoint*, without one all of it."""
        self._journal.clear_log(_names(entrypoint))

    async def clear_statistics_log(self, entrypoint: str | list[str] | None = None) -> None:
        """Delete the statistics of *entrypoint*, without one all of them."""
        self._journal.clear_statistics(_names(entrypoint))

    async def prune_log(
        self,
        older_than: timedelta,
        *,
        batch_size: int = 10_000,
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """Delete the log of more than *older_than* ago; how many rows that was.

        The statistics keep it. *batch_size* is of no account here; *on_progress* is called once.

        Raises:
            InvalidArgumentError: A ``ValueError``; *batch_size* is below 1, or *older_than*
                negative.
        """
        older_than, _ = arguments.pruning(older_than, batch_size)
        removed = self._journal.prune_log(utc_now() - older_than)
        if on_progress is not None:
            on_progress(removed)
        return removed

    async def prune_statistics(
        self,
        older_than: timedelta,
        *,
        batch_size: int = 10_000,
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """Delete the statistics of more than *older_than* ago; how many rows that was.

        Raises:
            InvalidArgumentError: A ``ValueError``; *batch_size* is below 1, or *older_than*
                negative.
        """
        older_than, _ = arguments.pruning(older_than, batch_size)
        removed = self._journal.prune_statistics(utc_now() - older_than)
        if on_progress is not None:
            on_progress(removed)
        return removed

    # --- Views

    async def queue_size(self) -> list[models.QueueStatistics]:
        """Number of jobs by entrypoint, priority and status."""
        return reports.queue_size(self._jobs.rows.values())

    async def list_failed_jobs(
        self, limit: int = 100, order: SortOrder = "DESC"
    ) -> list[models.Job]:
        """Held jobs by creation time.

        Raises:
            ValueError: *order* is neither ``"ASC"`` nor ``"DESC"``.
        """
        if order not in ("ASC", "DESC"):
            raise ValueError(f"order is {order!r}: pass 'ASC' or 'DESC'")
        limit_of = arguments.row_limit(limit)
        failed = [row for row in self._jobs.rows.values() if row.status == "failed"]
        failed.sort(key=lambda row: (row.created, row.id), reverse=order == "DESC")
        return [_job(row) for row in failed[:limit_of]]

    async def browse_queue(
        self,
        limit: int = 50,
        offset: int = 0,
        statuses: list[types.JOB_STATUS] | None = None,
        entrypoints: list[str] | None = None,
    ) -> list[models.Job]:
        """A page of the queue, highest priority first, then oldest; no filter lets all through."""
        return [
            _job(row)
            for row in reports.browse(
                self._jobs.rows.values(),
                arguments.row_limit(limit),
                arguments.integer("offset", offset, 0),
                arguments.statuses("statuses", statuses) if statuses else None,
                arguments.names("entrypoints", entrypoints) if entrypoints else None,
            )
        ]

    async def queue_job_by_id(self, id: JobId) -> models.Job | None:
        """The job, if it is still on the queue."""
        row = self._jobs.rows.get(JobId(arguments.identity("id", id)))
        return None if row is None else _job(row)

    async def queue_log(self) -> list[models.Log]:
        """The whole log, oldest first."""
        return [entry.to_model() for entry in self._journal.entries]

    async def job_log_history(self, id: JobId, limit: int = 100) -> list[models.Log]:
        """The job's status changes, oldest first."""
        entries = self._journal.by_job.get(JobId(arguments.identity("id", id)), ())
        return [entry.to_model() for entry in entries[: arguments.row_limit(limit)]]

    async def exception_logs(self, limit: int = 100) -> list[models.Log]:
        """The newest log rows with status ``exception``."""
        return reports.newest_exceptions(self._journal.entries, arguments.row_limit(limit))

    async def job_status(self, ids: list[JobId]) -> list[tuple[JobId, types.JOB_STATUS]]:
        """The latest logged status of each job that the log knows."""
        return self._journal.latest_status([*map(JobId, arguments.identities("ids", ids))])

    async def unaggregated_log_count(self) -> int:
        """Number of log rows that the statistics do not count yet."""
        return len(self._journal.pending)

    def aggregate_log_to_statistics(self) -> None:
        """Count new log rows into the statistics."""
        self._journal.aggregate()

    async def aggregate_logs(self) -> None:
        """Count new log rows into the statistics."""
        self._journal.aggregate()

    async def log_statistics(
        self, limit: int | None, last: timedelta | None = None
    ) -> list[models.LogStatistics]:
        """Count new log rows, then return the newest *limit* statistics of the *last* time."""
        rows, since = arguments.row_limit(limit), _since(last)
        self._journal.aggregate()
        return reports.log_statistics(self._journal.statistics, since, rows)

    async def queue_age(self) -> list[models.QueueAgeStats]:
        """Age of the queued jobs, by entrypoint."""
        return reports.queue_age(self._jobs.rows.values(), utc_now())

    async def job_duration_percentiles(self, last: timedelta) -> list[models.JobDurationStats]:
        """Run times of jobs that were picked and ended within the *last* time, slowest first."""
        return reports.durations(self._journal, _start_of("last", last))

    async def throughput_summary(
        self, last: timedelta | None = None
    ) -> list[models.ThroughputStats]:
        """Status changes by entrypoint and status; None looks back to the beginning."""
        since = _since(last)
        self._journal.aggregate()
        return reports.throughput_summary(self._journal.statistics, since)

    async def throughput_timeseries(self, last: timedelta) -> list[models.ThroughputBucket]:
        """Status changes by minute, entrypoint and status."""
        since = _start_of("last", last)
        self._journal.aggregate()
        return reports.throughput_timeseries(self._journal.statistics, since)

    async def active_workers(self) -> list[models.ActiveWorker]:
        """Workers that hold picked jobs."""
        return reports.active_workers(self._jobs.rows.values())

    async def stale_jobs(self, threshold: timedelta, limit: int = 100) -> list[models.StaleJob]:
        """Picked jobs without a heartbeat for longer than *threshold*, oldest first."""
        return reports.stale_jobs(
            self._jobs.rows.values(),
            arguments.span("threshold", threshold),
            arguments.row_limit(limit),
            utc_now(),
        )

    # --- Schedules

    async def insert_schedule(
        self, schedules: dict[models.CronExpressionEntrypoint, timedelta]
    ) -> None:
        """Register schedules with the time until their first run; known ones stay as they are."""
        arguments.schedules(schedules)
        self._schedules.insert(schedules, utc_now())

    async def fetch_schedule(
        self, entrypoints: dict[models.CronExpressionEntrypoint, timedelta]
    ) -> list[models.Schedule]:
        """Claim due schedules; each value is the time until the run after this one."""
        arguments.schedules(entrypoints)
        return self._schedules.claim(entrypoints, utc_now())

    async def set_schedule_queued(self, ids: set[ScheduleId]) -> None:
        """Give schedules back after a run."""
        self._schedules.finish(_schedule_ids(ids), utc_now())

    async def update_schedule_heartbeat(self, ids: set[ScheduleId]) -> None:
        """Say that the schedules' runs are still going on."""
        self._schedules.beat(_schedule_ids(ids), utc_now())

    async def peek_schedule(self) -> list[models.Schedule]:
        """All schedules, untouched; the longest idle first, those that never ran last."""
        return self._schedules.listing()

    async def delete_schedule(self, ids: set[ScheduleId], entrypoints: set[CronEntrypoint]) -> None:
        """Forget the schedules with one of *ids* or one of *entrypoints*."""
        self._schedules.delete(_schedule_ids(ids), arguments.names("entrypoints", entrypoints))

    async def clear_schedule(self) -> None:
        """Forget all schedules."""
        self._schedules.truncate()

    # --- Notifications

    async def notify_job_cancellation(self, ids: list[JobId]) -> None:
        """Ask the workers that run the jobs to cancel them."""
        channel = self.qbq.settings.channel
        for message in messages.cancellations(channel, arguments.identities("ids", ids)):
            await self.driver.notify(channel, message)

    async def notify_health_check(self, health_check_event_id: HealthCheckId) -> None:
        """Send a message that comes back to every listener, the sender included."""
        channel = self.qbq.settings.channel
        await self.driver.notify(channel, messages.health_check(channel, health_check_event_id))

    async def emit_table_changed(self, operation: types.OPERATIONS) -> None:
        """Send what the trigger on the queue table sends after a statement."""
        channel = self.qbq.settings.channel
        payload = to_json(
            {
                "channel": channel,
                "operation": operation,
                "sent_at": utc_now(),
                "table": self.qbe.settings.queue_table,
                "type": "table_changed_event",
            }
        )
        await self.driver.notify(channel, payload.decode())


def _names(entrypoint: str | Collection[str] | None) -> set[str] | None:
    """The entrypoints meant; None, which stands for all, also for an empty argument."""
    if not entrypoint:
        return None
    return set(
        arguments.names("entrypoint", [entrypoint] if isinstance(entrypoint, str) else entrypoint)
    )


def _start_of(name: str, window: timedelta) -> datetime:
    return utc_now() - arguments.span(name, window)


def _since(last: timedelta | None) -> datetime | None:
    return None if last is None else _start_of("last", last)


def _schedule_ids(ids: Collection[ScheduleId]) -> set[ScheduleId]:
    return set(map(ScheduleId, arguments.identities("ids", ids)))


def _json(record: models.TracebackRecord | None) -> str | None:
    return None if record is None else record.model_dump_json()


def _job(row: JobRow) -> models.Job:
    """A copy of *row* as the public API shows it."""
    job = object.__new__(models.Job)
    # As jobs from a database are made: without validation, which nothing here needs and which
    # would be most of what a claim costs. In the order of the model's fields.
    object.__setattr__(
        job,
        "__dict__",
        {
            "id": row.id,
            "priority": row.priority,
            "created": row.created,
            "updated": row.updated,
            "heartbeat": row.heartbeat,
            "execute_after": row.execute_after,
            "status": row.status,
            "entrypoint": row.entrypoint,
            "payload": row.payload,
            "attempts": row.attempts,
            "queue_manager_id": row.queue_manager_id,
            "slot": row.slot,
            "headers": None if row.headers is None else from_json(row.headers),
        },
    )
    return job
