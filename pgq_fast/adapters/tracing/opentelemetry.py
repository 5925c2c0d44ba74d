"""Re-exports ``pgq_fast.tracing.opentelemetry``."""

from __future__ import annotations

from pgq_fast.tracing.opentelemetry import (
    OpenTelemetryTracing,
)

__all__ = ["OpenTelemetryTracing"]
