"""The data that users and workers exchange: jobs, log entries, schedules, events, statistics.

All of it is plain data without I/O.
"""

from __future__ import annotations

import dataclasses
import traceback as traceback_module
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple

import anyio
from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field, RootModel
from pydantic_core import from_json

from pgq_fast.logconfig import logger
from pgq_fast.types import (
    EVENT_TYPES,
    JOB_STATUS,
    OPERATIONS,
    Channel,
    CronEntrypoint,
    CronExpression,
    HealthCheckId,
    JobId,
    QueueEntrypoint,
    QueueManagerId,
    ScheduleId,
    Slot,
)

__all__ = [
    "EVENT_TYPES",
    "JOB_STATUS",
    "OPERATIONS",
    "AnyEvent",
    "CancellationEvent",
    "Channel",
    "Context",
    "CronEntrypoint",
    "CronExpression",
    "CronExpressionEntrypoint",
    "Event",
    "HealthCheckEvent",
    "HealthCheckId",
    "Job",
    "JobId",
    "Log",
    "LogStatistics",
    "QueueEntrypoint",
    "QueueManagerId",
    "QueueStatistics",
    "Schedule",
    "ScheduleContext",
    "ScheduleId",
    "Slot",
    "TableChangedEvent",
    "TracebackRecord",
]


def utc_now() -> datetime:
    """The client's clock, in UTC. Leases and heartbeats never depend on it."""
    return datetime.now(UTC)


class Event(BaseModel, defer_build=True):
    """What a NOTIFY on the queue's channel says; ``received_at`` is stamped when it is read."""

    channel: Channel
    sent_at: AwareDatetime
    type: EVENT_TYPES
    received_at: AwareDatetime = Field(init=False, default_factory=utc_now)

    @property
    def latency(self) -> timedelta:
        """Time from the sender's clock to the receiver's."""
        return self.received_at - self.sent_at


class TableChangedEvent(Event):
    """A statement touched the queue table."""

    type: Literal["table_changed_event"]
    operation: OPERATIONS
    table: str


class CancellationEvent(Event):
    """Workers that run one of *ids* are asked to cancel it."""

    type: Literal["cancellation_event"]
    ids: list[JobId]


class HealthCheckEvent(Event):
    """A worker's message to itself, to see that LISTEN works."""

    type: Literal["health_check_event"]
    id: HealthCheckId


class AnyEvent(
    RootModel[
        Annotated[
            TableChangedEvent | CancellationEvent | HealthCheckEvent,
            Field(discriminator="type"),
        ]
    ],
    defer_build=True,
):
    """Any of the events, told apart by ``type``."""


def _parsed_json(value: object) -> object:
    """JSON text as the drivers may deliver it, parsed; anything else as it is."""
    return from_json(value) if isinstance(value, (str, bytes, bytearray)) else value


class Job(BaseModel):
    """A row of the queue.

    ``slot`` is the seat that a picked job of an entrypoint with a ``concurrency_limit`` holds.

    A job made by a claim is built without validation from the record that the statement returned.
    """

    id: JobId
    priority: int
    created: AwareDatetime
    updated: AwareDatetime
    heartbeat: AwareDatetime
    execute_after: AwareDatetime
    status: JOB_STATUS
    entrypoint: QueueEntrypoint
    payload: bytes | None
    attempts: int = 0
    queue_manager_id: QueueManagerId | None
    slot: Slot | None = None
    headers: Annotated[dict[str, object] | None, BeforeValidator(_parsed_json)]

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            """Only called for what is not there: of a claimed job, pydantic's own slots."""
            if name == "__pydantic_fields_set__":
                value = set(type(self).model_fields)
            elif name in ("__pydantic_extra__", "__pydantic_private__"):
                value = None
            else:
                return super().__getattr__(name)
            object.__setattr__(self, name, value)
            return value

    def header_section(self, key: str) -> dict[str, object] | None:
        """The dict under *key* in the headers; None if it is absent or no dict."""
        section = None if self.headers is None else self.headers.get(key)
        return section if isinstance(section, dict) else None

    def logfire_headers(self) -> dict[str, object] | None:
        """What the Logfire tracer put into the headers."""
        return self.header_section("logfire")

    def sentry_headers(self) -> dict[str, object] | None:
        """What the Sentry tracer put into the headers."""
        return self.header_section("sentry")

    def otel_headers(self) -> dict[str, object] | None:
        """What the OpenTelemetry tracer put into the headers: W3C trace context."""
        return self.header_section("otel")


def parse_headers(job_id: int, text: bytes) -> dict[str, object] | None:
    """Headers of a job from their JSON.

    What is no JSON object is bad input from elsewhere: it is logged, and None.
    """
    try:
        headers = from_json(text)
    except ValueError:
        # jsonb nests deeper and holds larger numbers than the parser takes. Its error is not
        # logged: it may quote the text.
        logger.warning(
            "Job %s has headers that cannot be parsed; they are ignored",
            job_id,
            extra={"job_id": job_id},
        )
        return None
    if headers is None or isinstance(headers, dict):
        return headers
    logger.warning(
        "Job %s has headers that are a JSON %s, not an object; they are ignored",
        job_id,
        type(headers).__name__,
        extra={"job_id": job_id},
    )
    return None


MESSAGE_CHARACTERS: Final = 2**16
TRACEBACK_CHARACTERS: Final = 2**18
"""What the log keeps of the texts of one exception: a value has its limits on the server, and a
statement that acknowledges many jobs too."""


def _storable(text: str, limit: int = MESSAGE_CHARACTERS) -> str:
    """*text* with what ``jsonb`` refuses spelled out, NUL and lone surrogates, and less of its
    middle than *limit* characters do not hold.
    """
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"
    return text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()


def _message(exc: Exception) -> str:
    try:
        return str(exc)
    except Exception as error:
        return f"<{type(exc).__name__} fails to give its message: {type(error).__name__}>"


class TracebackRecord(BaseModel, defer_build=True):
    """What the log keeps of an exception."""

    job_id: JobId
    timestamp: datetime
    exception_type: str
    exception_message: str
    traceback: str
    additional_context: dict[str, object] | None

    @classmethod
    def from_exception(
        cls,
        exc: Exception,
        job_id: JobId,
        additional_context: dict[str, object] | None = None,
    ) -> TracebackRecord:
        """Record *exc*, raised while job *job_id* ran."""
        return cls(
            job_id=job_id,
            timestamp=utc_now(),
            exception_type=type(exc).__name__,
            exception_message=_storable(_message(exc)),
            traceback=_storable(
                "".join(traceback_module.format_exception(exc)), TRACEBACK_CHARACTERS
            ),
            additional_context=additional_context
            and {
                key: _storable(value) if isinstance(value, str) else value
                for key, value in additional_context.items()
            },
        )


class Log(BaseModel, defer_build=True):
    """One change of a job's status."""

    created: AwareDatetime
    job_id: JobId
    status: JOB_STATUS
    priority: int
    entrypoint: QueueEntrypoint
    traceback: Annotated[TracebackRecord | None, BeforeValidator(_parsed_json)]
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


@dataclasses.dataclass
class Context:
    """What a handler gets beside its job.

    Attributes:
        cancellation: Scope that is cancelled when somebody cancels the job; a handler enters it
            around what may be interrupted.
        resources: The mapping given to the worker, shared by all jobs.
    """

    cancellation: anyio.CancelScope
    resources: MutableMapping[str, object] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class ScheduleContext:
    """What a scheduled function gets beside its schedule.

    Attributes:
        resources: The mapping given to the scheduler, shared by all runs.
    """

    resources: MutableMapping[str, object] = dataclasses.field(default_factory=dict)


class CronExpressionEntrypoint(NamedTuple):
    """Identity of a schedule."""

    entrypoint: CronEntrypoint
    expression: CronExpression


class Schedule(BaseModel, defer_build=True):
    """A row of the schedules table."""

    id: ScheduleId
    expression: CronExpression
    heartbeat: AwareDatetime
    created: AwareDatetime
    updated: AwareDatetime
    next_run: AwareDatetime
    last_run: AwareDatetime | None = None
    status: JOB_STATUS
    entrypoint: CronEntrypoint


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
