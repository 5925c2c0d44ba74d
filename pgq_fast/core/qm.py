"""Re-exports ``pgq_fast.qm``."""

from __future__ import annotations

from pgq_fast.qm import (
    QueueManager,
)

__all__ = ["QueueManager"]
