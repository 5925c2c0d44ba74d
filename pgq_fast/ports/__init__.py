"""The protocols: what a driver, a repository and a tracer have to offer."""

from __future__ import annotations

from pgq_fast.drivers.base import (
    Driver,
    SyncDriver,
)
from pgq_fast.repository import (
    NotificationPort,
    QueryBuilderEnvironmentPort,
    QueueRepositoryPort,
    RepositoryPort,
    ScheduleRepositoryPort,
    SchemaManagementPort,
)
from pgq_fast.tracing import (
    TracingProtocol,
)

__all__ = [
    "Driver",
    "NotificationPort",
    "QueryBuilderEnvironmentPort",
    "QueueRepositoryPort",
    "RepositoryPort",
    "ScheduleRepositoryPort",
    "SchemaManagementPort",
    "SyncDriver",
    "TracingProtocol",
]
