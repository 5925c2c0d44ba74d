"""Re-exports ``pgq_fast.tracing.sentry``."""

from __future__ import annotations

from pgq_fast.tracing.sentry import (
    SentryTracing,
)

__all__ = ["SentryTracing"]
