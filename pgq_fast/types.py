"""Names for the values that cross the public API: ids, statuses, modes."""

from __future__ import annotations

import uuid
from enum import Enum
from typing import Literal, NewType

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
]


class QueueExecutionMode(Enum):
    """How long a worker runs."""

    continuous = "continuous"
    """Until it is told to stop."""

    drain = "drain"
    """Until the queue holds no queued job and every started job has ended."""


Channel = NewType("Channel", str)
OPERATIONS = Literal["insert", "update", "delete", "truncate"]
EVENT_TYPES = Literal["table_changed_event", "cancellation_event", "health_check_event"]

JobId = NewType("JobId", int)
QueueEntrypoint = NewType("QueueEntrypoint", str)
QueueManagerId = NewType("QueueManagerId", uuid.UUID)
HealthCheckId = NewType("HealthCheckId", uuid.UUID)
Slot = NewType("Slot", int)
JOB_STATUS = Literal[
    "queued",
    "picked",
    "successful",
    "canceled",
    "deleted",
    "exception",
    "failed",
]

OnConflict = Literal["raise", "skip", "update_priority"]
OnFailure = Literal["delete", "hold"]
SortOrder = Literal["ASC", "DESC"]

CronEntrypoint = NewType("CronEntrypoint", str)
CronExpression = NewType("CronExpression", str)
ScheduleId = NewType("ScheduleId", int)
