"""Re-exports ``pgq_fast.observer``."""

from __future__ import annotations

from pgq_fast.observer import (
    RunOutcome,
    WorkerObserver,
)

__all__ = ["RunOutcome", "WorkerObserver"]
