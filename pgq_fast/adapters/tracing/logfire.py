"""Re-exports ``pgq_fast.tracing.logfire``."""

from __future__ import annotations

from pgq_fast.tracing.logfire import (
    LogfireTracing,
)

__all__ = ["LogfireTracing"]
