"""Re-exports ``pgq_fast.tracing``."""

from __future__ import annotations

from pgq_fast.tracing import (
    TRACER,
    TracingConfig,
    TracingProtocol,
    set_tracing_class,
)

__all__ = ["TRACER", "TracingConfig", "TracingProtocol", "set_tracing_class"]
