"""The data that users and workers exchange: jobs, log entries, schedules, events, statistics.

All of it is plain data without I/O. What only reports and listeners need, records and events, is
imported when it is asked for: each model adds to the time that an import of the package takes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Annotated, NamedTuple

import anyio
from pydantic import AwareDatetime, BaseModel, BeforeValidator
from pydantic_core import from_json

from pgq_fast.fields import parsed_json, utc_now as utc_now
from pgq_fast.logconfig import logger
from pgq_fast.tracebacks import TracebackRecord
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

if TYPE_CHECKING:
    from pgq_fast.events import (
        AnyEvent,
        CancellationEvent,
        Event,
        HealthCheckEvent,
        TableChangedEvent,
    )
    from pgq_fast.records import (
        ActiveWorker as ActiveWorker,
        EntrypointStat as EntrypointStat,
        JobDurationStats as JobDurationStats,
        JobStatusRow as JobStatusRow,
        Log,
        LogStatistics,
        OverviewSnapshot as OverviewSnapshot,
        QueueAgeStats as QueueAgeStats,
        QueueStatistics,
        StaleJob as StaleJob,
        TableInfo as TableInfo,
        ThroughputBucket as ThroughputBucket,
        ThroughputStats as ThroughputStats,
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

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """A record or an event, which few programs need."""
        # The import system asks each module for ``__path__``.
        if not name.startswith("__"):
            from pgq_fast import events, records

            for module in (events, records):
                if name in module.__all__:
                    # Once: the next look-up finds it like everything else.
                    globals()[name] = value = getattr(module, name)
                    return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """All names, those that were not imported yet as well."""
        from pgq_fast import events, records

        return sorted({*globals(), *events.__all__, *records.__all__})


class Job(BaseModel, defer_build=True):
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
    headers: Annotated[dict[str, object] | None, BeforeValidator(parsed_json)]

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
