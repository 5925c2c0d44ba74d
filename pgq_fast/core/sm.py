"""Re-exports ``pgq_fast.sm``."""

from __future__ import annotations

from pgq_fast.sm import (
    SchedulerManager,
)

__all__ = ["SchedulerManager"]
