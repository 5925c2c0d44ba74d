"""Re-exports the driver of ``pgq_fast.memory``."""

from __future__ import annotations

from pgq_fast.memory import (
    InMemoryDriver,
)

__all__ = ["InMemoryDriver"]
