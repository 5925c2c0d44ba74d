"""Re-exports the driver protocols of ``pgq_fast.drivers.base``."""

from __future__ import annotations

from pgq_fast.drivers.base import (
    Driver,
    ListenerRemover,
    NotifyCallback,
    SyncDriver,
    TaskManagerPort,
)

__all__ = ["Driver", "ListenerRemover", "NotifyCallback", "SyncDriver", "TaskManagerPort"]
