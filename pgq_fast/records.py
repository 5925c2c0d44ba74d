"""What is known of jobs and of those that ran them: the log, statistics, a dashboard's figures."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator

from pgq_fast.fields import parsed_json
from pgq_fast.tracebacks import TracebackRecord
from pgq_fast.types import JOB_STATUS, JobId, QueueEntrypoint, QueueManagerId

__all__ = [
    "ActiveWorker",
    "EntrypointStat",
    "JobDurationStats",
    "JobStatusRow",
    "Log",
    "LogStatistics",
    "OverviewSnapshot",
    "QueueAgeStats",
    "QueueStatistics",
    "StaleJob",
    "TableInfo",
    "ThroughputBucket",
    "ThroughputStats",
]


class Log(BaseModel, defer_build=True):
    """One change of a job's status."""

    created: AwareDatetime
    job_id: JobId
    status: JOB_STATUS
    priority: int
    entrypoint: QueueEntrypoint
    traceback: Annotated[TracebackRecord | None, BeforeValidator(parsed_json)]
    aggregated: bool


class JobStatusRow(BaseModel, defer_build=True):
    """The latest status of a job."""

    job_id: JobId
    status: JOB_STATUS


class QueueStatistics(BaseModel, defer_build=True):
    """How many jobs the queue holds of an entrypoint, priority and status."""

    count: int
    entrypoint: QueueEntrypoint
    priority: int
    status: JOB_STATUS


class LogStatistics(BaseModel, defer_build=True):
    """How many jobs of an entrypoint and priority reached a status within one second."""

    count: int
    created: AwareDatetime
    entrypoint: QueueEntrypoint
    priority: int
    status: JOB_STATUS


class QueueAgeStats(BaseModel, defer_build=True):
    """Age of the queued jobs of an entrypoint."""

    entrypoint: QueueEntrypoint
    queued_count: int
    oldest_created: AwareDatetime
    oldest_age_seconds: float
    avg_age_seconds: float


class JobDurationStats(BaseModel, defer_build=True):
    """Run times of an entrypoint's finished jobs, from pick to end."""

    entrypoint: QueueEntrypoint
    completed: int
    p50_seconds: float
    p95_seconds: float
    p99_seconds: float
    max_seconds: float


class ThroughputStats(BaseModel, defer_build=True):
    """How many jobs of an entrypoint reached a status."""

    entrypoint: QueueEntrypoint
    status: JOB_STATUS
    total_count: int


class ThroughputBucket(BaseModel, defer_build=True):
    """How many jobs of an entrypoint reached a status within one minute."""

    bucket: AwareDatetime
    entrypoint: QueueEntrypoint
    status: JOB_STATUS
    count: int


class ActiveWorker(BaseModel, defer_build=True):
    """A worker that holds picked jobs."""

    queue_manager_id: QueueManagerId
    active_jobs: int
    oldest_heartbeat: AwareDatetime
    newest_heartbeat: AwareDatetime
    entrypoints: list[QueueEntrypoint]


class StaleJob(BaseModel, defer_build=True):
    """A picked job without a recent heartbeat."""

    id: JobId
    priority: int
    queue_manager_id: QueueManagerId | None
    created: AwareDatetime
    updated: AwareDatetime
    heartbeat: AwareDatetime
    execute_after: AwareDatetime
    status: JOB_STATUS
    entrypoint: QueueEntrypoint
    seconds_since_heartbeat: float


class TableInfo(BaseModel, defer_build=True):
    """Size of one of the queue's tables."""

    table_name: str
    persistence: str
    estimated_rows: int
    total_size: str


class EntrypointStat(BaseModel, defer_build=True):
    """An entrypoint at a glance; durations are seconds, the sparkline counts ended jobs."""

    entrypoint: QueueEntrypoint
    queued: int
    picked: int
    oldest_age_seconds: float | None
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None
    completed: int
    failure_rate: float | None
    sparkline: list[int]


class OverviewSnapshot(BaseModel, defer_build=True):
    """The queue at a glance."""

    queued_total: int
    picked_total: int
    failed_total: int
    active_workers: int
    oldest_queued_age_seconds: float | None
    exceptions_recent: int
