"""Re-exports ``pgq_fast.types``."""

from __future__ import annotations

from pgq_fast.types import (
    EVENT_TYPES,
    JOB_STATUS,
    OPERATIONS,
    Channel,
    CronEntrypoint,
    CronExpression,
    HealthCheckId,
    JobId,
    OnConflict,
    OnFailure,
    QueueEntrypoint,
    QueueExecutionMode,
    QueueManagerId,
    ScheduleId,
    Slot,
    SortOrder,
)

__all__ = [
    "EVENT_TYPES",
    "JOB_STATUS",
    "OPERATIONS",
    "Channel",
    "CronEntrypoint",
    "CronExpression",
    "HealthCheckId",
    "JobId",
    "OnConflict",
    "OnFailure",
    "QueueEntrypoint",
    "QueueExecutionMode",
    "QueueManagerId",
    "ScheduleId",
    "Slot",
    "SortOrder",
]
