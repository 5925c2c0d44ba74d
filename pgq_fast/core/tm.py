"""Re-exports ``pgq_fast.tasks``."""

from __future__ import annotations

from pgq_fast.tasks import (
    TaskManager,
    cancel_and_wait,
    cancel_on_exit,
)

__all__ = ["TaskManager", "cancel_and_wait", "cancel_on_exit"]
