"""Re-exports ``pgq_fast.repository``."""

from __future__ import annotations

from pgq_fast.repository import (
    EntrypointExecutionParameter,
    InsightsRepositoryPort,
    NotificationPort,
    QueryBuilderEnvironmentPort,
    QueueRepositoryPort,
    ScheduleRepositoryPort,
    SchemaManagementPort,
)

__all__ = [
    "EntrypointExecutionParameter",
    "InsightsRepositoryPort",
    "NotificationPort",
    "QueryBuilderEnvironmentPort",
    "QueueRepositoryPort",
    "ScheduleRepositoryPort",
    "SchemaManagementPort",
]
