"""Re-exports ``pgq_fast.insights``."""

from __future__ import annotations

from pgq_fast.insights import (
    InsightsService,
    QueueManagementService,
)

__all__ = ["InsightsService", "QueueManagementService"]
